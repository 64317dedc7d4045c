//! Registries that are part of a cluster.
//!
//! The table has the names of this node's processes. Which processes of other nodes hold which
//! names, the cluster's engine knows. What is kept here are the names that were held on this node
//! until their holders ended: an engine that hangs has not given such a name to another node, so
//! that a restarted process may have it back without asking.

use crate::directory::{self, Open};
use crate::names::with_name;
use crate::word;
use rustler::{Encoder, Env, Term};

rustler::atoms! { undefined, elsewhere, no_registry }

/// What is to be said of a name that no process of this node holds: `:undefined` when the registry
/// is this node's alone, else `:elsewhere`.
#[inline]
pub(crate) fn look_elsewhere<'a>(env: Env<'a>, open: &Open) -> Term<'a> {
    match open.ended {
        None => undefined().encode(env),
        Some(_) => elsewhere().encode(env),
    }
}

/// `(registry, name)`: whether a process of this node held the name until it ended, a short while
/// ago.
#[rustler::nif]
fn was_held<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        let ended = open.ended.as_ref();
        ended.is_some_and(|ended| ended.has(name)).encode(env)
    })
}

/// `(registry)`: whether the registry is part of a cluster, or `:no_registry`.
#[rustler::nif]
fn clustered<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    let registry = word::of(registry.as_c_arg());
    match directory::with(registry, |open, _, _| open.ended.is_some()) {
        Some(clustered) => clustered.encode(env),
        None => no_registry().encode(env),
    }
}
