//! The clock of leases.
//!
//! A lease runs out while the machine sleeps, so the clock has to count then. That is `CLOCK_BOOTTIME` on
//! Linux and Android, and the monotonic clock of macOS. The monotonic clocks of other systems may stand
//! still.

/// Nanoseconds since some time before this VM started. `u64::MAX` if there is no clock: then no lease is
/// valid.
#[cfg(unix)]
#[inline]
pub(crate) fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

    clock_gettime(CLOCK).map_or(u64::MAX, |time| {
        let nanoseconds = time.tv_sec() * 1_000_000_000 + time.tv_nsec();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    })
}

/// Nanoseconds since the first call.
#[cfg(not(unix))]
pub(crate) fn now() -> u64 {
    use once_cell::sync::Lazy;
    use std::time::Instant;

    static FIRST: Lazy<Instant> = Lazy::new(Instant::now);
    // Above 0, which is the deadline of no lease.
    u64::try_from(FIRST.elapsed().as_nanos()).map_or(u64::MAX, |passed| passed + 1)
}
