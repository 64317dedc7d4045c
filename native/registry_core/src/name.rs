//! Names as canonical bytes.
//!
//! A name is any Erlang term. The table has names as bytes, which an [`Encoder`] writes such that
//! two byte strings are equal exactly when the terms are `===`. The first byte of a term says how
//! the term goes on, so terms follow each other without a length in front, and one pass over a term
//! writes it.
//!
//! An atom, a local pid or a local port is written as the machine word that identifies it in this
//! VM. So the bytes mean something in this VM only, and never leave it.
//!
//! No function here calls itself: names may be nested deeply, and the stack of a thread of the VM
//! may be small.

mod limits;
pub mod tag;
mod uuid;

mod span;

mod encode;
mod read;

mod pattern;

pub use encode::{Buffer, Encoder, Pairs};
pub use limits::{MAX_BYTES, MAX_DEPTH, MAX_MAP_WORK, NameError};
pub use pattern::matches;
pub use read::{Part, Reader};
