//! NIFs that look at many names, or wait for some. Patterns are names in which any term may stand
//! in a place; they come as the binary that `pattern` has made of them, whose bytes mean something
//! in this VM only. Those that may take long run on dirty schedulers.

use crate::api;
use crate::argument::{pay, with_name, with_open};
use crate::kept::Kept;
use crate::layout;
use crate::word;
use crate::write;
use registry_core::Record;
use registry_core::journal::Recipient;
use registry_core::name::{Buffer, Encoder as NameEncoder, Reader as NameReader};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, NifResult, Term};

rustler::atoms! {
    ok, no_registry, no_thread, ended, names, processes, bytes, shards, shard_names, subscribers, waiting,
    backlog, events_lost, uptime
}

/// `(name)`: the pattern as a binary.
#[rustler::nif]
fn pattern<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    // Not the thread's own buffer: a pattern belongs to no registry, and is made once.
    let mut buffer = Buffer::new();
    let mut encoder = NameEncoder::new(&mut buffer);
    let written = write::pattern(&mut encoder, name);
    pay(env, encoder.work());
    match written {
        Ok(()) => api::binary(env, encoder.finish()),
        Err(refused) => refused.encode(env),
    }
}

/// Names that are collected before a piece of the table is handed over.
const AT_ONCE: usize = 10_000;

/// `(registry, pattern, from)`: `{[{name, pid, value}], next}` of the names from a place in the
/// table on, 0 at first; `next` is where to go on, or `nil` at the end.
#[rustler::nif(schedule = "DirtyCpu")]
fn piece<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>, from: usize) -> Term<'a> {
    with_open(env, registry, |open| {
        let mut records = Vec::new();
        let mut next = Some(from);
        while let Some(piece) = next.filter(|_| records.len() < AT_ONCE) {
            let (found, then) = open.registry.piece(piece, &pattern);
            records.extend(found);
            next = then;
        }
        let term = |record: &Record<Kept>| {
            let kept = record.value.as_ref();
            let name = Kept::name(kept, env, &record.name, record.pid)?;
            let value = Kept::encode(kept, env);
            Some((name, word::to_pid(env, record.pid), value).encode(env))
        };
        let terms: Vec<_> = records.iter().filter_map(term).collect();
        (terms, next).encode(env)
    })
}

/// `(registry, pattern)`: how many names match.
#[rustler::nif(schedule = "DirtyCpu")]
fn count_matching<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        let pieces = open.registry.pieces(&pattern);
        let names: usize = pieces.map(|records| records.len()).sum();
        names.encode(env)
    })
}

/// `(registry, pid)`: the names that the process holds.
#[rustler::nif(schedule = "DirtyCpu")]
fn keys<'a>(env: Env<'a>, registry: Term<'a>, pid: LocalPid) -> Term<'a> {
    with_open(env, registry, |open| {
        let pid = word::of_pid(env, pid);
        let names = open.registry.names_of(pid);
        let terms = names.iter().filter_map(|name| {
            // What is kept of a name is asked for only where it may be needed.
            let bound = NameReader::new(name).bound();
            let held = bound.then(|| open.registry.lookup(name)).flatten();
            Kept::name(held.and_then(|(_, kept)| kept).as_ref(), env, name, pid)
        });
        terms.collect::<Vec<_>>().encode(env)
    })
}

/// `(registry, listeners)`: the only ones to be told of every change.
#[rustler::nif]
fn listen<'a>(env: Env<'a>, registry: Term<'a>, listeners: Term<'a>) -> NifResult<Term<'a>> {
    let listeners = atoms(env, listeners)?;
    Ok(with_open(env, registry, |open| {
        if listeners.is_empty() {
            // No courier for nobody.
            open.registry.journal().listen(listeners);
            return ok().encode(env);
        }
        let Ok(journal) = open.journal() else {
            return no_thread().encode(env);
        };
        journal.listen(listeners);
        ok().encode(env)
    }))
}

/// The words of a list of atoms. Not by rustler's own way, which panics at an improper list.
fn atoms(env: Env<'_>, list: Term<'_>) -> NifResult<Vec<u64>> {
    let mut atoms = Vec::new();
    let mut rest = list;
    while !rest.is_empty_list() {
        let (head, tail) = rest.list_get_cell()?;
        atoms.push(word::of_atom(env, head.decode::<Atom>()?));
        rest = tail;
    }
    Ok(atoms)
}

