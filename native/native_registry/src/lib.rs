//! The NIF under `WorkflowMetal.Registration.NativeRegistry`.
//!
//! A lookup goes: `whereis` takes the registry from this thread's memory, writes the name into this
//! thread's buffer, and asks the table. `unsafe` stands where rustler has no safe way: `word`, to keep
//! terms that are mere words; `term` and `layout`, to look into terms without copying them; `nif`, to
//! spare what rustler's own macro allocates on every call; and one call in `courier`.

mod cluster;
mod courier;
mod directory;
mod layout;
mod names;
mod nif;
mod observe;
mod odd;
mod registries;
mod term;
mod watch;
mod word;

use rustler::{Env, Term};

/// Called by the VM when the library is loaded. `portable`: use the documented API alone.
fn load<'a>(env: Env<'a>, portable: Term<'a>) -> bool {
    let Ok(portable) = portable.decode() else {
        return false;
    };
    layout::check(env, portable);
    term::check(env);
    true
}

rustler::init!(
    "Elixir.WorkflowMetal.Registration.NativeRegistry.Native",
    load = load
);
