//! What happens to names, told to those who asked.
//!
//! A change of the table is written down while the shard it happens in is locked, so the changes
//! of one name stand in the order in which they happened. Who reads them sends messages, which is
//! no work for a thread that holds a lock, or that a caller waits for: a courier thread does it.

use crate::Pid;
use crate::name;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

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

/// Who is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The process that is registered with the VM by this atom (its word).
    Listener(u64),
    /// A process that subscribed to names of a pattern.
    Subscriber(Pid),
    /// A process that waits for the name, by the number it was given. It is told once.
    Waiter(Pid, u64),
}

/// What [`Journal::take`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<V> {
    /// A change, and who is to be told.
    Event(Event<V>, Vec<Recipient>),
    /// The registry is closed, and these waited for names in vain.
    Closed(Vec<Recipient>),
}

/// Waiters of all registries have different numbers, so none takes the word of another's.
static NEXT_WAITER: AtomicU64 = AtomicU64::new(0);

struct Subscription {
    pattern: Box<[u8]>,
    /// The first event that happened after the subscription.
    since: u64,
}

/// What is to be told.
struct Events<V> {
    queue: VecDeque<Event<V>>,
    /// How many events there have been, taken out or not.
    written: u64,
    closed: bool,
    /// Those who waited when it was closed.
    in_vain: Vec<Recipient>,
}

/// Who wants to be told.
#[derive(Default)]
struct Interest {
    listeners: Vec<u64>,
    subscriptions: HashMap<Pid, Vec<Subscription>>,
    /// Name to who waits for it.
    waiting: HashMap<Box<[u8]>, Vec<(Pid, u64)>>,
    /// Who waits, and for which names.
    waiters: HashMap<Pid, HashMap<u64, Box<[u8]>>>,
    closed: bool,
}

impl Interest {
    fn forget_waiter(&mut self, pid: Pid, number: u64) -> bool {
        let Some(names) = self.waiters.get_mut(&pid) else {
            return false;
        };
        let Some(name) = names.remove(&number) else {
            return false;
        };
        if names.is_empty() {
            self.waiters.remove(&pid);
        }
        if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.retain(|(_, other)| *other != number);
            if waiting.is_empty() {
                self.waiting.remove(&name);
            }
        }
        true
    }
}

/// The changes not told yet, and who wants to be told.
///
/// Two locks, so that whoever changes a name does not wait while it is found out who is to be told of
/// another change. Where both are needed, that of `interest` comes first.
pub struct Journal<V> {
    /// Whether anybody wants to be told: all that a registration pays when nobody does.
    active: AtomicBool,
    events: Mutex<Events<V>>,
    written: Condvar,
    interest: RwLock<Interest>,
}

impl<V> Default for Journal<V> {
    fn default() -> Self {
        Self {
            active: AtomicBool::default(),
            events: Mutex::new(Events {
                queue: VecDeque::new(),
                written: 0,
                closed: false,
                in_vain: Vec::new(),
            }),
            written: Condvar::new(),
            interest: RwLock::default(),
        }
    }
}

impl<V> Journal<V> {
    /// Whether changes have to be written down.
    #[inline]
    pub(crate) fn active(&self) -> bool {
        // Asked while the shard is locked that a name has just changed in. Whoever wants to be
        // told says so before looking at that shard, so one of the two sees the other.
        self.active.load(Ordering::SeqCst)
    }

