//! What happens to names, told to those who asked.
//!
//! A change of the table is looked at while the shard it happens in is locked, so the changes of one
//! name are written down in the order in which they happened; those that nobody asked for are not
//! written down at all. Who reads them sends messages, which is no work for a thread that holds a
//! lock, or that a caller waits for: a courier thread does it.
//!
//! # What the one waits for the other
//!
//! A change never waits for somebody who matches patterns: where it cannot see the patterns at once it
//! is written down for whoever it may concern. The end of a process takes what it asked for out of
//! `asked`, whose locks are held for a moment each, and leaves patterns to the courier. Of the locks
//! here only that of the queue is taken while another is held.

mod patterns;
mod queue;
mod wanted;

/// Replaced in the test that goes through all interleavings.
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering, fence};
}

use crate::Pid;
use ahash::RandomState;
use crossbeam_utils::sync::ShardedLock;
use dashmap::DashMap;
use patterns::Patterns;
use queue::{Asked, Batch, EVENT_BYTES, Entry, Queue, Urgent};
use std::collections::{BTreeMap, HashSet, VecDeque, btree_map};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, TryLockError};
use wanted::{Kind, Look, Wanted};

/// A change of one name. `V` is what the table keeps with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<V> {
    /// In canonical bytes.
    pub name: Box<[u8]>,
    /// Who holds it now, or did until now.
    pub pid: Pid,
    /// What is kept with the name, or was until now.
    pub kept: Option<V>,
    /// What happened.
    pub change: Change,
}

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was registered.
    Registered,
    /// It was given back, taken from a dead holder, or freed after its holder ended.
    Unregistered,
}

/// Who is told of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The process that is registered with the VM by this atom (its word).
    Listener(u64),
    /// A process that subscribed to names of a pattern.
    Subscriber(Pid),
}

/// A process that waits for a name, and the number it was given. It is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter(pub Pid, pub u64);

/// What [`Journal::take`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<V> {
    /// A change, and who is to be told; nobody, when all who asked have taken it back since.
    Event(Event<V>, Vec<Recipient>),
    /// So many changes were dropped here. Nobody knows any more whom they concerned, so all are told.
    Lost(u64, Vec<Recipient>),
    /// The process has registered a name that these waited for, or some of them; the others come next.
    Awaited(Pid, Vec<Waiter>),
    /// The registry is closed, and these waited for names in vain, or some of them.
    Closed(Vec<Waiter>),
}

/// Waiters of all registries have different numbers, so none takes the word of another's.
static NEXT_WAITER: AtomicU64 = AtomicU64::new(0);

/// How the courier is told that there is something to take.
type Wake = Box<dyn Fn() + Send + Sync>;

/// How much memory a value takes.
type Weigh<V> = fn(&V) -> usize;

/// The changes not told yet, and who wants to be told.
pub struct Journal<V> {
    wanted: Wanted,
    closed: AtomicBool,
    /// Made when somebody first asks: most registries never need it.
    desk: OnceLock<Box<Desk<V>>>,
    courier: OnceLock<(Wake, Weigh<V>)>,
}

struct Desk<V> {
    queue: Mutex<Queue<V>>,
    /// What the courier took out at once and has not dealt with yet.
    batch: Mutex<VecDeque<Entry<V>>>,
    /// Whether something is to be dealt with before the rest of the batch. Written with the queue locked.
    urgent: AtomicBool,
    listeners: RwLock<Vec<u64>>,
    /// Read at every change, on all schedulers at once.
    patterns: ShardedLock<Patterns<Arc<Subscribers>>>,
    /// Name to who waits for it, by number.
    waiting: DashMap<Arc<[u8]>, BTreeMap<u64, Pid>, RandomState>,
    asked: DashMap<Pid, Asked, RandomState>,
    /// How many processes in `asked` have patterns.
    subscribers: AtomicUsize,
}

/// Those who subscribed with one pattern, each with the first event that happened afterwards.
struct Subscribers {
    pattern: Arc<[u8]>,
    since: Mutex<BTreeMap<Pid, u64>>,
}

