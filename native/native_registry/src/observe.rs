//! NIFs that look at many names, or have a process told of changes. Those that may take long run on
//! dirty schedulers.
//!
//! A pattern is a name in which `:_` stands for any term. It is given as the binary that `pattern`
//! makes of it, whose bytes mean something in this VM only.

use crate::api;
use crate::argument::{pay, with_name, with_open};
use crate::kept::Kept;
use crate::layout;
use crate::open::Open;
use crate::word;
use crate::write;
use registry_core::Record;
use registry_core::journal::Recipient;
use registry_core::name::tag;
use registry_core::name::{Buffer, Encoder as NameEncoder, Reader as NameReader};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, NifResult, Term};

rustler::atoms! {
    ok, no_registry, no_thread, ended, names, processes, bytes, shards, shard_names, subscribers, waiting,
    backlog, events_lost, uptime
}

/// `(name)`: the pattern as a binary.
#[rustler::nif]
fn pattern<'a>(env: Env<'a>, name: Term<'a>) -> Term<'a> {
    // Not with the thread's buffer, which `directory::with` gives together with a registry.
    let mut buffer = Buffer::new();
    let mut encoder = NameEncoder::new(&mut buffer);
    let written = write::pattern(&mut encoder, name);
    pay(env, encoder.work());
    match written {
        Ok(()) => api::binary(env, encoder.finish()),
        Err(refused) => refused.encode(env),
    }
}

/// After how many names no further piece of the table is added to an answer.
const AT_ONCE: usize = 10_000;

/// `(registry, pattern, from)`: `{[{name, pid, value}], next}` for the names that match, from a piece
/// of the table on, which is 0 at first; `next` is the piece to go on with, or `nil` at the end.
#[rustler::nif(schedule = "DirtyCpu")]
fn piece<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>, from: usize) -> Term<'a> {
    with_open(env, registry, |open| {
        let (records, next) = pieces(open, &pattern, from);
        let term = |record: &Record<Kept>| {
            let kept = record.value.as_ref();
            let name = Kept::name(kept, env, &record.name, record.pid)?;
            let value = Kept::encode(kept, env);
            Some((name, word::to_pid(env, record.pid), value).encode(env))
        };
        // Last, as in `deadline::ahead`; the same below.
        if !open.lends() {
            return (Vec::<Term<'a>>::new(), None::<usize>).encode(env);
        }
        let terms: Vec<_> = records.iter().filter_map(term).collect();
        (terms, next).encode(env)
    })
}

/// `(registry, from)`: `{[{name, pid}], next}` for all names, as `piece`, whether or not the lease is
/// valid.
#[rustler::nif(schedule = "DirtyCpu")]
fn held_piece<'a>(env: Env<'a>, registry: Term<'a>, from: usize) -> Term<'a> {
    with_open(env, registry, |open| {
        let (records, next) = pieces(open, &[tag::ANY], from);
        let term = |record: &Record<Kept>| {
            let kept = record.value.as_ref();
            let name = Kept::name(kept, env, &record.name, record.pid)?;
            Some((name, word::to_pid(env, record.pid)).encode(env))
        };
        let terms: Vec<_> = records.iter().filter_map(term).collect();
        (terms, next).encode(env)
    })
}

/// The names that match, from a piece of the table on, and the piece to go on with.
fn pieces(open: &Open, pattern: &[u8], from: usize) -> (Vec<Record<Kept>>, Option<usize>) {
    let mut records = Vec::new();
    let mut next = Some(from);
    while let Some(piece) = next.filter(|_| records.len() < AT_ONCE) {
        let (found, then) = open.registry.piece(piece, pattern);
        records.extend(found);
        next = then;
    }
    (records, next)
}

/// `(registry, pattern)`: how many names match.
#[rustler::nif(schedule = "DirtyCpu")]
fn count_matching<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        let pieces = open.registry.pieces(&pattern);
        let names: usize = pieces.map(|records| records.len()).sum();
        if open.lends() { names } else { 0 }.encode(env)
    })
}

