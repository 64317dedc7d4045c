//! The one place that knows how the emulator lays out a term.
//!
//! A word whose two lowest bits are set *is* its term: an atom, a small integer, a pid or port of
//! this node, the empty list (`erts/emulator/beam/erl_term.h`). Where such a word is short it goes
//! into a name as it is, which spares a call into the VM for each part of a name. The layout is not
//! part of the documented API, so [`check`] compares it with what that API says about real terms
//! when the library is loaded; where they differ, or where the portable way is asked for, [`word()`]
//! knows nothing and every term goes through the documented API.

use crate::word;
use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, Term};
use std::sync::atomic::{AtomicU64, Ordering};

/// With this mask the word of a short immediate is 3. Zero, with which no word is, until the check
/// has passed.
static MASK: AtomicU64 = AtomicU64::new(0);

const SHORT_IMMEDIATE: u64 = 0xFFFF_FFFF_0000_0003;

/// The word of a term that is its own word and has no more than 32 bits.
#[inline]
pub(crate) fn word(term: ErlNifTerm) -> Option<u32> {
    short(term, MASK.load(Ordering::Relaxed))
}

/// Whether words are looked at.
pub(crate) fn trusted() -> bool {
    MASK.load(Ordering::Relaxed) != 0
}

#[inline]
fn short(term: ErlNifTerm, mask: u64) -> Option<u32> {
    let word = word::of(term);
    // The mask has seen to it that nothing is cut off.
    #[allow(clippy::cast_possible_truncation)]
    (word & mask == 3).then_some(word as u32)
}

/// Decides whether words can be trusted: those of immediates have to look like it, those of terms
/// on the heap must not, and no two terms may have the same.
pub(crate) fn check(env: Env<'_>, portable: bool) {
    let looks = |term: &Term<'_>| short(term.as_c_arg(), SHORT_IMMEDIATE).is_some();
    let immediates = [
        0_i64.encode(env),
        1_i64.encode(env),
        42_i64.encode(env),
        ((1_i64 << 28) - 1).encode(env),
        rustler::types::atom::ok().to_term(env),
        rustler::types::atom::undefined().to_term(env),
        Term::list_new_empty(env),
    ];
    let others = [
        // Immediates, but long: they must not be cut off.
        (-1_i64).encode(env),
        (1_i64 << 28).encode(env),
        (1_i64 << 62).encode(env),
        1.5_f64.encode(env),
        "text".encode(env),
        (1,).encode(env),
        vec![1].encode(env),
        Term::map_new(env),
        env.make_ref().encode(env),
    ];
    let different = immediates
        .iter()
        .enumerate()
        .all(|(at, term)| immediates[..at].iter().all(|other| other != term));
    if !portable && immediates.iter().all(looks) && !others.iter().any(looks) && different {
        MASK.store(SHORT_IMMEDIATE, Ordering::Relaxed);
    }
}
