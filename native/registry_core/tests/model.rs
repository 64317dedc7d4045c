//! The registry against a sequential model: after any operations in any order, it answers what a few
//! plain collections answer. A history that fails is shrunk to its shortest; `PROPTEST_CASES=1000000`
//! looks for one for longer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::vec;
use proptest::prelude::*;
use registry_core::epoch::Guard;
use registry_core::journal::{Change, Event, Notice, Recipient, Waiter};
use registry_core::name::{Buffer, Encoder};
use registry_core::{Pid, Record, RegisterError, Registry, Withdrawn};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};

/// What is kept with a name here.
type Value = Arc<[u8]>;

const NAMES: u8 = 12;
const PIDS: u64 = 6;
const VALUES: usize = 3;

/// `{kind, filler}` in canonical bytes: names of two kinds whose sizes lie at the limits of all
/// three sizes of entries.
fn name(number: u8) -> &'static [u8] {
    static ALL: LazyLock<Vec<Box<[u8]>>> = LazyLock::new(|| {
        let name = |number: u8| {
            let filler = [0, 21, 22, 73, 74, 300][usize::from(number / 2)];
            write(|encoder| {
                encoder.tuple(2).unwrap();
                encoder.word(kind(number)).unwrap();
                encoder.binary(&vec![7; filler]).unwrap();
            })
        };
        (0..NAMES).map(name).collect()
    });
    &ALL[usize::from(number)]
}

fn kind(number: u8) -> u32 {
    u32::from(number % 2) << 4 | 0xF
}

