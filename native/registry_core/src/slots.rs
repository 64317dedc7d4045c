//! Slots of keys and their holders, which are read without a lock.
//!
//! DashMap was here, and has a lock for readers too. That is a line of memory which their processors
//! pass to and fro, and a barrier behind which the next lookup waits. Without it, among 1,000 names
//! and with the VM's part included, a lookup takes 74 ns for 83, two readers of different names 79
//! for 105, and two of one name 73 for 122. Nor can it be had look at a slot before the tag is there,
//! which with 100,000 names saves a tenth of a lookup. Hence this:
//!
//! - Keys lie inside the slots, eight slots to a group. A word beside the slots has a tag of each
//!   slot of a group, seven bits of its hash, so that next to never a slot is looked at in vain.
//!   The slot where a key most likely is comes from memory at the same time as its tag. A name that
//!   nobody holds pays for that: its lookup takes twice as long as without, with many names.
//! - Whoever changes slots holds their shard's mutex and makes a count odd meanwhile. Who reads
//!   compares the count before with that after and, when they differ, reads again. Slots are
//!   atomics, so what is read in between is of no use, but no harm either.
//! - Arrays of slots are replaced when they grow. Readers keep those they know, see [`Seen`], so
//!   nobody has to find out when an old one may be freed.

use crate::Pid;
use std::array;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shards. More make a collision of two writers rarer and a shard's growth, during which others
/// cannot write there, shorter: 8,000 slots of a million names, half a millisecond. Each costs 64
/// bytes whether used or not.
pub(crate) const SHARDS: usize = 128;

/// Who holds a key, and with what value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: Pid,
    pub(crate) value: u32,
}

impl Holder {
    /// By the first and the last word of an entry.
    #[inline]
    fn of(first: u64, last: u64) -> Self {
        Self {
            pid: Pid(first),
            // The upper half of the word.
            #[allow(clippy::cast_possible_truncation)]
            value: (last >> VALUE_SHIFT) as u32,
        }
    }
}

/// What is in a slot: the pid, then the bytes of the key. The last word has three bytes of the key,
/// its length and the value.
#[derive(Clone, Copy)]
pub(crate) struct Entry<const W: usize>([u64; W]);

const LENGTH_SHIFT: u32 = 24;
const VALUE_SHIFT: u32 = 32;
/// The part of the last word that belongs to the key.
const KEY: u64 = (1 << VALUE_SHIFT) - 1;

/// The longest key of entries of `words` words.
pub(crate) const fn room(words: usize) -> usize {
    (words - 1) * 8 - 5
}

/// A key, out of its words.
pub(crate) struct Key {
    bytes: [u8; 88],
    len: usize,
}

impl Key {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const W: usize> Entry<W> {
    /// An entry without a holder. The key is not empty, and no longer than [`room`].
    #[inline]
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut words = [0; W];
        let (whole, rest) = key.as_chunks::<8>();
        // By place, or it becomes a call to copy memory.
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

    pub(crate) fn holder(&self) -> Holder {
        Holder::of(self.0[0], self.0[W - 1])
    }

    fn held_by(mut self, holder: Holder) -> Self {
        self.0[0] = holder.pid.0;
        self.0[W - 1] = self.0[W - 1] & KEY | u64::from(holder.value) << VALUE_SHIFT;
        self
    }

    pub(crate) fn key(&self) -> Key {
        let mut bytes = [0; 88];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0[1..]) {
            *bytes = word.to_le_bytes();
        }
        let len = (self.0[W - 1] & KEY) >> LENGTH_SHIFT;
        // What is read while it is changed may be anything.
        let len = usize::try_from(len).unwrap_or(0).min(room(W));
        Key { bytes, len }
    }
}

/// Room for an entry.
struct Slot<const W: usize>([AtomicU64; W]);

impl<const W: usize> Slot<W> {
    fn new() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    fn get(&self) -> Entry<W> {
        Entry(array::from_fn(|at| self.word(at)))
    }

    #[inline]
    fn holder(&self) -> Holder {
        Holder::of(self.word(0), self.word(W - 1))
    }

    fn set(&self, entry: &Entry<W>) {
        for (word, value) in self.0.iter().zip(entry.0) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Whether the key is that of the entry. Without a branch for each word.
    #[inline]
    fn has_key_of(&self, entry: &Entry<W>) -> bool {
        let last = (self.word(W - 1) ^ entry.0[W - 1]) & KEY;
        (1..W - 1).fold(last, |difference, at| {
            difference | self.word(at) ^ entry.0[at]
        }) == 0
    }
}

/// Slots in a group: as many as a word has bytes.
const GROUP: usize = 8;

/// A word with the same byte at each place.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; GROUP])
}

