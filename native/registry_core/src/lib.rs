//! The registry without the BEAM: names as canonical bytes, the table from name to holder, and the
//! rules by which a name is claimed, taken over and freed.
//!
//! A lookup is: hash the name's bytes, lock one shard for reading, compare bytes inside the entry.
#![forbid(unsafe_code)]

pub mod journal;
pub mod name;
mod registry;
mod table;

pub use registry::{RegisterError, Registry, Withdrawn};
pub use table::{Fill, Record};

/// A process, by the word that identifies it in this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pid(pub u64);
