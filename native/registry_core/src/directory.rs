//! What is open, by the number of its name. Looked up without a lock.
//!
//! A bucket has the entries whose numbers share some bits, and a place has one entry, if there is room for
//! it. A lookup reads the places first, because a place has the pointer to the entry itself, and a bucket
//! that to a list of such pointers. With a thousand entries in turn, the processor's caches hold little
//! of each, and each pointer is a wait.
//!
//! The number and the pointer of a place are two words, which cannot be read at once. A writer makes a
//! count odd while it changes a place. A reader that finds the count odd, or changed when it has read,
//! reads the bucket instead. So no reader waits for a writer.

use crate::epoch::{Current, Guard, Shared};
use crate::sync::{AtomicU64, Ordering, fence};

/// Buckets: eight kilobytes.
const BUCKETS: usize = if cfg!(loom) { 1 } else { 1_024 };

/// Lines of the cache with places: 64 kilobytes. Most systems have fewer registries than places, and the
/// atoms of many registries are mostly made one after the other, so that they fill whole lines.
const LINES: usize = if cfg!(loom) { 1 } else { 1_024 };
/// Places that share a line. An entry may lie in any of them.
const PLACES: usize = if cfg!(loom) { 1 } else { 4 };

/// Numbers of names, and what each leads to.
pub struct Directory<T: 'static> {
    /// Odd while places are being changed.
    changes: AtomicU64,
    places: [Line<T>; LINES],
    /// All entries.
    buckets: [Current<Bucket<T>>; BUCKETS],
}

#[repr(align(64))]
struct Line<T: 'static>([Place<T>; PLACES]);

struct Place<T: 'static> {
    /// That of the entry, or of one that was here.
    number: AtomicU64,
    it: Current<T>,
}

/// Entries of a bucket: replaced as a whole, never changed.
struct Bucket<T: 'static>(Vec<(u64, Shared<T>)>);

impl<T: 'static> Place<T> {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
            it: Current::none(),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
            it: Current::none(),
        }
    }
}

