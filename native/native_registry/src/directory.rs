//! Which registries there are in this VM.

use crate::cluster::Mirror;
use crate::courier;
use crate::watch::{Watch, Watches};
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::epoch::{Current, Guard, Shared};
use registry_core::journal::Journal;
use registry_core::name::Buffer;
use registry_core::{Pid, Registry, Withdrawn};
use rustler::{Env, LocalPid};
use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// What the table keeps with a name.
pub(crate) type Value = crate::kept::Kept;

/// A registry that is open: from the first start of its owner until its supervisor stops it.
pub(crate) struct Open {
    /// The atom that names it, as its word.
    name: u64,
    /// The supervisor of its owner. The registry outlives the owner, not the supervisor.
    pub(crate) supervisor: Pid,
    pub(crate) registry: Registry<Value>,
    pub(crate) opened: Instant,
    /// Of names that other nodes hold; none in a registry of this node alone.
    pub(crate) mirror: Option<Mirror>,
    /// Closed with the registry, although somebody may hold on to the rest for a while.
    pub(crate) watches: Watches,
}

impl Open {
    fn new(name: u64, supervisor: Pid, clustered: bool) -> Arc<Self> {
        Arc::new_cyclic(|open| Self {
            name,
            supervisor,
            registry: Registry::new(),
            opened: Instant::now(),
            mirror: clustered.then(Mirror::new),
            watches: Watches::new(open.clone()),
        })
    }

    /// Has the process watched; `false` when it has ended, or the registry is closing.
    pub(crate) fn watch(&self, env: Env<'_>, pid: LocalPid) -> bool {
        self.watches.monitor(env, pid, word::of_pid(env, pid))
    }

    /// The journal, with somebody who delivers what is written there.
    pub(crate) fn journal(&self) -> io::Result<&Journal<Value>> {
        let journal = self.registry.journal();
        courier::attach(self.name, journal)?;
        Ok(journal)
    }

    /// Forgets everything. Takes its time with a large registry.
    fn clear(&self) {
        // First: whoever cannot have a process watched any more finds the journal closed, and who
        // waits is told so even if the process is taken for ended.
        self.registry.journal().close();
        self.watches.close();
        self.registry.clear();
    }
}

/// Registries whose names end in the same bits. A list is never changed but replaced by another.
type Bucket = Current<Vec<(u64, Arc<Open>)>>;

/// More than most systems have registries, so that few share a bucket: eight kilobytes.
const BUCKETS: usize = 1_024;

/// All registries that are open, to be read without a lock.
static DIRECTORY: [Bucket; BUCKETS] = [const { Current::none() }; BUCKETS];

/// Held by who replaces a bucket.
static CHANGE: Mutex<()> = Mutex::new(());

#[inline]
fn bucket(name: u64) -> &'static Bucket {
    // The word of an atom counts up in its upper bits.
    #[allow(clippy::cast_possible_truncation)]
    &DIRECTORY[(name >> 6) as usize % BUCKETS]
}

#[inline]
fn open_in(bucket: &[(u64, Arc<Open>)], name: u64) -> Option<&Arc<Open>> {
    let open = bucket.iter().find(|(other, _)| *other == name);
    open.map(|(_, open)| open)
}

fn change() -> MutexGuard<'static, ()> {
    CHANGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces a bucket by one with these. Only while [`CHANGE`] is locked.
fn replace(bucket: &Bucket, registries: Vec<(u64, Arc<Open>)>) {
    let registries = (!registries.is_empty()).then(|| Shared::new(registries));
    drop(bucket.replace(registries));
}

/// Never dropped. As long as there is a resource with a destructor, the VM does not unload the
/// library, not even when the module is purged: threads of ours run in it, and the directory lies
/// in it.
static PIN: OnceCell<Watch> = OnceCell::new();

/// Opens a registry for `supervisor`, or leaves it as it is if that supervisor has it open
/// already; answers the other supervisor when another has.
pub(crate) fn open(
    env: Env<'_>,
    name: u64,
    supervisor: LocalPid,
    clustered: bool,
) -> Result<(), Pid> {
    PIN.get_or_init(|| Watch::new(Weak::new()));
    let owner = word::of_pid(env, supervisor);
    let (changing, guard) = (change(), Guard::new());
    let before = bucket(name).get(&guard).map_or(&[][..], |bucket| bucket);
    if let Some(open) = open_in(before, name) {
        return match open.supervisor {
            supervisor if supervisor == owner => Ok(()),
            other => Err(other),
        };
    }
    let new = Open::new(name, owner, clustered);
    let mut registries = before.to_vec();
    registries.push((name, Arc::clone(&new)));
    replace(bucket(name), registries);
    drop(changing);
    guard.end();
    if !new.watch(env, supervisor) {
        close(name, owner);
    }
    Ok(())
}

/// Closes a registry if this supervisor has it open; answers whether it had.
pub(crate) fn close(name: u64, supervisor: Pid) -> bool {
    let (changing, guard) = (change(), Guard::new());
    let mut registries = bucket(name)
        .get(&guard)
        .map_or(Vec::new(), |bucket| bucket.clone());
    let place = registries
        .iter()
        .position(|(other, open)| *other == name && open.supervisor == supervisor);
    let Some(place) = place else {
        return false;
    };
    let (_, open) = registries.swap_remove(place);
    // Before the names go: nobody who starts now may find an empty registry instead of none.
    replace(bucket(name), registries);
    drop(changing);
    guard.end();
    open.clear();
    // What was cleared is freed with the end of a guard.
    Guard::new().end();
    true
}

/// Closes a registry whose supervisor has ended.
pub(crate) fn close_soon(open: &Open) {
    let (name, supervisor) = (open.name, open.supervisor);
    elsewhere(move || {
        close(name, supervisor);
    });
}

/// Frees the names of a process that has ended and held many. Until they are freed, they look like
/// those of any process of whose end there is no notice yet.
pub(crate) fn release_soon(open: Arc<Open>, withdrawn: Withdrawn) {
    elsewhere(move || {
        open.registry.release(withdrawn);
        // What has become too large is freed with the end of a guard.
        Guard::new().end();
    });
}

/// Does work that takes long on a thread of its own: notices come on threads of the VM.
pub(crate) fn elsewhere<F: FnOnce() + Send + 'static>(work: F) {
    fn run<F: FnOnce()>(work: &Mutex<Option<F>>) {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work();
        }
    }
    let work = Arc::new(Mutex::new(Some(work)));
    let theirs = Arc::clone(&work);
    if std::thread::Builder::new()
        .spawn(move || run(&theirs))
        .is_err()
    {
        // No thread to be had: better here than not at all.
        run(&work);
    }
}

thread_local! {
    /// Where this thread writes names.
    static BUFFER: RefCell<Buffer> = RefCell::new(Buffer::new());
}

/// Calls `f` with the registry of this name and this thread's buffer; `None` when none is open. For
/// what is done soon: no memory is given back meanwhile.
#[inline]
pub(crate) fn with<R>(name: u64, f: impl FnOnce(&Open, &Guard, &mut Buffer) -> R) -> Option<R> {
    let guard = Guard::new();
    let open = open_in(bucket(name).get(&guard)?, name)?;
    let result = BUFFER.with_borrow_mut(|buffer| f(open, &guard, buffer));
    guard.end();
    Some(result)
}

/// The registry of this name, for what takes longer; `None` when none is open.
pub(crate) fn find(name: u64) -> Option<Arc<Open>> {
    let guard = Guard::new();
    open_in(bucket(name).get(&guard)?, name).cloned()
}
