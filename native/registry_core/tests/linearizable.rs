//! Threads operate on one registry at once. The answers, with their times, have to fit some order in
//! which the operations could have happened one after another. The checker is that of `todc-utils`, after
//! Wing and Gong with Lowe's memory of what has been tried.
//!
//! Real threads, not `loom` or `shuttle`: those explore all orders of the locks and atomics that are
//! taken from their own library instead of `std`. This test is about the locks of DashMap, which has its
//! own, over `parking_lot_core` and `std`; with other locks in their place, another table would be
//! tested. So orders are tried by number instead: many short rounds on few names, from a start that all
//! threads wait for. `LINEARIZABLE_ROUNDS=1000000` tries for longer.
//!
//! Each name is an object of its own here, and histories are checked name by name, which proves no less
//! (linearizability is local). An operation on many names makes its promise for each of them only, so it
//! goes into the history of each: a sweep takes effect on each of its names at some time while it runs,
//! and a select or a list of names finds each as it was at some time while it ran.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use registry_core::epoch::Guard;
use registry_core::journal::{Change, Notice};
use registry_core::name::{Buffer, Encoder};
use registry_core::{Pid, RegisterError, Registry};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use todc_utils::linearizability::{WGLChecker, history::Action, history::History};
use todc_utils::specifications::Specification;

/// What is kept with a name here.
type Value = std::sync::Arc<[u8]>;

const THREADS: usize = 3;
const NAMES: usize = 2;
const PIDS: usize = 3;
/// What each thread does in one round.
const OPERATIONS: usize = 8;

/// What was done to a name, and what came of it.
#[derive(Clone, Debug)]
enum Operation {
    /// The holder and value are those found.
    Looked(Option<(usize, Option<u8>)>),
    /// As `Looked`, without the value.
    Whereis(Option<usize>),
    Registered {
        pid: usize,
        instead_of: Option<usize>,
        value: Option<u8>,
        /// The holder of the name, if it was taken.
        taken: Option<usize>,
    },
    Updated {
        pid: usize,
        value: Option<u8>,
        held: bool,
    },
    Unregistered {
        pid: usize,
        held: bool,
    },
    /// Whether the name was among those of the process.
    Listed {
        pid: usize,
        held: bool,
    },
    /// The process was taken out of the index: the first half of the sweep of this number.
    Withdrawn {
        pid: usize,
        sweep: usize,
    },
    /// The other half.
    Freed {
        pid: usize,
        sweep: usize,
    },
}

/// A name by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Name {
    holder: Option<(usize, Option<u8>)>,
    /// How often the name is listed under each process in the index. A name that another process has
    /// taken over is still listed under the first.
    books: [u8; PIDS],
    /// Sweeps that have taken a process out of the index, by number, and whether the name was listed
    /// under it.
    sweeps: BTreeMap<usize, bool>,
}

impl Name {
    fn holds(&self, pid: usize) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == pid)
    }
}

impl Specification for Name {
    type State = Name;
    type Operation = Operation;

    fn init() -> Name {
        Name::default()
    }

    fn apply(operation: &Operation, name: &Name) -> (bool, Name) {
        let mut after = name.clone();
        let so = match *operation {
            Operation::Looked(found) => found == name.holder,
            Operation::Whereis(found) => found == name.holder.map(|(pid, _)| pid),
            Operation::Registered {
                pid,
                instead_of,
                value,
                taken,
            } => {
                let holder = name.holder.map(|(pid, _)| pid);
                let held = holder.filter(|holder| Some(*holder) != instead_of);
                if held.is_none() {
                    after.holder = Some((pid, value));
                    after.books[pid] += 1;
                }
                taken == held
            }
            Operation::Updated { pid, value, held } => {
                if held {
                    after.holder = Some((pid, value));
                }
                held == name.holds(pid)
            }
            Operation::Unregistered { pid, held } => {
                if held {
                    after.holder = None;
                    after.books[pid] = name.books[pid].saturating_sub(1);
                }
                held == (name.holds(pid) && name.books[pid] > 0)
            }
            Operation::Listed { pid, held } => held == (name.holds(pid) && name.books[pid] > 0),
            Operation::Withdrawn { pid, sweep } => {
                after.sweeps.insert(sweep, name.books[pid] > 0);
                after.books[pid] = 0;
                true
            }
            Operation::Freed { pid, sweep } => {
                if name.sweeps.get(&sweep) == Some(&true) && name.holds(pid) {
                    after.holder = None;
                }
                after.sweeps.remove(&sweep).is_some()
            }
        };
        (so, after)
    }
}

/// One of each size of entries.
fn name(number: usize) -> Box<[u8]> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    encoder.binary(&vec![1; [5, 60][number]]).unwrap();
    encoder.finish().into()
}

fn any() -> Box<[u8]> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    encoder.any().unwrap();
    encoder.finish().into()
}

