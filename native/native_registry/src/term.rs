//! From a term to the canonical bytes of a name.

use crate::immediate;
use crate::odd::Odd;
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::name::{Encoder, MAX_DEPTH, NameError, Pairs};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Encoder as _, Env, LocalPid, MapIterator, ResourceArc, Term, TermType};
use std::mem::MaybeUninit;

/// Why a term was not written as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It cannot be a name.
    Name(NameError),
    /// It has a part that the VM's API does not open: a function, an integer of more than 64
    /// bits, a bitstring. The Elixir side opens those and calls again.
    Odd,
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
    write_at(encoder, term, 0)
}

fn write_at(encoder: &mut Encoder<'_>, term: Term<'_>, depth: usize) -> Written {
    if let Some(word) = immediate::word(term.as_c_arg()) {
        encoder.word(word)?;
        return Ok(());
    }
    if let Some(elements) = elements(term) {
        return write_tuple(encoder, term.get_env(), elements, depth);
    }
    if let Ok(binary) = Binary::from_term(term) {
        encoder.binary(&binary)?;
        return Ok(());
    }
    write_other(encoder, term, depth)
}

/// One level deeper, or too deep.
fn below(depth: usize) -> Result<usize, NameError> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(NameError::TooDeep)
    }
}

fn write_tuple(
    encoder: &mut Encoder<'_>,
    env: Env<'_>,
    elements: &[ErlNifTerm],
    depth: usize,
) -> Written {
    let depth = below(depth)?;
    if let Some(&first) = elements.first() {
        // Only a reference can be the mark of an opened part, and no immediate is one.
        if immediate::word(first).is_none() {
            // SAFETY: an element of a tuple of this env.
            let first = unsafe { Term::new(env, first) };
            if first.is_ref() && first.decode::<ResourceArc<Odd>>().is_ok() {
                return write_opened(encoder, env, &elements[1..], depth);
            }
        }
    }
    encoder.tuple(elements.len())?;
    for &element in elements {
        // Here as well as in `write_at`: most elements are words, and need no call.
        if let Some(word) = immediate::word(element) {
            encoder.word(word)?;
        } else {
            // SAFETY: an element of a tuple of this env.
            write_at(encoder, unsafe { Term::new(env, element) }, depth)?;
        }
    }
    Ok(())
}

/// What the Elixir side made of a part that the API does not open; see `Odd`.
fn write_opened(
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
            write_at(encoder, body, depth)?;
        }
        Odd::EXPORT => {
            encoder.export()?;
            write_at(encoder, body, depth)?;
        }
        _ => return Err(Refused::Odd),
    }
    Ok(())
}

fn write_other(encoder: &mut Encoder<'_>, term: Term<'_>, depth: usize) -> Written {
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
        TermType::List => write_list(encoder, term, below(depth)?)?,
        TermType::Map => {
            let depth = below(depth)?;
            let pairs = MapIterator::new(term).ok_or(Refused::Odd)?;
            let size = term.map_size().map_err(|_| Refused::Odd)?;
            encoder.map(size, |encoder, spans: &mut Pairs| {
                for (key, value) in pairs {
                    write_at(encoder, key, depth)?;
                    spans.value(encoder);
                    write_at(encoder, value, depth)?;
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
        // A binary comes here never; a bitstring does.
        _ => return Err(Refused::Odd),
    }
    Ok(())
}

fn write_list(encoder: &mut Encoder<'_>, list: Term<'_>, depth: usize) -> Written {
    encoder.list()?;
    let mut rest = list;
    while let Ok((head, tail)) = rest.list_get_cell() {
        write_at(encoder, head, depth)?;
        rest = tail;
    }
    if rest.is_empty_list() {
        encoder.list_end()?;
        return Ok(());
    }
    encoder.list_tail()?;
    write_at(encoder, rest, depth)
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
