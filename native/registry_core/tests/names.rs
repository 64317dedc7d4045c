//! Two names are the same bytes exactly when they are the same value.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use registry_core::name::{Buffer, Encoder, MAX_BYTES, MAX_DEPTH, NameError, matches, tag};
use std::collections::BTreeMap;

/// A term as the Elixir side knows it. Equality is derived: the VM's `===`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Word(u32),
    Atom(u64),
    LocalPid(u64),
    LocalPort(u64),
    Integer(i64),
    Unsigned(u64),
    Big(bool, Vec<u8>),
    Float(u64),
    Binary(Vec<u8>),
    Bits(Vec<u8>, u8),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Improper(Vec<Value>, Box<Value>),
    Map(BTreeMap<Value, Value>),
    Fun(Vec<Value>),
    Export(Vec<Value>),
    LocalReference(Vec<u8>),
    Remote(Vec<u8>),
}

/// Writes a value; `backwards` enumerates maps the other way round.
fn write(encoder: &mut Encoder<'_>, value: &Value, backwards: bool) -> Result<(), NameError> {
    let write_list = |encoder: &mut Encoder<'_>, elements: &[Value]| {
        if elements.is_empty() {
            return encoder.nil();
        }
        encoder.list()?;
        for element in elements {
            write(encoder, element, backwards)?;
        }
        encoder.list_end()
    };
    match value {
        Value::Word(word) => encoder.word(*word),
        Value::Atom(word) => encoder.atom(*word),
        Value::LocalPid(word) => encoder.local_pid(*word),
        Value::LocalPort(word) => encoder.local_port(*word),
        Value::Integer(value) => encoder.integer(*value),
        Value::Unsigned(value) => encoder.unsigned(*value),
        Value::Big(negative, magnitude) => encoder.big(*negative, magnitude),
        Value::Float(bits) => encoder.float(f64::from_bits(*bits)),
        Value::Binary(bytes) => encoder.binary(bytes),
        Value::Bits(padded, last) => encoder.bits(padded, *last),
        Value::Tuple(elements) => {
            encoder.tuple(elements.len())?;
            elements
                .iter()
                .try_for_each(|element| write(encoder, element, backwards))
        }
        Value::List(elements) => write_list(encoder, elements),
        Value::Improper(elements, tail) => {
            encoder.list()?;
            for element in elements {
                write(encoder, element, backwards)?;
            }
            encoder.list_tail()?;
            write(encoder, tail, backwards)
        }
        Value::Map(map) => {
            let mut pairs = encoder.map(map.len())?;
            let mut entries: Vec<_> = map.iter().collect();
            if backwards {
                entries.reverse();
            }
            for (key, value) in entries {
                write(encoder, key, backwards)?;
                pairs.value(encoder);
                write(encoder, value, backwards)?;
                pairs.next(encoder);
            }
            encoder.map_end(pairs)
        }
        Value::Fun(identity) => {
            encoder.fun()?;
            write_list(encoder, identity)
        }
        Value::Export(identity) => {
            encoder.export()?;
            write_list(encoder, identity)
        }
        Value::LocalReference(numbers) => encoder.local_reference(numbers),
        Value::Remote(external) => encoder.remote(external),
    }
}

fn name_of(value: &Value, backwards: bool) -> Result<Vec<u8>, NameError> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder, value, backwards)?;
    Ok(encoder.finish().to_vec())
}

fn uuid() -> impl Strategy<Value = String> {
    // Often one character away from a UUID.
    (
        "[01f]{8}-[0a]{4}-[0f]{4}-[09]{4}-[0f]{12}",
        0..72_usize,
        "[A-Fg`/:@-]",
    )
        .prop_map(|(text, at, odd)| {
            let mut text = text;
            if at < text.len() {
                text.replace_range(at..=at, &odd);
            }
            text
        })
}