impl Subscribers {
    /// How many are looked at before others may come and go.
    const AT_ONCE: usize = 1_000;

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pid, u64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that the event with this number happened after.
    fn of_event(&self, number: u64) -> Vec<Pid> {
        let mut pids = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let since = self.lock();
            let mut some = since.range((from, Bound::Unbounded)).take(Self::AT_ONCE);
            let mut last = None;
            for (pid, since) in &mut some {
                last = Some(*pid);
                if *since <= number {
                    pids.push(*pid);
                }
            }
            let Some(last) = last else {
                return pids;
            };
            from = Bound::Excluded(last);
        }
    }
}

/// Shards of what is kept by process and by name. Each grows by itself.
const SHARDS: usize = 64;

impl<V> Desk<V> {
    fn new() -> Self {
        Self {
            queue: Mutex::new(Queue::new()),
            batch: Mutex::default(),
            urgent: AtomicBool::new(false),
            listeners: RwLock::default(),
            patterns: ShardedLock::new(Patterns::new()),
            waiting: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            asked: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            subscribers: AtomicUsize::new(0),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<V>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets that the process waits by this number, so far as that is remembered with the process;
    /// answers the name.
    fn forget_wait(&self, pid: Pid, number: u64) -> Option<Arc<[u8]>> {
        let name = self.asked.get_mut(&pid)?.waits.remove(&number);
        self.asked.remove_if(&pid, |_, asked| asked.is_empty());
        name
    }
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
    /// Has `wake` called when there is something to take and the last [`Journal::take`] answered
    /// that there is nothing, and `weigh` when a value is written down. `wake` may be called with a
    /// part of the table locked, and must not wait. Only the first call counts.
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

    /// A name has changed, and its shard is locked: writes that down if anybody wants to know. `kept`
    /// is called only then.
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
        if look.listeners || look.patterns && Self::may_match(desk, name) {
            let event = Event {
                name: name.into(),
                pid,
                kept: kept(),
                change,
            };
            let weigh = |value| self.courier.get().map_or(0, |(_, weigh)| weigh(value));
            let bytes = EVENT_BYTES + name.len() + event.kept.as_ref().map_or(0, weigh);
            let mut queue = desk.queue();
            let refused = queue.push(event, bytes);
            self.wake(queue);
            drop(refused);
        }
    }

    fn may_match(desk: &Desk<V>, name: &[u8]) -> bool {
        match desk.patterns.try_read() {
            Ok(patterns) => patterns.may_match(name),
            Err(TryLockError::Poisoned(patterns)) => patterns.into_inner().may_match(name),
            // Somebody changes them, or is about to. The courier will find out.
            Err(TryLockError::WouldBlock) => true,
        }
    }

    fn push_urgent(&self, desk: &Desk<V>, urgent: Urgent) {
        let mut queue = desk.queue();
        queue.push_urgent(urgent);
        desk.urgent.store(true, Ordering::Release);
        self.wake(queue);
    }

    /// The courier is woken when it has seen the queue empty, not for each event.
    fn wake(&self, mut queue: MutexGuard<'_, Queue<V>>) {
        let scheduled = std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if !scheduled && let Some((wake, _)) = self.courier.get() {
            wake();
        }
    }

    /// Those processes, registered with the VM by these atoms, are told of all changes; nobody
    /// else is as a listener.
    pub fn listen(&self, listeners: Vec<u64>) {
        if listeners.is_empty() && self.desk.get().is_none() {
            return;
        }
        let desk = self.desk();
        let mut before = desk
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.wanted.add(Kind::Listeners, listeners.len());
        let before_len = before.len();
        *before = listeners;
        self.wanted.subtract(Kind::Listeners, before_len);
        drop(before);
        self.wanted.asked();
    }

    /// The process is told of changes, from now on, of names that match the pattern; once, however
    /// many of its patterns match.
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
            Arc::new(Subscribers {
                pattern: pattern.into(),
                since: Mutex::default(),
            })
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

    /// The process is told no more of names of this pattern; answers whether it was.
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
        let mut removed = false;
        desk.patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove_if(pattern, |subscribers| {
                let mut since = subscribers.lock();
                removed = since.remove(&pid).is_some();
                since.is_empty()
            });
        if removed {
            self.wanted.subtract(Kind::Patterns, 1);
        }
    }

