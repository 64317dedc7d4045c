//! What is kept with a name for its callers: the value, and the name itself where its bytes cannot
//! bring it back.
//!
//! A value of mere data is kept in external format. That is no way to keep a pid, a port or a
//! reference: it says which node they are of by a name that the node may lose, and a reference to
//! what lives only as long as somebody refers to it, as `:counters.new/2` gives one, keeps nothing
//! alive there. A term with such a part, with a function, or with anything that is not known, is
//! copied into an env of its own, which the VM keeps as it keeps terms of a process.

use crate::term;
use registry_core::Pid;
use rustler::sys::{ErlNifEnv, ErlNifTerm, enif_alloc_env, enif_free_env, enif_make_copy};
use rustler::{Binary, Encoder, Env, Term};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};

rustler::atoms! { nil }

/// The largest value, in external format.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// From that size on, in bytes of external format, a term with an env of its own is copied on dirty
/// schedulers only: an element of a list takes 16 bytes for one of those, and copying a megabyte
/// may take a millisecond.
pub(crate) const HEAVY: usize = 32 * 1024;

/// The same of a value in external format, which is copied as it is: a megabyte, into memory that is
/// new, takes up to a millisecond.
const HEAVY_PLAIN: usize = 256 * 1024;

/// What the table keeps with a name that has a value, or has to be kept itself.
#[derive(Clone)]
pub(crate) enum Kept {
    /// A value in external format.
    Plain(Arc<[u8]>),
    /// Anything else.
    Terms(Arc<Terms>),
}

/// Terms in an env of their own.
pub(crate) struct Terms {
    /// Until it goes.
    env: Option<Own>,
    /// As it was given, if it has to be kept so.
    name: Option<ErlNifTerm>,
    value: Value,
}

enum Value {
    None,
    Plain(Box<[u8]>),
    /// The term, and its size in external format.
    Term(ErlNifTerm, usize),
}

/// An env that belongs to no process. It is written to before anybody else knows it, and only read
/// afterwards.
struct Own(*mut ErlNifEnv);

// SAFETY: the VM lets an env that belongs to no process be used by any thread, by one at a time where
// it is changed. This one is changed by `Own::copy`, before it is shared, and by `drop`, when nobody
// has it any more.
unsafe impl Send for Own {}
// SAFETY: as above. In between terms are copied out of it, which only reads them: what the copies share,
// such as large binaries, the VM counts for all threads; and the one thing that copying a term
// changes in it, the room that a growing binary has to spare, was given up when the term was copied in.
unsafe impl Sync for Own {}

impl Own {
    fn new() -> Self {
        // SAFETY: no conditions; it is freed by `drop` alone.
        Self(unsafe { enif_alloc_env() })
    }

    /// Copies a term in. `self` is not shared yet.
    fn copy(&mut self, term: Term<'_>) -> ErlNifTerm {
        // SAFETY: the env is ours, and nobody else uses it; the term lives.
        unsafe { enif_make_copy(self.0, term.as_c_arg()) }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and nobody else frees it.
        unsafe { enif_free_env(self.0) }
    }
}

/// Where envs go that are not needed any more. Freeing one may be the last word on something with a
/// destructor of whatever kind, and take long; and who lets go of it may hold a lock.
static FREER: LazyLock<Option<Sender<Own>>> = LazyLock::new(|| {
    let (sender, freed) = channel();
    std::thread::Builder::new()
        .name("native_registry".into())
        .spawn(move || freed.into_iter().for_each(drop))
        .is_ok()
        .then_some(sender)
});

impl Drop for Terms {
    fn drop(&mut self) {
        if let (Some(env), Some(freer)) = (self.env.take(), FREER.as_ref()) {
            // What cannot be sent is dropped here.
            let _ = freer.send(env);
        }
    }
}

impl Kept {
    /// What is to be kept with a name; none where the name is its bytes and there is no value.
    ///
    /// `bound`: the name, if it is not. `kept`, by the Elixir side: `nil`, a value in external
    /// format, `{size, value}` with the size that it has there, or `{:name, name, kept}` with a name
    /// of which the NIF has been given the opened form.
    pub(crate) fn new(bound: Option<Term<'_>>, kept: Term<'_>) -> Option<Self> {
        // First: most names have no value, and each question below costs a call.
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
        let mut env = Own::new();
        let name = bound.map(|name| env.copy(name));
        let value = match (plain, value) {
            (Some(bytes), _) => Value::Plain(Box::from(bytes.as_slice())),
            (None, Some((size, value))) => Value::Term(env.copy(value), size),
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

    /// The sizes of what is copied, in external format: of what is kept in that, and of terms.
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

    /// The value as the Elixir side takes it: `nil`, in external format, or `{value}`.
    pub(crate) fn encode<'a>(kept: Option<&Self>, env: Env<'a>) -> Term<'a> {
        match kept {
            None => nil().encode(env),
            Some(Self::Plain(bytes)) => term::binary(env, bytes),
            Some(Self::Terms(terms)) => match &terms.value {
                Value::None => nil().encode(env),
                Value::Plain(bytes) => term::binary(env, bytes),
                Value::Term(value, _) => (copy_out(env, terms, *value),).encode(env),
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
                Value::Term(value, _) => Some(copy_out(env, terms, *value)),
            },
        }
    }

    /// The name with these bytes: as it was given where that is kept.
    pub(crate) fn name<'a>(
        kept: Option<&Self>,
        env: Env<'a>,
        bytes: &[u8],
        pid: Pid,
    ) -> Option<Term<'a>> {
        match kept {
            Some(Self::Terms(terms)) if terms.name.is_some() => {
                terms.name.map(|name| copy_out(env, terms, name))
            }
            _ => term::read(env, bytes, pid),
        }
    }
}

/// A copy, for a caller, of one of these terms.
fn copy_out<'a>(env: Env<'a>, _lives: &Terms, term: ErlNifTerm) -> Term<'a> {
    // SAFETY: the term lies in the env of `_lives`; it is copied to the env of a caller, who has that
    // to himself.
    unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), term)) }
}
