//! The rules of claiming a name.

use crate::Pid;
use crate::epoch::Guard;
use crate::journal::Journal;
use crate::name;
use crate::table::{Fill, Hashed, Record, Table, is_long};
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hashbrown::raw::RawTable;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
    index: Lazy<OneName>,
    /// The names of the processes whose entry in the index is [`SEVERAL`].
    several: Lazy<Hashes>,
    /// How many hashes there are in `several`, by pid: only to tell how much memory they take.
    in_several: [AtomicUsize; 64],
}

/// Bytes of a hash in a tree of them, on average.
const IN_TREE: usize = 24;

/// A map by process that is made when there is something to put in, and whose shards give memory
/// back when most of what they had has gone.
struct Lazy<T>(OnceLock<DashMap<Pid, T, RandomState>>);

/// A shard with fewer entries than one in so many places is made anew, unless it is small.
const SPARSE: usize = 8;
const SMALL: usize = 64;

impl<T> Lazy<T> {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn made(&self) -> Option<&DashMap<Pid, T, RandomState>> {
        self.0.get()
    }

    fn map(&self) -> &DashMap<Pid, T, RandomState> {
        self.0
            .get_or_init(|| DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS))
    }

    fn remove(&self, pid: Pid) -> Option<T> {
        let map = self.made()?;
        let removed = map.remove(&pid)?.1;
        Self::shrink(map, pid);
        Some(removed)
    }

    /// After something was removed.
    fn shrink(map: &DashMap<Pid, T, RandomState>, pid: Pid) {
        let shard = &map.shards()[map.determine_map(&pid)];
        let outdated = |len: usize, capacity: usize, buckets: usize| {
            // At most seven of eight buckets are filled, less those where something was that has
            // left a mark. A map that is full of marks would double.
            let marks = (buckets / 8 * 7).saturating_sub(capacity);
            capacity > SMALL && (len * SPARSE < capacity || marks * SPARSE > buckets)
        };
        let entries = shard.read();
        if !outdated(entries.len(), entries.capacity(), entries.buckets()) {
            return;
        }
        drop(entries);
        let mut entries = shard.write();
        if outdated(entries.len(), entries.capacity(), entries.buckets()) {
            let hash = |pid: &Pid| map.hasher().hash_one(pid);
            let mut fresh = RawTable::with_capacity(entries.len() + 1);
            for entry in entries.drain() {
                fresh.insert(hash(&entry.0), entry, |(pid, _)| hash(pid));
            }
            *entries = fresh;
        }
    }

    fn len(&self) -> usize {
        self.made().map_or(0, DashMap::len)
    }

    fn bytes(&self) -> usize {
        let shards = self.made().map_or(&[][..], |map| map.shards());
        // A byte of the map's own for each entry.
        let entries = shards.iter().map(|shard| shard.read().capacity());
        size_of_val(shards) + entries.sum::<usize>() * (size_of::<(Pid, T)>() + 1)
    }

    fn clear(&self) {
        if let Some(map) = self.made() {
            map.clear();
            map.shrink_to_fit();
        }
    }
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
            index: Lazy::new(),
            several: Lazy::new(),
            in_several: [const { AtomicUsize::new(0) }; 64],
        }
    }

    /// Who holds the name. The process may have ended: only the VM knows.
    #[inline]
    #[must_use]
    pub fn whereis(&self, guard: &Guard, name: &[u8]) -> Option<Pid> {
        self.table.whereis(guard, Hashed::of(name))
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
        let name = Hashed::of(name);
        let claim = || {
            self.table
                .claim(name, pid, instead_of, value)
                .map_err(RegisterError::Taken)
        };
        match self.index.map().entry(pid) {
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
        self.table.lookup(Hashed::of(name))
    }

    /// Gives the name another value if `pid` holds it; answers whether it did.
    pub fn update(&self, name: &[u8], pid: Pid, value: Option<V>) -> bool {
        self.table.update(Hashed::of(name), pid, value)
    }

    /// Has a process watched that holds no name but has to be told of something: when it ends, the
    /// journal forgets it as [`Registry::sweep`] frees its names. `watch` as in
    /// [`Registry::register`]; `false` when the process has ended.
    pub fn attend(&self, pid: Pid, watch: impl FnOnce() -> bool) -> bool {
        if let Entry::Vacant(vacant) = self.index.map().entry(pid) {
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
        let held = self
            .index
            .made()
            .and_then(|index| index.get(&pid).map(|held| *held));
        match held {
            None => Vec::new(),
            Some(SEVERAL) => self.several_names_of(pid),
            Some(hash) => self.table.names_of(hash, pid),
        }
    }

    /// A thousand at a time: whoever registers or ends meanwhile may need the same lock.
    fn several_names_of(&self, pid: Pid) -> Vec<Box<[u8]>> {
        let (mut names, mut last) = (Vec::new(), Bound::Unbounded);
        loop {
            let held = self.several.made().and_then(|several| several.get(&pid));
            let hashes: Vec<u64> = held.map_or(Vec::new(), |held| {
                let rest = held.range((last, Bound::Unbounded));
                rest.map(|(hash, _)| *hash).take(1_000).collect()
            });
            let Some(&hash) = hashes.last() else {
                return names;
            };
            last = Bound::Excluded(hash);
            names.extend(
                hashes
                    .into_iter()
                    .flat_map(|hash| self.table.names_of(hash, pid)),
            );
        }
    }

    /// The names of one piece of the table that match a pattern, and the piece to go on with, if there
    /// is one; the first is 0. All pieces together have every name that was held all the while, once,
    /// and may have any that came or went meanwhile.
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
        let mut fill = self.table.fill();
        let hashes = self
            .in_several
            .iter()
            .map(|some| some.load(Ordering::Relaxed));
        let trees = hashes.sum::<usize>() * IN_TREE;
        fill.bytes += self.index.bytes() + self.several.bytes() + trees;
        fill
    }

    /// Frees the name if `pid` holds it; answers whether it did. A name that a sweep is about to free is
    /// not held any more.
    pub fn unregister(&self, name: &[u8], pid: Pid) -> bool {
        let index = self.index.made();
        let Some(mut held) = index.and_then(|index| index.get_mut(&pid)) else {
            return false;
        };
        let name = Hashed::of(name);
        if *held != SEVERAL {
            let freed = *held == name.hash && self.table.release(name, pid);
            if freed {
                *held = SEVERAL;
            }
            return freed;
        }
        let Some(several) = self.several.made() else {
            return false;
        };
        let Entry::Occupied(mut names) = several.entry(pid) else {
            return false;
        };
        let btree_map::Entry::Occupied(mut count) = names.get_mut().entry(name.hash) else {
            return false;
        };
        if !self.table.release(name, pid) {
            return false;
        }
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
            self.counted(pid).fetch_sub(1, Ordering::Relaxed);
        }
        if names.get().is_empty() {
            names.remove();
            Lazy::shrink(several, pid);
        }
        true
    }

    /// Frees every name that `pid`, which has ended, still holds; answers how many. A name that
    /// another process has taken over meanwhile stays with it.
    pub fn sweep(&self, pid: Pid) -> usize {
        self.release(self.withdraw(pid))
    }

    /// The first half of [`Registry::sweep`]: takes the process out of the index.
    pub fn withdraw(&self, pid: Pid) -> Withdrawn {
        let hashes = match self.index.remove(pid) {
            None => Hashes::new(),
            Some(SEVERAL) => {
                let hashes = self.several.remove(pid).unwrap_or_default();
                self.counted(pid).fetch_sub(hashes.len(), Ordering::Relaxed);
                hashes
            }
            Some(hash) => Hashes::from([(hash, 1)]),
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
            .map(|(hash, names)| self.table.release_hash(hash, pid, names))
            .sum()
    }

    fn counted(&self, pid: Pid) -> &AtomicUsize {
        // Neighbouring pids differ in the bits above the tag.
        #[allow(clippy::cast_possible_truncation)]
        &self.in_several[(pid.0 >> 4) as usize % self.in_several.len()]
    }

    fn hold(&self, pid: Pid, held: &mut OneName, hash: u64) {
        match self.several.map().entry(pid) {
            Entry::Vacant(_) if *held == SEVERAL => *held = hash,
            names => {
                let mut names = names.or_default();
                let before = names.len();
                if *held != SEVERAL {
                    names.insert(*held, 1);
                    *held = SEVERAL;
                }
                *names.entry(hash).or_default() += 1;
                let more = names.len() - before;
                self.counted(pid).fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.index.clear();
        self.several.clear();
        for some in &self.in_several {
            some.store(0, Ordering::Relaxed);
        }
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
