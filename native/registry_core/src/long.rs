//! Names that are too long for a slot: in each shard a map behind a lock.

use crate::pid::Pid;
use crate::slots::SHARDS;
use crate::sparse::sparse;
use hashbrown::HashTable;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

struct Entry<V> {
    hash: u64,
    /// The place of the entry. No other entry of the shard, earlier or later, has the same.
    number: u64,
    /// Shared, because names are compared with patterns after the lock was released.
    name: Arc<[u8]>,
    pid: Pid,
    value: Option<V>,
}

struct Shard<V> {
    entries: HashTable<Entry<V>>,
    /// How many entries there was room for when the map was made.
    places: usize,
    last_number: u64,
    /// Bytes of the names.
    text: usize,
}

impl<V> Shard<V> {
    /// Makes the map anew if it has become sparse.
    fn shrink(&mut self) {
        let len = self.entries.len();
        if sparse(len, self.entries.capacity(), self.places) {
            let entries = std::mem::take(&mut self.entries);
            self.entries.reserve(len, |entry| turned(entry.hash));
            for entry in entries {
                self.entries
                    .insert_unique(turned(entry.hash), entry, |entry| turned(entry.hash));
            }
            self.places = self.entries.capacity();
        }
    }
}

/// The hash for the map of a shard. The map tells entries apart by the highest bits and finds their place by
/// the lowest; of a name's hash the former have named the shard, and the latter are the same for all long
/// names.
fn turned(hash: u64) -> u64 {
    hash.rotate_left(u64::BITS / 2)
}

/// Names of any length.
pub(crate) struct LongNames<V>(OnceLock<Box<[Mutex<Shard<V>>]>>);

impl<V> LongNames<V> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn made(&self) -> &[Mutex<Shard<V>>] {
        self.0.get().map_or(&[], |shards| shards)
    }

    pub(crate) fn lock(&self, hash: u64) -> Locked<'_, V> {
        let shard = |_| {
            Mutex::new(Shard {
                entries: HashTable::new(),
                places: 0,
                last_number: 0,
                text: 0,
            })
        };
        let shards = self.0.get_or_init(|| (0..SHARDS).map(shard).collect());
        Locked::of(&shards[crate::slots::shard_of(hash)])
    }

    /// Hashes and places of all names of a shard.
    pub(crate) fn places(&self, shard: usize) -> Vec<(u64, u64)> {
        let Some(shard) = self.made().get(shard) else {
            return Vec::new();
        };
        let locked = Locked::of(shard);
        let entries = locked.0.entries.iter();
        entries.map(|entry| (entry.hash, entry.number)).collect()
    }

    /// Of each shard, how many names there are, and its bytes of memory.
    pub(crate) fn fill(&self) -> impl Iterator<Item = (usize, usize)> {
        self.made().iter().map(|shard| {
            let locked = Locked::of(shard);
            // The map takes one byte more for each entry.
            let entries = locked.0.entries.capacity() * (size_of::<Entry<V>>() + 1);
            (
                locked.0.entries.len(),
                size_of_val(shard) + entries + locked.0.text,
            )
        })
    }

    /// Forgets all names.
    pub(crate) fn clear(&self) {
        for shard in self.made() {
            let mut locked = Locked::of(shard);
            (locked.0.text, locked.0.places) = (0, 0);
            let entries = std::mem::take(&mut locked.0.entries);
            drop(locked);
            // After the lock was released: freeing takes a while, and may call any destructor.
            drop(entries);
        }
    }
}

/// A locked shard. What its methods answer should be dropped after it.
pub(crate) struct Locked<'a, V>(MutexGuard<'a, Shard<V>>);

/// The counts of an `Arc`, which stand in front of the bytes.
const COUNTS: usize = 2 * size_of::<usize>();

