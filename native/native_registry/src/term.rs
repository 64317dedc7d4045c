//! From a term to the canonical bytes of a name, and back.

use crate::layout::{self, Shape};
use crate::odd::Odd;
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::Pid;
use registry_core::name::{Encoder, MAX_DEPTH, NameError, Pairs, Part, Reader};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Encoder as _, Env, LocalPid, MapIterator, NewBinary, Term, TermType};
use std::mem::MaybeUninit;

/// Why a term was not written as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It cannot be a name.
    Name(NameError),
    /// It has a part that the VM's API does not open: a function, an integer of more than 64
    /// bits, a bitstring. The Elixir side opens those and calls again.
    Odd,
    /// It is no pattern: `:_` stands in the key of a map.
    Pattern,
}

impl From<NameError> for Refused {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

type Written = Result<(), Refused>;

/// Writes the term.
#[inline]
pub(crate) fn write(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    write_at::<false>(encoder, term, 0)
}

/// Writes the term as a pattern: `:_` in it is any term.
pub(crate) fn write_pattern(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    write_at::<true>(encoder, term, 0)
}

rustler::atoms! { any = "_" }

fn write_at<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    term: Term<'_>,
    depth: usize,
) -> Written {
    if PATTERN && any() == term {
        encoder.any()?;
        return Ok(());
    }
    if let Some(layout) = layout::trusted() {
        match layout.shape(&term) {
            Shape::Word(word) => encoder.word(word)?,
            Shape::Tuple(elements) => {
                return write_tuple::<PATTERN>(encoder, term.get_env(), elements, depth);
            }
            Shape::Binary(bytes) => encoder.binary(bytes)?,
            Shape::Other => return write_other::<PATTERN>(encoder, term, depth),
        }
        return Ok(());
    }
    if let Some(elements) = elements(term) {
        return write_tuple::<PATTERN>(encoder, term.get_env(), elements, depth);
    }
    write_other::<PATTERN>(encoder, term, depth)
}

/// One level deeper, or too deep.
fn below(depth: usize) -> Result<usize, NameError> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(NameError::TooDeep)
    }
}

fn write_tuple<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    env: Env<'_>,
    elements: &[ErlNifTerm],
    depth: usize,
) -> Written {
    let depth = below(depth)?;
    let words = layout::trusted().is_some();
    let word = |element| layout::short_immediate(word::of(element)).filter(|_| words);
    if let Some(&first) = elements.first() {
        // Only a reference can be the mark of an opened part, and no word is one.
        if word(first).is_none() {
            // SAFETY: an element of a tuple of this env.
            let first = unsafe { Term::new(env, first) };
            if Odd::marks(first) {
                return write_opened::<PATTERN>(encoder, env, &elements[1..], depth);
            }
        }
    }
    encoder.tuple(elements.len())?;
    for &element in elements {
        // Here as well as in `write_at`: most elements are words, and need no call.
        if !PATTERN && let Some(word) = word(element) {
            encoder.word(word)?;
        } else {
            // SAFETY: an element of a tuple of this env.
            write_at::<PATTERN>(encoder, unsafe { Term::new(env, element) }, depth)?;
        }
    }
    Ok(())
}

/// What the Elixir side made of a part that the API does not open; see `Odd`.
fn write_opened<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    env: Env<'_>,
    parts: &[ErlNifTerm],
    depth: usize,
) -> Written {
    // SAFETY: elements of a tuple of this env.
    let part = |at: usize| parts.get(at).map(|&word| unsafe { Term::new(env, word) });
    let kind: u8 = part(0)
        .and_then(|kind| kind.decode().ok())
        .ok_or(Refused::Odd)?;
    let body = part(1).ok_or(Refused::Odd)?;
    let number = || {
        part(2)
            .and_then(|number| number.decode::<u8>().ok())
            .ok_or(Refused::Odd)
    };
    let bytes = || Binary::from_term(body).map_err(|_| Refused::Odd);
    match kind {
        Odd::INTEGER => encoder.big(number()? == 1, &bytes()?)?,
        Odd::BITS => encoder.bits(&bytes()?, number()?)?,
        Odd::FUN => {
            encoder.fun()?;
            write_at::<PATTERN>(encoder, body, depth)?;
        }
        Odd::EXPORT => {
            encoder.export()?;
            write_at::<PATTERN>(encoder, body, depth)?;
        }
        _ => return Err(Refused::Odd),
    }
    Ok(())
}

