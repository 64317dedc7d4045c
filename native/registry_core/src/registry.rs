//! The rules of claiming a name.

use crate::Pid;
use crate::table::Table;
use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Indexed;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use thiserror::Error;

/// Why a name was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// This process holds the name.
    #[error("the name is held by {0:?}")]
    Taken(Pid),
    /// The process to register has ended.
    #[error("the process has ended")]
    Ended,
}

/// Names and their holders.
///
/// Two maps: the table says who holds a name, the index which names a process holds. The index
/// keeps a name's 64-bit hash, not the name; the hash and the holder find it in the table.
///
/// # Order of locks
///
/// A shard of the index first, then a shard of the table, never the other way. So what the index
/// says of a process and what the table says of its names change together. No lock is held while
/// the VM is called.
///
/// # Who cleans up
///
/// A process that stands in the index is being watched, or the call that put it there is about to
/// have it watched. The watch's notice calls [`Registry::sweep`]; if watching fails, the process
/// has ended already and [`Registry::register`] sweeps itself. So a name that is put under a
/// process that stands in the index is always freed by somebody.
pub struct Registry {
    table: Table,
    index: DashMap<Pid, Held, RandomState>,
}

/// The hashes of the names that a process holds.
enum Held {
    One(u64),
    /// Hash to how many of the names have it: two names of one hash are next to impossible, yet
    /// freeing one must not lose track of the other. Also none at all: a process that gave its
    /// names back stays watched until it ends.
    Many(Box<HashMap<u64, usize, RandomState>>),
}

impl Held {
    fn add(&mut self, hash: u64) {
        match self {
            Self::One(first) => {
                let mut many = Box::<HashMap<_, _, _>>::default();
                many.insert(*first, 1);
                *many.entry(hash).or_default() += 1;
                *self = Self::Many(many);
            }
            Self::Many(many) if many.is_empty() => *self = Self::One(hash),
            Self::Many(many) => *many.entry(hash).or_default() += 1,
        }
    }

    fn remove(&mut self, hash: u64) {
        match self {
            // The only name there is.
            Self::One(_) => *self = Self::Many(Box::default()),
            Self::Many(many) => {
                if let Entry::Occupied(mut names) = many.entry(hash) {
                    *names.get_mut() -= 1;
                    if *names.get() == 0 {
                        names.remove();
                    }
                }
            }
        }
    }
}

/// Shards of the index; see the table's for what a shard costs.
const SHARDS: usize = 64;

impl Registry {
    /// A registry without names.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            index: DashMap::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
        }
    }

    /// Who holds the name. The process may have ended: only the VM knows.
    #[inline]
    #[must_use]
    pub fn whereis(&self, name: &[u8]) -> Option<Pid> {
        self.table.whereis(self.table.hash(name))
    }

    /// Makes `pid` the holder of a name that nobody holds, or that `instead_of` holds, which the
    /// caller knows to have ended.
    ///
    /// `watch` is called when `pid` did not stand in the index: it has to see to it that
    /// [`Registry::sweep`] is called after `pid` has ended, or answer `false` if it has already.
    /// No lock is held meanwhile.
    pub fn register(
        &self,
        name: &[u8],
        pid: Pid,
        instead_of: Option<Pid>,
        watch: impl FnOnce() -> bool,
    ) -> Result<(), RegisterError> {
        let name = self.table.hash(name);
        let claim = || {
            self.table
                .claim(name, pid, instead_of)
                .map_err(RegisterError::Taken)
        };
        match self.index.entry(pid) {
            Indexed::Occupied(mut held) => {
                claim()?;
                held.get_mut().add(name.hash);
                return Ok(());
            }
            Indexed::Vacant(vacant) => {
                claim()?;
                vacant.insert(Held::One(name.hash));
            }
        }
        if watch() {
            Ok(())
        } else {
            self.sweep(pid);
            Err(RegisterError::Ended)
        }
    }

    /// Frees the name if `pid` holds it; answers whether it did.
    pub fn unregister(&self, name: &[u8], pid: Pid) -> bool {
        let Some(mut held) = self.index.get_mut(&pid) else {
            return false;
        };
        let name = self.table.hash(name);
        if !self.table.release(name, pid) {
            return false;
        }
        held.remove(name.hash);
        true
    }

    /// Frees every name that `pid`, which has ended, still holds; answers how many. A name that
    /// another process has taken over meanwhile stays with it.
    pub fn sweep(&self, pid: Pid) -> usize {
        let release = |(hash, names)| {
            (0..names)
                .filter(|_| self.table.release_hash(hash, pid))
                .count()
        };
        match self.index.remove(&pid) {
            None => 0,
            Some((_, Held::One(hash))) => release((hash, 1)),
            Some((_, Held::Many(many))) => many.into_iter().map(release).sum(),
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.index.clear();
        self.index.shrink_to_fit();
        self.table.clear();
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no name is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many processes are in the index: those that hold a name, or did and still live.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.index.len()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}
