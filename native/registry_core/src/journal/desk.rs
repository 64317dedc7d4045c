//! What was asked for, and what is to be told.

use super::event::{Change, Recipient};
use super::patterns::Patterns;
use super::queue::{Asked, Batch, Queue};
use super::sketch::Sketch;
use super::subscribers::Subscribers;
use crate::pid::Pid;
use ahash::RandomState;
use crossbeam_utils::CachePadded;
use crossbeam_utils::sync::ShardedLock;
use dashmap::DashMap;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Made when something is first asked for.
pub(super) struct Desk<V> {
    queue: Mutex<Queue<V>>,
    /// The events that the courier took out together and has not dealt with yet.
    pub(super) batch: Mutex<Batch<V>>,
    /// Whether something comes before the rest of the batch. Written with the queue locked.
    pub(super) urgent: AtomicBool,
    /// The atoms of the listeners, as words.
    pub(super) listeners: RwLock<Vec<u64>>,
    /// The atoms of those that are told of releases alone.
    pub(super) releases: RwLock<Vec<u64>>,
    /// Read at every change, on all schedulers at once, so it shares no line of memory with what is
    /// written. Written with the patterns locked.
    pub(super) sketch: CachePadded<Sketch<CELLS>>,
    /// Read at every change that may match one.
    pub(super) patterns: ShardedLock<Patterns<Arc<Subscribers>>>,
    /// By name, the processes that wait for it, by the numbers of their waits.
    pub(super) waiting: DashMap<Arc<[u8]>, BTreeMap<u64, Pid>, RandomState>,
    /// By process, what it asked for.
    pub(super) asked: DashMap<Pid, Asked, RandomState>,
    /// How many processes in `asked` have patterns.
    pub(super) subscribers: AtomicUsize,
}

/// With a thousand patterns, of four names that none of them matches three are told apart from all. 16 KB.
const CELLS: usize = 4_096;

/// Shards of `waiting` and `asked`. Each grows by itself.
const SHARDS: usize = 64;

impl<V> Desk<V> {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue::new()),
            batch: Mutex::default(),
            urgent: AtomicBool::new(false),
            listeners: RwLock::default(),
            releases: RwLock::default(),
            sketch: CachePadded::new(Sketch::new()),
            patterns: ShardedLock::new(Patterns::new()),
            waiting: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            asked: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            subscribers: AtomicUsize::new(0),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<V>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a wait out of what the process asked for; answers the name. `waiting` may have it still.
    pub(super) fn forget_wait(&self, pid: Pid, number: u64) -> Option<Arc<[u8]>> {
        let name = self.asked.get_mut(&pid)?.waits.remove(&number);
        self.asked.remove_if(&pid, |_, asked| asked.is_empty());
        name
    }

    fn recipients_by_atom(&self, change: Change) -> Vec<Recipient> {
        let read = |list: &RwLock<Vec<u64>>| {
            let list = list.read().unwrap_or_else(PoisonError::into_inner);
            list.iter().copied().map(Recipient::Listener).collect()
        };
        let mut recipients: Vec<_> = read(&self.listeners);
        if change == Change::Unregistered {
            recipients.extend(read(&self.releases));
        }
        recipients
    }

    /// The recipients of the event of this name with this number.
    pub(super) fn recipients(&self, name: &[u8], number: u64, change: Change) -> Vec<Recipient> {
        let mut found = Vec::new();
        // Subscribing waits for this lock, so slow work comes after it.
        let patterns = self.patterns.read();
        let patterns = patterns.unwrap_or_else(PoisonError::into_inner);
        patterns.matching(name, |subscribers| found.push(Arc::clone(subscribers)));
        drop(patterns);
        let mut recipients = self.recipients_by_atom(change);
        if let [subscribers] = &found[..] {
            subscribers.of_event(number, |pid| recipients.push(Recipient::Subscriber(pid)));
            return recipients;
        }
        // A process may have subscribed with several of the patterns.
        let mut told = HashSet::with_hasher(RandomState::new());
        for subscribers in found {
            subscribers.of_event(number, |pid| {
                if told.insert(pid) {
                    recipients.push(Recipient::Subscriber(pid));
                }
            });
        }
        recipients
    }

    /// All listeners, and all processes that had subscribed when the event with this number happened: those
    /// that are told of such a change.
    pub(super) fn everybody(&self, number: u64, change: Change) -> Vec<Recipient> {
        let mut recipients = self.recipients_by_atom(change);
        for asked in &self.asked {
            if !asked.patterns.is_empty() && asked.since <= number {
                recipients.push(Recipient::Subscriber(*asked.key()));
            }
        }
        recipients
    }
}
