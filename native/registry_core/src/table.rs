//! The table: canonical name to holder.
//!
//! Names lie inside the entries, so that a lookup of one that is not in a cache misses twice, for
//! the control bytes and for the entry. Entries come in three sizes, chosen by the name's length:
//! a name of a few integers shares its 40 bytes with the pid, one of four UUIDs its 96, and only a
//! longer one lies behind a pointer of its own.

use crate::Pid;
use ahash::RandomState;
use dashmap::{DashMap, SharedValue};
use std::hash::{BuildHasher, Hash, Hasher};

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
trait Key: Eq + Hash {
    fn new(name: &[u8]) -> Self;
    fn bytes(&self) -> &[u8];
}

/// A name of up to `N` bytes inside the entry.
#[derive(PartialEq, Eq, Hash)]
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

const SHORT: usize = 31;
const MEDIUM: usize = 87;

type Map<K> = DashMap<K, Pid, RandomState>;

/// Canonical name to holder.
pub(crate) struct Table {
    hasher: RandomState,
    short: Map<Inline<SHORT>>,
    medium: Map<Inline<MEDIUM>>,
    long: Map<Box<[u8]>>,
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

    /// Makes `pid` the holder of a name that has none, or that `instead_of` holds; otherwise
    /// answers who holds it.
    pub(crate) fn claim(
        &self,
        name: Hashed<'_>,
        pid: Pid,
        instead_of: Option<Pid>,
    ) -> Result<(), Pid> {
        with_map!(self, name.hash, |map| claim(
            &self.hasher,
            map,
            name,
            pid,
            instead_of
        ))
    }

    /// Frees the name if `pid` holds it.
    pub(crate) fn release(&self, name: Hashed<'_>, pid: Pid) -> bool {
        with_map!(self, name.hash, |map| remove(
            map,
            name.hash,
            |key, holder| holder == pid && key == name.name
        ))
    }

    /// Frees one name with this hash that `pid` holds.
    pub(crate) fn release_hash(&self, hash: u64, pid: Pid) -> bool {
        with_map!(self, hash, |map| remove(map, hash, |key, holder| holder
            == pid
            && self.hash(key).hash == hash))
    }

    pub(crate) fn len(&self) -> usize {
        self.short.len() + self.medium.len() + self.long.len()
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
    Some(*holder.get())
}

fn claim<K: Key>(
    hasher: &RandomState,
    map: &Map<K>,
    name: Hashed<'_>,
    pid: Pid,
    instead_of: Option<Pid>,
) -> Result<(), Pid> {
    let mut shard = map.shards()[shard_of(map, name.hash)].write();
    if let Some((_, holder)) = shard.get_mut(name.hash, |(key, _)| key.bytes() == name.name) {
        let holder = holder.get_mut();
        if Some(*holder) != instead_of {
            return Err(*holder);
        }
        *holder = pid;
        return Ok(());
    }
    shard.insert(
        name.hash,
        (K::new(name.name), SharedValue::new(pid)),
        |(key, _)| hash(hasher, key.bytes()),
    );
    Ok(())
}

fn remove<K: Key>(map: &Map<K>, hash: u64, matches: impl Fn(&[u8], Pid) -> bool) -> bool {
    let mut shard = map.shards()[shard_of(map, hash)].write();
    shard
        .remove_entry(hash, |(key, holder)| matches(key.bytes(), *holder.get()))
        .is_some()
}
