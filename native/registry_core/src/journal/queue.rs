//! What is to be told, in order.

use super::event::{Change, Event, Waiter};
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
    /// The number of an event, and the event.
    Event(u64, Event<V>),
    /// How many events were dropped here, and the number of the last of them.
    Lost(u64, u64),
}

pub(super) struct Queue<V> {
    urgent: Chunks<Urgent>,
    events: VecDeque<Batch<V>>,
    /// A batch that the courier has dealt with. Events are written into it again: its memory is still in
    /// a cache, and nothing has to be allocated.
    spare: Option<Batch<V>>,
    /// How many events there are.
    len: usize,
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
            events: VecDeque::new(),
            spare: None,
            len: 0,
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
        self.len + self.taken.1
    }

    pub(super) fn push_urgent(&mut self, urgent: Urgent) {
        self.urgent.push(urgent);
    }

    /// Puts back the rest of an urgent item of which a part has been dealt with.
    pub(super) fn put_back(&mut self, urgent: Urgent) {
        self.urgent.put_back(urgent);
    }

    /// Puts an event in, or gives what is kept with the name back when there is no room.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        pid: Pid,
        change: Change,
        kept: Option<V>,
        bytes: usize,
    ) -> Result<(), Option<V>> {
        if self.closed {
            return Err(kept);
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
            self.len += 1;
            self.last(name.len())
                .push(number, name, pid, change, kept, bytes);
            return Ok(());
        }
        self.lost += 1;
        let last = self
            .events
            .back_mut()
            .and_then(|batch| batch.entries.back_mut());
        if let Some(Written::Lost(count, last)) = last {
            *count += 1;
            *last = number;
        } else {
            self.len += 1;
            self.last(0).entries.push_back(Written::Lost(1, number));
        }
        Err(kept)
    }

    /// The batch to which the next entry is added, whose name has this many bytes.
    fn last(&mut self, name: usize) -> &mut Batch<V> {
        if !self.events.back().is_some_and(|last| last.has_room(name)) {
            let spare = self.spare.take().filter(|spare| spare.has_room(name));
            let batch = spare.unwrap_or_else(|| Batch::with_room(name));
            self.events.push_back(batch);
        }
        let last = self.events.len() - 1;
        &mut self.events[last]
    }

    /// What comes before all batches.
    pub(super) fn take_urgent(&mut self) -> Option<Urgent> {
        self.urgent.pop()
    }

    /// Puts the next batch in place of the one before, which has been dealt with. When it answers `false`,
    /// there is none, and the courier is woken for the next event.
    pub(super) fn take(&mut self, batch: &mut Batch<V>) -> bool {
        self.bytes -= self.taken.0;
        let next = self.events.pop_front();
        self.scheduled = next.is_some();
        let next = next.unwrap_or_default();
        self.taken = (next.bytes, next.entries.len());
        self.len -= self.taken.1;
        let before = std::mem::replace(batch, next);
        self.spare = before.cleared().or(self.spare.take());
        self.scheduled
    }
}

/// What the courier takes out together. If it took each entry by itself, it would hold the lock of the
/// queue too often.
pub(super) struct Batch<V> {
    entries: VecDeque<Written<V>>,
    /// The names of the events, one after the other, so that a thread that writes an event down does not
    /// allocate memory, which the courier's thread then frees.
    names: Vec<u8>,
    /// Where the name of the next event begins.
    from: usize,
    /// What the events take, with their values.
    bytes: usize,
}

/// An [`Entry`] whose name is in the batch.
enum Written<V> {
    Event {
        number: u64,
        /// Where the name ends.
        end: usize,
        pid: Pid,
        change: Change,
        kept: Option<V>,
    },
    Lost(u64, u64),
}

impl<V> Default for Batch<V> {
    /// Without memory.
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            names: Vec::new(),
            from: 0,
            bytes: 0,
        }
    }
}

impl<V> Batch<V> {
    /// How many entries there are in one batch at most, and how many bytes their names have. A longer
    /// name has a batch of its own. So nothing ever grows: that would take long while a thread holds a
    /// lock.
    const SIZE: usize = 128;
    const NAMES: usize = 4_096;

