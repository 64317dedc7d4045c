//! Replaced in the test that goes through all interleavings, `tests/loom_journal.rs`.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
