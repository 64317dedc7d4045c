//! The rules of claiming a name.

use crate::epoch::Guard;
use crate::index::{Hashes, Index, Locked};
use crate::journal::Journal;
use crate::name;
use crate::pid::Pid;
use crate::table::{Fill, Hashed, Record, Table, is_long};
use std::num::NonZeroU64;
use std::sync::Arc;
use thiserror::Error;

/// Why a name was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// This process holds the name.
    #[error("the name is held by {0:?}")]
    Taken(Pid),
    /// The process to register has ended.
    #[error("the process has ended")]
    Ended,
}

/// Names and their holders. A `V`, which the caller wants back with the name, may be kept with each name.
///
/// There are two maps. The table says which process holds a name, the index which names a process
/// holds. The index has the 64-bit hash of a name, not the name; hash and holder find it in the table.
///
/// # Order of locks
///
/// A lock of the index is taken before one of the table. So what the index says of a process and what
/// the table says of its names change together. No lock is held while the VM is called.
///
/// # How names are freed
///
/// A process that is in the index is being watched, or the call that put it there is about to have it
/// watched. The notice of its end calls [`Registry::sweep`]. If it cannot be watched, it has ended
/// already, and [`Registry::register`] sweeps. So the names of every process in the index are freed.
pub struct Registry<V> {
    table: Table<V>,
    index: Index,
}

/// A process that was taken out of the index, and its names, which may still have to be freed.
#[derive(Debug)]
pub struct Withdrawn {
    pid: Pid,
    hashes: Hashes,
}

impl Withdrawn {
    /// The most names that can be freed in a fraction of a millisecond, and how many of them one long
    /// name counts as.
    const AT_ONCE: usize = 1_000;
    const LONG: usize = 50;

    /// How many names the process held; names of the same hash count as one.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it held none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether freeing the names takes longer than a scheduler should be held.
    pub fn takes_long(&self) -> bool {
        let weight = |hash: &NonZeroU64| if is_long(*hash) { Self::LONG } else { 1 };
        self.len() > Self::AT_ONCE || self.hashes.keys().map(weight).sum::<usize>() > Self::AT_ONCE
    }
}

