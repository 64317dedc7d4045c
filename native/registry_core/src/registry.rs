//! The rules of claiming a name.

use crate::Pid;
use crate::journal::Journal;
use crate::name;
use crate::table::{Fill, Reader, Record, Table, is_long};
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::collections::{BTreeMap, btree_map};
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

/// Names and their holders. With each name may be kept a `V`: what the caller wants back with it.
///
/// Two maps: the table says who holds a name, the index which names a process holds. The index
/// keeps a name's 64-bit hash, not the name; the hash and the holder find it in the table.
///
/// # Order of locks
///
/// A shard of the index first, then one of `several`, then one of the table, never another way. So what the index
/// says of a process and what the table says of its names change together. No lock is held while
/// the VM is called.
///
/// # Who cleans up
///
/// A process that stands in the index is being watched, or the call that put it there is about to
/// have it watched. The watch's notice calls [`Registry::sweep`]; if watching fails, the process
/// has ended already and [`Registry::register`] sweeps itself. So a name that is put under a
/// process that stands in the index is always freed by somebody.
pub struct Registry<V> {
    table: Table<V>,
    index: DashMap<Pid, OneName, RandomState>,
    /// The names of the processes whose entry in the index is [`SEVERAL`].
    several: DashMap<Pid, Hashes, RandomState>,
}

/// The hash of the only name that a process holds, or [`SEVERAL`]. Most processes hold one name,
/// and theirs should cost little.
type OneName = u64;

/// Hash to how many of a process's names have it: two names of one hash are next to impossible, yet
/// freeing one must not lose track of the other. A tree, because a hash map of a million names
/// stands still for long when it grows.
type Hashes = BTreeMap<u64, usize>;

/// Any other number of names. None, too: a process that gave its names back stays watched until it
/// ends. No name has this hash.
const SEVERAL: OneName = 0;

/// A process that is out of the index, and the names that may still have to be freed.
#[derive(Debug)]
pub struct Withdrawn {
    pid: Pid,
    hashes: Hashes,
}

impl Withdrawn {
    /// The most names that are freed in a fraction of a millisecond, and how many of them a long one
    /// counts for.
    const AT_ONCE: usize = 1_000;
    const LONG: usize = 50;

    /// How many names it held, give or take those of the same hash.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it held none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether freeing the names takes longer than a scheduler should be held.
    pub fn takes_long(&self) -> bool {
        let weight = |hash: &u64| if is_long(*hash) { Self::LONG } else { 1 };
        self.len() > Self::AT_ONCE || self.hashes.keys().map(weight).sum::<usize>() > Self::AT_ONCE
    }
}

/// Shards of the index; see the table's for what a shard costs.
const SHARDS: usize = 64;

