//! Changes of names, told to the processes that asked.
//!
//! A change is written down while the shard of the table in which it happens is locked, so the changes of
//! one name are written down in the order in which they happened. Changes that no process asked for are
//! not written down. A thread of its own, the courier, takes the changes out and sends the messages,
//! because that would take too long for a thread that holds a lock, or for which a caller waits.
//!
//! # Locks
//!
//! Most changes concern no pattern, and find that out without a lock: see `sketch`. A change never waits
//! while patterns are matched: if it cannot read the patterns at once, it is written
//! down, and the courier finds out which processes it concerns. When a process ends, what it asked for is
//! taken out of `Desk::asked`, whose locks are held for a moment each, and its patterns are left to the
//! courier. Of the locks here, only that of the queue is taken while another one is held.

mod event;
mod patterns;
mod subscribers;
mod sync;

mod queue;
mod sketch;
mod wanted;

mod desk;

pub use event::{Change, Event, Notice, Recipient, Waiter};

use crate::pid::Pid;
use desk::Desk;
use patterns::beginning;
use queue::Queue;
use queue::{EVENT_BYTES, Entry, Urgent};
use std::collections::{BTreeMap, btree_map};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError};
use subscribers::Subscribers;
use wanted::{Kind, Look, Wanted};

/// Waits in all registries have different numbers, so a waiter cannot take the message of one registry
/// for that of another.
static NEXT_WAITER: AtomicU64 = AtomicU64::new(0);

/// Tells the courier that there is something to take.
type Wake = Box<dyn Fn() + Send + Sync>;

/// How much memory a value takes.
type Weigh<V> = fn(&V) -> usize;

/// The changes not told yet, and the processes that want to be told.
pub struct Journal<V> {
    wanted: Wanted,
    closed: AtomicBool,
    /// Made when something is first asked for: most registries never need it.
    desk: OnceLock<Box<Desk<V>>>,
    courier: OnceLock<(Wake, Weigh<V>)>,
}

impl<V> Default for Journal<V> {
    fn default() -> Self {
        Self {
            wanted: Wanted::default(),
            closed: AtomicBool::new(false),
            desk: OnceLock::new(),
            courier: OnceLock::new(),
        }
    }
}

impl<V> Journal<V> {
    /// From now on `wake` is called when there is something to take after [`Journal::take`] answered
    /// that there is nothing, and `weigh` when a value is written down. `wake` may be called while a
    /// part of the table is locked, and must not block. Only the first call counts.
    pub fn attach(&self, wake: impl Fn() + Send + Sync + 'static, weigh: fn(&V) -> usize) {
        self.courier.get_or_init(|| (Box::new(wake), weigh));
    }

    fn desk(&self) -> &Desk<V> {
        self.desk.get_or_init(|| Box::new(Desk::new()))
    }

    /// Whether it is closed, or about to be.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A name has changed, and its shard is locked. Writes the change down if a process asked for it;
    /// only then is `kept` called.
    #[inline]
    pub(crate) fn changed(
        &self,
        name: &[u8],
        pid: Pid,
        change: Change,
        kept: impl FnOnce() -> Option<V>,
    ) {
        if let Some(look) = self.wanted.look() {
            self.write(look, name, pid, change, kept);
        }
    }

    fn write(
        &self,
        look: Look,
        name: &[u8],
        pid: Pid,
        change: Change,
        kept: impl FnOnce() -> Option<V>,
    ) {
        let Some(desk) = self.desk.get() else {
            return;
        };
        if look.waiters
            && change == Change::Registered
            && let Some((_, waiters)) = desk.waiting.remove(name)
        {
            self.wanted.subtract(Kind::Waiters, waiters.len());
            self.push_urgent(desk, Urgent::Awaited(pid, waiters));
        }
        let all = look.listeners || look.releases && change == Change::Unregistered;
        if all || look.patterns && desk.sketch.may_match(name) {
            // Not inlined, so that a change that concerns nobody does not prepare for it.
            self.push(desk, all, name, pid, change, kept);
        }
    }

