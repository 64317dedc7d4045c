//! How the emulator lays out terms in memory. No other file knows the layout.
//!
//! A name is read part by part. Calls of the VM, one for each part, would take most of the time.
//! With the layout, the kinds of parts that names mostly have need no call:
//!
//! - A word whose two lowest bits are set *is* its term: an atom, a small integer, a pid or port of
//!   this node, the empty list. If such a word has no more than 32 bits, a name has it as it is.
//! - A word whose three lowest bits are `010` points to a header on the heap. The header tells a
//!   tuple, whose elements follow, and a small binary, whose size and bytes follow. Some emulators
//!   set the third bit of pointers to literals; nothing is read by such a pointer.
//!
//! The layout (`erts/emulator/beam/erl_term.h`) is not part of the documented API. When the library
//! is loaded, [`check`] compares it with what that API makes and reads, and with samples of all
//! kinds of terms from the Elixir side. If anything differs, or if the portable way was asked for,
//! the layout is not used and every term goes through the documented API. The size of a small
//! binary is written in another way since OTP 27; the check finds out which.

use crate::api::{elements, is_local_port};
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::name::MAX_BYTES;
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Encoder, Env, LocalPid, NewBinary, Term};
use std::slice;

/// What the check has found out.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// The six lowest bits of the header of a small binary.
    pub(crate) binary: u8,
    /// What one byte counts for in the size word of a small binary: 1, or 8 if it counts bits.
    pub(crate) unit: u8,
    /// Parts of binaries, if the check has found out about them.
    pub(crate) part: Option<Part>,
}

/// How to tell a part of a binary and its size. The API copies a part that does not begin at a byte
/// before it answers the size, which takes long for a very large one.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The six lowest bits of its header.
    kind: u8,
    size: PartSize,
}

#[derive(Clone, Copy)]
enum PartSize {
    /// The first word behind the header is the size in bytes, as before OTP 27.
    Bytes,
    /// The second and third words behind the header are its begin and end, in bits.
    Bits,
}

static LAYOUT: OnceCell<Option<Layout>> = OnceCell::new();

/// What a term is, as far as the layout tells.
pub(crate) enum Shape<'a> {
    /// A term that is its own word, of no more than 32 bits.
    Word(u32),
    /// A tuple, by its elements.
    Tuple(&'a [ErlNifTerm]),
    /// A binary that lies on the heap.
    Binary(&'a [u8]),
    /// A part of a binary that is larger than any name.
    LargePart,
    /// Any other term.
    Other,
}

/// The layout, where it can be trusted.
#[inline]
pub(crate) fn trusted() -> Option<Layout> {
    *LAYOUT.get()?
}

const PRIMARY: u64 = 0b11;
const BOXED: u64 = 0b10;
/// The lowest bits of a pointer to eight-byte words; the third is not part of the address.
const POINTER: u64 = 0b111;
const IMMEDIATE: u64 = 0b11;
/// The bits of a header that tell the kind of its term; a tuple's are zero.
const KIND: u64 = 0x3F;
const ARITY_SHIFT: u32 = 6;

impl Layout {
    /// What the term is.
    #[inline]
    pub(crate) fn shape<'a>(self, term: &Term<'a>) -> Shape<'a> {
        let word = word::of(term.as_c_arg());
        if let Some(short) = short_immediate(word) {
            return Shape::Word(short);
        }
        if word & POINTER != BOXED {
            return Shape::Other;
        }
        let header = (word - BOXED) as *const u64;
        // SAFETY: the check has found that a word with these bits points to the header of a term
        // on the heap. The term lives, and does not move, for `'a`: until the NIF returns.
        let kind = unsafe { *header };
        if kind & KIND == 0 {
            // `ErlNifTerm` is a transparent wrapper of a word.
            let arity = usize::try_from(kind >> ARITY_SHIFT).unwrap_or(0);
            // SAFETY: as above; the header of a tuple is followed by as many terms as it says.
            return Shape::Tuple(unsafe { slice::from_raw_parts(header.add(1).cast(), arity) });
        }
        if kind & KIND == u64::from(self.binary) {
            let unit = u64::from(self.unit);
            // SAFETY: as above; the header of a small binary is followed by its size and bytes.
            unsafe {
                let size = *header.add(1);
                // A bitstring has the same header where the size counts bits.
                if size.is_multiple_of(unit) {
                    let bytes = usize::try_from(size / unit).unwrap_or(0);
                    return Shape::Binary(slice::from_raw_parts(header.add(2).cast(), bytes));
                }
            }
        } else if let Some(part) = self.part
            && kind & KIND == u64::from(part.kind)
        {
            // SAFETY: as above; the check has found that such a header begins a part of a binary.
            let bytes = unsafe { part.bytes(header) };
            if bytes > MAX_BYTES as u64 {
                return Shape::LargePart;
            }
        }
        Shape::Other
    }
}