/// The tag of a slot that has an entry has its highest bit set.
const TAKEN: u8 = 0x80;
/// Of one that has none any more, in a group that was full: entries that found no place there have
/// gone to the next.
const FREED: u8 = 1;
/// Of one that has none.
const EMPTY: u8 = 0;

/// Where a key is sought.
struct Home {
    /// The group that is looked at first.
    group: usize,
    /// Its slot that is taken if it is free.
    place: usize,
    tag: u8,
}

/// Where a key of this hash is sought. Bits of the hash below the upper 38 do not matter.
#[inline]
fn home(groups: usize, hash: u64) -> Home {
    let fraction = (hash << SHARDS.trailing_zeros()) >> 32;
    let home = fraction.wrapping_mul(groups as u64);
    // The group is below their number, which is below 2^32; the rest says where in the group.
    #[allow(clippy::cast_possible_truncation)]
    Home {
        group: (home >> 32) as usize,
        place: (home >> 29) as usize % GROUP,
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

/// Sets the highest bit of each byte that is zero, and perhaps of some above one that is.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(all(1)) & !word & all(TAKEN)
}

#[derive(Clone)]
struct Array<const W: usize> {
    /// A word for each group, a byte for each slot of it.
    tags: Arc<[AtomicU64]>,
    slots: Arc<[Slot<W>]>,
}

impl<const W: usize> Array<W> {
    fn new(groups: usize) -> Self {
        Self {
            tags: (0..groups).map(|_| AtomicU64::new(all(EMPTY))).collect(),
            slots: (0..groups * GROUP).map(|_| Slot::new()).collect(),
        }
    }

    #[inline]
    fn find(&self, hash: u64, mut is: impl FnMut(&Slot<W>) -> bool) -> Option<usize> {
        if self.tags.is_empty() {
            return None;
        }
        let Home {
            mut group,
            place,
            tag,
        } = home(self.tags.len(), hash);
        self.fetch(group * GROUP + place);
        // There is always an empty slot, but not for who reads while they are changed.
        for _ in 0..self.tags.len() {
            let tags = self.tags[group].load(Ordering::Relaxed);
            for place in places(zeros(tags ^ all(tag))) {
                let at = group * GROUP + place;
                if is(&self.slots[at]) {
                    return Some(at);
                }
            }
            if zeros(tags) != 0 {
                return None;
            }
            group = self.after(group);
        }
        None
    }

    /// Has the slot where a key most likely is come from memory while its tag is looked at. What is
    /// loaded here nobody waits for.
    #[inline]
    fn fetch(&self, at: usize) {
        let slot = &self.slots[at];
        black_box(slot.word(0));
        black_box(slot.word(W - 1));
    }

    #[inline]
    fn after(&self, group: usize) -> usize {
        if group + 1 == self.tags.len() {
            0
        } else {
            group + 1
        }
    }

    fn tag(&self, at: usize, tag: u8) {
        let word = &self.tags[at / GROUP];
        let mut tags = word.load(Ordering::Relaxed).to_le_bytes();
        tags[at % GROUP] = tag;
        word.store(u64::from_le_bytes(tags), Ordering::Relaxed);
    }

    /// Writes an entry into a free slot; answers whether that was empty.
    fn put(&self, hash: u64, entry: &Entry<W>) -> bool {
        let Home {
            mut group,
            place,
            tag,
        } = home(self.tags.len(), hash);
        loop {
            let tags = self.tags[group].load(Ordering::Relaxed);
            let free = !tags & all(TAKEN);
            // The one at `place` comes first.
            let preferred = free & (u64::from(TAKEN) << (8 * place));
            if let Some(place) = places(preferred).chain(places(free)).next() {
                let at = group * GROUP + place;
                self.slots[at].set(entry);
                self.tag(at, tag);
                return tags.to_le_bytes()[place] == EMPTY;
            }
            group = self.after(group);
        }
    }

    fn remove(&self, at: usize) -> u8 {
        let tags = self.tags[at / GROUP].load(Ordering::Relaxed);
        let tag = if zeros(tags) == 0 { FREED } else { EMPTY };
        self.tag(at, tag);
        tag
    }

    /// All entries.
    fn entries(&self) -> impl Iterator<Item = Entry<W>> {
        let groups = self.tags.iter().zip(self.slots.as_chunks::<GROUP>().0);
        groups.flat_map(|(tags, slots)| {
            let taken = tags.load(Ordering::Relaxed) & all(TAKEN);
            places(taken).map(|place| slots[place].get())
        })
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.tags) + size_of_val(&*self.slots)
    }
}

/// The slots of one shard.
#[repr(align(64))]
struct Shard<const W: usize> {
    /// Odd while slots are being changed.
    changes: AtomicU64,
    /// Which array there is: no two arrays of this process have one number.
    number: AtomicU64,
    content: Mutex<Content<W>>,
}

