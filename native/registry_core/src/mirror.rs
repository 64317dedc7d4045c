//! Names whose holders are elsewhere: on other nodes, which tell of them.
//!
//! A holder is a number, which means something within its session: that of a node while it may hold names. A
//! session goes as a whole and at once, however many names it has.
//!
//! The names lie in slots as those of [`crate::Registry`] do, without an index from holder to names, and the
//! session of a name lies where the number of a value would be. So a name takes no more than its slot.

use crate::directory::Directory;
use crate::epoch::{Guard, Shared};
use crate::long::LongNames;
use crate::pid::Pid;
use crate::slots::{Entry, Numbers, Slots};
use crate::sync::{Mutex, MutexGuard};
use crate::table::{self, Hashed, MEDIUM_WORDS, SHORT_WORDS, SIZE_MASK, with_map};
use std::num::NonZeroU32;
use std::sync::PoisonError;

/// The number of a session.
pub type Session = NonZeroU32;

/// Names by registry, and what is known of each session, a `T`.
pub struct Mirror<T: 'static> {
    registries: Directory<Names>,
    sessions: Directory<T>,
    /// Locked while either is changed.
    changing: Mutex<()>,
}

/// The names of one registry.
pub struct Names {
    short: Slots<SHORT_WORDS, Numbers>,
    medium: Slots<MEDIUM_WORDS, Numbers>,
    long: LongNames<Session>,
}

/// The number by which the directory has a session: there, the numbers of names are words of atoms, which
/// differ in their upper bits.
fn number(session: Session) -> u64 {
    u64::from(session.get()) << 6
}

