//! The registry without the BEAM: names as canonical bytes, the table from name to holder, and the
//! rules by which a name is claimed, taken over and freed.
//!
//! A lookup is: hash the name's bytes, compare them with those in a slot, and see that nobody has
//! written there meanwhile.
#![forbid(unsafe_code)]

pub mod directory;
pub mod ended;
pub mod epoch;
pub mod journal;
mod long;
pub mod meta;
pub mod name;
mod registry;
mod slots;
mod sync;
mod table;

pub use registry::{RegisterError, Registry, Withdrawn};
pub use table::{Fill, Record};

/// A process, by the word that identifies it in this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u64);