impl<T: 'static> Directory<T> {
    /// A directory of nothing.
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::new_without_default, clippy::large_stack_arrays)] // It is to be a static.
    pub const fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            places: [const { Line([const { Place::new() }; PLACES]) }; LINES],
            buckets: [const { Current::none() }; BUCKETS],
        }
    }

    /// A directory of nothing. Loom's atomics cannot be made at compile time.
    #[cfg(loom)]
    pub fn new() -> Self {
        use std::array::from_fn;
        Self {
            changes: AtomicU64::new(0),
            places: from_fn(|_| Line(from_fn(|_| Place::new()))),
            buckets: from_fn(|_| Current::none()),
        }
    }

    // The number of an atom counts up in its upper bits.
    #[allow(clippy::cast_possible_truncation)]
    fn bucket(&self, number: u64) -> &Current<Bucket<T>> {
        &self.buckets[(number >> 6) as usize % BUCKETS]
    }

    /// Where the entry of this number lies if that place is free, and all places where it may lie.
    #[allow(clippy::cast_possible_truncation)]
    #[inline]
    fn places(&self, number: u64) -> (&Place<T>, &[Place<T>]) {
        let first = (number >> 6) as usize;
        let Line(places) = &self.places[first / PLACES % LINES];
        (&places[first % PLACES], places)
    }

    /// The place that has this number. It may have lost its entry; then no other place has that.
    #[inline]
    fn place(&self, number: u64) -> Option<&Place<T>> {
        let is = |place: &&Place<T>| place.number.load(Ordering::Relaxed) == number;
        let (first, all) = self.places(number);
        if is(&first) {
            return Some(first);
        }
        all.iter().find(is)
    }

    /// The place for an entry of this number. It comes before any other that had this number.
    fn free_place(&self, number: u64) -> Option<&Place<T>> {
        let guard = Guard::new();
        let (first, all) = self.places(number);
        let mut places = std::iter::once(first).chain(all);
        places.find(|place| place.it.get(&guard).is_none())
    }

    /// What the number leads to.
    #[inline]
    pub fn find<'g>(&self, guard: &'g Guard, number: u64) -> Option<&'g T> {
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(place) = self.place(number)
            && let Some(it) = place.it.get(guard)
        {
            // After all other reads: this fence pairs with that in `change`.
            fence(Ordering::Acquire);
            // Neither odd, before or now, nor changed.
            if self.changes.load(Ordering::Relaxed) == changes & !1 {
                return Some(it);
            }
        }
        self.find_shared(guard, number).map(|it| &**it)
    }

    /// As [`Self::find`], to be kept for longer than the guard.
    #[cold]
    pub fn find_shared<'g>(&self, guard: &'g Guard, number: u64) -> Option<&'g Shared<T>> {
        let Bucket(all) = self.bucket(number).get(guard)?;
        let found = all.iter().find(|(other, _)| *other == number);
        found.map(|(_, it)| it)
    }

    /// All entries. No other thread may change the directory meanwhile.
    #[must_use]
    pub fn all(&self) -> Vec<Shared<T>> {
        let guard = Guard::new();
        let buckets = self.buckets.iter().filter_map(|bucket| bucket.get(&guard));
        buckets
            .flat_map(|Bucket(all)| all.iter().map(|(_, it)| it.clone()))
            .collect()
    }

    /// Adds a number that leads to nothing yet. One thread at a time may change a directory.
    pub fn insert(&self, number: u64, it: Shared<T>) {
        self.change_bucket(number, |all| all.push((number, it.clone())));
        if let Some(place) = self.free_place(number) {
            self.change(|| {
                place.number.store(number, Ordering::Relaxed);
                drop(place.it.replace(Some(it)));
            });
        }
    }

    /// Takes out what the number leads to. One thread at a time may change a directory.
    pub fn remove(&self, number: u64) -> Option<Shared<T>> {
        let place = self.place(number);
        // Before the bucket: what is in a place is also in a bucket, so what a thread has once missed it
        // does not find again.
        let mut taken = None;
        if let Some(place) = place {
            self.change(|| taken = place.it.replace(None));
        }
        drop(taken);
        let mut removed = None;
        self.change_bucket(number, |all| {
            let at = all.iter().position(|(other, _)| *other == number);
            removed = at.map(|at| all.swap_remove(at).1);
        });
        removed
    }

    /// Takes all entries out. One thread at a time may change a directory.
    pub fn clear(&self) {
        // In the order of `remove`.
        for Line(places) in &self.places {
            for place in places {
                let mut taken = None;
                self.change(|| taken = place.it.replace(None));
                drop(taken);
            }
        }
        for bucket in &self.buckets {
            drop(bucket.replace(None));
        }
    }

    fn change_bucket(&self, number: u64, change: impl FnOnce(&mut Vec<(u64, Shared<T>)>)) {
        let guard = Guard::new();
        let bucket = self.bucket(number);
        let mut all = bucket.get(&guard).map_or_else(Vec::new, |it| it.0.clone());
        change(&mut all);
        let changed = (!all.is_empty()).then(|| Shared::new(Bucket(all)));
        drop(bucket.replace(changed));
    }

    /// Changes places.
    fn change(&self, change: impl FnOnce()) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Relaxed);
        // A thread that sees any part of the change sees the odd count, too: this fence pairs with that
        // in `find`.
        fence(Ordering::Release);
        change();
        // A thread that sees this count sees all of the change.
        self.changes.store(changes + 2, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const fn atom(number: u64) -> u64 {
        number << 6 | 0xB
    }

    fn find(directory: &Directory<u64>, number: u64) -> Option<u64> {
        let guard = Guard::new();
        let shared = directory.find_shared(&guard, number).map(|it| **it);
        assert_eq!(directory.find(&guard, number).copied(), shared);
        shared
    }

    static DIRECTORY: Directory<u64> = Directory::new();

    #[test]
    fn every_number_leads_to_its_own_entry_whatever_others_share_its_places() {
        // Six numbers of one line, and as many of another that share no bucket with them.
        let apart = (LINES * PLACES) as u64;
        let numbers: Vec<u64> = (0..6)
            .flat_map(|at| [atom(7 + at * apart), atom(9 + at * apart)])
            .chain([0])
            .collect();
        for (at, number) in numbers.iter().enumerate() {
            assert_eq!(find(&DIRECTORY, *number), None);
            DIRECTORY.insert(*number, Shared::new(*number));
            for (other, number) in numbers.iter().enumerate() {
                assert_eq!(find(&DIRECTORY, *number), (other <= at).then_some(*number));
            }
        }
        // Those that leave make room for those that come back.
        for round in 0..100 {
            let number = numbers[round * 5 % numbers.len()];
            let taken = DIRECTORY.remove(number);
            assert_eq!(taken.map(|it| *it), Some(number));
            assert_eq!(find(&DIRECTORY, number), None);
            assert!(DIRECTORY.remove(number).is_none());
            if round % 3 > 0 {
                let other = numbers[round * 3 % numbers.len()];
                for number in [number, other] {
                    if find(&DIRECTORY, number).is_none() {
                        DIRECTORY.insert(number, Shared::new(number));
                    }
                }
            }
            for number in &numbers {
                assert!(find(&DIRECTORY, *number).is_none_or(|it| it == *number));
            }
            for number in &numbers {
                if find(&DIRECTORY, *number).is_none() {
                    DIRECTORY.insert(*number, Shared::new(*number));
                }
            }
        }
    }

    static WITHOUT_BUCKETS: Directory<u64> = Directory::new();

    #[test]
    fn the_first_entries_of_a_line_are_found_without_their_bucket() {
        let directory = &WITHOUT_BUCKETS;
        for at in 0..PLACES as u64 {
            directory.insert(atom(at), Shared::new(at));
        }
        for bucket in &directory.buckets {
            drop(bucket.replace(None));
        }
        for at in 0..PLACES as u64 {
            assert_eq!(directory.find(&Guard::new(), atom(at)), Some(&at));
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use loom::sync::Arc;
    use loom::thread::spawn;

    /// The model in every order in which each thread is interrupted at most this often.
    fn explore(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(interruptions);
        builder.check(model);
    }

    /// A place that goes from one number to another never leads a reader of either to the entry of the
    /// other, and a reader that has missed an entry that goes does not find it again.
    #[test]
    fn a_number_leads_to_its_own_entry_while_its_place_changes_hands() {
        explore(2, || {
            let directory = Arc::new(Directory::new());
            directory.insert(1, Shared::new(10));
            let reader = spawn({
                let directory = Arc::clone(&directory);
                move || {
                    let guard = Guard::new();
                    let find = |number| directory.find(&guard, number).copied();
                    let two = find(2);
                    assert!(matches!(two, None | Some(20)));
                    let one = find(1);
                    assert!(matches!(one, None | Some(10)));
                    if two.is_some() || one.is_none() {
                        assert_eq!(find(1), None);
                    }
                }
            });
            directory.remove(1).unwrap();
            directory.insert(2, Shared::new(20));
            reader.join().unwrap();
            assert_eq!(directory.find(&Guard::new(), 2), Some(&20));
        });
    }

    /// An entry that stays is found, and one that is replaced is not found again after its successor.
    #[test]
    fn an_entry_that_stays_is_found_while_others_come_and_go() {
        explore(2, || {
            let directory = Arc::new(Directory::new());
            directory.insert(1, Shared::new(10));
            directory.insert(2, Shared::new(20));
            let reader = spawn({
                let directory = Arc::clone(&directory);
                move || {
                    let guard = Guard::new();
                    // In the bucket alone, as there is one place.
                    assert_eq!(directory.find(&guard, 2), Some(&20));
                    let one = directory.find(&guard, 1).copied();
                    assert!(matches!(one, None | Some(10 | 11)));
                    let again = directory.find(&guard, 1).copied();
                    assert!(one != Some(11) || again == Some(11));
                    assert!(one.is_some() || again != Some(10));
                }
            });
            directory.remove(1).unwrap();
            directory.insert(1, Shared::new(11));
            reader.join().unwrap();
        });
    }
}
