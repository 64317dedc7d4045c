//! Parts of names that the VM's API does not open.

use rustler::{Resource, ResourceArc};

/// The mark by which the Elixir side says that a tuple stands for a part it has opened: the tuple
/// is `{mark, kind, body}` or `{mark, kind, body, number}`. A term like this comes from nowhere
/// else, so no name of a user can be mistaken for one.
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
}

#[rustler::resource_impl]
impl Resource for Odd {}

/// A new mark.
#[rustler::nif]
fn odd() -> ResourceArc<Odd> {
    ResourceArc::new(Odd)
}
