//! Reads a name.

use super::tag;
use super::uuid;

/// One step of reading a name: a whole term, or the head of one whose parts follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// What [`super::Encoder::word`] wrote.
    Word(u32),
    /// The word of an atom.
    Atom(u64),
    /// The word of a pid of this node.
    LocalPid(u64),
    /// The word of a port of this node.
    LocalPort(u64),
    /// An integer.
    Integer(i64),
    /// An integer above `i64::MAX`.
    Unsigned(u64),
    /// Whether a larger one is negative, and its magnitude.
    Big(bool, &'a [u8]),
    /// A float.
    Float(f64),
    /// A binary.
    Binary(&'a [u8]),
    /// A binary that is the text of a UUID.
    Uuid([u8; 36]),
    /// A bitstring padded to a binary, and how many bits of its last byte count.
    Bits(&'a [u8], u8),
    /// That many elements follow.
    Tuple(usize),
    /// The empty list.
    Nil,
    /// Elements follow, then [`Part::End`] or [`Part::Tail`].
    List,
    /// The list was proper.
    End,
    /// A last tail follows.
    Tail,
    /// That many pairs follow, key and value.
    Map(usize),
    /// A list follows: the identity of a function.
    Fun,
    /// A list follows: module, name and arity.
    Export,
    /// The numbers of a reference of this node.
    LocalReference(&'a [u8]),
    /// The external format of a pid, port or reference of another node.
    Remote(&'a [u8]),
    /// In a pattern: any term.
    Any,
}

/// Reads a name part by part. If the bytes are no name, this ends early.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of a name.
    pub fn new(name: &'a [u8]) -> Self {
        Self { rest: name }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Passes over a whole term; `None` when there is none.
    pub fn pass(&mut self) -> Option<()> {
        self.pass_over(Rest::Terms(1))
    }

    /// Passes over what is left of a list and its end; `None` when there is none.
    pub(crate) fn pass_rest(&mut self) -> Option<()> {
        self.pass_over(Rest::List)
    }

    /// Passes over what is left of a term. The terms around it stand in a list on the heap, which most
    /// names do not need, because only lists have an end of their own.
    fn pass_over(&mut self, mut rest: Rest) -> Option<()> {
        let mut around = Vec::new();
        loop {
            if rest == Rest::Terms(0) {
                match around.pop() {
                    Some(outer) => rest = outer,
                    None => return Some(()),
                }
                continue;
            }
            let parts = match self.next()? {
                Part::End if rest == Rest::List => {
                    rest = Rest::Terms(0);
                    continue;
                }
                Part::Tail if rest == Rest::List => {
                    rest = Rest::Terms(1);
                    continue;
                }
                Part::End | Part::Tail => return None,
                Part::Tuple(arity) => Rest::Terms(arity),
                Part::Map(pairs) => Rest::Terms(pairs.checked_mul(2)?),
                Part::Fun | Part::Export => Rest::Terms(1),
                Part::List => Rest::List,
                _ => Rest::Terms(0),
            };
            match (&mut rest, parts) {
                (Rest::Terms(left), Rest::Terms(more)) => *left = (*left - 1).checked_add(more)?,
                (Rest::List, Rest::Terms(0)) => {}
                (outer, parts) => {
                    if let Rest::Terms(left) = outer {
                        *left -= 1;
                    }
                    around.push(std::mem::replace(outer, parts));
                }
            }
        }
    }

    /// Whether there is a part left that makes a name bound, see [`super::Encoder::bound`].
    pub fn bound(&self) -> bool {
        let bound = |part| matches!(part, Part::LocalReference(_) | Part::Remote(_));
        self.clone().any(bound)
    }

    /// The bytes of the next part.
    pub(crate) fn step(&mut self) -> Option<&'a [u8]> {
        let before = self.rest;
        self.next()?;
        Some(&before[..before.len() - self.rest.len()])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn slice(&mut self, size: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(slice)
    }

    fn count(&mut self) -> Option<usize> {
        self.array().map(|count| u32::from_le_bytes(count) as usize)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The binary that is the body of another part.
    fn body(&mut self) -> Option<&'a [u8]> {
        let [first] = self.array()?;
        let size = match first {
            tag::LONG_BINARY => self.count()?,
            _ if first & tag::MASK == tag::BINARY => usize::from(first >> 2),
            _ => return None,
        };
        self.slice(size)
    }
}

/// What is left of a term that is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// That many terms.
    Terms(usize),
    /// The elements of a list, and its end.
    List,
}

impl<'a> Iterator for Reader<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let [first] = *self.rest.first_chunk()?;
        if first & tag::MASK == tag::WORD {
            return self
                .array()
                .map(|word| Part::Word(u32::from_le_bytes(word)));
        }
        self.rest = &self.rest[1..];
        let small = usize::from(first >> 2);
        match first & tag::MASK {
            tag::TUPLE => return Some(Part::Tuple(small)),
            tag::BINARY => return self.slice(small).map(Part::Binary),
            _ => {}
        }
        Some(match first {
            tag::INTEGER => Part::Integer(self.number()?.cast_signed()),
            tag::UNSIGNED => Part::Unsigned(self.number()?),
            tag::ATOM => Part::Atom(self.number()?),
            tag::LOCAL_PID => Part::LocalPid(self.number()?),
            tag::LOCAL_PORT => Part::LocalPort(self.number()?),
            tag::LONG_TUPLE => Part::Tuple(self.count()?),
            tag::LONG_BINARY => {
                let size = self.count()?;
                Part::Binary(self.slice(size)?)
            }
            tag::UUID => Part::Uuid(uuid::text(self.array()?)),
            tag::FLOAT => Part::Float(f64::from_bits(self.number()?)),
            tag::NIL => Part::Nil,
            tag::LIST => Part::List,
            tag::END => Part::End,
            tag::TAIL => Part::Tail,
            tag::MAP => Part::Map(self.count()?),
            tag::BIG => Part::Big(false, self.body()?),
            tag::NEGATIVE_BIG => Part::Big(true, self.body()?),
            tag::BITS => {
                let [last] = self.array()?;
                Part::Bits(self.body()?, last)
            }
            tag::FUN => Part::Fun,
            tag::EXPORT => Part::Export,
            tag::LOCAL_REFERENCE => Part::LocalReference(self.body()?),
            tag::REMOTE => Part::Remote(self.body()?),
            tag::ANY => Part::Any,
            _ => return None,
        })
    }
}
