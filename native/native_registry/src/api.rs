//! Calls of the VM's documented API that rustler does not offer, or not without a copy.

use rustler::sys::{ErlNifTerm, enif_get_local_port, enif_get_tuple};
use rustler::{Env, NewBinary, Term};
use std::mem::MaybeUninit;
use std::slice;

/// Whether the term is a port of this node.
pub(crate) fn is_local_port(term: Term<'_>) -> bool {
    let mut port = MaybeUninit::uninit();
    // SAFETY: the term belongs to the env, and there is room for the answer, which nobody reads.
    unsafe {
        let env = term.get_env().as_c_arg();
        enif_get_local_port(env, term.as_c_arg(), port.as_mut_ptr()) != 0
    }
}

/// The elements of a tuple, as they lie in memory.
#[inline]
pub(crate) fn elements(term: Term<'_>) -> Option<&[ErlNifTerm]> {
    let mut arity = 0;
    let mut elements = MaybeUninit::uninit();
    // SAFETY: the term belongs to the env, and there is room for both answers. On success they are
    // the arity and a pointer to that many words on the heap of the caller, which does not move
    // before the NIF returns; the lifetime of the term ends there. For an empty tuple the VM
    // promises no pointer.
    unsafe {
        let env = term.get_env().as_c_arg();
        let is_tuple = enif_get_tuple(env, term.as_c_arg(), &raw mut arity, elements.as_mut_ptr());
        match (is_tuple, usize::try_from(arity)) {
            (0, _) | (_, Err(_)) => None,
            (_, Ok(0)) => Some(&[]),
            (_, Ok(arity)) => Some(slice::from_raw_parts(elements.assume_init(), arity)),
        }
    }
}

/// A new binary of these bytes.
pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.copy_from_slice(bytes);
    binary.into()
}