impl Part {
    /// The size of the part of a binary with this header.
    ///
    /// # Safety
    ///
    /// `header` points to the header of a part of a binary: in all releases it has four words more.
    unsafe fn bytes(self, header: *const u64) -> u64 {
        // SAFETY: by the contract of this function.
        let word = |at| unsafe { *header.add(at) };
        match self.size {
            PartSize::Bytes => word(1),
            PartSize::Bits => word(3).wrapping_sub(word(2)) / 8,
        }
    }

    /// What holds for all of these parts of binaries, none of which begins at a byte.
    fn learn(parts: &[Term<'_>]) -> Option<Self> {
        let kind = |part| header(part).map(|header| header & KIND);
        let kind_of_all = kind(parts.first()?)?;
        if parts.iter().any(|part| kind(part) != Some(kind_of_all)) {
            return None;
        }
        let kind = u8::try_from(kind_of_all).ok()?;
        let learnt = [PartSize::Bytes, PartSize::Bits].map(|size| Self { kind, size });
        learnt.into_iter().find(|learnt| {
            parts.iter().all(|part| {
                // SAFETY: a binary that does not begin at a byte is always a part of another.
                let bytes = boxed(part).map(|header| unsafe { learnt.bytes(header) });
                Binary::from_term(*part).is_ok_and(|part| bytes == Some(part.len() as u64))
            })
        })
    }
}

/// Where the header of a term lies, if the word of the term says that it has one.
fn boxed(term: &Term<'_>) -> Option<*const u64> {
    let word = word::of(term.as_c_arg());
    (word & POINTER == BOXED).then(|| (word - BOXED) as *const u64)
}

/// The header of a term, if it has one.
fn header(term: &Term<'_>) -> Option<u64> {
    // SAFETY: the word of a term that is no immediate and no list is, in all releases, a pointer to
    // the term's aligned memory with two bits added. The term lives.
    boxed(term).map(|header| unsafe { *header })
}

impl Layout {
    /// Whether the documented API reads the term in the same way.
    fn agrees(self, term: &Term<'_>) -> bool {
        let shape = self.shape(term);
        if let Some(expected) = elements(*term) {
            return matches!(shape, Shape::Tuple(found) if same(found, expected));
        }
        match shape {
            Shape::Word(_) => {
                term.is_atom()
                    || term.is_empty_list()
                    || term.decode::<i64>().is_ok()
                    || term.decode::<LocalPid>().is_ok()
                    || is_local_port(*term)
            }
            Shape::Tuple(_) | Shape::LargePart => false,
            Shape::Binary(found) => {
                Binary::from_term(*term).is_ok_and(|expected| same(found, &expected))
            }
            Shape::Other => true,
        }
    }
}

/// How the numbers of a pid of another node lie in its memory: in one word, the second number above the
/// first.
#[derive(Clone, Copy)]
pub(crate) struct PidNumbers {
    word: usize,
    shift: u32,
}

impl PidNumbers {
    /// The words behind the header of such a pid.
    const WORDS: u64 = 3;