/// Few different leaves, so that equal values are met by chance, and all sizes of each.
fn leaf() -> impl Strategy<Value = Value> {
    let bytes = || {
        prop_oneof![
            vec(0..3_u8, 0..4),
            vec(0..2_u8, 62..66),
            vec(0..1_u8, 255..258)
        ]
    };
    prop_oneof![
        (0..4_u32).prop_map(|n| Value::Word(n << 4 | 0xF)),
        (0..3_u64).prop_map(|n| Value::Atom(n << 6 | 0xB)),
        (0..3_u64).prop_map(|n| Value::LocalPid(n << 4 | 3)),
        (0..3_u64).prop_map(|n| Value::LocalPort(n << 4 | 7)),
        prop_oneof![Just(i64::MIN), Just(i64::MAX), -2..2_i64].prop_map(Value::Integer),
        (i64::MAX as u64 + 1..i64::MAX as u64 + 3).prop_map(Value::Unsigned),
        (any::<bool>(), vec(1..3_u8, 9..11))
            .prop_map(|(sign, magnitude)| Value::Big(sign, magnitude)),
        prop_oneof![Just(0.0), Just(-0.0), Just(1.0), Just(2.5)]
            .prop_map(|value: f64| Value::Float(value.to_bits())),
        bytes().prop_map(Value::Binary),
        uuid().prop_map(|text| Value::Binary(text.into_bytes())),
        (vec(0..2_u8, 1..3), 1..8_u8).prop_map(|(padded, last)| Value::Bits(padded, last)),
        bytes().prop_map(Value::LocalReference),
        bytes().prop_map(Value::Remote),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 48, 6, |inner| {
        let some = || prop_oneof![vec(inner.clone(), 0..4), vec(inner.clone(), 15..18)];
        prop_oneof![
            some().prop_map(Value::Tuple),
            some().prop_map(Value::List),
            (vec(inner.clone(), 1..3), leaf())
                .prop_map(|(elements, tail)| Value::Improper(elements, Box::new(tail))),
            btree_map(inner.clone(), inner.clone(), 0..5).prop_map(Value::Map),
            vec(inner.clone(), 1..3).prop_map(Value::Fun),
            vec(inner.clone(), 1..3).prop_map(Value::Export),
        ]
    })
}

