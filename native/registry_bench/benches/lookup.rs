//! `cargo bench --bench lookup`: the time of writing a name and of looking it up.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use registry_bench::{integers, texts, uuids};
use registry_core::epoch::Guard;
use registry_core::name::Buffer;
use registry_core::{Pid, Registry};
use std::hint::black_box;

/// A step through the numbers that is far from the last one, and meets each once.
fn next(number: u32, count: u32) -> u32 {
    (number + 7_919) % count
}

fn write(criterion: &mut Criterion) {
    let mut buffer = Buffer::new();
    criterion.bench_function("write/five integers", |bencher| {
        bencher.iter(|| integers(&mut buffer, black_box(4_711)).unwrap().len());
    });
    let texts = texts(4_711);
    criterion.bench_function("write/four UUIDs", |bencher| {
        bencher.iter(|| uuids(&mut buffer, black_box(&texts)).unwrap().len());
    });
}

fn lookup(criterion: &mut Criterion) {
    let mut buffer = Buffer::new();
    for count in [1_000, 100_000, 1_000_000] {
        let registry = Registry::<()>::new();
        let names: Vec<_> = (0..count).map(texts).collect();
        for number in 0..count {
            let pid = Pid(u64::from(number));
            let name = integers(&mut buffer, number).unwrap();
            registry.register(name, pid, None, None, || true).unwrap();
            let name = uuids(&mut buffer, &names[number as usize]).unwrap();
            registry.register(name, pid, None, None, || true).unwrap();
        }
        let mut number = 0;
        criterion.bench_with_input(
            BenchmarkId::new("lookup/five integers", count),
            &count,
            |bencher, _| {
                bencher.iter(|| {
                    number = next(number, count);
                    registry.whereis(&Guard::new(), integers(&mut buffer, number).unwrap())
                });
            },
        );
        criterion.bench_with_input(
            BenchmarkId::new("lookup/four UUIDs", count),
            &count,
            |bencher, _| {
                bencher.iter(|| {
                    number = next(number, count);
                    registry.whereis(
                        &Guard::new(),
                        uuids(&mut buffer, &names[number as usize]).unwrap(),
                    )
                });
            },
        );
    }
}

criterion_group!(benches, write, lookup);
criterion_main!(benches);