/// `(registry, pid)`: the names that the process holds.
#[rustler::nif(schedule = "DirtyCpu")]
fn keys<'a>(env: Env<'a>, registry: Term<'a>, pid: LocalPid) -> Term<'a> {
    with_open(env, registry, |open| {
        let pid = word::of_pid(env, pid);
        let names = open.registry.names_of(pid);
        let terms = names.iter().filter_map(|name| {
            // What is kept with a name is looked up only if it may be needed.
            let bound = NameReader::new(name).bound();
            let held = bound.then(|| open.registry.lookup(name)).flatten();
            Kept::name(held.and_then(|(_, kept)| kept).as_ref(), env, name, pid)
        });
        let terms: Vec<_> = terms.collect();
        if open.lends() { terms } else { Vec::new() }.encode(env)
    })
}

/// `(registry, listeners)`: from now on these, and no others, are told of every change as listeners.
#[rustler::nif]
fn listen<'a>(env: Env<'a>, registry: Term<'a>, listeners: Term<'a>) -> NifResult<Term<'a>> {
    let listeners = atoms(env, listeners)?;
    Ok(with_open(env, registry, |open| {
        if listeners.is_empty() {
            // Without starting the courier.
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

/// `(registry, atoms)`: these are told of all names that become free, and of nothing else.
#[rustler::nif]
fn listen_to_releases<'a>(
    env: Env<'a>,
    registry: Term<'a>,
    listeners: Term<'a>,
) -> NifResult<Term<'a>> {
    let listeners = atoms(env, listeners)?;
    Ok(with_open(env, registry, |open| {
        let Ok(journal) = open.journal() else {
            return no_thread().encode(env);
        };
        journal.listen_to_releases(listeners);
        ok().encode(env)
    }))
}

/// The words of a list of atoms. Rustler's own decoder panics at an improper list.
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

/// `(registry, pattern, pid)`: from now on the process is told of changes of names that match.
#[rustler::nif]
fn subscribe<'a>(env: Env<'a>, registry: Term<'a>, pattern: Binary<'a>, pid: LocalPid) -> Term<'a> {
    with_open(env, registry, |open| {
        let Ok(journal) = open.journal() else {
            return no_thread().encode(env);
        };
        let process = word::of_pid(env, pid);
        journal.subscribe(process, &pattern);
        // The process is watched after it subscribed, so that its end finds the subscription.
        if open.registry.attend(process, || open.watch(env, pid)) {
            ok().encode(env)
        } else if journal.is_closed() {
            no_registry().encode(env)
        } else {
            ended().encode(env)
        }
    })
}

/// `(registry, pattern, pid)`: the process is not told of them any more; answers whether it was.
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

/// `(registry, name)`: pids and atoms of the processes that are told of changes of the name.
#[rustler::nif(schedule = "DirtyCpu")]
fn audience<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        recipients(env, &open.registry.journal().audience(Some(name)))
    })
}

/// `(registry)`: pids and atoms of the processes that are told of changes of any name.
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

/// `(registry, name, pid)`: the process waits for the name from now on. Answers the number by which it
/// will be told that the name was registered, or that the registry is closed. The caller has to look
/// the name up afterwards: it may have been registered before.
#[rustler::nif]
fn wait<'a>(env: Env<'a>, registry: Term<'a>, name: Term<'a>, pid: LocalPid) -> Term<'a> {
    with_name(env, registry, name, |open, _, name| {
        if open.journal().is_err() {
            return no_thread().encode(env);
        }
        let process = word::of_pid(env, pid);
        let number = open.registry.wait(process, name);
        // A process that cannot be watched has ended, or the registry is closing and tells it so.
        open.registry.attend(process, || open.watch(env, pid));
        number.encode(env)
    })
}

/// `(registry, pid, number)`: ends the wait with this number; `false` if the process has been told, or
/// is about to be.
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

/// `(registry)`: how many names are held and how many processes it knows.
#[rustler::nif]
fn sizes<'a>(env: Env<'a>, registry: Term<'a>) -> Term<'a> {
    with_open(env, registry, |open| {
        let names = open.registry.len();
        let names = if open.lends() { names } else { 0 };
        (names, open.registry.holders()).encode(env)
    })
}

/// `(registry)`: a map of facts about it.
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
