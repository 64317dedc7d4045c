//! Which registries there are in this VM.

use crate::courier;
use crate::watch::Watch;
use crate::word;
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use once_cell::sync::{Lazy, OnceCell};
use registry_core::Registry;
use registry_core::ended::Ended;
use registry_core::journal::Journal;
use registry_core::name::Buffer;
use registry_core::{Pid, Reader, Withdrawn};
use rustler::{Env, LocalPid};
use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// How many resources the monitors of one registry are spread over: the VM keeps the monitors of
/// one resource in one tree under one lock.
const WATCHES: usize = 64;

/// A value that came with a name, in external format.
pub(crate) type Value = Arc<[u8]>;

/// A registry that is open: from the first start of its owner until its supervisor stops it.
pub(crate) struct Open {
    /// The atom that names it, as its word.
    name: u64,
    /// The supervisor of its owner. The registry outlives the owner, not the supervisor.
    pub(crate) supervisor: Pid,
    pub(crate) registry: Registry<Value>,
    pub(crate) opened: Instant,
    /// Names that were held until a short while ago; none in a registry of this node alone.
    pub(crate) ended: Option<Ended>,
    /// Started when somebody first wants to be told of changes.
    courier: OnceCell<()>,
    /// Emptied when the registry closes, which ends its monitors, although somebody may hold on
    /// to the rest for a while.
    watches: [Mutex<Option<Arc<Watch>>>; WATCHES],
}

impl Open {
    fn new(name: u64, supervisor: Pid, clustered: bool) -> Arc<Self> {
        Arc::new_cyclic(|open| Self {
            name,
            supervisor,
            registry: Registry::new(),
            opened: Instant::now(),
            ended: clustered.then(Ended::new),
            courier: OnceCell::new(),
            watches: std::array::from_fn(|_| Mutex::new(Some(Arc::new(Watch::new(open.clone()))))),
        })
    }

    /// Has the process watched; `false` when it has ended, or the registry is closing.
    pub(crate) fn watch(&self, env: Env<'_>, pid: LocalPid) -> bool {
        // Neighbouring pids differ in the bits above the tag.
        let at = (word::of_pid(env, pid).0 >> 4) as usize % WATCHES;
        let watch = self.watches[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        watch.is_some_and(|watch| watch.monitor(env, pid))
    }

    /// The journal, with somebody who delivers what is written there.
    pub(crate) fn journal(&self) -> io::Result<&Journal<Value>> {
        let journal = self.registry.journal();
        self.courier
            .get_or_try_init(|| courier::start(self.name, Arc::clone(journal)))?;
        Ok(journal)
    }

    /// Forgets everything. Takes its time with a large registry.
    fn clear(&self) {
        for watch in &self.watches {
            let watch = watch.lock().unwrap_or_else(PoisonError::into_inner).take();
            // After the lock is gone: this ends the resource's monitors.
            drop(watch);
        }
        self.registry.clear();
    }
}

static DIRECTORY: Lazy<DashMap<u64, Arc<Open>, RandomState>> =
    Lazy::new(|| DashMap::with_hasher(RandomState::new()));

/// Counts openings and closings, so that a thread knows when what it remembers may be wrong.
static GENERATION: AtomicU64 = AtomicU64::new(0);

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
    let new = Open::new(name, owner, clustered);
    match DIRECTORY.entry(name) {
        Entry::Occupied(open) if open.get().supervisor == owner => return Ok(()),
        Entry::Occupied(open) => return Err(open.get().supervisor),
        Entry::Vacant(vacant) => {
            vacant.insert(Arc::clone(&new));
        }
    }
    GENERATION.fetch_add(1, Ordering::Release);
    if !new.watch(env, supervisor) {
        close(name, owner);
    }
    Ok(())
}

/// Closes a registry if this supervisor has it open; answers whether it had.
pub(crate) fn close(name: u64, supervisor: Pid) -> bool {
    let closed = DIRECTORY.remove_if(&name, |_, open| open.supervisor == supervisor);
    // Before the names go: nobody who starts now may find an empty registry instead of none.
    GENERATION.fetch_add(1, Ordering::Release);
    let Some((_, open)) = closed else {
        return false;
    };
    open.clear();
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
}

/// Frees the names of a process that has ended and held many. Until they are freed, they look like
/// those of any process of whose end there is no notice yet.
pub(crate) fn release_soon(open: Arc<Open>, withdrawn: Withdrawn) {
    elsewhere(move || release(&open, withdrawn));
}

/// Does work that takes long on a thread of its own: notices come on threads of the VM.
fn elsewhere<F: FnOnce() + Send + 'static>(work: F) {
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

/// What a thread keeps for itself: where it writes names, and the registries it used last. The
/// memory of registries spares each lookup a lock and a count that all threads would share.
struct Local {
    buffer: Buffer,
    generation: u64,
    recent: [Option<Recent>; 4],
}

/// A registry and what this thread knows of its table.
struct Recent {
    open: Arc<Open>,
    reader: Box<Reader>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local {
        buffer: Buffer::new(),
        generation: 0,
        recent: [const { None }; 4],
    });
}

/// Forgets registries that have been closed. With the last who knows one goes its table.
#[cold]
fn forget(recent: &mut [Option<Recent>; 4]) {
    let closed = |recent: &mut Recent| {
        let open = DIRECTORY.get(&recent.open.name);
        !open.is_some_and(|open| Arc::ptr_eq(&open, &recent.open))
    };
    let closed = recent.each_mut().map(|place| place.take_if(closed));
    if closed.iter().any(Option::is_some) {
        elsewhere(|| drop(closed));
    }
}

/// Calls `f` with the registry of this name and this thread's buffer; `None` when none is open.
#[inline]
pub(crate) fn with<R>(
    name: u64,
    f: impl FnOnce(&Open, &mut Reader, &mut Buffer) -> R,
) -> Option<R> {
    LOCAL.with_borrow_mut(|local| {
        // Before the directory is read: what changes later makes this look outdated, not current.
        let generation = GENERATION.load(Ordering::Acquire);
        if local.generation != generation {
            local.generation = generation;
            forget(&mut local.recent);
        }
        // The word of an atom counts up in its upper bits.
        let place = &mut local.recent[(name >> 6) as usize % 4];
        let recent = match place {
            Some(recent) if recent.open.name == name => recent,
            _ => place.insert(Recent {
                open: DIRECTORY.get(&name)?.clone(),
                reader: Box::default(),
            }),
        };
        Some(f(&recent.open, &mut recent.reader, &mut local.buffer))
    })
}