impl<V: Clone> Registry<V> {
    /// A registry without names.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            index: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            several: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
        }
    }

    /// Who holds the name. The process may have ended: only the VM knows.
    #[inline]
    #[must_use]
    pub fn whereis(&self, reader: &mut Reader, name: &[u8]) -> Option<Pid> {
        self.table.whereis(reader, self.table.hash(name))
    }

    /// Makes `pid` the holder of a name that nobody holds, or that `instead_of` holds, which the
    /// caller knows to have ended.
    ///
    /// `watch` is called when `pid` did not stand in the index: it has to see to it that
    /// [`Registry::sweep`] is called after `pid` has ended, or answer `false` if it has already.
    /// No lock is held meanwhile.
    pub fn register(
        &self,
        name: &[u8],
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<V>,
        watch: impl FnOnce() -> bool,
    ) -> Result<(), RegisterError> {
        let name = self.table.hash(name);
        let claim = || {
            self.table
                .claim(name, pid, instead_of, value)
                .map_err(RegisterError::Taken)
        };
        match self.index.entry(pid) {
            Entry::Occupied(mut held) => {
                claim()?;
                self.hold(pid, held.get_mut(), name.hash);
                return Ok(());
            }
            Entry::Vacant(vacant) => {
                claim()?;
                vacant.insert(name.hash);
            }
        }
        if watch() {
            Ok(())
        } else {
            self.sweep(pid);
            Err(RegisterError::Ended)
        }
    }

    /// Who holds the name, and its value.
    pub fn lookup(&self, name: &[u8]) -> Option<(Pid, Option<V>)> {
        self.table.lookup(self.table.hash(name))
    }

    /// Gives the name another value if `pid` holds it; answers whether it did.
    pub fn update(&self, name: &[u8], pid: Pid, value: Option<V>) -> bool {
        self.table.update(self.table.hash(name), pid, value)
    }

    /// Has a process watched that holds no name but has to be told of something: when it ends, the
    /// journal forgets it as [`Registry::sweep`] frees its names. `watch` as in
    /// [`Registry::register`]; `false` when the process has ended.
    pub fn attend(&self, pid: Pid, watch: impl FnOnce() -> bool) -> bool {
        if let Entry::Vacant(vacant) = self.index.entry(pid) {
            vacant.insert(SEVERAL);
        } else {
            return true;
        }
        let watched = watch();
        if !watched {
            self.sweep(pid);
        }
        watched
    }

    /// The names that `pid` holds.
    pub fn names_of(&self, pid: Pid) -> Vec<Box<[u8]>> {
        let hashes: Vec<u64> = match self.index.get(&pid).map(|held| *held) {
            None => return Vec::new(),
            Some(SEVERAL) => match self.several.get(&pid) {
                None => return Vec::new(),
                Some(hashes) => hashes.keys().copied().collect(),
            },
            Some(hash) => vec![hash],
        };
        hashes
            .into_iter()
            .flat_map(|hash| self.table.names_of(hash, pid))
            .collect()
    }

    /// In how many pieces [`Registry::piece`] gives the names.
    pub const PIECES: usize = Table::<V>::PIECES;

    /// The names of one piece that match a pattern. All pieces together have every name that was
    /// held all the while, once, and may have any that came or went meanwhile.
    pub fn piece(&self, piece: usize, pattern: &[u8]) -> Vec<Record<V>> {
        self.table.piece(piece, |name| name::matches(pattern, name))
    }

    /// What is told to listeners, subscribers and those who wait.
    pub fn journal(&self) -> &Arc<Journal<V>> {
        &self.table.journal
    }

    /// Starts to wait for a name; answers the number by which the journal will tell of it. Whoever
    /// waits has to look the name up afterwards: it may have been there before.
    pub fn wait(&self, pid: Pid, name: &[u8]) -> u64 {
        self.table.journal.wait(pid, name)
    }

    /// How full the table is.
    pub fn fill(&self) -> Fill {
        self.table.fill()
    }

    /// Frees the name if `pid` holds it; answers whether it did.
    pub fn unregister(&self, name: &[u8], pid: Pid) -> bool {
        let Some(mut held) = self.index.get_mut(&pid) else {
            return false;
        };
        let name = self.table.hash(name);
        if !self.table.release(name, pid) {
            return false;
        }
        self.let_go(pid, &mut held, name.hash);
        true
    }

    /// Frees every name that `pid`, which has ended, still holds; answers how many. A name that
    /// another process has taken over meanwhile stays with it.
    pub fn sweep(&self, pid: Pid) -> usize {
        self.release(self.withdraw(pid))
    }

    /// The first half of [`Registry::sweep`]: takes the process out of the index.
    pub fn withdraw(&self, pid: Pid) -> Withdrawn {
        let hashes = match self.index.remove(&pid) {
            None => Hashes::new(),
            Some((_, SEVERAL)) => self.several.remove(&pid).unwrap_or((pid, Hashes::new())).1,
            Some((_, hash)) => Hashes::from([(hash, 1)]),
        };
        // Last: whoever subscribes the process while it is in the index leaves this to us.
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

    /// The second half of [`Registry::sweep`]: frees the names. May come at any time later.
    pub fn release(&self, withdrawn: Withdrawn) -> usize {
        let Withdrawn { pid, hashes } = withdrawn;
        hashes
            .into_iter()
            .flat_map(|(hash, names)| std::iter::repeat_n(hash, names))
            .filter(|hash| self.table.release_hash(*hash, pid))
            .count()
    }

    fn hold(&self, pid: Pid, held: &mut OneName, hash: u64) {
        match self.several.entry(pid) {
            Entry::Vacant(_) if *held == SEVERAL => *held = hash,
            names => {
                let mut names = names.or_default();
                if *held != SEVERAL {
                    names.insert(*held, 1);
                    *held = SEVERAL;
                }
                *names.entry(hash).or_default() += 1;
            }
        }
    }

    fn let_go(&self, pid: Pid, held: &mut OneName, hash: u64) {
        if *held != SEVERAL {
            *held = SEVERAL;
            return;
        }
        let Entry::Occupied(mut names) = self.several.entry(pid) else {
            return;
        };
        if let btree_map::Entry::Occupied(mut count) = names.get_mut().entry(hash) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if names.get().is_empty() {
            names.remove();
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.index.clear();
        self.index.shrink_to_fit();
        self.several.clear();
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

    /// How many processes are in the index: those that hold a name, or did and still live.
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