/// `(registry, pattern, pid)`: the process is told of changes of names that match.
#[rustler::nif]
fn subscribe<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>, pid: LocalPid) -> Term<'a> {
    with_open(env, registry, |open| {
        let Ok(journal) = open.journal() else {
            return no_thread().encode(env);
        };
        let process = word::of_pid(env, pid);
        journal.subscribe(process, &pattern);
        // Watched afterwards: its end then finds the subscription.
        if open.registry.attend(process, || open.watch(env, pid)) {
            ok().encode(env)
        } else if journal.is_closed() {
            no_registry().encode(env)
        } else {
            ended().encode(env)
        }
    })
}

/// `(registry, pattern, pid)`: the process is no longer told of them; whether it was.
#[rustler::nif]
fn unsubscribe<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    pattern: Binary<'a>,
    pid: LocalPid,
) -> Term<'a> {
    with_open(env, registry, |open| {
        let process = word::of_pid(env, pid);
        open.registry
            .journal()
            .unsubscribe(process, &pattern)
            .encode(env)
    })
}

/// `(registry, name)`: pids and atoms of those who are told of the name.
#[rustler::nif(schedule = "DirtyCpu")]
fn audience<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        recipients(env, &open.registry.journal().audience(Some(name)))
    })
}

/// `(registry)`: pids and atoms of those who are told of any name.
#[rustler::nif(schedule = "DirtyCpu")]
fn everybody<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        recipients(env, &open.registry.journal().audience(None))
    })
}

fn recipients<'a>(env: Env<'a>, recipients: &[Recipient]) -> Term<'a> {
    let term = |recipient: &Recipient| match *recipient {
        Recipient::Listener(name) => word::to_term(env, name),
        Recipient::Subscriber(pid) => word::to_pid(env, pid),
    };
    recipients.iter().map(term).collect::<Vec<_>>().encode(env)
}

/// `(registry, name, pid)`: the number by which the process will be told when the name is
/// registered, or that the registry is closed, unless it has ended. The name has to be looked up
/// afterwards: it may have been registered before.
#[rustler::nif]
fn wait<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>, pid: LocalPid) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        if open.journal().is_err() {
            return no_thread().encode(env);
        }
        let process = word::of_pid(env, pid);
        let number = open.registry.wait(process, name);
        // One that cannot be watched has ended, or is told: a registry is closed before it is taken
        // apart.
        open.registry.attend(process, || open.watch(env, pid));
        number.encode(env)
    })
}

/// `(registry, pid, number)`: the process does not wait by this number any more; `false` when it
/// has been told, or is about to be.
#[rustler::nif]
fn stop_waiting<'a>(env: Env<'a>, registry: Term<'a>, pid: LocalPid, number: u64) -> Term<'a> {
    with_open(env, registry, |open| {
        let process = word::of_pid(env, pid);
        open.registry
            .journal()
            .forget_waiter(process, number)
            .encode(env)
    })
}

/// `(registry)`: how many names and how many processes it has.
#[rustler::nif]
fn sizes<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        (open.registry.len(), open.registry.holders()).encode(env)
    })
}

/// `(registry)`: a map of what there is to know of it.
#[rustler::nif]
fn info<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        let fill = open.registry.fill();
        let (subscribed, waiters) = open.registry.journal().interested();
        let (untold, lost) = open.registry.journal().backlog();
        let uptime_ms = u64::try_from(open.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pairs = [
            (names(), open.registry.len().encode(env)),
            (processes(), open.registry.holders().encode(env)),
            (bytes(), fill.bytes.encode(env)),
            (shards(), fill.shards.encode(env)),
            (shard_names(), (fill.fewest, fill.most).encode(env)),
            (subscribers(), subscribed.encode(env)),
            (waiting(), waiters.encode(env)),
            (backlog(), untold.encode(env)),
            (events_lost(), lost.encode(env)),
            (uptime(), uptime_ms.encode(env)),
        ];
        Term::map_from_pairs(env, &pairs).unwrap_or_else(|_| Term::map_new(env))
    })
}

/// `()`: whether words of terms are read directly, see `layout`.
#[rustler::nif]
fn reads_words() -> bool {
    layout::trusted().is_some()
}
