//! Which names a process holds, by their hashes.

use crate::pid::Pid;
use crate::sparse::{SMALL, sparse};
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::{Entry, VacantEntry};
use dashmap::mapref::one::RefMut;
use hashbrown::raw::RawTable;
use std::collections::{BTreeMap, btree_map};
use std::num::NonZeroU64;
use std::ops::Bound;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The hashes of the names of a process, each with how many names have it. Two names of one hash are next
/// to impossible, but freeing one of them must not lose the other. This is a tree, because a hash map of
/// a million names blocks for long when it grows.
pub(crate) type Hashes = BTreeMap<NonZeroU64, usize>;

/// Processes, and the hashes of their names.
///
/// Most processes hold one name. Their entries take 16 bytes, because [`Names`] has no room for a
/// pointer; the hashes of the other processes are in `several`. An enum with the hashes in a box would
/// not need `several`, but would make all entries larger by half: at 100,000 processes of one name, nine
/// bytes more for each.
///
/// A lock of `processes` is taken before one of `several`. What `several` has of a process changes
/// only while the entry of the process is locked.
pub(crate) struct Index {
    processes: Processes<Names>,
    several: Processes<Hashes>,
    /// How many hashes `several` has, by pid. It only serves to tell how much memory they take.
    counts: [AtomicUsize; SHARDS],
}

/// The names of a process.
#[derive(Clone, Copy)]
enum Names {
    /// One, with this hash.
    One(NonZeroU64),
    /// Those whose hashes are in `Index::several`, if any are: a process that gave its last name back
    /// stays in the index until it ends.
    Several,
}

const _: () = assert!(size_of::<(Pid, Names)>() == 16);

/// Shards of the index; see the table's for what a shard costs.
const SHARDS: usize = 64;

/// Bytes that a hash takes in a tree, on average.
const IN_TREE: usize = 24;

/// How many hashes of a process are read before other threads may change them.
const AT_ONCE: usize = 1_000;

/// The entry of a process, locked.
pub(crate) enum Locked<'a> {
    /// The process is in the index.
    Known(Known<'a>),
    /// It is not.
    Unknown(Unknown<'a>),
}

/// The entry of a process that is in the index.
pub(crate) struct Known<'a> {
    index: &'a Index,
    pid: Pid,
    names: RefMut<'a, Pid, Names>,
}

/// Where the entry of a process would be.
pub(crate) struct Unknown<'a>(VacantEntry<'a, Pid, Names>);

impl Index {
    pub(crate) const fn new() -> Self {
        Self {
            processes: Processes::new(),
            several: Processes::new(),
            counts: [const { AtomicUsize::new(0) }; SHARDS],
        }
    }

