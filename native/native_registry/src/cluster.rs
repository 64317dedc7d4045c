//! Registries that are part of a cluster.
//!
//! The table has the names of this node's processes; the cluster's engine knows which processes of
//! other nodes hold which names. What is kept here are the names that were held on this node until
//! their holders ended. An engine that hangs has not given such a name to another node, so a
//! restarted process may have it back without asking the engine.

use crate::argument::{with_name, with_open};
use crate::open::Open;
use crate::others;
use registry_core::epoch::Guard;
use rustler::{Encoder, Env, Term};

rustler::atoms! { undefined, elsewhere }

/// The answer about a name that no process of this node holds: `:undefined` when the registry is
/// this node's alone, else `:elsewhere`.
#[inline]
pub(crate) fn not_here<'a>(env: Env<'a>, open: &Open) -> Term<'a> {
    match open.ended {
        None => undefined().encode(env),
        Some(_) => elsewhere().encode(env),
    }
}

/// As [`not_here`]; in a registry with a lease `{pid}` when a session of another node holds the name.
#[inline]
pub(crate) fn not_here_but<'a>(env: Env<'a>, open: &Open, guard: &Guard, name: &[u8]) -> Term<'a> {
    if open.leased
        && let Some(pid) = others::whereis(env, guard, open.name, name)
    {
        return (pid,).encode(env);
    }
    not_here(env, open)
}

/// `(registry, name)`: whether a process of this node held the name and ended a short while ago.
#[rustler::nif]
fn was_held<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        let ended = open.ended.as_ref();
        ended.is_some_and(|ended| ended.has(name)).encode(env)
    })
}

/// `(registry)`: whether the registry is part of a cluster.
#[rustler::nif]
fn clustered<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| open.ended.is_some().encode(env))
}
