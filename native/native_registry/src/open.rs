//! A registry that is open, and all that belongs to it.

use crate::background;
use crate::courier;
use crate::deadline;
use crate::kept::Kept;
use crate::watch::{Watcher, Watches};
use registry_core::ended::Ended;
use registry_core::epoch::{Guard, Shared};
use registry_core::journal::Journal;
use registry_core::meta::Meta;
use registry_core::{Pid, Registry, Withdrawn};
use rustler::{Env, LocalPid, NifUnitEnum};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// What a registry is part of.
#[derive(Clone, Copy, PartialEq, Eq, NifUnitEnum)]
pub(crate) enum Kind {
    /// This node alone.
    Local,
    /// A cluster.
    Clustered,
    /// A cluster in which this node's processes hold names under a lease.
    Leased,
}

/// A registry from the first start of its owner until it is closed.
pub(crate) struct Open {
    /// The word of the atom that names it.
    pub(crate) name: u64,
    /// Tells it from another registry that had the name before.
    pub(crate) id: u64,
    /// The supervisor of its owner. The registry outlives the owner, not the supervisor.
    pub(crate) supervisor: Pid,
    pub(crate) registry: Registry<Kept>,
    /// What users keep with the registry as a whole; `None` is the value `nil`.
    pub(crate) meta: Meta<Option<Kept>>,
    pub(crate) opened: Instant,
    /// In a registry that is part of a cluster: the names whose holders ended a short while ago.
    pub(crate) ended: Option<Ended>,
    pub(crate) leased: bool,
    watches: Watches,
    /// Called when the supervisor of a registry of this node alone has ended.
    abandoned: fn(&Self),
}

impl Open {
    /// A registry without names.
    pub(crate) fn new(
        (name, id): (u64, u64),
        supervisor: Pid,
        kind: Kind,
        abandoned: fn(&Self),
    ) -> Shared<Self> {
        Shared::new(Self {
            name,
            id,
            supervisor,
            registry: Registry::new(),
            meta: Meta::default(),
            opened: Instant::now(),
            ended: (kind != Kind::Local).then(Ended::new),
            leased: kind == Kind::Leased,
            watches: Watches::new(),
            abandoned,
        })
    }

    /// Called before the registry can be found, which is cleared when it is closed.
    pub(crate) fn begin(this: &Shared<Self>) {
        this.watches.begin(Arc::new(Ends(this.clone())));
    }

    /// Whether processes of this node may hold its names now.
    #[inline]
    pub(crate) fn lends(&self) -> bool {
        !self.leased || deadline::ahead()
    }

    /// Has the process watched; `false` when it has ended, or the registry is closing.
    pub(crate) fn watch(&self, env: Env<'_>, pid: LocalPid) -> bool {
        self.watches.monitor(env, pid)
    }

    /// The journal, whose changes are told from now on.
    pub(crate) fn journal(&self) -> io::Result<&Journal<Kept>> {
        let journal = self.registry.journal();
        courier::attach(self.name, journal)?;
        Ok(journal)
    }

    /// Forgets everything, which takes a while in a large registry.
    pub(crate) fn clear(&self) {
        // First: a process that cannot be watched any more then finds the journal closed, and one
        // that waits is told so even if it is taken for ended.
        self.registry.journal().close();
        self.watches.close();
        self.registry.clear();
        self.meta.clear();
        // What was cleared is freed at the end of a guard.
        Guard::new().end();
    }

    /// Frees the names of a process that has ended.
    fn free(&self, withdrawn: Withdrawn) {
        if let Some(ended) = &self.ended {
            // Before the names are free: a process that claims one finds either its holder or this note.
            for name in self.registry.names_of_withdrawn(&withdrawn) {
                ended.note(&name);
            }
        }
        self.registry.release(withdrawn);
        // A map that has become too large is freed at the end of a guard.
        Guard::new().end();
    }
}

/// What the watches of a registry tell. It keeps the registry alive, until [`Open::clear`].
struct Ends(Shared<Open>);

impl Watcher for Ends {
    fn watches(&self) -> &Watches {
        &self.0.watches
    }

    fn ended(&self, pid: Pid) {
        let Self(open) = self;
        if pid == open.supervisor {
            // The engine of a cluster has to be told of each name; the code that closes the registry does
            // that.
            if open.ended.is_none() {
                (open.abandoned)(open);
            }
            return;
        }
        let withdrawn = open.registry.withdraw(pid);
        if withdrawn.takes_long() {
            // Until its names are freed, the process looks like one whose end has not been noticed.
            let open = open.clone();
            background::elsewhere(move || open.free(withdrawn));
        } else {
            open.free(withdrawn);
        }
    }
}
