//! How large a name may be.

use thiserror::Error;

/// The longest name, in canonical bytes. With it, a call on any name takes less than a millisecond.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a part of a name counts for at least, however few bytes it takes: any part, and a map or a
/// reference. So the number of parts is bounded as well as their bytes.
pub(super) const SMALL: usize = 4;
pub(super) const LARGE: usize = 32;

/// The deepest nesting of a name.
pub const MAX_DEPTH: usize = 256;

/// The most bytes that may be moved while the maps of a name are put in order. A map within a map is
/// moved once for each level, so the size of a name does not bound this.
pub const MAX_MAP_WORK: usize = 4 * MAX_BYTES;

/// Why a term cannot be a name. The text is what users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// More than [`MAX_BYTES`] in canonical form.
    #[error("expected a name of at most {MAX_BYTES} bytes in canonical form")]
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("expected a name nested at most {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Maps in maps whose ordering moves more than [`MAX_MAP_WORK`] bytes.
    #[error(
        "expected a name whose maps can be put in order by moving at most {MAX_MAP_WORK} bytes, \
         a map in a map once more for each level"
    )]
    TooManyMaps,
}
