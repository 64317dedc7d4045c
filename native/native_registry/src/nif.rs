//! NIFs without an allocation.
//!
//! `#[rustler::nif]` collects the arguments of every call in a `Vec`, which takes a fifth of the time
//! of a lookup. [`hot_nif!`] registers a function in the same way, and gives it the arguments as an
//! array. Panics are caught in both.

use rustler::sys::{ErlNifTerm, enif_raise_exception};
use rustler::{Env, Term};

rustler::atoms! { nif_panicked }

/// Registers a function as a NIF of the same name: `fn(Env<'a>, [Term<'a>; ARITY]) -> Term<'a>`.
macro_rules! hot_nif {
    ($function:ident / $arity:literal) => {
        rustler::codegen_runtime::inventory::submit!(rustler::Nif {
            name: concat!(stringify!($function), "\0").as_ptr().cast(),
            arity: $arity,
            flags: rustler::SchedulerFlags::Normal as rustler::codegen_runtime::c_uint,
            raw_func: {
                unsafe extern "C" fn raw(
                    env: *mut rustler::sys::ErlNifEnv,
                    _arity: rustler::codegen_runtime::c_int,
                    arguments: *const rustler::sys::ErlNifTerm,
                ) -> rustler::sys::ErlNifTerm {
                    let lifetime = ();
                    // SAFETY: the VM's own env for this call, and no other `Env` has this lifetime.
                    let env = unsafe { rustler::Env::new(&lifetime, env) };
                    // SAFETY: the VM calls a NIF with as many terms of this env as its arity says.
                    let arguments: [rustler::Term<'_>; $arity] = std::array::from_fn(|at| unsafe {
                        rustler::Term::new(env, *arguments.add(at))
                    });
                    $crate::nif::guarded(env, move || $function(env, arguments))
                }
                raw
            }
        });
    };
}
pub(crate) use hot_nif;

/// Calls the body of a NIF. A panic becomes the error `:nif_panicked`, as in rustler's own NIFs.
#[inline]
pub(crate) fn guarded<'a>(env: Env<'a>, body: impl FnOnce() -> Term<'a>) -> ErlNifTerm {
    // Whatever a panic leaves half done is not read again: the thread's buffer is written from its
    // start, and locks are taken even if they are poisoned.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(term) => term.as_c_arg(),
        Err(_) => panicked(env),
    }
}

#[cold]
fn panicked(env: Env<'_>) -> ErlNifTerm {
    let reason = nif_panicked().to_term(env).as_c_arg();
    // SAFETY: the env of this call and a term of it.
    unsafe { enif_raise_exception(env.as_c_arg(), reason) }
}
