//! The registry without the BEAM: names as canonical bytes, the table from name to holder, and the
//! rules by which a name is claimed, taken over and freed.
//!
//! A lookup hashes the name's bytes, compares them with those in a slot of the table, and checks
//! that nobody has written to the slot in the meantime.
//!
//! The modules below stand in floors, the lowest first. A module uses modules of lower floors only;
//! `native_registry/tests/floors.rs` checks that.
#![forbid(unsafe_code)]

pub mod ended;
pub mod epoch;
pub mod meta;
pub mod name;
mod pid;
mod sparse;
mod sync;

pub mod directory;
mod index;
pub mod journal;
pub mod lease;
mod slots;

mod long;

mod table;

pub mod mirror;
mod registry;

pub use pid::Pid;
pub use registry::{RegisterError, Registry, Withdrawn};
pub use table::{Fill, Record};
