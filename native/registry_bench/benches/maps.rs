//! `cargo bench --bench maps`: the slots of this crate beside maps of libraries.
//!
//! Each round times every map once, in another order, so that noise falls on all of them alike; what
//! is printed is the median time of an operation in nanoseconds, hashing and writing the key into an
//! entry included. Growth is the mean of a whole fill; memory is what the allocator gave, by name.
#![allow(
    missing_docs,
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::undocumented_unsafe_blocks
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pid::Pid;

#[path = "../../registry_core/src/epoch.rs"]
mod epoch;
#[path = "../../registry_core/src/pid.rs"]
mod pid;
#[path = "../../registry_core/src/slots.rs"]
mod slots;
#[path = "../../registry_core/src/sync.rs"]
mod sync;

struct Counting;
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: as the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn hash(state: &ahash::RandomState, key: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(key);
    hasher.finish()
}

trait Map: Sync {
    const NAME: &'static str;
    fn new() -> Self;
    fn get(&self, key: &[u8]) -> Option<u64>;
    fn insert(&self, key: &[u8], pid: u64);
    fn remove(&self, key: &[u8]);
}

struct Ours<const W: usize>(slots::Slots<W, slots::Values<()>>, ahash::RandomState);

impl<const W: usize> Map for Ours<W> {
    const NAME: &'static str = "slots.rs";
    fn new() -> Self {
        Self(slots::Slots::new(), ahash::RandomState::new())
    }
    #[inline]
    fn get(&self, key: &[u8]) -> Option<u64> {
        let guard = epoch::Guard::new();
        let hash = hash(&self.1, key);
        let holder = self.0.holder(&guard, hash, &slots::Entry::of(key))?;
        Some(holder.0)
    }
    fn insert(&self, key: &[u8], pid: u64) {
        let guard = epoch::Guard::new();
        let hash_of = |key: &[u8]| hash(&self.1, key);
        let hash = hash(&self.1, key);
        self.0.lock(hash).insert(hash, key, Pid(pid), None, hash_of);
        guard.end();
    }
    fn remove(&self, key: &[u8]) {
        let guard = epoch::Guard::new();
        let hash_of = |key: &[u8]| hash(&self.1, key);
        let hash = hash(&self.1, key);
        let mut locked = self.0.lock(hash);
        let place = locked.find(hash, key).unwrap();
        locked.remove(hash, place, hash_of);
        drop(locked);
        guard.end();
    }
}

/// A key inside the entry; the words of a slot without the pid.
#[derive(Clone, PartialEq, Eq)]
struct Inline<const N: usize> {
    bytes: [u64; N],
    len: u32,
    value: u32,
}

impl<const N: usize> Inline<N> {
    #[inline]
    fn of(key: &[u8]) -> Self {
        let mut bytes = [0; N];
        let (whole, rest) = key.as_chunks::<8>();
        for (word, bytes) in bytes.iter_mut().zip(whole) {
            *word = u64::from_le_bytes(*bytes);
        }
        if !rest.is_empty() {
            let last = key.last_chunk::<8>().unwrap();
            bytes[whole.len()] = u64::from_le_bytes(*last) >> (64 - 8 * rest.len());
        }
        Self {
            bytes,
            len: u32::try_from(key.len()).unwrap(),
            value: 0,
        }
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: words are bytes.
        let bytes: &[u8] = unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), N * 8) };
        &bytes[..self.len as usize]
    }
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let last = u64::from(self.len ^ other.len);
        (0..N).fold(last, |all, at| all | self.bytes[at] ^ other.bytes[at]) == 0
    }
}

impl<const N: usize> Hash for Inline<N> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

struct Scc<const N: usize>(scc::HashIndex<Inline<N>, u64, ahash::RandomState>);

impl<const N: usize> Map for Scc<N> {
    const NAME: &'static str = "scc::HashIndex";
    fn new() -> Self {
        Self(scc::HashIndex::with_hasher(ahash::RandomState::new()))
    }
    #[inline]
    fn get(&self, key: &[u8]) -> Option<u64> {
        self.0.peek_with(&Inline::of(key), |_, pid| *pid)
    }
    fn insert(&self, key: &[u8], pid: u64) {
        self.0.insert_sync(Inline::of(key), pid).ok().unwrap();
    }
    fn remove(&self, key: &[u8]) {
        assert!(self.0.remove_sync(&Inline::<N>::of(key)));
    }
}

struct Sharded<const N: usize>(Box<[Aligned<N>]>, ahash::RandomState);

#[repr(align(64))]
struct Aligned<const N: usize>(parking_lot::RwLock<hashbrown::raw::RawTable<(Inline<N>, u64)>>);

impl<const N: usize> Sharded<N> {
    #[inline]
    fn shard(&self, hash: u64) -> &parking_lot::RwLock<hashbrown::raw::RawTable<(Inline<N>, u64)>> {
        &self.0[(hash >> 50) as usize % slots::SHARDS].0
    }
}

