//! From a term to the canonical bytes of a name, and back.

use crate::layout::{self, Layout, Shape};
use crate::odd::Odd;
use crate::refusal::Refused;
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::Pid;
use registry_core::name::{Encoder, MAX_DEPTH, NameError, Pairs, Part, Reader};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Encoder as _, Env, LocalPid, MapIterator, NewBinary, OwnedBinary, Term};
use smallvec::SmallVec;
use std::mem::MaybeUninit;

type Written = Result<(), Refused>;

/// Writes the term.
#[inline]
pub(crate) fn write(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    Writer::new(encoder, term.get_env()).write::<false>(term)
}

/// Writes the term as a pattern: `:_` in it is any term.
pub(crate) fn write_pattern(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    Writer::new(encoder, term.get_env()).write::<true>(term)
}

rustler::atoms! { any = "_" }

/// A term whose head has been written, by its parts that have not.
enum Frame<'a> {
    /// Elements of a tuple.
    Elements(&'a [ErlNifTerm]),
    /// What is left of a list.
    List(ErlNifTerm),
    /// Nothing: a list of which the last tail has been written. It still counts as a level.
    Tail,
    /// The last of the writer's maps.
    Map,
}

/// A map of which some pairs have not been written.
struct Map<'a> {
    left: MapIterator<'a>,
    pairs: Pairs,
    /// Whether a value has been begun that has not been said to be written.
    begun: bool,
    /// The value of the key that has been written.
    value: Option<ErlNifTerm>,
    /// How many places for any term there were before that key.
    anys: usize,
}

impl Map<'_> {
    /// Writes what can be written at once, up to a key or value that cannot.
    fn next<const PATTERN: bool>(
        &mut self,
        encoder: &mut Encoder<'_>,
        env: Env<'_>,
        layout: Option<Layout>,
    ) -> Result<Option<ErlNifTerm>, Refused> {
        loop {
            if let Some(value) = self.value.take() {
                // The key is written.
                if PATTERN && encoder.anys() > self.anys {
                    return Err(Refused::Pattern);
                }
                self.pairs.value(encoder);
                self.begun = true;
                if !leaf::<PATTERN>(encoder, env, layout, value)? {
                    return Ok(Some(value));
                }
            }
            // The value is written, if there has been one.
            if self.begun {
                self.pairs.next(encoder);
                self.begun = false;
            }
            let Some((key, value)) = self.left.next() else {
                return Ok(None);
            };
            self.value = Some(value.as_c_arg());
            self.anys = encoder.anys();
            if !leaf::<PATTERN>(encoder, env, layout, key.as_c_arg())? {
                return Ok(Some(key.as_c_arg()));
            }
        }
    }
}

/// Writes a term if it is one without parts that the layout tells without a call: most are.
///
/// Terms go from function to function as words: a `Term` is three, one of them not full, and the
/// processor waits for each that is put together in memory and copied at once.
#[inline]
fn leaf<const PATTERN: bool>(
    encoder: &mut Encoder<'_>,
    env: Env<'_>,
    layout: Option<Layout>,
    word: ErlNifTerm,
) -> Result<bool, Refused> {
    if PATTERN && any() == part(env, word) {
        encoder.any()?;
        return Ok(true);
    }
    let Some(layout) = layout else {
        return Ok(false);
    };
    match layout.shape(&part(env, word)) {
        Shape::Word(word) => encoder.word(word)?,
        Shape::Binary(bytes) => encoder.binary(bytes)?,
        Shape::LargePart => return Err(NameError::TooLarge.into()),
        Shape::Tuple(_) | Shape::Other => return Ok(false),
    }
    Ok(true)
}

#[inline]
fn is_word(layout: Option<Layout>, word: ErlNifTerm) -> bool {
    layout.is_some() && layout::short_immediate(word::of(word)).is_some()
}

/// How many levels of a term, and how many maps in one another, need no allocation. Together a
/// kilobyte of the stack.
const SHALLOW: usize = 32;
const SHALLOW_MAPS: usize = 2;