fn write_other<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    term: Term<'_>,
    depth: usize,
) -> Written {
    let env = term.get_env();
    match term.get_type() {
        TermType::Atom => encoder.atom(word::of(term.as_c_arg()))?,
        TermType::Integer => {
            if let Ok(value) = term.decode::<i64>() {
                encoder.integer(value)?;
            } else if let Ok(value) = term.decode::<u64>() {
                encoder.unsigned(value)?;
            } else {
                return Err(Refused::Odd);
            }
        }
        TermType::Float => encoder.float(one_zero(term.decode().map_err(|_| Refused::Odd)?))?,
        TermType::List if term.is_empty_list() => encoder.nil()?,
        TermType::List => write_list::<PATTERN>(encoder, term, below(depth)?)?,
        TermType::Map => {
            let depth = below(depth)?;
            let pairs = MapIterator::new(term).ok_or(Refused::Odd)?;
            let size = term.map_size().map_err(|_| Refused::Odd)?;
            encoder.map(size, |encoder, spans: &mut Pairs| {
                for (key, value) in pairs {
                    write_at::<PATTERN>(encoder, key, depth)?;
                    if PATTERN && spans.key(encoder).any(|part| part == Part::Any) {
                        return Err(Refused::Pattern);
                    }
                    spans.value(encoder);
                    write_at::<PATTERN>(encoder, value, depth)?;
                    spans.next(encoder);
                }
                Ok::<_, Refused>(())
            })?;
        }
        TermType::Pid => match term.decode::<LocalPid>() {
            Ok(pid) => encoder.local_pid(word::of_pid(env, pid).0)?,
            Err(_) => encoder.remote(&term.to_binary())?,
        },
        TermType::Port => write_port(encoder, term)?,
        TermType::Ref => write_reference(encoder, env, term)?,
        TermType::Binary => match Binary::from_term(term) {
            Ok(binary) => encoder.binary(&binary)?,
            // A bitstring.
            Err(_) => return Err(Refused::Odd),
        },
        _ => return Err(Refused::Odd),
    }
    Ok(())
}

fn write_list<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    list: Term<'_>,
    depth: usize,
) -> Written {
    encoder.list()?;
    let mut rest = list;
    while let Ok((head, tail)) = rest.list_get_cell() {
        write_at::<PATTERN>(encoder, head, depth)?;
        rest = tail;
    }
    if rest.is_empty_list() {
        encoder.list_end()?;
        return Ok(());
    }
    encoder.list_tail()?;
    write_at::<PATTERN>(encoder, rest, depth)
}

fn write_port(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    let mut port = MaybeUninit::uninit();
    // SAFETY: a term of this env, and room for an answer that nobody reads.
    let local = unsafe {
        rustler::sys::enif_get_local_port(
            term.get_env().as_c_arg(),
            term.as_c_arg(),
            port.as_mut_ptr(),
        )
    };
    if local == 0 {
        encoder.remote(&term.to_binary())?;
    } else {
        encoder.local_port(word::of(term.as_c_arg()))?;
    }
    Ok(())
}

/// A reference of this node is its numbers: its external format holds the node's name as well, and
/// that changes when distribution starts.
fn write_reference(encoder: &mut Encoder<'_>, env: Env<'_>, term: Term<'_>) -> Written {
    let external = term.to_binary();
    let own = env.make_ref().encode(env).to_binary();
    // Version, tag, count of numbers (2), then node and creation, then the numbers (4 each).
    let numbers = |bytes: &[u8]| 4 * usize::from(bytes[3]);
    let (Some(origin), Some(own_origin)) = (
        external.len().checked_sub(numbers(&external)),
        own.len().checked_sub(numbers(&own)),
    ) else {
        return Err(Refused::Odd);
    };
    if external[4..origin] == own[4..own_origin] {
        encoder.local_reference(&external[origin..])?;
    } else {
        encoder.remote(&external)?;
    }
    Ok(())
}

