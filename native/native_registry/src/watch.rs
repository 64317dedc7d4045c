//! Notices of ended processes.

use crate::directory::{self, Open};
use crate::word;
use rustler::{Env, LocalPid, Monitor, Resource};
use std::sync::Weak;

/// A resource that monitors the holders of names, and the registry's supervisor. The VM calls
/// [`Resource::down`] while such a process ends, on whatever thread that happens; no Erlang
/// process is involved.
pub(crate) struct Watch {
    /// Weak, because the registry owns its watches.
    pub(crate) open: Weak<Open>,
}

/// The most names that are freed on the thread on which their holder ends, which may be that of a
/// scheduler: a fraction of a millisecond.
const AT_ONCE: usize = 1_000;

#[rustler::resource_impl]
impl Resource for Watch {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        let Some(open) = self.open.upgrade() else {
            return;
        };
        let pid = word::of_pid(env, pid);
        if pid == open.supervisor {
            directory::close_soon(&open);
        } else {
            let withdrawn = open.registry.withdraw(pid);
            if withdrawn.len() <= AT_ONCE {
                open.registry.release(withdrawn);
            } else {
                directory::release_soon(open, withdrawn);
            }
        }
    }
}
