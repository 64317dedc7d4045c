//! Notices of processes that have ended, from monitors of the VM.
//!
//! # Why monitors
//!
//! A monitor is the dearest part of a registration. With it, a new process that registers its first name
//! took 1,550 ns at the lower quartile, without it 970 ns; when another process was registered, which the
//! monitor wakes, 950 ns and 340 ns (OTP 25, two busy cores, VMs in turn; 50 ns of it are `choose`). The VM
//! has no cheaper notice that keeps what a registry guarantees:
//!
//! - A link (230 ns without the message at the end) or a monitor of a process (120 ns) tells an Erlang
//!   process, whose own turn has to come before a name is free, and which loses what it was to be told when
//!   it is killed. Names would not outlive the registry's process.
//! - To ask now and then which holders still live costs nothing at a registration. A lookup would still be
//!   right, as it asks for one holder. But nobody would be told that a name is free until its turn came,
//!   counts and memory would have the names of processes that ended, and a pid may be given out again
//!   before: its new owner would hold names that it never took. Asking costs up to half a microsecond a holder
//!   when there are many, so once a second for 100,000 of them would take a twentieth of a core.
//! - A resource that lies in the holder's dictionary (200 ns) is destroyed with the holder's memory. But
//!   users may erase the dictionary or copy what is in it, so that a living process loses its names, or one
//!   that has ended keeps them; and only the holder itself can put it there, while any process of this
//!   node may be registered.
//! - There is one tracer of a process, which belongs to whoever debugs the VM.

use crate::background;
use crate::word;
use registry_core::Pid;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// Whoever has processes watched.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// The watches of this watcher.
    fn watches(&self) -> &Watches;

    /// A process that was watched has ended. Called on the thread that ends the process, which may
    /// be a scheduler.
    fn ended(&self, pid: Pid);
}

/// A resource that monitors processes. The VM calls `down` when such a process ends; no Erlang
/// process is involved.
struct Watch {
    watcher: Arc<dyn Watcher>,
    /// How many processes are being monitored, or are about to be.
    monitored: AtomicUsize,
    /// Dropped with the resource, so that others can tell that it has gone.
    alive: Arc<()>,
}

#[rustler::resource_impl]
impl Resource for Watch {
    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        let pid = word::of_pid(env, pid);
        let last = self.monitored.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            self.watcher.watches().prune(pid, self);
        }
        self.watcher.ended(pid);
    }
}

impl Watch {
    fn monitored(&self) -> usize {
        self.monitored.load(Ordering::Relaxed)
    }
}

/// The watches of one registry: several, because the VM keeps the monitors of a resource in one
/// tree under one lock.
pub(crate) struct Watches {
    /// `None` before the first process may be watched, and once the registry has closed: the watcher keeps
    /// the registry alive, which has this.
    watcher: Mutex<Option<Arc<dyn Watcher>>>,
    /// By pid. The last watch of each list takes the next process. `None` once the registry has
    /// closed.
    lists: [Mutex<Option<Vec<ResourceArc<Watch>>>>; LISTS],
}

const LISTS: usize = 64;

/// The most processes of one watch. When the last reference to a resource goes, a scheduler ends
/// all its monitors in one piece: so many take a fraction of a millisecond.
const AT_MOST: usize = 256;

impl Watches {
    /// Watches of no process yet.
    pub(crate) fn new() -> Self {
        Self {
            watcher: Mutex::new(None),
            lists: [const { Mutex::new(Some(Vec::new())) }; LISTS],
        }
    }

    /// From now on processes may be watched. [`Self::close`] has to follow at some time, or this is never
    /// freed.
    pub(crate) fn begin(&self, watcher: Arc<dyn Watcher>) {
        *self.watcher() = Some(watcher);
    }

    fn watcher(&self) -> MutexGuard<'_, Option<Arc<dyn Watcher>>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, pid: Pid) -> &Mutex<Option<Vec<ResourceArc<Watch>>>> {
        // Pids that were given out one after the other differ in the bits above the tag.
        #[allow(clippy::cast_possible_truncation)]
        &self.lists[(pid.0 >> 4) as usize % LISTS]
    }

    /// Has the process watched; `false` when it has ended, or the registry has closed.
    pub(crate) fn monitor(&self, env: Env<'_>, process: LocalPid) -> bool {
        let Some(watch) = self.choose(word::of_pid(env, process)) else {
            return false;
        };
        let monitored = env.monitor(&watch, &process).is_some();
        if !monitored {
            watch.monitored.fetch_sub(1, Ordering::Relaxed);
        }
        monitored
    }

    /// A watch that has room for the process, which it counts from now on.
    fn choose(&self, pid: Pid) -> Option<ResourceArc<Watch>> {
        let mut locked = self
            .list(pid)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let watches = locked.as_mut()?;
        if watches
            .last()
            .is_none_or(|last| last.monitored() >= AT_MOST)
        {
            // This looks at all watches of the list, but only once for at least half as many
            // processes as a watch has.
            let roomy = |watch: &ResourceArc<Watch>| watch.monitored() <= AT_MOST / 2;
            match watches.iter().position(roomy) {
                Some(place) => {
                    let last = watches.len() - 1;
                    watches.swap(place, last);
                }
                None => watches.push(ResourceArc::new(Watch {
                    watcher: self.watcher().clone()?,
                    monitored: AtomicUsize::new(0),
                    alive: Arc::default(),
                })),
            }
        }
        let watch = watches.last()?;
        watch.monitored.fetch_add(1, Ordering::Relaxed);
        Some(watch.clone())
    }

    /// Gives back the watches without processes, except `but`, which the VM is using: its last
    /// process has just ended.
    fn prune(&self, pid: Pid, but: &Watch) {
        let mut locked = self
            .list(pid)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(watches) = locked.as_mut() {
            watches.retain(|watch| ptr::eq(&raw const **watch, but) || watch.monitored() > 0);
            watches.shrink_to(watches.len() * 2);
        }
    }

    /// Ends all monitors. Where there are many, not all at once: each process that is let go has to
    /// take note of it, and others want to run in between.
    pub(crate) fn close(&self) {
        // Dropped after it was unlocked.
        let told = self.watcher().take();
        drop(told);
        let mut watches = Vec::new();
        for list in &self.lists {
            let list = list.lock().unwrap_or_else(PoisonError::into_inner).take();
            watches.extend(list.into_iter().flatten());
        }
        if watches.iter().map(|watch| watch.monitored()).sum::<usize>() <= AT_MOST {
            return;
        }
        background::elsewhere(move || {
            for watch in watches {
                let alive = Arc::downgrade(&watch.alive);
                drop(watch);
                // A scheduler ends the monitors. If it takes longer, there is no hurry.
                for _ in 0..100 {
                    if alive.strong_count() == 0 {
                        break;
                    }
                    sleep(Duration::from_micros(100));
                }
                sleep(Duration::from_millis(1));
            }
        });
    }
}