    /// Writes an event down, for all processes or for those of the patterns that the name matches.
    #[inline(never)]
    fn push(
        &self,
        desk: &Desk<V>,
        all: bool,
        name: &[u8],
        pid: Pid,
        change: Change,
        kept: impl FnOnce() -> Option<V>,
    ) {
        if !all && !Self::may_match(desk, name) {
            return;
        }
        let kept = kept();
        let weigh = |value| self.courier.get().map_or(0, |(_, weigh)| weigh(value));
        let bytes = EVENT_BYTES + name.len() + kept.as_ref().map_or(0, weigh);
        let mut queue = desk.queue();
        let refused = queue.push(name, pid, change, kept, bytes);
        self.wake(queue);
        drop(refused);
    }

    fn may_match(desk: &Desk<V>, name: &[u8]) -> bool {
        match desk.patterns.try_read() {
            Ok(patterns) => patterns.may_match(name),
            Err(TryLockError::Poisoned(patterns)) => patterns.into_inner().may_match(name),
            // The patterns are being changed, or are about to be. The courier will find out.
            Err(TryLockError::WouldBlock) => true,
        }
    }

    fn push_urgent(&self, desk: &Desk<V>, urgent: Urgent) {
        let mut queue = desk.queue();
        queue.push_urgent(urgent);
        desk.urgent.store(true, Ordering::Release);
        self.wake(queue);
    }

    /// Wakes the courier if it has seen the queue empty, so not for each event.
    fn wake(&self, mut queue: MutexGuard<'_, Queue<V>>) {
        let scheduled = std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if !scheduled && let Some((wake, _)) = self.courier.get() {
            wake();
        }
    }

    /// Makes these the listeners, which are told of all changes: processes that are registered with the
    /// VM by these atoms.
    pub fn listen(&self, listeners: Vec<u64>) {
        if !listeners.is_empty() || self.desk.get().is_some() {
            self.replace(&self.desk().listeners, Kind::Listeners, listeners);
        }
    }

    /// Makes these the processes that are told of all names that become free, and of nothing else.
    pub fn listen_to_releases(&self, listeners: Vec<u64>) {
        self.replace(&self.desk().releases, Kind::Releases, listeners);
    }

    fn replace(&self, list: &RwLock<Vec<u64>>, kind: Kind, listeners: Vec<u64>) {
        let mut before = list.write().unwrap_or_else(PoisonError::into_inner);
        self.wanted.add(kind, listeners.len());
        let before_len = before.len();
        *before = listeners;
        self.wanted.subtract(kind, before_len);
        drop(before);
        self.wanted.asked();
    }

