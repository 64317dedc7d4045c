//! NIFs on the lease under which this node's processes hold names of leased registries.

use crate::argument::with_open;
use crate::clock;
use crate::deadline::LEASE;
use crate::directory;
use crate::word;
use registry_core::Pid;
use rustler::{Encoder, Env, Term};
use std::collections::BTreeSet;

/// `()`: the instant now.
#[rustler::nif]
fn lease_clock() -> u64 {
    clock::now()
}

/// `(epoch, deadline)`: begins a lease; `false` while there is one, or if `epoch` is not greater than
/// all before.
#[rustler::nif]
fn lease_begin(epoch: u64, deadline: i64) -> bool {
    LEASE.begin(epoch, instant(deadline))
}

/// `(epoch, deadline)`: moves the deadline, unless it is later already; `false` if the epoch has ended.
#[rustler::nif]
fn lease_extend(epoch: u64, deadline: i64) -> bool {
    LEASE.extend(epoch, instant(deadline))
}

/// `(epoch)`: ends the lease; `false` if the epoch has ended already.
#[rustler::nif]
fn lease_end(epoch: u64) -> bool {
    LEASE.end(epoch)
}

/// An instant before the clock began is past, as is the deadline of no lease.
fn instant(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// `()`: the nanoseconds until the deadline; 0 or less when it has passed.
#[rustler::nif]
fn lease_left() -> i64 {
    let left = i128::from(LEASE.deadline()) - i128::from(clock::now());
    i64::try_from(left).unwrap_or(i64::MIN)
}

/// `(registry)`: whether processes of this node may hold its names.
#[rustler::nif]
fn lease_valid<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| open.lends().encode(env))
}

/// `()`: how many calls of `hold` with an epoch have not returned.
#[rustler::nif]
fn lease_holds() -> u64 {
    LEASE.holds()
}

/// `()`: every process that holds a name of a leased registry, open or suspended.
#[rustler::nif(schedule = "DirtyCpu")]
fn lease_holders(env: Env<'_>) -> Term<'_> {
    let leased = directory::all().into_iter().filter(|open| open.leased);
    let holders: BTreeSet<Pid> = leased.flat_map(|open| open.registry.holding()).collect();
    let pids: Vec<_> = holders
        .into_iter()
        .map(|pid| word::to_pid(env, pid))
        .collect();
    pids.encode(env)
}