impl<const N: usize> Map for Sharded<N> {
    const NAME: &'static str = "hashbrown, sharded";
    fn new() -> Self {
        let shard = |_| Aligned(parking_lot::RwLock::new(hashbrown::raw::RawTable::new()));
        Self(
            (0..slots::SHARDS).map(shard).collect(),
            ahash::RandomState::new(),
        )
    }
    #[inline]
    fn get(&self, key: &[u8]) -> Option<u64> {
        let hash = hash(&self.1, key);
        let shard = self.shard(hash).read();
        if shard.buckets() > 1 {
            // SAFETY: within the buckets.
            unsafe {
                let at = hash as usize & (shard.buckets() - 1);
                std::arch::x86_64::_mm_prefetch::<3>(shard.bucket(at).as_ptr().cast());
            }
        }
        let entry = Inline::of(key);
        shard
            .get(hash, |(other, _)| entry.is(other))
            .map(|(_, pid)| *pid)
    }
    fn insert(&self, key: &[u8], pid: u64) {
        let hash_of = hash(&self.1, key);
        let entry = (Inline::of(key), pid);
        self.shard(hash_of)
            .write()
            .insert(hash_of, entry, |(key, _)| hash(&self.1, key.bytes()));
    }
    fn remove(&self, key: &[u8]) {
        let hash = hash(&self.1, key);
        let entry = Inline::of(key);
        self.shard(hash)
            .write()
            .remove_entry(hash, |(other, _)| entry.is(other))
            .unwrap();
    }
}

fn key<const L: usize>(number: usize) -> [u8; L] {
    let mut key = [7; L];
    key[..8].copy_from_slice(
        &(number as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .to_le_bytes(),
    );
    key[L - 8..].copy_from_slice(&(number as u64).to_le_bytes());
    key
}

const LOOKUPS: usize = 200_000;

fn lookups<M: Map, const L: usize>(map: &M, keys: &[[u8; L]], missing: usize) -> f64 {
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..LOOKUPS {
        at += 7_919;
        if at >= keys.len() {
            at %= keys.len();
        }
        if missing == 0 {
            black_box(map.get(&keys[at]));
        } else {
            let mut key = keys[at];
            key[9] = 9;
            black_box(map.get(&key));
        }
    }
    start.elapsed().as_nanos() as f64 / LOOKUPS as f64
}

fn at_once<M: Map, const L: usize>(map: &M, keys: &[[u8; L]]) -> f64 {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| lookups(map, keys, 0));
        (lookups(map, keys, 0) + other.join().unwrap()) / 2.0
    })
}

/// Medians by row, and the memory.
struct Rows {
    times: [Vec<f64>; 5],
    growth: f64,
    fresh: f64,
    churned: f64,
    freed: f64,
}

struct Subject<M> {
    map: M,
    rows: Rows,
}

impl<M: Map> Subject<M> {
    fn filled<const L: usize>(keys: &[[u8; L]]) -> Self {
        let before = BYTES.load(Ordering::Relaxed);
        let map = M::new();
        let start = Instant::now();
        for (number, key) in keys.iter().enumerate() {
            map.insert(key, number as u64);
        }
        let growth = start.elapsed().as_nanos() as f64 / keys.len() as f64;
        let bytes = BYTES.load(Ordering::Relaxed).saturating_sub(before);
        let rows = Rows {
            times: Default::default(),
            growth,
            fresh: bytes as f64 / keys.len() as f64,
            churned: 0.0,
            freed: 0.0,
        };
        Self { map, rows }
    }

    fn round<const L: usize>(&mut self, keys: &[[u8; L]]) {
        let hot = &keys[..1];
        self.rows.times[0].push(lookups(&self.map, keys, 0));
        self.rows.times[1].push(lookups(&self.map, keys, 1));
        self.rows.times[2].push(at_once(&self.map, keys));
        self.rows.times[3].push(lookups(&self.map, hot, 0));
        self.rows.times[4].push(at_once(&self.map, hot));
    }

    fn churn<const L: usize>(&mut self, keys: &[[u8; L]]) {
        let count = keys.len();
        let before = BYTES.load(Ordering::Relaxed);
        // Every name is replaced four times.
        for number in 0..4 * count {
            self.map.insert(&key::<L>(number + count), 1);
            self.map.remove(&key::<L>(number));
        }
        let after = BYTES.load(Ordering::Relaxed);
        self.rows.churned = self.rows.fresh + (after as f64 - before as f64) / count as f64;
        for number in 4 * count..5 * count {
            self.map.remove(&key::<L>(number));
        }
        let after = BYTES.load(Ordering::Relaxed);
        self.rows.freed = self.rows.fresh + (after as f64 - before as f64) / count as f64;
    }

    fn print(&mut self, label: &str) {
        print!("| {label} | {} |", M::NAME);
        for times in &mut self.rows.times {
            times.sort_by(f64::total_cmp);
            print!(" {:.1} |", times[times.len() / 2]);
        }
        let Rows {
            growth,
            fresh,
            churned,
            freed,
            ..
        } = self.rows;
        println!(" {growth:.0} | {fresh:.0} | {churned:.0} | {freed:.0} |");
    }
}

fn compare<A: Map, B: Map, C: Map, const L: usize>(count: usize) {
    let keys: Vec<[u8; L]> = (0..count).map(key).collect();
    let mut ours = Subject::<A>::filled(&keys);
    let mut scc = Subject::<B>::filled(&keys);
    let mut sharded = Subject::<C>::filled(&keys);
    for round in 0..5 {
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => ours.round(&keys),
                1 => scc.round(&keys),
                _ => sharded.round(&keys),
            }
        }
    }
    ours.churn(&keys);
    scc.churn(&keys);
    sharded.churn(&keys);
    let label = format!("{count} of {L} bytes");
    ours.print(&label);
    scc.print(&label);
    sharded.print(&label);
}

fn main() {
    println!(
        "| names | map | hit | miss | hit, two readers | hot | hot, two readers | growth | bytes | churned | freed |"
    );
    for count in [1_000, 100_000, 1_000_000] {
        compare::<Ours<5>, Scc<3>, Sharded<3>, 20>(count);
        compare::<Ours<12>, Scc<10>, Sharded<10>, 74>(count);
    }
}
