//! Slots of keys and their holders, which are read without a lock.
//!
//! - Keys lie inside the slots, seven slots to a group. Each group has a word of tags: one tag for each
//!   slot, seven bits of the hash of its key, so that a lookup hardly ever reads a slot in vain. The last
//!   byte of the word counts the entries that found the group full and went on to the next group. A
//!   lookup ends at the first group where this count is zero, and an entry that is removed leaves no
//!   trace.
//! - A lookup has the processor load the slot where the key most likely is at the same time as its tag.
//!   Nothing waits for this slot if the key is not there.
//! - A writer holds the mutex of the shard, and makes a count odd while it changes slots. A reader
//!   compares the count before with the count after and, when they differ, reads again. Slots are
//!   atomics, so what a reader reads during a change is useless, but does no harm.
//! - A few keys lie in one shard. When there are more, or two writers meet where there is more than a
//!   handful, all keys are moved to many shards, for good. From then on the count of the one shard is
//!   [`MOVED`], and a thread that sees this goes to the many.
//! - A handful of keys lies in the one shard itself, beside its count: [`Near`]. A lookup in such a
//!   registry follows no pointer from there, so that the count, the tags and the slot are loaded at the
//!   same time. With a thousand registries, the processor's caches hold little of each, and each pointer
//!   is a wait.
//! - Arrays of slots are replaced when they grow or shrink, and freed when no thread reads them any more,
//!   see [`crate::epoch`].
//!
//! loom explores these rules in the tests below: `script/loom`.
//!
//! # Why not a library
//!
//! `cargo bench --bench maps`, in `native/registry_bench`, compares two libraries with this module:
//! `scc::HashIndex`, whose readers take no lock either, and 128 tables of hashbrown, each behind
//! parking_lot's `RwLock`, with a prefetch, for which hashbrown has no safe way. The table has
//! nanoseconds per operation, medians of rounds that took turns, with keys of 20 bytes, on two cores; then
//! bytes a key: fresh, after each key has given its place to another, and after all keys have gone:
//!
//! | keys | map | hit | miss | hit, two readers | one key | one key, two readers | bytes |
//! |---|---|---|---|---|---|---|---|
//! | 1,000 | this | 24 | 33 | 29 | 19 | 23 | 98, 128, 62 |
//! | | `HashIndex` | 33 | 30 | 34 | 30 | 30 | 130, 130, 74 |
//! | | hashbrown | 17 | 29 | 33 | 14 | 96 | 74, 114, 114 |
//! | 100,000 | this | 251 | 139 | 210 | 29 | 31 | 50, 53, 0 |
//! | | `HashIndex` | 293 | 106 | 249 | 32 | 33 | 56, 58, 0 |
//! | | hashbrown | 198 | 117 | 198 | 20 | 109 | 54, 108, 108 |
//! | 1,000,000 | this | 374 | 233 | 302 | 26 | 28 | 52, 52, 0 |
//! | | `HashIndex` | 551 | 260 | 512 | 31 | 32 | 88, 88, 0 |
//! | | hashbrown | 282 | 231 | 275 | 19 | 90 | 86, 86, 86 |
//!
//! `HashIndex` takes a sixth to a half longer for a key that is there, which is what most lookups find, and
//! up to 1.7 times the memory. hashbrown is faster for such keys until two threads look up one of them:
//! then they pass the cache line of the lock to and fro, and a lookup takes three to four times as long with
//! only two readers. It also takes twice the memory after keys have come and gone, and gives none back. A
//! key that is not there costs up to a third more here, and putting keys in while the table grows 1.4 to 2
//! times as much as in `HashIndex` and 3.4 to 3.8 times as much as in hashbrown: 380 to 760 ns.

use crate::epoch::{Current, Guard, Shared};
use crate::pid::Pid;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, fence, spin_loop};
use prefetch::prefetch;
use std::array;
use std::num::NonZero;
use std::ops::Deref;
use std::sync::{OnceLock, PoisonError, TryLockError};

/// Shards of many keys. With more shards, two writers collide less often, and the growth of a shard,
/// during which other threads cannot write there, is shorter: 8,000 slots of a million names, half a
/// millisecond.
pub(crate) const SHARDS: usize = if cfg!(loom) { 1 } else { 128 };

/// Up to this many keys lie in one shard, unless two writers meet there among more than [`NEAR`]. This
/// saves a small registry kilobytes.
const FEW: usize = if cfg!(loom) { 8 } else { 256 };

/// The number of a value. Most keys have no value, and pay four bytes for the number.
type ValueId = u32;

/// The number of a key without a value.
const NO_VALUE: ValueId = 0;

/// What is in a slot: the pid, then the bytes of the key. The last word has three bytes of the key,
/// its length and the value.
#[derive(Clone, Copy)]
pub(crate) struct Entry<const W: usize>([u64; W]);

const LENGTH_SHIFT: u32 = 24;
const VALUE_SHIFT: u32 = 32;
/// The part of the last word that belongs to the key.
const KEY: u64 = (1 << VALUE_SHIFT) - 1;

/// The value in the last word of an entry: its upper half.
#[inline]
fn value_in(last: u64) -> ValueId {
    #[allow(clippy::cast_possible_truncation)]
    let value = (last >> VALUE_SHIFT) as u32;
    value
}

/// The longest key of entries of `words` words.
pub(crate) const fn room(words: usize) -> usize {
    (words - 1) * 8 - 5
}

/// A key, read from its words.
pub(crate) struct Key {
    bytes: [u8; 88],
    len: usize,
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const W: usize> Entry<W> {
    /// An entry without a holder. The key is not empty, and no longer than [`room`].
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut words = [0; W];
        let (whole, rest) = key.as_chunks::<8>();
        // By index: otherwise this becomes a call that copies memory.
        for at in 0..W - 1 {
            if let Some(bytes) = whole.get(at) {
                words[1 + at] = u64::from_le_bytes(*bytes);
            }
        }
        if !rest.is_empty() {
            words[1 + whole.len()] = match key.last_chunk::<8>() {
                Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
                None => rest
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
        }
        words[W - 1] |= (key.len() as u64) << LENGTH_SHIFT;
        Self(words)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(self.0[0])
    }

    fn value(&self) -> ValueId {
        value_in(self.0[W - 1])
    }

    pub(crate) fn has_value(&self) -> bool {
        self.value() != NO_VALUE
    }

    fn held_by(mut self, pid: Pid, value: ValueId) -> Self {
        self.0[0] = pid.0;
        self.0[W - 1] = self.0[W - 1] & KEY | u64::from(value) << VALUE_SHIFT;
        self
    }

    pub(crate) fn key(&self) -> Key {
        let mut bytes = [0; 88];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0[1..]) {
            *bytes = word.to_le_bytes();
        }
        let len = (self.0[W - 1] & KEY) >> LENGTH_SHIFT;
        // A length that is read during a change may be anything.
        let len = usize::try_from(len).unwrap_or(0).min(room(W));
        Key { bytes, len }
    }
}

/// Room for an entry.
#[derive(Clone, Copy)]
struct Slot<'a, const W: usize>(&'a [AtomicU64; W]);

