//! NIFs on names. Each answers an atom where something is to be said about the name or the
//! registry: `:no_registry`, `:too_large`, `:too_deep`, `:odd`. How values go in and out, `Kept::new` and
//! `Kept::encode` say; where one takes long to copy, the answer is `:heavy`, and the NIF of that name,
//! on a dirty scheduler, has to be called. In a registry that is part of a cluster, `:elsewhere`
//! says that this node's table is not the last word.

use crate::cluster::look_elsewhere;
use crate::directory::{self, Open};
use crate::kept::{HEAVY, Kept};
use crate::nif::hot_nif;
use crate::term;
use crate::word;
use registry_core::epoch::Guard;
use registry_core::name::{Buffer, Encoder as NameEncoder, MAX_BYTES};
use registry_core::{Pid, RegisterError};
use rustler::{Encoder, Env, LocalPid, Term};

rustler::atoms! {
    ok, elsewhere, no_registry, heavy, ended, yes, no
}

/// Calls `f` with the registry and the name in canonical bytes.
#[inline]
pub(crate) fn with_name<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Open, &Guard, &[u8]) -> Term<'a>,
) -> Term<'a> {
    with_bound_name(env, registry, name, |open, guard, name, _bound| {
        f(open, guard, name)
    })
}

/// Calls `f` with the registry and the name in canonical bytes, and with the name itself where those
/// cannot bring it back.
#[inline]
pub(crate) fn with_bound_name<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Open, &Guard, &[u8], Option<Term<'a>>) -> Term<'a>,
) -> Term<'a> {
    directory::with(word::of(registry.as_c_arg()), |open, guard, buffer| {
        let mut encoder = NameEncoder::new(buffer);
        let written = term::write(&mut encoder, name);
        pay(env, encoder.work());
        match written {
            Ok(()) => {
                let bound = encoder.bound().then_some(name);
                f(open, guard, encoder.finish(), bound)
            }
            Err(refused) => refused.encode(env),
        }
    })
    .unwrap_or_else(|| no_registry().encode(env))
}

/// Has the caller pay with its time slice for what was read of a name, whether it was taken or
/// refused; otherwise a NIF takes hardly anything of it, and a loop over long names would keep its
/// scheduler to itself for long. `work` is what the name's encoder says.
#[inline]
pub(crate) fn pay(env: Env<'_>, work: usize) {
    // The longest names take about a slice, which is a millisecond.
    let percent = work / (MAX_BYTES / 100);
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, i32::try_from(percent.min(100)).unwrap_or(100));
    }
}

/// `(name)`: `:ok`, or why it cannot be a name.
#[rustler::nif]
fn check<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    let mut buffer = Buffer::new();
    let mut encoder = NameEncoder::new(&mut buffer);
    let written = term::write(&mut encoder, name);
    pay(env, encoder.work());
    match written {
        Ok(()) => ok().encode(env),
        Err(refused) => refused.encode(env),
    }
}

/// `(registry, name)`: the holder's pid, which may have ended, or `:undefined`; see [`look_elsewhere`].
fn whereis<'a>(env: Env<'a>, [registry, name]: [Term<'a>; 2]) -> Term<'a> {
    with_name(env, registry, name, |open, guard, name| {
        match open.registry.whereis(guard, name) {
            Some(holder) => word::to_pid(env, holder),
            None => look_elsewhere(env, open),
        }
    })
}
hot_nif!(whereis / 2);

/// `(registry, name)`: `{pid, value}` or `:undefined`; see [`look_elsewhere`].
#[rustler::nif]
fn lookup<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        match open.registry.lookup(name) {
            Some((_, Some(kept))) if kept.is_heavy() => heavy().encode(env),
            Some((holder, kept)) => holder_and_value(env, holder, kept.as_ref()),
            None => look_elsewhere(env, open),
        }
    })
}

/// As `lookup`, of a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn lookup_heavy<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        match open.registry.lookup(name) {
            Some((holder, kept)) => holder_and_value(env, holder, kept.as_ref()),
            None => look_elsewhere(env, open),
        }
    })
}

fn holder_and_value<'a>(env: Env<'a>, holder: Pid, kept: Option<&Kept>) -> Term<'a> {
    pay_for_value(env, kept.map_or((0, 0), Kept::size));
    (word::to_pid(env, holder), Kept::encode(kept, env)).encode(env)
}

/// Has the caller pay for copying a value of this size.
pub(crate) fn pay_for_value(env: Env<'_>, (plain, terms): (usize, usize)) {
    // A megabyte in external format takes about a tenth of a millisecond, terms a millisecond.
    let percent = plain / (100 * 1024) + terms / (HEAVY / 50);
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, i32::try_from(percent.min(100)).unwrap_or(100));
    }
}

/// `(registry, name, pid, ended, value)`: `:yes`; or the pid that holds the name, unless it is
/// `ended`, which gives the name up; or `:ended` when `pid` has; or, in a cluster, `:elsewhere` when
/// no process of this node holds it.
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
                Some(holder) if Some(holder) != instead_of => word::to_pid(env, holder),
                _ => elsewhere().encode(env),
            };
        }
        claim(env, open, name, pid, instead_of, keep(env, bound, value))
    })
}

/// `(registry, name, pid, ended, value)`: as `register`, of a name that the cluster's engine has
/// given to `pid`.
#[rustler::nif]
fn hold<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    instead_of: Term<'a>,
    value: Term<'a>,
) -> Term<'a> {
    if Kept::takes_long(value) {
        return heavy().encode(env);
    }
    hold_any(env, registry, name, pid, instead_of, value)
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
) -> Term<'a> {
    hold_any(env, registry, name, pid, instead_of, value)
}

fn hold_any<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    pid: LocalPid,
    instead_of: Term<'a>,
    value: Term<'a>,
) -> Term<'a> {
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_bound_name(env, registry, name, |open, _, name, bound| {
        claim(env, open, name, pid, instead_of, keep(env, bound, value))
    })
}

/// What is to be kept with a name, which the caller pays for.
pub(crate) fn keep<'a>(env: Env<'a>, bound: Option<Term<'a>>, value: Term<'a>) -> Option<Kept> {
    let kept = Kept::new(bound, value);
    pay_for_value(env, kept.as_ref().map_or((0, 0), Kept::size));
    kept
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
        // No process can be watched by a registry that is closing.
        Err(RegisterError::Ended) if open.registry.journal().is_closed() => {
            no_registry().encode(env)
        }
        Err(RegisterError::Ended) => ended().encode(env),
    }
}

/// `(registry, name, pid, value)`: `:yes` when `pid` holds the name, which has this value now, else
/// `:no`.
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
        if open.registry.update(name, pid, keep(env, bound, value)) {
            yes().encode(env)
        } else {
            no().encode(env)
        }
    })
}

/// `(registry, name, pid)`: `:yes` when `pid` held the name, which is free now, else `:no`; in a
/// cluster `:elsewhere` in place of `:yes`, as the engine has to be told.
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
