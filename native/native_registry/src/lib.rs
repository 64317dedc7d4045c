//! The NIF under `WorkflowMetal.Registration.NativeRegistry`.
//!
//! A lookup goes through `names::whereis`, which finds the registry in the `directory`, has `write`
//! write the name into the thread's buffer, and asks the registry's table for the holder.
//!
//! # Floors
//!
//! The modules below stand in floors, the lowest first. A module uses modules of lower floors only;
//! `tests/floors.rs` checks that.
//!
//! # Loading the module again
//!
//! The library is registered by `rustler::init!`, which gives the VM no `upgrade` callback. So the
//! VM refuses to load the Elixir module again while it is in use (`:code.load_file/1`, `l/1` in a
//! shell): the answer is an error, and the code before stays, with all registries. Where the old
//! code is deleted and purged first, as Mix and IEx do it when they compile a module again, the VM
//! calls `load` once more and the module finds its registries, because the library is never
//! unloaded: see `background::pin`.
//!
//! With an `upgrade` callback, the entry of the library and the resources would have to be written by
//! hand, which took more than thirty `unsafe`. All it allowed was to load the very same library a
//! second time. Another build of the library, as in the upgrade of a release, has tables of its own
//! and cannot take over the names of the one before.

// What the VM and the system offer.
mod background;
mod clock;
mod nif;
mod word;

mod api;
mod deadline;
mod external;
mod watch;

mod layout;
mod origin;
mod refusal;

// Between terms and bytes.
mod read;
mod write;

mod kept;

mod others;

// What a registry consists of.
mod courier;

mod open;

mod directory;

// NIFs.
mod argument;

mod cluster;
mod lease;
mod meta;
mod mirror;
mod observe;

mod names;

use rustler::{Env, Term};

rustler::init!(
    "Elixir.WorkflowMetal.Registration.NativeRegistry.Native",
    load = load
);

/// Called by the VM when it loads the library. `argument`: `{portable, samples, parts}`, which says
/// whether to use the documented API alone, and gives terms of every kind and parts of binaries
/// that do not begin at a byte.
fn load<'a>(env: Env<'a>, argument: Term<'a>) -> bool {
    let Ok((portable, samples, parts)) = argument.decode::<(bool, Vec<_>, Vec<_>)>() else {
        return false;
    };
    layout::check(env, portable, &samples, &parts);
    write::check(env);
    true
}