impl<const W: usize> Slot<'_, W> {
    #[inline]
    fn word(self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    #[inline]
    fn pid(self) -> Pid {
        Pid(self.word(0))
    }

    #[inline]
    fn value(self) -> ValueId {
        value_in(self.word(W - 1))
    }

    fn get(self) -> Entry<W> {
        Entry(array::from_fn(|at| self.word(at)))
    }

    fn set(self, entry: &Entry<W>) {
        for (word, value) in self.0.iter().zip(entry.0) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Whether the key is that of the entry. There is no branch for each word.
    #[inline]
    fn has_key_of(self, entry: &Entry<W>) -> bool {
        let last = (self.word(W - 1) ^ entry.0[W - 1]) & KEY;
        (1..W - 1).fold(last, |difference, at| {
            difference | self.word(at) ^ entry.0[at]
        }) == 0
    }
}

/// Slots in a group: the tags and a count of as many bytes fill a word.
const GROUP: usize = 7;

/// A word with the same byte at each place.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The tag of a slot that has an entry has its highest bit set; that of another is 0.
const TAKEN: u8 = 0x80;
/// That bit of each slot of a group.
const PLACES: u64 = all(TAKEN) >> 8;
/// Where, in the word of tags, the count of entries that have passed the group is.
const PASSED_SHIFT: u32 = 56;
/// A count that has reached this value stays there.
const MANY: u64 = 0xFF;

/// Where to look for a key.
struct Home {
    /// The group to look at first.
    group: usize,
    /// The slot of that group to take if it is free.
    place: usize,
    tag: u8,
}

/// Where to look for a key with this hash. Bits of the hash below the upper 39 do not matter.
#[inline]
fn home(groups: usize, hash: u64) -> Home {
    let fraction = (hash << SHARDS.trailing_zeros()) >> 32;
    let home = fraction.wrapping_mul(groups as u64);
    // The group is less than the number of groups, which is below 2^32; the rest gives the place in it.
    #[allow(clippy::cast_possible_truncation)]
    Home {
        group: (home >> 32) as usize,
        place: (((home & u64::from(u32::MAX)) * GROUP as u64) >> 32) as usize,
        tag: (hash >> 26) as u8 | TAKEN,
    }
}

/// The places in a word of tags whose highest bit is set, from the lowest.
#[inline]
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros() as usize / 8;
        bits &= bits.wrapping_sub(1);
        (place < GROUP).then_some(place)
    })
}

/// The place in a word of tags whose highest bit is set and which is nearest to this one: lookups have
/// the processor load the lines of the cache that are there.
#[inline]
fn nearest(bits: u64, place: usize) -> Option<usize> {
    let above = bits >> (8 * place);
    let below = bits & ((1 << (8 * place)) - 1);
    let up = (above != 0).then(|| place + above.trailing_zeros() as usize / 8);
    let down = below.checked_ilog2().map(|bit| bit as usize / 8);
    match (up, down) {
        (Some(up), Some(down)) if place - down < up - place => Some(down),
        _ => up.or(down),
    }
}

/// Sets the highest bit of each of the seven lower bytes that is zero, and perhaps of some bytes above
/// one that is zero.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(all(1)) & !word & PLACES
}

/// Slots in groups, and their tags.
#[derive(Clone, Copy)]
struct Groups<'a, const W: usize> {
    /// A word for each group: a byte for each slot of it, and the count.
    tags: &'a [AtomicU64],
    slots: &'a [[AtomicU64; W]],
}

impl<'a, const W: usize> Groups<'a, W> {
    #[inline]
    fn slot(self, at: usize) -> Slot<'a, W> {
        Slot(&self.slots[at])
    }

    #[allow(clippy::inline_always)] // As `Slots::read`.
    #[inline(always)]
    fn find(self, hash: u64, mut is: impl FnMut(Slot<'a, W>) -> bool) -> Option<usize> {
        let Home {
            mut group,
            place,
            tag,
        } = home(self.tags.len(), hash);
        let likely = self.slot(group * GROUP + place).0;
        // As `ALIGNMENT` says, these are all the lines of a slot.
        prefetch(&likely[0]);
        prefetch(&likely[W - 1]);
        // A reader that reads during a change may find counts that lead it round and round.
        for _ in 0..self.tags.len() {
            let tags = self.tags[group].load(Ordering::Relaxed);
            for place in places(zeros(tags ^ all(tag))) {
                let at = group * GROUP + place;
                if is(self.slot(at)) {
                    return Some(at);
                }
            }
            if tags >> PASSED_SHIFT == 0 {
                return None;
            }
            group = self.after(group);
        }
        None
    }

    #[inline]
    fn after(self, group: usize) -> usize {
        if group + 1 == self.tags.len() {
            0
        } else {
            group + 1
        }
    }

    fn tag(self, at: usize, tag: u8) {
        let word = &self.tags[at / GROUP];
        let shift = at % GROUP * 8;
        let others = word.load(Ordering::Relaxed) & !(0xFF << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Relaxed);
    }

    /// Writes an entry into a free slot, of which there has to be one; answers its place.
    fn put(self, hash: u64, entry: &Entry<W>) -> Option<usize> {
        let Home {
            mut group,
            place,
            tag,
        } = home(self.tags.len(), hash);
        for _ in 0..self.tags.len() {
            let tags = self.tags[group].load(Ordering::Relaxed);
            if let Some(place) = nearest(!tags & PLACES, place) {
                let at = group * GROUP + place;
                self.slot(at).set(entry);
                self.tag(at, tag);
                return Some(at);
            }
            if tags >> PASSED_SHIFT < MANY {
                self.tags[group].store(tags + (1 << PASSED_SHIFT), Ordering::Relaxed);
            }
            group = self.after(group);
        }
        None
    }

    /// Removes the entry at a place, which has this hash.
    fn remove(self, hash: u64, at: usize) {
        let mut group = home(self.tags.len(), hash).group;
        while group != at / GROUP {
            let tags = self.tags[group].load(Ordering::Relaxed);
            if tags >> PASSED_SHIFT < MANY {
                self.tags[group].store(tags - (1 << PASSED_SHIFT), Ordering::Relaxed);
            }
            group = self.after(group);
        }
        self.tag(at, 0);
    }

    /// All entries.
    fn entries(self) -> impl Iterator<Item = Entry<W>> {
        let groups = self.tags.iter().zip(self.slots.as_chunks::<GROUP>().0);
        groups.flat_map(|(tags, slots)| {
            let taken = tags.load(Ordering::Relaxed) & PLACES;
            places(taken).map(|place| Slot(&slots[place]).get())
        })
    }

    /// Removes all entries.
    fn clear(self) {
        for tags in self.tags {
            tags.store(0, Ordering::Relaxed);
        }
    }
}

/// The slots of an array begin at a multiple of this many bytes, half a line of the cache. A slot of 96
/// bytes then lies in two lines, not in three.
const ALIGNMENT: usize = 32;

/// Groups that are allocated.
struct Array<const W: usize> {
    /// The tags, then up to three words that are not used, then the slots.
    words: Box<[AtomicU64]>,
    groups: usize,
    /// Where the slots begin.
    slots: usize,
}

impl<const W: usize> Array<W> {
    fn new(groups: usize) -> Self {
        const WORD: usize = size_of::<AtomicU64>();
        let most = ALIGNMENT / WORD;
        let len = groups + most.saturating_sub(1) + groups * GROUP * W;
        let words: Box<[AtomicU64]> = (0..len).map(|_| AtomicU64::new(0)).collect();
        let tags_end = words.as_ptr().addr() + groups * WORD;
        let unused = (tags_end.next_multiple_of(ALIGNMENT) - tags_end) / WORD;
        Self {
            words,
            groups,
            slots: groups + unused,
        }
    }

    #[inline]
    fn groups(&self) -> Groups<'_, W> {
        Groups {
            tags: &self.words[..self.groups],
            slots: self.words[self.slots..].as_chunks().0,
        }
    }

    /// How many slots there are.
    fn len(&self) -> usize {
        self.groups * GROUP
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words)
    }
}

/// Groups of near slots. Two groups for short names and two for longer ones take two kilobytes of each
/// registry.
const NEAR_GROUPS: usize = if cfg!(loom) { 1 } else { 2 };
/// At most this many keys lie there. All slots may be taken: a lookup looks at two groups at most.
const NEAR: usize = if cfg!(loom) { 3 } else { NEAR_GROUPS * GROUP };

/// Slots that are not allocated but are part of the one shard of few keys. They are in use while there is
/// no array; while there is one, they keep what was there before it.
#[repr(C)]
struct Near<const W: usize> {
    tags: [AtomicU64; NEAR_GROUPS],
    slots: [[[AtomicU64; W]; GROUP]; NEAR_GROUPS],
}

