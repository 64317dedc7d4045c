//! What NIFs on names are given: a registry, a name, and a value. They answer an atom where
//! something is to be said about these: `:no_registry`, or that of a `Refused`.

use crate::directory;
use crate::kept::{HEAVY, Kept};
use crate::open::Open;
use crate::word;
use crate::write;
use registry_core::epoch::Guard;
use registry_core::name::{Buffer, Encoder as NameEncoder, MAX_BYTES};
use rustler::{Encoder, Env, Term};

rustler::atoms! { no_registry }

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

/// As [`with_name`]; `f` also gets the name itself where its bytes cannot bring it back.
#[inline]
pub(crate) fn with_bound_name<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    name: Term<'a>,
    f: impl FnOnce(&Open, &Guard, &[u8], Option<Term<'a>>) -> Term<'a>,
) -> Term<'a> {
    directory::with(word::of(registry.as_c_arg()), |open, guard, buffer| {
        with_written(env, buffer, name, |name, bound| f(open, guard, name, bound))
    })
    .unwrap_or_else(|| no_registry().encode(env))
}

/// Calls `f` with the name in canonical bytes, and with the name itself where its bytes cannot bring it
/// back.
#[inline]
pub(crate) fn with_written<'a>(
    env: Env<'a>,
    buffer: &mut Buffer,
    name: Term<'a>,
    f: impl FnOnce(&[u8], Option<Term<'a>>) -> Term<'a>,
) -> Term<'a> {
    let mut encoder = NameEncoder::new(buffer);
    let written = write::name(&mut encoder, name);
    pay(env, encoder.work());
    match written {
        Ok(()) => {
            let bound = encoder.bound().then_some(name);
            f(encoder.finish(), bound)
        }
        Err(refused) => refused.encode(env),
    }
}

/// Calls `f` with the registry. For work of any length, which [`directory::with`] is not.
pub(crate) fn with_open<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    f: impl FnOnce(&Open) -> Term<'a>,
) -> Term<'a> {
    match directory::find(word::of(registry.as_c_arg())) {
        Some(open) => f(&open),
        None => no_registry().encode(env),
    }
}

/// Charges the caller's time slice for reading a name, whether the name was taken or refused. A NIF
/// takes hardly anything of the slice by itself, so a loop over long names would keep its scheduler
/// for too long. `work` is what the name's encoder says.
#[inline]
pub(crate) fn pay(env: Env<'_>, work: usize) {
    // The longest names take about a slice, which is a millisecond.
    charge(env, work / (MAX_BYTES / 100));
}

/// What is to be kept with a name. Charges the caller for copying it.
pub(crate) fn keep<'a>(env: Env<'a>, bound: Option<Term<'a>>, value: Term<'a>) -> Option<Kept> {
    let kept = Kept::new(bound, value);
    pay_for_value(env, kept.as_ref());
    kept
}

/// The value as the Elixir side takes it. Charges the caller for copying it.
pub(crate) fn value<'a>(env: Env<'a>, kept: Option<&Kept>) -> Term<'a> {
    pay_for_value(env, kept);
    Kept::encode(kept, env)
}

fn pay_for_value(env: Env<'_>, kept: Option<&Kept>) {
    let (plain, terms) = kept.map_or((0, 0), Kept::size);
    // A megabyte in external format takes about a tenth of a millisecond, terms a millisecond.
    charge(env, plain / (100 * 1024) + terms / (HEAVY / 50));
}

#[inline]
fn charge(env: Env<'_>, percent: usize) {
    if percent > 0 {
        rustler::schedule::consume_timeslice(env, i32::try_from(percent.min(100)).unwrap_or(100));
    }
}
