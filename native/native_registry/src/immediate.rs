//! The one place that knows how the emulator lays out a term.
//!
//! A word whose lowest bits say so *is* its term: an atom, a small integer, a pid or port of this
//! node, the empty list. Reading it from the word spares a call into the VM for each part of a
//! name. The layout is not part of the documented API, so [`check`] compares it with what that API
//! says about real terms when the library is loaded; where they differ, or where the portable way
//! is asked for, [`read`] knows nothing and every term goes through the documented API.

use once_cell::sync::OnceCell;
use crate::word;
use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, LocalPid, Term};

/// A term that is its own word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Immediate {
    Atom,
    Integer(i64),
    LocalPid,
    LocalPort,
    Nil,
}

static TRUSTED: OnceCell<bool> = OnceCell::new();

/// What the word says it is; `None` when it points to memory, or when words are not trusted.
#[inline]
pub(crate) fn read(term: ErlNifTerm) -> Option<Immediate> {
    if *TRUSTED.get()? {
        from_word(word::of(term))
    } else {
        None
    }
}

/// Whether words are read at all.
pub(crate) fn trusted() -> bool {
    TRUSTED.get().copied().unwrap_or(false)
}

/// `erts/emulator/beam/erl_term.h`: two bits tell immediates from pointers, two more tell which,
/// and for the last kind another two.
#[inline]
fn from_word(word: u64) -> Option<Immediate> {
    match word & 0xF {
        0xF => Some(Immediate::Integer(word.cast_signed() >> 4)),
        0xB if word & 0x3F == 0x0B => Some(Immediate::Atom),
        0xB if word & 0x3F == 0x3B => Some(Immediate::Nil),
        0x3 => Some(Immediate::LocalPid),
        0x7 => Some(Immediate::LocalPort),
        _ => None,
    }
}

/// Decides, once, whether words can be trusted: each sample has to be read as what the documented
/// API made it, and whatever lies on the heap must not be read at all.
pub(crate) fn check(env: Env<'_>, pid: Term<'_>, portable: bool) {
    let read = |term: Term<'_>| from_word(word::of(term.as_c_arg()));
    let integers = [0, 1, -1, 42, -42, 1 << 27, -(1 << 27), (1 << 59) - 1, -(1 << 59)];
    let atoms = ["", "ok", "workflow", "\u{e9}"];
    let trusted = !portable
        && size_of::<usize>() == 8
        && integers
            .iter()
            .all(|&value: &i64| read(value.encode(env)) == Some(Immediate::Integer(value)))
        && atoms.iter().all(|text| {
            rustler::Atom::from_str(env, text)
                .is_ok_and(|atom| read(atom.to_term(env)) == Some(Immediate::Atom))
        })
        && pid.decode::<LocalPid>().is_ok()
        && read(pid) == Some(Immediate::LocalPid)
        && read(Term::list_new_empty(env)) == Some(Immediate::Nil)
        && [
            (1_i64 << 59).encode(env),
            1.5_f64.encode(env),
            "text".encode(env),
            ().encode(env),
            (1,).encode(env),
            vec![1].encode(env),
            Term::map_new(env),
            env.make_ref().encode(env),
        ]
        .iter()
        .all(|&term| read(term).is_none());
    // A second load of the library finds it decided already, for the same VM.
    let _ = TRUSTED.set(trusted);
}
