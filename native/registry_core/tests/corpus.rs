//! Replays what the fuzzer found worth keeping: `fuzz/` says how it looks for more.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/check.rs"]
mod check;

use registry_core::name::tag;
use std::fs;
use std::path::Path;

#[test]
fn no_bytes_of_the_corpus_do_the_reader_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/names");
    let mut files = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        check::check(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 50);
}

#[test]
fn bytes_that_are_no_name_but_very_deep_do_the_reader_no_harm() {
    let lists = [tag::LIST, tag::TAIL];
    let part_of_itself = [tag::TUPLE | 1 << 2];
    for deep in [
        &lists[..],
        &part_of_itself,
        &[tag::BIG],
        &[tag::BITS, 1],
        &[tag::FUN],
        &[tag::LIST],
    ] {
        check::check(&deep.repeat(40_000));
        check::check(&[&[0], &deep.repeat(40_000)[..]].concat());
    }
    let mut any_and_deep = vec![4, tag::ANY];
    any_and_deep.extend([tag::TUPLE | 1 << 2].repeat(60_000));
    check::check(&any_and_deep);
}