impl<V: Clone> Registry<V> {
    /// A registry without names.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            index: Index::new(),
        }
    }

    /// Starts to load what every lookup reads, while the caller has something else to do.
    #[inline]
    pub fn fetch(&self) {
        self.table.fetch();
    }

    /// The holder of the name. It may have ended: only the VM knows.
    #[inline]
    #[must_use]
    pub fn whereis(&self, guard: &Guard, name: &[u8]) -> Option<Pid> {
        self.table.whereis(guard, Hashed::of(name))
    }

    /// Makes `pid` the holder of a name that no process holds, or that `instead_of` holds. The caller has
    /// to know that `instead_of` has ended.
    ///
    /// `watch` is called when `pid` was not in the index. It has to make sure that [`Registry::sweep`] is
    /// called after `pid` has ended, or answer `false` if `pid` has ended already. No lock is held
    /// meanwhile.
    pub fn register(
        &self,
        name: &[u8],
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<V>,
        watch: impl FnOnce() -> bool,
    ) -> Result<(), RegisterError> {
        let name = Hashed::of(name);
        let claim = || {
            self.table
                .claim(name, pid, instead_of, value)
                .map_err(RegisterError::Taken)
        };
        match self.index.lock(pid) {
            Locked::Known(mut process) => {
                claim()?;
                process.add(name.hash);
                return Ok(());
            }
            Locked::Unknown(process) => {
                claim()?;
                process.insert(name.hash);
            }
        }
        if watch() {
            Ok(())
        } else {
            self.sweep(pid);
            Err(RegisterError::Ended)
        }
    }

    /// The holder of the name, and its value.
    pub fn lookup(&self, name: &[u8]) -> Option<(Pid, Option<V>)> {
        self.table.lookup(Hashed::of(name))
    }

    /// Gives the name another value if `pid` holds it; answers whether it did.
    pub fn update(&self, name: &[u8], pid: Pid, value: Option<V>) -> bool {
        self.table.update(Hashed::of(name), pid, value)
    }

    /// Has a process watched that holds no name but has asked the journal for something. When the process
    /// ends, [`Registry::sweep`] makes the journal forget it. `watch` is as in [`Registry::register`];
    /// answers `false` when the process has ended.
    pub fn attend(&self, pid: Pid, watch: impl FnOnce() -> bool) -> bool {
        match self.index.lock(pid) {
            Locked::Known(_) => return true,
            Locked::Unknown(process) => process.insert_without_name(),
        }
        let watched = watch();
        if !watched {
            self.sweep(pid);
        }
        watched
    }

    /// The names that `pid` holds.
    pub fn names_of(&self, pid: Pid) -> Vec<Box<[u8]>> {
        let mut names = Vec::new();
        self.index
            .each_hash(pid, |hash| names.extend(self.table.names_of(hash, pid)));
        names
    }

    /// The names of one piece of the table that match a pattern, and the next piece, if there is one;
    /// the first is 0. All pieces together have every name that was held all the while, once, and may
    /// have names that came or went meanwhile.
    pub fn piece(&self, piece: usize, pattern: &[u8]) -> (Vec<Record<V>>, Option<usize>) {
        self.table.piece(piece, |name| name::matches(pattern, name))
    }

    /// All pieces, one after the other.
    pub fn pieces<'a>(&'a self, pattern: &'a [u8]) -> impl Iterator<Item = Vec<Record<V>>> + 'a {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let (records, then) = self.piece(next?, pattern);
            next = then;
            Some(records)
        })
    }

    /// What is told to listeners, subscribers and processes that wait.
    pub fn journal(&self) -> &Arc<Journal<V>> {
        &self.table.journal
    }

    /// The process waits for a name from now on; answers the number by which the journal will tell
    /// it. The caller has to look the name up afterwards: it may have been registered before.
    pub fn wait(&self, pid: Pid, name: &[u8]) -> u64 {
        self.table.journal.wait(pid, name)
    }

    /// How full the table is.
    pub fn fill(&self) -> Fill {
        let mut fill = self.table.fill();
        fill.bytes += self.index.bytes();
        fill
    }

    /// Frees the name if `pid` holds it; answers whether it did. A name that a sweep is about to free
    /// is not held any more.
    pub fn unregister(&self, name: &[u8], pid: Pid) -> bool {
        let name = Hashed::of(name);
        let process = self.index.get(pid);
        process
            .is_some_and(|mut process| process.remove(name.hash, || self.table.release(name, pid)))
    }

    /// Frees every name that `pid`, which has ended, still holds; answers how many. A name that
    /// another process has taken over meanwhile stays with that process.
    pub fn sweep(&self, pid: Pid) -> usize {
        self.release(self.withdraw(pid))
    }

    /// The first half of [`Registry::sweep`]: takes the process out of the index.
    pub fn withdraw(&self, pid: Pid) -> Withdrawn {
        let hashes = self.index.withdraw(pid);
        // Last: a call that subscribes the process while it is in the index relies on this.
        self.journal().forget(pid);
        Withdrawn { pid, hashes }
    }

    /// The names that are still to be freed.
    pub fn names_of_withdrawn(&self, withdrawn: &Withdrawn) -> Vec<Box<[u8]>> {
        let Withdrawn { pid, hashes } = withdrawn;
        hashes
            .keys()
            .flat_map(|hash| self.table.names_of(*hash, *pid))
            .collect()
    }

    /// The second half of [`Registry::sweep`]: frees the names. It may come at any time later.
    pub fn release(&self, withdrawn: Withdrawn) -> usize {
        let Withdrawn { pid, hashes } = withdrawn;
        hashes
            .into_iter()
            .map(|(hash, names)| self.table.release_hash(hash, pid, names))
            .sum()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.index.clear();
        self.table.clear();
        self.table.journal.close();
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no name is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The processes that hold a name.
    #[must_use]
    pub fn holding(&self) -> Vec<Pid> {
        self.index.holders()
    }

    /// How many processes are in the index: those that hold a name, and those that held one and still
    /// live.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.index.len()
    }
}

impl<V: Clone> Default for Registry<V> {
    fn default() -> Self {
        Self::new()
    }
}
