//! How many instructions a registration takes together with giving the name back, while processes have
//! subscribed:
//!
//! ```text
//! cargo bench --bench changes --no-run
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/release/deps/changes-* others
//! ```
//!
//! counts [`CHANGES`] pairs. The argument says who has subscribed: see `SUBSCRIBERS`. The events are
//! taken outside of what is counted. The time is printed: with `ROUNDS=100`, the median of so many rounds.
#![allow(clippy::unwrap_used)]

use registry_bench::{case, integers};
use registry_core::name::{Buffer, Encoder};
use registry_core::{Pid, Registry};
use std::time::Instant;

const CHANGES: u32 = 10_000;

/// `{first, {number, :_}}`, or `{first, :_}` without a number.
fn subscribe(registry: &Registry<()>, pid: u32, first: u32, number: Option<u32>) {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    encoder.tuple(2).unwrap();
    encoder.word(first).unwrap();
    if let Some(number) = number {
        encoder.tuple(5).unwrap();
        encoder.word(number << 4 | 0xF).unwrap();
        for _ in 0..4 {
            encoder.any().unwrap();
        }
    } else {
        encoder.any().unwrap();
    }
    let journal = registry.journal();
    journal.subscribe(Pid(pid.into()), encoder.finish());
}

/// The word by which all names begin, and another.
const THIS: u32 = 0x0004_560B;
const ANOTHER: u32 = 0x0004_570B;

type Ask = fn(&Registry<()>);

/// What may be asked for.
const SUBSCRIBERS: [(&str, Ask); 7] = [
    ("nobody", |_| {}),
    ("another", |registry| subscribe(registry, 1, ANOTHER, None)),
    ("others", |registry| {
        (0..1_000).for_each(|id| subscribe(registry, id, ANOTHER, Some(id)));
    }),
    ("alike", |registry| {
        (0..1_000).for_each(|id| subscribe(registry, id, THIS, Some(10 + id)));
    }),
    ("waiters", |registry| {
        let mut buffer = Buffer::new();
        for id in 0..1_000 {
            registry.wait(Pid(id.into()), case(&mut buffer, 1 + id).unwrap());
        }
    }),
    ("this", |registry| subscribe(registry, 1, THIS, None)),
    ("listener", |registry| registry.journal().listen(vec![1])),
];

#[inline(never)]
fn measured(registry: &Registry<()>, names: &[Box<[u8]>]) {
    for name in names {
        registry
            .register(name, Pid(7), None, None, || true)
            .unwrap();
        assert!(registry.unregister(name, Pid(7)));
    }
}

fn main() {
    // `cargo bench` adds an option of its own.
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let mut buffer = Buffer::new();
    let names: Vec<Box<[u8]>> = (0..CHANGES)
        .map(|number| integers(&mut buffer, number).unwrap().into())
        .collect();
    let chosen = SUBSCRIBERS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    let mut registries: Vec<_> = chosen
        .map(|(name, ask)| {
            let registry = Registry::<()>::new();
            registry.journal().attach(|| {}, |()| 0);
            // What a process pays once, and not for each name.
            let held = case(&mut buffer, 0).unwrap();
            registry
                .register(held, Pid(7), None, None, || true)
                .unwrap();
            ask(&registry);
            (name, registry, Vec::new())
        })
        .collect();
    for _ in 0..std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap()) {
        for (_, registry, times) in &mut registries {
            let start = Instant::now();
            measured(registry, &names);
            times.push(start.elapsed());
            while registry.journal().take().is_some() {}
        }
    }
    for (name, _, times) in &mut registries {
        times.sort();
        println!("{name}: {:?} a pair", times[times.len() / 2] / CHANGES);
    }
}