    /// From now on the process is told of changes of names that match the pattern; once for each
    /// change, however many of its patterns match.
    pub fn subscribe(&self, pid: Pid, pattern: &[u8]) {
        if self.is_closed() {
            return;
        }
        let desk = self.desk();
        self.wanted.add(Kind::Patterns, 1);
        let mut patterns = desk
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let subscribers = patterns.entry(pattern, || {
            // First: a change that does not find the pattern here does not look for it there.
            desk.sketch.add(beginning(pattern));
            Arc::new(Subscribers::new(pattern))
        });
        let written = desk.queue().written;
        let new = match subscribers.lock().entry(pid) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(written);
                true
            }
            btree_map::Entry::Occupied(_) => false,
        };
        let pattern = Arc::clone(&subscribers.pattern);
        drop(patterns);
        if new {
            let mut asked = desk.asked.entry(pid).or_default();
            if asked.patterns.is_empty() {
                asked.since = written;
                desk.subscribers.fetch_add(1, Ordering::Relaxed);
            }
            asked.patterns.insert(pattern);
        } else {
            self.wanted.subtract(Kind::Patterns, 1);
        }
        self.wanted.asked();
    }

    /// The process is not told of names that match this pattern any more; answers whether it was.
    pub fn unsubscribe(&self, pid: Pid, pattern: &[u8]) -> bool {
        let Some(desk) = self.desk.get() else {
            return false;
        };
        let Some(mut asked) = desk.asked.get_mut(&pid) else {
            return false;
        };
        if !asked.patterns.remove(pattern) {
            return false;
        }
        if asked.patterns.is_empty() {
            desk.subscribers.fetch_sub(1, Ordering::Relaxed);
        }
        drop(asked);
        desk.asked.remove_if(&pid, |_, asked| asked.is_empty());
        self.remove_pattern(desk, pid, pattern);
        true
    }

    fn remove_pattern(&self, desk: &Desk<V>, pid: Pid, pattern: &[u8]) {
        let (mut removed, mut last) = (false, false);
        let mut patterns = desk
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        patterns.remove_if(pattern, |subscribers| {
            let mut since = subscribers.lock();
            removed = since.remove(&pid).is_some();
            last = since.is_empty();
            last
        });
        if last {
            desk.sketch.remove(beginning(pattern));
        }
        drop(patterns);
        if removed {
            self.wanted.subtract(Kind::Patterns, 1);
        }
    }

    /// The process waits for the name; answers the number of the wait, by which it will be told that
    /// the name was registered, or that the registry is closed.
    pub(crate) fn wait(&self, pid: Pid, name: &[u8]) -> u64 {
        let number = NEXT_WAITER.fetch_add(1, Ordering::Relaxed);
        let desk = self.desk();
        // All waits for a name share its bytes.
        let shared = desk.waiting.get(name).map(|waiting| waiting.key().clone());
        let name = shared.unwrap_or_else(|| name.into());
        // First: the thread that tells the process takes this out.
        let mut asked = desk.asked.entry(pid).or_default();
        asked.waits.insert(number, Arc::clone(&name));
        drop(asked);
        self.wanted.add(Kind::Waiters, 1);
        desk.waiting
            .entry(Arc::clone(&name))
            .or_default()
            .insert(number, pid);
        // `close` sets the flag before it goes through the waits, under the locks taken above.
        if self.is_closed() && self.take_waiter(desk, &name, number) {
            self.push_urgent(desk, Urgent::Closed(vec![Waiter(pid, number)]));
        }
        self.wanted.asked();
        number
    }

    /// Takes a waiter out unless it is being told; answers whether it did.
    fn take_waiter(&self, desk: &Desk<V>, name: &[u8], number: u64) -> bool {
        let Some(mut waiting) = desk.waiting.get_mut(name) else {
            return false;
        };
        if waiting.remove(&number).is_none() {
            return false;
        }
        drop(waiting);
        desk.waiting
            .remove_if(name, |_, waiting| waiting.is_empty());
        self.wanted.subtract(Kind::Waiters, 1);
        true
    }

    /// Ends the wait with this number; `false` if the process has been told, or is about to be.
    pub fn forget_waiter(&self, pid: Pid, number: u64) -> bool {
        let Some(desk) = self.desk.get() else {
            return false;
        };
        let name = desk.forget_wait(pid, number);
        name.is_some_and(|name| self.take_waiter(desk, &name, number))
    }

    /// The process has ended and is told nothing any more. Does next to nothing if it asked for
    /// nothing, and does not wait while patterns are matched.
    pub fn forget(&self, pid: Pid) {
        if self.wanted.get(Kind::Patterns) == 0 && self.wanted.get(Kind::Waiters) == 0 {
            return;
        }
        let Some(desk) = self.desk.get() else {
            return;
        };
        let Some((_, mut asked)) = desk.asked.remove(&pid) else {
            return;
        };
        if !asked.patterns.is_empty() {
            desk.subscribers.fetch_sub(1, Ordering::Relaxed);
        }
        if asked.waits.len() <= Self::FEW {
            self.forget_waits(desk, pid, std::mem::take(&mut asked.waits));
        }
        if !asked.is_empty() {
            self.push_urgent(desk, Urgent::Ended(pid, asked));
        }
    }

    /// The most waits of an ended process that are taken out at once.
    const FEW: usize = 32;

    fn forget_waits(&self, desk: &Desk<V>, pid: Pid, waits: BTreeMap<u64, Arc<[u8]>>) {
        let taken = waits
            .into_iter()
            .filter(|(number, name)| self.take_waiter(desk, name, *number));
        let taken: Vec<_> = taken.map(|(number, _)| Waiter(pid, number)).collect();
        // A registry that is closing cannot watch a process, and takes it for one that has ended.
        if !taken.is_empty() && self.is_closed() {
            self.push_urgent(desk, Urgent::Closed(taken));
        }
    }

    /// How many processes subscribed, and how many wait.
    pub fn interested(&self) -> (usize, usize) {
        let subscribers = self
            .desk
            .get()
            .map_or(0, |desk| desk.subscribers.load(Ordering::Relaxed));
        (subscribers, self.wanted.get(Kind::Waiters))
    }

    /// How many events have not been told yet, and how many were dropped in all.
    pub fn backlog(&self) -> (usize, u64) {
        self.desk.get().map_or((0, 0), |desk| {
            let queue = desk.queue();
            (queue.backlog(), queue.lost)
        })
    }

    /// The next thing to tell, if there is one. Only one thread should take, because the order between
    /// what two threads take is lost.
    pub fn take(&self) -> Option<Notice<V>> {
        let desk = self.desk.get()?;
        loop {
            let mut batch = desk.batch.lock().unwrap_or_else(PoisonError::into_inner);
            let urgent = desk.urgent.load(Ordering::Acquire);
            if !urgent && let Some(entry) = batch.pop() {
                drop(batch);
                return Some(match entry {
                    Entry::Event(number, event) => {
                        let recipients = desk.recipients(&event.name, number, event.change);
                        Notice::Event(event, recipients)
                    }
                    // Releases may be among them.
                    Entry::Lost(count, last) => {
                        Notice::Lost(count, desk.everybody(last, Change::Unregistered))
                    }
                });
            }
            let urgent = {
                let mut queue = desk.queue();
                let urgent = queue.take_urgent();
                desk.urgent.store(urgent.is_some(), Ordering::Release);
                match urgent {
                    Some(urgent) => urgent,
                    None if !batch.is_empty() || queue.take(&mut batch) => continue,
                    None => return None,
                }
            };
            return Some(match urgent {
                Urgent::Ended(pid, asked) => {
                    drop(batch);
                    for pattern in &asked.patterns {
                        self.remove_pattern(desk, pid, pattern);
                    }
                    self.forget_waits(desk, pid, asked.waits);
                    continue;
                }
                Urgent::Awaited(holder, mut waiting) => {
                    let next = std::iter::from_fn(|| waiting.pop_first());
                    let waiters = next.take(Self::AT_ONCE);
                    let waiters = waiters.map(|(number, pid)| Waiter(pid, number)).collect();
                    if !waiting.is_empty() {
                        desk.queue().put_back(Urgent::Awaited(holder, waiting));
                    }
                    Notice::Awaited(holder, Self::told(desk, waiters))
                }
                Urgent::Closed(mut waiters) => {
                    let some = waiters.split_off(waiters.len().saturating_sub(Self::AT_ONCE));
                    if !waiters.is_empty() {
                        desk.queue().put_back(Urgent::Closed(waiters));
                    }
                    Notice::Closed(Self::told(desk, some))
                }
            });
        }
    }

    /// The most waiters in one notice, so that a registry with many waiters does not hold up others.
    const AT_ONCE: usize = 1_000;

    fn told(desk: &Desk<V>, waiters: Vec<Waiter>) -> Vec<Waiter> {
        for Waiter(pid, number) in &waiters {
            desk.forget_wait(*pid, *number);
        }
        waiters
    }

    /// No change is written down from now on. Changes that were written down before are still told, and
    /// all processes that wait, or are about to wait, are told that the registry is closed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Made if there is none: a thread that makes it meanwhile then finds it closed.
        let desk = self.desk();
        desk.queue().closed = true;
        let mut waiting = Vec::new();
        desk.waiting.retain(|_, waiters| {
            waiting.push(std::mem::take(waiters));
            false
        });
        // After the locks were released: many may wait for one name, and a process that ends needs its
        // lock.
        let waiters = waiting.into_iter().flatten();
        let in_vain: Vec<_> = waiters.map(|(number, pid)| Waiter(pid, number)).collect();
        if !in_vain.is_empty() {
            self.wanted.subtract(Kind::Waiters, in_vain.len());
            self.push_urgent(desk, Urgent::Closed(in_vain));
        }
    }

    /// The processes that are told of changes of this name; with `None`, of changes of any name.
    pub fn audience(&self, name: Option<&[u8]>) -> Vec<Recipient> {
        match (self.desk.get(), name) {
            (None, _) => Vec::new(),
            (Some(desk), Some(name)) => desk.recipients(name, u64::MAX, Change::Registered),
            (Some(desk), None) => desk.everybody(u64::MAX, Change::Registered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Buffer, Encoder};

    /// `{first, second}`, with `:_` for `None`.
    fn name(first: u32, second: Option<u32>) -> Vec<u8> {
        let mut buffer = Buffer::new();
        let mut encoder = Encoder::new(&mut buffer);
        let word = |number: u32| number << 4 | 0xF;
        let written = encoder.tuple(2).and_then(|()| {
            encoder.word(word(first))?;
            match second {
                Some(second) => encoder.word(word(second)),
                None => encoder.any(),
            }
        });
        assert_eq!(written, Ok(()));
        encoder.finish().to_vec()
    }

    /// Whether a change of the name is written down.
    fn is_written(journal: &Journal<()>, name: &[u8]) -> bool {
        let before = journal.backlog().0;
        journal.changed(name, Pid(1), Change::Registered, || None);
        journal.backlog().0 > before
    }

    #[test]
    fn a_change_that_begins_as_no_pattern_does_takes_no_lock_and_is_not_written_down() {
        let journal = Journal::<()>::default();
        journal.subscribe(Pid(9), &name(1, None));
        let desk = journal.desk();
        let locked = desk.patterns.write();
        // What looks for the patterns now, and cannot read them, is written down. By chance a name or two
        // may have the hash of the pattern's beginning.
        let others = (2..12).filter(|first| is_written(&journal, &name(*first, Some(0))));
        assert!(others.count() < 3);
        assert!(is_written(&journal, &name(1, Some(0))));
        drop(locked);
        assert!(is_written(&journal, &name(1, Some(0))));
        // Of a pattern that has gone nothing is left there, while there are others.
        (20..23).for_each(|first| journal.subscribe(Pid(9), &name(first, None)));
        assert!(journal.unsubscribe(Pid(9), &name(1, None)));
        let locked = desk.patterns.write();
        assert!(!is_written(&journal, &name(1, Some(0))));
        drop(locked);
    }

    #[test]
    fn a_listener_to_releases_is_told_of_them_and_of_events_that_were_lost_and_of_nothing_else() {
        let journal = Journal::<()>::default();
        journal.listen_to_releases(vec![7]);
        let (one, two) = (name(1, None), name(2, None));
        assert!(!is_written(&journal, &one));
        journal.subscribe(Pid(9), &one);
        journal.changed(&one, Pid(1), Change::Registered, || None);
        journal.changed(&two, Pid(1), Change::Unregistered, || None);
        let mut told = std::iter::from_fn(|| journal.take()).map(|notice| match notice {
            Notice::Event(event, recipients) => (Some(event.change), recipients),
            _ => (None, Vec::new()),
        });
        let subscriber = vec![Recipient::Subscriber(Pid(9))];
        assert_eq!(told.next(), Some((Some(Change::Registered), subscriber)));
        let listener = vec![Recipient::Listener(7)];
        assert_eq!(
            told.next(),
            Some((Some(Change::Unregistered), listener.clone()))
        );
        assert_eq!(told.next(), None);
        let all = [listener, vec![Recipient::Subscriber(Pid(9))]].concat();
        assert_eq!(journal.desk().everybody(0, Change::Unregistered), all);
        // Of what is sent to the audience of changes it is not told.
        assert_eq!(journal.audience(Some(&two)), vec![]);
        journal.listen_to_releases(vec![]);
        journal.changed(&two, Pid(1), Change::Unregistered, || None);
        assert_eq!(journal.take(), None);
    }

    #[test]
    fn patterns_that_begin_alike_are_told_until_the_last_of_them_has_gone() {
        let journal = Journal::<()>::default();
        let (all, one) = (name(1, None), name(1, Some(1)));
        journal.subscribe(Pid(8), &all);
        journal.subscribe(Pid(9), &all);
        journal.subscribe(Pid(9), &all);
        journal.subscribe(Pid(9), &one);
        assert!(journal.unsubscribe(Pid(9), &all));
        assert!(is_written(&journal, &name(1, Some(2))));
        journal.forget(Pid(8));
        while journal.take().is_some() {}
        assert!(!is_written(&journal, &name(1, Some(2))));
        assert!(is_written(&journal, &one));
        assert!(journal.unsubscribe(Pid(9), &one));
        assert!(!is_written(&journal, &one));
        // The same pattern may come again.
        journal.subscribe(Pid(8), &all);
        assert!(is_written(&journal, &one));
    }
}