impl<const W: usize> Near<W> {
    fn new() -> Self {
        Self {
            tags: array::from_fn(|_| AtomicU64::new(0)),
            slots: array::from_fn(|_| array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0)))),
        }
    }

    #[inline]
    fn groups(&self) -> Groups<'_, W> {
        Groups {
            tags: &self.tags,
            slots: self.slots.as_flattened(),
        }
    }
}

/// At most this share of the slots is taken. Then a quarter of the groups has been passed, and a lookup
/// reads their next word of tags, too, which mostly lies in the same line of the cache.
const FULL: (usize, usize) = (7, 8);
/// This share is taken after the array was replaced. The nearer it is to `FULL`, the less memory is
/// without a key, and the more often a key is moved: here each is moved seven times while a table grows.
/// A move takes about 20 ns, because both arrays are gone through in the same order.
const REPLACED: (usize, usize) = (3, 4);
/// An array is replaced by a smaller one when less than this share of its slots is taken, and the keys
/// are at least [`SLACK`] fewer than that. So a large shard that was larger once has at most two fifths more
/// slots than one that was not, and each key that goes has at most five others moved.
const SPARSE: (usize, usize) = (5, 8);
/// In a small shard the keys are soon fewer or more by an eighth, with names that come and go.
const SLACK: usize = 64;

/// The most slots of an array that stays although its keys have gone. Otherwise a name that comes and
/// goes would have the array of its shard made anew each time. All such arrays together take 70 KB for
/// short names, and 170 KB for longer ones.
const KEPT: usize = 2 * GROUP;

/// An array of more than this many slots is also replaced when less than an eighth of them is taken.
const SMALL: usize = 8 * GROUP;

/// Whether so many keys are too few for so many slots.
fn sparse(len: usize, slots: usize) -> bool {
    (len == 0 && slots > KEPT)
        || (len * 8 < slots && slots > SMALL)
        || (len + SLACK) * SPARSE.1 < slots * SPARSE.0
}

/// What readers of a shard see of it, beside slots.
struct Head<const W: usize> {
    /// Odd while slots are being changed.
    changes: AtomicU64,
    /// The array that has the keys. While there is none, the near slots have them, or there is no key.
    current: Current<Array<W>>,
}

/// The one shard of few keys. What a lookup reads comes first: the count, the pointer and the tags share a
/// line of the cache.
#[repr(C, align(64))]
struct Few<const W: usize, S> {
    head: Head<W>,
    near: Near<W>,
    content: Mutex<Content<W, S>>,
}

/// One of the many shards.
#[repr(C, align(64))]
struct Shard<const W: usize, S> {
    head: Head<W>,
    content: Mutex<Content<W, S>>,
}

/// The parts of a shard of either kind.
struct Parts<'a, const W: usize, S> {
    head: &'a Head<W>,
    near: Option<&'a Near<W>>,
    content: &'a Mutex<Content<W, S>>,
}

/// What only a thread that holds the mutex sees.
struct Content<const W: usize, S> {
    /// The same as `current`.
    array: Option<Shared<Array<W>>>,
    len: usize,
    values: S,
}

/// Where the values of a shard are, by the numbers that stand with their keys.
pub(crate) trait Store {
    /// What is kept with a key.
    type Value;

    /// No values.
    fn new() -> Self;

    /// The number of a value that is kept from now on; [`NO_VALUE`] for none.
    fn keep(&mut self, value: Option<Self::Value>) -> ValueId;

    /// A copy of the value with this number.
    fn get(&self, id: ValueId) -> Option<Self::Value>;

    /// The value with this number, which is kept no longer.
    fn take(&mut self, id: ValueId) -> Option<Self::Value>;

    /// Bytes of memory.
    fn bytes(&self) -> usize;
}

/// Values of any type, numbered from one. This is no map, because a map whose entries come and go takes
/// twice the memory. The values get new numbers when the array is replaced.
pub(crate) struct Values<V> {
    kept: Vec<Option<V>>,
    free: Vec<ValueId>,
}

impl<V> Values<V> {
    /// The index of a value in `kept`; out of bounds for [`NO_VALUE`].
    fn place(id: ValueId) -> usize {
        (id as usize).wrapping_sub(1)
    }
}

impl<V: Clone> Store for Values<V> {
    type Value = V;

    fn new() -> Self {
        Self {
            kept: Vec::new(),
            free: Vec::new(),
        }
    }

    fn keep(&mut self, value: Option<V>) -> ValueId {
        if value.is_none() {
            return NO_VALUE;
        }
        if let Some(id) = self.free.pop() {
            self.kept[Self::place(id)] = value;
            return id;
        }
        self.kept.push(value);
        // A shard has no more than 2^32 keys.
        ValueId::try_from(self.kept.len()).unwrap_or(NO_VALUE)
    }

    fn get(&self, id: ValueId) -> Option<V> {
        self.kept.get(Self::place(id))?.clone()
    }

    fn take(&mut self, id: ValueId) -> Option<V> {
        let value = self.kept.get_mut(Self::place(id))?.take();
        if value.is_some() {
            self.free.push(id);
        }
        value
    }

    fn bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Option<V>>() + self.free.capacity() * size_of::<ValueId>()
    }
}

/// Values that are their own numbers, so that they take no memory but that of the slot.
pub(crate) struct Numbers;

impl Store for Numbers {
    type Value = NonZero<ValueId>;

    fn new() -> Self {
        Self
    }

    fn keep(&mut self, value: Option<Self::Value>) -> ValueId {
        value.map_or(NO_VALUE, NonZero::get)
    }

    fn get(&self, id: ValueId) -> Option<Self::Value> {
        NonZero::new(id)
    }

    fn take(&mut self, id: ValueId) -> Option<Self::Value> {
        NonZero::new(id)
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl<const W: usize, S: Store> Content<W, S> {
    fn new() -> Self {
        Self {
            array: None,
            len: 0,
            values: S::new(),
        }
    }

    fn bytes(&self) -> usize {
        self.array.as_ref().map_or(0, |array| array.bytes()) + self.values.bytes()
    }
}

impl<const W: usize> Head<W> {
    fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            current: Current::none(),
        }
    }

    /// The mutex has to be held.
    fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Relaxed);
        // A thread that sees any part of the change sees the odd count, too: this fence pairs with that
        // in `read`.
        fence(Ordering::Release);
        // A count that stayed odd would send every reader to the mutex for good.
        let _changing = Changing {
            count: &self.changes,
            after: changes + 2,
        };
        change()
    }
}

/// A writer is changing the slots that were read.
struct Busy;

impl<const W: usize, S: Store> Few<W, S> {
    fn parts(&self) -> Parts<'_, W, S> {
        Parts {
            head: &self.head,
            near: Some(&self.near),
            content: &self.content,
        }
    }
}

impl<const W: usize, S: Store> Shard<W, S> {
    fn new() -> Self {
        Self {
            head: Head::new(),
            content: Mutex::new(Content::new()),
        }
    }

    fn parts(&self) -> Parts<'_, W, S> {
        Parts {
            head: &self.head,
            near: None,
            content: &self.content,
        }
    }
}

impl<'a, const W: usize, S: Store> Parts<'a, W, S> {
    /// The content, and whether another thread held the mutex at first.
    fn lock(&self) -> (MutexGuard<'a, Content<W, S>>, bool) {
        match self.content.try_lock() {
            Ok(content) => (content, false),
            Err(TryLockError::Poisoned(content)) => (content.into_inner(), false),
            Err(TryLockError::WouldBlock) => {
                let content = self.content.lock();
                (content.unwrap_or_else(PoisonError::into_inner), true)
            }
        }
    }

    /// Where the keys are; `None`, perhaps, if there is no key.
    fn groups<'c>(&self, content: &'c Content<W, S>) -> Option<Groups<'c, W>>
    where
        'a: 'c,
    {
        let array = content.array.as_ref().map(|array| array.groups());
        array.or_else(|| self.near.map(Near::groups))
    }

    fn entries<'c>(
        &self,
        content: &'c Content<W, S>,
    ) -> impl Iterator<Item = Entry<W>> + use<'c, W, S>
    where
        'a: 'c,
    {
        self.groups(content).into_iter().flat_map(Groups::entries)
    }

    fn clear(&self) {
        let (mut content, _) = self.lock();
        // Keys that have been moved are not here.
        if self.head.changes.load(Ordering::Relaxed) == MOVED {
            return;
        }
        let before = std::mem::replace(&mut *content, Content::new());
        let retired = self.head.change(|| {
            if let Some(near) = self.near {
                near.groups().clear();
            }
            self.head.current.replace(None)
        });
        drop(content);
        // After the mutex was released: freeing takes a while, and the destructor of a value may do
        // anything.
        drop((before, retired));
    }
}