struct Content<const W: usize> {
    array: Array<W>,
    len: usize,
    /// How many slots have become taken or freed, of those that were empty.
    used: usize,
}

impl<const W: usize> Content<W> {
    fn empty() -> Self {
        Self {
            array: Array::new(0),
            len: 0,
            used: 0,
        }
    }
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl<const W: usize> Shard<W> {
    fn lock(&self) -> Locked<'_, W> {
        Locked {
            shard: self,
            content: self.content.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn replace(&self, content: &mut Content<W>, by: Content<W>) -> Content<W> {
        self.change(|| {
            let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
            self.number.store(number, Ordering::Relaxed);
            std::mem::replace(content, by)
        })
    }

    /// Only with the mutex held.
    fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Relaxed);
        // Who sees anything of the change sees the odd count, too: with the fence in `holder`.
        fence(Ordering::Release);
        let result = change();
        // Who sees this count sees all of the change.
        self.changes.store(changes + 2, Ordering::Release);
        result
    }
}

/// The arrays that a reader has seen last, which spare it a lock. It holds on to them until it reads
/// again where they have been replaced: mostly for a moment, but a reader that never comes back
/// keeps an array of each shard.
pub(crate) struct Seen<const W: usize>([(u64, Array<W>); SHARDS]);

impl<const W: usize> Seen<W> {
    pub(crate) fn new() -> Self {
        let none = Array::new(0);
        Self(array::from_fn(|_| (0, none.clone())))
    }
}

/// Keys of up to [`room`]`(W)` bytes.
pub(crate) struct Slots<const W: usize>(Box<[Shard<W>]>);

/// How often a reader tries before it waits for whoever writes.
const TRIES: usize = 8;

impl<const W: usize> Slots<W> {
    pub(crate) fn new() -> Self {
        let shard = || Shard {
            changes: AtomicU64::new(0),
            number: AtomicU64::new(0),
            content: Mutex::new(Content::empty()),
        };
        Self((0..SHARDS).map(|_| shard()).collect())
    }

    /// Who holds the key of `entry`.
    #[inline]
    pub(crate) fn holder(&self, seen: &mut Seen<W>, hash: u64, entry: &Entry<W>) -> Option<Holder> {
        let shard = &self.0[shard_of(hash)];
        let (number, array) = &mut seen.0[shard_of(hash)];
        for _ in 0..TRIES {
            // All of the changes before this count are seen.
            let before = shard.changes.load(Ordering::Acquire);
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            if shard.number.load(Ordering::Relaxed) != *number {
                let locked = shard.lock();
                *number = shard.number.load(Ordering::Relaxed);
                *array = locked.content.array.clone();
            }
            let found = array.find(hash, |slot| slot.has_key_of(entry));
            let holder = found.map(|at| array.slots[at].holder());
            // The second look at the count comes after all that was read: with the fence in `change`.
            fence(Ordering::Acquire);
            if shard.changes.load(Ordering::Relaxed) == before {
                return holder;
            }
        }
        let locked = shard.lock();
        let place = locked.place_of(hash, entry)?;
        Some(locked.entry(place).holder())
    }

    pub(crate) fn lock(&self, hash: u64) -> Locked<'_, W> {
        self.0[shard_of(hash)].lock()
    }

    /// All entries of a shard.
    pub(crate) fn entries(&self, shard: usize) -> Vec<Entry<W>> {
        let locked = self.0[shard].lock();
        let mut entries = Vec::with_capacity(locked.content.len);
        entries.extend(locked.content.array.entries());
        entries
    }

    /// Of each shard, how many keys there are, and its bytes of memory.
    pub(crate) fn fill(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().map(|shard| {
            let content = &shard.lock().content;
            (content.len, size_of_val(shard) + content.array.bytes())
        })
    }

    /// Forgets all keys.
    pub(crate) fn clear(&self) {
        for shard in &self.0 {
            let mut locked = shard.lock();
            let old = shard.replace(&mut locked.content, Content::empty());
            drop(locked);
            // After the lock is gone: freeing takes a while.
            drop(old);
        }
    }
}

#[inline]
fn shard_of(hash: u64) -> usize {
    // As many bits as there are numbers of shards.
    #[allow(clippy::cast_possible_truncation)]
    let shard = (hash >> (u64::BITS - SHARDS.trailing_zeros())) as usize;
    shard
}

/// A shard in which nobody else writes.
pub(crate) struct Locked<'a, const W: usize> {
    shard: &'a Shard<W>,
    content: MutexGuard<'a, Content<W>>,
}