impl<T: 'static> Mirror<T> {
    /// No names and no sessions.
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::new_without_default, clippy::large_stack_arrays)] // It is to be a static.
    pub const fn new() -> Self {
        Self {
            registries: Directory::new(),
            sessions: Directory::new(),
            changing: Mutex::new(()),
        }
    }

    /// No names and no sessions. Loom's atomics cannot be made at compile time.
    #[cfg(loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            registries: Directory::new(),
            sessions: Directory::new(),
            changing: Mutex::new(()),
        }
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the names of a session known, in place of what was known of it.
    pub fn begin(&self, session: Session, it: T) {
        let changing = self.change();
        let before = self.sessions.remove(number(session));
        self.sessions.insert(number(session), Shared::new(it));
        drop(changing);
        drop(before);
    }

    /// Hides the names of a session.
    pub fn end(&self, session: Session) {
        let changing = self.change();
        let before = self.sessions.remove(number(session));
        drop(changing);
        drop(before);
    }

    /// The names of a registry, by the number of its name, if it has had one.
    #[inline]
    pub fn names<'g>(&self, guard: &'g Guard, registry: u64) -> Option<&'g Names> {
        self.registries.find(guard, registry)
    }

    /// What is known of a session.
    #[inline]
    pub fn session<'g>(&self, guard: &'g Guard, session: Session) -> Option<&'g T> {
        self.sessions.find(guard, number(session))
    }

    /// Makes `holder` of a session the holder of the name, in place of any other.
    pub fn put(&self, registry: u64, name: &[u8], session: Session, holder: u64) {
        self.made(registry).put(name, session, holder);
    }

    fn made(&self, registry: u64) -> Shared<Names> {
        let find = || {
            let guard = Guard::new();
            self.registries.find_shared(&guard, registry).cloned()
        };
        if let Some(names) = find() {
            return names;
        }
        let _changing = self.change();
        find().unwrap_or_else(|| {
            let names = Shared::new(Names::new());
            self.registries.insert(registry, names.clone());
            names
        })
    }

    /// Forgets all names and sessions.
    pub fn clear(&self) {
        // First: no name of a session is found any more.
        let changing = self.change();
        self.sessions.clear();
        drop(changing);
        for names in self.registries.all() {
            names.clear();
        }
        // What was cleared is freed at the end of a guard.
        Guard::new().end();
    }

    /// How many names there are, and their bytes of memory. Those of sessions that have ended count until
    /// they are deleted.
    #[must_use]
    pub fn fill(&self) -> (usize, usize) {
        let fills = self.registries.all().into_iter().map(|names| names.fill());
        fills.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl Names {
    fn new() -> Self {
        Self {
            short: Slots::new(),
            medium: Slots::new(),
            long: LongNames::new(),
        }
    }

    /// The session and the holder of the name.
    #[inline]
    #[must_use]
    pub fn holder(&self, guard: &Guard, name: &[u8]) -> Option<(Session, u64)> {
        let Hashed { name, hash } = Hashed::of(name);
        let hash = hash.get();
        let (Pid(holder), session) = match hash & SIZE_MASK {
            1 => self
                .short
                .holder_and_number(guard, hash, &Entry::of(name))?,
            2 => self
                .medium
                .holder_and_number(guard, hash, &Entry::of(name))?,
            _ => {
                let locked = self.long.lock(hash);
                let place = locked.find(hash, name)?;
                (locked.pid(hash, place), locked.value(hash, place))
            }
        };
        Some((session?, holder))
    }

    fn put(&self, name: &[u8], session: Session, holder: u64) {
        let Hashed { name, hash } = Hashed::of(name);
        let hash = hash.get();
        let (pid, session) = (Pid(holder), Some(session));
        with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            match locked.find(hash, name) {
                Some(place) => drop(locked.hold(hash, place, pid, session)),
                None => drop(locked.insert(hash, name, pid, session, table::hash)),
            }
        });
    }

    /// Deletes the name if the session has it; answers whether it had.
    pub fn delete(&self, name: &[u8], session: Session) -> bool {
        let Hashed { name, hash } = Hashed::of(name);
        let hash = hash.get();
        with_map!(self, hash, |map| {
            let mut locked = map.lock(hash);
            let place = locked.find(hash, name);
            let its = |place: &_| locked.value(hash, *place) == Some(session);
            let Some(place) = place.filter(its) else {
                return false;
            };
            locked.remove(hash, place, table::hash);
            true
        })
    }

    fn fill(&self) -> (usize, usize) {
        let (short, medium, long) = (self.short.fill(), self.medium.fill(), self.long.fill());
        let none = (0, size_of_val(self));
        let fills = short.chain(medium).chain(long);
        fills.fold(none, |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn clear(&self) {
        self.short.clear();
        self.medium.clear();
        self.long.clear();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ONE: Session = Session::MIN;
    const TWO: Session = Session::MIN.saturating_add(1);
    /// The number of a registry.
    const REGISTRY: u64 = 77 << 6;

    /// What is known of the session that has the name, and the holder.
    fn whereis(mirror: &Mirror<u8>, registry: u64, name: &[u8]) -> Option<(u8, u64)> {
        let guard = Guard::new();
        let (session, holder) = mirror.names(&guard, registry)?.holder(&guard, name)?;
        Some((*mirror.session(&guard, session)?, holder))
    }

    fn delete(mirror: &Mirror<u8>, name: &[u8], session: Session) -> bool {
        let guard = Guard::new();
        let names = mirror.names(&guard, REGISTRY);
        names.is_some_and(|names| names.delete(name, session))
    }

    /// Names of all three sizes.
    fn names(count: u16) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|at| {
            let mut name = vec![1; [4, 40, 200][usize::from(at % 3)]];
            name[..2].copy_from_slice(&at.to_le_bytes());
            name
        })
    }

    #[test]
    fn a_name_has_the_session_and_the_holder_that_were_put_last() {
        static MIRROR: Mirror<u8> = Mirror::new();
        MIRROR.begin(ONE, 1);
        MIRROR.begin(TWO, 2);
        for (at, name) in (1..).zip(names(2_000)) {
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), None);
            MIRROR.put(REGISTRY, &name, ONE, at);
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), Some((1, at)));
            MIRROR.put(REGISTRY, &name, TWO, u64::MAX - at);
        }
        for (at, name) in (1..).zip(names(2_000)) {
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), Some((2, u64::MAX - at)));
            assert_eq!(whereis(&MIRROR, REGISTRY + 64, &name), None);
        }
    }

    #[test]
    fn a_name_is_deleted_by_its_session_alone() {
        static MIRROR: Mirror<u8> = Mirror::new();
        MIRROR.begin(ONE, 1);
        MIRROR.begin(TWO, 2);
        for name in names(600) {
            assert!(!delete(&MIRROR, &name, ONE));
            MIRROR.put(REGISTRY, &name, ONE, 9);
            assert!(!delete(&MIRROR, &name, TWO));
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), Some((1, 9)));
        }
        for name in names(600) {
            assert!(delete(&MIRROR, &name, ONE));
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), None);
        }
        assert_eq!(MIRROR.fill().0, 0);
    }

    #[test]
    fn the_names_of_a_session_go_at_once_and_are_deleted_later() {
        static MIRROR: Mirror<u8> = Mirror::new();
        MIRROR.begin(ONE, 1);
        MIRROR.begin(TWO, 2);
        for (name, session) in names(600).zip([ONE, TWO].into_iter().cycle()) {
            MIRROR.put(REGISTRY, &name, session, 9);
        }
        MIRROR.end(ONE);
        MIRROR.end(ONE);
        for (name, session) in names(600).zip([None, Some((2, 9))].into_iter().cycle()) {
            assert_eq!(whereis(&MIRROR, REGISTRY, &name), session);
        }
        assert_eq!(MIRROR.fill().0, 600);
        // One of its names has gone to another session meanwhile.
        let first = names(1).next().unwrap();
        MIRROR.put(REGISTRY, &first, TWO, 5);
        let deleted = names(600).filter(|name| delete(&MIRROR, name, ONE)).count();
        assert_eq!(deleted, 299);
        assert_eq!(MIRROR.fill().0, 301);
        assert_eq!(whereis(&MIRROR, REGISTRY, &first), Some((2, 5)));
    }

    #[test]
    fn nothing_is_left_when_it_is_cleared_and_it_can_be_filled_again() {
        static MIRROR: Mirror<u8> = Mirror::new();
        let empty = MIRROR.fill();
        assert_eq!(empty, (0, 0));
        let mut cleared = Vec::new();
        for _ in 0..2 {
            MIRROR.begin(ONE, 1);
            for (at, name) in (1..).zip(names(2_000)) {
                MIRROR.put(REGISTRY + at % 2 * 64, &name, ONE, at);
            }
            assert_eq!(MIRROR.fill().0, 2_000);
            MIRROR.clear();
            for (at, name) in (1..).zip(names(2_000)) {
                assert_eq!(whereis(&MIRROR, REGISTRY + at % 2 * 64, &name), None);
            }
            // A session of the same number does not bring them back.
            MIRROR.begin(ONE, 1);
            assert_eq!(whereis(&MIRROR, REGISTRY, &names(1).next().unwrap()), None);
            cleared.push(MIRROR.fill());
        }
        assert_eq!(cleared[0].0, 0);
        assert_eq!(cleared[0], cleared[1]);
    }

    #[test]
    fn a_name_takes_little_more_than_its_slot() {
        static MIRROR: Mirror<u8> = Mirror::new();
        MIRROR.begin(ONE, 1);
        let many: u32 = if cfg!(miri) { 1_000 } else { 100_000 };
        for at in 0..many {
            // As long as a tuple of two UUIDs.
            let mut name = [7; 35];
            name[..4].copy_from_slice(&at.to_le_bytes());
            MIRROR.put(REGISTRY, &name, ONE, u64::from(at));
        }
        let (names, bytes) = MIRROR.fill();
        assert_eq!(names, many as usize);
        let slot = MEDIUM_WORDS * size_of::<u64>();
        assert!(cfg!(miri) || bytes < names * slot * 3 / 2, "{bytes} bytes");
    }

    /// A reader that finds a name finds a holder of the session that is put with it.
    #[test]
    fn session_and_holder_belong_together_while_others_write() {
        static MIRROR: Mirror<u8> = Mirror::new();
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        MIRROR.begin(ONE, 1);
        MIRROR.begin(TWO, 2);
        MIRROR.put(REGISTRY, b"name", ONE, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..rounds {
                    let (session, holder) = if round % 2 == 0 { (TWO, 2) } else { (ONE, 1) };
                    MIRROR.put(REGISTRY, b"name", session, holder);
                    for name in names(3) {
                        MIRROR.put(REGISTRY, &name, session, holder);
                        delete(&MIRROR, &name, session);
                    }
                }
            });
            for _ in 0..rounds {
                let (session, holder) = whereis(&MIRROR, REGISTRY, b"name").unwrap();
                assert_eq!(u64::from(session), holder);
            }
        });
    }
}