/// Ends a change, also when the change panics.
struct Changing<'a> {
    count: &'a AtomicU64,
    after: u64,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // A thread that sees this count sees all of the change.
        self.count.store(self.after, Ordering::Release);
    }
}

/// The count of a shard whose keys have been moved to others for good. It is odd, so no reader reads
/// there.
const MOVED: u64 = u64::MAX;

/// Keys of up to [`room`]`(W)` bytes, each with its holder and perhaps a value.
pub(crate) struct Slots<const W: usize, S> {
    /// All keys, until its count is [`MOVED`].
    few: Few<W, S>,
    /// All keys since then.
    many: OnceLock<Box<[Shard<W, S>]>>,
}

/// How often a reader tries before it waits for the writer.
const TRIES: usize = if cfg!(loom) { 2 } else { 8 };

impl<const W: usize, S: Store> Slots<W, S> {
    pub(crate) fn new() -> Self {
        Self {
            few: Few {
                head: Head::new(),
                near: Near::new(),
                content: Mutex::new(Content::new()),
            },
            many: OnceLock::new(),
        }
    }

    /// Starts to load the line that every lookup reads first. Nothing waits for this load.
    #[inline]
    pub(crate) fn fetch(&self) {
        prefetch(&self.few.head.changes);
    }

    /// The shards, if there are many.
    #[inline]
    fn many(&self) -> Option<&[Shard<W, S>]> {
        // A thread that sees `MOVED` sees the keys in the many: `spread` has put them there before.
        if self.few.head.changes.load(Ordering::Acquire) == MOVED {
            self.many.get().map(|many| &**many)
        } else {
            None
        }
    }

    /// The shard of a key with this hash.
    fn shard(&self, hash: u64) -> Parts<'_, W, S> {
        match self.many() {
            Some(many) => many[shard_of(hash)].parts(),
            None => self.few.parts(),
        }
    }

    /// The holder of the key of `entry`.
    #[inline]
    pub(crate) fn holder(&self, guard: &Guard, hash: u64, entry: &Entry<W>) -> Option<Pid> {
        // The method itself is one function for each lifetime, and no closure for all.
        #[allow(clippy::redundant_closure_for_method_calls)]
        self.read_slot(guard, hash, entry, |slot| slot.pid())
    }

    /// What `read` reads in the slot of the key of `entry`.
    #[inline]
    fn read_slot<R>(
        &self,
        guard: &Guard,
        hash: u64,
        entry: &Entry<W>,
        read: impl Fn(Slot<'_, W>) -> R,
    ) -> Option<R> {
        match self.read(guard, hash, entry, &read) {
            Ok(holder) => holder,
            Err(Busy) => self.read_again(guard, hash, *entry, read),
        }
    }

    /// As `read_slot`, after a writer interfered. The entry comes by value: an entry that is not referred to
    /// stays in registers until then.
    #[cold]
    fn read_again<R>(
        &self,
        guard: &Guard,
        hash: u64,
        entry: Entry<W>,
        read: impl Fn(Slot<'_, W>) -> R,
    ) -> Option<R> {
        for _ in 1..TRIES {
            spin_loop();
            if let Ok(holder) = self.read(guard, hash, &entry, &read) {
                return holder;
            }
        }
        let locked = self.lock(hash);
        let place = locked.place_of(hash, &entry)?;
        Some(read(locked.slot(place)))
    }

    /// As `read_slot`, unless a thread writes there meanwhile.
    #[allow(clippy::inline_always)] // A call takes 40 instructions of 230.
    #[inline(always)]
    fn read<R>(
        &self,
        guard: &Guard,
        hash: u64,
        entry: &Entry<W>,
        read: &impl Fn(Slot<'_, W>) -> R,
    ) -> Result<Option<R>, Busy> {
        // All changes before this count are seen. A thread that sees `MOVED` sees the keys in the many.
        let mut before = self.few.head.changes.load(Ordering::Acquire);
        let many = if before == MOVED {
            self.many.get()
        } else {
            None
        };
        let (head, near) = match many {
            None => (&self.few.head, Some(&self.few.near)),
            Some(many) => {
                let head = &many[shard_of(hash)].head;
                before = head.changes.load(Ordering::Acquire);
                (head, None)
            }
        };
        if before % 2 == 1 {
            return Err(Busy);
        }
        let groups = match (head.current.get(guard), near) {
            (Some(array), _) => Some(array.groups()),
            (None, Some(near)) => Some(near.groups()),
            (None, None) => None,
        };
        // Not a closure: it would become a function.
        let found = match groups {
            Some(groups) => groups
                .find(hash, |slot| slot.has_key_of(entry))
                .map(|at| read(groups.slot(at))),
            None => None,
        };
        // The second load of the count comes after all other reads: this fence pairs with that in `change`.
        fence(Ordering::Acquire);
        if head.changes.load(Ordering::Relaxed) == before {
            Ok(found)
        } else {
            Err(Busy)
        }
    }

    pub(crate) fn lock(&self, hash: u64) -> Locked<'_, W, S> {
        loop {
            let shard = self.shard(hash);
            let (content, crowded) = shard.lock();
            // A thread that moves keys holds the mutex of the shard that they leave.
            if std::ptr::eq(shard.head, self.shard(hash).head) {
                return Locked {
                    slots: self,
                    shard,
                    content,
                    crowded,
                    retired: Vec::new(),
                };
            }
        }
    }

    /// The entries of a shard, and the number of the next shard, which is below [`SHARDS`] if there is
    /// one. A caller that goes on so from 0 finds every key that is there all the while, and finds it
    /// once.
    pub(crate) fn entries(&self, shard: usize) -> (Vec<Entry<W>>, usize) {
        let of = |shard: &Parts<'_, W, S>, content: &Content<W, S>| {
            let mut entries = Vec::with_capacity(content.len);
            entries.extend(shard.entries(content));
            entries
        };
        if self.many().is_none() {
            let few = self.few.parts();
            let (content, _) = few.lock();
            if self.many().is_none() {
                // If the caller had looked at an earlier shard of many, there would be many.
                return (of(&few, &content), SHARDS);
            }
        }
        let shards = self.many().and_then(|many| many.get(shard));
        let entries = shards.map_or(Vec::new(), |shard| {
            let shard = shard.parts();
            of(&shard, &shard.lock().0)
        });
        (entries, shard + 1)
    }

    /// Of each shard, how many keys there are, and its bytes of memory.
    pub(crate) fn fill(&self) -> impl Iterator<Item = (usize, usize)> {
        let (few, many) = match self.many() {
            None => (Some(&self.few), &[][..]),
            Some(many) => (None, many),
        };
        let fill = |shard: Parts<'_, W, S>| {
            let content = shard.lock().0;
            (content.len, content.bytes())
        };
        // The one shard lies in this.
        let few = few.into_iter().map(move |few| fill(few.parts()));
        few.chain(many.iter().map(move |shard| {
            let (len, bytes) = fill(shard.parts());
            (len, bytes + size_of_val(shard))
        }))
    }

    /// Forgets all keys.
    pub(crate) fn clear(&self) {
        self.few.parts().clear();
        // After the one shard: keys that were there until then have been moved to these.
        for shard in self.many().unwrap_or_default() {
            shard.parts().clear();
        }
    }
}