    fn with_room(name: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(Self::SIZE),
            names: Vec::with_capacity(name.max(Self::NAMES)),
            ..Self::default()
        }
    }

    fn has_room(&self, name: usize) -> bool {
        self.entries.len() < Self::SIZE && self.names.capacity() - self.names.len() >= name
    }

    /// Without the entries, to be used again; `None` when it has not the usual size.
    fn cleared(mut self) -> Option<Self> {
        self.entries.clear();
        self.names.clear();
        (self.from, self.bytes) = (0, 0);
        let usual = Self::NAMES..=2 * Self::NAMES;
        usual.contains(&self.names.capacity()).then_some(self)
    }

    fn push(
        &mut self,
        number: u64,
        name: &[u8],
        pid: Pid,
        change: Change,
        kept: Option<V>,
        bytes: usize,
    ) {
        self.bytes += bytes;
        self.names.extend_from_slice(name);
        self.entries.push_back(Written::Event {
            number,
            end: self.names.len(),
            pid,
            change,
            kept,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry, which is taken out.
    pub(super) fn pop(&mut self) -> Option<Entry<V>> {
        Some(match self.entries.pop_front()? {
            Written::Event {
                number,
                end,
                pid,
                change,
                kept,
            } => {
                let name = self.names[self.from..end].into();
                self.from = end;
                let event = Event {
                    name,
                    pid,
                    kept,
                    change,
                };
                Entry::Event(number, event)
            }
            Written::Lost(count, last) => Entry::Lost(count, last),
        })
    }
}

/// A queue that never moves its items. A `VecDeque` of a million would take long to grow, while the
/// thread that puts an item in holds a lock.
struct Chunks<T> {
    chunks: VecDeque<VecDeque<T>>,
}

impl<T> Chunks<T> {
    const SIZE: usize = 128;

    fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
        }
    }

    fn push(&mut self, item: T) {
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
        let chunk = VecDeque::from([item]);
        self.chunks.push_front(chunk);
    }

    fn pop(&mut self) -> Option<T> {
        let first = self.chunks.front_mut()?;
        let item = first.pop_front()?;
        if first.is_empty() {
            self.chunks.pop_front();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue<u64>, name: &[u8], number: u64) {
        let bytes = EVENT_BYTES + name.len();
        let pushed = queue.push(name, Pid(number), Change::Registered, Some(number), bytes);
        assert_eq!(pushed, Ok(()));
    }

    /// Short names, and some that have no room beside others.
    fn name(number: u64) -> Vec<u8> {
        let len = if number % 50 == 7 {
            number * 10
        } else {
            number % 60
        };
        (number..number + len)
            .map(|byte| byte.to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn events_come_out_as_they_went_in_whatever_the_lengths_of_their_names() {
        let mut queue = Queue::new();
        let mut batch = Batch::default();
        let (mut put, mut taken) = (0, 0);
        // Again and again some are put in and some taken out, so that batches are used again.
        for round in 0..40_u64 {
            for _ in 0..round * 13 % 300 {
                push(&mut queue, &name(put), put);
                put += 1;
            }
            for _ in 0..round * 7 % 250 {
                if batch.is_empty() && !queue.take(&mut batch) {
                    break;
                }
                // Only a name that has no room beside others makes a batch larger.
                assert!(batch.names.len() <= Batch::<u64>::NAMES || batch.from == 0);
                let Some(Entry::Event(number, event)) = batch.pop() else {
                    unreachable!("there is no other entry")
                };
                assert_eq!(
                    (number, event.pid, event.kept),
                    (taken, Pid(taken), Some(taken))
                );
                assert_eq!(*event.name, name(taken));
                taken += 1;
            }
            let left = usize::try_from(put - taken).unwrap_or(usize::MAX);
            // Of the last batch, those that have been dealt with are still counted.
            assert!((left..left + Batch::<u64>::SIZE).contains(&queue.backlog()));
        }
        assert!(put > 4_000 && taken > 3_000);
        while !batch.is_empty() || queue.take(&mut batch) {
            taken += u64::from(batch.pop().is_some());
        }
        assert_eq!((put, queue.backlog(), queue.bytes), (taken, 0, 0));
    }

    #[test]
    fn one_event_after_the_other_takes_the_memory_of_the_first() {
        let mut queue = Queue::new();
        let mut batch = Batch::default();
        let mut places = Vec::new();
        for number in 0..10 {
            push(&mut queue, b"name", number);
            assert!(queue.take(&mut batch));
            places.push(batch.names.as_ptr());
            assert!(batch.pop().is_some());
            assert!(!queue.take(&mut batch));
        }
        places.dedup();
        assert_eq!(places.len(), 1);
    }

    #[test]
    fn events_that_have_no_room_are_counted_where_they_are_missing() {
        let mut queue = Queue::new();
        let half = MAX_BYTES / 2;
        for number in 0..5 {
            let pushed = queue.push(b"name", Pid(1), Change::Registered, Some(number), half);
            assert_eq!(
                pushed,
                if number < 2 {
                    Ok(())
                } else {
                    Err(Some(number))
                }
            );
        }
        assert_eq!((queue.backlog(), queue.lost), (3, 3));
        let mut batch = Batch::default();
        assert!(queue.take(&mut batch));
        assert!(matches!(batch.pop(), Some(Entry::Event(0, _))));
        assert!(matches!(batch.pop(), Some(Entry::Event(1, _))));
        assert!(matches!(batch.pop(), Some(Entry::Lost(3, 4))));
        assert!(batch.pop().is_none());
    }
}
