//! NIFs on names.
//!
//! A value goes in as `Kept::new` takes it, and comes out as `Kept::encode` gives it. If copying it
//! takes long, the answer is `:heavy`, and the caller has to call the NIF with `_heavy` in its name,
//! which runs on a dirty scheduler. In a registry that is part of a cluster, `:elsewhere` says that
//! the cluster's engine has to be asked, or told.

use crate::argument::{self, keep, pay, with_bound_name, with_name};
use crate::cluster::{not_here, not_here_but};
use crate::deadline::LEASE;
use crate::kept::Kept;
use crate::nif::hot_nif;
use crate::open::Open;
use crate::word;
use crate::write;
use registry_core::name::{Buffer, Encoder as NameEncoder};
use registry_core::{Pid, RegisterError};
use rustler::{Encoder, Env, LocalPid, Term};

rustler::atoms! {
    ok, elsewhere, undefined, no_registry, no_lease, heavy, ended, yes, no
}

/// `(name)`: `:ok`, or why it cannot be a name.
#[rustler::nif]
fn check<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    let mut buffer = Buffer::new();
    let mut encoder = NameEncoder::new(&mut buffer);
    let written = write::name(&mut encoder, name);
    pay(env, encoder.work());
    match written {
        Ok(()) => ok().encode(env),
        Err(refused) => refused.encode(env),
    }
}

/// `(registry, name)`: the pid of the holder, which may have ended; or the answer of [`not_here_but`],
/// also past the deadline of the lease.
fn whereis<'a>(env: Env<'a>, [registry, name]: [Term<'a>; 2]) -> Term<'a> {
    with_name(env, registry, name, |open, guard, name| {
        match open.registry.whereis(guard, name) {
            Some(holder) if open.lends() => word::to_pid(env, holder),
            _ => not_here_but(env, open, guard, name),
        }
    })
}
hot_nif!(whereis / 2);

/// `(registry, name)`: the pid of the holder, whether or not the lease is valid; or `:undefined`.
#[rustler::nif]
fn here<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, guard, name| {
        match open.registry.whereis(guard, name) {
            Some(holder) => word::to_pid(env, holder),
            None => undefined().encode(env),
        }
    })
}

/// `(registry, name)`: `{pid, value}`; or the answer of [`not_here`], also past the deadline of the lease.
#[rustler::nif]
fn lookup<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        match open.registry.lookup(name).filter(|_| open.lends()) {
            Some((_, Some(kept))) if kept.is_heavy() => heavy().encode(env),
            Some((holder, kept)) => holder_and_value(env, holder, kept.as_ref()),
            None => not_here(env, open),
        }
    })
}

/// As `lookup`, of a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn lookup_heavy<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        match open.registry.lookup(name).filter(|_| open.lends()) {
            Some((holder, kept)) => holder_and_value(env, holder, kept.as_ref()),
            None => not_here(env, open),
        }
    })
}

fn holder_and_value<'a>(env: Env<'a>, holder: Pid, kept: Option<&Kept>) -> Term<'a> {
    (word::to_pid(env, holder), argument::value(env, kept)).encode(env)
}

/// `(registry, name, pid, ended, value)`: makes `pid` the holder if no process holds the name, or if
/// `ended` does. Answers `:yes`; or the pid of the holder; or `:ended` when `pid` has ended; or, in a
/// cluster, `:elsewhere` when no other process of this node holds the name.
fn register<'a>(env: Env<'a>, arguments: [Term<'a>; 5]) -> Term<'a> {
    if Kept::takes_long(arguments[4]) {
        return heavy().encode(env);
    }
    register_any(env, arguments)
}
hot_nif!(register / 5);

/// As `register`, with a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn register_heavy<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: Term<'a>,
    instead_of: Term<'a>,
    value: Term<'a>,
) -> Term<'a> {
    register_any(env, [registry, name, pid, instead_of, value])
}

