//! NIFs on names. Each answers an atom where something is to be said about the name or the
//! registry: `:no_registry`, `:too_large`, `:too_deep`, `:odd`. Values go both ways as binaries in external
//! format, or `nil` where there is none. In a registry that is part of a cluster, `:elsewhere` says
//! that this node's table is not the last word.

use crate::cluster::look_elsewhere;
use crate::directory::{self, Open, Value};
use crate::nif::hot_nif;
use crate::term::{self, Refused};
use crate::word;
use registry_core::name::{Buffer, Encoder as NameEncoder, MAX_BYTES, NameError};
use registry_core::{Reader, RegisterError};
use rustler::{Binary, Encoder, Env, LocalPid, Term};

rustler::atoms! {
    ok, elsewhere, no_registry, too_large, too_deep, too_many_maps, odd, bad_pattern, ended, yes, no, nil
}

/// Calls `f` with the registry and the name in canonical bytes.
#[inline]
pub(crate) fn with_name<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Open, &mut Reader, &[u8]) -> Term<'a>,
) -> Term<'a> {
    directory::with(word::of(registry.as_c_arg()), |open, reader, buffer| {
        let mut encoder = NameEncoder::new(buffer);
        match term::write(&mut encoder, name) {
            Ok(()) => {
                let name = encoder.finish();
                pay(env, name.len());
                f(open, reader, name)
            }
            Err(refused) => refusal(refused).encode(env),
        }
    })
    .unwrap_or_else(|| no_registry().encode(env))
}

/// Has the caller pay for a long name with its time slice, of which a NIF takes hardly anything
/// otherwise: a loop over the longest names would keep its scheduler to itself for long.
#[inline]
fn pay(env: Env<'_>, bytes: usize) {
    // The longest names take about a slice, which is a millisecond.
    let percent = bytes / (MAX_BYTES / 100);
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, i32::try_from(percent.min(100)).unwrap_or(100));
    }
}

/// `(name)`: `:ok`, or why it cannot be a name.
#[rustler::nif]
fn check<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    let mut buffer = Buffer::new();
    match term::write(&mut NameEncoder::new(&mut buffer), name) {
        Ok(()) => ok().encode(env),
        Err(refused) => refusal(refused).encode(env),
    }
}

#[cold]
pub(crate) fn refusal(refused: Refused) -> rustler::Atom {
    match refused {
        Refused::Odd => odd(),
        Refused::Pattern => bad_pattern(),
        Refused::Name(NameError::TooLarge) => too_large(),
        Refused::Name(NameError::TooDeep) => too_deep(),
        Refused::Name(NameError::TooManyMaps) => too_many_maps(),
    }
}

/// `(registry, name)`: the holder's pid, which may have ended, or `:undefined`; see [`look_elsewhere`].
fn whereis<'a>(env: Env<'a>, [registry, name]: [Term<'a>; 2]) -> Term<'a> {
    with_name(env, registry, name, |open, reader, name| {
        match open.registry.whereis(reader, name) {
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
            Some((holder, value)) => {
                (word::to_pid(env, holder), encode_value(env, value.as_ref())).encode(env)
            }
            None => look_elsewhere(env, open),
        }
    })
}

/// `(registry, name, pid, ended, value)`: `:yes`; or the pid that holds the name, unless it is
/// `ended`, which gives the name up; or `:ended` when `pid` has; or, in a cluster, `:elsewhere` when
/// no process of this node holds it.
fn register<'a>(env: Env<'a>, [registry, name, pid, instead_of, value]: [Term<'a>; 5]) -> Term<'a> {
    let Ok(pid) = pid.decode::<LocalPid>() else {
        return ended().encode(env);
    };
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_name(env, registry, name, |open, reader, name| {
        if open.ended.is_some() {
            let instead_of = instead_of.map(|pid| word::of_pid(env, pid));
            return match open.registry.whereis(reader, name) {
                Some(holder) if Some(holder) != instead_of => word::to_pid(env, holder),
                _ => elsewhere().encode(env),
            };
        }
        claim(env, open, name, pid, instead_of, value)
    })
}
hot_nif!(register / 5);

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
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_name(env, registry, name, |open, _, name| {
        claim(env, open, name, pid, instead_of, value)
    })
}

fn claim<'a>(
    env: Env<'a>,
    open: &Open,
    name: &[u8],
    pid: LocalPid,
    instead_of: Option<LocalPid>,
    value: Term<'a>,
) -> Term<'a> {
    let registered = open.registry.register(
        name,
        word::of_pid(env, pid),
        instead_of.map(|pid| word::of_pid(env, pid)),
        decode_value(value),
        || open.watch(env, pid),
    );
    match registered {
        Ok(()) => yes().encode(env),
        Err(RegisterError::Taken(holder)) => word::to_pid(env, holder),
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
    with_name(env, registry, name, |open, _, name| {
        let pid = word::of_pid(env, pid);
        if open.registry.update(name, pid, decode_value(value)) {
            yes().encode(env)
        } else {
            no().encode(env)
        }
    })
}

fn decode_value(value: Term<'_>) -> Option<Value> {
    let bytes = Binary::from_term(value).ok()?;
    Some(Value::from(bytes.as_slice()))
}

pub(crate) fn encode_value<'a>(env: Env<'a>, value: Option<&Value>) -> Term<'a> {
    match value {
        Some(bytes) => term::binary(env, bytes),
        None => nil().encode(env),
    }
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