impl<const W: usize> Slots<W, Numbers> {
    /// The holder of the key of `entry`, and its value.
    #[inline]
    pub(crate) fn holder_and_number(
        &self,
        guard: &Guard,
        hash: u64,
        entry: &Entry<W>,
    ) -> Option<(Pid, Option<NonZero<ValueId>>)> {
        self.read_slot(guard, hash, entry, |slot| {
            (slot.pid(), NonZero::new(slot.value()))
        })
    }
}

#[inline]
pub(crate) fn shard_of(hash: u64) -> usize {
    // As many bits as there are numbers of shards.
    #[allow(clippy::cast_possible_truncation)]
    let shard = ((u128::from(hash) * SHARDS as u128) >> u64::BITS) as usize;
    shard
}

/// A shard in which no other thread writes. Values that its methods answer should be dropped after it.
pub(crate) struct Locked<'a, const W: usize, S> {
    slots: &'a Slots<W, S>,
    shard: Parts<'a, W, S>,
    content: MutexGuard<'a, Content<W, S>>,
    /// Whether another thread held the mutex at first.
    crowded: bool,
    /// Dropped after the mutex was released, as freeing takes a while.
    retired: Vec<Shared<Array<W>>>,
}

impl<const W: usize, S: Store> Locked<'_, W, S> {
    /// The place of a key.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.place_of(hash, &Entry::of(key))
    }

    fn place_of(&self, hash: u64, entry: &Entry<W>) -> Option<usize> {
        self.groups()?.find(hash, |slot| slot.has_key_of(entry))
    }

    /// The first place of a key of this hash that `pid` holds and for which `is` answers `true`.
    pub(crate) fn find_held(
        &self,
        hash: u64,
        pid: Pid,
        mut is: impl FnMut(&[u8]) -> bool,
    ) -> Option<usize> {
        self.groups()?.find(hash, |slot| {
            let entry = slot.get();
            entry.pid() == pid && is(&entry.key())
        })
    }

    fn groups(&self) -> Option<Groups<'_, W>> {
        self.shard.groups(&self.content)
    }

    fn slot(&self, place: usize) -> Slot<'_, W> {
        // Places come from slots that are there.
        Slot(&self.groups().map_or(&[][..], |groups| groups.slots)[place])
    }

    pub(crate) fn pid(&self, _hash: u64, place: usize) -> Pid {
        self.slot(place).pid()
    }

    pub(crate) fn value(&self, _hash: u64, place: usize) -> Option<S::Value> {
        self.content.values.get(self.slot(place).value())
    }

    /// Changes the holder and the value at a place; answers the value before.
    pub(crate) fn hold(
        &mut self,
        _hash: u64,
        place: usize,
        pid: Pid,
        value: Option<S::Value>,
    ) -> Option<S::Value> {
        let value = self.content.values.keep(value);
        let slot = self.slot(place);
        let before = slot.get();
        let entry = before.held_by(pid, value);
        self.shard.head.change(|| slot.set(&entry));
        self.content.values.take(before.value())
    }

    /// Puts in a key that is not there, and answers its place. `hash_of`: the hash of a key.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        key: &[u8],
        pid: Pid,
        value: Option<S::Value>,
        hash_of: impl Fn(&[u8]) -> u64,
    ) -> Option<usize> {
        let few = self.shard.near.is_some();
        // A handful of keys stays together even then: a thousand such registries in many shards each would
        // cost every lookup several lines of memory, and writers of so few names seldom meet.
        let crowded = self.crowded && self.content.len >= NEAR;
        if few && (crowded || self.content.len == FEW) {
            self.spread(hash, &hash_of);
        }
        self.put(hash, key, pid, value, &hash_of)
    }

    fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        pid: Pid,
        value: Option<S::Value>,
        hash_of: &impl Fn(&[u8]) -> u64,
    ) -> Option<usize> {
        let len = self.content.len + 1;
        let most = match (&self.content.array, self.shard.near) {
            (Some(array), _) => array.len() * FULL.0 / FULL.1,
            (None, Some(_)) => NEAR,
            (None, None) => 0,
        };
        if len > most {
            self.resize(len, hash_of);
        }
        let value = self.content.values.keep(value);
        let entry = Entry::of(key).held_by(pid, value);
        self.content.len = len;
        let groups = self.groups()?;
        self.shard.head.change(|| groups.put(hash, &entry))
    }

    /// Moves the keys of the one shard to many. Afterwards, the shard of `hash` is locked instead.
    fn spread(&mut self, hash: u64, hash_of: &impl Fn(&[u8]) -> u64) {
        let slots = self.slots;
        let many = slots
            .many
            .get_or_init(|| (0..SHARDS).map(|_| Shard::new()).collect());
        let locked = |hash| {
            let shard = many[shard_of(hash)].parts();
            let (content, _) = shard.lock();
            Locked {
                slots,
                shard,
                content,
                crowded: false,
                retired: Vec::new(),
            }
        };
        // A mutex of the many is taken while that of the one is held, and never the other way round.
        let mut few = std::mem::replace(&mut *self.content, Content::new());
        let mut values = std::mem::replace(&mut few.values, S::new());
        for entry in self.shard.entries(&few) {
            let (key, value) = (entry.key(), values.take(entry.value()));
            let hash = hash_of(&key);
            locked(hash).put(hash, &key, entry.pid(), value, hash_of);
        }
        // Before another thread can look there: nothing may come between what the caller has found, which
        // is that there is no such key, and what the caller is going to do.
        let next = locked(hash);
        // A thread that sees `MOVED` sees the keys where they are now. A thread that still reads the
        // old array finds there what was true until now.
        self.shard.head.changes.store(MOVED, Ordering::Release);
        let retired = self.shard.head.current.replace(None);
        *self = next;
        self.retired.extend(retired.into_iter().chain(few.array));
    }

    /// Removes what is at a place; answers its key and its value.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        place: usize,
        hash_of: impl Fn(&[u8]) -> u64,
    ) -> (Key, Option<S::Value>) {
        let entry = self.slot(place).get();
        if let Some(groups) = self.groups() {
            self.shard.head.change(|| groups.remove(hash, place));
        }
        let value = self.content.values.take(entry.value());
        self.content.len -= 1;
        let len = self.content.len;
        let slots = self.content.array.as_ref().map_or(0, |array| array.len());
        let near = slots > 0 && self.shard.near.is_some() && len <= NEAR / 2;
        if near || sparse(len, slots) {
            self.resize(len, &hash_of);
        }
        (entry.key(), value)
    }

    /// Moves the keys to where there is room for this many: the near slots, or another array.
    fn resize(&mut self, len: usize, hash_of: &impl Fn(&[u8]) -> u64) {
        let mut before = std::mem::replace(&mut self.content.values, S::new());
        let mut values = S::new();
        let moved = self.shard.entries(&self.content).map(|entry| {
            let value = values.keep(before.take(entry.value()));
            (hash_of(&entry.key()), entry.held_by(entry.pid(), value))
        });
        let head = self.shard.head;
        let (array, retired) = match self.shard.near {
            Some(near) if len <= NEAR => {
                let moved: Vec<_> = moved.collect();
                // A thread may still read what the near slots had before the array.
                let retired = head.change(|| {
                    let near = near.groups();
                    near.clear();
                    for (hash, entry) in moved {
                        near.put(hash, &entry);
                    }
                    head.current.replace(None)
                });
                (None, retired)
            }
            _ if len == 0 => {
                drop(moved);
                (None, head.current.replace(None))
            }
            _ => {
                let slots = (len * REPLACED.1).div_ceil(REPLACED.0);
                let array = Array::new(slots.div_ceil(GROUP));
                for (hash, entry) in moved {
                    array.groups().put(hash, &entry);
                }
                let array = Shared::new(array);
                // No change of slots: a reader of the old slots finds there what was true until now.
                (Some(array.clone()), head.current.replace(Some(array)))
            }
        };
        self.retired.extend(retired);
        let old = std::mem::replace(&mut self.content.array, array);
        self.retired.extend(old);
        self.content.values = values;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::panic, clippy::cast_precision_loss)]

    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    fn key(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    fn number(key: &[u8]) -> u64 {
        u64::from_le_bytes(key.try_into().unwrap_or_default())
    }

    /// A hash of shard 0.
    fn hash(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> SHARDS.trailing_zeros()
    }

    fn insert(slots: &Slots<5, Values<u64>>, key_number: u64, value: Option<u64>) {
        let mut locked = slots.lock(hash(key_number));
        let hash_of = |key: &[u8]| hash(number(key));
        locked.insert(
            hash(key_number),
            &key(key_number),
            Pid(key_number),
            value,
            hash_of,
        );
    }

    fn remove(slots: &Slots<5, Values<u64>>, key_number: u64) -> Option<u64> {
        let hash_of = |key: &[u8]| hash(number(key));
        let mut locked = slots.lock(hash(key_number));
        let place = locked.find(hash(key_number), &key(key_number));
        let (gone, value) = locked.remove(hash(key_number), place.unwrap_or(usize::MAX), hash_of);
        assert_eq!(*gone, key(key_number));
        value
    }

    fn holder(slots: &Slots<5, Values<u64>>, key_number: u64) -> Option<Pid> {
        let entry = Entry::of(&key(key_number));
        slots.holder(&Guard::new(), hash(key_number), &entry)
    }

    fn bytes(slots: &Slots<5, Values<u64>>) -> usize {
        slots.fill().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn keys_of_one_hash_are_found_whichever_of_them_have_gone() {
        let slots = Slots::<5, Values<()>>::new();
        let holder = |number| slots.holder(&Guard::new(), 0, &Entry::of(&key(number)));
        let mut held = Vec::new();
        for number in 0..400 {
            slots
                .lock(0)
                .insert(0, &key(number), Pid(number), None, |_| 0);
            held.push(number);
            if number % 3 == 0 {
                let gone = held.swap_remove(usize::try_from(number * 7).unwrap_or(0) % held.len());
                let mut locked = slots.lock(0);
                let place = locked.find(0, &key(gone));
                locked.remove(0, place.unwrap_or(usize::MAX), |_| 0);
                drop(locked);
                assert_eq!(holder(gone), None);
            }
            for &number in &held {
                assert_eq!(holder(number), Some(Pid(number)));
            }
        }
        held.sort_unstable();
        assert_eq!(all(&slots), held);
    }

    /// All keys there are, in order.
    fn all<V: Clone>(slots: &Slots<5, Values<V>>) -> Vec<u64> {
        let (mut keys, mut next) = (Vec::new(), 0);
        while next < SHARDS {
            let (entries, then) = slots.entries(next);
            keys.extend(entries.iter().map(|entry| number(&entry.key())));
            next = then;
        }
        keys.sort_unstable();
        keys
    }

    fn spread<V: Clone>(slots: &Slots<5, Values<V>>) -> bool {
        slots.many().is_some()
    }

    /// A hash of any shard.
    fn wide(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn few_keys_lie_in_one_shard_and_one_more_has_all_of_them_with_their_values_in_many() {
        let slots = Slots::<5, Values<u64>>::new();
        let hash_of = |key: &[u8]| wide(number(key));
        let keys: Vec<u64> = (0..=FEW as u64).collect();
        for &number in &keys {
            assert!(!spread(&slots));
            let mut locked = slots.lock(wide(number));
            let value = (number % 3 > 0).then_some(number);
            locked.insert(wide(number), &key(number), Pid(number), value, hash_of);
        }
        assert!(spread(&slots));
        assert_eq!(all(&slots), keys);
        assert!(slots.fill().filter(|(len, _)| *len > 0).count() > SHARDS / 2);
        for number in keys {
            let hash = wide(number);
            let found = slots.holder(&Guard::new(), hash, &Entry::of(&key(number)));
            assert_eq!(found, Some(Pid(number)));
            let mut locked = slots.lock(hash);
            let place = locked.find(hash, &key(number)).unwrap_or(usize::MAX);
            let (_, value) = locked.remove(hash, place, hash_of);
            assert_eq!(value, (number % 3 > 0).then_some(number));
        }
        assert_eq!(all(&slots), []);
    }

    #[test]
    fn two_writers_that_meet_have_few_keys_spread_and_none_is_lost_or_doubled() {
        // Miri takes a thousand times as long.
        let (rounds, new) = if cfg!(miri) { (2, 5) } else { (200, 100) };
        for round in 0..rounds {
            let slots = Slots::<5, Values<u64>>::new();
            insert(&slots, 0, None);
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for writer in 1..3 {
                    let (slots, start) = (&slots, &start);
                    scope.spawn(move || {
                        start.wait();
                        for number in writer * 1_000..writer * 1_000 + new {
                            insert(slots, number, Some(number));
                            assert_eq!(holder(slots, number), Some(Pid(number)));
                            assert_eq!(holder(slots, 0), Some(Pid(0)));
                            let seen = all(slots);
                            assert!(seen.contains(&number) && seen.contains(&0));
                            assert!(seen.is_sorted_by(|one, other| one < other), "each once");
                        }
                    });
                }
            });
            assert_eq!(all(&slots).len() as u64, 1 + 2 * new, "round {round}");
        }
    }

    #[test]
    fn a_writer_that_had_to_wait_spreads_the_keys_if_they_are_more_than_a_handful() {
        let slots = Slots::<5, Values<u64>>::new();
        let last = NEAR as u64;
        for new in 0..=last {
            assert!(!spread(&slots));
            let mut locked = slots.lock(hash(new));
            locked.crowded = true;
            let hash_of = |key: &[u8]| hash(number(key));
            locked.insert(hash(new), &key(new), Pid(new), Some(new), hash_of);
        }
        assert!(spread(&slots));
        for number in 0..=last {
            assert_eq!(remove(&slots, number), Some(number));
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written_whatever_its_length() {
        for len in 1..=room(12) {
            let bytes: Vec<u8> = (1..=200).take(len).collect();
            let entry = Entry::<12>::of(&bytes).held_by(Pid(u64::MAX), u32::MAX);
            assert_eq!(*entry.key(), bytes);
            assert_eq!(entry.pid(), Pid(u64::MAX));
            assert_eq!(entry.value(), u32::MAX);
        }
    }

    #[test]
    fn values_stay_with_their_keys_while_others_come_and_go() {
        let slots = Slots::<5, Values<u64>>::new();
        for number in 0..10_000 {
            insert(&slots, number, Some(number + 1));
            if number >= 100 {
                assert_eq!(remove(&slots, number - 100), Some(number - 99));
            }
        }
        for number in 9_900..10_000 {
            let locked = slots.lock(hash(number));
            let place = locked.find(hash(number), &key(number));
            let value = place.and_then(|place| locked.value(hash(number), place));
            assert_eq!(value, Some(number + 1));
        }
    }

    #[test]
    fn a_handful_of_keys_is_near_with_its_values_also_after_there_were_more() {
        let slots = Slots::<5, Values<u64>>::new();
        let near = || slots.lock(0).content.array.is_none();
        for number in 0..NEAR as u64 {
            insert(&slots, number, Some(number));
        }
        assert!(near());
        assert_eq!(all(&slots).len(), NEAR);
        for number in NEAR as u64..100 {
            insert(&slots, number, Some(number));
        }
        assert!(!near());
        for number in 3..100 {
            assert_eq!(remove(&slots, number), Some(number));
        }
        assert!(near());
        assert_eq!(all(&slots), [0, 1, 2]);
        assert_eq!(holder(&slots, 3), None);
        for number in 0..3 {
            assert_eq!(holder(&slots, number), Some(Pid(number)));
            assert_eq!(remove(&slots, number), Some(number));
        }
        assert_eq!(all(&slots), []);
    }

    #[test]
    fn whatever_there_is_goes_when_all_is_cleared_and_others_may_come() {
        for count in [1, NEAR as u64, 100, 2 * FEW as u64] {
            let slots = Slots::<5, Values<u64>>::new();
            for number in 0..count {
                insert(&slots, number, Some(number));
            }
            slots.clear();
            assert_eq!(all(&slots), []);
            assert_eq!(holder(&slots, 0), None);
            insert(&slots, 1, Some(7));
            assert_eq!(holder(&slots, 0), None);
            assert_eq!(holder(&slots, 1), Some(Pid(1)));
            assert_eq!(remove(&slots, 1), Some(7));
        }
    }

    #[test]
    fn slots_that_come_and_go_take_no_more_room() {
        let slots = Slots::<5, Values<u64>>::new();
        for number in 0..100 {
            insert(&slots, number, Some(0));
        }
        remove(&slots, 0);
        insert(&slots, 100, Some(0));
        let fresh = bytes(&slots);
        for number in 101..100_000 {
            remove(&slots, number - 100);
            insert(&slots, number, Some(0));
        }
        assert!(bytes(&slots) <= fresh);
    }

    #[test]
    fn a_table_that_was_larger_takes_hardly_more_than_one_that_was_not() {
        let filled = |count| {
            let slots = Slots::<5, Values<u64>>::new();
            for number in 0..count {
                insert(&slots, number, None);
            }
            slots
        };
        for (left, most) in [(300, 2.0), (500, 1.75), (3_000, 1.5), (7_000, 1.5)] {
            let fresh = bytes(&filled(left));
            let slots = filled(10_000);
            for number in left..10_000 {
                remove(&slots, number);
            }
            // The fewer the keys, the more `SLACK` matters.
            let more = bytes(&slots) as f64 / fresh as f64;
            assert!(more < most, "{left}: {more} times");
        }
    }

    #[test]
    fn an_entry_goes_to_the_free_place_that_is_nearest() {
        for place in 0..GROUP {
            for free in 0..1_u64 << GROUP {
                let bits = (0..GROUP).filter(|at| free >> at & 1 == 1);
                let bits = bits.fold(0, |bits, at| bits | u64::from(TAKEN) << (8 * at));
                let distance = |at: usize| at.abs_diff(place);
                let expected = places(bits).map(distance).min();
                assert_eq!(nearest(bits, place).map(distance), expected);
                assert!(nearest(bits, place).is_none_or(|at| free >> at & 1 == 1));
            }
        }
    }

    #[test]
    fn an_entry_of_twelve_words_lies_in_two_lines_of_the_cache() {
        for groups in [1, 3, 100] {
            let array = Array::<12>::new(groups);
            assert_eq!(array.groups().slots.len(), array.len());
            for slot in array.groups().slots {
                assert_eq!(slot.as_ptr().addr() % ALIGNMENT, 0);
            }
        }
        let slots = Slots::<12, Values<()>>::new();
        assert_eq!(slots.few.near.slots.as_ptr().addr() % ALIGNMENT, 0);
    }

    #[test]
    fn most_of_the_memory_goes_when_most_of_the_keys_have_gone_and_all_but_small_arrays_with_the_last()
     {
        let slots = Slots::<5, Values<u64>>::new();
        insert(&slots, 0, None);
        remove(&slots, 0);
        let empty = bytes(&slots);
        for number in 0..10_000 {
            insert(&slots, number, Some(0));
        }
        let full = bytes(&slots) - empty;
        for number in 1_000..10_000 {
            remove(&slots, number);
        }
        assert!(bytes(&slots) - empty < full / 4);
        for number in 0..1_000 {
            assert_eq!(holder(&slots, number), Some(Pid(number)));
            remove(&slots, number);
        }
        // As `KEPT` says.
        assert!(bytes(&slots) <= empty + SHARDS * 1_024);
    }

    #[test]
    fn a_panic_inside_a_change_does_not_turn_readers_away_for_good() {
        let slots = Slots::<5, Values<u64>>::new();
        insert(&slots, 1, None);
        let changed = catch_unwind(AssertUnwindSafe(|| {
            let locked = slots.lock(hash(1));
            locked.shard.head.change(|| panic!("on purpose"));
        }));
        assert!(changed.is_err());
        let shard = slots.shard(hash(1));
        assert_eq!(shard.head.changes.load(Ordering::Relaxed) % 2, 0);
        // No reader needs the mutex.
        let _locked = slots.lock(hash(1));
        assert_eq!(holder(&slots, 1), Some(Pid(1)));
    }

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_was_replaced_last_is_freed_when_its_last_reader_has_gone_and_all_threads_are_idle() {
        let alive = Arc::new(AtomicUsize::new(0));
        let current = Current::none();
        let replace = || {
            alive.fetch_add(1, Ordering::SeqCst);
            drop(current.replace(Some(Shared::new(Counted(Arc::clone(&alive))))));
        };
        // Threads that have read and stay alive.
        let (stay, told) = std::sync::mpsc::channel::<()>();
        let (read, all_read) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (alive, current) = (&alive, &current);
            replace();
            scope.spawn(move || {
                let guard = Guard::new();
                assert!(current.get(&guard).is_some());
                guard.end();
                let _ = read.send(());
                let _ = told.recv();
            });
            let _ = all_read.recv();
            let own = Guard::new();
            replace();
            replace();
            assert_eq!(alive.load(Ordering::SeqCst), 3, "a guard is in the way");
            own.end();
            // Another test may have a guard at this moment.
            for _ in 0..1_000 {
                if alive.load(Ordering::SeqCst) == 1 {
                    break;
                }
                Guard::new().end();
                std::thread::yield_now();
            }
            assert_eq!(alive.load(Ordering::SeqCst), 1);
            drop(stay);
        });
    }
}

