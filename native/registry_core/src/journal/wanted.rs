//! Whether anybody wants to be told of changes.
//!
//! Lookups take no lock, so this is a store-buffering race: whoever changes a name writes the table
//! and then reads these counts, whoever asks writes these counts and then reads the table. A
//! `SeqCst` fence between the two steps on both sides sees to it that at least one of the two sees
//! what the other has written; without one of them both can miss. `tests/loom_journal.rs` goes
//! through all interleavings of it.

use super::sync::{AtomicUsize, Ordering, fence};

/// How many ask for what. Each count is raised before what it counts is put where a change looks
/// for it, and lowered after it has been taken out.
#[derive(Default)]
pub(crate) struct Wanted {
    listeners: AtomicUsize,
    patterns: AtomicUsize,
    waiters: AtomicUsize,
}

/// What a change has to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) listeners: bool,
    pub(crate) patterns: bool,
    pub(crate) waiters: bool,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Listeners,
    Patterns,
    Waiters,
}

impl Wanted {
    fn count(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Listeners => &self.listeners,
            Kind::Patterns => &self.patterns,
            Kind::Waiters => &self.waiters,
        }
    }

    /// So many more ask.
    pub(crate) fn add(&self, kind: Kind, more: usize) {
        // Release: whoever sees the count sees the collections that were made before.
        self.count(kind).fetch_add(more, Ordering::Release);
    }

    /// So many do not ask any more.
    pub(crate) fn subtract(&self, kind: Kind, fewer: usize) {
        self.count(kind).fetch_sub(fewer, Ordering::Release);
    }

    /// How many ask.
    pub(crate) fn get(&self, kind: Kind) -> usize {
        self.count(kind).load(Ordering::Acquire)
    }

    /// Called by whoever asks, after the count and what it counts have been written and before the
    /// table is read.
    #[allow(clippy::unused_self)]
    pub(crate) fn asked(&self) {
        fence(Ordering::SeqCst);
    }

    /// Called by whoever has changed a name, after the table has been written. `None` when nobody
    /// asks, which is all that a change costs then.
    #[inline]
    pub(crate) fn look(&self) -> Option<Look> {
        fence(Ordering::SeqCst);
        let look = Look {
            listeners: self.get(Kind::Listeners) > 0,
            patterns: self.get(Kind::Patterns) > 0,
            waiters: self.get(Kind::Waiters) > 0,
        };
        (look.listeners || look.patterns || look.waiters).then_some(look)
    }
}
