//! Whether any process wants to be told of changes.
//!
//! Lookups take no lock, so this is a store-buffering race: a thread that changes a name writes the
//! table and then reads these counts; a thread that asks writes these counts and then reads the table.
//! With a `SeqCst` fence between the two steps on both sides, at least one of the threads sees what
//! the other has written; without one of the fences, both can miss it. `tests/loom_journal.rs` goes
//! through all interleavings.

use super::sync::{AtomicUsize, Ordering, fence};

/// How many listeners, listeners to releases alone, patterns and waiters there are. A count is raised before
/// the counted item is put where a change looks for it, and lowered after the item was taken out.
#[derive(Default)]
pub(crate) struct Wanted {
    listeners: AtomicUsize,
    releases: AtomicUsize,
    patterns: AtomicUsize,
    waiters: AtomicUsize,
}

/// What a change has to look for.
#[allow(clippy::struct_excessive_bools)] // One for each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) listeners: bool,
    pub(crate) releases: bool,
    pub(crate) patterns: bool,
    pub(crate) waiters: bool,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Listeners,
    Releases,
    Patterns,
    Waiters,
}

impl Wanted {
    #[inline]
    fn count(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Listeners => &self.listeners,
            Kind::Releases => &self.releases,
            Kind::Patterns => &self.patterns,
            Kind::Waiters => &self.waiters,
        }
    }

    /// Raises the count of this kind.
    pub(crate) fn add(&self, kind: Kind, more: usize) {
        // Release: a thread that sees the count sees the collections that were made before.
        self.count(kind).fetch_add(more, Ordering::Release);
    }

    /// Lowers the count of this kind.
    pub(crate) fn subtract(&self, kind: Kind, fewer: usize) {
        self.count(kind).fetch_sub(fewer, Ordering::Release);
    }

    /// How many there are.
    #[inline]
    pub(crate) fn get(&self, kind: Kind) -> usize {
        self.count(kind).load(Ordering::Acquire)
    }

    /// Called by a thread that asks, after it has written the count and what that counts, and before it
    /// reads the table.
    #[allow(clippy::unused_self)]
    pub(crate) fn asked(&self) {
        fence(Ordering::SeqCst);
    }

    /// Called by a thread that has changed a name, after it has written the table. `None` if no process
    /// asks; then a change does nothing more.
    #[inline]
    pub(crate) fn look(&self) -> Option<Look> {
        fence(Ordering::SeqCst);
        let look = Look {
            listeners: self.get(Kind::Listeners) > 0,
            releases: self.get(Kind::Releases) > 0,
            patterns: self.get(Kind::Patterns) > 0,
            waiters: self.get(Kind::Waiters) > 0,
        };
        (look.listeners || look.releases || look.patterns || look.waiters).then_some(look)
    }
}
