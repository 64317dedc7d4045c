//! Which lines of memory an operation writes, and which of them every thread writes. Only what several threads
//! write keeps them from running side by side on many processors.
//!
//! ```text
//! cargo bench --bench lines --no-run
//! lines=$(ls -t target/release/deps/lines-* | grep -v '\.d$' | head -1)
//! valgrind --tool=lackey --trace-mem=yes $lines 2>&1 | $lines read
//! ```
//!
//! The first command makes the operations, in two threads that take turns, and has valgrind print each address.
//! The second one reads what it prints. What the VM does is not in it.
#![allow(clippy::unwrap_used)]
// All numbers here are small.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use registry_bench::integers;
use registry_core::epoch::Guard;
use registry_core::name::Buffer;
use registry_core::{Pid, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const OPERATIONS: [&str; 6] = ["fill", "hit", "miss", "register", "unregister", "death"];
const THREADS: usize = 2;
const TIMES: u32 = 300;
const HELD: u32 = 3_000;

/// A store here begins or ends an operation of a thread. Each lies in a line of its own.
#[repr(align(64))]
struct Mark(AtomicU64);

static MARKS: [[Mark; THREADS]; OPERATIONS.len()] =
    [const { [const { Mark(AtomicU64::new(0)) }; THREADS] }; OPERATIONS.len()];

fn main() {
    if std::env::args().any(|argument| argument == "read") {
        read();
    } else {
        println!("marks {:x}", MARKS.as_ptr().addr());
        operate();
    }
}

fn operate() {
    let registry = Registry::<()>::new();
    let turns = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (registry, turns) = (&registry, &turns);
            // All threads live to the end, so that none has the stack of another.
            scope.spawn(move || {
                for (operation, marks) in MARKS.iter().enumerate() {
                    for turn in 0..THREADS {
                        turns.wait();
                        if turn == thread {
                            repeat(registry, operation, thread, &marks[thread].0);
                        }
                    }
                }
                turns.wait();
            });
        }
    });
}

fn repeat(registry: &Registry<()>, operation: usize, thread: usize, mark: &AtomicU64) {
    let mut buffer = Buffer::new();
    let own = thread as u32 * TIMES;
    let times = if operation == 0 {
        HELD / THREADS as u32
    } else {
        TIMES
    };
    for at in 0..times {
        // Names that are held, spread over all of them; and names and processes of this thread.
        let held = (own + at) * 7 % HELD;
        let fresh = HELD + own + at;
        let pid = Pid(u64::from(fresh) << 4);
        let number = match operation {
            0 => thread as u32 * times + at,
            1 => held,
            2 => 10 * HELD + held,
            _ => fresh,
        };
        mark.store(1, Ordering::SeqCst);
        let name = integers(&mut buffer, number).unwrap();
        let guard = Guard::new();
        match operation {
            0 => {
                let holder = Pid(u64::from(number) << 4);
                registry
                    .register(name, holder, None, None, || true)
                    .unwrap();
            }
            1 => assert!(registry.whereis(&guard, name).is_some()),
            2 => assert!(registry.whereis(&guard, name).is_none()),
            3 => registry.register(name, pid, None, None, || true).unwrap(),
            4 => assert!(registry.unregister(name, pid)),
            _ => assert_eq!(registry.sweep(Pid(u64::from(held) << 4)), 1),
        }
        guard.end();
        mark.store(0, Ordering::SeqCst);
    }
}

/// What was written during an operation of a thread.
#[derive(Default)]
struct Written {
    operations: usize,
    /// In how many of the operations each line was written.
    lines: BTreeMap<u64, usize>,
}

fn read() {
    let mut marks = 0;
    let mut all: BTreeMap<(usize, usize), Written> = BTreeMap::new();
    let mut current: Option<((usize, usize), BTreeSet<u64>)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        if let Some(address) = line.strip_prefix("marks ") {
            marks = u64::from_str_radix(address, 16).unwrap();
        }
        let Some(address) = line.strip_prefix(" S ").or(line.strip_prefix(" M ")) else {
            continue;
        };
        let address = address.split(',').next().unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let mark = address.wrapping_sub(marks) / 64;
        if marks > 0 && mark < (THREADS * OPERATIONS.len()) as u64 {
            let mark = mark as usize;
            current = match current {
                None => Some(((mark / THREADS, mark % THREADS), BTreeSet::new())),
                Some((key, lines)) => {
                    let written = all.entry(key).or_default();
                    written.operations += 1;
                    for line in lines {
                        *written.lines.entry(line).or_default() += 1;
                    }
                    None
                }
            };
        } else if let Some((_, lines)) = &mut current {
            lines.insert(address / 64);
        }
    }
    println!(
        "{:<12}{:>18}{:>24}{:>30}",
        "", "lines written", "that other threads", "of these, always the same"
    );
    println!(
        "{:<12}{:>18}{:>24}{:>30}",
        "", "by an operation", "write, too", "line"
    );
    for (operation, label) in OPERATIONS.iter().enumerate().skip(1) {
        let of = |thread| &all[&(operation, thread)];
        let (one, other) = (of(0), of(1));
        let each = |written: &Written, which: &dyn Fn(&u64, usize) -> bool| {
            let lines = written
                .lines
                .iter()
                .filter(|(line, times)| which(line, **times));
            lines.map(|(_, times)| *times).sum::<usize>() as f64 / written.operations as f64
        };
        let shared = |line: &u64, _: usize| other.lines.contains_key(line);
        let always = |line: &u64, times: usize| {
            times > one.operations / 2
                && other
                    .lines
                    .get(line)
                    .is_some_and(|times| *times > other.operations / 2)
        };
        println!(
            "{label:<12}{:>18.1}{:>24.1}{:>30.1}",
            each(one, &|_, _| true),
            each(one, &shared),
            each(one, &always)
        );
    }
}
