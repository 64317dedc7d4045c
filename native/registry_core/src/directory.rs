//! What is open, by the number of its name. Looked up without a lock.

use crate::epoch::{Current, Guard, Shared};
use std::sync::Arc;

/// Buckets of a directory: eight kilobytes. Most systems have fewer registries, so that few share a
/// bucket.
const BUCKETS: usize = 1_024;

/// Numbers of names, and what each leads to.
pub struct Directory<T>([Current<Bucket<T>>; BUCKETS]);

/// The entries whose numbers have the same bits: replaced as a whole, never changed. The first entry lies
/// inside, so that most lookups follow one pointer less.
struct Bucket<T> {
    first: (u64, Arc<T>),
    others: Vec<(u64, Arc<T>)>,
}

impl<T> Bucket<T> {
    fn of(mut all: Vec<(u64, Arc<T>)>) -> Option<Self> {
        let first = all.pop()?;
        Some(Self { first, others: all })
    }

    #[inline]
    fn find(&self, number: u64) -> Option<&Arc<T>> {
        let mut all = std::iter::once(&self.first).chain(&self.others);
        all.find(|(other, _)| *other == number).map(|(_, it)| it)
    }

    fn to_vec(&self) -> Vec<(u64, Arc<T>)> {
        let mut all = self.others.clone();
        all.push(self.first.clone());
        all
    }
}

impl<T: 'static> Directory<T> {
    /// A directory of nothing.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self([const { Current::none() }; BUCKETS])
    }

    #[inline]
    fn bucket(&self, number: u64) -> &Current<Bucket<T>> {
        // The number of an atom counts up in its upper bits.
        #[allow(clippy::cast_possible_truncation)]
        &self.0[(number >> 6) as usize % BUCKETS]
    }

    /// What the number leads to.
    #[inline]
    pub fn find<'g>(&self, guard: &'g Guard, number: u64) -> Option<&'g Arc<T>> {
        self.bucket(number).get(guard)?.find(number)
    }

    /// Adds a number that leads to nothing yet. One thread at a time may change a directory.
    pub fn insert(&self, number: u64, it: Arc<T>) {
        let guard = Guard::new();
        let bucket = self.bucket(number);
        let mut all = bucket.get(&guard).map_or_else(Vec::new, Bucket::to_vec);
        all.push((number, it));
        drop(bucket.replace(Bucket::of(all).map(Shared::new)));
    }

    /// Takes out what the number leads to. One thread at a time may change a directory.
    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        let guard = Guard::new();
        let bucket = self.bucket(number);
        let mut all = bucket.get(&guard)?.to_vec();
        let place = all.iter().position(|(other, _)| *other == number)?;
        let (_, it) = all.swap_remove(place);
        drop(bucket.replace(Bucket::of(all).map(Shared::new)));
        Some(it)
    }
}
