//! NIFs on whole registries.

use crate::directory;
use crate::word;
use rustler::{Atom, Encoder, Env, LocalPid, Term};

rustler::atoms! { ok, no_registry }

/// Opens a registry that lives as long as `supervisor`, as part of a cluster or not. Answers `:ok`, also when that supervisor
/// has it open already, or the other supervisor that has.
#[rustler::nif]
fn open(env: Env<'_>, registry: Atom, supervisor: LocalPid, clustered: bool) -> Term<'_> {
    match directory::open(env, word::of_atom(env, registry), supervisor, clustered) {
        Ok(()) => ok().encode(env),
        Err(other) => word::to_pid(env, other),
    }
}

/// Hides a registry that this supervisor has open, until it is opened again, and keeps what it
/// holds. Answers what `close_suspended` wants, or `:no_registry`.
#[rustler::nif]
fn suspend(env: Env<'_>, registry: Atom, supervisor: LocalPid) -> Term<'_> {
    match directory::suspend(word::of_atom(env, registry), word::of_pid(env, supervisor)) {
        Some(suspended) => suspended.encode(env),
        None => no_registry().encode(env),
    }
}

/// Closes a registry that was suspended; `false` if it has been opened again. On a dirty scheduler,
/// as `close`.
#[rustler::nif(schedule = "DirtyCpu")]
fn close_suspended(env: Env<'_>, registry: Atom, suspended: (u64, u64)) -> bool {
    directory::close_suspended(word::of_atom(env, registry), suspended)
}

/// Closes a registry that this supervisor has open, or has suspended. On a dirty scheduler: freeing a million names
/// takes a while.
#[rustler::nif(schedule = "DirtyCpu")]
fn close(env: Env<'_>, registry: Atom, supervisor: LocalPid) -> bool {
    directory::close(word::of_atom(env, registry), word::of_pid(env, supervisor))
}

/// How many names and how many processes stand in the registry, or `:no_registry`.
#[rustler::nif]
fn sizes<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    directory::with(word::of(registry.as_c_arg()), |open, _, _| {
        (open.registry.len(), open.registry.holders()).encode(env)
    })
    .unwrap_or_else(|| no_registry().encode(env))
}

/// Whether words of terms are read directly; see `layout`.
#[rustler::nif]
fn reads_words() -> bool {
    crate::layout::trusted().is_some()
}