    /// The process waits for the name; answers the number by which it will be told, or told that the
    /// registry is closed.
    pub(crate) fn wait(&self, pid: Pid, name: &[u8]) -> u64 {
        let number = NEXT_WAITER.fetch_add(1, Ordering::Relaxed);
        let desk = self.desk();
        // All who wait for a name share its bytes.
        let shared = desk.waiting.get(name).map(|waiting| waiting.key().clone());
        let name = shared.unwrap_or_else(|| name.into());
        // First: whoever tells it takes this out.
        let mut asked = desk.asked.entry(pid).or_default();
        asked.waits.insert(number, Arc::clone(&name));
        drop(asked);
        self.wanted.add(Kind::Waiters, 1);
        desk.waiting
            .entry(Arc::clone(&name))
            .or_default()
            .insert(number, pid);
        // Whoever closes says so before going through those who wait, under the locks taken above.
        if self.is_closed() && self.take_waiter(desk, &name, number) {
            self.push_urgent(desk, Urgent::Closed(vec![Waiter(pid, number)]));
        }
        self.wanted.asked();
        number
    }

    /// Takes a waiter out unless it is being told; who does so has to tell it, or not to.
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

    /// The process does not wait by this number any more; `false` when it has been told, or is
    /// about to be.
    pub fn forget_waiter(&self, pid: Pid, number: u64) -> bool {
        let Some(desk) = self.desk.get() else {
            return false;
        };
        let name = desk.forget_wait(pid, number);
        name.is_some_and(|name| self.take_waiter(desk, &name, number))
    }

    /// The process has ended and is told nothing any more. Costs next to nothing when it asked for
    /// nothing, and does not wait for anybody who looks at patterns.
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

    /// The most names that a process may wait for and be forgotten at once when it ends.
    const FEW: usize = 32;

