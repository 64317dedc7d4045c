//! Lookups in many registries in turn: the time beside that in one, and with valgrind the lines of
//! memory that a lookup waits for:
//!
//! ```text
//! cargo bench --bench registries
//! valgrind --tool=callgrind --cache-sim=yes --D1=32768,8,64 --LL=524288,8,64 \
//!     --toggle-collect='*measured_thousand*' target/release/deps/registries-*
//! ```
//!
//! counts [`LOOKUPS`] lookups in a thousand registries of ten names, `*measured_ten*` as many in one of
//! ten names, `*measured_large*` in one of ten thousand. With these sizes, `DLmr` is what a second-level
//! cache of half a megabyte does not hold.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use registry_bench::case;
use registry_core::directory::Directory;
use registry_core::ended::Ended;
use registry_core::epoch::{Guard, Shared};
use registry_core::name::Buffer;
use registry_core::{Pid, Registry};
use std::hint::black_box;
use std::time::Instant;

const LOOKUPS: usize = 20_000;
const ROUNDS: usize = 101;

/// As the NIF has it: a registry among what else is known of it.
struct Open {
    _supervisor: Pid,
    registry: Registry<Box<u64>>,
    _ended: Option<Ended>,
    _watches: [u64; 300],
}

/// Registries of so many names each, and what to look up in them.
struct Case {
    directory: Directory<Open>,
    picks: Vec<(u64, u32)>,
}

/// The word of an atom that is the so many-eth.
fn atom(number: u64) -> u64 {
    (10_000 + number) << 6 | 0xB
}

/// Numbers that look drawn by lot.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

fn make(registries: u64, names: u32) -> Case {
    let directory = Directory::new();
    let mut buffer = Buffer::new();
    for number in 0..registries {
        let registry = Registry::new();
        directory.insert(
            atom(number),
            Shared::new(Open {
                _supervisor: Pid(1),
                registry,
                _ended: None,
                _watches: [0; 300],
            }),
        );
    }
    let guard = Guard::new();
    for number in 0..registries {
        let open = directory.find(&guard, atom(number)).unwrap();
        for name in 0..names {
            let name = case(&mut buffer, name).unwrap();
            let pid = Pid(number << 4);
            open.registry
                .register(name, pid, None, None, || true)
                .unwrap();
        }
    }
    let mut state = 1;
    let mut order: Vec<u64> = (0..registries).collect();
    let mut picks = Vec::new();
    while picks.len() < LOOKUPS {
        for at in (1..order.len()).rev() {
            order.swap(at, usize::try_from(random(&mut state)).unwrap() % (at + 1));
        }
        let mut name = |()| u32::try_from(random(&mut state)).unwrap() % names;
        picks.extend(order.iter().map(|number| (atom(*number), name(()))));
    }
    Case { directory, picks }
}

#[inline(never)]
fn lookups(case: &Case, buffer: &mut Buffer) -> usize {
    let found = case.picks.iter().filter(|(registry, name)| {
        let guard = Guard::new();
        let holder = case.directory.find(&guard, *registry).and_then(|open| {
            open.registry.fetch();
            let name = registry_bench::case(buffer, *name).unwrap();
            open.registry.whereis(&guard, name)
        });
        guard.end();
        holder.is_some()
    });
    found.count()
}

#[inline(never)]
fn measured_ten(case: &Case, buffer: &mut Buffer) -> usize {
    // Or the compiler makes one function of all.
    black_box("ten");
    lookups(case, buffer)
}

#[inline(never)]
fn measured_thousand(case: &Case, buffer: &mut Buffer) -> usize {
    black_box("thousand");
    lookups(case, buffer)
}

#[inline(never)]
fn measured_large(case: &Case, buffer: &mut Buffer) -> usize {
    black_box("large");
    lookups(case, buffer)
}

type Measured = fn(&Case, &mut Buffer) -> usize;

fn main() {
    let cases: Vec<(&str, Case, Measured)> = vec![
        ("1 registry of 10 names", make(1, 10), measured_ten),
        ("1 registry of 10,000", make(1, 10_000), measured_large),
        ("1,000 registries of 1", make(1_000, 1), lookups),
        ("1,000 registries of 10", make(1_000, 10), measured_thousand),
        ("1,000 registries of 100", make(1_000, 100), lookups),
    ];
    let mut buffer = Buffer::new();
    // Arguments are those of `cargo bench`; without any, it is valgrind that measures.
    let rounds = if std::env::args().len() > 1 {
        ROUNDS
    } else {
        1
    };
    let mut times = [const { Vec::new() }; 5];
    for _ in 0..rounds {
        for ((_, case, measured), times) in cases.iter().zip(&mut times) {
            // Others have had the caches meanwhile.
            lookups(case, &mut buffer);
            let start = Instant::now();
            let found = black_box(measured(case, &mut buffer));
            times.push(start.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64);
            assert!(found >= LOOKUPS);
        }
    }
    for ((label, ..), mut times) in cases.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let (fastest, median) = (times[0], times[times.len() / 2]);
        println!("{label}: {median:.1} ns, fastest {fastest:.1}");
    }
}
