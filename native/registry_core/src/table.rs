//! The table: canonical name to holder.
//!
//! Names lie inside the slots of [`Slots`], in two sizes: one of a few integers shares 40 bytes with
//! its pid, one of four UUIDs 96. Of a longer one the slot has a number, by which its bytes lie
//! elsewhere.

use crate::Pid;
use crate::journal::{Change, Journal};
use crate::slots::{Entry, Holder, Locked, SHARDS, Seen, Slots, room};
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A name and its hash under the table's seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) hash: u64,
}

/// Words of a slot, by the size of its name.
const SHORT: usize = 5;
const MEDIUM: usize = 12;
const LONG: usize = 4;

/// Where a value lies: most names have none, and pay four bytes for it.
type ValueId = u32;

/// Of a name without a value.
const NO_VALUE: ValueId = 0;

/// Canonical name to holder, and to what is kept with the name, a `V`.
pub(crate) struct Table<V> {
    hasher: RandomState,
    short: Slots<SHORT>,
    medium: Slots<MEDIUM>,
    long: Slots<LONG>,
    /// The names in `long`, by what stands there. No number comes a second time.
    texts: DashMap<u64, Box<[u8]>, RandomState>,
    next_text: AtomicU64,
    /// Changed only while the shard of the value's name is locked.
    values: DashMap<ValueId, V, RandomState>,
    next_value: AtomicU32,
    pub(crate) journal: Arc<Journal<V>>,
}

/// What a thread that looks names up keeps of the tables it used last, so that it need not take a
/// lock. It goes with whatever [`crate::Registry`] it is given, best with always the same.
pub struct Reader {
    short: Seen<SHORT>,
    medium: Seen<MEDIUM>,
}

impl Reader {
    /// A reader that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            short: Seen::new(),
            medium: Seen::new(),
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// A name with all that the table knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<V> {
    /// In canonical bytes.
    pub name: Box<[u8]>,
    /// Its holder, which may have ended.
    pub pid: Pid,
    /// What is kept with it.
    pub value: Option<V>,
}

/// How full the table is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    /// Bytes of memory, without what lies behind pointers.
    pub bytes: usize,
    /// Shards of one map.
    pub shards: usize,
    /// Names in the emptiest shard.
    pub fewest: usize,
    /// Names in the fullest shard.
    pub most: usize,
}

/// Where in a hash the size of the name stands, so that a hash alone tells the map. Below the bits
/// that [`Slots`] uses.
const SIZE_MASK: u64 = 3;

/// Whether a name with this hash is a long one.
pub(crate) fn is_long(hash: u64) -> bool {
    hash & SIZE_MASK == 3
}

/// Runs `$body` with `$map` bound to the map that holds names of this hash.
macro_rules! with_map {
    ($table:expr, $hash:expr, |$map:ident| $body:expr) => {
        match $hash & SIZE_MASK {
            1 => {
                let $map = &$table.short;
                $body
            }
            2 => {
                let $map = &$table.medium;
                $body
            }
            _ => {
                let $map = &$table.long;
                $body
            }
        }
    };
}