/// The elements of a tuple, as words.
#[inline]
fn elements(term: Term<'_>) -> Option<&[ErlNifTerm]> {
    let mut arity = 0;
    let mut elements = MaybeUninit::uninit();
    // SAFETY: a term of this env, and room for both answers. On success they are the arity and a
    // pointer to that many words on the heap of the caller, which does not move before the NIF
    // returns; `'a` of the term ends with the NIF.
    unsafe {
        let env = term.get_env().as_c_arg();
        let is_tuple = rustler::sys::enif_get_tuple(
            env,
            term.as_c_arg(),
            &raw mut arity,
            elements.as_mut_ptr(),
        );
        (is_tuple != 0).then(|| {
            if arity == 0 {
                // The VM promises no pointer here.
                return &[][..];
            }
            std::slice::from_raw_parts(elements.assume_init(), usize::try_from(arity).unwrap_or(0))
        })
    }
}

static ZEROS_DIFFER: OnceCell<bool> = OnceCell::new();

/// Asks the VM whether `0.0 === -0.0`: so it is before OTP 27, and not from then on.
pub(crate) fn check(env: Env<'_>) {
    let _ = ZEROS_DIFFER.set(0.0_f64.encode(env) != (-0.0_f64).encode(env));
}

fn one_zero(value: f64) -> f64 {
    if value == 0.0 && ZEROS_DIFFER.get() != Some(&true) {
        0.0
    } else {
        value
    }
}

/// The term that a name is. `None` for bytes that [`write()`] did not write, or when the VM has no
/// memory left. `pid`: any process of this node.
pub(crate) fn read<'a>(env: Env<'a>, name: &[u8], pid: Pid) -> Option<Term<'a>> {
    let mut reader = Reader::new(name);
    let term = read_next(env, &mut reader, pid)?;
    reader.rest().is_empty().then_some(term)
}

fn read_next<'a>(env: Env<'a>, reader: &mut Reader<'_>, pid: Pid) -> Option<Term<'a>> {
    let part = reader.next()?;
    read_part(env, part, reader, pid)
}

fn read_part<'a>(
    env: Env<'a>,
    part: Part<'_>,
    reader: &mut Reader<'_>,
    pid: Pid,
) -> Option<Term<'a>> {
    Some(match part {
        Part::Word(word) => word::to_term(env, u64::from(word)),
        Part::Atom(word) | Part::LocalPid(word) | Part::LocalPort(word) => word::to_term(env, word),
        Part::Integer(value) => value.encode(env),
        Part::Unsigned(value) => value.encode(env),
        Part::Float(value) => value.encode(env),
        Part::Binary(bytes) => binary(env, bytes),
        Part::Uuid(text) => binary(env, &text),
        Part::Nil => Term::list_new_empty(env),
        Part::Tuple(arity) => {
            let elements: Option<Vec<_>> =
                (0..arity).map(|_| read_next(env, reader, pid)).collect();
            rustler::types::tuple::make_tuple(env, &elements?)
        }
        Part::List => read_list(env, reader, pid)?,
        Part::Map(pairs) => {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for _ in 0..pairs {
                keys.push(read_next(env, reader, pid)?);
                values.push(read_next(env, reader, pid)?);
            }
            Term::map_from_term_arrays(env, &keys, &values).ok()?
        }
        Part::End | Part::Tail | Part::Any => return None,
        rare => read_rare(env, rare, reader, pid)?,
    })
}