/// Writes a term without going down the stack with it: that of a scheduler may be small.
struct Writer<'e, 'b, 'a> {
    encoder: &'e mut Encoder<'b>,
    env: Env<'a>,
    layout: Option<Layout>,
    /// The terms around the one that is being written.
    frames: SmallVec<[Frame<'a>; SHALLOW]>,
    /// The maps among them. By themselves, as they take much more room than the others.
    maps: SmallVec<[Map<'a>; SHALLOW_MAPS]>,
    /// What the references of this node have in common, once the term has one.
    own: Option<Origin>,
}

impl<'e, 'b, 'a> Writer<'e, 'b, 'a> {
    #[inline]
    fn new(encoder: &'e mut Encoder<'b>, env: Env<'a>) -> Self {
        Self {
            encoder,
            env,
            layout: layout::trusted(),
            frames: SmallVec::new(),
            maps: SmallVec::new(),
            own: None,
        }
    }

    #[inline]
    fn write<const PATTERN: bool>(mut self, term: Term<'a>) -> Written {
        let word = term.as_c_arg();
        if self.leaf::<PATTERN>(word)? {
            return Ok(());
        }
        let mut elements = self.begin(word)?;
        loop {
            // The tuple that is being written is in no frame before it has a part that goes deeper:
            // most have none.
            let next = match self.elements::<PATTERN>(&mut elements)? {
                Some(element) => {
                    self.frames.push(Frame::Elements(elements));
                    Some(element)
                }
                None => match self.frames.pop() {
                    None => return Ok(()),
                    Some(Frame::Elements(outer)) => {
                        elements = outer;
                        None
                    }
                    Some(Frame::Tail) => None,
                    Some(Frame::List(list)) => self.list::<PATTERN>(list)?,
                    Some(Frame::Map) => self.pairs::<PATTERN>()?,
                },
            };
            if let Some(next) = next {
                elements = self.begin(next)?;
            }
        }
    }

    #[inline]
    fn leaf<const PATTERN: bool>(&mut self, word: ErlNifTerm) -> Result<bool, Refused> {
        leaf::<PATTERN>(self.encoder, self.env, self.layout, word)
    }

    /// Writes the head of a term that [`leaf`] has not written, or all of it; answers the parts of
    /// a tuple. Those of a list or a map are in a frame.
    #[inline]
    fn begin(&mut self, word: ErlNifTerm) -> Result<&'a [ErlNifTerm], Refused> {
        let term = part(self.env, word);
        if let Some(layout) = self.layout {
            return match layout.shape(&term) {
                Shape::Tuple(elements) => self.tuple(elements),
                _ => self.other(term),
            };
        }
        // The smallest parts first, as a name may have most of them.
        if let Some(elements) = elements(term) {
            return self.tuple(elements);
        }
        if term.is_empty_list() {
            self.encoder.nil()?;
            return Ok(&[]);
        }
        if let Ok(binary) = Binary::from_term(term) {
            self.encoder.binary(&binary)?;
            return Ok(&[]);
        }
        self.other(term)
    }

    /// Writes elements up to one that cannot be written at once, behind which `elements` is then.
    #[inline]
    fn elements<const PATTERN: bool>(
        &mut self,
        elements: &mut &'a [ErlNifTerm],
    ) -> Result<Option<ErlNifTerm>, Refused> {
        let mut left = *elements;
        while let Some((&element, rest)) = left.split_first() {
            left = rest;
            if !self.leaf::<PATTERN>(element)? {
                *elements = left;
                return Ok(Some(element));
            }
        }
        *elements = &[];
        Ok(None)
    }

    /// The same with what is left of a list, and a frame for the rest.
    fn list<const PATTERN: bool>(
        &mut self,
        mut list: ErlNifTerm,
    ) -> Result<Option<ErlNifTerm>, Refused> {
        while let Ok((head, tail)) = part(self.env, list).list_get_cell() {
            list = tail.as_c_arg();
            let head = head.as_c_arg();
            if !self.leaf::<PATTERN>(head)? {
                self.frames.push(Frame::List(list));
                return Ok(Some(head));
            }
        }
        if part(self.env, list).is_empty_list() {
            self.encoder.list_end()?;
            return Ok(None);
        }
        self.encoder.list_tail()?;
        self.frames.push(Frame::Tail);
        Ok((!self.leaf::<PATTERN>(list)?).then_some(list))
    }

    /// The same with what is left of the last map.
    fn pairs<const PATTERN: bool>(&mut self) -> Result<Option<ErlNifTerm>, Refused> {
        let Some(map) = self.maps.last_mut() else {
            return Ok(None);
        };
        let next = map.next::<PATTERN>(self.encoder, self.env, self.layout)?;
        if next.is_some() {
            self.frames.push(Frame::Map);
        } else if let Some(map) = self.maps.pop() {
            self.encoder.map_end(map.pairs)?;
        }
        Ok(next)
    }

    /// Refuses a term with parts that lies deeper than a name may go.
    #[inline]
    fn below(&self) -> Result<(), NameError> {
        if self.frames.len() < MAX_DEPTH {
            Ok(())
        } else {
            Err(NameError::TooDeep)
        }
    }

    /// Writes the head of a tuple; answers its parts.
    #[inline]
    fn tuple(&mut self, elements: &'a [ErlNifTerm]) -> Result<&'a [ErlNifTerm], Refused> {
        self.below()?;
        // Only a reference can be the mark of an opened part, and no word is one.
        if let Some(&first) = elements.first()
            && !is_word(self.layout, first)
            && Odd::marks(part(self.env, first))
        {
            return self.opened(&elements[1..]);
        }
        self.encoder.tuple(elements.len())?;
        Ok(elements)
    }

    /// What the Elixir side made of a part that the API does not open, see `Odd`; answers what is a
    /// term of its own.
    fn opened(&mut self, parts: &'a [ErlNifTerm]) -> Result<&'a [ErlNifTerm], Refused> {
        let opened = |at: usize| parts.get(at).map(|&word| part(self.env, word));
        let kind: u8 = opened(0)
            .and_then(|kind| kind.decode().ok())
            .ok_or(Refused::Odd)?;
        let body = opened(1).ok_or(Refused::Odd)?;
        let number = || {
            opened(2)
                .and_then(|number| number.decode::<u8>().ok())
                .ok_or(Refused::Odd)
        };
        let bytes = || Binary::from_term(body).map_err(|_| Refused::Odd);
        match kind {
            Odd::INTEGER => {
                let negative = number()? == 1;
                self.encoder.big(negative, &bytes()?)?;
            }
            Odd::BITS => {
                let last = number()?;
                self.encoder.bits(&bytes()?, last)?;
            }
            Odd::FUN => {
                self.encoder.fun()?;
                return Ok(&parts[1..2]);
            }
            Odd::EXPORT => {
                self.encoder.export()?;
                return Ok(&parts[1..2]);
            }
            _ => return Err(Refused::Odd),
        }
        Ok(&[])
    }

    /// Any term of which the layout tells nothing: writes it, or its head and answers its parts,
    /// which of a list or a map are in a frame. Each kind is asked for by itself: the API's call
    /// that answers which kind a term is ends the VM where it is of none that the call knows.
    fn other(&mut self, term: Term<'a>) -> Result<&'a [ErlNifTerm], Refused> {
        if term.is_number() {
            self.number(term)?;
        } else if term.is_map() {
            self.map(term)?;
        } else if term.is_empty_list() {
            self.encoder.nil()?;
        } else if term.is_list() {
            self.below()?;
            self.encoder.list()?;
            self.frames.push(Frame::List(term.as_c_arg()));
        } else if let Ok(binary) = Binary::from_term(term) {
            self.encoder.binary(&binary)?;
        } else if term.is_atom() {
            self.encoder.atom(word::of(term.as_c_arg()))?;
        } else if term.is_ref() {
            self.reference(term)?;
        } else if let Ok(pid) = term.decode::<LocalPid>() {
            self.encoder.local_pid(word::of_pid(self.env, pid).0)?;
        } else if is_local_port(term) {
            self.encoder.local_port(word::of(term.as_c_arg()))?;
        } else if term.is_pid() || term.is_port() {
            self.encoder.remote(&term.to_binary())?;
        } else if let Some(elements) = elements(term) {
            // Where the layout does not know the pointer to this one.
            return self.tuple(elements);
        } else {
            return Err(Refused::Odd);
        }
        Ok(&[])
    }

    fn number(&mut self, term: Term<'_>) -> Written {
        if let Ok(value) = term.decode::<i64>() {
            self.encoder.integer(value)?;
        } else if let Ok(value) = term.decode::<u64>() {
            self.encoder.unsigned(value)?;
        } else if term.is_float() {
            let value = term.decode().map_err(|_| Refused::Odd)?;
            self.encoder.float(one_zero(value))?;
        } else {
            return Err(Refused::Odd);
        }
        Ok(())
    }

    fn map(&mut self, term: Term<'a>) -> Written {
        self.below()?;
        let left = MapIterator::new(term).ok_or(Refused::Odd)?;
        let size = term.map_size().map_err(|_| Refused::Odd)?;
        let pairs = self.encoder.map(size)?;
        self.frames.push(Frame::Map);
        self.maps.push(Map {
            left,
            pairs,
            begun: false,
            value: None,
            anys: 0,
        });
        Ok(())
    }

    /// A reference of this node is its numbers: its external format holds the node's name as well,
    /// and that changes when distribution starts.
    fn reference(&mut self, term: Term<'a>) -> Written {
        let external = term.to_binary();
        let env = self.env;
        let own = self.own.get_or_insert_with(|| Origin::own(env));
        match own.numbers(&external) {
            Some(numbers) => self.encoder.local_reference(numbers)?,
            None => self.encoder.remote(&external)?,
        }
        Ok(())
    }
}

/// The term of a word that is part of a term of this env.
#[inline]
fn part(env: Env<'_>, word: ErlNifTerm) -> Term<'_> {
    // SAFETY: its callers are the functions of `Writer`, which have the word from a tuple or a list
    // that they were given with this env.
    unsafe { Term::new(env, word) }
}

/// What the references of one node have in common in external format.
struct Origin {
    reference: OwnedBinary,
}

impl Origin {
    /// That of this node, by a reference that is made for it.
    fn own(env: Env<'_>) -> Self {
        Self {
            reference: env.make_ref().encode(env).to_binary(),
        }
    }

    /// Where the numbers of a reference begin: behind version, tag, count of numbers (2), and then
    /// node and creation. Each number has 4 bytes.
    fn split(reference: &[u8]) -> Option<(&[u8], &[u8])> {
        let numbers = 4 * usize::from(u16::from_be_bytes([*reference.get(2)?, *reference.get(3)?]));
        let (front, numbers) = reference.split_at_checked(reference.len().checked_sub(numbers)?)?;
        Some((front.get(4..)?, numbers))
    }

    /// The numbers of a reference that has this origin.
    fn numbers<'r>(&self, reference: &'r [u8]) -> Option<&'r [u8]> {
        let (origin, numbers) = Self::split(reference)?;
        (origin == Self::split(&self.reference)?.0).then_some(numbers)
    }

    /// The reference of this origin with these numbers.
    fn reference<'a>(&self, env: Env<'a>, numbers: &[u8]) -> Option<Term<'a>> {
        let count = u16::try_from(numbers.len() / 4).ok()?.to_be_bytes();
        let (origin, _) = Self::split(&self.reference)?;
        external(env, &[&self.reference[1..2], &count, origin, numbers])
    }
}

