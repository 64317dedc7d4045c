//! The registries of this VM: opening, suspending, closing and finding them.

use crate::background;
use crate::open::{Kind, Open};
use crate::word;
use once_cell::sync::Lazy;
use registry_core::Pid;
use registry_core::directory::Directory;
use registry_core::epoch::{Guard, Shared};
use registry_core::name::Buffer;
use rustler::{Atom, Encoder, Env, LocalPid, Term};
use std::cell::RefCell;
use std::collections::hash_map::{self, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

rustler::atoms! { ok, no_registry }

/// All registries that are open, to be read without a lock. Changed only while [`SUSPENDED`] is
/// locked.
static DIRECTORY: Directory<Open> = Directory::new();

/// A registry that its supervisor has stopped and may start again. Meanwhile no lookup finds it, but it
/// keeps what it holds, and is told of processes that end.
struct Suspended {
    number: u64,
    open: Shared<Open>,
}

/// The registries that are suspended, by name. Every operation that opens, suspends or closes a registry
/// takes the lock, so that each of these is one step. A lookup does not take it, and no thread calls the
/// VM while it holds it.
static SUSPENDED: Lazy<Mutex<HashMap<u64, Suspended>>> = Lazy::new(Mutex::default);

fn suspended() -> MutexGuard<'static, HashMap<u64, Suspended>> {
    SUSPENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that is given out once.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

thread_local! {
    /// Where this thread writes names.
    static BUFFER: RefCell<Buffer> = RefCell::new(Buffer::new());
}

/// Calls `f` with the registry of this name and this thread's buffer; `None` when there is no such
/// registry. No memory is reclaimed while `f` runs, so it has to be short.
#[inline]
pub(crate) fn with<R>(name: u64, f: impl FnOnce(&Open, &Guard, &mut Buffer) -> R) -> Option<R> {
    let guard = Guard::new();
    let open = DIRECTORY.find(&guard, name)?;
    // Writing the name takes longer than loading this.
    open.registry.fetch();
    let result = with_buffer(|buffer| f(open, &guard, buffer));
    guard.end();
    Some(result)
}

/// Calls `f`, which does not call this, with this thread's buffer.
#[inline]
pub(crate) fn with_buffer<R>(f: impl FnOnce(&mut Buffer) -> R) -> R {
    BUFFER.with_borrow_mut(f)
}

/// The registry of this name, for work of any length.
pub(crate) fn find(name: u64) -> Option<Shared<Open>> {
    let guard = Guard::new();
    DIRECTORY.find_shared(&guard, name).cloned()
}

/// Takes a registry out of the directory if this supervisor has it open. Only while [`SUSPENDED`]
/// is locked.
fn take(name: u64, supervisor: Pid) -> Option<Shared<Open>> {
    let guard = Guard::new();
    let open = DIRECTORY.find(&guard, name)?;
    if open.supervisor == supervisor {
        DIRECTORY.remove(name)
    } else {
        None
    }
}

/// All registries that are open or suspended.
pub(crate) fn all() -> Vec<Shared<Open>> {
    let suspended = suspended();
    let mut all = DIRECTORY.all();
    all.extend(suspended.values().map(|suspended| suspended.open.clone()));
    all
}

/// `(registry, supervisor, kind)`: opens a registry that lives as long as the supervisor, with what
/// it held if that supervisor has suspended it. Answers `:ok`, also if the supervisor has it open
/// already; or the pid of another supervisor that has it open.
#[rustler::nif]
fn open(env: Env<'_>, registry: Atom, supervisor: LocalPid, kind: Kind) -> Term<'_> {
    background::pin();
    let name = word::of_atom(env, registry);
    let owner = word::of_pid(env, supervisor);
    let new = Open::new((name, next()), owner, kind, close_soon);
    let replaced = {
        let mut suspended = suspended();
        let guard = Guard::new();
        if let Some(open) = DIRECTORY.find(&guard, name) {
            return match open.supervisor {
                supervisor if supervisor == owner => ok().encode(env),
                other => word::to_pid(env, other),
            };
        }
        let replaced = match suspended.remove(&name) {
            Some(Suspended { open, .. }) if open.supervisor == owner => {
                DIRECTORY.insert(name, open);
                return ok().encode(env);
            }
            replaced => replaced,
        };
        Open::begin(&new);
        DIRECTORY.insert(name, new.clone());
        replaced
    };
    if let Some(Suspended { open, .. }) = replaced {
        // Another supervisor had suspended it.
        background::elsewhere(move || open.clear());
    }
    if !new.watch(env, supervisor) {
        // The supervisor has ended.
        close_now(name, owner);
    }
    ok().encode(env)
}

/// `(registry, supervisor)`: closes a registry that this supervisor has open or has suspended;
/// answers whether it had. On a dirty scheduler, because freeing a million names takes a while.
#[rustler::nif(schedule = "DirtyCpu")]
fn close(env: Env<'_>, registry: Atom, supervisor: LocalPid) -> bool {
    close_now(word::of_atom(env, registry), word::of_pid(env, supervisor))
}

fn close_now(name: u64, supervisor: Pid) -> bool {
    let closed = {
        let mut suspended = suspended();
        match suspended.entry(name) {
            hash_map::Entry::Occupied(entry) if entry.get().open.supervisor == supervisor => {
                Some(entry.remove().open)
            }
            _ => take(name, supervisor),
        }
    };
    let Some(open) = closed else {
        return false;
    };
    // After it was taken out of the directory: no lookup finds an open registry that has lost its names.
    open.clear();
    true
}

/// Closes a registry whose supervisor has ended.
fn close_soon(open: &Open) {
    let (name, supervisor) = (open.name, open.supervisor);
    background::elsewhere(move || {
        close_now(name, supervisor);
    });
}

/// `(registry, supervisor)`: hides a registry that this supervisor has open, until the supervisor
/// opens it again, and keeps what it holds. Answers what `close_suspended` takes, or
/// `:no_registry`.
#[rustler::nif]
fn suspend(env: Env<'_>, registry: Atom, supervisor: LocalPid) -> Term<'_> {
    let name = word::of_atom(env, registry);
    let mut suspended = suspended();
    let Some(open) = take(name, word::of_pid(env, supervisor)) else {
        return no_registry().encode(env);
    };
    let (id, number) = (open.id, next());
    suspended.insert(name, Suspended { number, open });
    (id, number).encode(env)
}

/// `(registry, suspended)`: closes a registry that was suspended; `false` if it has been opened
/// again since. On a dirty scheduler, as `close`.
#[rustler::nif(schedule = "DirtyCpu")]
fn close_suspended(env: Env<'_>, registry: Atom, (id, number): (u64, u64)) -> bool {
    let name = word::of_atom(env, registry);
    let closed = {
        let mut suspended = suspended();
        match suspended.entry(name) {
            hash_map::Entry::Occupied(entry) if entry.get().number == number => entry.remove().open,
            hash_map::Entry::Occupied(entry) => return entry.get().open.id != id,
            hash_map::Entry::Vacant(_) => return find(name).is_none_or(|open| open.id != id),
        }
    };
    closed.clear();
    true
}
