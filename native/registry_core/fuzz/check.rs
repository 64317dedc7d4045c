//! What has to hold of any bytes that are read as a name.

use registry_core::name::{
    Buffer, Encoder, MAX_BYTES, MAX_DEPTH, NameError, Part, Reader, matches,
};

/// A term as it was read.
enum Term<'a> {
    Plain(Part<'a>),
    Tuple(Vec<Term<'a>>),
    List(Vec<Term<'a>>, Option<Box<Term<'a>>>),
    Map(Vec<(Term<'a>, Term<'a>)>),
    /// A function, and what tells it from others.
    Fun(Part<'a>, Box<Term<'a>>),
}

/// Panics if the bytes do something to the reader that no bytes may do.
pub(crate) fn check(data: &[u8]) {
    let Some((&at, data)) = data.split_first() else {
        return;
    };
    let data = &data[..data.len().min(MAX_BYTES)];

    let mut reader = Reader::new(data);
    let mut left = data.len();
    while reader.next().is_some() {
        assert!(reader.rest().len() < left, "reading comes to an end");
        left = reader.rest().len();
    }

    let (pattern, name) = data.split_at(data.len() * usize::from(at) / 256);
    let _ = matches(pattern, name);
    let _ = matches(name, pattern);

    let Some(term) = read(&mut Reader::new(data), MAX_DEPTH) else {
        return;
    };
    let Ok(name) = name_of(&term) else {
        return;
    };
    let again = read(&mut Reader::new(&name), MAX_DEPTH).expect("what was written can be read");
    assert_eq!(name_of(&again).as_ref(), Ok(&name), "and is the same");
    let mut reader = Reader::new(&name);
    assert_eq!(reader.pass(), Some(()));
    assert!(reader.rest().is_empty(), "a name is one term");
    assert!(matches(&name, &name));
    let any = written(|encoder| {
        encoder.any()?;
        Ok(())
    });
    assert!(matches(&any.unwrap(), &name));
}

fn read<'a>(reader: &mut Reader<'a>, depth: usize) -> Option<Term<'a>> {
    let part = reader.next()?;
    read_part(part, reader, depth)
}

fn read_part<'a>(part: Part<'a>, reader: &mut Reader<'a>, depth: usize) -> Option<Term<'a>> {
    let below = depth.checked_sub(1);
    Some(match part {
        Part::Tuple(arity) => Term::Tuple(
            (0..arity)
                .map(|_| read(reader, below?))
                .collect::<Option<_>>()?,
        ),
        Part::Map(pairs) => {
            let pair = |_| Some((read(reader, below?)?, read(reader, below?)?));
            let pairs = (0..pairs).map(pair).collect::<Option<Vec<_>>>()?;
            let mut keys: Vec<_> = pairs
                .iter()
                .map(|(key, _)| name_of(key))
                .collect::<Result<_, _>>()
                .ok()?;
            keys.sort();
            // A map has each key once.
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return None;
            }
            Term::Map(pairs)
        }
        Part::List => {
            let mut elements = Vec::new();
            loop {
                match reader.next()? {
                    Part::End => break Term::List(elements, None),
                    Part::Tail => {
                        break Term::List(elements, Some(Box::new(read(reader, below?)?)));
                    }
                    part => elements.push(read_part(part, reader, below?)?),
                }
            }
        }
        Part::Fun | Part::Export => Term::Fun(part, Box::new(read(reader, below?)?)),
        Part::End | Part::Tail => return None,
        plain => Term::Plain(plain),
    })
}

fn written(
    write: impl FnOnce(&mut Encoder<'_>) -> Result<(), NameError>,
) -> Result<Vec<u8>, NameError> {
    let mut buffer = Buffer::new();
    let mut encoder = Encoder::new(&mut buffer);
    write(&mut encoder)?;
    Ok(encoder.finish().to_vec())
}

fn name_of(term: &Term<'_>) -> Result<Vec<u8>, NameError> {
    written(|encoder| write(encoder, term))
}

fn write(encoder: &mut Encoder<'_>, term: &Term<'_>) -> Result<(), NameError> {
    match term {
        Term::Plain(part) => write_plain(encoder, part),
        Term::Tuple(elements) => {
            encoder.tuple(elements.len())?;
            elements
                .iter()
                .try_for_each(|element| write(encoder, element))
        }
        Term::List(elements, tail) => {
            encoder.list()?;
            elements
                .iter()
                .try_for_each(|element| write(encoder, element))?;
            match tail {
                None => encoder.list_end(),
                Some(tail) => {
                    encoder.list_tail()?;
                    write(encoder, tail)
                }
            }
        }
        // The other way round, so that they have to be put in order.
        Term::Map(pairs) => {
            let mut spans = encoder.map(pairs.len())?;
            for (key, value) in pairs.iter().rev() {
                write(encoder, key)?;
                spans.value(encoder);
                write(encoder, value)?;
                spans.next(encoder);
            }
            encoder.map_end(spans)
        }
        Term::Fun(part, identity) => {
            match part {
                Part::Fun => encoder.fun()?,
                _ => encoder.export()?,
            }
            write(encoder, identity)
        }
    }
}

fn write_plain(encoder: &mut Encoder<'_>, part: &Part<'_>) -> Result<(), NameError> {
    match *part {
        Part::Word(word) => encoder.word(word),
        Part::Atom(word) => encoder.atom(word),
        Part::LocalPid(word) => encoder.local_pid(word),
        Part::LocalPort(word) => encoder.local_port(word),
        Part::Integer(value) => encoder.integer(value),
        Part::Unsigned(value) => encoder.unsigned(value),
        Part::Big(negative, magnitude) => encoder.big(negative, magnitude),
        Part::Float(value) => encoder.float(value),
        Part::Binary(bytes) => encoder.binary(bytes),
        Part::Uuid(text) => encoder.binary(&text),
        Part::Bits(padded, last) => encoder.bits(padded, last),
        Part::Nil => encoder.nil(),
        Part::LocalReference(numbers) => encoder.local_reference(numbers),
        Part::Remote(external) => encoder.remote(external),
        Part::Any => encoder.any(),
        _ => unreachable!("not plain"),
    }
}