/// What threads may see of each other, in all orders that the memory model allows: `script/loom`.
///
/// What fails when a rule is broken; each row was tried by breaking it:
///
/// | broken | fails |
/// |---|---|
/// | no Release fence in `change`, no Acquire fence in `read` | all but `one_of_two_…` and `…_comes_back_to_the_near_slots` |
/// | the even count stored Relaxed, odd counts read, a count that is never odd, `insert` without `change` | `no_key_is_answered_…`, `a_key_is_there_…`, `…_array_is_replaced_…`, `…_near_slots_become_too_few` |
/// | the first look at the count Relaxed, no second look, a count that goes back after a change | `no_key_is_answered_…`, `a_key_is_there_…` |
/// | no mutex after the tries | `a_name_…`, `…_near_slots_become_too_few`, `…_comes_back_to_the_near_slots` |
/// | the pointer to the array loaded Relaxed, in the model of `Current` | `…_array_is_replaced_…`, `…_near_slots_become_too_few` |
/// | the near slots written after the array has gone, or not cleared before | `…_comes_back_to_the_near_slots` |
/// | an array published before it is filled | `…_array_is_replaced_…` |
/// | near slots that stay filled when all is cleared | `a_key_is_there_…` |
/// | `hold` without `change` | `a_name_…` |
/// | `remove` without `change` | `changes_…` |
/// | `MOVED` read Relaxed, or stored after the array has gone | `no_key_is_missed_…` |
/// | `MOVED` stored before the keys are moved, or before the next shard is locked; no second look in `lock` | `one_of_two_…` |
///
/// In all but `…_array_is_replaced_…` the reader is the thread that is spawned: with the writer spawned,
/// loom misses the orders that matter.
#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread::spawn;

    type Keys = Slots<2, Values<()>>;

    /// Runs `model` in every order of its threads with at most this many interruptions.
    fn explore(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(interruptions);
        builder.check(model);
    }

    /// The upper half of a hash says how far along the array to look for the key.
    fn hash(key: u8) -> u64 {
        // The lower half of the keys goes into the first group of two, the upper half into the last.
        u64::from(key) << 56
    }

    fn insert(keys: &Keys, key: u8, pid: u64) {
        let mut locked = keys.lock(hash(key));
        locked.insert(hash(key), &[key], Pid(pid), None, |key| hash(key[0]));
    }

    fn remove(keys: &Keys, key: u8) {
        let mut locked = keys.lock(hash(key));
        let place = locked.find(hash(key), &[key]).unwrap();
        locked.remove(hash(key), place, |key| hash(key[0]));
    }

    fn holder(keys: &Keys, key: u8) -> Option<u64> {
        let entry = Entry::of(&[key]);
        let holder = keys.holder(&Guard::new(), hash(key), &entry);
        holder.map(|pid| pid.0)
    }

    fn with(keys: &[u8]) -> Arc<Keys> {
        let slots = Arc::new(Keys::new());
        for key in keys {
            insert(&slots, *key, u64::from(*key));
        }
        slots
    }

    /// A key and the holder that is answered belong together, also when another key takes the slot
    /// meanwhile.
    #[test]
    fn no_key_is_answered_with_the_holder_of_another() {
        explore(3, || {
            let keys = with(&[1, 9]);
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || assert!(matches!(holder(&keys, 1), None | Some(1)))
            });
            remove(&keys, 1);
            // It takes the slot that is free now: both hashes lead there.
            insert(&keys, 2, 2);
            reader.join().unwrap();
            assert_eq!(holder(&keys, 1), None);
            assert_eq!(holder(&keys, 2), Some(2));
        });
    }

    fn give(keys: &Keys, key: u8, pid: u64) {
        let mut locked = keys.lock(hash(key));
        let place = locked.find(hash(key), &[key]).unwrap();
        locked.hold(hash(key), place, Pid(pid), None);
    }

    /// A holder that is replaced is answered until then, and the other from then on; there is always one.
    /// A reader that has seen one name change hands sees the same of the names changed before.
    #[test]
    fn a_name_that_changes_hands_has_a_holder_at_all_times() {
        explore(3, || {
            let keys = with(&[1, 9]);
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || {
                    let later = holder(&keys, 9);
                    assert!(matches!(later, Some(9 | 7)));
                    let earlier = holder(&keys, 1);
                    assert!(matches!(earlier, Some(1 | 7)));
                    assert!(later == Some(9) || earlier == Some(7));
                }
            });
            give(&keys, 1, 7);
            give(&keys, 9, 7);
            reader.join().unwrap();
            assert_eq!(holder(&keys, 1), Some(7));
            assert_eq!(holder(&keys, 9), Some(7));
        });
    }

    /// A reader that misses a key that was removed misses those removed before it, in whatever
    /// group of the array they were.
    #[test]
    fn changes_are_seen_in_their_order() {
        explore(2, || {
            let keys = with(&[1, 2, 3, 4, 201, 202, 203]);
            assert_eq!(keys.lock(0).groups().unwrap().tags.len(), 2);
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || {
                    if holder(&keys, 201).is_none() {
                        assert_eq!(holder(&keys, 1), None);
                    }
                }
            });
            remove(&keys, 1);
            remove(&keys, 201);
            reader.join().unwrap();
        });
    }

    /// Growth moves every key to another array; none is missed and none is lost.
    #[test]
    fn a_key_is_found_while_the_array_is_replaced_by_a_larger_one() {
        explore(2, || {
            let keys = with(&[1, 2, 3, 4, 5, 201]);
            let groups = |keys: &Keys| {
                let locked = keys.lock(0);
                locked.groups().unwrap().tags.len()
            };
            assert_eq!(groups(&keys), 1);
            let writer = spawn({
                let keys = Arc::clone(&keys);
                move || insert(&keys, 202, 202)
            });
            assert_eq!(holder(&keys, 201), Some(201));
            if holder(&keys, 202).is_some() {
                assert_eq!(holder(&keys, 202), Some(202));
                assert_eq!(holder(&keys, 1), Some(1));
            }
            writer.join().unwrap();
            assert_eq!(groups(&keys), 2);
            assert_eq!(holder(&keys, 202), Some(202));
        });
    }

    /// All keys go at once, from the near slots or from an array, and another key comes.
    #[test]
    fn a_key_is_there_or_not_while_all_go_and_another_comes() {
        for keys in [&[1][..], &[1, 11, 12, 13]] {
            explore(3, move || {
                let keys = with(keys);
                let reader = spawn({
                    let keys = Arc::clone(&keys);
                    move || {
                        let two = holder(&keys, 2);
                        assert!(matches!(two, None | Some(2)));
                        let one = holder(&keys, 1);
                        assert!(matches!(one, None | Some(1)));
                        if two.is_some() {
                            assert_eq!(one, None);
                        }
                    }
                });
                keys.clear();
                insert(&keys, 2, 2);
                reader.join().unwrap();
                assert_eq!(holder(&keys, 1), None);
                assert_eq!(holder(&keys, 2), Some(2));
            });
        }
    }

    fn is_near(keys: &Keys) -> bool {
        keys.lock(0).content.array.is_none()
    }

    /// The keys leave the near slots for an array; none is missed and none is lost.
    #[test]
    fn a_key_is_found_while_the_near_slots_become_too_few() {
        explore(2, || {
            let keys = with(&[1, 9, 17]);
            assert!(is_near(&keys));
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || {
                    let new = holder(&keys, 2);
                    assert_eq!(holder(&keys, 1), Some(1));
                    assert!(new.is_none() || holder(&keys, 2) == Some(2));
                }
            });
            insert(&keys, 2, 2);
            assert!(!is_near(&keys));
            reader.join().unwrap();
            assert_eq!(holder(&keys, 17), Some(17));
        });
    }

    /// When most keys have gone, those that are left come back to the near slots, which still have what
    /// was there before.
    #[test]
    fn a_key_is_found_while_it_comes_back_to_the_near_slots() {
        explore(2, || {
            let keys = with(&[1, 9, 17, 2]);
            remove(&keys, 1);
            remove(&keys, 9);
            assert!(!is_near(&keys));
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || {
                    assert_eq!(holder(&keys, 2), Some(2));
                    assert!(matches!(holder(&keys, 17), None | Some(17)));
                    assert_eq!(holder(&keys, 1), None);
                }
            });
            remove(&keys, 17);
            assert!(is_near(&keys));
            reader.join().unwrap();
            assert_eq!(holder(&keys, 2), Some(2));
            assert_eq!(holder(&keys, 17), None);
        });
    }

    /// One key more than fits into one shard moves all of them to others; none is missed and none is
    /// lost, and a reader that has seen a change there sees the keys there.
    #[test]
    fn no_key_is_missed_while_all_are_moved_from_one_shard_to_many() {
        explore(2, || {
            let keys = with(&[1, 2, 3, 4, 5, 201, 202, 203]);
            let reader = spawn({
                let keys = Arc::clone(&keys);
                move || {
                    let new = holder(&keys, 204);
                    let replaced = holder(&keys, 1);
                    assert!(matches!(replaced, Some(1 | 7)));
                    assert!(new.is_none() || replaced == Some(7));
                    // This key is moved last.
                    assert_eq!(holder(&keys, 203), Some(203));
                }
            });
            let locked = |key| {
                let locked = keys.lock(hash(key));
                let place = locked.find(hash(key), &[key]).unwrap();
                (locked, place)
            };
            insert(&keys, 203 + 2, 205);
            assert!(keys.many().is_some());
            let (mut first, place) = locked(1);
            first.hold(hash(1), place, Pid(7), None);
            drop(first);
            insert(&keys, 204, 204);
            reader.join().unwrap();
        });
    }

    /// Of two threads that want one key while all keys are moved, one gets it: nothing comes between what
    /// that thread has found and what it puts in.
    #[test]
    fn one_of_two_gets_a_key_while_all_are_moved_from_one_shard_to_many() {
        explore(2, || {
            let keys = with(&[1, 2, 3, 4, 5, 201, 202, 203]);
            let claim = |keys: &Keys, pid| {
                let mut locked = keys.lock(hash(6));
                let free = locked.find(hash(6), &[6]).is_none();
                if free {
                    locked.insert(hash(6), &[6], Pid(pid), None, |key| hash(key[0]));
                }
                free
            };
            let other = spawn({
                let keys = Arc::clone(&keys);
                move || claim(&keys, 7)
            });
            let first = claim(&keys, 8);
            assert_ne!(other.join().unwrap(), first);
            assert_eq!(holder(&keys, 6), Some(if first { 8 } else { 7 }));
            for key in [1, 2, 3, 4, 5, 201, 202, 203] {
                assert_eq!(holder(&keys, key), Some(u64::from(key)));
            }
        });
    }
}
