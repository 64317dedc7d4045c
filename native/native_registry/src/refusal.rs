//! Why a term is not taken: as an error with a text, and as the atom that the Elixir side gets.

use registry_core::name::{MAX_BYTES, MAX_DEPTH, MAX_MAP_WORK, NameError};
use rustler::{Atom, Encoder, Env, Error, NifResult, Term};

/// The largest value, in external format.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

rustler::atoms! { too_large, too_deep, too_many_maps, odd, bad_pattern, value_too_large }

/// Why a term was not taken. The text is the first half of the `ArgumentError` that the Elixir side
/// raises, which adds what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It cannot be a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It has a part that the VM's API does not open: a function, an integer of more than 64 bits, a
    /// bitstring, or a term of a kind that is not known here. The Elixir side opens those that it
    /// knows, see `Mark`, and calls again.
    #[error(
        "expected a name of atoms, numbers, bitstrings, pids, ports, references, functions, \
         tuples, lists and maps"
    )]
    Odd,
    /// It is no pattern: `:_` stands in the key of a map.
    #[error("expected a pattern without :_ in the key of a map")]
    Pattern,
    /// It is too large for a value. The Elixir side finds out, because it has the term.
    #[error("expected a value of at most {MAX_VALUE_BYTES} bytes in external format")]
    Value,
}

impl Refused {
    const ALL: [Self; 6] = [
        Self::Name(NameError::TooLarge),
        Self::Name(NameError::TooDeep),
        Self::Name(NameError::TooManyMaps),
        Self::Odd,
        Self::Pattern,
        Self::Value,
    ];

    fn atom(self) -> Atom {
        match self {
            Self::Name(NameError::TooLarge) => too_large(),
            Self::Name(NameError::TooDeep) => too_deep(),
            Self::Name(NameError::TooManyMaps) => too_many_maps(),
            Self::Odd => odd(),
            Self::Pattern => bad_pattern(),
            Self::Value => value_too_large(),
        }
    }
}

impl Encoder for Refused {
    #[cold]
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        self.atom().encode(env)
    }
}

/// `(refusal)`: its text, for an atom that a NIF has answered, or `:value_too_large`.
#[rustler::nif]
fn message(refusal: Atom) -> NifResult<String> {
    let refused = Refused::ALL.into_iter().find(|one| one.atom() == refusal);
    refused
        .map(|refused| refused.to_string())
        .ok_or(Error::BadArg)
}

/// `()`: `{name_bytes, depth, map_work, value_bytes}`, each the most that is allowed.
#[rustler::nif]
fn limits() -> (usize, usize, usize, usize) {
    (MAX_BYTES, MAX_DEPTH, MAX_MAP_WORK, MAX_VALUE_BYTES)
}
