//! What the lock-free parts are made of, so that loom can take its place: see `script/loom`.

#[cfg(not(loom))]
pub(crate) use {
    std::hint::spin_loop,
    std::sync::atomic::{AtomicU64, Ordering, fence},
    std::sync::{Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) use {
    loom::hint::spin_loop,
    loom::sync::atomic::{AtomicU64, Ordering, fence},
    loom::sync::{Mutex, MutexGuard},
};
