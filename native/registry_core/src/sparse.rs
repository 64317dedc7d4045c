//! When a map of hashbrown should be made anew, so that entries that come and go take no more memory.

/// A map is made anew, half as large, when less than one place in this many is taken.
const SPARSE: usize = 3;
/// Up to this many places, marks do not matter.
pub(crate) const SMALL: usize = 64;
/// A map in which less than one place in this many is free will grow soon, with or without marks.
const NARROW: usize = 16;

/// Whether a map of `len` entries should be made anew. `places`: how many entries there was room for when
/// it was made; `capacity`: how many there is room for now. A removed entry may leave a mark, which takes
/// room until the map is made anew: without a place that has no mark the map would double its size,
/// however few entries it has.
pub(crate) fn sparse(len: usize, capacity: usize, places: usize) -> bool {
    let marks = places.saturating_sub(capacity);
    let free = places.saturating_sub(len);
    let marked = places > SMALL && marks * 2 > free && free * NARROW > places;
    len * SPARSE < capacity || marked
}
