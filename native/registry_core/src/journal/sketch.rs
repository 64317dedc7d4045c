//! A first look at whether a name may match a pattern.
//!
//! Every change of a name asks this, on all schedulers at once, and for nearly all names the answer is
//! no. So a change only reads here: no lock is taken, and no line of memory is written that another
//! processor reads.
//!
//! What a pattern has before its first variable is how each name begins that matches it. These
//! beginnings are counted by their hashes. A name that begins as none of them does, by the counts,
//! matches no pattern; any other name may.
//!
//! The order of steps is that of [`super::wanted`]: who adds a pattern adds it here, puts it where a
//! change looks for it, and calls `Wanted::asked`. `Wanted::look` comes before a change looks here.

use super::sync::{AtomicU32, AtomicU64, Ordering};
use ahash::RandomState;
use std::hash::{BuildHasher, Hasher};

/// How many patterns have each beginning. More than one thread may look, and one may change.
pub(crate) struct Sketch<const CELLS: usize> {
    /// A bit for each length of a beginning.
    lengths: AtomicU64,
    hasher: RandomState,
    /// By the hash of a beginning, how many patterns have it or another one of that hash.
    cells: Box<[AtomicU32]>,
    /// How many patterns have a beginning of each length.
    counts: [AtomicU32; LENGTHS],
}

/// Longer beginnings are cut off: `lengths` has 64 bits.
const LENGTHS: usize = 64;

/// If there are more different lengths, it takes longer to look here than to match the patterns.
const FEW: usize = 8;

impl<const CELLS: usize> Sketch<CELLS> {
    /// Of no pattern.
    pub(crate) fn new() -> Self {
        Self {
            lengths: AtomicU64::new(0),
            hasher: RandomState::new(),
            cells: (0..CELLS).map(|_| AtomicU32::new(0)).collect(),
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    fn cut(beginning: &[u8]) -> &[u8] {
        &beginning[..beginning.len().min(LENGTHS - 1)]
    }

    #[inline]
    fn cell(&self, beginning: &[u8]) -> &AtomicU32 {
        // Not `hash_one`, which would hash the length as well.
        let mut state = self.hasher.build_hasher();
        state.write(beginning);
        #[allow(clippy::cast_possible_truncation)]
        &self.cells[state.finish() as usize % CELLS]
    }

    /// Adds a pattern that begins with these bytes. Only one thread at a time may add and remove.
    pub(crate) fn add(&self, beginning: &[u8]) {
        let beginning = Self::cut(beginning);
        self.cell(beginning).fetch_add(1, Ordering::Release);
        if self.counts[beginning.len()].fetch_add(1, Ordering::Relaxed) == 0 {
            let bit = 1 << beginning.len();
            self.lengths.fetch_or(bit, Ordering::Release);
        }
    }

    /// Removes such a pattern, which has been added before.
    pub(crate) fn remove(&self, beginning: &[u8]) {
        let beginning = Self::cut(beginning);
        if self.counts[beginning.len()].fetch_sub(1, Ordering::Relaxed) == 1 {
            let bit: u64 = 1 << beginning.len();
            self.lengths.fetch_and(!bit, Ordering::Release);
        }
        self.cell(beginning).fetch_sub(1, Ordering::Release);
    }

    /// Whether the name may match a pattern.
    #[inline]
    pub(crate) fn may_match(&self, name: &[u8]) -> bool {
        let mut lengths = self.lengths.load(Ordering::Acquire);
        for _ in 0..FEW {
            if lengths == 0 {
                return false;
            }
            // The shortest comes first.
            let Some(beginning) = name.get(..lengths.trailing_zeros() as usize) else {
                return false;
            };
            if self.cell(beginning).load(Ordering::Acquire) > 0 {
                return true;
            }
            lengths &= lengths - 1;
        }
        lengths != 0
    }
}

// Loom's atomics exist inside of a model only.
#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(sketch: &Sketch<4_096>, names: impl Iterator<Item = Vec<u8>>) -> usize {
        names.filter(|name| !sketch.may_match(name)).count()
    }

    #[test]
    fn of_names_that_begin_otherwise_most_are_excluded() {
        let sketch = Sketch::<4_096>::new();
        let beginning = |number: u32| [b"{case,".as_slice(), &number.to_be_bytes()].concat();
        (0..1_000).for_each(|number| sketch.add(&beginning(number)));
        let names = |from: u32| {
            (from..from + 1_000).map(move |number| [beginning(number), vec![7; 9]].concat())
        };
        assert_eq!(excluded(&sketch, names(0)), 0);
        // About 780.
        assert!(excluded(&sketch, names(1_000)) > 600);
        (0..500).for_each(|number| sketch.remove(&beginning(number)));
        // About 440 of the first, which are like any others now.
        assert!((300..500).contains(&excluded(&sketch, names(0))));
        assert_eq!(excluded(&sketch, names(500).take(500)), 0);
        (500..1_000).for_each(|number| sketch.remove(&beginning(number)));
        assert_eq!(excluded(&sketch, names(0)), 1_000);
    }

    /// A hundred names of so many bytes, of which none begins with a 1. By chance, one or two may have the
    /// hash of a beginning.
    fn others(len: usize) -> impl Iterator<Item = Vec<u8>> {
        (100..200).map(move |byte| vec![byte; len])
    }

    #[test]
    fn a_long_beginning_counts_by_its_first_bytes_and_a_short_name_is_excluded() {
        let sketch = Sketch::<4_096>::new();
        sketch.add(&[1; 1_000]);
        assert!(sketch.may_match(&[1; 1_001]));
        assert!(excluded(&sketch, others(1_001)) > 90);
        assert!(!sketch.may_match(&[1; 20]));
        assert!(!sketch.may_match(&[]));
        // As of a pattern that is only a variable.
        sketch.add(&[]);
        assert_eq!(excluded(&sketch, others(3)), 0);
        assert!(sketch.may_match(&[]));
        sketch.remove(&[]);
        assert!(!sketch.may_match(&[]));
    }

    #[test]
    fn beginnings_of_very_many_lengths_exclude_nothing() {
        let sketch = Sketch::<4_096>::new();
        (1..=FEW).for_each(|len| sketch.add(&vec![1; len]));
        assert!(excluded(&sketch, others(20)) > 90);
        sketch.add(&[1; FEW + 1]);
        assert_eq!(excluded(&sketch, others(20)), 0);
        sketch.remove(&[1; FEW + 1]);
        assert!(excluded(&sketch, others(20)) > 90);
    }
}
