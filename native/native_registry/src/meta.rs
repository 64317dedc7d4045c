//! NIFs on what users keep with a registry as a whole. Keys are terms like names; values go in and
//! out like those of names, with `:heavy` where one takes long to copy.

use crate::argument::{self, keep, with_bound_name, with_name};
use crate::kept::Kept;
use rustler::{Encoder, Env, Term};

rustler::atoms! { ok, error, heavy }

/// `(registry, key)`: `{:ok, value}`, or `:error` when there is none.
#[rustler::nif]
fn meta<'a>(env: Env<'a>, registry: Term<'a>, key: Term<'a>) -> Term<'a> {
    with_name(env, registry, key, |open, _, key| {
        match open.meta.get(key) {
            Some(Some(kept)) if kept.is_heavy() => heavy().encode(env),
            Some(kept) => found(env, kept.as_ref()),
            None => error().encode(env),
        }
    })
}

/// As `meta`, of a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn meta_heavy<'a>(env: Env<'a>, registry: Term<'a>, key: Term<'a>) -> Term<'a> {
    with_name(env, registry, key, |open, _, key| {
        match open.meta.get(key) {
            Some(kept) => found(env, kept.as_ref()),
            None => error().encode(env),
        }
    })
}

fn found<'a>(env: Env<'a>, kept: Option<&Kept>) -> Term<'a> {
    (ok(), argument::value(env, kept)).encode(env)
}

/// `(registry, key, value)`: `:ok`.
#[rustler::nif]
fn put_meta<'a>(env: Env<'a>, registry: Term<'a>, key: Term<'a>, value: Term<'a>) -> Term<'a> {
    if Kept::takes_long(value) {
        return heavy().encode(env);
    }
    put_any(env, registry, key, value)
}

/// As `put_meta`, with a value of any size.
#[rustler::nif(schedule = "DirtyCpu")]
fn put_meta_heavy<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    key: Term<'a>,
    value: Term<'a>,
) -> Term<'a> {
    put_any(env, registry, key, value)
}

fn put_any<'a>(env: Env<'a>, registry: Term<'a>, key: Term<'a>, value: Term<'a>) -> Term<'a> {
    with_bound_name(env, registry, key, |open, _, key, bound| {
        open.meta.put(key, keep(env, bound, value));
        ok().encode(env)
    })
}

/// `(registry, key)`: `:ok`, also when there is none.
#[rustler::nif]
fn delete_meta<'a>(env: Env<'a>, registry: Term<'a>, key: Term<'a>) -> Term<'a> {
    with_name(env, registry, key, |open, _, key| {
        open.meta.delete(key);
        ok().encode(env)
    })
}
