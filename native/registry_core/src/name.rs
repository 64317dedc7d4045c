//! Names as canonical bytes.
//!
//! A name is any Erlang term. The table owns names as bytes, written by an [`Encoder`] such that
//! two byte strings are equal exactly when the two terms are `===`. The grammar is prefix-free: a
//! term says by its first byte how it goes on, so terms can stand one after another without a
//! length in front of the whole, and one pass over a term writes it.
//!
//! What identifies an atom, a local pid or a local port inside one VM is a machine word that never
//! changes; it goes in as it is. So the bytes mean something in this VM only, and never leave it.

use std::cmp::Ordering;
use std::ops::Range;
use thiserror::Error;

/// The longest name, in canonical bytes. Keeps any one call on a name under a millisecond.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a part of a name counts for at least, and a map or a reference, whatever it takes: so that
/// the number of parts is bounded as well as their bytes.
const SMALL: usize = 4;
const LARGE: usize = 32;

/// The deepest nesting of a name. No walk of a name goes down the stack with it: the stack of a
/// thread of the VM may be small.
pub const MAX_DEPTH: usize = 256;

/// The most bytes that may be moved while the maps of one name are put in order: a map in a map is
/// moved once for each level, so their bytes alone do not bound the work.
pub const MAX_MAP_WORK: usize = 4 * MAX_BYTES;

/// First bytes of terms. The two lowest bits of a first byte say what kind of byte it is.
pub mod tag {
    /// What the two lowest bits are taken with.
    pub const MASK: u8 = 0b11;
    /// A tuple of up to 15 elements; its arity stands above the two bits, its elements follow.
    pub const TUPLE: u8 = 0b00;
    /// A binary of up to 63 bytes; its size stands above the two bits, its bytes follow.
    pub const BINARY: u8 = 0b01;
    /// One of the tags below.
    pub const OTHER: u8 = 0b10;
    /// The first of the four bytes of a short word, the lowest one; see `Encoder::word`.
    pub const WORD: u8 = 0b11;

    /// Eight bytes: a signed integer.
    pub const INTEGER: u8 = other(0);
    /// Eight bytes: an integer above `i64::MAX`.
    pub const UNSIGNED: u8 = other(1);
    /// Eight bytes: the word of the atom.
    pub const ATOM: u8 = other(2);
    /// Eight bytes: the word of a pid of this node.
    pub const LOCAL_PID: u8 = other(3);
    /// Eight bytes: the word of a port of this node.
    pub const LOCAL_PORT: u8 = other(4);
    /// Four bytes: the arity, from 16 up; then the elements.
    pub const LONG_TUPLE: u8 = other(5);
    /// Four bytes: the size, from 64 up; then the bytes.
    pub const LONG_BINARY: u8 = other(6);
    /// Sixteen bytes: what a binary stands for that is the text of a UUID in lower case.
    pub const UUID: u8 = other(7);
    /// Eight bytes: an IEEE 754 double.
    pub const FLOAT: u8 = other(8);
    /// The empty list.
    pub const NIL: u8 = other(9);
    /// Elements, then [`END`], or [`TAIL`] and a last tail.
    pub const LIST: u8 = other(10);
    /// Ends a proper list.
    pub const END: u8 = other(11);
    /// Ends the elements of an improper list; its last tail follows.
    pub const TAIL: u8 = other(12);
    /// Four bytes: the number of pairs; then key and value of each, by the order of the keys.
    pub const MAP: u8 = other(13);
    /// A positive integer of more than 64 bits; a binary follows, its magnitude.
    pub const BIG: u8 = other(14);
    /// A negative integer of more than 63 bits; a binary follows, its magnitude.
    pub const NEGATIVE_BIG: u8 = other(15);
    /// A bitstring: a byte that says how many bits of its last byte count, and a binary, which it
    /// is when padded with zero bits.
    pub const BITS: u8 = other(16);
    /// A function with an environment; a list follows of what makes it equal to another.
    pub const FUN: u8 = other(17);
    /// `&Module.function/arity`; a list of the three follows.
    pub const EXPORT: u8 = other(18);
    /// A reference of this node; a binary follows, its numbers.
    pub const LOCAL_REFERENCE: u8 = other(19);
    /// A pid, port or reference of another node; a binary follows, its external format.
    pub const REMOTE: u8 = other(20);
    /// In a pattern: any term.
    pub const ANY: u8 = other(21);

    const fn other(number: u8) -> u8 {
        number << 2 | OTHER
    }
}

