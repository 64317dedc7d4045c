//! From a term to the canonical bytes of a name.

use crate::api::{elements, is_local_port};
use crate::layout::{self, Layout, Shape};
use crate::origin::Origin;
use crate::refusal::Refused;
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::name::{Encoder, MAX_DEPTH, NameError, Pairs};
use rustler::sys::ErlNifTerm;
use rustler::{Binary, Encoder as _, Env, LocalPid, MapIterator, Resource, ResourceArc, Term};
use smallvec::SmallVec;

type Written = Result<(), Refused>;

/// Writes the term as a name.
#[inline]
pub(crate) fn name(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    Writer::new(encoder, term.get_env()).write::<false>(term)
}

/// Writes the term as a pattern, in which `:_` stands for any term.
pub(crate) fn pattern(encoder: &mut Encoder<'_>, term: Term<'_>) -> Written {
    Writer::new(encoder, term.get_env()).write::<true>(term)
}

rustler::atoms! { any = "_" }

/// The parts of a term that have not been written yet.
enum Frame<'a> {
    /// The rest of a tuple's elements.
    Elements(&'a [ErlNifTerm]),
    /// The rest of a list.
    List(ErlNifTerm),
    /// Nothing: the last tail of an improper list is being written. It counts as a level.
    Tail,
    /// The rest of the last map in `Writer::maps`.
    Map,
}

/// The pairs of a map that have not been written yet.
struct Map<'a> {
    left: MapIterator<'a>,
    pairs: Pairs,
    /// The value that belongs to the key which is being written.
    value: Option<ErlNifTerm>,
    /// Whether a value is being written.
    in_value: bool,
    /// How many `:_` there were before the key.
    anys: usize,
}

impl Map<'_> {
    /// Writes pairs up to a key or value that is not a leaf, which is answered.
    fn next<const PATTERN: bool>(
        &mut self,
        encoder: &mut Encoder<'_>,
        env: Env<'_>,
        layout: Option<Layout>,
    ) -> Result<Option<ErlNifTerm>, Refused> {
        loop {
            if let Some(value) = self.value.take() {
                // The key has been written.
                if PATTERN && encoder.anys() > self.anys {
                    return Err(Refused::Pattern);
                }
                self.pairs.value(encoder);
                self.in_value = true;
                if !leaf::<PATTERN>(encoder, env, layout, value)? {
                    return Ok(Some(value));
                }
            }
            if self.in_value {
                // The value has been written.
                self.pairs.next(encoder);
                self.in_value = false;
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

/// Writes a term if it has no parts and the layout tells what it is, without a call of the VM; that
/// is so for most parts of names. Answers whether it did.
///
/// The functions here pass terms on as words. A `Term` is three words, one of them not full, and
/// the processor stalls when such a value is put together in memory and copied at once.
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

/// How many levels of a term, and how many maps within maps, need no allocation. Together they take
/// a kilobyte of the stack.
const SHALLOW: usize = 32;
const SHALLOW_MAPS: usize = 2;

/// Writes a term. No function of it calls itself, because the stack of a scheduler may be small.
struct Writer<'e, 'b, 'a> {
    encoder: &'e mut Encoder<'b>,
    env: Env<'a>,
    layout: Option<Layout>,
    /// The terms around the one that is being written, the outermost first.
    frames: SmallVec<[Frame<'a>; SHALLOW]>,
    /// The maps among `frames`, apart because they are much larger than the others.
    maps: SmallVec<[Map<'a>; SHALLOW_MAPS]>,
    /// The origin of this node, once the term has had a reference.
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
            // A tuple gets a frame only when it has a part that is not a leaf: most have none.
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

    /// Begins a term that [`leaf`] did not write. Answers the elements if it is a tuple; for a list
    /// or a map there is a frame afterwards; any other term has been written.
    #[inline]
    fn begin(&mut self, word: ErlNifTerm) -> Result<&'a [ErlNifTerm], Refused> {
        let term = part(self.env, word);
        if let Some(layout) = self.layout {
            return match layout.shape(&term) {
                Shape::Tuple(elements) => self.tuple(elements),
                _ => self.other(term),
            };
        }
        // Small kinds of terms first, because a name may have more of those.
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

    /// Writes elements up to one that is not a leaf, which is answered; `elements` then has those
    /// behind it.
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

    /// As [`Self::elements`], for a list; there is a frame for the rest afterwards.
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

    /// As [`Self::elements`], for the last map.
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

    /// Refuses a term with parts that lies too deep.
    #[inline]
    fn below(&self) -> Result<(), NameError> {
        if self.frames.len() < MAX_DEPTH {
            Ok(())
        } else {
            Err(NameError::TooDeep)
        }
    }

    /// Begins a tuple; answers the elements that are to be written.
    #[inline]
    fn tuple(&mut self, elements: &'a [ErlNifTerm]) -> Result<&'a [ErlNifTerm], Refused> {
        self.below()?;
        // A mark is a reference, and no reference is its own word.
        if let Some(&first) = elements.first()
            && !is_word(self.layout, first)
            && Mark::is(part(self.env, first))
        {
            return self.opened(&elements[1..]);
        }
        self.encoder.tuple(elements.len())?;
        Ok(elements)
    }

    /// Writes an opened part, see [`Mark`]; answers its body where that is a term to be written.
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
            Mark::INTEGER => {
                let negative = number()? == 1;
                self.encoder.big(negative, &bytes()?)?;
            }
            Mark::BITS => {
                let last = number()?;
                self.encoder.bits(&bytes()?, last)?;
            }
            Mark::FUN => {
                self.encoder.fun()?;
                return Ok(&parts[1..2]);
            }
            Mark::EXPORT => {
                self.encoder.export()?;
                return Ok(&parts[1..2]);
            }
            _ => return Err(Refused::Odd),
        }
        Ok(&[])
    }

    /// As [`Self::begin`], without the layout. This asks for one kind of term after the other, because
    /// the API's call that answers the kind of a term ends the VM at a kind that it does not know.
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
            // The layout does not read every kind of pointer.
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
            value: None,
            in_value: false,
            anys: 0,
        });
        Ok(())
    }

    /// A reference of this node is written as its numbers, see [`Origin`].
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
    // SAFETY: the callers are functions of `Writer`, which have the word from a tuple, a list or a
    // map of this env.
    unsafe { Term::new(env, word) }
}

static ZEROS_DIFFER: OnceCell<bool> = OnceCell::new();

/// Finds out whether `0.0 === -0.0` in this VM, as it is before OTP 27 and not from then on.
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

/// Marks a part of a name that the VM's API does not open, and that the Elixir side has opened: such
/// a part is the tuple `{mark, kind, body}` or `{mark, kind, body, number}`. The mark is a
/// resource. Users get no other resource of this type, so none of their tuples can be taken for an
/// opened part.
pub(crate) struct Mark;

#[rustler::resource_impl]
impl Resource for Mark {}

impl Mark {
    /// Body: the magnitude as a little-endian binary. Number: 1 when negative.
    const INTEGER: u8 = 0;
    /// Body: the bitstring, padded to a binary. Number: how many bits of its last byte count.
    const BITS: u8 = 1;
    /// Body: a list of what makes the function equal to another.
    const FUN: u8 = 2;
    /// Body: a list of module, name and arity.
    const EXPORT: u8 = 3;

    fn is(term: Term<'_>) -> bool {
        term.is_ref() && term.decode::<ResourceArc<Self>>().is_ok()
    }
}

/// A new mark.
#[rustler::nif]
fn odd(env: Env<'_>) -> Term<'_> {
    ResourceArc::new(Mark).encode(env)
}