pub(crate) fn is_local_port(term: Term<'_>) -> bool {
    let mut port = MaybeUninit::uninit();
    // SAFETY: a term of this env, and room for an answer that nobody reads.
    unsafe {
        rustler::sys::enif_get_local_port(
            term.get_env().as_c_arg(),
            term.as_c_arg(),
            port.as_mut_ptr(),
        ) != 0
    }
}

/// The elements of a tuple, as words.
#[inline]
pub(crate) fn elements(term: Term<'_>) -> Option<&[ErlNifTerm]> {
    let mut arity = 0;
    let mut elements = MaybeUninit::uninit();
    // SAFETY: a term of this env, and room for both answers. On success they are the arity and a
    // pointer to that many words on the heap of the caller, which does not move before the NIF
    // returns; `'a` of the term ends with the NIF.
    unsafe {
        let env = term.get_env().as_c_arg();
        let is_tuple = rustler::sys::enif_get_tuple(
            env,
            term.as_c_arg(),
            &raw mut arity,
            elements.as_mut_ptr(),
        );
        (is_tuple != 0).then(|| {
            if arity == 0 {
                // The VM promises no pointer here.
                return &[][..];
            }
            std::slice::from_raw_parts(elements.assume_init(), usize::try_from(arity).unwrap_or(0))
        })
    }
}

