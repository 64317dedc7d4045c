//! What is to be told, in order.

use super::event::{Event, Waiter};
use crate::pid::Pid;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How much memory the events of one registry may take before they are dropped.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Once an event was dropped, all are until the queue takes no more than this. Otherwise each event
/// that is taken out would make room for one, and a loss would be told each time.
const LOW_BYTES: usize = MAX_BYTES / 2;

/// Roughly what an event takes besides its name and its value.
pub(super) const EVENT_BYTES: usize = 128;

/// What comes before all events. It is not dropped, because there is never more of it than was asked for.
pub(super) enum Urgent {
    /// The process has registered the name that these wait for.
    Awaited(Pid, BTreeMap<u64, Pid>),
    /// The registry is closed, and these waited for names in vain.
    Closed(Vec<Waiter>),
    /// This process has ended; it had asked for this.
    Ended(Pid, Asked),
}

/// What a process has asked for.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) patterns: BTreeSet<Arc<[u8]>>,
    /// The first event that happened after the first of the patterns was asked for.
    pub(super) since: u64,
    /// The names it waits for, by the number of the wait.
    pub(super) waits: BTreeMap<u64, Arc<[u8]>>,
}

impl Asked {
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.waits.is_empty()
    }
}

/// An event, or a gap in the order of events.
pub(super) enum Entry<V> {
    /// The number of an event, the bytes it takes, and the event.
    Event(u64, usize, Event<V>),
    /// How many events were dropped here, and the number of the last of them.
    Lost(u64, u64),
}

/// What the courier takes out together. If it took each by itself, it would hold the lock of the queue
/// too often.
pub(super) enum Batch<V> {
    Urgent(Urgent),
    Entries(VecDeque<Entry<V>>),
}

pub(super) struct Queue<V> {
    urgent: Chunks<Urgent>,
    events: Chunks<Entry<V>>,
    /// How many events there have been in all, with those that were dropped.
    pub(super) written: u64,
    /// The bytes of the events, with those of the last batch.
    bytes: usize,
    /// The bytes of the events of the last batch, and how many they were.
    taken: (usize, usize),
    /// Whether events are dropped.
    full: bool,
    pub(super) lost: u64,
    /// Whether the courier knows that there is something here.
    pub(super) scheduled: bool,
    pub(super) closed: bool,
}

impl<V> Queue<V> {
    pub(super) fn new() -> Self {
        Self {
            urgent: Chunks::new(),
            events: Chunks::new(),
            written: 0,
            bytes: 0,
            taken: (0, 0),
            full: false,
            lost: 0,
            scheduled: false,
            closed: false,
        }
    }

    /// How many events there are, with those of the last batch.
    pub(super) fn backlog(&self) -> usize {
        self.events.len + self.taken.1
    }

    pub(super) fn push_urgent(&mut self, urgent: Urgent) {
        self.urgent.push(urgent);
    }

    /// Puts back the rest of an urgent item of which a part has been dealt with.
    pub(super) fn put_back(&mut self, urgent: Urgent) {
        self.urgent.put_back(urgent);
    }

    /// Puts the event in, or gives it back when there is no room.
    pub(super) fn push(&mut self, event: Event<V>, bytes: usize) -> Result<(), Event<V>> {
        if self.closed {
            return Err(event);
        }
        let number = self.written;
        self.written += 1;
        if self.full {
            self.full = self.bytes > LOW_BYTES;
        } else {
            // A single event is accepted however large it is.
            self.full = self.bytes > 0 && self.bytes + bytes > MAX_BYTES;
        }
        if !self.full {
            self.bytes += bytes;
            self.events.push(Entry::Event(number, bytes, event));
            return Ok(());
        }
        self.lost += 1;
        if let Some(Entry::Lost(count, last)) = self.events.last() {
            *count += 1;
            *last = number;
        } else {
            self.events.push(Entry::Lost(1, number));
        }
        Err(event)
    }

    /// What comes before all batches.
    pub(super) fn take_urgent(&mut self) -> Option<Urgent> {
        self.urgent.pop()
    }

    /// The next batch, after the one before was dealt with. After `None`, the courier is woken for the
    /// next event.
    pub(super) fn take(&mut self) -> Option<Batch<V>> {
        self.bytes -= self.taken.0;
        self.taken = (0, 0);
        let Some(entries) = self.events.pop_chunk() else {
            self.scheduled = false;
            return None;
        };
        let bytes = entries.iter().map(|entry| match entry {
            Entry::Event(_, bytes, _) => *bytes,
            Entry::Lost(..) => 0,
        });
        self.taken = (bytes.sum(), entries.len());
        Some(Batch::Entries(entries))
    }
}

/// A queue that never moves its items. A `VecDeque` of a million would take long to grow, while the
/// thread that puts an item in holds a lock.
struct Chunks<T> {
    chunks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Chunks<T> {
    const SIZE: usize = 128;

    fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
        }
    }

    fn push(&mut self, item: T) {
        self.len += 1;
        match self.chunks.back_mut() {
            Some(last) if last.len() < Self::SIZE => last.push_back(item),
            _ => {
                let mut chunk = VecDeque::with_capacity(Self::SIZE);
                chunk.push_back(item);
                self.chunks.push_back(chunk);
            }
        }
    }

    fn put_back(&mut self, item: T) {
        self.len += 1;
        let chunk = VecDeque::from([item]);
        self.chunks.push_front(chunk);
    }

    fn pop(&mut self) -> Option<T> {
        let first = self.chunks.front_mut()?;
        let item = first.pop_front()?;
        self.len -= 1;
        if first.is_empty() {
            self.chunks.pop_front();
        }
        Some(item)
    }

    fn pop_chunk(&mut self) -> Option<VecDeque<T>> {
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.len();
        Some(chunk)
    }

    fn last(&mut self) -> Option<&mut T> {
        self.chunks.back_mut()?.back_mut()
    }
}
