//! All interleavings, under the weak memory of the language, of threads that ask to be told and threads
//! that change a name. `RUSTFLAGS="--cfg loom" cargo test --release -p registry_core --test loom_journal`
//!
//! What is modelled is `src/journal/wanted.rs` and `src/journal/sketch.rs` themselves, with loom's atomics. The table is one atomic word
//! that is written and read as weakly as can be: lookups take no lock, so the fences of `Wanted` are all
//! there is. What has been asked for lies under a lock, as in the journal.
#![cfg(loom)]
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

use loom::sync::{Arc, Mutex, RwLock};
use loom::thread;
use sketch::Sketch;
use wanted::{Kind, Wanted};

#[path = "../src/journal/wanted.rs"]
mod wanted;

#[path = "../src/journal/sketch.rs"]
mod sketch;

/// What `wanted.rs` finds in place of the standard library's.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

use sync::{AtomicUsize, Ordering};

/// The counts, with or without the fence on either side.
struct Fenced {
    wanted: Wanted,
    asking: bool,
    changing: bool,
}

impl Fenced {
    fn asked(&self) {
        if self.asking {
            self.wanted.asked();
        }
    }

    fn looks_for(&self, kind: Kind) -> bool {
        if self.changing {
            return self.wanted.look().is_some_and(|look| match kind {
                Kind::Listeners => look.listeners,
                Kind::Releases => look.releases,
                Kind::Patterns => look.patterns,
                Kind::Waiters => look.waiters,
            });
        }
        self.wanted.get(kind) > 0
    }
}

struct World {
    fenced: Fenced,
    /// Whether the name is registered.
    table: AtomicUsize,
    waiting: Mutex<bool>,
    /// One cell: the hash, whose seeds differ each time, has to be the same.
    sketch: Sketch<1>,
    patterns: RwLock<bool>,
    told: AtomicUsize,
}

impl World {
    fn new(asking: bool, changing: bool) -> Arc<Self> {
        Arc::new(Self {
            fenced: Fenced {
                wanted: Wanted::default(),
                asking,
                changing,
            },
            table: AtomicUsize::new(0),
            waiting: Mutex::new(false),
            sketch: Sketch::new(),
            patterns: RwLock::new(false),
            told: AtomicUsize::new(0),
        })
    }

    fn tell(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// As `Journal::changed`, after the table has been written.
    fn register(&self) {
        self.table.store(1, Ordering::Relaxed);
        if self.fenced.looks_for(Kind::Waiters) {
            let waited = std::mem::take(&mut *self.waiting.lock().unwrap());
            if waited {
                self.fenced.wanted.subtract(Kind::Waiters, 1);
                self.tell();
            }
        }
        if self.fenced.looks_for(Kind::Patterns) && self.sketch.may_match(b"name") {
            match self.patterns.try_read() {
                Ok(patterns) if !*patterns => {}
                // The change is written down, too, when the patterns cannot be seen.
                _ => self.tell(),
            }
        }
    }

    /// As `Journal::wait`.
    fn wait(&self) {
        self.fenced.wanted.add(Kind::Waiters, 1);
        *self.waiting.lock().unwrap() = true;
        self.fenced.asked();
    }

    /// As `Journal::forget_waiter`: whether the waiter has not been taken out yet.
    fn stop_waiting(&self) -> bool {
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap());
        if taken {
            self.fenced.wanted.subtract(Kind::Waiters, 1);
        }
        taken
    }

    /// As `Journal::subscribe`.
    fn subscribe(&self) {
        self.fenced.wanted.add(Kind::Patterns, 1);
        let mut patterns = self.patterns.write().unwrap();
        self.sketch.add(b"na");
        *patterns = true;
        drop(patterns);
        self.fenced.asked();
    }

    /// The same with a wrong order: the sketch comes after the fence.
    fn subscribe_and_sketch_too_late(&self) {
        self.fenced.wanted.add(Kind::Patterns, 1);
        *self.patterns.write().unwrap() = true;
        self.fenced.asked();
        self.sketch.add(b"na");
    }

    /// As `Journal::unsubscribe`.
    fn unsubscribe(&self, beginning: &[u8]) {
        let patterns = self.patterns.write().unwrap();
        self.sketch.remove(beginning);
        drop(patterns);
        self.fenced.wanted.subtract(Kind::Patterns, 1);
    }