impl<V: Clone> Table<V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            short: Slots::new(),
            medium: Slots::new(),
            long: Slots::new(),
            texts: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            next_text: AtomicU64::new(0),
            values: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            next_value: AtomicU32::new(1),
            journal: Arc::default(),
        }
    }

    #[inline]
    pub(crate) fn hash<'a>(&self, name: &'a [u8]) -> Hashed<'a> {
        Hashed {
            name,
            hash: hash(&self.hasher, name),
        }
    }

    #[inline]
    pub(crate) fn whereis(&self, reader: &mut Reader, name: Hashed<'_>) -> Option<Pid> {
        let holder = match name.hash & SIZE_MASK {
            1 => {
                let entry = Entry::of(name.name);
                self.short.holder(&mut reader.short, name.hash, &entry)
            }
            2 => {
                let entry = Entry::of(name.name);
                self.medium.holder(&mut reader.medium, name.hash, &entry)
            }
            _ => self.holder(&self.long, name),
        };
        Some(holder?.pid)
    }

    pub(crate) fn lookup(&self, name: Hashed<'_>) -> Option<(Pid, Option<V>)> {
        with_map!(self, name.hash, |map| {
            let locked = map.lock(name.hash);
            let place = self.place(&locked, name)?;
            let holder = locked.entry(place).holder();
            Some((holder.pid, self.value(holder.value)))
        })
    }

    /// Makes `pid` the holder of a name that has none, or that `instead_of` holds; otherwise
    /// answers who holds it.
    pub(crate) fn claim(
        &self,
        name: Hashed<'_>,
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<V>,
    ) -> Result<(), Pid> {
        with_map!(self, name.hash, |map| {
            let mut locked = map.lock(name.hash);
            if let Some(place) = self.place(&locked, name) {
                let held = locked.entry(place).holder();
                if Some(held.pid) != instead_of {
                    return Err(held.pid);
                }
                let dropped = self.drop_value(held.value);
                self.write(name.name, held.pid, Change::Unregistered, || dropped);
                let value = self.keep_value(value.clone());
                locked.hold(place, Holder { pid, value });
            } else {
                let value = self.keep_value(value.clone());
                locked.insert(
                    name.hash,
                    self.entry(name),
                    Holder { pid, value },
                    |entry| self.hash_of(entry),
                );
            }
            self.write(name.name, pid, Change::Registered, || value);
            Ok(())
        })
    }

    /// Gives the name another value if `pid` holds it.
    pub(crate) fn update(&self, name: Hashed<'_>, pid: Pid, value: Option<V>) -> bool {
        with_map!(self, name.hash, |map| {
            let mut locked = map.lock(name.hash);
            let Some(place) = self.place(&locked, name) else {
                return false;
            };
            let held = locked.entry(place).holder();
            if held.pid != pid {
                return false;
            }
            self.drop_value(held.value);
            let value = self.keep_value(value);
            locked.hold(place, Holder { pid, value });
            true
        })
    }

    /// Frees the name if `pid` holds it.
    pub(crate) fn release(&self, name: Hashed<'_>, pid: Pid) -> bool {
        with_map!(self, name.hash, |map| {
            let mut locked = map.lock(name.hash);
            let place = self.place(&locked, name);
            let place = place.filter(|place| locked.entry(*place).holder().pid == pid);
            self.remove(&mut locked, place)
        })
    }

    /// Frees one name with this hash that `pid` holds.
    pub(crate) fn release_hash(&self, hash: u64, pid: Pid) -> bool {
        with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            let place = locked.place(hash, |entry| {
                entry.holder().pid == pid && self.hash_of(entry) == hash
            });
            self.remove(&mut locked, place)
        })
    }

    /// The names with this hash that `pid` holds: next to always one.
    pub(crate) fn names_of(&self, hash: u64, pid: Pid) -> Vec<Box<[u8]>> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        with_map!(self, hash, |map| {
            let locked = map.lock(hash);
            locked.place(hash, |entry| {
                if entry.holder().pid == pid && self.hash_of(entry) == hash {
                    names.extend(self.with_name(entry, |name| name.into()));
                }
                false
            });
        });
        names
    }

    /// In how many pieces [`Table::piece`] gives the table.
    pub(crate) const PIECES: usize = 3 * SHARDS;

    /// The names of one shard of one map that match.
    pub(crate) fn piece(&self, piece: usize, matches: impl Fn(&[u8]) -> bool) -> Vec<Record<V>> {
        let shard = piece % SHARDS;
        match piece / SHARDS {
            0 => self.copy_shard(&self.short, shard, matches),
            1 => self.copy_shard(&self.medium, shard, matches),
            2 => self.copy_shard(&self.long, shard, matches),
            _ => Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        fn len<const W: usize>(map: &Slots<W>) -> usize {
            map.fill().map(|(names, _)| names).sum()
        }
        len(&self.short) + len(&self.medium) + len(&self.long)
    }

    pub(crate) fn fill(&self) -> Fill {
        fn add<const W: usize>(map: &Slots<W>, bytes: &mut usize, names: &mut [usize; SHARDS]) {
            for ((len, size), names) in map.fill().zip(names) {
                *bytes += size;
                *names += len;
            }
        }
        let mut bytes = 0;
        let mut names = [0; SHARDS];
        add(&self.short, &mut bytes, &mut names);
        add(&self.medium, &mut bytes, &mut names);
        add(&self.long, &mut bytes, &mut names);
        Fill {
            bytes,
            shards: SHARDS,
            fewest: names.iter().copied().min().unwrap_or(0),
            most: names.iter().copied().max().unwrap_or(0),
        }
    }

    /// Forgets all names and gives their memory back.
    pub(crate) fn clear(&self) {
        self.short.clear();
        self.medium.clear();
        self.long.clear();
        self.texts.clear();
        self.texts.shrink_to_fit();
        self.values.clear();
        self.values.shrink_to_fit();
    }

    /// The entry of a new name. That of a long one has its hash, so that a table of long names grows
    /// without going through them all.
    fn entry<const W: usize>(&self, name: Hashed<'_>) -> Entry<W> {
        if W != LONG {
            return Entry::of(name.name);
        }
        let number = self.next_text.fetch_add(1, Ordering::Relaxed);
        self.texts.insert(number, name.name.into());
        Entry::of([number.to_ne_bytes(), name.hash.to_ne_bytes()].as_flattened())
    }

    /// Calls `f` with the name of an entry. `None` when it is gone, which only a long one can be.
    fn with_name<const W: usize, R>(
        &self,
        entry: &Entry<W>,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let key = entry.key();
        if W == LONG {
            self.text(key.bytes()).map(|text| f(&text))
        } else {
            Some(f(key.bytes()))
        }
    }

    fn text(&self, key: &[u8]) -> Option<dashmap::mapref::one::Ref<'_, u64, Box<[u8]>>> {
        self.texts.get(&number_of(key)?)
    }

    fn hash_of<const W: usize>(&self, entry: &Entry<W>) -> u64 {
        let key = entry.key();
        match key.bytes().last_chunk() {
            Some(hash) if W == LONG => u64::from_ne_bytes(*hash),
            _ => hash(&self.hasher, key.bytes()),
        }
    }

    fn place<const W: usize>(&self, locked: &Locked<'_, W>, name: Hashed<'_>) -> Option<usize> {
        if W == LONG {
            locked.place(name.hash, |entry| {
                self.with_name(entry, |text| text == name.name) == Some(true)
            })
        } else {
            locked.place_of(name.hash, &Entry::of(name.name))
        }
    }

    fn holder<const W: usize>(&self, map: &Slots<W>, name: Hashed<'_>) -> Option<Holder> {
        let locked = map.lock(name.hash);
        let place = self.place(&locked, name)?;
        Some(locked.entry(place).holder())
    }

    /// Takes out what is at a place, if there is one; answers whether there was.
    fn remove<const W: usize>(&self, locked: &mut Locked<'_, W>, place: Option<usize>) -> bool {
        let Some(place) = place else {
            return false;
        };
        let entry = locked.entry(place);
        locked.remove(place);
        let holder = entry.holder();
        let dropped = self.drop_value(holder.value);
        self.with_name(&entry, |name| {
            self.write(name, holder.pid, Change::Unregistered, || dropped);
        });
        if W == LONG
            && let Some(number) = number_of(entry.key().bytes())
        {
            self.texts.remove(&number);
        }
        true
    }

    /// The entries of a shard that match. The shard is copied while it is locked and looked through
    /// afterwards: copying is the least that whoever wants to write there can be made to wait for.
    fn copy_shard<const W: usize>(
        &self,
        map: &Slots<W>,
        shard: usize,
        matches: impl Fn(&[u8]) -> bool,
    ) -> Vec<Record<V>> {
        let entries = map.entries(shard);
        let records = entries.iter().filter_map(|entry| {
            let name: Box<[u8]> =
                self.with_name(entry, |name| matches(name).then(|| name.into()))??;
            let holder = entry.holder();
            let (mut pid, mut value) = (holder.pid, self.value(holder.value));
            if value.is_none() && holder.value != NO_VALUE {
                // Updated since the shard was copied, or freed.
                (pid, value) = self.lookup(self.hash(&name))?;
            }
            Some(Record { name, pid, value })
        });
        records.collect()
    }

    fn value(&self, id: ValueId) -> Option<V> {
        if id == NO_VALUE {
            return None;
        }
        self.values.get(&id).map(|value| value.clone())
    }

    fn keep_value(&self, value: Option<V>) -> ValueId {
        let Some(value) = value else {
            return NO_VALUE;
        };
        loop {
            // After four thousand million values an id may still be taken.
            let id = self.next_value.fetch_add(1, Ordering::Relaxed);
            if id == NO_VALUE {
                continue;
            }
            if let entry::Entry::Vacant(vacant) = self.values.entry(id) {
                vacant.insert(value);
                return id;
            }
        }
    }

    fn drop_value(&self, id: ValueId) -> Option<V> {
        if id == NO_VALUE {
            return None;
        }
        self.values.remove(&id).map(|(_, value)| value)
    }

    /// Writes a change down if anybody wants to know. The name's shard is locked.
    #[inline]
    fn write(&self, name: &[u8], pid: Pid, change: Change, kept: impl FnOnce() -> Option<V>) {
        self.journal.changed(name, pid, change, kept);
    }
}

/// The number in the entry of a long name.
fn number_of(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|number| u64::from_ne_bytes(*number))
}

#[inline]
fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    // Not `hash_one`: that would hash the length too, which a prefix-free name does not need.
    let mut state = hasher.build_hasher();
    state.write(name);
    // Never 0, so that no hash is.
    let size = if name.len() <= const { room(SHORT) } {
        1
    } else if name.len() <= const { room(MEDIUM) } {
        2
    } else {
        3
    };
    state.finish() & !SIZE_MASK | size
}