/// Why a term cannot be a name. The text is what users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// More than [`MAX_BYTES`] in canonical form.
    #[error("expected a name of at most {MAX_BYTES} bytes in canonical form")]
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("expected a name nested at most {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Maps in maps whose ordering moves more than [`MAX_MAP_WORK`] bytes.
    #[error(
        "expected a name whose maps can be put in order by moving at most {MAX_MAP_WORK} bytes, \
         a map in a map once more for each level"
    )]
    TooManyMaps,
}

/// A buffer that is large enough for every name; one is kept for each thread.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8; MAX_BYTES]>,
    moved: Vec<u8>,
    spans: Vec<Span>,
}

impl Buffer {
    /// An empty buffer. Its pages cost memory only once a name has been long enough to touch them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // By way of the heap: a thread of the VM has a small stack.
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
    /// How many bytes more than they take small parts have counted for.
    extra: usize,
    moved: &'a mut Vec<u8>,
    /// The pairs of the maps that have been begun and not ended: those of an inner map behind those
    /// of the map around it.
    spans: &'a mut Vec<Span>,
    map_work: usize,
    anys: usize,
    bound: bool,
}

impl<'a> Encoder<'a> {
    /// Starts a name at the front of the buffer.
    #[inline]
    pub fn new(buffer: &'a mut Buffer) -> Self {
        // Those of a name that was refused.
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

    /// How much has been read of the term so far, in bytes of which no name may have more than
    /// [`MAX_BYTES`]; also when the term was refused.
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

    /// Whether there is a part in the name that its bytes tell from all others, but cannot bring
    /// back as it was: a reference, which may be to something that lives only as long as a term
    /// refers to it, or what belongs to a node, which may change its name.
    #[inline]
    #[must_use]
    pub fn bound(&self) -> bool {
        self.bound
    }

    /// The bytes written so far: the name, once its last term is in.
    #[inline]
    #[must_use]
    pub fn finish(self) -> &'a [u8] {
        &self.bytes[..self.len]
    }

    /// A term that is its own word, where that is short: 32 bits of which the lowest two are set,
    /// as those of every such term are in the emulators there have been. A term has to be written
    /// this way always or never. Five small integers make 20 bytes, without a branch on what they
    /// are.
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

    /// A float by its bits. Whether `0.0` and `-0.0` are one name is the caller's to know: it
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
        // As many again for its end.
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
        match parse_uuid(bytes) {
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

    /// In a pattern: any one term. Not in the key of a map, whose place depends on its bytes.
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

    /// The end of a map: puts its pairs into the order of their keys' bytes, as the VM's own order of
    /// enumeration is not promised to depend on the keys alone.
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

    /// Has a part that takes `bytes` count for `least`.
    #[inline]
    fn count_for(&mut self, least: usize, bytes: usize) -> Result<(), NameError> {
        self.extra += least.saturating_sub(bytes);
        if self.len + self.extra > MAX_BYTES {
            return Err(NameError::TooLarge);
        }
        Ok(())
    }

    /// Refuses at once what has more parts to come than a name has room for.
    fn expect(&mut self, parts: usize) -> Result<(), NameError> {
        if parts > (MAX_BYTES - self.len) / SMALL {
            return Err(NameError::TooLarge);
        }
        Ok(())
    }

    fn counted(&mut self, tag: u8, count: usize) -> Result<(), NameError> {
        // A count that does not fit is that of a term whose parts will not fit either.
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

/// Where the pairs of a map that is being written lie in the buffer.
#[derive(Debug)]
pub struct Pairs {
    first: usize,
    start: usize,
    value: usize,
    /// How many pairs of other maps stand before its own in the encoder.
    spans: usize,
}

/// Where a pair lies. A buffer is short enough for 32 bits.
#[derive(Debug)]
struct Span {
    /// The first eight bytes of the key, the first one highest: in the order of the keys, and mostly
    /// all that it takes to compare them.
    prefix: u64,
    start: u32,
    value: u32,
    end: u32,
}

impl Span {
    #[inline]
    fn compare(&self, other: &Self, bytes: &[u8]) -> Ordering {
        self.prefix
            .cmp(&other.prefix)
            .then_with(|| bytes[self.key()].cmp(&bytes[other.key()]))
    }

    fn key(&self) -> Range<usize> {
        self.start as usize..self.value as usize
    }

    fn pair(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The first eight bytes of the key; where there are fewer, zeroes stand for the others.
#[inline]
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => key.iter().enumerate().fold(0, |prefix, (at, &byte)| {
            prefix | u64::from(byte) << (56 - 8 * at)
        }),
    }
}

impl Pairs {
    /// The key is written; its value comes.
    pub fn value(&mut self, encoder: &Encoder<'_>) {
        self.value = encoder.len;
    }

    /// The pair is written.
    pub fn next(&mut self, encoder: &mut Encoder<'_>) {
        let [start, value, end] = [self.start, self.value, encoder.len];
        // None of them is above MAX_BYTES.
        #[allow(clippy::cast_possible_truncation)]
        encoder.spans.push(Span {
            prefix: prefix(&encoder.bytes[start..value]),
            start: start as u32,
            value: value as u32,
            end: end as u32,
        });
        self.start = encoder.len;
    }
}

/// The 16 bytes of a UUID written in lower case, `None` for any other text. Database ids are
/// mostly such texts, four to a name; a name of four is 74 bytes this way instead of 154.
///
/// All loops are over arrays and free of branches, so that they become a few vector instructions.
#[inline]
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
        return None;
    }
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&text[..8]);
    digits[8..12].copy_from_slice(&text[9..13]);
    digits[12..16].copy_from_slice(&text[14..18]);
    digits[16..20].copy_from_slice(&text[19..23]);
    digits[20..].copy_from_slice(&text[24..]);

