//! The external term format, whose tags stand in the chapter "External Term Format" of OTP's
//! documentation.

use rustler::{Env, Term};

const VERSION: u8 = 131;
pub(crate) const BITS: u8 = 77;
pub(crate) const LARGE_BIG: u8 = 111;
pub(crate) const NEW_FUN: u8 = 112;
pub(crate) const EXPORT: u8 = 113;

/// The term with this external format, of which the version is not part. `None` for bytes that are
/// none, or when the VM has no memory left.
pub(crate) fn read<'a>(env: Env<'a>, parts: &[&[u8]]) -> Option<Term<'a>> {
    let bytes = [&[VERSION], parts.concat().as_slice()].concat();
    env.binary_to_term(&bytes).map(|(term, _)| term)
}

/// The external format of a term, without the version.
pub(crate) fn write(term: Term<'_>) -> Vec<u8> {
    term.to_binary()[1..].to_vec()
}
