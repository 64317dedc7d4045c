//! Names as canonical bytes.
//!
//! A name is any Erlang term. The table owns names as bytes, written by an [`Encoder`] such that
//! two byte strings are equal exactly when the two terms are `===`. The grammar is prefix-free: a
//! term says by its first byte how it goes on, so terms can stand one after another without a
//! length in front of the whole, and one pass over a term writes it.
//!
//! What identifies an atom, a local pid or a local port inside one VM is a machine word that never
//! changes; it goes in as it is. So the bytes mean something in this VM only, and never leave it.

use thiserror::Error;

/// The longest name, in canonical bytes. Keeps any one call on a name well under a millisecond.
pub const MAX_BYTES: usize = 64 * 1024;

/// The deepest nesting of a name. Keeps the walk of a name within a small part of a NIF's stack.
pub const MAX_DEPTH: usize = 256;

/// The most bytes moved while the maps of one name are put in order, over all its levels.
const MAX_MAP_WORK: usize = 4 * MAX_BYTES;

/// A scalar is written as its tag plus its width, then that many bytes; none is wider than this.
const SCALAR_BYTES: usize = 9;

/// First bytes of terms. A tag marked `+n` is followed by `n` (0 to 8) bytes of a little-endian
/// number without its leading zeroes, and the tag itself is the constant plus `n`.
pub mod tag {
    /// `+n`, the integers of 64 bits with a sign, zigzag coded.
    pub const INTEGER: u8 = 0x00;
    /// `+n`, the integers above `i64::MAX` that fit 64 bits.
    pub const UNSIGNED: u8 = 0x10;
    /// `+n`, the word of the atom.
    pub const ATOM: u8 = 0x20;
    /// `+n`, the word of a pid of this node.
    pub const LOCAL_PID: u8 = 0x30;
    /// `+n`, the word of a port of this node.
    pub const LOCAL_PORT: u8 = 0x40;
    /// Plus the arity (0 to 15), then the elements.
    pub const TUPLE: u8 = 0x50;
    /// `+n`, the arity from 16 up, then the elements.
    pub const TUPLE_N: u8 = 0x60;
    /// `+n`, the size in bytes from 32 up, then the bytes.
    pub const BINARY_N: u8 = 0x70;
    /// Plus the size in bytes (0 to 31), then the bytes.
    pub const BINARY: u8 = 0x80;
    /// A binary that is the text of a UUID in lower case, as the 16 bytes it stands for.
    pub const UUID: u8 = 0xA0;
    /// Eight bytes of an IEEE 754 double.
    pub const FLOAT: u8 = 0xA1;
    /// The empty list.
    pub const NIL: u8 = 0xA2;
    /// Elements, then [`END`], or [`TAIL`] and a last tail.
    pub const LIST: u8 = 0xA3;
    /// Ends a proper list.
    pub const END: u8 = 0xA4;
    /// Ends the elements of an improper list; its last tail follows.
    pub const TAIL: u8 = 0xA5;
    /// `+n`, the number of pairs, then key and value of each, in the order of the keys' bytes.
    pub const MAP: u8 = 0xB0;
    /// A positive integer of more than 64 bits, as a binary of its magnitude.
    pub const BIG: u8 = 0xC0;
    /// A negative integer of more than 63 bits, as a binary of its magnitude.
    pub const NEGATIVE_BIG: u8 = 0xC1;
    /// A bitstring: the binary that it is when padded with zero bits, after a byte that tells how
    /// many bits of its last byte count.
    pub const BITS: u8 = 0xC2;
    /// A function with an environment, as the list of what makes it equal to another.
    pub const FUN: u8 = 0xC3;
    /// `&Module.function/arity`, as the list of the three.
    pub const EXPORT: u8 = 0xC4;
    /// A reference of this node: a binary of its numbers.
    pub const LOCAL_REFERENCE: u8 = 0xC5;
    /// A pid, port or reference of another node: a binary, its external format.
    pub const REMOTE: u8 = 0xC6;
}