/// A value that differs from the given one in one place somewhere, or does not.
fn neighbour(value: Value, path: &[prop::sample::Index], other: Value) -> Value {
    let Some((step, path)) = path.split_first() else {
        return other;
    };
    let inside = |mut elements: Vec<Value>| {
        if !elements.is_empty() {
            let at = step.index(elements.len());
            elements[at] = neighbour(elements[at].clone(), path, other.clone());
        }
        elements
    };
    match value {
        Value::Tuple(elements) => Value::Tuple(inside(elements)),
        Value::List(elements) => Value::List(inside(elements)),
        Value::Improper(elements, tail) => Value::Improper(inside(elements), tail),
        Value::Fun(identity) => Value::Fun(inside(identity)),
        Value::Map(map) => {
            let values = inside(map.values().cloned().collect());
            Value::Map(map.into_keys().zip(values).collect())
        }
        _ => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn names_are_equal_exactly_when_their_values_are(
        value in value(),
        path in vec(any::<prop::sample::Index>(), 0..5),
        other in leaf(),
    ) {
        let near = neighbour(value.clone(), &path, other);
        let (name, same, near_name) = (name_of(&value, false)?, name_of(&value, true)?, name_of(&near, false)?);
        prop_assert_eq!(&name, &same, "the order of a map's enumeration must not matter");
        prop_assert_eq!(value == near, name == near_name);
    }

    #[test]
    fn no_name_is_the_beginning_of_another(one in value(), other in value()) {
        let (name, other_name) = (name_of(&one, false)?, name_of(&other, false)?);
        prop_assert!(one == other || !other_name.starts_with(&name));
    }

    #[test]
    fn texts_like_uuids_are_equal_exactly_when_they_are(one in uuid(), other in uuid()) {
        let name = |text: &str| name_of(&Value::Binary(text.as_bytes().to_vec()), false);
        prop_assert_eq!(one == other, name(&one)? == name(&other)?);
    }
}

#[test]
fn every_character_of_a_uuid_counts() {
    let uuid = b"01234567-89ab-cdef-0123-456789abcdef";
    let name = |text: &[u8]| name_of(&Value::Binary(text.to_vec()), false).unwrap();
    assert_eq!(name(uuid).len(), 17, "a UUID is packed");
    for at in 0..uuid.len() {
        for character in 0..=255 {
            let mut text = *uuid;
            text[at] = character;
            assert_eq!(text == *uuid, name(&text) == name(uuid), "{at} {character}");
        }
    }
}

#[test]
fn a_name_may_be_as_large_as_the_limit_and_no_larger() {
    let binary = |size| name_of(&Value::Binary(vec![0; size]), false);
    let overhead = binary(1_000).unwrap().len() - 1_000;
    assert_eq!(binary(MAX_BYTES - overhead).unwrap().len(), MAX_BYTES);
    assert_eq!(binary(MAX_BYTES - overhead + 1), Err(NameError::TooLarge));
    assert_eq!(binary(64 * 1024 * 1024), Err(NameError::TooLarge));
    let words = |count| name_of(&Value::List(vec![Value::Word(0xF); count]), false);
    assert!(words(MAX_BYTES / 4 - 1).is_ok());
    assert_eq!(words(MAX_BYTES / 4), Err(NameError::TooLarge));
}

#[test]
fn maps_that_take_too_long_to_order_are_refused() {
    let large = |depth| {
        let filler = Value::Binary(vec![0; MAX_BYTES / 4]);
        let mut map = Value::Word(0xF);
        for _ in 0..depth {
            map = Value::Map(BTreeMap::from([
                (Value::Integer(0), filler.clone()),
                (Value::Integer(1), map),
            ]));
        }
        // Only the innermost levels hold the filler: the work is in moving them again and again.
        map
    };
    assert!(name_of(&large(1), true).is_ok());
    let mut map = Value::Binary(vec![0; MAX_BYTES / 2]);
    for _ in 0..MAX_DEPTH {
        map = Value::Map(BTreeMap::from([
            (Value::Integer(0), Value::Word(0xF)),
            (Value::Integer(1), map),
        ]));
    }
    assert_eq!(name_of(&map, true), Err(NameError::TooManyMaps));
}

#[test]
fn a_term_with_more_parts_than_a_name_has_room_for_is_refused_at_once() {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    assert_eq!(encoder.tuple(10_000_000), Err(NameError::TooLarge));
    assert_eq!(encoder.map(10_000_000).err(), Some(NameError::TooLarge));
    assert_eq!(encoder.map(usize::MAX).err(), Some(NameError::TooLarge));
}

#[test]
fn what_was_read_of_a_name_is_known_also_when_it_is_refused() {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    let references = (0..).take_while(|_| encoder.local_reference(&[1; 12]).is_ok());
    assert!(references.count() > 1_000);
    assert!(encoder.work() > MAX_BYTES - 100);
}

#[test]
fn matching_takes_no_more_stack_for_a_deep_name() {
    let levels = 60_000;
    let ends = vec![tag::END; levels];
    let lists = vec![tag::LIST; levels];
    let tuples = vec![1 << 2 | tag::TUPLE; levels];
    let nil = vec![tag::NIL];
    let names = [
        [lists, nil.clone(), ends].concat(),
        [tuples, nil].concat(),
        vec![tag::FUN; levels],
    ];
    let small = std::thread::Builder::new().stack_size(32 * 1024);
    let matching = move || names.map(|name| matches(&[tag::ANY], &name));
    let matched = small.spawn(matching).unwrap().join().unwrap();
    assert_eq!(matched, [true, true, false]);
}
