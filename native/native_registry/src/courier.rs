//! The thread that sends the messages about changes, for all registries.

use crate::background;
use crate::kept::Kept;
use crate::word;
use once_cell::sync::OnceCell;
use registry_core::Pid;
use registry_core::journal::{Change, Event, Journal, Notice, Recipient, Waiter};
use rustler::sys::enif_whereis_pid;
use rustler::{Encoder, Env, LocalPid, OwnedEnv, Term};
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

rustler::atoms! { register, unregister, events_lost, workflow_metal_native_registry, closed }

/// The atom of a registry, as its word, and the registry's journal, which has something to take.
type Pending = (u64, Arc<Journal<Kept>>);

/// The journals that wait for their turn. Each is in here at most once.
struct Turns {
    pending: Mutex<Waiting>,
    some: Condvar,
}

struct Waiting {
    journals: VecDeque<Pending>,
    asleep: bool,
}

static TURNS: Turns = Turns {
    pending: Mutex::new(Waiting {
        journals: VecDeque::new(),
        asleep: false,
    }),
    some: Condvar::new(),
};

impl Turns {
    /// How long the courier lets events gather after it has told all there were. Without this, each
    /// event would wake it while names change all the time, and waking a thread costs several times
    /// as much as writing the change down.
    const LINGER: Duration = Duration::from_micros(50);

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, journal: Pending) {
        let mut waiting = self.lock();
        waiting.journals.push_back(journal);
        if std::mem::take(&mut waiting.asleep) {
            self.some.notify_one();
        }
    }

    /// Waits until there are journals; answers all of them. `busy`: whether the last ones had been told
    /// completely.
    fn next(&self, busy: bool) -> VecDeque<Pending> {
        if busy {
            std::thread::sleep(Self::LINGER);
        }
        let mut waiting = self.lock();
        while waiting.journals.is_empty() {
            waiting.asleep = true;
            waiting = self
                .some
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.asleep = false;
        std::mem::take(&mut waiting.journals)
    }
}

/// From now on the changes of a registry are told. The first call starts the thread, which never ends.
pub(crate) fn attach(registry: u64, journal: &Arc<Journal<Kept>>) -> io::Result<()> {
    static THREAD: OnceCell<()> = OnceCell::new();
    THREAD.get_or_try_init(|| background::spawn(deliver))?;
    let weak = Arc::downgrade(journal);
    let wake = move || {
        if let Some(journal) = weak.upgrade() {
            TURNS.put((registry, journal));
        }
    };
    journal.attach(wake, |kept| {
        let (plain, terms) = kept.size();
        plain + terms
    });
    Ok(())
}

fn deliver() {
    let mut env = OwnedEnv::new();
    let mut drained = false;
    loop {
        let journals = TURNS.next(drained);
        drained = true;
        for (registry, journal) in journals {
            // If a notice makes this panic, the rest of its recipients are not told; all other notices
            // are.
            let turn = AssertUnwindSafe(|| turn(&mut env, registry, &journal));
            if catch_unwind(turn).unwrap_or(true) {
                drained = false;
                TURNS.put((registry, journal));
            }
        }
    }
}

/// How many messages a registry may send before it is another's turn.
const MESSAGES: usize = 1_000;

/// Tells what a journal has; answers whether there may be more to tell.
fn turn(env: &mut OwnedEnv, registry: u64, journal: &Journal<Kept>) -> bool {
    let mut sent = 0;
    while sent < MESSAGES {
        // Before each notice, so that a panic leaves no terms behind.
        env.clear();
        let Some(notice) = journal.take() else {
            return false;
        };
        sent += 1 + env.run(|env| tell(env, registry, &notice));
    }
    true
}

/// Sends the messages of a notice; answers how many. The terms are made once, and copied for each
/// process.
fn tell(env: Env<'_>, registry: u64, notice: &Notice<Kept>) -> usize {
    match notice {
        Notice::Event(_, recipients) | Notice::Lost(_, recipients) if recipients.is_empty() => 0,
        Notice::Event(event, recipients) => {
            if let Some(message) = message(env, registry, event) {
                send_all(env, recipients, message);
            }
            recipients.len()
        }
        Notice::Lost(count, recipients) => {
            let message = (events_lost(), word::to_term(env, registry), count);
            send_all(env, recipients, message.encode(env));
            recipients.len()
        }
        Notice::Awaited(holder, waiters) => answer(env, waiters, word::to_pid(env, *holder)),
        Notice::Closed(waiters) => answer(env, waiters, closed().encode(env)),
    }
}

/// Tells processes that wait: `{:workflow_metal_native_registry, number, pid}`, or with `:closed` in
/// place of the pid.
fn answer(env: Env<'_>, waiters: &[Waiter], what: Term<'_>) -> usize {
    for Waiter(pid, number) in waiters {
        let message = (workflow_metal_native_registry(), number, what).encode(env);
        send(env, process(env, *pid), message);
    }
    waiters.len()
}

fn send_all(env: Env<'_>, recipients: &[Recipient], message: Term<'_>) {
    for recipient in recipients {
        let process = match recipient {
            Recipient::Listener(name) => whereis(word::to_term(env, *name)),
            Recipient::Subscriber(pid) => process(env, *pid),
        };
        send(env, process, message);
    }
}

fn process(env: Env<'_>, pid: Pid) -> Option<LocalPid> {
    word::to_pid(env, pid).decode().ok()
}

fn send(env: Env<'_>, process: Option<LocalPid>, message: Term<'_>) {
    if let Some(process) = process {
        // That the process has ended is not an error.
        let _ = env.send(&process, message);
    }
}

/// The process that is registered with the VM by this atom.
fn whereis(name: Term<'_>) -> Option<LocalPid> {
    let mut pid = MaybeUninit::uninit();
    // SAFETY: the courier is not a thread of the VM. Such a thread has to pass no env, but rustler's
    // `whereis_pid` always passes one. `name` is an atom. The pid is written if the answer is not 0.
    unsafe {
        let found = enif_whereis_pid(std::ptr::null_mut(), name.as_c_arg(), pid.as_mut_ptr());
        (found != 0).then(|| LocalPid::from_c_arg(pid.assume_init()))
    }
}

/// `{:register, registry, name, pid, value}` or `{:unregister, registry, name, pid}`.
fn message<'a>(env: Env<'a>, registry: u64, event: &Event<Kept>) -> Option<Term<'a>> {
    let registry = word::to_term(env, registry);
    let kept = event.kept.as_ref();
    let name = Kept::name(kept, env, &event.name, event.pid)?;
    let pid = word::to_pid(env, event.pid);
    Some(match event.change {
        Change::Registered => {
            let value = Kept::value(kept, env)?;
            (register(), registry, name, pid, value).encode(env)
        }
        Change::Unregistered => (unregister(), registry, name, pid).encode(env),
    })
}
