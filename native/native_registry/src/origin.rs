//! The numbers of a reference of this node.
//!
//! The external format of a reference also holds the name of the node, which changes when
//! distribution starts. So a name has the numbers alone, and gets the rest from a reference that is
//! made when it is needed.

use crate::external;
use rustler::{Encoder, Env, OwnedBinary, Term};

/// What the references of one node have in common in external format.
pub(crate) struct Origin {
    reference: OwnedBinary,
}

impl Origin {
    /// That of this node.
    pub(crate) fn own(env: Env<'_>) -> Self {
        Self {
            reference: env.make_ref().encode(env).to_binary(),
        }
    }

    /// The node and creation of a reference, and its numbers. In front of them stand the version, a
    /// tag, and the count of numbers (2 bytes); each number has 4 bytes.
    fn split(reference: &[u8]) -> Option<(&[u8], &[u8])> {
        let numbers = 4 * usize::from(u16::from_be_bytes([*reference.get(2)?, *reference.get(3)?]));
        let (front, numbers) = reference.split_at_checked(reference.len().checked_sub(numbers)?)?;
        Some((front.get(4..)?, numbers))
    }

    /// The numbers of a reference, given in external format, if it has this origin.
    pub(crate) fn numbers<'r>(&self, reference: &'r [u8]) -> Option<&'r [u8]> {
        let (origin, numbers) = Self::split(reference)?;
        (origin == Self::split(&self.reference)?.0).then_some(numbers)
    }

    /// The reference of this origin that has these numbers.
    pub(crate) fn reference<'a>(&self, env: Env<'a>, numbers: &[u8]) -> Option<Term<'a>> {
        let count = u16::try_from(numbers.len() / 4).ok()?.to_be_bytes();
        let (origin, _) = Self::split(&self.reference)?;
        external::read(env, &[&self.reference[1..2], &count, origin, numbers])
    }
}