    fn events(&self) -> MutexGuard<'_, Events<V>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interest(&self) -> RwLockReadGuard<'_, Interest> {
        self.interest.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_interest(&self) -> RwLockWriteGuard<'_, Interest> {
        self.interest
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that changes are written down exactly when somebody wants them.
    fn update(&self, interest: &Interest) {
        let nobody = interest.listeners.is_empty()
            && interest.subscriptions.is_empty()
            && interest.waiting.is_empty();
        let wanted = !(interest.closed || nobody);
        self.active.store(wanted, Ordering::SeqCst);
    }

    pub(crate) fn write(&self, event: Event<V>) {
        let mut events = self.events();
        if !events.closed {
            events.written += 1;
            events.queue.push_back(event);
            self.written.notify_one();
        }
    }

    /// Those processes, registered with the VM by these atoms, are told of all changes; nobody
    /// else is as a listener.
    pub fn listen(&self, listeners: Vec<u64>) {
        let mut interest = self.change_interest();
        interest.listeners = listeners;
        self.update(&interest);
    }

    /// The process is told of changes, from now on, of names that match the pattern; once, however
    /// many of its patterns match.
    pub fn subscribe(&self, pid: Pid, pattern: &[u8]) {
        let mut interest = self.change_interest();
        let since = self.events().written;
        let patterns = interest.subscriptions.entry(pid).or_default();
        if patterns.iter().all(|other| *other.pattern != *pattern) {
            patterns.push(Subscription {
                pattern: pattern.into(),
                since,
            });
        }
        self.update(&interest);
    }

    /// The process is told no more of names of this pattern; answers whether it was.
    pub fn unsubscribe(&self, pid: Pid, pattern: &[u8]) -> bool {
        let mut interest = self.change_interest();
        let Some(patterns) = interest.subscriptions.get_mut(&pid) else {
            return false;
        };
        let before = patterns.len();
        patterns.retain(|subscription| *subscription.pattern != *pattern);
        let removed = patterns.len() < before;
        if patterns.is_empty() {
            interest.subscriptions.remove(&pid);
        }
        self.update(&interest);
        removed
    }

    /// The process waits for the name; answers the number by which it will be told.
    pub(crate) fn wait(&self, pid: Pid, name: &[u8]) -> u64 {
        let mut interest = self.change_interest();
        let number = NEXT_WAITER.fetch_add(1, Ordering::Relaxed);
        if interest.closed {
            self.events().in_vain.push(Recipient::Waiter(pid, number));
            self.written.notify_all();
            return number;
        }
        let waiting = interest.waiting.entry(name.into()).or_default();
        waiting.push((pid, number));
        let names = interest.waiters.entry(pid).or_default();
        names.insert(number, name.into());
        self.update(&interest);
        number
    }

    /// The process does not wait by this number any more; `false` when it has been told, or is
    /// about to be.
    pub fn forget_waiter(&self, pid: Pid, number: u64) -> bool {
        let mut interest = self.change_interest();
        let forgotten = interest.forget_waiter(pid, number);
        self.update(&interest);
        forgotten
    }

    /// The process has ended and is told nothing any more.
    pub fn forget(&self, pid: Pid) {
        if !self.active() {
            return;
        }
        // Most that end have asked for nothing, and need not wait for those who do.
        let interest = self.interest();
        if !interest.subscriptions.contains_key(&pid) && !interest.waiters.contains_key(&pid) {
            return;
        }
        drop(interest);
        let mut interest = self.change_interest();
        interest.subscriptions.remove(&pid);
        let names = interest.waiters.get(&pid);
        let numbers: Vec<_> = names.into_iter().flat_map(HashMap::keys).copied().collect();
        for number in numbers {
            interest.forget_waiter(pid, number);
        }
        self.update(&interest);
    }

    /// How many processes subscribed, and how many wait.
    pub fn interested(&self) -> (usize, usize) {
        let interest = self.interest();
        let waiting = interest.waiting.values().map(Vec::len).sum();
        (interest.subscriptions.len(), waiting)
    }

    /// Waits for the next thing to tell; `None` when the journal is closed and all has been told.
    pub fn take(&self) -> Option<Notice<V>> {
        let mut events = self.events();
        loop {
            if let Some(event) = events.queue.pop_front() {
                let number = events.written - events.queue.len() as u64 - 1;
                drop(events);
                let recipients = self.recipients(&event, number);
                return Some(Notice::Event(event, recipients));
            }
            if !events.in_vain.is_empty() {
                return Some(Notice::Closed(std::mem::take(&mut events.in_vain)));
            }
            if events.closed {
                return None;
            }
            events = self
                .written
                .wait(events)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn recipients(&self, event: &Event<V>, number: u64) -> Vec<Recipient> {
        let interest = self.interest();
        let listeners = interest.listeners.iter().copied();
        let mut recipients: Vec<_> = listeners.map(Recipient::Listener).collect();
        let wants = |subscription: &Subscription| {
            subscription.since <= number && name::matches(&subscription.pattern, &event.name)
        };
        for (pid, patterns) in &interest.subscriptions {
            if patterns.iter().any(wants) {
                recipients.push(Recipient::Subscriber(*pid));
            }
        }
        let awaited =
            event.change == Change::Registered && interest.waiting.contains_key(&event.name);
        drop(interest);
        if awaited {
            let mut interest = self.change_interest();
            let waiting = interest.waiting.get(&event.name).cloned();
            for (pid, number) in waiting.unwrap_or_default() {
                interest.forget_waiter(pid, number);
                recipients.push(Recipient::Waiter(pid, number));
            }
            self.update(&interest);
        }
        recipients
    }

    /// Nothing is written down any more, and the courier may go once it has told the rest.
    pub fn close(&self) {
        let mut interest = self.change_interest();
        interest.closed = true;
        let waiting = std::mem::take(&mut interest.waiting);
        interest.waiters.clear();
        self.active.store(false, Ordering::SeqCst);
        let mut events = self.events();
        events.closed = true;
        // Added: those of an earlier closing may not have been told yet.
        events.in_vain.extend(
            waiting
                .into_values()
                .flatten()
                .map(|(pid, number)| Recipient::Waiter(pid, number)),
        );
        self.written.notify_all();
    }
}

impl<V> Journal<V> {
    /// Who is to be told of what happens to the name besides its changes; of `None`, everybody who is
    /// told of any name.
    pub fn audience(&self, name: Option<&[u8]>) -> Vec<Recipient> {
        let interest = self.interest();
        let listeners = interest.listeners.iter().copied();
        let subscribers = interest.subscriptions.iter().filter(|(_, patterns)| {
            name.is_none_or(|name| patterns.iter().any(|own| name::matches(&own.pattern, name)))
        });
        let subscribers = subscribers.map(|(pid, _)| Recipient::Subscriber(*pid));
        listeners
            .map(Recipient::Listener)
            .chain(subscribers)
            .collect()
    }
}
