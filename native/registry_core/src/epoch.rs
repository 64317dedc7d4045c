//! Memory that is read without a lock, and freed when no thread reads it any more.
//!
//! A reader takes a [`Guard`] before it loads a pointer, and holds it while it uses what the pointer
//! refers to. What is replaced meanwhile is retired: it is freed when all guards have gone that may
//! have seen it. The guard is that of the crate `sdd`. It costs a locked instruction, 4 ns of a
//! lookup. Idle threads hold no guard, so they keep nothing alive. A cache of pointers in each thread
//! would save the 4 ns, but then each idle thread keeps alive what it read last: with 64 schedulers,
//! many times the table.

#[cfg(not(loom))]
pub use real::{Current, Guard, Shared};

#[cfg(loom)]
pub use model::{Current, Guard, Shared};

#[cfg(not(loom))]
mod real {
    use sdd::{AtomicShared, Tag};
    use std::sync::atomic::Ordering;

    /// While it lives, nothing is freed that was current when it was made, or became current since.
    ///
    /// It should be held no longer than a lookup takes: while a guard lives, nothing that was retired
    /// after it was made is freed anywhere in the process.
    pub struct Guard(sdd::Guard);

    /// How often a thread tries to free what it has retired, before it leaves that to its next guards.
    /// Without readers it takes four rounds, because a thread keeps three generations.
    const ROUNDS: usize = 16;

    impl Guard {
        /// A guard of this thread. There may be several at a time.
        #[inline]
        #[must_use]
        #[allow(clippy::new_without_default)]
        pub fn new() -> Self {
            Self(sdd::Guard::new())
        }

        /// Ends the guard, and frees what this thread has retired, unless another guard prevents that.
        /// The thread then tries again at the next call of this.
        #[inline]
        pub fn end(self) {
            let left = self.0.has_garbage();
            drop(self);
            if left {
                settle();
            }
        }
    }

    /// Only a few times, because another thread may hold its guard for long.
    #[cold]
    fn settle() {
        for _ in 0..ROUNDS {
            let guard = sdd::Guard::new();
            if !guard.has_garbage() {
                return;
            }
            guard.accelerate();
            drop(guard);
            std::hint::spin_loop();
        }
    }

    pub use sdd::Shared;

    /// A pointer to what is current, or to nothing.
    pub struct Current<T>(AtomicShared<T>);

    impl<T: 'static> Current<T> {
        /// A pointer to nothing.
        #[must_use]
        pub const fn none() -> Self {
            Self(AtomicShared::null())
        }

        /// What is current.
        #[inline]
        #[must_use]
        pub fn get<'g>(&self, guard: &'g Guard) -> Option<&'g T> {
            self.0.load(Ordering::Acquire, &guard.0).as_ref()
        }

        /// Makes another value current; answers the one before. The value before is retired when the
        /// answer is dropped, unless there are other references.
        pub fn replace(&self, by: Option<Shared<T>>) -> Option<Shared<T>> {
            self.0.swap((by, Tag::None), Ordering::AcqRel).0
        }
    }
}

/// In place of the crate: loom has to see the pointer, and nothing is ever freed.
#[cfg(loom)]
#[allow(missing_docs, clippy::unwrap_used)]
mod model {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::sync::Mutex;

    /// A guard of nothing.
    pub struct Guard(());

    impl Guard {
        /// A guard.
        pub fn new() -> Self {
            Self(())
        }

        /// Ends it.
        pub fn end(self) {}
    }

    /// What lives until the program ends.
    pub struct Shared<T: 'static>(&'static T);

    impl<T> Shared<T> {
        pub fn new(value: T) -> Self {
            Self(Box::leak(Box::new(value)))
        }
    }

    impl<T> Clone for Shared<T> {
        fn clone(&self) -> Self {
            Self(self.0)
        }
    }

    impl<T> Deref for Shared<T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0
        }
    }

    /// The number of what is current, among all that ever was, from one.
    pub struct Current<T: 'static> {
        number: AtomicUsize,
        all: Mutex<Vec<&'static T>>,
        of: PhantomData<T>,
    }

    impl<T> Current<T> {
        pub fn none() -> Self {
            Self {
                number: AtomicUsize::new(0),
                all: Mutex::new(Vec::new()),
                of: PhantomData,
            }
        }

        pub fn get<'g>(&self, _guard: &'g Guard) -> Option<&'g T> {
            let number = self.number.load(Ordering::Acquire);
            (number > 0).then(|| self.all.lock().unwrap()[number - 1])
        }

        pub fn replace(&self, by: Option<Shared<T>>) -> Option<Shared<T>> {
            let number = by.map_or(0, |by| {
                let mut all = self.all.lock().unwrap();
                all.push(by.0);
                all.len()
            });
            let before = self.number.swap(number, Ordering::AcqRel);
            (before > 0).then(|| Shared(self.all.lock().unwrap()[before - 1]))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_is_read_is_not_freed_while_others_take_its_place() {
        // Miri takes a thousand times as long.
        let rounds: u64 = if cfg!(miri) { 40 } else { 20_000 };
        let current = Current::none();
        current.replace(Some(Shared::new(vec![0; 8])));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    for _ in 0..rounds {
                        let guard = Guard::new();
                        let read = current.get(&guard).map_or(&[][..], Vec::as_slice);
                        assert!(read.len() == 8 && read[0] >= last);
                        thread::yield_now();
                        last = read[0];
                        assert!(read.iter().all(|round| *round == last));
                        guard.end();
                    }
                });
            }
            for round in 1..rounds {
                drop(current.replace(Some(Shared::new(vec![round; 8]))));
                Guard::new().end();
            }
        });
    }
}