    fn finds(&self) -> bool {
        self.table.load(Ordering::Relaxed) == 1
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

/// Runs `ask` and a lookup beside a registration; a thread that does not find the name has to be told.
fn ask_beside_a_registration(asking: bool, changing: bool, ask: fn(&World)) {
    loom::model(move || {
        let world = World::new(asking, changing);
        let theirs = world.clone();
        let registration = thread::spawn(move || theirs.register());
        ask(&world);
        let found = world.finds();
        registration.join().unwrap();
        assert!(found || world.told() > 0, "neither found nor told");
        assert!(world.told() <= 1, "told twice");
    });
}

/// Invariant: a thread that waits and then looks the name up finds it or is told, once.
#[test]
fn a_waiter_finds_the_name_or_is_told() {
    ask_beside_a_registration(true, true, World::wait);
}

/// Invariant: a thread that subscribes and then looks the name up finds it or is told, once.
#[test]
fn a_subscriber_finds_the_name_or_is_told() {
    ask_beside_a_registration(true, true, World::subscribe);
}

/// The model covers the race: without the fence of the thread that asks, both threads can miss.
#[test]
#[should_panic(expected = "neither found nor told")]
fn without_the_fence_of_a_waiter_it_may_miss() {
    ask_beside_a_registration(false, true, World::wait);
}

/// The same without the fence of the thread that changes the name.
#[test]
#[should_panic(expected = "neither found nor told")]
fn without_the_fence_of_a_registration_a_waiter_may_miss() {
    ask_beside_a_registration(true, false, World::wait);
}

#[test]
#[should_panic(expected = "neither found nor told")]
fn without_the_fence_of_a_subscriber_it_may_miss() {
    ask_beside_a_registration(false, true, World::subscribe);
}

#[test]
#[should_panic(expected = "neither found nor told")]
fn without_the_fence_of_a_registration_a_subscriber_may_miss() {
    ask_beside_a_registration(true, false, World::subscribe);
}

/// Invariant: a wait is taken back or told, never both and never neither, and the count is right
/// afterwards.
#[test]
fn a_wait_is_taken_back_or_told() {
    loom::model(|| {
        let world = World::new(true, true);
        world.wait();
        let theirs = world.clone();
        let registration = thread::spawn(move || theirs.register());
        let taken_back = world.stop_waiting();
        registration.join().unwrap();
        assert_eq!(world.told(), usize::from(!taken_back));
        assert_eq!(world.fenced.wanted.get(Kind::Waiters), 0);
    });
}

/// Invariant: while one listener is replaced by another, every change is looked at.
#[test]
fn a_change_of_listeners_hides_no_change_of_names() {
    loom::model(|| {
        let world = World::new(true, true);
        world.fenced.wanted.add(Kind::Listeners, 1);
        world.fenced.asked();
        let theirs = world.clone();
        let registration = thread::spawn(move || {
            theirs.table.store(1, Ordering::Relaxed);
            assert!(theirs.fenced.looks_for(Kind::Listeners));
        });
        // As `Journal::listen`.
        world.fenced.wanted.add(Kind::Listeners, 1);
        world.fenced.wanted.subtract(Kind::Listeners, 1);
        world.fenced.asked();
        registration.join().unwrap();
    });
}

/// Invariant: of two waiters, one that gives up does not hide the other.
#[test]
fn a_waiter_that_gives_up_hides_no_other() {
    loom::model(|| {
        let world = World::new(true, true);
        // The other waiter, which waits for another name.
        world.fenced.wanted.add(Kind::Waiters, 1);
        let theirs = world.clone();
        let gives_up = thread::spawn(move || theirs.fenced.wanted.subtract(Kind::Waiters, 1));
        let theirs = world.clone();
        let registration = thread::spawn(move || theirs.register());
        world.wait();
        let found = world.finds();
        gives_up.join().unwrap();
        registration.join().unwrap();
        assert!(found || world.told() == 1, "neither found nor told");
    });
}

/// The model covers the sketch: if a subscriber adds to it after its fence, both threads can miss.
#[test]
#[should_panic(expected = "neither found nor told")]
fn a_subscriber_that_adds_to_the_sketch_too_late_may_miss() {
    ask_beside_a_registration(true, true, World::subscribe_and_sketch_too_late);
}

/// Invariant: of two subscribers, one that gives up does not hide the other, whether their patterns begin
/// alike or not.
#[test]
fn a_subscriber_that_gives_up_hides_no_other() {
    for beginning in [b"na".as_slice(), b"n"] {
        // Of three threads, all orders in which a thread is interrupted at most twice: all others take hours.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let world = World::new(true, true);
            world.fenced.wanted.add(Kind::Patterns, 1);
            world.sketch.add(beginning);
            let theirs = world.clone();
            let gives_up = thread::spawn(move || theirs.unsubscribe(beginning));
            let theirs = world.clone();
            let registration = thread::spawn(move || theirs.register());
            world.subscribe();
            let found = world.finds();
            gives_up.join().unwrap();
            registration.join().unwrap();
            assert!(found || world.told() > 0, "neither found nor told");
            assert!(world.sketch.may_match(b"name"));
        });
    }
}