    let mut others = 0;
    for digit in &mut digits {
        let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
        others |= u8::from(number > 9) & u8::from(letter > 5);
        *digit = if number > 9 {
            letter.wrapping_add(10)
        } else {
            number
        };
    }
    let mut uuid = [0; 16];
    for (byte, [high, low]) in uuid.iter_mut().zip(digits.as_chunks().0) {
        *byte = high << 4 | low;
    }
    (others == 0).then_some(uuid)
}

/// The text of a UUID in lower case.
fn uuid_text(uuid: [u8; 16]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    let digits = uuid.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    for (place, digit) in places.zip(digits) {
        text[place] = DIGITS[usize::from(digit)];
    }
    text
}

/// One step of reading a name: a whole term, or the head of one whose parts follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// What [`Encoder::word`] wrote.
    Word(u32),
    /// The word of an atom.
    Atom(u64),
    /// The word of a pid of this node.
    LocalPid(u64),
    /// The word of a port of this node.
    LocalPort(u64),
    /// An integer.
    Integer(i64),
    /// An integer above `i64::MAX`.
    Unsigned(u64),
    /// Whether a larger one is negative, and its magnitude.
    Big(bool, &'a [u8]),
    /// A float.
    Float(f64),
    /// A binary.
    Binary(&'a [u8]),
    /// A binary that is the text of a UUID.
    Uuid([u8; 36]),
    /// A bitstring padded to a binary, and how many bits of its last byte count.
    Bits(&'a [u8], u8),
    /// That many elements follow.
    Tuple(usize),
    /// The empty list.
    Nil,
    /// Elements follow, then [`Part::End`] or [`Part::Tail`].
    List,
    /// The list was proper.
    End,
    /// A last tail follows.
    Tail,
    /// That many pairs follow, key and value.
    Map(usize),
    /// A list follows: the identity of a function.
    Fun,
    /// A list follows: module, name and arity.
    Export,
    /// The numbers of a reference of this node.
    LocalReference(&'a [u8]),
    /// The external format of a pid, port or reference of another node.
    Remote(&'a [u8]),
    /// In a pattern: any term.
    Any,
}

/// Reads a name part by part. Bytes that are no name end early.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of a name.
    pub fn new(name: &'a [u8]) -> Self {
        Self { rest: name }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Passes over a whole term; `None` when there is none.
    pub fn pass(&mut self) -> Option<()> {
        self.pass_over(Rest::Terms(1))
    }

    /// Passes over what is left of a list, its end too; `None` when there is none.
    pub(crate) fn pass_rest(&mut self) -> Option<()> {
        self.pass_over(Rest::List)
    }

    /// Passes over what is left of a term. The terms around the one that is passed over stand in a
    /// list, not on the stack; most names never need it, as only lists have an end of their own.
    fn pass_over(&mut self, mut rest: Rest) -> Option<()> {
        let mut around = Vec::new();
        loop {
            if rest == Rest::Terms(0) {
                match around.pop() {
                    Some(outer) => rest = outer,
                    None => return Some(()),
                }
                continue;
            }
            let parts = match self.next()? {
                Part::End if rest == Rest::List => {
                    rest = Rest::Terms(0);
                    continue;
                }
                Part::Tail if rest == Rest::List => {
                    rest = Rest::Terms(1);
                    continue;
                }
                Part::End | Part::Tail => return None,
                Part::Tuple(arity) => Rest::Terms(arity),
                Part::Map(pairs) => Rest::Terms(pairs.checked_mul(2)?),
                Part::Fun | Part::Export => Rest::Terms(1),
                Part::List => Rest::List,
                _ => Rest::Terms(0),
            };
            match (&mut rest, parts) {
                (Rest::Terms(left), Rest::Terms(more)) => *left = (*left - 1).checked_add(more)?,
                (Rest::List, Rest::Terms(0)) => {}
                (outer, parts) => {
                    if let Rest::Terms(left) = outer {
                        *left -= 1;
                    }
                    around.push(std::mem::replace(outer, parts));
                }
            }
        }
    }

    /// Whether a part is left that [`Encoder::bound`] is about.
    pub fn bound(&self) -> bool {
        let bound = |part| matches!(part, Part::LocalReference(_) | Part::Remote(_));
        self.clone().any(bound)
    }

    /// The bytes of the next part.
    pub(crate) fn step(&mut self) -> Option<&'a [u8]> {
        let before = self.rest;
        self.next()?;
        Some(&before[..before.len() - self.rest.len()])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn slice(&mut self, size: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(slice)
    }

    fn count(&mut self) -> Option<usize> {
        self.array().map(|count| u32::from_le_bytes(count) as usize)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The binary that is the body of another part.
    fn body(&mut self) -> Option<&'a [u8]> {
        let [first] = self.array()?;
        let size = match first {
            tag::LONG_BINARY => self.count()?,
            _ if first & tag::MASK == tag::BINARY => usize::from(first >> 2),
            _ => return None,
        };
        self.slice(size)
    }
}

/// What is left of a term that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// That many terms.
    Terms(usize),
    /// The elements of a list, and its end.
    List,
}

impl<'a> Iterator for Reader<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let [first] = *self.rest.first_chunk()?;
        if first & tag::MASK == tag::WORD {
            return self
                .array()
                .map(|word| Part::Word(u32::from_le_bytes(word)));
        }
        self.rest = &self.rest[1..];
        let small = usize::from(first >> 2);
        match first & tag::MASK {
            tag::TUPLE => return Some(Part::Tuple(small)),
            tag::BINARY => return self.slice(small).map(Part::Binary),
            _ => {}
        }
        Some(match first {
            tag::INTEGER => Part::Integer(self.number()?.cast_signed()),
            tag::UNSIGNED => Part::Unsigned(self.number()?),
            tag::ATOM => Part::Atom(self.number()?),
            tag::LOCAL_PID => Part::LocalPid(self.number()?),
            tag::LOCAL_PORT => Part::LocalPort(self.number()?),
            tag::LONG_TUPLE => Part::Tuple(self.count()?),
            tag::LONG_BINARY => {
                let size = self.count()?;
                Part::Binary(self.slice(size)?)
            }
            tag::UUID => Part::Uuid(uuid_text(self.array()?)),
            tag::FLOAT => Part::Float(f64::from_bits(self.number()?)),
            tag::NIL => Part::Nil,
            tag::LIST => Part::List,
            tag::END => Part::End,
            tag::TAIL => Part::Tail,
            tag::MAP => Part::Map(self.count()?),
            tag::BIG => Part::Big(false, self.body()?),
            tag::NEGATIVE_BIG => Part::Big(true, self.body()?),
            tag::BITS => {
                let [last] = self.array()?;
                Part::Bits(self.body()?, last)
            }
            tag::FUN => Part::Fun,
            tag::EXPORT => Part::Export,
            tag::LOCAL_REFERENCE => Part::LocalReference(self.body()?),
            tag::REMOTE => Part::Remote(self.body()?),
            tag::ANY => Part::Any,
            _ => return None,
        })
    }
}

/// Whether the name is what the pattern says: equal to it but for the terms, or tails of lists,
/// that stand where the pattern has [`Encoder::any`].
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (Reader::new(pattern), Reader::new(name));
    while let Some(expected) = pattern.step() {
        let matched = match expected {
            [tag::ANY] => name.pass(),
            [tag::TAIL] if pattern.rest.first() == Some(&tag::ANY) => {
                pattern.rest = &pattern.rest[1..];
                name.pass_rest()
            }
            expected => (name.step() == Some(expected)).then_some(()),
        };
        if matched.is_none() {
            return false;
        }
    }
    name.rest.is_empty()
}
