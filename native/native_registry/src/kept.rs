//! What is kept with a name: the value, and the name itself if its bytes cannot bring it back.
//!
//! A value of plain data is kept in external format. That does not work for pids, ports and
//! references: the format has the name of their node, which may change, and a reference in it does
//! not keep alive what it refers to, such as a counter of `:counters.new/2`. A term with such a part,
//! with a function, or with a part of an unknown kind is copied into an env of its own, which the VM
//! keeps as it keeps terms of a process.

use crate::api;
use crate::background;
use crate::read;
use once_cell::sync::Lazy;
use registry_core::Pid;
use rustler::env::SavedTerm;
use rustler::{Binary, Encoder, Env, OwnedEnv, Term};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

rustler::atoms! { nil }

/// A term with an env of its own is copied on dirty schedulers only, if it is larger than this in
/// external format. An element of a list may take one byte there and 16 bytes in memory, and copying
/// a megabyte may take a millisecond.
pub(crate) const HEAVY: usize = 32 * 1024;

/// The same for a value in external format, which is copied as it is: a megabyte takes up to a
/// millisecond.
const HEAVY_PLAIN: usize = 256 * 1024;

/// What the table keeps with a name, if it keeps anything.
#[derive(Clone)]
pub(crate) enum Kept {
    /// A value in external format.
    Plain(Arc<[u8]>),
    /// Anything else.
    Terms(Arc<Terms>),
}

/// Terms in an env of their own, which belongs to no process. It is written to before any other
/// thread knows of it, and only read afterwards.
pub(crate) struct Terms {
    /// `None` only while this is being dropped.
    env: Option<OwnedEnv>,
    /// The name as it was given, if its bytes cannot bring it back.
    name: Option<SavedTerm>,
    value: Value,
}

enum Value {
    None,
    Plain(Box<[u8]>),
    /// The term, and its size in external format.
    Term(SavedTerm, usize),
}

// SAFETY: threads only read what they share. They copy terms out of the env, which reads them. The VM
// counts, for all threads, what the copies share, such as large binaries. Copying a term changes one
// thing in it, the spare room of a growing binary, and that was given up when the term was copied in. Of
// `Arc`s and `Weak`s only the atomic counts change. The thread that drops this is the last to have it.
unsafe impl Sync for Terms {}

/// Sends envs that are not needed any more to the thread that frees them. Freeing an env may call a
/// destructor of any kind, and take long, and the thread that lets go of it may hold a lock.
static FREER: Lazy<Option<Sender<OwnedEnv>>> = Lazy::new(|| {
    let (sender, freed) = channel();
    let spawned = background::spawn(move || freed.into_iter().for_each(drop));
    spawned.is_ok().then_some(sender)
});

impl Drop for Terms {
    fn drop(&mut self) {
        if let (Some(env), Some(freer)) = (self.env.take(), FREER.as_ref()) {
            // What cannot be sent is dropped here.
            let _ = freer.send(env);
        }
    }
}

impl Terms {
    /// A copy of one of these terms.
    fn copy<'a>(&self, term: &SavedTerm, env: Env<'a>) -> Option<Term<'a>> {
        let own = self.env.as_ref()?;
        Some(own.run(|own| term.load(own).in_env(env)))
    }
}

impl Kept {
    /// What is to be kept with a name, if anything.
    ///
    /// `bound`: the name, if its bytes cannot bring it back. `kept`, from the Elixir side: `nil` for no
    /// value, a value in external format, `{size, value}` with its size in external format, or
    /// `{:name, name, kept}` with the name as it was given, if the NIF was given its opened form.
    pub(crate) fn new(bound: Option<Term<'_>>, kept: Term<'_>) -> Option<Self> {
        // First, because most names have no value, and each question below is a call of the VM.
        if bound.is_none() && nil() == kept {
            return None;
        }
        if let Ok((_name, name, kept)) = kept.decode::<(Term<'_>, Term<'_>, Term<'_>)>() {
            return Self::new(bound.and(Some(name)), kept);
        }
        let plain = Binary::from_term(kept).ok();
        let value = kept.decode::<(usize, Term<'_>)>().ok();
        if bound.is_none() && value.is_none() {
            return plain.map(|bytes| Self::Plain(Arc::from(bytes.as_slice())));
        }
        let env = OwnedEnv::new();
        let name = bound.map(|name| env.save(name));
        let value = match (plain, value) {
            (Some(bytes), _) => Value::Plain(Box::from(bytes.as_slice())),
            (None, Some((size, value))) => Value::Term(env.save(value), size),
            (None, None) => Value::None,
        };
        Some(Self::Terms(Arc::new(Terms {
            env: Some(env),
            name,
            value,
        })))
    }

    /// Whether what [`Kept::new`] would copy takes long.
    pub(crate) fn takes_long(kept: Term<'_>) -> bool {
        if nil() == kept {
            return false;
        }
        if let Ok((_name, _, kept)) = kept.decode::<(Term<'_>, Term<'_>, Term<'_>)>() {
            return Self::takes_long(kept);
        }
        if let Ok(plain) = Binary::from_term(kept) {
            return plain.len() > HEAVY_PLAIN;
        }
        let value = kept.decode::<(usize, Term<'_>)>();
        value.is_ok_and(|(size, _)| size > HEAVY)
    }

    /// Whether the value is one that takes long to copy.
    pub(crate) fn is_heavy(&self) -> bool {
        let (plain, terms) = self.size();
        plain > HEAVY_PLAIN || terms > HEAVY
    }

    /// The size of the value in external format: of plain data, and of a term.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Self::Plain(bytes) => (bytes.len(), 0),
            Self::Terms(terms) => match &terms.value {
                Value::None => (0, 0),
                Value::Plain(bytes) => (bytes.len(), 0),
                Value::Term(_, size) => (0, *size),
            },
        }
    }

    /// The value as the Elixir side takes it: `nil`, the value in external format, or `{value}`.
    pub(crate) fn encode<'a>(kept: Option<&Self>, env: Env<'a>) -> Term<'a> {
        match kept {
            None => nil().encode(env),
            Some(Self::Plain(bytes)) => api::binary(env, bytes),
            Some(Self::Terms(terms)) => match &terms.value {
                Value::None => nil().encode(env),
                Value::Plain(bytes) => api::binary(env, bytes),
                Value::Term(value, _) => (terms.copy(value, env),).encode(env),
            },
        }
    }

    /// The value.
    pub(crate) fn value<'a>(kept: Option<&Self>, env: Env<'a>) -> Option<Term<'a>> {
        let plain = |bytes| env.binary_to_term(bytes).map(|(value, _)| value);
        match kept {
            None => Some(nil().encode(env)),
            Some(Self::Plain(bytes)) => plain(bytes),
            Some(Self::Terms(terms)) => match &terms.value {
                Value::None => Some(nil().encode(env)),
                Value::Plain(bytes) => plain(bytes),
                Value::Term(value, _) => terms.copy(value, env),
            },
        }
    }

    /// The name with these bytes.
    pub(crate) fn name<'a>(
        kept: Option<&Self>,
        env: Env<'a>,
        bytes: &[u8],
        pid: Pid,
    ) -> Option<Term<'a>> {
        if let Some(Self::Terms(terms)) = kept
            && let Some(name) = &terms.name
        {
            return terms.copy(name, env);
        }
        read::name(env, bytes, pid)
    }
}
