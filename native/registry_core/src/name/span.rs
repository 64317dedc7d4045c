//! The pairs of a map that is being written, and their order.

use std::cmp::Ordering;
use std::ops::Range;

/// Where a pair lies in the buffer. Offsets fit 32 bits, because a buffer is short.
#[derive(Debug)]
pub(super) struct Span {
    /// The first eight bytes of the key as a number, the first byte highest. Keys are in the order
    /// of these numbers, so two keys are rarely compared byte by byte.
    prefix: u64,
    start: u32,
    value: u32,
    end: u32,
}

impl Span {
    /// The pair whose key, value and end are at these offsets.
    pub(super) fn new(bytes: &[u8], [start, value, end]: [usize; 3]) -> Self {
        // None of them is above the size of the buffer, 64 KiB.
        #[allow(clippy::cast_possible_truncation)]
        Self {
            prefix: prefix(&bytes[start..value]),
            start: start as u32,
            value: value as u32,
            end: end as u32,
        }
    }

    /// Compares the keys, which lie in `bytes`.
    #[inline]
    pub(super) fn compare(&self, other: &Self, bytes: &[u8]) -> Ordering {
        self.prefix
            .cmp(&other.prefix)
            .then_with(|| bytes[self.key()].cmp(&bytes[other.key()]))
    }

    fn key(&self) -> Range<usize> {
        self.start as usize..self.value as usize
    }

    /// Key and value.
    pub(super) fn pair(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The first eight bytes of the key; a shorter key is filled up with zeroes.
#[inline]
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => key.iter().enumerate().fold(0, |prefix, (at, &byte)| {
            prefix | u64::from(byte) << (56 - 8 * at)
        }),
    }
}
