//! How words are read as terms, on memory that is made here: what some emulators do, and the one of
//! the other tests does not.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::panic)]

#[path = "../src/layout.rs"]
mod layout;
#[path = "../src/word.rs"]
mod word;

/// The questions to the VM that the check asks; nothing here asks.
mod api {
    use rustler::Term;
    use rustler::sys::ErlNifTerm;

    pub(crate) fn elements(_term: Term<'_>) -> Option<&[ErlNifTerm]> {
        panic!("there is no VM")
    }

    pub(crate) fn is_local_port(_term: Term<'_>) -> bool {
        panic!("there is no VM")
    }
}

use layout::{Layout, Shape, plain_pointer};
use rustler::{Env, Term};

const LAYOUT: Layout = Layout {
    binary: 0x24,
    unit: 1,
    part: None,
};

/// A small integer.
const NUMBER: u64 = 5 << 4 | 0xF;

/// The term of this word.
fn term(lifetime: &u8, word: u64) -> Term<'_> {
    // SAFETY: nobody looks at the env.
    let env = unsafe { Env::new(lifetime, std::ptr::null_mut()) };
    word::to_term(env, word)
}

#[test]
fn a_tuple_is_read_by_its_pointer() {
    let memory = [2 << 6, NUMBER, NUMBER];
    let pointer = memory.as_ptr() as u64 | 0b010;
    let term = term(&0, pointer);
    assert!(plain_pointer(&term));
    let Shape::Tuple(elements) = LAYOUT.shape(&term) else {
        panic!("no tuple")
    };
    assert_eq!(
        elements
            .iter()
            .map(|word| word::of(*word))
            .collect::<Vec<_>>(),
        memory[1..]
    );
}

#[test]
fn nothing_is_read_by_a_pointer_that_some_emulators_give_a_literal() {
    // Four bytes off lie the halves of these words: a tuple of many elements that there are not.
    let memory = [2 << 6, NUMBER << 32 | 1 << 10, NUMBER];
    let literal = memory.as_ptr() as u64 | 0b110;
    assert!(matches!(LAYOUT.shape(&term(&0, literal)), Shape::Other));
    assert!(!plain_pointer(&term(&0, literal)), "and the check finds it");
}

#[test]
fn a_term_that_is_its_own_word_is_no_pointer_whatever_its_third_bit() {
    for word in [NUMBER, 0xB | 7 << 6, 0x3 | 9 << 4, 0x3F3B] {
        assert!(plain_pointer(&term(&0, word)));
        assert!(
            matches!(LAYOUT.shape(&term(&0, word)), Shape::Word(short) if u64::from(short) == word)
        );
    }
}