    /// Locks the entry of a process.
    pub(crate) fn lock(&self, pid: Pid) -> Locked<'_> {
        match self.processes.map().entry(pid) {
            Entry::Occupied(names) => Locked::Known(self.known(pid, names.into_ref())),
            Entry::Vacant(vacant) => Locked::Unknown(Unknown(vacant)),
        }
    }

    /// Locks the entry of a process if the process is in the index.
    pub(crate) fn get(&self, pid: Pid) -> Option<Known<'_>> {
        let names = self.processes.made()?.get_mut(&pid)?;
        Some(self.known(pid, names))
    }

    fn known<'a>(&'a self, pid: Pid, names: RefMut<'a, Pid, Names>) -> Known<'a> {
        Known {
            index: self,
            pid,
            names,
        }
    }

    /// Takes the process out of the index; answers its names.
    pub(crate) fn withdraw(&self, pid: Pid) -> Hashes {
        match self.processes.remove(pid) {
            None => Hashes::new(),
            Some(Names::One(hash)) => Hashes::from([(hash, 1)]),
            Some(Names::Several) => {
                let hashes = self.several.remove(pid).unwrap_or_default();
                self.count(pid).fetch_sub(hashes.len(), Ordering::Relaxed);
                hashes
            }
        }
    }

    /// Calls `f` with each hash of the process. No lock is held meanwhile.
    pub(crate) fn each_hash(&self, pid: Pid, mut f: impl FnMut(NonZeroU64)) {
        let processes = self.processes.made();
        let names = processes.and_then(|processes| processes.get(&pid).map(|names| *names));
        match names {
            None => {}
            Some(Names::One(hash)) => f(hash),
            Some(Names::Several) => {
                let mut from = Bound::Unbounded;
                loop {
                    // In pieces: a process that registers or ends may need the lock.
                    let hashes = self.some_of_several(pid, from);
                    let Some(&last) = hashes.last() else {
                        return;
                    };
                    from = Bound::Excluded(last);
                    hashes.into_iter().for_each(&mut f);
                }
            }
        }
    }

    fn some_of_several(&self, pid: Pid, from: Bound<NonZeroU64>) -> Vec<NonZeroU64> {
        let several = self.several.made().and_then(|several| several.get(&pid));
        several.map_or(Vec::new(), |hashes| {
            let rest = hashes.range((from, Bound::Unbounded));
            rest.map(|(hash, _)| *hash).take(AT_ONCE).collect()
        })
    }

    fn count(&self, pid: Pid) -> &AtomicUsize {
        // Pids that were given out one after the other differ in the bits above the tag.
        #[allow(clippy::cast_possible_truncation)]
        &self.counts[(pid.0 >> 4) as usize % SHARDS]
    }

    /// The processes that hold a name.
    pub(crate) fn holders(&self) -> Vec<Pid> {
        let several = self.several.made();
        let holds = |pid, names| match names {
            Names::One(_) => true,
            // A process without names has no entry there.
            Names::Several => several.is_some_and(|several| several.contains_key(&pid)),
        };
        let processes = self.processes.made().into_iter().flatten();
        let holders = processes.filter(|process| holds(*process.key(), *process.value()));
        holders.map(|process| *process.key()).collect()
    }

    /// How many processes there are.
    pub(crate) fn len(&self) -> usize {
        self.processes.made().map_or(0, DashMap::len)
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let counts = self.counts.iter();
        let hashes: usize = counts.map(|count| count.load(Ordering::Relaxed)).sum();
        self.processes.bytes() + self.several.bytes() + hashes * IN_TREE
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.processes.clear();
        self.several.clear();
        for count in &self.counts {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Unknown<'_> {
    /// Puts the process in, with one name.
    pub(crate) fn insert(self, hash: NonZeroU64) {
        self.0.insert(Names::One(hash));
    }

    /// Puts the process in, without a name.
    pub(crate) fn insert_without_name(self) {
        self.0.insert(Names::Several);
    }
}

impl Known<'_> {
    /// The process holds one more name.
    pub(crate) fn add(&mut self, hash: NonZeroU64) {
        let names = &mut *self.names;
        match (self.index.several.map().entry(self.pid), *names) {
            (Entry::Vacant(_), Names::Several) => *names = Names::One(hash),
            (several, before) => {
                let mut hashes = several.or_default();
                let len = hashes.len();
                if let Names::One(one) = before {
                    hashes.insert(one, 1);
                    *names = Names::Several;
                }
                *hashes.entry(hash).or_default() += 1;
                let more = hashes.len() - len;
                self.index
                    .count(self.pid)
                    .fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Calls `free` if the process holds a name of this hash; if `free` answers `true`, the process holds
    /// the name no longer. Answers whether the name was freed.
    pub(crate) fn remove(&mut self, hash: NonZeroU64, free: impl FnOnce() -> bool) -> bool {
        if let Names::One(one) = *self.names {
            let freed = one == hash && free();
            if freed {
                *self.names = Names::Several;
            }
            return freed;
        }
        let Some(several) = self.index.several.made() else {
            return false;
        };
        let Entry::Occupied(mut hashes) = several.entry(self.pid) else {
            return false;
        };
        let btree_map::Entry::Occupied(mut count) = hashes.get_mut().entry(hash) else {
            return false;
        };
        if !free() {
            return false;
        }
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
            self.index.count(self.pid).fetch_sub(1, Ordering::Relaxed);
        }
        if hashes.get().is_empty() {
            hashes.remove();
            Processes::shrink(several, self.pid);
        }
        true
    }
}

/// A map by process. It is made when there is something to put in, and its shards give memory back
/// when most of their entries have gone.
struct Processes<T>(OnceLock<DashMap<Pid, T, RandomState>>);

impl<T> Processes<T> {
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

    /// Makes the shard of a process anew if it is sparse. Called after something was removed.
    fn shrink(map: &DashMap<Pid, T, RandomState>, pid: Pid) {
        let shard = &map.shards()[map.determine_map(&pid)];
        let sparse = |entries: &RawTable<_>| {
            // Of eight buckets at most seven are filled.
            let (capacity, places) = (entries.capacity(), entries.buckets() / 8 * 7);
            capacity > SMALL && sparse(entries.len(), capacity, places)
        };
        if !sparse(&shard.read()) {
            return;
        }
        let mut entries = shard.write();
        if sparse(&entries) {
            let hash = |pid: &Pid| map.hasher().hash_one(pid);
            let mut fresh = RawTable::with_capacity(entries.len() + 1);
            for entry in entries.drain() {
                fresh.insert(hash(&entry.0), entry, |(pid, _)| hash(pid));
            }
            *entries = fresh;
        }
    }

    fn bytes(&self) -> usize {
        let shards = self.made().map_or(&[][..], |map| map.shards());
        // The map has one byte more for each entry.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(index: &Index, number: u64) {
        match index.lock(Pid(number << 4)) {
            Locked::Unknown(process) => process.insert(NonZeroU64::MIN),
            Locked::Known(_) => unreachable!("each number is a process of its own"),
        }
    }

    #[test]
    fn processes_that_come_and_go_take_no_more_room() {
        // Nine places of ten are taken in each shard.
        let count = SHARDS as u64 * 1_600;
        let index = Index::new();
        for number in 0..count {
            insert(&index, number);
        }
        let fresh = index.bytes();
        for number in 0..2 * count {
            index.withdraw(Pid(number << 4));
            insert(&index, number + count);
        }
        assert!(
            index.bytes() * 10 < fresh * 11,
            "{} of {fresh}",
            index.bytes()
        );
        for number in 2 * count..3 * count - count / 10 {
            index.withdraw(Pid(number << 4));
        }
        assert!(index.bytes() * 3 < fresh, "{} of {fresh}", index.bytes());
    }
}