    /// How they lie in these pids of one node, which have these numbers. `None` if that cannot be told, or
    /// if the layout is not to be used.
    pub(crate) fn learn(pids: &[(u64, Term<'_>)]) -> Option<Self> {
        trusted()?;
        let headers = pids.iter().map(|(_, pid)| header(pid));
        let headers: Option<Vec<_>> = headers.collect();
        let first = *headers.as_ref()?.first()?;
        let same = headers?.iter().all(|header| *header == first);
        if !same || first >> ARITY_SHIFT != Self::WORDS {
            return None;
        }
        let ways = (1..=3).flat_map(|word| [28, 32].map(|shift| Self { word, shift }));
        ways.into_iter().find(|way| {
            pids.iter().all(|(numbers, pid)| {
                // SAFETY: the header says that as many words follow.
                let found = boxed(pid).map(|header| unsafe { *header.add(way.word) });
                found.is_some() && found == way.word_of(*numbers)
            })
        })
    }

    /// The word of a pid with these numbers, the first in the upper half.
    fn word_of(self, numbers: u64) -> Option<u64> {
        let (first, second) = (numbers >> u32::BITS, numbers & u64::from(u32::MAX));
        (first >> self.shift == 0).then_some(second << self.shift | first)
    }

    /// Gives a pid other numbers; `false` if it cannot have them.
    ///
    /// # Safety
    ///
    /// The pid is one of the node of [`Self::learn`]. It has just been copied into the env of a call, and
    /// nobody else has the copy.
    pub(crate) unsafe fn set(self, pid: Term<'_>, numbers: u64) -> bool {
        let (Some(header), Some(word)) = (boxed(&pid), self.word_of(numbers)) else {
            return false;
        };
        // SAFETY: by the contract of this function; all pids of a node have the header that was learnt.
        unsafe { *header.add(self.word).cast_mut() = word };
        true
    }
}

/// Whether both are the same memory.
fn same<T>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && (one.is_empty() || one.as_ptr() == other.as_ptr())
}

/// The word, if it is its own term and has no more than 32 bits.
#[inline]
pub(crate) fn short_immediate(word: u64) -> Option<u32> {
    match u32::try_from(word) {
        Ok(short) if word & PRIMARY == IMMEDIATE => Some(short),
        _ => None,
    }
}

/// Decides whether the layout can be trusted. `samples`: terms of every kind; `parts`: parts of
/// binaries that do not begin at a byte.
pub(crate) fn check<'a>(env: Env<'a>, portable: bool, samples: &[Term<'a>], parts: &[Term<'a>]) {
    let layout = if portable || size_of::<usize>() != 8 || !samples.iter().all(plain_pointer) {
        None
    } else {
        learn(env)
            .map(|layout| Layout {
                part: Part::learn(parts).filter(|part| part.kind != layout.binary),
                ..layout
            })
            .filter(|layout| samples.iter().all(|sample| layout.agrees(sample)))
    };
    // If the library is loaded a second time, this was decided before, for the same VM.
    let _ = LAYOUT.set(layout);
}

/// Whether the word is not a pointer to a header, or one whose third bit is zero.
pub(crate) fn plain_pointer(term: &Term<'_>) -> bool {
    let word = word::of(term.as_c_arg());
    word & PRIMARY != BOXED || word & POINTER == BOXED
}

/// The layout, if everything that relies on it holds for terms made here.
fn learn(env: Env<'_>) -> Option<Layout> {
    let words = |terms: &[Term<'_>]| -> Vec<u64> {
        terms.iter().map(|term| word::of(term.as_c_arg())).collect()
    };
    let immediates = words(&[
        0_i64.encode(env),
        1_i64.encode(env),
        42_i64.encode(env),
        ((1_i64 << 28) - 1).encode(env),
        rustler::types::atom::ok().to_term(env),
        rustler::types::atom::undefined().to_term(env),
        Term::list_new_empty(env),
    ]);
    let different = (1..immediates.len()).all(|at| !immediates[..at].contains(&immediates[at]));
    if !different
        || immediates
            .iter()
            .any(|word| short_immediate(*word).is_none())
    {
        return None;
    }
    // Longer words must not be cut off, and pointers must not look like immediates.
    let others = words(&[
        (-1_i64).encode(env),
        (1_i64 << 28).encode(env),
        (1_i64 << 62).encode(env),
        vec![1].encode(env),
        (1,).encode(env),
    ]);
    if others.iter().any(|word| short_immediate(*word).is_some()) {
        return None;
    }

    // From here on headers are read.
    let binary = |size: u8| -> Term<'_> {
        let mut binary = NewBinary::new(env, usize::from(size));
        let numbers = 1..=size;
        binary
            .as_mut_slice()
            .iter_mut()
            .zip(numbers)
            .for_each(|(byte, number)| *byte = number);
        binary.into()
    };
    let kind = header(&binary(36))? & KIND;
    // SAFETY: the memory of a binary of 36 bytes is longer than its header.
    let size = boxed(&binary(36)).map(|header| unsafe { *header.add(1) })?;
    let kind = u8::try_from(kind).ok()?;
    let unit = match size {
        36 => 1,
        288 => 8,
        _ => return None,
    };
    let layout = Layout {
        binary: kind,
        unit,
        part: None,
    };

    // All other terms on the heap have other headers.
    let many: Vec<_> = (0..100_i64).map(|key| (key, key)).collect();
    let strangers = [
        1.5_f64.encode(env),
        (1_i64 << 62).encode(env),
        i64::MIN.encode(env),
        Term::map_new(env),
        Term::map_from_pairs(env, &many).ok()?,
        env.make_ref().encode(env),
        binary(200),
    ];
    let strange = |term: &Term<'_>| {
        header(term).is_some_and(|header| header & KIND != 0 && header & KIND != u64::from(kind))
    };
    if kind == 0 || !strangers.iter().all(strange) {
        return None;
    }
    // A part of a binary has a header of its own or is a copy, depending on release and size.
    let parts = [1, 20, 150].into_iter().all(|size| {
        let whole = Binary::from_term(binary(200)).ok();
        let part = whole.and_then(|whole| whole.make_subbinary(1, size).ok());
        part.is_some_and(|part| match layout.shape(&part.to_term(env)) {
            Shape::Binary(bytes) => bytes == part.as_slice(),
            shape => matches!(shape, Shape::Other),
        })
    });
    let binaries = (0..=64).all(|size| {
        let term = binary(size);
        let bytes: Vec<u8> = (1..=size).collect();
        matches!(layout.shape(&term), Shape::Binary(found) if found == bytes)
    });
    let tuples = (1..=20_usize).all(|arity| {
        let elements: Vec<_> = (0..arity).map(|number| number.encode(env)).collect();
        let term = rustler::types::tuple::make_tuple(env, &elements);
        let elements: Vec<_> = elements.iter().map(Term::as_c_arg).collect();
        matches!(layout.shape(&term), Shape::Tuple(found) if found == elements)
    });
    (parts && binaries && tuples).then_some(layout)
}
