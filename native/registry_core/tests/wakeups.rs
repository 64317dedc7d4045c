//! Threads that ask beside threads that change, on the machine itself. `loom_journal.rs` goes through all
//! interleavings of the same; this test uses the real table. `WAKEUP_ROUNDS=10000000` looks for longer.
#![allow(missing_docs, clippy::unwrap_used)]

use registry_core::epoch::Guard;
use registry_core::journal::Notice;
use registry_core::name::{Buffer, Encoder};
use registry_core::{Pid, Registry};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const WAITER: Pid = Pid(1);
const SUBSCRIBER: Pid = Pid(2);
const HOLDER: Pid = Pid(3);

fn name(number: u64) -> Box<[u8]> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    encoder.integer(number.cast_signed()).unwrap();
    encoder.finish().into()
}

/// Both threads come here before either goes on; faster than a `Barrier`, whose threads sleep.
fn meet(arrived: &AtomicU64, meeting: u64) {
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < 2 * meeting {
        std::hint::spin_loop();
        thread::yield_now();
    }
}

#[test]
fn who_asks_and_then_looks_finds_the_name_or_is_told() {
    let rounds = std::env::var("WAKEUP_ROUNDS").map_or(20_000, |rounds| rounds.parse().unwrap());
    let registry = Registry::<()>::new();
    let arrived = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                let name = name(round);
                meet(&arrived, 2 * round + 1);
                registry
                    .register(&name, HOLDER, None, None, || true)
                    .unwrap();
                meet(&arrived, 2 * round + 2);
            }
        });
        for round in 0..rounds {
            let name = name(round);
            let waits = round % 2 == 0;
            meet(&arrived, 2 * round + 1);
            let number = if waits {
                Some(registry.wait(WAITER, &name))
            } else {
                registry.journal().subscribe(SUBSCRIBER, &name);
                None
            };
            let found = registry.whereis(&Guard::new(), &name).is_some();
            meet(&arrived, 2 * round + 2);
            let told = match number {
                Some(number) => !registry.journal().forget_waiter(WAITER, number),
                None => {
                    registry.journal().unsubscribe(SUBSCRIBER, &name) && {
                        let mut told = false;
                        while let Some(notice) = registry.journal().take() {
                            told |= matches!(notice, Notice::Event(event, _) if event.name == name);
                        }
                        told
                    }
                }
            };
            assert!(found || told, "round {round}: neither found nor told");
            while registry.journal().take().is_some() {}
            registry.unregister(&name, HOLDER);
        }
    });
}
