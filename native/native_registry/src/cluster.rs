//! Registries that are part of a cluster.
//!
//! The table has the names of this node's processes. Which processes of other nodes hold which
//! names, the cluster's engine knows; what it tells of them by itself is mirrored here, so that a
//! lookup need not ask it.

use crate::directory::{self, Open};
use crate::names::with_name;
use crate::word;
use ahash::RandomState;
use dashmap::DashMap;
use rustler::{Atom, Binary, Encoder, Env, Term};
use std::sync::Arc;

rustler::atoms! { ok, undefined, elsewhere, no_registry }

/// Canonical name to a pid of another node in external format: such a pid is no word that could
/// be kept. The format names that node and tells it from later ones of its name, so what it stands
/// for does not depend on what this node is called. Whose name it is nobody is told from here, so
/// nothing is kept of the name but its bytes.
pub(crate) struct Mirror(DashMap<Box<[u8]>, Arc<[u8]>, RandomState>);

impl Mirror {
    pub(crate) fn new() -> Self {
        Self(DashMap::with_hasher(RandomState::new()))
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }

    fn get<'a>(&self, env: Env<'a>, name: &[u8]) -> Option<Term<'a>> {
        // A copy, so that nothing is locked while the VM is called.
        let pid = Arc::clone(&*self.0.get(name)?);
        Some(env.binary_to_term(&pid)?.0)
    }
}

/// What is to be said of a name that no process of this node holds: `:undefined` when the registry
/// is this node's alone, else `{:elsewhere, pid}` if the mirror has it, else `:elsewhere`.
#[inline]
pub(crate) fn look_elsewhere<'a>(env: Env<'a>, open: &Open, name: &[u8]) -> Term<'a> {
    match &open.mirror {
        None => undefined().encode(env),
        Some(mirror) => match mirror.get(env, name) {
            Some(pid) => (elsewhere(), pid).encode(env),
            None => elsewhere().encode(env),
        },
    }
}

/// `(registry, name)`: what a lookup answers of a name that no process of this node holds.
#[rustler::nif]
fn whereis_elsewhere<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        look_elsewhere(env, open, name)
    })
}

/// `(registry, name, pid)`: the engine has told that this process of another node, in external
/// format, holds the name.
#[rustler::nif]
fn mirror<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>, pid: Binary<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        if let Some(mirror) = &open.mirror {
            mirror.0.insert(name.into(), pid.as_slice().into());
        }
        ok().encode(env)
    })
}

/// `(registry, name, pid)`: the engine has told that it does not hold it any more.
#[rustler::nif]
fn unmirror<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>, pid: Binary<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        if let Some(mirror) = &open.mirror {
            mirror.0.remove_if(name, |_, held| **held == *pid);
        }
        ok().encode(env)
    })
}

/// `(registry)`: how many names of other nodes are mirrored.
#[rustler::nif]
fn mirrored(env: Env<'_>, registry: Atom) -> Term<'_> {
    directory::with(word::of_atom(env, registry), |open, _, _| {
        open.mirror
            .as_ref()
            .map_or(0, |mirror| mirror.0.len())
            .encode(env)
    })
    .unwrap_or_else(|| no_registry().encode(env))
}
