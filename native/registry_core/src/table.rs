//! The table: canonical name to holder.
//!
//! Names lie inside the entries, so that a lookup of one that is not in a cache misses twice, for
//! the control bytes and for the entry. Entries come in three sizes, chosen by the name's length:
//! a name of a few integers shares its 40 bytes with the pid, one of four UUIDs its 96, and only a
//! longer one lies behind a pointer of its own.

use crate::Pid;
use crate::journal::{Change, Event, Journal, Value};
use ahash::RandomState;
use dashmap::mapref::entry::Entry;
use dashmap::{DashMap, SharedValue};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Shards of each map. More make a collision of two schedulers rarer and a shard's growth, during
/// which the shard is locked, shorter: 16,000 entries of a million names, under half a
/// millisecond. Each costs 128 bytes whether used or not.
const SHARDS: usize = 64;

/// A name and its hash under the table's seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) hash: u64,
}

/// How a name lies in an entry.
trait Key: Clone + Eq + Hash {
    fn new(name: &[u8]) -> Self;
    fn bytes(&self) -> &[u8];
}

/// A name of up to `N` bytes inside the entry.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Inline<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Key for Inline<N> {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; N];
        bytes[..name.len()].copy_from_slice(name);
        // `Table` puts a name here only when `name.len() <= N`, and every `N` is below 256.
        #[allow(clippy::cast_possible_truncation)]
        let len = name.len() as u8;
        Self { len, bytes }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Key for Box<[u8]> {
    fn new(name: &[u8]) -> Self {
        name.into()
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

const SHORT: usize = 27;
const MEDIUM: usize = 83;

/// Who holds a name. Bytes, so that it stands beside any key without padding: 40 bytes an entry
/// with the shortest keys, 96 with the middle ones.
#[derive(Clone, Copy)]
struct Holder {
    pid: [u8; 8],
    value: [u8; 4],
}

/// Where a value lies: most names have none, and pay four bytes for it.
type ValueId = u32;

/// Of a name without a value.
const NO_VALUE: ValueId = 0;

impl Holder {
    fn new(pid: Pid, value: ValueId) -> Self {
        Self {
            pid: pid.0.to_ne_bytes(),
            value: value.to_ne_bytes(),
        }
    }

    #[inline]
    fn pid(self) -> Pid {
        Pid(u64::from_ne_bytes(self.pid))
    }

    fn value(self) -> ValueId {
        ValueId::from_ne_bytes(self.value)
    }
}

type Map<K> = DashMap<K, Holder, RandomState>;

/// Canonical name to holder and value.
pub(crate) struct Table {
    hasher: RandomState,
    short: Map<Inline<SHORT>>,
    medium: Map<Inline<MEDIUM>>,
    long: Map<Box<[u8]>>,
    /// Changed only while the shard of the value's name is locked for writing.
    values: DashMap<ValueId, Value, RandomState>,
    next_value: AtomicU32,
    pub(crate) journal: Arc<Journal>,
}

/// A name with all that the table knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In canonical bytes.
    pub name: Box<[u8]>,
    /// Its holder, which may have ended.
    pub pid: Pid,
    /// Its value.
    pub value: Option<Value>,
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

/// Where in a hash the size class of the name stands, so that a hash alone tells the map. Bits that
/// nobody looks at: DashMap picks a shard and hashbrown its fingerprint by bits above these, and
/// hashbrown picks a bucket by bits below, as long as a shard has fewer than 2^40 of them.
const CLASS_SHIFT: u32 = 40;

/// Runs `$body` with `$map` bound to the map that holds names of this hash.
macro_rules! with_map {
    ($table:expr, $hash:expr, |$map:ident| $body:expr) => {
        match ($hash >> CLASS_SHIFT) & 3 {
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

impl Table {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            short: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            medium: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            long: DashMap::with_hasher_and_shard_amount(hasher.clone(), SHARDS),
            hasher,
            values: DashMap::with_hasher(RandomState::new()),
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
    pub(crate) fn whereis(&self, name: Hashed<'_>) -> Option<Pid> {
        with_map!(self, name.hash, |map| whereis(map, name))
    }

    pub(crate) fn lookup(&self, name: Hashed<'_>) -> Option<(Pid, Option<Value>)> {
        with_map!(self, name.hash, |map| self.lookup_in(map, name))
    }

    /// Makes `pid` the holder of a name that has none, or that `instead_of` holds; otherwise
    /// answers who holds it.
    pub(crate) fn claim(
        &self,
        name: Hashed<'_>,
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<Value>,
    ) -> Result<(), Pid> {
        with_map!(self, name.hash, |map| self
            .claim_in(map, name, pid, instead_of, value))
    }

    /// Gives the name another value if `pid` holds it.
    pub(crate) fn update(&self, name: Hashed<'_>, pid: Pid, value: Option<Value>) -> bool {
        with_map!(self, name.hash, |map| self.update_in(map, name, pid, value))
    }

    /// Frees the name if `pid` holds it.
    pub(crate) fn release(&self, name: Hashed<'_>, pid: Pid) -> bool {
        with_map!(self, name.hash, |map| self.remove_from(
            map,
            name.hash,
            |key, holder| holder == pid && key == name.name
        ))
    }

    /// Frees one name with this hash that `pid` holds.
    pub(crate) fn release_hash(&self, hash: u64, pid: Pid) -> bool {
        with_map!(self, hash, |map| self.remove_from(
            map,
            hash,
            |key, holder| holder == pid && self.hash(key).hash == hash
        ))
    }

    /// The names with this hash that `pid` holds: next to always one.
    pub(crate) fn names_of(&self, hash: u64, pid: Pid) -> Vec<Box<[u8]>> {
        fn find<K: Key>(
            map: &Map<K>,
            hash: u64,
            wanted: impl Fn(&[u8], Pid) -> bool,
        ) -> Option<Box<[u8]>> {
            let shard = map.shards()[shard_of(map, hash)].read();
            let (key, _) = shard.get(hash, |(key, holder)| {
                wanted(key.bytes(), holder.get().pid())
            })?;
            Some(key.bytes().into())
        }
        let mut names: Vec<Box<[u8]>> = Vec::new();
        loop {
            let wanted = |key: &[u8], holder| {
                holder == pid
                    && self.hash(key).hash == hash
                    && names.iter().all(|name| **name != *key)
            };
            match with_map!(self, hash, |map| find(map, hash, wanted)) {
                Some(name) => names.push(name),
                None => return names,
            }
        }
    }

    /// In how many pieces [`Table::piece`] gives the table.
    pub(crate) const PIECES: usize = 3 * SHARDS;

    /// The names of one shard of one map that match.
    pub(crate) fn piece(&self, piece: usize, matches: impl Fn(&[u8]) -> bool) -> Vec<Record> {
        let shard = piece % SHARDS;
        match piece / SHARDS {
            0 => self.copy_shard(&self.short, shard, matches),
            1 => self.copy_shard(&self.medium, shard, matches),
            2 => self.copy_shard(&self.long, shard, matches),
            _ => Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.short.len() + self.medium.len() + self.long.len()
    }

    pub(crate) fn fill(&self) -> Fill {
        fn add<K: Key>(map: &Map<K>, bytes: &mut usize, names: &mut [usize; SHARDS]) {
            for (shard, names) in map.shards().iter().zip(names) {
                let (buckets, len) = {
                    let shard = shard.read();
                    (shard.buckets(), shard.len())
                };
                // A byte of hashbrown's stands beside each entry.
                *bytes += buckets * (size_of::<(K, Holder)>() + 1) + size_of_val(shard);
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
        fn clear<K: Key>(map: &Map<K>) {
            for shard in map.shards() {
                let freed = std::mem::take(&mut *shard.write());
                // After the lock is gone: freeing takes longer than swapping.
                drop(freed);
            }
        }
        clear(&self.short);
        clear(&self.medium);
        clear(&self.long);
        self.values.clear();
        self.values.shrink_to_fit();
    }

    fn lookup_in<K: Key>(&self, map: &Map<K>, name: Hashed<'_>) -> Option<(Pid, Option<Value>)> {
        let shard = map.shards()[shard_of(map, name.hash)].read();
        let (_, holder) = shard.get(name.hash, |(key, _)| key.bytes() == name.name)?;
        let holder = *holder.get();
        Some((holder.pid(), self.value(holder.value())))
    }

    fn claim_in<K: Key>(
        &self,
        map: &Map<K>,
        name: Hashed<'_>,
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<Value>,
    ) -> Result<(), Pid> {
        let mut shard = map.shards()[shard_of(map, name.hash)].write();
        if let Some((_, holder)) = shard.get_mut(name.hash, |(key, _)| key.bytes() == name.name) {
            let holder = holder.get_mut();
            if Some(holder.pid()) != instead_of {
                return Err(holder.pid());
            }
            self.drop_value(holder.value());
            self.write(name.name, holder.pid(), || Change::Unregistered);
            *holder = Holder::new(pid, self.keep_value(value.clone()));
        } else {
            let holder = Holder::new(pid, self.keep_value(value.clone()));
            shard.insert(
                name.hash,
                (K::new(name.name), SharedValue::new(holder)),
                |(key, _)| hash(&self.hasher, key.bytes()),
            );
        }
        self.write(name.name, pid, || Change::Registered(value));
        Ok(())
    }

    fn update_in<K: Key>(
        &self,
        map: &Map<K>,
        name: Hashed<'_>,
        pid: Pid,
        value: Option<Value>,
    ) -> bool {
        let mut shard = map.shards()[shard_of(map, name.hash)].write();
        let held = shard.get_mut(name.hash, |(key, _)| key.bytes() == name.name);
        let Some(holder) = held.map(|(_, holder)| holder.get_mut()) else {
            return false;
        };
        if holder.pid() != pid {
            return false;
        }
        self.drop_value(holder.value());
        *holder = Holder::new(pid, self.keep_value(value));
        true
    }

    fn remove_from<K: Key>(
        &self,
        map: &Map<K>,
        hash: u64,
        matches: impl Fn(&[u8], Pid) -> bool,
    ) -> bool {
        let mut shard = map.shards()[shard_of(map, hash)].write();
        let removed = shard.remove_entry(hash, |(key, holder)| {
            matches(key.bytes(), holder.get().pid())
        });
        let Some((key, holder)) = removed else {
            return false;
        };
        let holder = holder.into_inner();
        self.drop_value(holder.value());
        self.write(key.bytes(), holder.pid(), || Change::Unregistered);
        true
    }

    /// The entries of a shard that match. The shard is copied while it is locked and looked through
    /// afterwards: copying is the least that whoever wants to write there can be made to wait for.
    fn copy_shard<K: Key>(
        &self,
        map: &Map<K>,
        shard: usize,
        matches: impl Fn(&[u8]) -> bool,
    ) -> Vec<Record> {
        let copy = map.shards()[shard].read().clone();
        copy.into_iter()
            .filter(|(key, _)| matches(key.bytes()))
            .filter_map(|(key, holder)| {
                let holder = holder.into_inner();
                let (mut pid, mut value) = (holder.pid(), self.value(holder.value()));
                if value.is_none() && holder.value() != NO_VALUE {
                    // Updated since the shard was copied, or freed.
                    (pid, value) = self.lookup(self.hash(key.bytes()))?;
                }
                let name = key.bytes().into();
                Some(Record { name, pid, value })
            })
            .collect()
    }

    fn value(&self, id: ValueId) -> Option<Value> {
        if id == NO_VALUE {
            return None;
        }
        self.values.get(&id).map(|value| value.clone())
    }

    fn keep_value(&self, value: Option<Value>) -> ValueId {
        let Some(value) = value else {
            return NO_VALUE;
        };
        loop {
            // After four thousand million values an id may still be taken.
            let id = self.next_value.fetch_add(1, Ordering::Relaxed);
            if id == NO_VALUE {
                continue;
            }
            if let Entry::Vacant(vacant) = self.values.entry(id) {
                vacant.insert(value);
                return id;
            }
        }
    }

    fn drop_value(&self, id: ValueId) {
        if id != NO_VALUE {
            self.values.remove(&id);
        }
    }

    /// Writes a change down if anybody wants to know. The name's shard is locked.
    #[inline]
    fn write(&self, name: &[u8], pid: Pid, change: impl FnOnce() -> Change) {
        if self.journal.active() {
            self.journal.write(Event {
                name: name.into(),
                pid,
                change: change(),
            });
        }
    }
}

#[inline]
fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    // Not `hash_one`: that would hash the length too, which a prefix-free name does not need.
    let mut state = hasher.build_hasher();
    state.write(name);
    // Never 0, so that no hash is.
    let class = if name.len() <= SHORT {
        1
    } else if name.len() <= MEDIUM {
        2
    } else {
        3
    };
    state.finish() & !(3 << CLASS_SHIFT) | class << CLASS_SHIFT
}

#[allow(clippy::cast_possible_truncation)] // DashMap takes the hash as a usize; either half does.
fn shard_of<K: Key>(map: &Map<K>, hash: u64) -> usize {
    map.determine_shard(hash as usize)
}

#[inline]
fn whereis<K: Key>(map: &Map<K>, name: Hashed<'_>) -> Option<Pid> {
    let shard = map.shards()[shard_of(map, name.hash)].read();
    let (_, holder) = shard.get(name.hash, |(key, _)| key.bytes() == name.name)?;
    Some(holder.get().pid())
}
