//! Writes a name.

use super::limits::{LARGE, MAX_BYTES, MAX_MAP_WORK, NameError, SMALL};
use super::span::Span;
use super::tag;
use super::uuid;

/// A buffer that is large enough for every name. Each thread has one.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8; MAX_BYTES]>,
    moved: Vec<u8>,
    spans: Vec<Span>,
}

impl Buffer {
    /// An empty buffer. A page of it takes memory once a name was long enough to reach it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Made on the heap, because a thread of the VM has a small stack.
            bytes: vec![0; MAX_BYTES]
                .into_boxed_slice()
                .try_into()
                .unwrap_or_else(|_| unreachable!("as many bytes as were asked for")),
            moved: Vec::new(),
            spans: Vec::new(),
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes one name, term by term, in the order in which they stand.
#[derive(Debug)]
pub struct Encoder<'a> {
    bytes: &'a mut [u8; MAX_BYTES],
    len: usize,
    /// By how much small parts counted for more than their bytes.
    extra: usize,
    moved: &'a mut Vec<u8>,
    /// The pairs of the maps that have not ended yet; those of an inner map stand behind those of
    /// the map around it.
    spans: &'a mut Vec<Span>,
    map_work: usize,
    anys: usize,
    bound: bool,
}

impl<'a> Encoder<'a> {
    /// Starts a name at the front of the buffer.
    #[inline]
    pub fn new(buffer: &'a mut Buffer) -> Self {
        // A name that was refused may have left some.
        buffer.spans.clear();
        Self {
            bytes: &mut buffer.bytes,
            len: 0,
            extra: 0,
            moved: &mut buffer.moved,
            spans: &mut buffer.spans,
            map_work: 0,
            anys: 0,
            bound: false,
        }
    }

    /// How much of the term has been read so far, in bytes, of which a name may have at most
    /// [`MAX_BYTES`]. Counts for a term that was refused, too.
    #[inline]
    #[must_use]
    pub fn work(&self) -> usize {
        self.len + self.extra
    }

    /// How often [`Self::any`] has been written.
    #[must_use]
    pub fn anys(&self) -> usize {
        self.anys
    }

    /// Whether the name has a part that its bytes identify but cannot bring back as it was: a
    /// reference, which may keep something alive, or a term of another node, because a node may
    /// change its name.
    #[inline]
    #[must_use]
    pub fn bound(&self) -> bool {
        self.bound
    }

