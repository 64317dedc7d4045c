//! The rules of claiming a name, under threads and with many names.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use registry_core::epoch::Guard;
use registry_core::journal::Recipient;
use registry_core::{Pid, RegisterError, Registry};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names of all three sizes of entries.
fn name(number: u8) -> Vec<u8> {
    let size = [5, 31, 32, 87, 88, 300][usize::from(number) % 6];
    let mut name = vec![0; size];
    name[size - 1] = number;
    name
}

#[test]
fn of_threads_that_claim_one_name_exactly_one_gets_it() {
    let registry = Registry::<()>::new();
    let threads = 8;
    let barrier = Barrier::new(threads);
    let winners = AtomicU64::new(0);
    for round in 0..500_u64 {
        std::thread::scope(|scope| {
            for thread in 0..threads as u64 {
                let (registry, barrier, winners) = (&registry, &barrier, &winners);
                scope.spawn(move || {
                    let pid = Pid(1 + round * 100 + thread);
                    barrier.wait();
                    match registry.register(&name(7), pid, None, None, || true) {
                        Ok(()) => {
                            winners.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(RegisterError::Taken(holder)) => assert_ne!(holder, pid),
                        Err(RegisterError::Ended) => panic!("nobody has ended"),
                    }
                });
            }
        });
        let winner = registry
            .whereis(&Guard::new(), &name(7))
            .expect("somebody won");
        assert_eq!(winners.load(Ordering::Relaxed), round + 1);
        assert_eq!(registry.sweep(winner), 1);
    }
    assert_eq!((registry.len(), registry.holders()), (0, 0));
}

#[test]
fn registrations_that_race_with_the_notice_of_their_holders_end_leave_nothing() {
    for round in 0..2_000_u64 {
        let registry = Registry::<()>::new();
        let pid = Pid(round + 1);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Two callers give names to one process, which ends meanwhile. The caller that watches it
            // either gets the notice or finds it ended.
            for caller in 0..2 {
                let (registry, ended) = (&registry, &ended);
                scope.spawn(move || {
                    for number in 0..4 {
                        let _ =
                            registry.register(&name(caller * 4 + number), pid, None, None, || {
                                !ended.load(Ordering::SeqCst)
                            });
                    }
                });
            }
            scope.spawn(|| {
                ended.store(true, Ordering::SeqCst);
                registry.sweep(pid);
            });
        });
        // A watch that was set up just before the end gives its notice after it.
        registry.sweep(pid);
        assert_eq!(
            (registry.len(), registry.holders()),
            (0, 0),
            "round {round}"
        );
    }
}

#[test]
fn a_name_passes_between_threads_without_ever_having_two_holders() {
    let registry = Registry::<()>::new();
    let inside = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (registry, inside) = (&registry, &inside);
            scope.spawn(move || {
                let pid = Pid(thread + 1);
                for _ in 0..20_000 {
                    if registry
                        .register(&name(3), pid, None, None, || true)
                        .is_ok()
                    {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(registry.whereis(&Guard::new(), &name(3)), Some(pid));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        assert!(registry.unregister(&name(3), pid));
                    }
                }
            });
        }
    });
    assert_eq!(registry.len(), 0);
}

#[test]
fn a_name_that_stays_is_found_by_all_threads_while_others_come_and_go() {
    let registry = Registry::<()>::new();
    let (staying, passing) = (500, 20_000);
    // Of all three sizes.
    let name = |number: u32| {
        let mut name = vec![1; [5, 80, 100][number as usize % 3]];
        name[..4].copy_from_slice(&number.to_le_bytes());
        name
    };
    let claim = |number| registry.register(&name(number), Pid(number.into()), None, None, || true);
    for number in 0..staying {
        claim(number).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for number in 0..staying {
                        let holder = registry.whereis(&Guard::new(), &name(number));
                        assert_eq!(holder, Some(Pid(number.into())));
                    }
                }
            });
        }
        let _done = Done(&done);
        for round in 0..5 {
            let numbers = staying..staying + passing / (round + 1);
            for number in numbers.clone() {
                claim(number).unwrap();
            }
            for number in numbers {
                assert_eq!(registry.sweep(Pid(number.into())), 1);
            }
        }
    });
    assert_eq!(registry.len(), staying as usize);
}

/// Ends the readers, also when the writer fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn one_process_may_hold_a_hundred_thousand_names() {
    let registry = Registry::<()>::new();
    let pid = Pid(1);
    for number in 0..100_000_u32 {
        assert_eq!(
            registry.register(&number.to_le_bytes(), pid, None, None, || true),
            Ok(())
        );
    }
    for number in 0..50_000_u32 {
        assert!(registry.unregister(&number.to_le_bytes(), pid));
    }
    assert_eq!((registry.len(), registry.holders()), (50_000, 1));
    assert_eq!(registry.sweep(pid), 50_000);
    assert_eq!((registry.len(), registry.holders()), (0, 0));
}

#[test]
fn clearing_forgets_everything() {
    let registry = Registry::<()>::new();
    for number in 0..12 {
        registry
            .register(
                &name(number),
                Pid(u64::from(number % 3)),
                None,
                None,
                || true,
            )
            .unwrap();
    }
    registry.clear();
    assert_eq!((registry.len(), registry.holders()), (0, 0));
    assert_eq!(registry.whereis(&Guard::new(), &name(1)), None);
}

#[test]
fn long_names_count_for_more_when_a_process_ends() {
    let takes_long = |names: usize, length: usize| {
        let registry = Registry::<()>::new();
        for number in 0..names {
            let mut name = vec![b'a'; length];
            name[..8].copy_from_slice(&number.to_le_bytes());
            registry
                .register(&name, Pid(1), None, None, || true)
                .unwrap();
        }
        registry.withdraw(Pid(1)).takes_long()
    };
    assert!(!takes_long(1_000, 8));
    assert!(takes_long(1_001, 8));
    assert!(!takes_long(20, 65_536));
    assert!(takes_long(21, 65_536));
}

#[test]
fn the_audience_of_a_name_is_who_subscribed_to_it_and_everybody_who_listens() {
    let registry = Registry::<()>::new();
    let journal = registry.journal();
    journal.listen(vec![7]);
    journal.subscribe(Pid(1), &name(1));
    journal.subscribe(Pid(2), &name(2));
    let of = |name: Option<&[u8]>| {
        let mut audience = journal.audience(name);
        audience.sort_by_key(|recipient| format!("{recipient:?}"));
        audience
    };
    let listener = Recipient::Listener(7);
    let [one, two] = [1, 2].map(|pid| Recipient::Subscriber(Pid(pid)));
    assert_eq!(of(Some(&name(1))), [listener, one]);
    assert_eq!(of(Some(&name(3))), [listener]);
    assert_eq!(of(None), [listener, one, two]);
}
