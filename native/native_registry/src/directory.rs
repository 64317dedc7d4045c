//! Which registries there are in this VM.

use crate::courier;
use crate::watch::{Watch, Watches};
use crate::word;
use once_cell::sync::{Lazy, OnceCell};
use registry_core::ended::Ended;
use registry_core::epoch::{Current, Guard, Shared};
use registry_core::journal::Journal;
use registry_core::meta::Meta;
use registry_core::name::Buffer;
use registry_core::{Pid, Registry, Withdrawn};
use rustler::{Env, LocalPid};
use std::cell::RefCell;
use std::collections::hash_map::{self, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// What the table keeps with a name.
pub(crate) type Value = crate::kept::Kept;

/// A registry that is open: from the first start of its owner until it is forgotten.
pub(crate) struct Open {
    /// The atom that names it, as its word.
    name: u64,
    /// What tells it from one that had the name before.
    id: u64,
    /// The supervisor of its owner. The registry outlives the owner, not the supervisor.
    pub(crate) supervisor: Pid,
    pub(crate) registry: Registry<Value>,
    /// What users keep with the registry as a whole; `None` is the value `nil`.
    pub(crate) meta: Meta<Option<Value>>,
    pub(crate) opened: Instant,
    /// Names that were held until a short while ago; none in a registry of this node alone.
    pub(crate) ended: Option<Ended>,
    /// Closed with the registry, although somebody may hold on to the rest for a while.
    pub(crate) watches: Watches,
}

impl Open {
    fn new(name: u64, supervisor: Pid, clustered: bool) -> Arc<Self> {
        Arc::new_cyclic(|open| Self {
            name,
            id: next(),
            supervisor,
            registry: Registry::new(),
            meta: Meta::default(),
            opened: Instant::now(),
            ended: clustered.then(Ended::new),
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
        self.meta.clear();
    }
}

/// Registries whose names end in the same bits: never changed but replaced. The first lies inside, so
/// that most lookups follow one pointer less.
struct Registries {
    first: (u64, Arc<Open>),
    others: Vec<(u64, Arc<Open>)>,
}

impl Registries {
    fn of(mut registries: Vec<(u64, Arc<Open>)>) -> Option<Self> {
        let first = registries.pop()?;
        Some(Self {
            first,
            others: registries,
        })
    }

    #[inline]
    fn find(&self, name: u64) -> Option<&Arc<Open>> {
        let mut all = std::iter::once(&self.first).chain(&self.others);
        all.find(|(other, _)| *other == name).map(|(_, open)| open)
    }

    fn to_vec(&self) -> Vec<(u64, Arc<Open>)> {
        let mut registries = self.others.clone();
        registries.push(self.first.clone());
        registries
    }
}

type Bucket = Current<Registries>;

/// More than most systems have registries, so that few share a bucket: eight kilobytes.
const BUCKETS: usize = 1_024;

/// All registries that are open, to be read without a lock.
static DIRECTORY: [Bucket; BUCKETS] = [const { Current::none() }; BUCKETS];

#[inline]
fn bucket(name: u64) -> &'static Bucket {
    // The word of an atom counts up in its upper bits.
    #[allow(clippy::cast_possible_truncation)]
    &DIRECTORY[(name >> 6) as usize % BUCKETS]
}

/// Replaces a bucket by one with these. Only while [`SUSPENDED`] is locked.
fn replace(bucket: &Bucket, registries: Vec<(u64, Arc<Open>)>) {
    drop(bucket.replace(Registries::of(registries).map(Shared::new)));
}

/// A registry that its supervisor has stopped and may start again. Nobody finds it meanwhile, but it
/// keeps what it holds, and hears of processes that end.
struct Suspended {
    number: u64,
    open: Arc<Open>,
}

/// By name. Held by whatever opens, suspends or forgets a registry, so that each is done in one
/// step; never while the VM is called, and by nothing that looks a registry up.
static SUSPENDED: Lazy<Mutex<HashMap<u64, Suspended>>> = Lazy::new(Mutex::default);

fn suspended() -> MutexGuard<'static, HashMap<u64, Suspended>> {
    SUSPENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that is used once.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Never dropped. As long as there is a resource with a destructor, the VM does not unload the
/// library, not even when the module is purged: threads of ours run in it, and the directory lies
/// in it.
static PIN: OnceCell<Watch> = OnceCell::new();

/// Opens a registry for `supervisor`, with what it held if it is suspended, or leaves it as it is if
/// that supervisor has it open already; answers the other supervisor when another has.
pub(crate) fn open(
    env: Env<'_>,
    name: u64,
    supervisor: LocalPid,
    clustered: bool,
) -> Result<(), Pid> {
    PIN.get_or_init(|| Watch::new(Weak::new()));
    let owner = word::of_pid(env, supervisor);
    let new = Open::new(name, owner, clustered);
    let forgotten = {
        let mut suspended = suspended();
        let guard = Guard::new();
        let before = bucket(name).get(&guard);
        if let Some(open) = before.and_then(|before| before.find(name)) {
            return match open.supervisor {
                supervisor if supervisor == owner => Ok(()),
                other => Err(other),
            };
        }
        let mut registries = before.map_or_else(Vec::new, Registries::to_vec);
        let forgotten = match suspended.remove(&name) {
            Some(Suspended { open, .. }) if open.supervisor == owner => {
                registries.push((name, open));
                replace(bucket(name), registries);
                return Ok(());
            }
            forgotten => forgotten,
        };
        registries.push((name, Arc::clone(&new)));
        replace(bucket(name), registries);
        forgotten
    };
    if let Some(Suspended { open, .. }) = forgotten {
        // Another supervisor had stopped it.
        elsewhere(move || clear(&open));
    }
    if !new.watch(env, supervisor) {
        close(name, owner);
    }
    Ok(())
}

/// Closes a registry if this supervisor has it open or has suspended it; answers whether it had.
pub(crate) fn close(name: u64, supervisor: Pid) -> bool {
    let closed = {
        let mut suspended = suspended();
        match suspended.entry(name) {
            hash_map::Entry::Occupied(entry) if entry.get().open.supervisor == supervisor => {
                Some(entry.remove().open)
            }
            // Before the names go: nobody who starts now may find an empty registry instead of none.
            _ => take(name, supervisor),
        }
    };
    let Some(open) = closed else {
        return false;
    };
    clear(&open);
    true
}

/// Takes a registry that this supervisor has open out of its bucket. Only while [`SUSPENDED`] is
/// locked.
fn take(name: u64, supervisor: Pid) -> Option<Arc<Open>> {
    let guard = Guard::new();
    let mut registries = bucket(name).get(&guard)?.to_vec();
    let place = registries
        .iter()
        .position(|(other, open)| *other == name && open.supervisor == supervisor)?;
    let (_, open) = registries.swap_remove(place);
    replace(bucket(name), registries);
    Some(open)
}

/// Forgets what a registry holds that nobody finds any more.
fn clear(open: &Open) {
    open.clear();
    // What was cleared is freed with the end of a guard.
    Guard::new().end();
}

/// Lets nobody find a registry that this supervisor has open, until the supervisor opens it again.
/// Answers what `close_suspended` wants to know.
pub(crate) fn suspend(name: u64, supervisor: Pid) -> Option<(u64, u64)> {
    let mut suspended = suspended();
    let open = take(name, supervisor)?;
    let (id, number) = (open.id, next());
    suspended.insert(name, Suspended { number, open });
    Some((id, number))
}

/// Closes a registry that has been suspended and not been opened again since; answers `false` if it
/// has been.
pub(crate) fn close_suspended(name: u64, (id, number): (u64, u64)) -> bool {
    let closed = {
        let mut suspended = suspended();
        match suspended.entry(name) {
            hash_map::Entry::Occupied(entry) if entry.get().number == number => entry.remove().open,
            hash_map::Entry::Occupied(entry) => return entry.get().open.id != id,
            hash_map::Entry::Vacant(_) => return find(name).is_none_or(|open| open.id != id),
        }
    };
    clear(&closed);
    true
}

/// Closes a registry whose supervisor has ended.
pub(crate) fn close_soon(open: &Open) {
    let (name, supervisor) = (open.name, open.supervisor);
    elsewhere(move || {
        close(name, supervisor);
    });
}

/// Frees the names of a process that has ended.
pub(crate) fn release(open: &Open, withdrawn: Withdrawn) {
    if let Some(ended) = &open.ended {
        // Before they are free: whoever claims one finds either its holder or this.
        for name in open.registry.names_of_withdrawn(&withdrawn) {
            ended.note(&name);
        }
    }
    open.registry.release(withdrawn);
    // What has become too large is freed with the end of a guard.
    Guard::new().end();
}

/// Frees the names of a process that has ended and held many. Until they are freed, they look like
/// those of any process of whose end there is no notice yet.
pub(crate) fn release_soon(open: Arc<Open>, withdrawn: Withdrawn) {
    elsewhere(move || release(&open, withdrawn));
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
    let open = bucket(name).get(&guard)?.find(name)?;
    let result = BUFFER.with_borrow_mut(|buffer| f(open, &guard, buffer));
    guard.end();
    Some(result)
}

/// The registry of this name, for what takes longer; `None` when none is open.
pub(crate) fn find(name: u64) -> Option<Arc<Open>> {
    let guard = Guard::new();
    bucket(name).get(&guard)?.find(name).cloned()
}