fn write(write: impl FnOnce(&mut Encoder<'_>)) -> Box<[u8]> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder);
    encoder.finish().into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Every,
    Kind(u8),
    Name(u8),
}

impl Pattern {
    fn bytes(self) -> Box<[u8]> {
        match self {
            Pattern::Every => write(|encoder| encoder.any().unwrap()),
            Pattern::Kind(number) => write(|encoder| {
                encoder.tuple(2).unwrap();
                encoder.word(kind(number)).unwrap();
                encoder.any().unwrap();
            }),
            Pattern::Name(number) => name(number).into(),
        }
    }

    fn matches(self, number: u8) -> bool {
        match self {
            Pattern::Every => true,
            Pattern::Kind(other) => kind(number) == kind(other),
            Pattern::Name(other) => number == other,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        name: u8,
        pid: u64,
        instead_of: Option<u64>,
        value: Option<usize>,
    },
    Update {
        name: u8,
        pid: u64,
        value: Option<usize>,
    },
    Unregister {
        name: u8,
        pid: u64,
    },
    Select(Pattern),
    /// The process ends; its notice comes later, or never.
    End(u64),
    Notice(u64),
    /// A notice of which the first half alone is dealt with, and the other half later or never.
    Withdraw(u64),
    Release(usize),
    Listen(Vec<u64>),
    Subscribe(u64, Pattern),
    Unsubscribe(u64, Pattern),
    Wait(u64, u8),
    StopWaiting(usize),
    /// The courier takes the next notice, if there is one.
    Take,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES;
    let pid = || 0..PIDS;
    let value = || prop::option::of(0..VALUES);
    let pattern = || {
        prop_oneof![
            Just(Pattern::Every),
            (0..2_u8).prop_map(Pattern::Kind),
            name().prop_map(Pattern::Name),
        ]
    };
    let step = prop_oneof![
        40 => (name(), pid(), prop::option::weighted(0.4, pid()), value())
            .prop_map(|(name, pid, instead_of, value)| Step::Register { name, pid, instead_of, value }),
        10 => (name(), pid(), value())
            .prop_map(|(name, pid, value)| Step::Update { name, pid, value }),
        25 => (name(), pid()).prop_map(|(name, pid)| Step::Unregister { name, pid }),
        5 => pattern().prop_map(Step::Select),
        5 => pid().prop_map(Step::End),
        5 => pid().prop_map(Step::Notice),
        5 => pid().prop_map(Step::Withdraw),
        4 => (0..16_usize).prop_map(Step::Release),
        3 => vec(0..2_u64, 0..2).prop_map(Step::Listen),
        5 => (pid(), pattern()).prop_map(|(pid, pattern)| Step::Subscribe(pid, pattern)),
        4 => (pid(), pattern()).prop_map(|(pid, pattern)| Step::Unsubscribe(pid, pattern)),
        5 => (pid(), name()).prop_map(|(pid, name)| Step::Wait(pid, name)),
        3 => (0..16_usize).prop_map(Step::StopWaiting),
        25 => Just(Step::Take),
        1 => Just(Step::Close),
    ];
    vec(step, 0..200)
}

/// A name with its holder and value.
type Entry = (u64, Option<usize>);

/// Names by number, each with how often it was given to the process and not given back by it: a name that
/// another process has taken over stays on the books of the first.
type Books = BTreeMap<u8, usize>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    name: u8,
    pid: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// It was registered, with this value.
    Came(Option<usize>),
    /// It was given back.
    Went(Option<usize>),
}

#[derive(Default)]
struct Model {
    holders: BTreeMap<u8, Entry>,
    ended: BTreeSet<u64>,
    indexed: HashMap<u64, Books>,
    withdrawn: Vec<(u64, Books)>,
    /// What is to be told. The names of one process are freed in no order that is promised.
    untold: VecDeque<Vec<Told>>,
    written: u64,
    taken: u64,
    listeners: Vec<u64>,
    subscriptions: BTreeMap<u64, Vec<(Pattern, u64)>>,
    waiting: Vec<(u64, u8, u64)>,
    /// What is dealt with before all that is to be told of changes.
    urgent: VecDeque<Urgent>,
    closed: bool,
}

enum Urgent {
    /// These waiters waited for a name that this process has registered.
    Awaited(u64, Vec<Waiter>),
    /// These waiters waited in vain.
    Closed(Vec<Waiter>),
    /// The patterns of a process that has ended, which are not looked for any more from then on.
    Ended(u64, Vec<Pattern>),
}

impl Model {
    /// Writes down what a process wants to know, and tells those that wait.
    fn tell(&mut self, mut told: Vec<Told>) {
        for &Told { name, pid, what } in &told {
            if let What::Came(_) = what {
                let awaited = self
                    .waiting
                    .extract_if(.., |(_, waited, _)| *waited == name);
                let awaited = awaited.map(|(pid, _, number)| Waiter(Pid(pid), number));
                let awaited: Vec<_> = awaited.collect();
                if !awaited.is_empty() {
                    self.urgent.push_back(Urgent::Awaited(pid, awaited));
                }
            }
        }
        told.retain(|told| !self.closed && self.wanted(told.name));
        if !told.is_empty() {
            self.written += told.len() as u64;
            self.untold.push_back(told);
        }
    }

    fn wanted(&self, name: u8) -> bool {
        let subscribed = self.subscriptions.values().flatten();
        let left = self.urgent.iter().flat_map(|urgent| match urgent {
            Urgent::Ended(_, patterns) => patterns.as_slice(),
            _ => &[],
        });
        let mut patterns = subscribed.map(|(pattern, _)| pattern).chain(left);
        !self.listeners.is_empty() || patterns.any(|pattern| pattern.matches(name))
    }

    fn subscribe(&mut self, pid: u64, pattern: Pattern) {
        let left = |urgent: &Urgent| match urgent {
            Urgent::Ended(ended, patterns) => *ended == pid && patterns.contains(&pattern),
            _ => false,
        };
        if self.closed || self.urgent.iter().any(left) {
            return;
        }
        let patterns = self.subscriptions.entry(pid).or_default();
        if patterns.iter().all(|(other, _)| *other != pattern) {
            patterns.push((pattern, self.written));
        }
    }

    fn watched(&self, pid: u64) -> bool {
        !self.ended.contains(&pid)
    }

    fn register(
        &mut self,
        name: u8,
        pid: u64,
        instead_of: Option<u64>,
        value: Option<usize>,
    ) -> Result<(), RegisterError> {
        if let Some(&(holder, kept)) = self.holders.get(&name) {
            if Some(holder) != instead_of {
                return Err(RegisterError::Taken(Pid(holder)));
            }
            self.tell(vec![Told {
                name,
                pid: holder,
                what: What::Went(kept),
            }]);
        }
        self.holders.insert(name, (pid, value));
        self.tell(vec![Told {
            name,
            pid,
            what: What::Came(value),
        }]);
        // A process that is watched already gets names until the notice of its end has been dealt with.
        let new = !self.indexed.contains_key(&pid);
        *self
            .indexed
            .entry(pid)
            .or_default()
            .entry(name)
            .or_default() += 1;
        if new && !self.watched(pid) {
            self.sweep(pid);
            return Err(RegisterError::Ended);
        }
        Ok(())
    }

    fn update(&mut self, name: u8, pid: u64, value: Option<usize>) -> bool {
        match self.holders.get_mut(&name) {
            Some(entry) if entry.0 == pid => {
                entry.1 = value;
                true
            }
            _ => false,
        }
    }

    fn holds(&self, name: u8, pid: u64) -> bool {
        self.holders.get(&name).is_some_and(|entry| entry.0 == pid)
    }

    fn unregister(&mut self, name: u8, pid: u64) -> bool {
        if !self.holds(name, pid) {
            return false;
        }
        let Some(books) = self.indexed.get_mut(&pid) else {
            return false;
        };
        let times = books.get_mut(&name).unwrap();
        *times -= 1;
        if *times == 0 {
            books.remove(&name);
        }
        let kept = self.holders.remove(&name).and_then(|(_, kept)| kept);
        self.tell(vec![Told {
            name,
            pid,
            what: What::Went(kept),
        }]);
        true
    }

    fn withdraw(&mut self, pid: u64) -> Books {
        if let Some(patterns) = self.subscriptions.remove(&pid) {
            let patterns = patterns.into_iter().map(|(pattern, _)| pattern);
            let ended = Urgent::Ended(pid, patterns.collect());
            self.urgent.push_back(ended);
        }
        self.waiting.retain(|(waiter, ..)| *waiter != pid);
        self.indexed.remove(&pid).unwrap_or_default()
    }

    fn release(&mut self, pid: u64, books: &Books) -> usize {
        let freed: Vec<u8> = books
            .keys()
            .copied()
            .filter(|&name| self.holds(name, pid))
            .collect();
        let told = |&name| Told {
            name,
            pid,
            what: What::Went(self.holders.remove(&name).and_then(|(_, kept)| kept)),
        };
        let told = freed.iter().map(told).collect();
        self.tell(told);
        freed.len()
    }

    fn sweep(&mut self, pid: u64) -> usize {
        let books = self.withdraw(pid);
        self.release(pid, &books)
    }

    /// Whether the process can be told of anything: it is watched, or becomes so.
    fn attend(&mut self, pid: u64) -> bool {
        let new = !self.indexed.contains_key(&pid);
        self.indexed.entry(pid).or_default();
        if new && !self.watched(pid) {
            self.sweep(pid);
            return false;
        }
        true
    }

    fn names_of(&self, pid: u64) -> BTreeSet<Box<[u8]>> {
        let books = self.indexed.get(&pid).into_iter().flat_map(Books::keys);
        books
            .filter(|&&number| self.holds(number, pid))
            .map(|&number| name(number).into())
            .collect()
    }

    fn interested(&self) -> (usize, usize) {
        (self.subscriptions.len(), self.waiting.len())
    }

    fn close(&mut self) {
        self.holders.clear();
        self.indexed.clear();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let waiting = waiting.map(|(pid, _, number)| Waiter(Pid(pid), number));
        let waiting: Vec<_> = waiting.collect();
        if !waiting.is_empty() {
            self.urgent.push_back(Urgent::Closed(waiting));
        }
        self.closed = true;
    }

    fn wait(&mut self, pid: u64, name: u8, number: u64) {
        if self.closed {
            let waiter = Waiter(Pid(pid), number);
            self.urgent.push_back(Urgent::Closed(vec![waiter]));
        } else {
            self.waiting.push((pid, name, number));
        }
    }

    /// Whether this is the notice that comes next; if so, it has come.
    fn take(&mut self, notice: Option<&Notice<Value>>, values: &Values) -> Result<(), String> {
        while let Some(Urgent::Ended(..)) = self.urgent.front() {
            self.urgent.pop_front();
        }
        match (self.urgent.pop_front(), notice) {
            (Some(Urgent::Awaited(pid, expected)), Some(Notice::Awaited(holder, told)))
                if *holder == Pid(pid) =>
            {
                same_waiters(expected, told.clone())
            }
            (Some(Urgent::Closed(expected)), Some(Notice::Closed(told))) => {
                same_waiters(expected, told.clone())
            }
            (None, Some(Notice::Event(event, recipients))) => {
                self.take_event(event, recipients, values)
            }
            (None, None) if self.untold.is_empty() => Ok(()),
            _ => Err(format!("{notice:?} instead of something else")),
        }
    }

    fn take_event(
        &mut self,
        event: &Event<Value>,
        recipients: &[Recipient],
        values: &Values,
    ) -> Result<(), String> {
        let next = self.untold.front_mut().ok_or("an event that never was")?;
        let at = next
            .iter()
            .position(|told| values.event(told) == *event)
            .ok_or_else(|| format!("{event:?} instead of {next:?}"))?;
        let told = next.remove(at);
        if next.is_empty() {
            self.untold.pop_front();
        }
        let mut expected: Vec<_> = self
            .listeners
            .iter()
            .copied()
            .map(Recipient::Listener)
            .collect();
        for (pid, patterns) in &self.subscriptions {
            let wants = |(pattern, since): &(Pattern, u64)| {
                *since <= self.taken && pattern.matches(told.name)
            };
            if patterns.iter().any(wants) {
                expected.push(Recipient::Subscriber(Pid(*pid)));
            }
        }
        self.taken += 1;
        same(expected, recipients.to_vec())
    }
}

/// Whether the same recipients are told, in any order.
fn same(mut expected: Vec<Recipient>, mut told: Vec<Recipient>) -> Result<(), String> {
    let key = |recipient: &Recipient| match *recipient {
        Recipient::Listener(name) => (0, name),
        Recipient::Subscriber(pid) => (1, pid.0),
    };
    expected.sort_by_key(key);
    told.sort_by_key(key);
    if expected == told {
        Ok(())
    } else {
        Err(format!("{told:?} were told instead of {expected:?}"))
    }
}

fn same_waiters(mut expected: Vec<Waiter>, mut told: Vec<Waiter>) -> Result<(), String> {
    expected.sort_by_key(|waiter| waiter.1);
    told.sort_by_key(|waiter| waiter.1);
    if expected == told {
        Ok(())
    } else {
        Err(format!("{told:?} were told instead of {expected:?}"))
    }
}

/// One value of each number, shared by everything that has it, so that values that were forgotten without
/// being freed can be counted.
struct Values([Value; VALUES]);

impl Values {
    fn new() -> Self {
        Self(std::array::from_fn(|number| Value::from(vec![0; number])))
    }

    fn of(&self, number: Option<usize>) -> Option<Value> {
        Some(Arc::clone(&self.0[number?]))
    }

    fn event(&self, told: &Told) -> Event<Value> {
        Event {
            name: name(told.name).into(),
            pid: Pid(told.pid),
            kept: match told.what {
                What::Went(value) | What::Came(value) => self.of(value),
            },
            change: match told.what {
                What::Went(_) => Change::Unregistered,
                What::Came(_) => Change::Registered,
            },
        }
    }

    /// How often each value should be somewhere: with us, with a name, and in what is to be told.
    fn uses(&self, model: &Model) -> Vec<usize> {
        let held = model.holders.values().filter_map(|entry| entry.1);
        let told = model
            .untold
            .iter()
            .flatten()
            .filter_map(|told| match told.what {
                What::Came(value) | What::Went(value) => value,
            });
        let mut uses = vec![1; self.0.len()];
        held.chain(told).for_each(|number| uses[number] += 1);
        uses
    }
}

/// The state of one history.
struct Run {
    registry: Registry<Value>,
    model: Model,
    withdrawn: Vec<Withdrawn>,
    values: Values,
    /// All waiters there ever were.
    waiters: Vec<(u64, u64)>,
}

impl Run {
    #[allow(clippy::too_many_lines)] // One arm a step.
    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Self {
            registry,
            model,
            values,
            ..
        } = self;
        match step {
            Step::Register {
                name: number,
                pid,
                instead_of,
                value,
            } => {
                let alive = model.watched(pid);
                let answer = registry.register(
                    name(number),
                    Pid(pid),
                    instead_of.map(Pid),
                    values.of(value),
                    || alive,
                );
                prop_assert_eq!(answer, model.register(number, pid, instead_of, value));
            }
            Step::Update {
                name: number,
                pid,
                value,
            } => {
                let answer = registry.update(name(number), Pid(pid), values.of(value));
                prop_assert_eq!(answer, model.update(number, pid, value));
            }
            Step::Unregister { name: number, pid } => {
                let answer = registry.unregister(name(number), Pid(pid));
                prop_assert_eq!(answer, model.unregister(number, pid));
            }
            Step::Select(pattern) => {
                let bytes = pattern.bytes();
                let mut found: Vec<Record<Value>> = registry.pieces(&bytes).flatten().collect();
                let mut expected: Vec<Record<Value>> = model
                    .holders
                    .iter()
                    .filter(|&(&number, _)| pattern.matches(number))
                    .map(|(&number, &(pid, value))| Record {
                        name: name(number).into(),
                        pid: Pid(pid),
                        value: values.of(value),
                    })
                    .collect();
                found.sort_by(|one, other| one.name.cmp(&other.name));
                expected.sort_by(|one, other| one.name.cmp(&other.name));
                prop_assert_eq!(found, expected);
            }
            Step::End(pid) => {
                model.ended.insert(pid);
            }
            Step::Notice(pid) => {
                if !model.watched(pid) {
                    prop_assert_eq!(registry.sweep(Pid(pid)), model.sweep(pid));
                }
            }
            Step::Withdraw(pid) => {
                if !model.watched(pid) {
                    let withdrawn = registry.withdraw(Pid(pid));
                    let books = model.withdraw(pid);
                    prop_assert_eq!(withdrawn.len(), books.len());
                    prop_assert_eq!(withdrawn.is_empty(), books.is_empty());
                    self.withdrawn.push(withdrawn);
                    model.withdrawn.push((pid, books));
                }
            }
            Step::Release(which) => {
                if !self.withdrawn.is_empty() {
                    let which = which % self.withdrawn.len();
                    let (pid, books) = model.withdrawn.remove(which);
                    let freed = registry.release(self.withdrawn.remove(which));
                    prop_assert_eq!(freed, model.release(pid, &books));
                }
            }
            Step::Listen(listeners) => {
                registry.journal().listen(listeners.clone());
                model.listeners = listeners;
            }
            Step::Subscribe(pid, pattern) => {
                registry.journal().subscribe(Pid(pid), &pattern.bytes());
                model.subscribe(pid, pattern);
                let alive = model.watched(pid);
                prop_assert_eq!(registry.attend(Pid(pid), || alive), model.attend(pid));
            }
            Step::Unsubscribe(pid, pattern) => {
                let answer = registry.journal().unsubscribe(Pid(pid), &pattern.bytes());
                let patterns = model.subscriptions.entry(pid).or_default();
                let before = patterns.len();
                patterns.retain(|(other, _)| *other != pattern);
                prop_assert_eq!(answer, patterns.len() < before);
                if patterns.is_empty() {
                    model.subscriptions.remove(&pid);
                }
            }
            Step::Wait(pid, number) => {
                let told_by = registry.wait(Pid(pid), name(number));
                self.waiters.push((pid, told_by));
                model.wait(pid, number, told_by);
                let alive = model.watched(pid);
                prop_assert_eq!(registry.attend(Pid(pid), || alive), model.attend(pid));
            }
            Step::StopWaiting(which) => {
                if !self.waiters.is_empty() {
                    let (pid, told_by) = self.waiters[which % self.waiters.len()];
                    let before = model.waiting.len();
                    model.waiting.retain(|waiting| waiting.2 != told_by);
                    let answer = registry.journal().forget_waiter(Pid(pid), told_by);
                    prop_assert_eq!(answer, model.waiting.len() < before);
                }
            }
            Step::Take => {
                let notice = registry.journal().take();
                model
                    .take(notice.as_ref(), values)
                    .map_err(TestCaseError::fail)?;
            }
            Step::Close => {
                registry.clear();
                model.close();
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Self {
            registry,
            model,
            values,
            ..
        } = self;
        for number in 0..NAMES {
            let entry = model.holders.get(&number);
            prop_assert_eq!(
                registry.whereis(&Guard::new(), name(number)),
                entry.map(|entry| Pid(entry.0))
            );
            let found = registry.lookup(name(number));
            prop_assert_eq!(found, entry.map(|entry| (Pid(entry.0), values.of(entry.1))));
        }
        for pid in 0..PIDS {
            let names = registry.names_of(Pid(pid));
            prop_assert_eq!(names.len(), model.names_of(pid).len(), "each once");
            prop_assert_eq!(
                names.into_iter().collect::<BTreeSet<_>>(),
                model.names_of(pid)
            );
        }
        prop_assert_eq!(registry.len(), model.holders.len());
        prop_assert_eq!(registry.is_empty(), model.holders.is_empty());
        prop_assert_eq!(registry.holders(), model.indexed.len());
        prop_assert_eq!(registry.journal().interested(), model.interested());
        let uses: Vec<_> = values.0.iter().map(Arc::strong_count).collect();
        prop_assert_eq!(uses, values.uses(model), "values that somebody still has");
        Ok(())
    }
}

fn config() -> ProptestConfig {
    let config = ProptestConfig {
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig {
            cases: 500,
            ..config
        },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_registry_answers_as_its_model_does_whatever_is_done_in_whatever_order(steps in steps()) {
        let mut run = Run {
            registry: Registry::new(),
            model: Model::default(),
            withdrawn: Vec::new(),
            values: Values::new(),
            waiters: Vec::new(),
        };
        for step in steps {
            run.step(step)?;
            run.check()?;
        }
        // All processes end, all notices come: nothing is left.
        for pid in 0..PIDS {
            run.step(Step::End(pid))?;
            run.step(Step::Notice(pid))?;
        }
        while !run.withdrawn.is_empty() {
            run.step(Step::Release(0))?;
        }
        run.check()?;
        prop_assert_eq!((run.registry.len(), run.registry.holders()), (0, 0));
        run.step(Step::Close)?;
        while !(run.model.untold.is_empty() && run.model.urgent.is_empty()) {
            run.step(Step::Take)?;
        }
        // And there is nothing more to tell.
        run.step(Step::Take)?;
        run.check()?;
    }
}