/// Why a term cannot be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// More than [`MAX_BYTES`] in canonical form.
    #[error("the name is larger than {MAX_BYTES} bytes in canonical form")]
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`], or maps in maps so large that ordering them takes too long.
    #[error("the name is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// A buffer that is large enough for every name; one is kept for each thread.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    moved: Vec<u8>,
}

impl Buffer {
    /// An empty buffer. Its pages cost memory only once a name has been long enough to touch them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // A scalar is written whole before its width is known, so room for one lies behind.
            bytes: vec![0; MAX_BYTES + SCALAR_BYTES].into_boxed_slice(),
            moved: Vec::new(),
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
    buffer: &'a mut Buffer,
    len: usize,
    map_work: usize,
}

impl<'a> Encoder<'a> {
    /// Starts a name at the front of the buffer.
    pub fn new(buffer: &'a mut Buffer) -> Self {
        Self {
            buffer,
            len: 0,
            map_work: 0,
        }
    }

    /// The bytes written so far: the name, once its last term is in.
    #[must_use]
    pub fn finish(self) -> &'a [u8] {
        &self.buffer.bytes[..self.len]
    }

    /// An atom, by its word.
    #[inline]
    pub fn atom(&mut self, word: u64) -> Result<(), NameError> {
        self.scalar(tag::ATOM, word)
    }

    /// A pid of this node, by its word.
    #[inline]
    pub fn local_pid(&mut self, word: u64) -> Result<(), NameError> {
        self.scalar(tag::LOCAL_PID, word)
    }

    /// A port of this node, by its word.
    #[inline]
    pub fn local_port(&mut self, word: u64) -> Result<(), NameError> {
        self.scalar(tag::LOCAL_PORT, word)
    }

    /// An integer that fits 64 bits with a sign.
    #[inline]
    pub fn integer(&mut self, value: i64) -> Result<(), NameError> {
        // Zigzag: small magnitudes of either sign become small numbers.
        let zigzag = (value << 1) ^ (value >> 63);
        self.scalar(tag::INTEGER, zigzag.cast_unsigned())
    }

    /// An integer above `i64::MAX` that fits 64 bits; a smaller one goes to [`Self::integer`].
    pub fn unsigned(&mut self, value: u64) -> Result<(), NameError> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.scalar(tag::UNSIGNED, value),
        }
    }

    /// An integer of any size by its magnitude, little-endian.
    pub fn big(&mut self, negative: bool, magnitude: &[u8]) -> Result<(), NameError> {
        self.byte(if negative {
            tag::NEGATIVE_BIG
        } else {
            tag::BIG
        })?;
        self.plain_binary(magnitude)
    }

    /// A float by its bits. Whether `0.0` and `-0.0` are one name is the caller's to know: it
    /// differs between releases of the VM.
    pub fn float(&mut self, value: f64) -> Result<(), NameError> {
        self.byte(tag::FLOAT)?;
        self.bytes(&value.to_bits().to_le_bytes())
    }

    /// A tuple; `arity` terms have to follow.
    #[inline]
    pub fn tuple(&mut self, arity: usize) -> Result<(), NameError> {
        match u8::try_from(arity) {
            Ok(arity @ 0..=15) => self.byte(tag::TUPLE + arity),
            _ => self.scalar(tag::TUPLE_N, arity as u64),
        }
    }

    /// The empty list.
    pub fn nil(&mut self) -> Result<(), NameError> {
        self.byte(tag::NIL)
    }

    /// A list of at least one element; its elements have to follow, then [`Self::list_end`], or
    /// [`Self::list_tail`] and the last tail.
    pub fn list(&mut self) -> Result<(), NameError> {
        self.byte(tag::LIST)
    }

    /// The end of a proper list.
    pub fn list_end(&mut self) -> Result<(), NameError> {
        self.byte(tag::END)
    }

    /// The last tail of an improper list follows.
    pub fn list_tail(&mut self) -> Result<(), NameError> {
        self.byte(tag::TAIL)
    }

    /// A binary.
    #[inline]
    pub fn binary(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        if let Some(uuid) = parse_uuid(bytes) {
            self.byte(tag::UUID)?;
            return self.bytes(&uuid);
        }
        self.plain_binary(bytes)
    }

    /// A bitstring whose size is no multiple of eight: `last` bits (1 to 7) of its last byte count.
    pub fn bits(&mut self, padded: &[u8], last: u8) -> Result<(), NameError> {
        self.byte(tag::BITS)?;
        self.byte(last)?;
        self.plain_binary(padded)
    }

    /// A function with an environment; the list that identifies it has to follow.
    pub fn fun(&mut self) -> Result<(), NameError> {
        self.byte(tag::FUN)
    }

    /// `&Module.function/arity`; the list of the three has to follow.
    pub fn export(&mut self) -> Result<(), NameError> {
        self.byte(tag::EXPORT)
    }

    /// A reference of this node by its numbers.
    pub fn local_reference(&mut self, numbers: &[u8]) -> Result<(), NameError> {
        self.byte(tag::LOCAL_REFERENCE)?;
        self.plain_binary(numbers)
    }

    /// A pid, port or reference of another node by its external format.
    pub fn remote(&mut self, external: &[u8]) -> Result<(), NameError> {
        self.byte(tag::REMOTE)?;
        self.plain_binary(external)
    }

    /// A map of `size` pairs. `write` writes the pairs in any order, key then value, and calls
    /// [`Pairs::value`] between the two and [`Pairs::next`] after each.
    pub fn map<E: From<NameError>>(
        &mut self,
        size: usize,
        write: impl FnOnce(&mut Self, &mut Pairs) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scalar(tag::MAP, size as u64)?;
        let mut pairs = Pairs {
            start: self.len,
            value: self.len,
            // At least two bytes a pair, so no claimed size can reserve more than a name holds.
            spans: Vec::with_capacity(size.min(MAX_BYTES / 2)),
        };
        let first = self.len;
        write(self, &mut pairs)?;
        self.order(first, pairs.spans)?;
        Ok(())
    }

    /// Puts the pairs from `first` on into the order of their keys' bytes: the VM's own order of
    /// enumeration is not promised to depend on the keys alone.
    fn order(&mut self, first: usize, mut spans: Vec<Span>) -> Result<(), NameError> {
        let bytes = &self.buffer.bytes;
        let key = |span: &Span| &bytes[span.start..span.value];
        if spans.is_sorted_by(|a, b| key(a) <= key(b)) {
            return Ok(());
        }
        self.map_work += self.len - first;
        if self.map_work > MAX_MAP_WORK {
            return Err(NameError::TooDeep);
        }
        spans.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        let moved = &mut self.buffer.moved;
        moved.clear();
        for span in &spans {
            moved.extend_from_slice(&self.buffer.bytes[span.start..span.end]);
        }
        self.buffer.bytes[first..self.len].copy_from_slice(moved);
        Ok(())
    }

    fn plain_binary(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        match u8::try_from(bytes.len()) {
            Ok(size @ 0..=31) => self.byte(tag::BINARY + size)?,
            _ => self.scalar(tag::BINARY_N, bytes.len() as u64)?,
        }
        self.bytes(bytes)
    }

    #[inline]
    fn scalar(&mut self, tag: u8, value: u64) -> Result<(), NameError> {
        let width = value.checked_ilog2().map_or(0, |log| (log / 8 + 1) as u8);
        let room = self
            .buffer
            .bytes
            .get_mut(self.len..)
            .and_then(|rest| rest.first_chunk_mut::<SCALAR_BYTES>())
            .ok_or(NameError::TooLarge)?;
        room[0] = tag + width;
        // Eight bytes whatever the width: what is behind the width is overwritten by what comes.
        room[1..].copy_from_slice(&value.to_le_bytes());
        self.advance(1 + usize::from(width))
    }

    #[inline]
    fn byte(&mut self, byte: u8) -> Result<(), NameError> {
        let room = self
            .buffer
            .bytes
            .get_mut(self.len)
            .ok_or(NameError::TooLarge)?;
        *room = byte;
        self.advance(1)
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        let room = self
            .buffer
            .bytes
            .get_mut(self.len..)
            .and_then(|rest| rest.get_mut(..bytes.len()))
            .ok_or(NameError::TooLarge)?;
        room.copy_from_slice(bytes);
        self.advance(bytes.len())
    }

    #[inline]
    fn advance(&mut self, by: usize) -> Result<(), NameError> {
        self.len += by;
        if self.len > MAX_BYTES {
            return Err(NameError::TooLarge);
        }
        Ok(())
    }
}

/// Where the pairs of a map that is being written lie in the buffer.
#[derive(Debug)]
pub struct Pairs {
    start: usize,
    value: usize,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct Span {
    start: usize,
    value: usize,
    end: usize,
}

impl Pairs {
    /// The key is written; its value comes.
    pub fn value(&mut self, encoder: &Encoder<'_>) {
        self.value = encoder.len;
    }

    /// The pair is written.
    pub fn next(&mut self, encoder: &Encoder<'_>) {
        self.spans.push(Span {
            start: self.start,
            value: self.value,
            end: encoder.len,
        });
        self.start = encoder.len;
    }
}

/// The 16 bytes of a UUID written in lower case, `None` for any other text. Database ids are
/// mostly such texts, four to a name; a name of four is 76 bytes this way instead of 155.
#[inline]
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
        return None;
    }
    let four = |at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    let eight = |at: usize, then: usize| u64::from(four(at)) | (u64::from(four(then)) << 32);
    let groups = [
        parse_hex(eight(0, 4))?,
        parse_hex(eight(9, 14))?,
        parse_hex(eight(19, 24))?,
        parse_hex(eight(28, 32))?,
    ];
    let mut uuid = [0; 16];
    for (bytes, group) in uuid.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
        *bytes = group.to_le_bytes();
    }
    Some(uuid)
}

/// Eight lower-case hexadecimal digits, the first in the lowest byte, as four bytes: all eight at
/// once in one word, so that a lookup by UUIDs costs no loop over characters.
#[inline]
fn parse_hex(text: u64) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let letters = (text >> 6) & ONES;
    let nibbles = (text & (0x0F * ONES)) + 9 * letters;
    // Back to text, to refuse whatever is not a digit or 'a' to 'f': each nibble above 9 is a
    // letter. A nibble above 15 ('g' and on) would survive that, so it is refused by itself.
    let above_nine = ((nibbles + 0x76 * ONES) >> 7) & ONES;
    let back = nibbles + 0x30 * ONES + 0x27 * above_nine;
    if back != text || nibbles & (0xF0 * ONES) != 0 {
        return None;
    }
    let bytes = ((nibbles << 4) | (nibbles >> 8)) & 0x00FF_00FF_00FF_00FF;
    let words = (bytes | (bytes >> 8)) & 0x0000_FFFF_0000_FFFF;
    // The two halves are the result; what is above them is dropped on purpose.
    #[allow(clippy::cast_possible_truncation)]
    Some((words | (words >> 16)) as u32)
}
