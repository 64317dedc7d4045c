//! Names that were held until a short while ago.

use ahash::RandomState;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a name is kept. A supervisor restarts a process at once, unless it waits for others.
const GRACE: Duration = Duration::from_secs(30);

/// How many bytes the names may take, and what a name takes besides its bytes. If there are more, the
/// oldest are forgotten.
const MOST_BYTES: usize = 8 << 20;
const EACH: usize = 96;

/// The names whose holders ended a short while ago.
#[derive(Default)]
pub struct Ended(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    since: HashMap<Arc<[u8]>, Instant, RandomState>,
    /// The same names, the oldest first. A name that was noted twice stands here twice.
    order: VecDeque<(Arc<[u8]>, Instant)>,
    bytes: usize,
}

impl Ended {
    /// No names.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::default())
    }

    /// Keeps the name of a process that has just ended.
    pub fn note(&self, name: &[u8]) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, now) = (Arc::<[u8]>::from(name), Instant::now());
        recent.since.insert(Arc::clone(&name), now);
        recent.bytes += name.len() + EACH;
        recent.order.push_back((name, now));
        recent.forget(now);
    }

    /// Whether the process that held the name ended a short while ago.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = recent.since.get(name);
        since.is_some_and(|since| since.elapsed() < GRACE)
    }
}

impl Recent {
    fn forget(&mut self, now: Instant) {
        while let Some((_, since)) = self.order.front() {
            if self.bytes <= MOST_BYTES && now.duration_since(*since) < GRACE {
                return;
            }
            let Some((name, since)) = self.order.pop_front() else {
                return;
            };
            self.bytes -= name.len() + EACH;
            if self.since.get(&name) == Some(&since) {
                self.since.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_kept_until_there_is_no_room() {
        let ended = Ended::new();
        ended.note(b"first");
        assert!(ended.has(b"first"));
        assert!(!ended.has(b"second"));
        ended.note(b"first");
        for number in 0..u32::try_from(MOST_BYTES / EACH).unwrap() {
            ended.note(&number.to_le_bytes());
        }
        assert!(!ended.has(b"first"));
        let recent = ended.0.lock().unwrap();
        assert!(recent.bytes <= MOST_BYTES);
        assert!(recent.since.len() <= recent.order.len());
    }
}