/// The parts with long ways. By itself, as what it keeps on the stack would otherwise be kept at
/// each level of a name, and a dirty scheduler has little.
#[inline(never)]
fn read_rare<'a>(
    env: Env<'a>,
    part: Part<'_>,
    reader: &mut Reader<'_>,
    pid: Pid,
) -> Option<Term<'a>> {
    Some(match part {
        Part::Big(negative, magnitude) => {
            let size = u32::try_from(magnitude.len()).ok()?.to_be_bytes();
            external(
                env,
                &[&[LARGE_BIG], &size, &[u8::from(negative)], magnitude],
            )?
        }
        Part::Bits(padded, last) => {
            let size = u32::try_from(padded.len()).ok()?.to_be_bytes();
            external(env, &[&[BITS], &size, &[last], padded])?
        }
        Part::Export => {
            let identity: Vec<Term<'_>> = read_next(env, reader, pid)?.decode().ok()?;
            let [module, name, arity] = identity[..] else {
                return None;
            };
            external(env, &[&[EXPORT], &body(module), &body(name), &body(arity)])?
        }
        Part::Fun => read_fun(env, read_next(env, reader, pid)?, pid)?,
        Part::LocalReference(numbers) => {
            let own = env.make_ref().encode(env).to_binary();
            let origin = own.len().checked_sub(4 * usize::from(own[3]))?;
            let count = u16::try_from(numbers.len() / 4).ok()?.to_be_bytes();
            external(env, &[&own[1..2], &count, &own[4..origin], numbers])?
        }
        Part::Remote(bytes) => env.binary_to_term(bytes)?.0,
        _ => return None,
    })
}

fn read_list<'a>(env: Env<'a>, reader: &mut Reader<'_>, pid: Pid) -> Option<Term<'a>> {
    let mut elements = Vec::new();
    let tail = loop {
        match reader.next()? {
            Part::End => break Term::list_new_empty(env),
            Part::Tail => break read_next(env, reader, pid)?,
            part => elements.push(read_part(env, part, reader, pid)?),
        }
    };
    Some(elements.into_iter().rfold(tail, Term::list_prepend))
}

/// Tags of the external term format, from "External Term Format" of OTP's documentation.
const VERSION: u8 = 131;
const BITS: u8 = 77;
const LARGE_BIG: u8 = 111;
const NEW_FUN: u8 = 112;
const EXPORT: u8 = 113;

/// The function with this identity: module, arity, index and unique value, both also in their old
/// form, and the environment's terms. Functions are equal whoever made them, so any pid will do.
fn read_fun<'a>(env: Env<'a>, identity: Term<'a>, pid: Pid) -> Option<Term<'a>> {
    let identity: Vec<Term<'_>> = identity.decode().ok()?;
    let [
        module,
        arity,
        index,
        unique,
        old_index,
        old_unique,
        ref environment @ ..,
    ] = identity[..]
    else {
        return None;
    };
    let free: Vec<_> = environment.iter().copied().flat_map(body).collect();
    let rest = [
        &[arity.decode::<u8>().ok()?],
        Binary::from_term(unique).ok()?.as_slice(),
        index_bytes(index.decode().ok()?)?.as_slice(),
        &u32::try_from(environment.len()).ok()?.to_be_bytes(),
        &body(module),
        &body(old_index),
        &body(old_unique),
        &body(word::to_term(env, pid.0)),
        &free,
    ]
    .concat();
    // The size counts itself.
    let size = u32::try_from(4 + rest.len()).ok()?.to_be_bytes();
    external(env, &[&[NEW_FUN], &size, &rest])
}

/// The index of a function: 32 bits, which the VM may read as a number with a sign.
fn index_bytes(index: i64) -> Option<[u8; 4]> {
    let unsigned = u32::try_from(index).ok();
    let bits = unsigned.or_else(|| i32::try_from(index).ok().map(i32::cast_unsigned));
    bits.map(u32::to_be_bytes)
}

/// The external format of a term, without the version in front.
fn body(term: Term<'_>) -> Vec<u8> {
    term.to_binary()[1..].to_vec()
}

fn external<'a>(env: Env<'a>, parts: &[&[u8]]) -> Option<Term<'a>> {
    let bytes = [&[VERSION], parts.concat().as_slice()].concat();
    env.binary_to_term(&bytes).map(|(term, _)| term)
}

/// A new binary of these bytes.
pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.copy_from_slice(bytes);
    binary.into()
}
