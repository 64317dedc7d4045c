//! Parts of names that the VM's API does not open.

use crate::watch::Watch;
use rustler::{Env, Term};
use std::sync::Weak;

/// The mark by which the Elixir side says that a tuple stands for a part it has opened: the tuple
/// is `{mark, kind, body}` or `{mark, kind, body, number}`. The mark is a resource, and nobody is
/// handed another one: no name of a user can be mistaken for such a tuple.
pub(crate) struct Odd;

impl Odd {
    /// Body: the magnitude as a little-endian binary. Number: 1 when negative.
    pub(crate) const INTEGER: u8 = 0;
    /// Body: the bitstring, padded to a binary. Number: how many bits of its last byte count.
    pub(crate) const BITS: u8 = 1;
    /// Body: a list of what makes the function equal to another.
    pub(crate) const FUN: u8 = 2;
    /// Body: a list of module, name and arity.
    pub(crate) const EXPORT: u8 = 3;

    /// Whether the term is a mark.
    pub(crate) fn marks(term: Term<'_>) -> bool {
        term.is_ref() && Watch::is(term)
    }
}

/// A new mark: a watch of nothing.
#[rustler::nif]
fn odd(env: Env<'_>) -> Term<'_> {
    Watch::new(Weak::new()).to_term(env)
}