static ZEROS_DIFFER: OnceCell<bool> = OnceCell::new();

/// Asks the VM whether `0.0 === -0.0`: so it is before OTP 27, and not from then on.
pub(crate) fn check(env: Env<'_>) {
    let _ = ZEROS_DIFFER.set(0.0_f64.encode(env) != (-0.0_f64).encode(env));
}

fn one_zero(value: f64) -> f64 {
    if value == 0.0 && ZEROS_DIFFER.get() != Some(&true) {
        0.0
    } else {
        value
    }
}

/// A term that is being read, by what it will be made of.
struct Opened {
    kind: Kind,
    /// Its parts are the terms from here on.
    parts: usize,
    /// How many are still to come; of a list never none, it has an end of its own.
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tuple,
    List,
    /// A list whose last tail comes.
    Improper,
    Map,
    Fun,
    Export,
}

/// The term that a name is. `None` for bytes that [`write()`] did not write, or when the VM has no
/// memory left. `pid`: any process of this node.
///
/// Does not go down the stack with the name: a dirty scheduler has little.
pub(crate) fn read<'a>(env: Env<'a>, name: &[u8], pid: Pid) -> Option<Term<'a>> {
    let mut reader = Reader::new(name);
    let mut own = None;
    let mut terms: Vec<Term<'a>> = Vec::new();
    let mut opened: Vec<Opened> = Vec::new();
    loop {
        let begun = match reader.next()? {
            Part::Tuple(arity) => Some((Kind::Tuple, arity)),
            Part::Map(pairs) => Some((Kind::Map, pairs.checked_mul(2)?)),
            Part::Fun => Some((Kind::Fun, 1)),
            Part::Export => Some((Kind::Export, 1)),
            Part::List => Some((Kind::List, usize::MAX)),
            end @ (Part::End | Part::Tail) => {
                let list = opened.last_mut().filter(|last| last.kind == Kind::List)?;
                (list.kind, list.left) = match end {
                    Part::End => (Kind::List, 0),
                    _ => (Kind::Improper, 1),
                };
                None
            }
            leaf => {
                terms.push(read_leaf(env, leaf, &mut own)?);
                one_less(&mut opened);
                None
            }
        };
        if let Some((kind, left)) = begun {
            opened.push(Opened {
                kind,
                parts: terms.len(),
                left,
            });
        }
        while let Some(complete) = opened.pop_if(|last| last.left == 0) {
            let term = made(env, complete.kind, &terms[complete.parts..], pid)?;
            terms.truncate(complete.parts);
            terms.push(term);
            one_less(&mut opened);
        }
        if opened.is_empty() {
            return terms.pop().filter(|_| reader.rest().is_empty());
        }
    }
}

