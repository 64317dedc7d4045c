//! The processes that subscribed with one pattern.

use crate::pid::Pid;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The processes that subscribed with one pattern, each with the number of the first event that
/// happened afterwards.
pub(super) struct Subscribers {
    pub(super) pattern: Arc<[u8]>,
    since: Mutex<BTreeMap<Pid, u64>>,
}

impl Subscribers {
    /// How many processes are looked at before others may subscribe or unsubscribe.
    const AT_ONCE: usize = 1_000;

    pub(super) fn new(pattern: &[u8]) -> Self {
        Self {
            pattern: pattern.into(),
            since: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<Pid, u64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with each process that had subscribed when the event with this number happened. Others
    /// may wait for a lock meanwhile.
    pub(super) fn of_event(&self, number: u64, mut f: impl FnMut(Pid)) {
        let mut from = Bound::Unbounded;
        loop {
            let since = self.lock();
            let mut some = since.range((from, Bound::Unbounded)).take(Self::AT_ONCE);
            let mut last = None;
            for (pid, since) in &mut some {
                last = Some(*pid);
                if *since <= number {
                    f(*pid);
                }
            }
            let Some(last) = last else {
                return;
            };
            from = Bound::Excluded(last);
        }
    }
}
