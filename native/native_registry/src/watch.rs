//! Notices of ended processes.
//!
//! The VM's resources are used without rustler's: when the module is loaded anew, the new code has to
//! take the type of the resources over, which rustler does not do.

use crate::directory::{self, Open};
use crate::word;
use registry_core::Pid;
use rustler::sys::{
    ErlNifEnv, ErlNifMonitor, ErlNifPid, ErlNifResourceDown, ErlNifResourceDtor,
    ErlNifResourceFlags, ErlNifResourceType, ErlNifResourceTypeInit, c_void, enif_alloc_resource,
    enif_get_resource, enif_make_resource, enif_monitor_process, enif_open_resource_type_x,
    enif_release_resource,
};
use rustler::{Env, LocalPid, Term};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Weak;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The type of the resources behind a [`Watch`]: each holds what `Weak::into_raw` made of the
/// registry, by bytes, so that nothing depends on how the VM aligns it.
static TYPE: AtomicPtr<ErlNifResourceType> = AtomicPtr::new(ptr::null_mut());

/// A resource that monitors the holders of names, and the registry's supervisor. The VM calls
/// [`down`] while such a process ends, on whatever thread that happens; no Erlang process is
/// involved.
pub(crate) struct Watch {
    /// One reference of ours to the resource.
    resource: *const c_void,
}

// SAFETY: the VM counts references to a resource, and locks its monitors, for all threads.
unsafe impl Send for Watch {}
// SAFETY: as above; and what the resource holds is only read.
unsafe impl Sync for Watch {}

impl Watch {
    /// Opens the type of resource, or takes it over from the code of the module before; `false`
    /// when the VM refuses.
    ///
    /// # Safety
    ///
    /// `env` is that of a `load` or `upgrade` callback, and a type that is taken over was opened
    /// here, by this very library.
    pub(crate) unsafe fn open_type(env: *mut ErlNifEnv, flags: ErlNifResourceFlags) -> bool {
        let callbacks = ErlNifResourceTypeInit {
            dtor: drop_open as *const ErlNifResourceDtor,
            stop: ptr::null(),
            down: down as *const ErlNifResourceDown,
        };
        let mut tried = MaybeUninit::uninit();
        // SAFETY: by the contract of this function; the callbacks fit what resources are made of.
        let opened = unsafe {
            let name = c"watch".as_ptr();
            enif_open_resource_type_x(env, name, &raw const callbacks, flags, tried.as_mut_ptr())
        };
        if !opened.is_null() {
            TYPE.store(opened.cast_mut(), Ordering::Release);
        }
        !opened.is_null()
    }

    /// A watch for a registry. It may outlive the registry, which owns it.
    pub(crate) fn new(open: Weak<Open>) -> Self {
        // SAFETY: the type is open, as the VM calls no NIF before; the resource has room for a
        // pointer, and nobody else has it yet.
        let resource = unsafe {
            let resource =
                enif_alloc_resource(TYPE.load(Ordering::Acquire), size_of::<*const Open>());
            resource
                .cast::<*const Open>()
                .write_unaligned(open.into_raw());
            resource
        };
        Self { resource }
    }

    /// Has the process watched; `false` when it has ended.
    pub(crate) fn monitor(&self, env: Env<'_>, pid: LocalPid) -> bool {
        // SAFETY: the env of the call, a resource with a `down` callback, and nobody asks which
        // monitor it is.
        unsafe {
            enif_monitor_process(
                env.as_c_arg(),
                self.resource,
                pid.as_c_arg(),
                ptr::null_mut(),
            ) == 0
        }
    }

    /// A term for the resource.
    pub(crate) fn to_term<'a>(&self, env: Env<'a>) -> Term<'a> {
        // SAFETY: a resource that we hold a reference to; the term is of this env.
        unsafe { Term::new(env, enif_make_resource(env.as_c_arg(), self.resource)) }
    }

    /// Whether the term is that of a watch.
    pub(crate) fn is(term: Term<'_>) -> bool {
        let mut resource = MaybeUninit::uninit();
        // SAFETY: a term of its env, an open type, and room for an answer that nobody reads.
        unsafe {
            let env = term.get_env().as_c_arg();
            let of_type = TYPE.load(Ordering::Acquire);
            enif_get_resource(env, term.as_c_arg(), of_type, resource.as_mut_ptr()) != 0
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: our reference, which is not used again. The last one ends all monitors.
        unsafe { enif_release_resource(self.resource) }
    }
}

/// Called by the VM when the last reference to a resource has gone.
unsafe extern "C" fn drop_open(_env: *mut ErlNifEnv, resource: *mut c_void) {
    // SAFETY: every resource of the type holds what `into_raw` made, and is not used after this.
    let open = unsafe { Weak::from_raw(resource.cast::<*const Open>().read_unaligned()) };
    // Frees memory, or nothing: no panic can come of it.
    drop(open);
}

/// Called by the VM when a process that is monitored ends.
unsafe extern "C" fn down(
    env: *mut ErlNifEnv,
    resource: *mut c_void,
    pid: *const ErlNifPid,
    _monitor: *const ErlNifMonitor,
) {
    // SAFETY: as in `drop_open`; the resource keeps its own count of the weak reference.
    let open = unsafe { Weak::from_raw(resource.cast::<*const Open>().read_unaligned()) };
    let open = ManuallyDrop::new(open);
    let lifetime = ();
    // SAFETY: the env of this callback, of which there is no other `Env`, and a pid of its own.
    let pid = unsafe {
        let env = Env::new(&lifetime, env);
        word::of_pid(env, LocalPid::from_c_arg(*pid))
    };
    // What a panic leaves half done is looked at by nobody else: see `nif::guarded`.
    let _ = catch_unwind(AssertUnwindSafe(|| ended(&open, pid)));
}

fn ended(open: &Weak<Open>, pid: Pid) {
    let Some(open) = open.upgrade() else {
        return;
    };
    if pid == open.supervisor {
        // The names of a cluster have to be given back to its engine, by whoever closes it then.
        if open.ended.is_none() {
            directory::close_soon(&open);
        }
        return;
    }
    let withdrawn = open.registry.withdraw(pid);
    // This may be the thread of a scheduler.
    if withdrawn.takes_long() {
        directory::release_soon(open, withdrawn);
    } else {
        directory::release(&open, withdrawn);
    }
}