impl<const W: usize> Locked<'_, W> {
    /// The place of the key of `entry`.
    pub(crate) fn place_of(&self, hash: u64, entry: &Entry<W>) -> Option<usize> {
        self.content.array.find(hash, |slot| slot.has_key_of(entry))
    }

    /// The first place where `is` the entry, among those that may have this hash.
    pub(crate) fn place(&self, hash: u64, mut is: impl FnMut(&Entry<W>) -> bool) -> Option<usize> {
        self.content.array.find(hash, |slot| is(&slot.get()))
    }

    /// What is at a place.
    pub(crate) fn entry(&self, place: usize) -> Entry<W> {
        self.content.array.slots[place].get()
    }

    /// Changes who holds what is at a place.
    pub(crate) fn hold(&mut self, place: usize, holder: Holder) {
        let slot = &self.content.array.slots[place];
        let entry = slot.get().held_by(holder);
        self.shard.change(|| slot.set(&entry));
    }

    /// Puts in a key that is not there. `hash_of`: the hash of an entry's key.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        entry: Entry<W>,
        holder: Holder,
        hash_of: impl Fn(&Entry<W>) -> u64,
    ) {
        let content = &mut *self.content;
        let slots = content.array.slots.len();
        // At most three of four are not empty.
        if (content.used + 1) * 4 > slots * 3 {
            // Twice as many as there are keys: no more than before when freed ones fill it.
            let array = Array::new(((content.len + 1) * 2).div_ceil(GROUP));
            for entry in content.array.entries() {
                array.put(hash_of(&entry), &entry);
            }
            let (len, used) = (content.len, content.len);
            self.shard.replace(content, Content { array, len, used });
        }
        content.len += 1;
        let was_empty = self
            .shard
            .change(|| content.array.put(hash, &entry.held_by(holder)));
        content.used += usize::from(was_empty);
    }

    /// Takes out what is at a place.
    pub(crate) fn remove(&mut self, place: usize) {
        let content = &mut *self.content;
        content.len -= 1;
        if self.shard.change(|| content.array.remove(place)) == EMPTY {
            content.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_hash_are_found_whichever_of_them_have_gone() {
        let slots = Slots::<5>::new();
        let mut seen = Seen::new();
        let entry = |number: u64| Entry::of(&number.to_le_bytes());
        let holder = |number| Holder {
            pid: Pid(number),
            value: 7,
        };
        let mut held = Vec::new();
        for number in 0..1_000 {
            slots
                .lock(0)
                .insert(0, entry(number), holder(number), |_| 0);
            held.push(number);
            if number % 3 == 0 {
                let gone = held.swap_remove(usize::try_from(number * 7).unwrap_or(0) % held.len());
                let mut locked = slots.lock(0);
                let place = locked.place_of(0, &entry(gone));
                locked.remove(place.unwrap_or(usize::MAX));
                drop(locked);
                assert_eq!(slots.holder(&mut seen, 0, &entry(gone)), None);
            }
            for &number in &held {
                let found = slots.holder(&mut seen, 0, &entry(number));
                assert_eq!(found, Some(holder(number)));
            }
        }
        let mut keys: Vec<_> = slots
            .entries(0)
            .iter()
            .map(|entry| entry.key().bytes().to_vec())
            .collect();
        keys.sort();
        let mut expected: Vec<_> = held
            .iter()
            .map(|number| number.to_le_bytes().to_vec())
            .collect();
        expected.sort();
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_key_is_read_as_it_was_written_whatever_its_length() {
        for len in 1..=room(12) {
            let bytes: Vec<u8> = (1..=200).take(len).collect();
            let entry = Entry::<12>::of(&bytes).held_by(Holder {
                pid: Pid(u64::MAX),
                value: u32::MAX,
            });
            assert_eq!(entry.key().bytes(), bytes);
            assert_eq!(entry.holder().value, u32::MAX);
        }
    }

    #[test]
    fn slots_that_come_and_go_take_no_more_room() {
        let slots = Slots::<5>::new();
        let entry = |number: u64| Entry::of(&number.to_le_bytes());
        let bytes = || slots.fill().map(|(_, bytes)| bytes).sum::<usize>();
        let holder = Holder {
            pid: Pid(1),
            value: 0,
        };
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 6;
        let hash_of = |entry: &Entry<5>| {
            hash(u64::from_le_bytes(
                entry.key().bytes().try_into().unwrap_or_default(),
            ))
        };
        let mut most = 0;
        for number in 0..100_000 {
            slots
                .lock(0)
                .insert(hash(number), entry(number), holder, hash_of);
            if number >= 100 {
                let gone = number - 100;
                let mut locked = slots.lock(0);
                let place = locked.place_of(hash(gone), &entry(gone));
                locked.remove(place.unwrap_or(usize::MAX));
            }
            if number == 1_000 {
                most = bytes() * 2;
            }
        }
        assert!(bytes() <= most);
    }
}