#[inline]
fn register_any<'a>(
    env: Env<'a>,
    [registry, name, pid, instead_of, value]: [Term<'a>; 5],
) -> Term<'a> {
    let Ok(pid) = pid.decode::<LocalPid>() else {
        return ended().encode(env);
    };
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_bound_name(env, registry, name, |open, guard, name, bound| {
        if open.ended.is_some() {
            let instead_of = instead_of.map(|pid| word::of_pid(env, pid));
            return match open.registry.whereis(guard, name) {
                Some(holder) if Some(holder) != instead_of && open.lends() => {
                    word::to_pid(env, holder)
                }
                _ => elsewhere().encode(env),
            };
        }
        claim(env, open, name, pid, instead_of, keep(env, bound, value))
    })
}

/// `(registry, name, pid, ended, value, epoch)`: as `register` in a registry of this node alone. For a
/// name that the cluster's engine has given to `pid`, under the lease with this epoch, or without a
/// lease if it is 0. `:no_lease`: that epoch does not run.
#[rustler::nif]
fn hold<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    instead_of: Term<'a>,
    value: Term<'a>,
    epoch: u64,
) -> Term<'a> {
    if Kept::takes_long(value) {
        return heavy().encode(env);
    }
    hold_any(env, registry, name, pid, instead_of, value, epoch)
}

/// As `hold`, with a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn hold_heavy<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    instead_of: Term<'a>,
    value: Term<'a>,
    epoch: u64,
) -> Term<'a> {
    hold_any(env, registry, name, pid, instead_of, value, epoch)
}

fn hold_any<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    instead_of: Term<'a>,
    value: Term<'a>,
    epoch: u64,
) -> Term<'a> {
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_bound_name(env, registry, name, |open, _, name, bound| {
        // Before the epoch is looked at: whoever ends it waits for what comes after.
        let kept = keep(env, bound, value);
        let hold = || claim(env, open, name, pid, instead_of, kept);
        if epoch == 0 {
            return hold();
        }
        let answer = LEASE.hold(epoch, hold);
        answer.unwrap_or_else(|| no_lease().encode(env))
    })
}

fn claim<'a>(
    env: Env<'a>,
    open: &Open,
    name: &[u8],
    pid: LocalPid,
    instead_of: Option<LocalPid>,
    kept: Option<Kept>,
) -> Term<'a> {
    let registered = open.registry.register(
        name,
        word::of_pid(env, pid),
        instead_of.map(|pid| word::of_pid(env, pid)),
        kept,
        || open.watch(env, pid),
    );
    match registered {
        Ok(()) => yes().encode(env),
        Err(RegisterError::Taken(holder)) => word::to_pid(env, holder),
        // A registry that is closing cannot watch a process, and takes it for one that has ended.
        Err(RegisterError::Ended) if open.registry.journal().is_closed() => {
            no_registry().encode(env)
        }
        Err(RegisterError::Ended) => ended().encode(env),
    }
}

/// `(registry, name, pid, value)`: gives the name this value if `pid` holds it. Answers `:yes`, or
/// `:no` if `pid` does not.
#[rustler::nif]
fn update<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    value: Term<'a>,
) -> Term<'a> {
    if Kept::takes_long(value) {
        return heavy().encode(env);
    }
    update_any(env, registry, name, pid, value)
}

/// As `update`, with a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn update_heavy<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    value: Term<'a>,
) -> Term<'a> {
    update_any(env, registry, name, pid, value)
}

fn update_any<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    value: Term<'a>,
) -> Term<'a> {
    with_bound_name(env, registry, name, |open, _, name, bound| {
        let pid = word::of_pid(env, pid);
        if open.lends() && open.registry.update(name, pid, keep(env, bound, value)) {
            yes().encode(env)
        } else {
            no().encode(env)
        }
    })
}

/// `(registry, name, pid)`: frees the name if `pid` holds it. Answers `:yes`, or `:no` if `pid` does
/// not; in a cluster `:elsewhere` instead of `:yes`, because the engine has to be told.
fn unregister<'a>(env: Env<'a>, [registry, name, pid]: [Term<'a>; 3]) -> Term<'a> {
    let Ok(pid) = pid.decode::<LocalPid>() else {
        return no().encode(env);
    };
    with_name(env, registry, name, |open, _, name| {
        match open.registry.unregister(name, word::of_pid(env, pid)) {
            true if open.ended.is_some() => elsewhere().encode(env),
            true => yes().encode(env),
            false => no().encode(env),
        }
    })
}
hot_nif!(unregister / 3);
