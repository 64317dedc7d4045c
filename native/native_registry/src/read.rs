//! From the canonical bytes of a name to its term.

use crate::api::binary;
use crate::external::{self, BITS, EXPORT, LARGE_BIG, NEW_FUN};
use crate::origin::Origin;
use crate::word;
use registry_core::Pid;
use registry_core::name::{Part, Reader};
use rustler::{Binary, Encoder, Env, Term};

/// A term whose parts are being read.
struct Opened {
    kind: Kind,
    /// How many terms stood on the stack of terms before its parts.
    parts: usize,
    /// How many parts are still to come. `usize::MAX` for a list, which ends by an end of its own.
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tuple,
    List,
    /// An improper list, once its last tail is the next part.
    Improper,
    Map,
    Fun,
    Export,
}

/// The term that a name is. `None` for bytes that are no name, or when the VM has no memory left.
/// `pid`: any process of this node.
///
/// Does not call itself: a dirty scheduler has a small stack, and names may be nested deeply.
pub(crate) fn name<'a>(env: Env<'a>, name: &[u8], pid: Pid) -> Option<Term<'a>> {
    let mut reader = Reader::new(name);
    let mut own = None;
    let mut terms: Vec<Term<'a>> = Vec::new();
    let mut opened: Vec<Opened> = Vec::new();
    loop {
        let begun = match reader.next()? {
            Part::Tuple(arity) => Some((Kind::Tuple, arity)),
            Part::Map(pairs) => Some((Kind::Map, pairs.checked_mul(2)?)),
            Part::Fun => Some((Kind::Fun, 1)),
            Part::Export => Some((Kind::Export, 1)),
            Part::List => Some((Kind::List, usize::MAX)),
            end @ (Part::End | Part::Tail) => {
                let list = opened.last_mut().filter(|last| last.kind == Kind::List)?;
                (list.kind, list.left) = match end {
                    Part::End => (Kind::List, 0),
                    _ => (Kind::Improper, 1),
                };
                None
            }
            leaf => {
                terms.push(read_leaf(env, leaf, &mut own)?);
                one_less(&mut opened);
                None
            }
        };
        if let Some((kind, left)) = begun {
            opened.push(Opened {
                kind,
                parts: terms.len(),
                left,
            });
        }
        while let Some(complete) = opened.pop_if(|last| last.left == 0) {
            let term = made(env, complete.kind, &terms[complete.parts..], pid)?;
            terms.truncate(complete.parts);
            terms.push(term);
            one_less(&mut opened);
        }
        if opened.is_empty() {
            return terms.pop().filter(|_| reader.rest().is_empty());
        }
    }
}

fn one_less(opened: &mut [Opened]) {
    if let Some(outer) = opened.last_mut() {
        outer.left -= 1;
    }
}

/// The term of this kind that has these parts.
fn made<'a>(env: Env<'a>, kind: Kind, parts: &[Term<'a>], pid: Pid) -> Option<Term<'a>> {
    let list = |elements: &[Term<'a>], tail| {
        let elements = elements.iter().copied();
        elements.rfold(tail, Term::list_prepend)
    };
    Some(match kind {
        Kind::Tuple => rustler::types::tuple::make_tuple(env, parts),
        Kind::List => list(parts, Term::list_new_empty(env)),
        Kind::Improper => {
            let (tail, elements) = parts.split_last()?;
            list(elements, *tail)
        }
        Kind::Map => {
            let (pairs, _) = parts.as_chunks::<2>();
            let (keys, values): (Vec<_>, Vec<_>) =
                pairs.iter().map(|&[key, value]| (key, value)).unzip();
            Term::map_from_term_arrays(env, &keys, &values).ok()?
        }
        Kind::Fun => read_fun(env, *parts.first()?, pid)?,
        Kind::Export => {
            let identity: Vec<Term<'_>> = parts.first()?.decode().ok()?;
            let [module, name, arity] = identity[..] else {
                return None;
            };
            external::read(
                env,
                &[
                    &[EXPORT],
                    &external::write(module),
                    &external::write(name),
                    &external::write(arity),
                ],
            )?
        }
    })
}

/// A term without parts. `own`: the origin of this node, once a reference was read.
fn read_leaf<'a>(env: Env<'a>, part: Part<'_>, own: &mut Option<Origin>) -> Option<Term<'a>> {
    Some(match part {
        Part::Word(word) => word::to_term(env, u64::from(word)),
        Part::Atom(word) | Part::LocalPid(word) | Part::LocalPort(word) => word::to_term(env, word),
        Part::Integer(value) => value.encode(env),
        Part::Unsigned(value) => value.encode(env),
        Part::Float(value) => value.encode(env),
        Part::Binary(bytes) => binary(env, bytes),
        Part::Uuid(text) => binary(env, &text),
        Part::Nil => Term::list_new_empty(env),
        Part::Big(negative, magnitude) => {
            let size = u32::try_from(magnitude.len()).ok()?.to_be_bytes();
            external::read(
                env,
                &[&[LARGE_BIG], &size, &[u8::from(negative)], magnitude],
            )?
        }
        Part::Bits(padded, last) => {
            let size = u32::try_from(padded.len()).ok()?.to_be_bytes();
            external::read(env, &[&[BITS], &size, &[last], padded])?
        }
        Part::LocalReference(numbers) => own
            .get_or_insert_with(|| Origin::own(env))
            .reference(env, numbers)?,
        Part::Remote(bytes) => env.binary_to_term(bytes)?.0,
        _ => return None,
    })
}

/// The function with this identity: module, arity, index and unique value, then the latter two in
/// their old form, then the terms of the environment. Which process made a function does not matter
/// for equality, so any pid will do.
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
    let free: Vec<_> = environment
        .iter()
        .copied()
        .flat_map(external::write)
        .collect();
    let rest = [
        &[arity.decode::<u8>().ok()?],
        Binary::from_term(unique).ok()?.as_slice(),
        index_bytes(index.decode().ok()?)?.as_slice(),
        &u32::try_from(environment.len()).ok()?.to_be_bytes(),
        &external::write(module),
        &external::write(old_index),
        &external::write(old_unique),
        &external::write(word::to_term(env, pid.0)),
        &free,
    ]
    .concat();
    // The size counts its own four bytes.
    let size = u32::try_from(4 + rest.len()).ok()?.to_be_bytes();
    external::read(env, &[&[NEW_FUN], &size, &rest])
}

/// The index of a function: 32 bits, which the VM may have read as a signed number.
fn index_bytes(index: i64) -> Option<[u8; 4]> {
    let unsigned = u32::try_from(index).ok();
    let bits = unsigned.or_else(|| i32::try_from(index).ok().map(i32::cast_unsigned));
    bits.map(u32::to_be_bytes)
}
