//! NIFs on names. Each answers an atom where something is to be said about the name or the
//! registry: `:no_registry`, `:too_large`, `:too_deep`, `:odd`.

use crate::directory::{self, Open};
use crate::nif::hot_nif;
use crate::term::{self, Refused};
use crate::word;
use registry_core::RegisterError;
use registry_core::name::{Encoder as NameEncoder, NameError};
use rustler::{Encoder, Env, LocalPid, Term};

rustler::atoms! {
    undefined, no_registry, too_large, too_deep, odd, ended, yes, no
}

/// Calls `f` with the registry and the name in canonical bytes.
#[inline]
fn with_name<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Open, &[u8]) -> Term<'a>,
) -> Term<'a> {
    directory::with(word::of(registry.as_c_arg()), |open, buffer| {
        let mut encoder = NameEncoder::new(buffer);
        match term::write(&mut encoder, name) {
            Ok(()) => f(open, encoder.finish()),
            Err(refused) => refusal(refused).encode(env),
        }
    })
    .unwrap_or_else(|| no_registry().encode(env))
}

#[cold]
fn refusal(refused: Refused) -> rustler::Atom {
    match refused {
        Refused::Odd => odd(),
        Refused::Name(NameError::TooLarge) => too_large(),
        Refused::Name(NameError::TooDeep) => too_deep(),
    }
}

/// `(registry, name)`: the holder's pid, which may have ended, or `:undefined`.
fn whereis<'a>(env: Env<'a>, [registry, name]: [Term<'a>; 2]) -> Term<'a> {
    with_name(env, registry, name, |open, name| {
        match open.registry.whereis(name) {
            Some(holder) => word::to_pid(env, holder),
            None => undefined().encode(env),
        }
    })
}
hot_nif!(whereis / 2);

/// `(registry, name, pid, ended)`: `:yes`; or the pid that holds the name, unless it is `ended`,
/// which gives the name up; or `:ended` when `pid` has.
fn register<'a>(env: Env<'a>, [registry, name, pid, instead_of]: [Term<'a>; 4]) -> Term<'a> {
    let Ok(pid) = pid.decode::<LocalPid>() else {
        return ended().encode(env);
    };
    let instead_of = instead_of.decode::<LocalPid>().ok();
    with_name(env, registry, name, |open, name| {
        let registered = open.registry.register(
            name,
            word::of_pid(env, pid),
            instead_of.map(|pid| word::of_pid(env, pid)),
            || open.watch(env, pid),
        );
        match registered {
            Ok(()) => yes().encode(env),
            Err(RegisterError::Taken(holder)) => word::to_pid(env, holder),
            Err(RegisterError::Ended) => ended().encode(env),
        }
    })
}
hot_nif!(register / 4);

/// `(registry, name, pid)`: `:yes` when `pid` held the name, which is free now, else `:no`.
fn unregister<'a>(env: Env<'a>, [registry, name, pid]: [Term<'a>; 3]) -> Term<'a> {
    let Ok(pid) = pid.decode::<LocalPid>() else {
        return no().encode(env);
    };
    with_name(env, registry, name, |open, name| {
        if open.registry.unregister(name, word::of_pid(env, pid)) {
            yes().encode(env)
        } else {
            no().encode(env)
        }
    })
}
hot_nif!(unregister / 3);
