//! NIFs on the names that sessions of other nodes hold.
//!
//! No registry of this node need be open: a cluster tells of names before, and after.

use crate::argument::with_written;
use crate::directory::with_buffer;
use crate::nif::hot_nif;
use crate::others::{self, MIRROR, Node};
use crate::word;
use registry_core::epoch::Guard;
use registry_core::mirror::Session;
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Term};

rustler::atoms! { ok, undefined }

fn session(number: u32) -> NifResult<Session> {
    Session::new(number).ok_or(Error::BadArg)
}

/// `(number, prefix, suffix)`: what stands before and behind the numbers of the pids of a session, in
/// external format. `false` if that makes no pid.
#[rustler::nif]
fn mirror_node<'a>(env: Env<'a>, number: Term<'a>, prefix: Binary<'a>, suffix: Binary<'a>) -> bool {
    let Some(session) = number.decode().ok().and_then(Session::new) else {
        return false;
    };
    let node = Node::new(env, &prefix, &suffix);
    node.map(|node| MIRROR.begin(session, node)).is_some()
}

/// `(number)`: hides all names of a session.
#[rustler::nif]
fn mirror_drop(number: u32) -> NifResult<Atom> {
    MIRROR.end(session(number)?);
    Ok(ok())
}

/// `(registry, name, number, id, serial)`: makes a process of a session the holder of the name.
#[rustler::nif]
fn mirror_put<'a>(
    env: Env<'a>,
    registry: Atom,
    name: Term<'a>,
    number: u32,
    id: u32,
    serial: u32,
) -> NifResult<Term<'a>> {
    let session = session(number)?;
    let holder = u64::from(id) << u32::BITS | u64::from(serial);
    Ok(with_name(env, name, |_, name| {
        MIRROR.put(word::of_atom(env, registry), name, session, holder);
        ok().encode(env)
    }))
}

/// `(registry, name, number)`: deletes the name if the session holds it.
#[rustler::nif]
fn mirror_delete<'a>(
    env: Env<'a>,
    registry: Atom,
    name: Term<'a>,
    number: u32,
) -> NifResult<Term<'a>> {
    let session = session(number)?;
    Ok(with_name(env, name, |guard, name| {
        if let Some(names) = MIRROR.names(guard, word::of_atom(env, registry)) {
            names.delete(name, session);
        }
        ok().encode(env)
    }))
}

/// `(registry, name)`: the pid of the holder, or `:undefined`.
fn mirror_whereis<'a>(env: Env<'a>, [registry, name]: [Term<'a>; 2]) -> Term<'a> {
    with_name(env, name, |guard, name| {
        let holder = others::whereis(env, guard, word::of(registry.as_c_arg()), name);
        holder.unwrap_or_else(|| undefined().encode(env))
    })
}
hot_nif!(mirror_whereis / 2);

/// `()`: forgets all names and sessions. On a dirty scheduler, because freeing a million names takes a
/// while.
#[rustler::nif(schedule = "DirtyCpu")]
fn mirror_clear() -> Atom {
    MIRROR.clear();
    ok()
}

/// `()`: how many names there are, and their bytes of memory.
#[rustler::nif]
fn mirror_info() -> (usize, usize) {
    MIRROR.fill()
}

/// Calls `f` with the name in canonical bytes.
#[inline]
fn with_name<'a>(
    env: Env<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Guard, &[u8]) -> Term<'a>,
) -> Term<'a> {
    let guard = Guard::new();
    let answer =
        with_buffer(|buffer| with_written(env, buffer, name, |name, _bound| f(&guard, name)));
    guard.end();
    answer
}
