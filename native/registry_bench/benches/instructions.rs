//! How many instructions a lookup takes, however noisy the machine:
//!
//! ```text
//! cargo bench --bench instructions --no-run
//! valgrind --tool=callgrind --toggle-collect='*measured_integers*' target/release/deps/instructions-*
//! ```
//!
//! counts [`LOOKUPS`] lookups by five integers, `*measured_uuids*` as many by four UUIDs.
#![allow(clippy::unwrap_used)]

use registry_bench::{integers, texts, uuids};
use registry_core::epoch::Guard;
use registry_core::name::Buffer;
use registry_core::{Pid, Registry};

const LOOKUPS: u32 = 10_000;

#[inline(never)]
fn measured_integers(registry: &Registry<()>, buffer: &mut Buffer) -> usize {
    (0..LOOKUPS)
        .filter(|number| {
            registry
                .whereis(&Guard::new(), integers(buffer, *number).unwrap())
                .is_some()
        })
        .count()
}

#[inline(never)]
fn measured_uuids(registry: &Registry<()>, buffer: &mut Buffer, names: &[[String; 4]]) -> usize {
    names
        .iter()
        .filter(|name| {
            registry
                .whereis(&Guard::new(), uuids(buffer, name).unwrap())
                .is_some()
        })
        .count()
}

fn main() {
    let registry = Registry::<()>::new();
    let mut buffer = Buffer::new();
    let names: Vec<_> = (0..LOOKUPS).map(texts).collect();
    for number in 0..LOOKUPS {
        let pid = Pid(u64::from(number));
        registry
            .register(
                integers(&mut buffer, number).unwrap(),
                pid,
                None,
                None,
                || true,
            )
            .unwrap();
        let name = uuids(&mut buffer, &names[number as usize]).unwrap();
        registry.register(name, pid, None, None, || true).unwrap();
    }
    let found =
        measured_integers(&registry, &mut buffer) + measured_uuids(&registry, &mut buffer, &names);
    println!("{found} found");
}