/// Words without a pattern from a seed; the same as "splitmix64".
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        usize::try_from(word % limit as u64).unwrap()
    }

    fn maybe(&mut self, limit: usize) -> Option<usize> {
        self.below(limit + 2).checked_sub(2)
    }
}

/// An operation, its name, and the times of its start and end.
struct Recorded {
    name: usize,
    from: usize,
    to: usize,
    operation: Operation,
}

/// What the threads of one round share.
struct Round {
    registry: Registry<Value>,
    ended: [AtomicBool; PIDS],
    clock: AtomicUsize,
    sweeps: AtomicUsize,
    recorded: Mutex<Vec<Recorded>>,
}

impl Round {
    fn new() -> Self {
        let registry = Registry::new();
        registry.journal().listen(vec![1]);
        Self {
            registry,
            ended: std::array::from_fn(|_| AtomicBool::new(false)),
            clock: AtomicUsize::new(0),
            sweeps: AtomicUsize::new(0),
            recorded: Mutex::default(),
        }
    }

    /// Of two moments, the earlier has the smaller number.
    fn now(&self) -> usize {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// One thread's part.
    fn run(&self, names: &[Box<[u8]>; NAMES], any: &[u8], random: &mut Random) {
        let mut recorded = Vec::new();
        for _ in 0..OPERATIONS {
            self.operate(names, any, random, &mut recorded);
        }
        self.recorded.lock().unwrap().append(&mut recorded);
    }

    #[allow(clippy::too_many_lines)] // One arm an operation.
    fn operate(
        &self,
        names: &[Box<[u8]>; NAMES],
        any: &[u8],
        random: &mut Random,
        recorded: &mut Vec<Recorded>,
    ) {
        // The first name more often, so that threads meet.
        let number = random.below(NAMES + 2).saturating_sub(2);
        let name = &*names[number];
        // The holder as often as any other process: most operations on a name are done by its holder or
        // in its place. This lookup is none of the operations.
        let holder = self.registry.whereis(&Guard::new(), name).map(number_of);
        let mut somebody = || match holder {
            Some(holder) if random.below(2) == 0 => holder,
            _ => random.below(PIDS),
        };
        let (pid, replaced) = (somebody(), somebody());
        let process = Pid(pid as u64);
        let value = random.maybe(2).map(|value| u8::try_from(value).unwrap());
        let bytes = value.map(|value| Value::from(vec![value]));
        let read = |value: Value| value[0];
        let found = |(pid, value): (Pid, Option<Value>)| (number_of(pid), value.map(read));
        let choice = random.below(100);
        let from = self.now();
        let mut record = |name, from, to, operation| {
            recorded.push(Recorded {
                name,
                from,
                to,
                operation,
            });
        };
        match choice {
            0..30 => {
                let instead_of = (random.below(2) == 0).then_some(replaced);
                let mut watched_at = None;
                let answer = self.registry.register(
                    name,
                    process,
                    instead_of.map(|pid| Pid(pid as u64)),
                    bytes,
                    || {
                        let alive = !self.ended[pid].load(Ordering::SeqCst);
                        watched_at = Some(self.now());
                        alive
                    },
                );
                let to = self.now();
                let operation = |taken| Operation::Registered {
                    pid,
                    instead_of,
                    value,
                    taken,
                };
                match answer {
                    Ok(()) => record(number, from, watched_at.unwrap_or(to), operation(None)),
                    Err(RegisterError::Taken(holder)) => {
                        record(number, from, to, operation(Some(number_of(holder))));
                    }
                    // It was registered all the same, until it was swept.
                    Err(RegisterError::Ended) => {
                        let between = watched_at.unwrap();
                        record(number, from, between, operation(None));
                        self.swept(pid, between, to, to, &mut record);
                    }
                }
            }
            30..45 => {
                let held = self.registry.unregister(name, process);
                record(
                    number,
                    from,
                    self.now(),
                    Operation::Unregistered { pid, held },
                );
            }
            45..55 => {
                let held = self.registry.update(name, process, bytes);
                record(
                    number,
                    from,
                    self.now(),
                    Operation::Updated { pid, value, held },
                );
            }
            55..65 => {
                let holder = self.registry.whereis(&Guard::new(), name).map(number_of);
                record(number, from, self.now(), Operation::Whereis(holder));
            }
            65..75 => {
                let holder = self.registry.lookup(name).map(found);
                record(number, from, self.now(), Operation::Looked(holder));
            }
            75..80 => {
                let listed = self.registry.names_of(process);
                let to = self.now();
                for (number, name) in names.iter().enumerate() {
                    let held = listed.contains(name);
                    record(number, from, to, Operation::Listed { pid, held });
                }
            }
            80..85 => {
                let records: Vec<_> = self.registry.pieces(any).flatten().collect();
                let to = self.now();
                for (number, name) in names.iter().enumerate() {
                    let mut found = records.iter().filter(|record| record.name == *name);
                    let one = found
                        .next()
                        .map(|record| (number_of(record.pid), record.value.clone().map(read)));
                    assert!(found.next().is_none(), "each name once");
                    record(number, from, to, Operation::Looked(one));
                }
            }
            85..95 => {
                self.ended[pid].store(true, Ordering::SeqCst);
                let withdrawn = self.registry.withdraw(process);
                let between = self.now();
                self.registry.release(withdrawn);
                self.swept(pid, from, between, self.now(), &mut record);
            }
            _ => {
                self.ended[pid].store(true, Ordering::SeqCst);
                self.registry.sweep(process);
                let to = self.now();
                self.swept(pid, from, to, to, &mut record);
            }
        }
    }

    /// A sweep whose first half was over by `between`; the other half is over by `to`.
    fn swept(
        &self,
        pid: usize,
        from: usize,
        between: usize,
        to: usize,
        record: &mut impl FnMut(usize, usize, usize, Operation),
    ) {
        let sweep = self.sweeps.fetch_add(1, Ordering::Relaxed);
        for name in 0..NAMES {
            record(name, from, between, Operation::Withdrawn { pid, sweep });
            record(name, from, to, Operation::Freed { pid, sweep });
        }
    }

    fn check(&mut self, names: &[Box<[u8]>; NAMES], seed: u64) {
        for (number, name) in names.iter().enumerate() {
            // Also what is there afterwards.
            let holder = self.registry.whereis(&Guard::new(), name).map(number_of);
            let mut actions = vec![];
            let recorded = self.recorded.get_mut().unwrap();
            let of_name = recorded.iter().filter(|recorded| recorded.name == number);
            // The checker wants to know which process does what; here each does one thing.
            for (process, recorded) in of_name.enumerate() {
                let Recorded {
                    from,
                    to,
                    operation,
                    ..
                } = recorded;
                actions.push(((*from, 0), process, Action::Call(operation.clone())));
                actions.push(((*to, 1), process, Action::Response(operation.clone())));
            }
            let (process, last) = (actions.len(), Operation::Whereis(holder));
            actions.push(((usize::MAX, 0), process, Action::Call(last.clone())));
            actions.push(((usize::MAX, 1), process, Action::Response(last)));
            actions.sort_by_key(|(time, process, _)| (*time, *process));
            let actions: Vec<_> = actions
                .into_iter()
                .map(|(_, process, action)| (process, action))
                .collect();
            assert!(
                WGLChecker::<Name>::is_linearizable(History::from_actions(actions.clone())),
                "round {seed}, name {number}: no order of these explains the answers: {actions:#?}"
            );
        }
        self.check_journal(names, seed);
    }

    /// The changes that were told of a name, in the order in which they were told, lead from one holder
    /// to the next and in the end to the current one.
    fn check_journal(&self, names: &[Box<[u8]>; NAMES], seed: u64) {
        let mut holders = BTreeMap::new();
        let expected: Vec<_> = names
            .iter()
            .map(|name| self.registry.whereis(&Guard::new(), name))
            .collect();
        self.registry.journal().close();
        while let Some(Notice::Event(event, _)) = self.registry.journal().take() {
            let before = match event.change {
                Change::Registered => holders.insert(event.name.clone(), event.pid),
                Change::Unregistered => holders.remove(&event.name),
            };
            let sound = match event.change {
                Change::Registered => before.is_none(),
                Change::Unregistered => before == Some(event.pid),
            };
            assert!(
                sound,
                "round {seed}: {event:?}, while it was held by {before:?}"
            );
        }
        let told: Vec<_> = names
            .iter()
            .map(|name| holders.get(name).copied())
            .collect();
        assert_eq!(told, expected, "round {seed}");
    }
}

fn number_of(pid: Pid) -> usize {
    usize::try_from(pid.0).unwrap()
}

#[test]
fn what_threads_are_answered_at_once_could_have_happened_one_after_another() {
    let rounds =
        std::env::var("LINEARIZABLE_ROUNDS").map_or(30_000, |rounds| rounds.parse().unwrap());
    let names: [Box<[u8]>; NAMES] = std::array::from_fn(name);
    let any = any();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (sender, receiver) = mpsc::channel::<(u64, std::sync::Arc<Round>)>();
                let (names, any, barrier) = (&names, &any, &barrier);
                let (done, finished) = mpsc::channel();
                scope.spawn(move || {
                    for (seed, round) in receiver {
                        barrier.wait();
                        round.run(names, any, &mut Random(seed << 8 | thread as u64));
                        drop(round);
                        done.send(()).unwrap();
                    }
                });
                (sender, finished)
            })
            .collect();
        for seed in 0..rounds {
            let mut round = std::sync::Arc::new(Round::new());
            for (worker, _) in &workers {
                worker.send((seed, round.clone())).unwrap();
            }
            for (_, finished) in &workers {
                finished.recv().unwrap();
            }
            std::sync::Arc::get_mut(&mut round)
                .unwrap()
                .check(&names, seed);
        }
    });
}
