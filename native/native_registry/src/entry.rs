//! How the VM takes the library in.
//!
//! In place of `rustler::init!`, whose libraries cannot be loaded again while they are in use: the VM
//! then wants to know how to `upgrade`. The module may be loaded anew at any time, and finds the
//! registries as they are, because what it loads is the library that is there already. Another copy
//! of the library, such as that of another release, has tables of its own and is refused; the code
//! before stays.

use crate::watch::Watch;
use crate::{layout, term};
use once_cell::sync::OnceCell;
use rustler::codegen_runtime::{ErlNifEntry, ErlNifFunc, handle_nif_init_call, inventory};
use rustler::sys::{ErlNifEnv, ErlNifResourceFlags, ErlNifTerm, c_int, c_void};
use rustler::{Env, Nif, Term};

/// What this copy of the library is known by: where it lies.
static COPY: u8 = 0;

fn copy() -> *mut c_void {
    (&raw const COPY).cast_mut().cast()
}

/// What the VM reads when it loads the library.
struct Entry(ErlNifEntry);

// SAFETY: what it points to is never freed, and nobody writes to it.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// Made once: the VM asks at each attempt to load the library.
fn entry() -> *const ErlNifEntry {
    static ENTRY: OnceCell<Entry> = OnceCell::new();
    let entry = ENTRY.get_or_init(|| {
        let functions: Vec<ErlNifFunc> = inventory::iter::<Nif>().map(Nif::get_def).collect();
        let name = c"Elixir.WorkflowMetal.Registration.NativeRegistry.Native";
        Entry(ErlNifEntry {
            upgrade: Some(upgrade),
            ..ErlNifEntry::new(name, functions.leak(), load)
        })
    });
    &raw const entry.0
}

#[cfg(not(windows))]
#[unsafe(no_mangle)]
extern "C" fn nif_init() -> *const ErlNifEntry {
    // SAFETY: fills in where the VM's functions are, where they are not linked; called by the VM,
    // which loads one library at a time.
    unsafe { rustler::codegen_runtime::internal_write_symbols() }
    entry()
}

#[cfg(windows)]
#[unsafe(no_mangle)]
extern "C" fn nif_init(
    functions: *mut rustler::codegen_runtime::DynNifCallbacks,
) -> *const ErlNifEntry {
    // SAFETY: the VM's functions, as the VM hands them over; it loads one library at a time.
    unsafe { rustler::codegen_runtime::internal_set_symbols(functions) }
    entry()
}

/// The first time, or again after the module was deleted and purged.
unsafe extern "C" fn load(
    env: *mut ErlNifEnv,
    data: *mut *mut c_void,
    argument: ErlNifTerm,
) -> c_int {
    // SAFETY: the VM's arguments of a `load` callback.
    unsafe { begin(env, data, argument, ErlNifResourceFlags::ERL_NIF_RT_CREATE) }
}

/// When there is older code of the module that has a library.
unsafe extern "C" fn upgrade(
    env: *mut ErlNifEnv,
    data: *mut *mut c_void,
    older: *mut *mut c_void,
    argument: ErlNifTerm,
) -> c_int {
    // SAFETY: the VM's arguments of an `upgrade` callback; `older` is where the data of the older
    // code stand.
    if unsafe { *older } != copy() {
        return 1;
    }
    // SAFETY: the VM's arguments of an `upgrade` callback, of the library that opened the type.
    unsafe {
        begin(
            env,
            data,
            argument,
            ErlNifResourceFlags::ERL_NIF_RT_TAKEOVER,
        )
    }
}

/// # Safety
///
/// The arguments are those of a callback of the VM; with `ERL_NIF_RT_TAKEOVER`, that `older` code of
/// the module has this copy of the library.
unsafe fn begin(
    env: *mut ErlNifEnv,
    data: *mut *mut c_void,
    argument: ErlNifTerm,
    flags: ErlNifResourceFlags,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe {
        if !Watch::open_type(env, flags) {
            return 1;
        }
        *data = copy();
        let lifetime = ();
        let env = Env::new_init_env(&lifetime, env);
        handle_nif_init_call(check, env, Term::new(env, argument))
    }
}

/// `{portable, samples, parts}`: whether to use the documented API alone, terms of every kind, and
/// parts of binaries that do not begin where a byte does.
fn check<'a>(env: Env<'a>, argument: Term<'a>) -> bool {
    let Ok((portable, samples, parts)) = argument.decode::<(bool, Vec<_>, Vec<_>)>() else {
        return false;
    };
    layout::check(env, portable, &samples, &parts);
    term::check(env);
    true
}