    /// The bytes written so far. They are the name once the whole term has been written.
    #[inline]
    #[must_use]
    pub fn finish(self) -> &'a [u8] {
        &self.bytes[..self.len]
    }

    /// A term that is its own word, if the word has 32 bits and its two lowest bits are set, as they
    /// are for such terms in all emulators so far. A term has to be written in this way always or
    /// never. Five small integers make 20 bytes, without a branch on their kind.
    #[inline]
    pub fn word(&mut self, word: u32) -> Result<(), NameError> {
        debug_assert!(word & u32::from(tag::MASK) == u32::from(tag::WORD));
        self.put(word.to_le_bytes())
    }

    /// An atom, by its word.
    pub fn atom(&mut self, word: u64) -> Result<(), NameError> {
        self.tagged(tag::ATOM, word.to_le_bytes())
    }

    /// A pid of this node, by its word.
    pub fn local_pid(&mut self, word: u64) -> Result<(), NameError> {
        self.tagged(tag::LOCAL_PID, word.to_le_bytes())
    }

    /// A port of this node, by its word.
    pub fn local_port(&mut self, word: u64) -> Result<(), NameError> {
        self.tagged(tag::LOCAL_PORT, word.to_le_bytes())
    }

    /// An integer that fits 64 bits with a sign.
    pub fn integer(&mut self, value: i64) -> Result<(), NameError> {
        self.tagged(tag::INTEGER, value.to_le_bytes())
    }

    /// An integer that fits 64 bits without a sign.
    pub fn unsigned(&mut self, value: u64) -> Result<(), NameError> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.tagged(tag::UNSIGNED, value.to_le_bytes()),
        }
    }

    /// An integer that fits neither, by its magnitude, little-endian without leading zeroes.
    pub fn big(&mut self, negative: bool, magnitude: &[u8]) -> Result<(), NameError> {
        self.put([if negative {
            tag::NEGATIVE_BIG
        } else {
            tag::BIG
        }])?;
        self.plain_binary(magnitude)
    }

    /// A float by its bits. The caller has to decide whether `0.0` and `-0.0` are one name, which
    /// differs between releases of the VM.
    pub fn float(&mut self, value: f64) -> Result<(), NameError> {
        self.tagged(tag::FLOAT, value.to_bits().to_le_bytes())
    }

    /// A tuple; `arity` terms have to follow.
    #[inline]
    pub fn tuple(&mut self, arity: usize) -> Result<(), NameError> {
        if let Ok(arity @ 0..=15) = u8::try_from(arity) {
            self.small([arity << 2 | tag::TUPLE])
        } else {
            self.expect(arity)?;
            self.counted(tag::LONG_TUPLE, arity)
        }
    }

    /// The empty list.
    pub fn nil(&mut self) -> Result<(), NameError> {
        self.small([tag::NIL])
    }

    /// A list of at least one element; its elements have to follow, then [`Self::list_end`], or
    /// [`Self::list_tail`] and the last tail.
    pub fn list(&mut self) -> Result<(), NameError> {
        // Counts for its end, too.
        self.count_for(SMALL, 0)?;
        self.small([tag::LIST])
    }

    /// The end of a proper list.
    pub fn list_end(&mut self) -> Result<(), NameError> {
        self.put([tag::END])
    }

    /// The last tail of an improper list follows.
    pub fn list_tail(&mut self) -> Result<(), NameError> {
        self.put([tag::TAIL])
    }

    /// A binary.
    #[inline]
    pub fn binary(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        match uuid::parse(bytes) {
            Some(uuid) => self.tagged(tag::UUID, uuid),
            None => self.plain_binary(bytes),
        }
    }

    /// A bitstring whose size is no multiple of eight: `last` bits (1 to 7) of its last byte count.
    pub fn bits(&mut self, padded: &[u8], last: u8) -> Result<(), NameError> {
        self.put([tag::BITS, last])?;
        self.plain_binary(padded)
    }

    /// A function with an environment; the list that identifies it has to follow.
    pub fn fun(&mut self) -> Result<(), NameError> {
        self.put([tag::FUN])
    }

    /// `&Module.function/arity`; the list of the three has to follow.
    pub fn export(&mut self) -> Result<(), NameError> {
        self.put([tag::EXPORT])
    }

    /// A reference of this node by its numbers.
    pub fn local_reference(&mut self, numbers: &[u8]) -> Result<(), NameError> {
        self.bound = true;
        self.count_for(LARGE, 2 + numbers.len())?;
        self.put([tag::LOCAL_REFERENCE])?;
        self.plain_binary(numbers)
    }

    /// A pid, port or reference of another node by its external format.
    pub fn remote(&mut self, external: &[u8]) -> Result<(), NameError> {
        self.bound = true;
        self.count_for(LARGE, 2 + external.len())?;
        self.put([tag::REMOTE])?;
        self.plain_binary(external)
    }

    /// In a pattern: any term. Not allowed in the key of a map, because the place of a pair depends
    /// on the bytes of its key.
    pub fn any(&mut self) -> Result<(), NameError> {
        self.anys += 1;
        self.small([tag::ANY])
    }

    /// A map of `size` pairs. The pairs have to follow in any order, key then value, with
    /// [`Pairs::value`] called between the two and [`Pairs::next`] after each; then
    /// [`Self::map_end`].
    pub fn map(&mut self, size: usize) -> Result<Pairs, NameError> {
        self.count_for(LARGE, 5)?;
        self.expect(size.saturating_mul(2))?;
        self.counted(tag::MAP, size)?;
        self.spans.reserve(size);
        Ok(Pairs {
            first: self.len,
            start: self.len,
            value: self.len,
            spans: self.spans.len(),
        })
    }

    /// The end of a map. Puts its pairs into the order of their keys' bytes, because the VM does not
    /// promise that its own order depends on the keys alone.
    // By value: a map ends once.
    #[allow(clippy::needless_pass_by_value)]
    pub fn map_end(&mut self, pairs: Pairs) -> Result<(), NameError> {
        let bytes = &*self.bytes;
        let spans = &mut self.spans[pairs.spans..];
        if !spans.is_sorted_by(|a, b| a.compare(b, bytes).is_le()) {
            self.map_work += self.len - pairs.first;
            if self.map_work > MAX_MAP_WORK {
                return Err(NameError::TooManyMaps);
            }
            spans.sort_unstable_by(|a, b| a.compare(b, bytes));
            self.moved.clear();
            for span in &*spans {
                self.moved.extend_from_slice(&bytes[span.pair()]);
            }
            self.bytes[pairs.first..self.len].copy_from_slice(self.moved);
        }
        self.spans.truncate(pairs.spans);
        Ok(())
    }

    fn plain_binary(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        match u8::try_from(bytes.len()) {
            Ok(size @ 0..=63) => {
                self.count_for(SMALL, 1 + bytes.len())?;
                self.put([size << 2 | tag::BINARY])?;
            }
            _ => self.counted(tag::LONG_BINARY, bytes.len())?,
        }
        let room = self
            .bytes
            .get_mut(self.len..)
            .and_then(|rest| rest.get_mut(..bytes.len()))
            .ok_or(NameError::TooLarge)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// A part of one byte.
    #[inline]
    fn small(&mut self, byte: [u8; 1]) -> Result<(), NameError> {
        self.count_for(SMALL, 1)?;
        self.put(byte)
    }

    /// Makes a part of so many bytes count for at least `least`.
    #[inline]
    fn count_for(&mut self, least: usize, bytes: usize) -> Result<(), NameError> {
        self.extra += least.saturating_sub(bytes);
        if self.len + self.extra > MAX_BYTES {
            return Err(NameError::TooLarge);
        }
        Ok(())
    }

    /// Refuses a term that has more parts than the name has room for.
    fn expect(&mut self, parts: usize) -> Result<(), NameError> {
        if parts > (MAX_BYTES - self.len) / SMALL {
            return Err(NameError::TooLarge);
        }
        Ok(())
    }

    fn counted(&mut self, tag: u8, count: usize) -> Result<(), NameError> {
        // If the count does not fit 32 bits, the parts do not fit a name.
        let count = u32::try_from(count).map_err(|_| NameError::TooLarge)?;
        self.tagged(tag, count.to_le_bytes())
    }

    #[inline]
    fn tagged<const N: usize>(&mut self, tag: u8, body: [u8; N]) -> Result<(), NameError> {
        self.put([tag])?;
        self.put(body)
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), NameError> {
        let room = self
            .bytes
            .get_mut(self.len..)
            .and_then(|rest| rest.first_chunk_mut())
            .ok_or(NameError::TooLarge)?;
        *room = bytes;
        self.len += N;
        Ok(())
    }
}

/// Where a map that is being written lies in the buffer.
#[derive(Debug)]
pub struct Pairs {
    first: usize,
    start: usize,
    value: usize,
    /// How many pairs of other maps stand before its own in `Encoder::spans`.
    spans: usize,
}

impl Pairs {
    /// The key has been written; the value comes next.
    pub fn value(&mut self, encoder: &Encoder<'_>) {
        self.value = encoder.len;
    }

    /// The pair has been written.
    pub fn next(&mut self, encoder: &mut Encoder<'_>) {
        let span = Span::new(encoder.bytes, [self.start, self.value, encoder.len]);
        encoder.spans.push(span);
        self.start = encoder.len;
    }
}
