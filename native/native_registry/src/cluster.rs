//! Registries that are part of a cluster.
//!
//! The table has the names of this node's processes. Which processes of other nodes hold which
//! names, the cluster's engine knows. What is kept here are the names that were held on this node
//! until their holders ended: an engine that hangs has not given such a name to another node, so
//! that a restarted process may have it back without asking.

use crate::directory::Open;
use crate::names::with_name;
use ahash::RandomState;
use rustler::{Encoder, Env, Term};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

rustler::atoms! { undefined, elsewhere }

/// How long a name counts as left behind. A supervisor restarts a process at once, unless it waits
/// for others; a name that nobody has taken up again by then is like any other.
const GRACE: Duration = Duration::from_secs(30);

/// How many bytes of names are kept at most, each with what it costs to keep it. When more processes
/// end, the first are forgotten.
const MOST_BYTES: usize = 8 << 20;
const EACH: usize = 96;

/// The names whose holders ended a short while ago.
pub(crate) struct Ended(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    since: HashMap<Arc<[u8]>, Instant, RandomState>,
    /// The same in their order, and names that have ended once more since.
    order: VecDeque<(Arc<[u8]>, Instant)>,
    bytes: usize,
}

impl Ended {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Keeps the name of a process that has ended.
    pub(crate) fn note(&self, name: &[u8]) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, now) = (Arc::<[u8]>::from(name), Instant::now());
        recent.since.insert(Arc::clone(&name), now);
        recent.bytes += name.len() + EACH;
        recent.order.push_back((name, now));
        recent.forget(now);
    }

    fn has(&self, name: &[u8]) -> bool {
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

/// What is to be said of a name that no process of this node holds: `:undefined` when the registry
/// is this node's alone, else `:elsewhere`.
#[inline]
pub(crate) fn look_elsewhere<'a>(env: Env<'a>, open: &Open) -> Term<'a> {
    match open.ended {
        None => undefined().encode(env),
        Some(_) => elsewhere().encode(env),
    }
}

/// `(registry, name)`: whether a process of this node held the name until it ended, a short while
/// ago.
#[rustler::nif]
fn was_held<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        let ended = open.ended.as_ref();
        ended.is_some_and(|ended| ended.has(name)).encode(env)
    })
}

#[cfg(test)]
mod tests {
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