    fn forget_waits(&self, desk: &Desk<V>, pid: Pid, waits: BTreeMap<u64, Arc<[u8]>>) {
        let taken = waits
            .into_iter()
            .filter(|(number, name)| self.take_waiter(desk, name, *number));
        let taken: Vec<_> = taken.map(|(number, _)| Waiter(pid, number)).collect();
        // A registry that closes may take a process for ended that it could not have watched.
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

    /// How many events are to be told yet, and how many were ever dropped.
    pub fn backlog(&self) -> (usize, u64) {
        self.desk.get().map_or((0, 0), |desk| {
            let queue = desk.queue();
            (queue.backlog(), queue.lost)
        })
    }

    /// The next thing to tell, if there is one. Of two who take at once the order of what they take is lost.
    pub fn take(&self) -> Option<Notice<V>> {
        let desk = self.desk.get()?;
        loop {
            let mut batch = desk.batch.lock().unwrap_or_else(PoisonError::into_inner);
            let urgent = desk.urgent.load(Ordering::Acquire);
            if !urgent && let Some(entry) = batch.pop_front() {
                drop(batch);
                return Some(match entry {
                    Entry::Event(number, _, event) => {
                        let recipients = Self::recipients(desk, &event.name, number);
                        Notice::Event(event, recipients)
                    }
                    Entry::Lost(count, last) => Notice::Lost(count, Self::everybody(desk, last)),
                });
            }
            let next = {
                let mut queue = desk.queue();
                let urgent = queue.take_urgent().map(Batch::Urgent);
                desk.urgent.store(urgent.is_some(), Ordering::Release);
                if urgent.is_none() && !batch.is_empty() {
                    continue;
                }
                urgent.or_else(|| queue.take())?
            };
            return Some(match next {
                Batch::Entries(entries) => {
                    *batch = entries;
                    continue;
                }
                Batch::Urgent(Urgent::Ended(pid, asked)) => {
                    drop(batch);
                    for pattern in &asked.patterns {
                        self.remove_pattern(desk, pid, pattern);
                    }
                    self.forget_waits(desk, pid, asked.waits);
                    continue;
                }
                Batch::Urgent(Urgent::Awaited(holder, mut waiting)) => {
                    let next = std::iter::from_fn(|| waiting.pop_first());
                    let waiters = next.take(Self::AT_ONCE);
                    let waiters = waiters.map(|(number, pid)| Waiter(pid, number)).collect();
                    if !waiting.is_empty() {
                        desk.queue().put_back(Urgent::Awaited(holder, waiting));
                    }
                    Notice::Awaited(holder, Self::told(desk, waiters))
                }
                Batch::Urgent(Urgent::Closed(mut waiters)) => {
                    let some = waiters.split_off(waiters.len().saturating_sub(Self::AT_ONCE));
                    if !waiters.is_empty() {
                        desk.queue().put_back(Urgent::Closed(waiters));
                    }
                    Notice::Closed(Self::told(desk, some))
                }
            });
        }
    }

    /// The most waiters in one notice, so that a registry with many keeps no other from its turn.
    const AT_ONCE: usize = 1_000;

    fn told(desk: &Desk<V>, waiters: Vec<Waiter>) -> Vec<Waiter> {
        for Waiter(pid, number) in &waiters {
            desk.forget_wait(*pid, *number);
        }
        waiters
    }

    fn listeners(desk: &Desk<V>) -> Vec<Recipient> {
        let listeners = desk.listeners.read();
        let listeners = listeners.unwrap_or_else(PoisonError::into_inner);
        listeners.iter().copied().map(Recipient::Listener).collect()
    }

    fn recipients(desk: &Desk<V>, name: &[u8], number: u64) -> Vec<Recipient> {
        let mut found = Vec::new();
        // Whoever subscribes waits for this, and not for what comes after it.
        let patterns = desk.patterns.read();
        let patterns = patterns.unwrap_or_else(PoisonError::into_inner);
        patterns.matching(name, |subscribers| found.push(Arc::clone(subscribers)));
        drop(patterns);
        let mut recipients = Self::listeners(desk);
        let mut told = HashSet::with_hasher(RandomState::new());
        let many = found.len() > 1;
        for subscribers in found {
            for pid in subscribers.of_event(number) {
                if !many || told.insert(pid) {
                    recipients.push(Recipient::Subscriber(pid));
                }
            }
        }
        recipients
    }

    /// Everybody who wanted to be told of some change when the event with this number happened.
    fn everybody(desk: &Desk<V>, number: u64) -> Vec<Recipient> {
        let mut recipients = Self::listeners(desk);
        for asked in &desk.asked {
            if !asked.patterns.is_empty() && asked.since <= number {
                recipients.push(Recipient::Subscriber(*asked.key()));
            }
        }
        recipients
    }

    /// No change is written down any more. Those that were are told yet, and all who wait, or are
    /// about to, that they do in vain.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Made if need be: whoever makes it meanwhile finds it closed.
        let desk = self.desk();
        desk.queue().closed = true;
        let mut waiting = Vec::new();
        desk.waiting.retain(|_, waiters| {
            waiting.push(std::mem::take(waiters));
            false
        });
        // Not before: there may be many of one name, and who ends meanwhile needs that lock.
        let waiters = waiting.into_iter().flatten();
        let in_vain: Vec<_> = waiters.map(|(number, pid)| Waiter(pid, number)).collect();
        if !in_vain.is_empty() {
            self.wanted.subtract(Kind::Waiters, in_vain.len());
            self.push_urgent(desk, Urgent::Closed(in_vain));
        }
    }

    /// Who is to be told of what happens to the name besides its changes; of `None`, everybody who is
    /// told of any name.
    pub fn audience(&self, name: Option<&[u8]>) -> Vec<Recipient> {
        match (self.desk.get(), name) {
            (None, _) => Vec::new(),
            (Some(desk), Some(name)) => Self::recipients(desk, name, u64::MAX),
            (Some(desk), None) => Self::everybody(desk, u64::MAX),
        }
    }
}
