//! Terms as words.
//!
//! The VM hands terms to native code as words. The word of an atom, or of a pid or port of this node,
//! means the same in every env for as long as the VM runs, so it can be kept.

use registry_core::Pid;
use rustler::sys::ErlNifTerm;
use rustler::{Atom, Encoder, Env, LocalPid, Term};

/// The word of a term.
#[inline]
pub(crate) fn of(term: ErlNifTerm) -> u64 {
    // SAFETY: `ErlNifTerm` is a transparent wrapper of a `usize`, which rustler keeps private.
    (unsafe { std::mem::transmute::<ErlNifTerm, usize>(term) }) as u64
}

/// The word of an atom.
#[inline]
pub(crate) fn of_atom(env: Env<'_>, atom: Atom) -> u64 {
    of(atom.to_term(env).as_c_arg())
}

/// The word of a pid of this node.
#[inline]
pub(crate) fn of_pid(env: Env<'_>, pid: LocalPid) -> Pid {
    Pid(of(pid.encode(env).as_c_arg()))
}

/// The pid of this node that a word from [`of_pid`] identifies.
#[inline]
pub(crate) fn to_pid(env: Env<'_>, pid: Pid) -> Term<'_> {
    to_term(env, pid.0)
}

/// The term whose word this is: an immediate, or an atom, pid or port of this node.
#[inline]
pub(crate) fn to_term(env: Env<'_>, word: u64) -> Term<'_> {
    // The word was a `usize` in `of`.
    #[allow(clippy::cast_possible_truncation)]
    let word = word as usize;
    // SAFETY: as in `of`; and the word is one of a term that points to no memory, so it belongs to
    // every env.
    unsafe { Term::new(env, std::mem::transmute::<usize, ErlNifTerm>(word)) }
}
