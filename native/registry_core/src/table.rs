//! The table: canonical name to holder.
//!
//! Names lie inside the slots of [`Slots`], in two sizes: one of a few integers shares 40 bytes with
//! its pid, one of four UUIDs 96. Longer ones lie in [`LongNames`].

use crate::epoch::Guard;
use crate::journal::{Change, Journal};
use crate::long::LongNames;
use crate::pid::Pid;
use crate::slots::{Entry, SHARDS, Slots, Values, room};
use ahash::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};

/// A name and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) hash: NonZeroU64,
}

impl<'a> Hashed<'a> {
    #[inline]
    pub(crate) fn of(name: &'a [u8]) -> Self {
        Self {
            name,
            hash: hash_of(name),
        }
    }
}

/// Words of a slot, by the size of its name.
pub(crate) const SHORT_WORDS: usize = 5;
pub(crate) const MEDIUM_WORDS: usize = 12;

/// The seeds of all hashes of names. They are the same for all tables, because a lookup would have to
/// load those of its table from memory first.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Canonical name to holder, and to what is kept with the name, a `V`.
pub(crate) struct Table<V> {
    short: Slots<SHORT_WORDS, Values<V>>,
    medium: Slots<MEDIUM_WORDS, Values<V>>,
    long: LongNames<V>,
    pub(crate) journal: Arc<Journal<V>>,
}

/// A name, its holder and its value.
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
    /// Bytes of memory, without the values themselves and without the journal.
    pub bytes: usize,
    /// Shards of one map.
    pub shards: usize,
    /// Names in the emptiest shard.
    pub fewest: usize,
    /// Names in the fullest shard.
    pub most: usize,
}

/// The bits of a hash that tell the size of the name, so that a hash alone tells the map. They are
/// below the bits that [`Slots`] uses, and never zero.
pub(crate) const SIZE_MASK: u64 = 3;
const SHORT: NonZeroU64 = NonZeroU64::MIN;
const MEDIUM: NonZeroU64 = SHORT.saturating_add(1);
const LONG: NonZeroU64 = MEDIUM.saturating_add(1);

/// Whether a name with this hash is a long one.
pub(crate) fn is_long(hash: NonZeroU64) -> bool {
    hash.get() & SIZE_MASK == LONG.get()
}