fn one_less(opened: &mut [Opened]) {
    if let Some(outer) = opened.last_mut() {
        outer.left -= 1;
    }
}

/// The term of this kind that has these parts.
fn made<'a>(env: Env<'a>, kind: Kind, parts: &[Term<'a>], pid: Pid) -> Option<Term<'a>> {
    let list = |elements: &[Term<'a>], tail| {
        let elements = elements.iter().copied();
        elements.rfold(tail, Term::list_prepend)
    };
    Some(match kind {
        Kind::Tuple => rustler::types::tuple::make_tuple(env, parts),
        Kind::List => list(parts, Term::list_new_empty(env)),
        Kind::Improper => {
            let (tail, elements) = parts.split_last()?;
            list(elements, *tail)
        }
        Kind::Map => {
            let (pairs, _) = parts.as_chunks::<2>();
            let (keys, values): (Vec<_>, Vec<_>) =
                pairs.iter().map(|&[key, value]| (key, value)).unzip();
            Term::map_from_term_arrays(env, &keys, &values).ok()?
        }
        Kind::Fun => read_fun(env, *parts.first()?, pid)?,
        Kind::Export => {
            let identity: Vec<Term<'_>> = parts.first()?.decode().ok()?;
            let [module, name, arity] = identity[..] else {
                return None;
            };
            external(env, &[&[EXPORT], &body(module), &body(name), &body(arity)])?
        }
    })
}

/// A term without parts. `own`: what the references of this node have in common, once one was read.
fn read_leaf<'a>(env: Env<'a>, part: Part<'_>, own: &mut Option<Origin>) -> Option<Term<'a>> {
    Some(match part {
        Part::Word(word) => word::to_term(env, u64::from(word)),
        Part::Atom(word) | Part::LocalPid(word) | Part::LocalPort(word) => word::to_term(env, word),
        Part::Integer(value) => value.encode(env),
        Part::Unsigned(value) => value.encode(env),
        Part::Float(value) => value.encode(env),
        Part::Binary(bytes) => binary(env, bytes),
        Part::Uuid(text) => binary(env, &text),
        Part::Nil => Term::list_new_empty(env),
        Part::Big(negative, magnitude) => {
            let size = u32::try_from(magnitude.len()).ok()?.to_be_bytes();
            external(
                env,
                &[&[LARGE_BIG], &size, &[u8::from(negative)], magnitude],
            )?
        }
        Part::Bits(padded, last) => {
            let size = u32::try_from(padded.len()).ok()?.to_be_bytes();
            external(env, &[&[BITS], &size, &[last], padded])?
        }
        Part::LocalReference(numbers) => own
            .get_or_insert_with(|| Origin::own(env))
            .reference(env, numbers)?,
        Part::Remote(bytes) => env.binary_to_term(bytes)?.0,
        _ => return None,
    })
}

/// Tags of the external term format, from "External Term Format" of OTP's documentation.
const VERSION: u8 = 131;
const BITS: u8 = 77;
const LARGE_BIG: u8 = 111;
const NEW_FUN: u8 = 112;
const EXPORT: u8 = 113;

/// The function with this identity: module, arity, index and unique value, both also in their old
/// form, and the environment's terms. Functions are equal whoever made them, so any pid will do.
fn read_fun<'a>(env: Env<'a>, identity: Term<'a>, pid: Pid) -> Option<Term<'a>> {
    let identity: Vec<Term<'_>> = identity.decode().ok()?;
    let [
        module,
        arity,
        index,
        unique,
        old_index,
        old_unique,
        ref environment @ ..,
    ] = identity[..]
    else {
        return None;
    };
    let free: Vec<_> = environment.iter().copied().flat_map(body).collect();
    let rest = [
        &[arity.decode::<u8>().ok()?],
        Binary::from_term(unique).ok()?.as_slice(),
        index_bytes(index.decode().ok()?)?.as_slice(),
        &u32::try_from(environment.len()).ok()?.to_be_bytes(),
        &body(module),
        &body(old_index),
        &body(old_unique),
        &body(word::to_term(env, pid.0)),
        &free,
    ]
    .concat();
    // The size counts itself.
    let size = u32::try_from(4 + rest.len()).ok()?.to_be_bytes();
    external(env, &[&[NEW_FUN], &size, &rest])
}

/// The index of a function: 32 bits, which the VM may read as a number with a sign.
fn index_bytes(index: i64) -> Option<[u8; 4]> {
    let unsigned = u32::try_from(index).ok();
    let bits = unsigned.or_else(|| i32::try_from(index).ok().map(i32::cast_unsigned));
    bits.map(u32::to_be_bytes)
}

/// The external format of a term, without the version in front.
fn body(term: Term<'_>) -> Vec<u8> {
    term.to_binary()[1..].to_vec()
}

fn external<'a>(env: Env<'a>, parts: &[&[u8]]) -> Option<Term<'a>> {
    let bytes = [&[VERSION], parts.concat().as_slice()].concat();
    env.binary_to_term(&bytes).map(|(term, _)| term)
}

/// A new binary of these bytes.
pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.copy_from_slice(bytes);
    binary.into()
}