impl<'a, V> Locked<'a, V> {
    fn of(shard: &'a Mutex<Shard<V>>) -> Self {
        Self(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn at(&self, hash: u64, place: u64) -> Option<&Entry<V>> {
        let entries = &self.0.entries;
        entries.find(turned(hash), |entry| entry.number == place)
    }

    /// The place of a name.
    pub(crate) fn find(&self, hash: u64, name: &[u8]) -> Option<u64> {
        let found = self.0.entries.find(turned(hash), |entry| {
            entry.hash == hash && *entry.name == *name
        });
        Some(found?.number)
    }

    /// The first place of a name of this hash that `pid` holds and for which `is` answers `true`.
    pub(crate) fn find_held(
        &self,
        hash: u64,
        pid: Pid,
        mut is: impl FnMut(&[u8]) -> bool,
    ) -> Option<u64> {
        let found = self.0.entries.find(turned(hash), |entry| {
            entry.hash == hash && entry.pid == pid && is(&entry.name)
        });
        Some(found?.number)
    }

    /// What is at a place, if it has not been removed.
    #[allow(clippy::type_complexity)]
    pub(crate) fn get(&self, hash: u64, place: u64) -> Option<(&Arc<[u8]>, Pid, Option<&V>)> {
        let entry = self.at(hash, place)?;
        Some((&entry.name, entry.pid, entry.value.as_ref()))
    }

    pub(crate) fn pid(&self, hash: u64, place: u64) -> Pid {
        // A place that was found under this lock has an entry.
        self.at(hash, place).map_or(Pid(0), |entry| entry.pid)
    }

    pub(crate) fn value(&self, hash: u64, place: u64) -> Option<V>
    where
        V: Clone,
    {
        self.at(hash, place)?.value.clone()
    }

    /// Changes the holder and the value at a place; answers the value before.
    pub(crate) fn hold(&mut self, hash: u64, place: u64, pid: Pid, value: Option<V>) -> Option<V> {
        let found = self
            .0
            .entries
            .find_mut(turned(hash), |entry| entry.number == place);
        let entry = found?;
        entry.pid = pid;
        std::mem::replace(&mut entry.value, value)
    }

    /// Puts in a name that is not there; answers its place.
    #[allow(clippy::unnecessary_wraps)] // Has the signature of the same method of slots.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        name: &[u8],
        pid: Pid,
        value: Option<V>,
        _hash_of: impl Fn(&[u8]) -> u64,
    ) -> Option<u64> {
        let shard = &mut *self.0;
        shard.last_number += 1;
        shard.text += name.len() + COUNTS;
        let entry = Entry {
            hash,
            number: shard.last_number,
            name: name.into(),
            pid,
            value,
        };
        shard
            .entries
            .insert_unique(turned(hash), entry, |entry| turned(entry.hash));
        shard.places = shard.places.max(shard.entries.capacity());
        Some(shard.last_number)
    }

    /// Removes what is at a place; answers the name and the value.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        place: u64,
        _hash_of: impl Fn(&[u8]) -> u64,
    ) -> (Arc<[u8]>, Option<V>) {
        let shard = &mut *self.0;
        let found = shard
            .entries
            .find_entry(turned(hash), |entry| entry.number == place);
        let Ok(found) = found else {
            return (Arc::default(), None);
        };
        let entry = found.remove().0;
        shard.text -= entry.name.len() + COUNTS;
        shard.shrink();
        (entry.name, entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(names: &LongNames<()>) -> usize {
        names.fill().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn names_that_come_and_go_take_no_more_room() {
        let names = LongNames::<()>::new();
        // All in one shard, fourteen places of fifteen.
        let hash = |number: u64| {
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 8
        };
        let insert = |number: u64| {
            let (hash, name) = (hash(number), [number.to_le_bytes(); 12]);
            let mut locked = names.lock(hash);
            locked.insert(hash, name.as_flattened(), Pid(number), None, |_| 0);
        };
        let remove = |number: u64| {
            let (hash, name) = (hash(number), [number.to_le_bytes(); 12]);
            let mut locked = names.lock(hash);
            let place = locked.find(hash, name.as_flattened());
            locked.remove(hash, place.unwrap_or(u64::MAX), |_| 0);
        };
        let count = 1_670;
        (0..count).for_each(insert);
        let fresh = bytes(&names);
        for number in 0..5 * count {
            remove(number);
            insert(number + count);
        }
        assert!(
            bytes(&names) * 10 < fresh * 11,
            "{} of {fresh}",
            bytes(&names)
        );
        let last = names.lock(0).find(
            hash(6 * count - 1),
            [(6 * count - 1).to_le_bytes(); 12].as_flattened(),
        );
        assert!(last.is_some());
        (5 * count..6 * count).for_each(remove);
        assert!(bytes(&names) * 10 < fresh, "{} of {fresh}", bytes(&names));
    }
}