/// Runs `$body` with `$map` bound to the map that holds names of this hash.
macro_rules! with_map {
    ($table:expr, $hash:expr, |$map:ident| $body:expr) => {
        match $hash & $crate::table::SIZE_MASK {
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

pub(crate) use with_map;

impl<V: Clone> Table<V> {
    pub(crate) fn new() -> Self {
        Self {
            short: Slots::new(),
            medium: Slots::new(),
            long: LongNames::new(),
            journal: Arc::default(),
        }
    }

    #[inline]
    pub(crate) fn fetch(&self) {
        // Not that of `medium`, whose line is loaded in vain for most names, or together with the slot.
        self.short.fetch();
    }

    #[inline]
    pub(crate) fn whereis(&self, guard: &Guard, name: Hashed<'_>) -> Option<Pid> {
        let hash = name.hash.get();
        match hash & SIZE_MASK {
            1 => self.short.holder(guard, hash, &Entry::of(name.name)),
            2 => self.medium.holder(guard, hash, &Entry::of(name.name)),
            _ => {
                let locked = self.long.lock(hash);
                let place = locked.find(hash, name.name)?;
                Some(locked.pid(hash, place))
            }
        }
    }

    pub(crate) fn lookup(&self, name: Hashed<'_>) -> Option<(Pid, Option<V>)> {
        let hash = name.hash.get();
        with_map!(self, hash, |map| {
            let locked = map.lock(hash);
            let place = locked.find(hash, name.name)?;
            let value = locked.value(hash, place);
            Some((locked.pid(hash, place), value))
        })
    }

    /// Makes `pid` the holder of a name that has none, or that `instead_of` holds; otherwise answers the
    /// holder.
    pub(crate) fn claim(
        &self,
        name: Hashed<'_>,
        pid: Pid,
        instead_of: Option<Pid>,
        value: Option<V>,
    ) -> Result<(), Pid> {
        let hash = name.hash.get();
        // The value before is dropped after the shard was unlocked.
        #[allow(clippy::single_match_else)] // Both ways are as likely.
        let dropped = with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            let (place, dropped) = match locked.find(hash, name.name) {
                Some(place) => {
                    let held = locked.pid(hash, place);
                    if Some(held) != instead_of {
                        return Err(held);
                    }
                    let dropped = locked.hold(hash, place, pid, value);
                    self.write(name.name, held, Change::Unregistered, || dropped.clone());
                    (Some(place), dropped)
                }
                None => (locked.insert(hash, name.name, pid, value, self::hash), None),
            };
            self.write(name.name, pid, Change::Registered, || {
                locked.value(hash, place?)
            });
            dropped
        });
        drop(dropped);
        Ok(())
    }

    /// Gives the name another value if `pid` holds it.
    pub(crate) fn update(&self, name: Hashed<'_>, pid: Pid, value: Option<V>) -> bool {
        let hash = name.hash.get();
        // The value before is dropped after the shard was unlocked.
        let before = with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            let place = locked.find(hash, name.name);
            let held = place.filter(|place| locked.pid(hash, *place) == pid);
            held.map(|place| locked.hold(hash, place, pid, value))
        });
        before.is_some()
    }

    /// Frees the name if `pid` holds it.
    pub(crate) fn release(&self, name: Hashed<'_>, pid: Pid) -> bool {
        let hash = name.hash.get();
        with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            let place = locked.find(hash, name.name);
            let Some(place) = place.filter(|place| locked.pid(hash, *place) == pid) else {
                return false;
            };
            let (name, value) = locked.remove(hash, place, self::hash);
            self.write(&name, pid, Change::Unregistered, || value.clone());
            drop(locked);
            // After the shard was unlocked: freeing takes a while, and may call any destructor.
            drop((name, value));
            true
        })
    }

    /// Frees at most this many names with this hash that `pid` holds; answers how many it freed. It is
    /// one step, so that no name is freed that was registered later.
    pub(crate) fn release_hash(&self, hash: NonZeroU64, pid: Pid, names: usize) -> usize {
        let hash = hash.get();
        with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            // Dropped after the shard was unlocked, as in `release`. There is nearly always one name.
            let (mut freed, mut last, mut others) = (0, None, Vec::new());
            while freed < names {
                let place = locked.find_held(hash, pid, |name| self::hash(name) == hash);
                let Some(place) = place else {
                    break;
                };
                let (name, value) = locked.remove(hash, place, self::hash);
                self.write(&name, pid, Change::Unregistered, || value.clone());
                others.extend(last.replace((name, value)));
                freed += 1;
            }
            drop(locked);
            freed
        })
    }

    /// The names with this hash that `pid` holds: nearly always one.
    pub(crate) fn names_of(&self, hash: NonZeroU64, pid: Pid) -> Vec<Box<[u8]>> {
        let hash = hash.get();
        let mut names: Vec<Box<[u8]>> = Vec::new();
        with_map!(self, hash, |map| {
            let locked = map.lock(hash);
            locked.find_held(hash, pid, |name| {
                if self::hash(name) == hash {
                    names.push(name.into());
                }
                false
            });
        });
        names
    }

    /// The names of a piece that match, and the next piece, if there is one.
    pub(crate) fn piece(
        &self,
        piece: usize,
        matches: impl Fn(&[u8]) -> bool,
    ) -> (Vec<Record<V>>, Option<usize>) {
        let (map, shard) = (piece / SHARDS, piece % SHARDS);
        let (records, next) = match map {
            0 => self.copy_shard(&self.short, shard, matches),
            1 => self.copy_shard(&self.medium, shard, matches),
            2 => (self.copy_long(shard, matches), shard + 1),
            _ => return (Vec::new(), None),
        };
        let next = map * SHARDS + next;
        (records, (next < 3 * SHARDS).then_some(next))
    }

    pub(crate) fn len(&self) -> usize {
        let short = self.short.fill().map(|(names, _)| names);
        let medium = self.medium.fill().map(|(names, _)| names);
        let long = self.long.fill().map(|(names, _)| names);
        short.chain(medium).chain(long).sum()
    }

    pub(crate) fn fill(&self) -> Fill {
        let mut bytes = size_of_val(self);
        let mut names = [0; SHARDS];
        let mut add = |shard: usize, (len, size): (usize, usize)| {
            bytes += size;
            names[shard] += len;
        };
        let (short, medium, long) = (self.short.fill(), self.medium.fill(), self.long.fill());
        short.enumerate().for_each(|(shard, fill)| add(shard, fill));
        medium
            .enumerate()
            .for_each(|(shard, fill)| add(shard, fill));
        long.enumerate().for_each(|(shard, fill)| add(shard, fill));
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
    }

    /// The entries of a shard that match. The shard is copied while it is locked and compared with the
    /// pattern afterwards, so that writers wait as briefly as possible.
    fn copy_shard<const W: usize>(
        &self,
        map: &Slots<W, Values<V>>,
        shard: usize,
        matches: impl Fn(&[u8]) -> bool,
    ) -> (Vec<Record<V>>, usize) {
        let (entries, next) = map.entries(shard);
        let matching = entries.iter().filter_map(|entry| {
            let name = entry.key();
            if !matches(&name) {
                return None;
            }
            let (pid, value) = if entry.has_value() {
                // Read again, so that holder and value belong together: the shard may have changed.
                self.lookup(Hashed::of(&name))?
            } else {
                (entry.pid(), None)
            };
            let name = (*name).into();
            Some(Record { name, pid, value })
        });
        (matching.collect(), next)
    }

    /// As `copy_shard`, for long names.
    fn copy_long(&self, shard: usize, matches: impl Fn(&[u8]) -> bool) -> Vec<Record<V>> {
        let places = self.long.places(shard);
        let matching = places.into_iter().filter_map(|(hash, place)| {
            let locked = self.long.lock(hash);
            let (name, pid, value) = locked.get(hash, place)?;
            let (name, value) = (Arc::clone(name), value.cloned());
            drop(locked);
            matches(&name).then(|| Record {
                name: (*name).into(),
                pid,
                value,
            })
        });
        matching.collect()
    }

    /// Writes a change down if a process asked for it. The shard of the name is locked.
    #[inline]
    fn write(&self, name: &[u8], pid: Pid, change: Change, kept: impl FnOnce() -> Option<V>) {
        self.journal.changed(name, pid, change, kept);
    }
}

#[inline]
fn hash_of(name: &[u8]) -> NonZeroU64 {
    // Not `hash_one`, which would hash the length as well: a prefix-free name does not need that.
    let mut state = HASHER.build_hasher();
    state.write(name);
    let size = if name.len() <= const { room(SHORT_WORDS) } {
        SHORT
    } else if name.len() <= const { room(MEDIUM_WORDS) } {
        MEDIUM
    } else {
        LONG
    };
    size | state.finish() & !SIZE_MASK
}

#[inline]
pub(crate) fn hash(name: &[u8]) -> u64 {
    hash_of(name).get()
}
