//! The lease under which the processes of this node may hold names.
//!
//! A lease has a number, the epoch, and a deadline, which is moved while others confirm it. Instants are
//! numbers of the caller's clock.

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::sync::PoisonError;

/// The lease of this node: none, or one at a time.
pub struct Lease {
    /// Compared with the clock by every lookup that finds a holder; 0 while there is no lease.
    deadline: AtomicU64,
    /// 0 while there is no lease.
    epoch: AtomicU64,
    /// Calls of [`Lease::hold`] that have not returned. In a line of the cache of its own: lookups read
    /// the deadline.
    holds: CachePadded<AtomicU64>,
    /// The last epoch. Locked while the lease is changed, so that no deadline is set after the end.
    last: Mutex<u64>,
}

impl Lease {
    /// No lease.
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::new_without_default)] // It is to be a static.
    pub const fn new() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            holds: CachePadded::new(AtomicU64::new(0)),
            last: Mutex::new(0),
        }
    }

    /// No lease. Loom's atomics cannot be made at compile time.
    #[cfg(loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            holds: CachePadded::new(AtomicU64::new(0)),
            last: Mutex::new(0),
        }
    }

    fn change(&self) -> MutexGuard<'_, u64> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a lease; `false` while there is one, or if its number is not greater than all before.
    #[must_use]
    pub fn begin(&self, epoch: u64, deadline: u64) -> bool {
        let mut last = self.change();
        if self.epoch.load(Ordering::Relaxed) != 0 || epoch <= *last {
            return false;
        }
        *last = epoch;
        self.epoch.store(epoch, Ordering::Relaxed);
        // Last. A lookup that sees the deadline sees what was done before, as the end of the holders of the lease
        // before; the load in `deadline` pairs with this.
        self.deadline.store(deadline, Ordering::Release);
        true
    }

    /// Moves the deadline, unless it is later already; `false` if this epoch has ended.
    #[must_use]
    pub fn extend(&self, epoch: u64, deadline: u64) -> bool {
        let _changing = self.change();
        let runs = epoch != 0 && self.epoch.load(Ordering::Relaxed) == epoch;
        if runs && deadline > self.deadline.load(Ordering::Relaxed) {
            self.deadline.store(deadline, Ordering::Release);
        }
        runs
    }

    /// Ends the lease; `false` if this epoch has ended already. Calls of [`Self::hold`] that have looked at
    /// the epoch before are among [`Self::holds`] until they have returned.
    pub fn end(&self, epoch: u64) -> bool {
        let _changing = self.change();
        let runs = epoch != 0 && self.epoch.load(Ordering::Relaxed) == epoch;
        if runs {
            self.deadline.store(0, Ordering::Release);
            self.epoch.store(0, Ordering::Relaxed);
            // This fence pairs with that in `hold`, which counts before it and looks at the epoch after it;
            // the caller of this reads the count after it. One of the two fences comes first. So either `hold`
            // finds the epoch ended, or the caller finds it counted.
            fence(Ordering::SeqCst);
        }
        runs
    }

    /// Calls `insert` if this epoch runs.
    pub fn hold<R>(&self, epoch: u64, insert: impl FnOnce() -> R) -> Option<R> {
        self.holds.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // Also when `insert` panics: a count that stayed would have the caller of `end` wait for ever.
        let _counted = Counted(&self.holds);
        (epoch != 0 && self.epoch.load(Ordering::Relaxed) == epoch).then(insert)
    }

    /// How many calls of [`Self::hold`] have not returned. When this has been 0 after [`Self::end`], all that
    /// was inserted under that epoch can be seen, and nothing more will be.
    #[must_use]
    pub fn holds(&self) -> u64 {
        self.holds.load(Ordering::Acquire)
    }

    /// The deadline; 0 without a lease.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Acquire)
    }
}

struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // What was inserted is seen by a thread that sees this count.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_moved_forward_while_its_epoch_runs_and_not_afterwards() {
        let lease = Lease::new();
        assert_eq!(lease.deadline(), 0);
        assert!(!lease.extend(1, 10));
        assert!(lease.begin(1, 10));
        assert_eq!(lease.deadline(), 10);
        assert!(lease.extend(1, 30));
        assert!(lease.extend(1, 20));
        assert_eq!(lease.deadline(), 30);
        assert!(!lease.extend(2, 40));
        assert!(!lease.end(2));
        assert!(lease.end(1));
        assert_eq!(lease.deadline(), 0);
        assert!(!lease.end(1));
        assert!(!lease.extend(1, 50));
        assert_eq!(lease.deadline(), 0);
    }

    #[test]
    fn an_epoch_begins_once_and_after_the_end_of_the_one_before() {
        let lease = Lease::new();
        assert!(!lease.begin(0, 10));
        assert!(lease.begin(2, 10));
        assert!(!lease.begin(3, 20));
        assert!(lease.end(2));
        assert!(!lease.begin(1, 20));
        assert!(!lease.begin(2, 20));
        assert_eq!(lease.deadline(), 0);
        assert!(lease.begin(3, 20));
        assert_eq!(lease.deadline(), 20);
    }

    #[test]
    fn a_name_is_held_under_the_epoch_that_runs_alone() {
        let lease = Lease::new();
        assert_eq!(lease.hold(0, || ()), None);
        assert!(lease.begin(7, 10));
        assert_eq!(lease.hold(6, || ()), None);
        assert_eq!(lease.hold(7, || lease.holds()), Some(1));
        assert_eq!(lease.hold(0, || ()), None);
        assert!(lease.end(7));
        assert_eq!(lease.hold(7, || ()), None);
        assert_eq!(lease.holds(), 0);
    }

    #[test]
    fn a_hold_that_panics_is_counted_no_longer() {
        let lease = Lease::new();
        assert!(lease.begin(1, 10));
        #[allow(clippy::panic)]
        let insert = || lease.hold(1, || panic!("on purpose"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(insert));
        assert!(panicked.is_err());
        assert_eq!(lease.holds(), 0);
    }
}

#[cfg(all(test, loom))]
mod models {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use loom::sync::Arc;
    use loom::thread::spawn;

    /// After the end, once no call holds, a name is held if and only if its call said so.
    #[test]
    fn nothing_is_held_under_an_epoch_after_its_end_and_the_last_hold() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            let held = Arc::new(AtomicU64::new(0));
            assert!(lease.begin(1, 10));
            let holder = spawn({
                let (lease, held) = (Arc::clone(&lease), Arc::clone(&held));
                move || {
                    let hold = || held.store(1, Ordering::Relaxed);
                    lease.hold(1, hold).is_some()
                }
            });
            assert!(lease.end(1));
            let settled = (lease.holds() == 0).then(|| held.load(Ordering::Relaxed));
            let said = holder.join().unwrap();
            if let Some(settled) = settled {
                assert_eq!(settled == 1, said);
            }
        });
    }

    /// Two calls: the count of one does not hide what the other has inserted.
    #[test]
    fn what_two_calls_have_inserted_is_seen_when_neither_holds() {
        let mut builder = loom::model::Builder::new();
        // How often a thread is interrupted at most. All orders take minutes.
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let lease = Arc::new(Lease::new());
            let held = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            assert!(lease.begin(1, 10));
            let holders: Vec<_> = (0..2)
                .map(|at| {
                    let (lease, held) = (Arc::clone(&lease), Arc::clone(&held));
                    spawn(move || {
                        let hold = || held[at].store(1, Ordering::Relaxed);
                        lease.hold(1, hold).is_some()
                    })
                })
                .collect();
            lease.end(1);
            let settled = (lease.holds() == 0).then(|| {
                let read = |one: &AtomicU64| one.load(Ordering::Relaxed) == 1;
                [read(&held[0]), read(&held[1])]
            });
            let said: Vec<_> = holders.into_iter().map(|one| one.join().unwrap()).collect();
            if let Some(settled) = settled {
                assert_eq!(&settled[..], said);
            }
        });
    }

    /// A deadline that is being moved does not outlive the end of its epoch.
    #[test]
    fn no_deadline_is_set_after_the_end() {
        loom::model(|| {
            let lease = Arc::new(Lease::new());
            assert!(lease.begin(1, 10));
            let other = spawn({
                let lease = Arc::clone(&lease);
                move || lease.extend(1, 20)
            });
            assert!(lease.end(1));
            assert_eq!(lease.deadline(), 0);
            let _ = other.join().unwrap();
            assert_eq!(lease.deadline(), 0);
        });
    }
}
