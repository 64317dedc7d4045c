//! The thread that tells of changes.

use crate::directory::Value;
use crate::kept::Kept;
use crate::word;
use registry_core::journal::{Change, Event, Journal, Notice, Recipient};
use rustler::sys::enif_whereis_pid;
use rustler::{Encoder, Env, LocalPid, OwnedEnv, Term};
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

rustler::atoms! { register, unregister, workflow_metal_native_registry, closed }

/// Starts the courier of a registry. It ends when the journal is closed.
pub(crate) fn start(registry: u64, journal: Arc<Journal<Value>>) -> io::Result<()> {
    let deliver = move || {
        let mut env = OwnedEnv::new();
        while let Some(notice) = journal.take() {
            match notice {
                Notice::Event(event, recipients) => {
                    for recipient in recipients {
                        tell(&mut env, recipient, |env| match recipient {
                            Recipient::Waiter(_, number) => {
                                Some(waited(env, number, word::to_pid(env, event.pid)))
                            }
                            _ => message(env, registry, &event),
                        });
                    }
                }
                Notice::Closed(recipients) => {
                    for recipient in recipients {
                        if let Recipient::Waiter(_, number) = recipient {
                            tell(&mut env, recipient, |env| {
                                Some(waited(env, number, closed().encode(env)))
                            });
                        }
                    }
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("native_registry".into())
        .spawn(deliver)?;
    Ok(())
}

/// Sends a message to whoever the recipient is now; to nobody if it is gone.
fn tell(
    env: &mut OwnedEnv,
    recipient: Recipient,
    message: impl for<'a> FnOnce(Env<'a>) -> Option<Term<'a>>,
) {
    let process = env.run(|env| match recipient {
        Recipient::Listener(name) => whereis(word::to_term(env, name)),
        Recipient::Subscriber(pid) | Recipient::Waiter(pid, _) => {
            word::to_pid(env, pid).decode().ok()
        }
    });
    let message = env.run(|terms| message(terms).map(|message| env.save(message)));
    match (process, message) {
        (Some(process), Some(message)) => {
            // One that has ended is no error.
            let _ = env.send_and_clear(&process, |env| message.load(env));
        }
        _ => env.clear(),
    }
}

/// The process that is registered with the VM by this atom.
fn whereis(name: Term<'_>) -> Option<LocalPid> {
    let mut pid = MaybeUninit::uninit();
    // SAFETY: the courier is no thread of the VM, and such a thread has to pass no env; rustler's
    // own `whereis_pid` always passes one. `name` is an atom. The pid is written when the answer
    // is not 0.
    unsafe {
        let found = enif_whereis_pid(std::ptr::null_mut(), name.as_c_arg(), pid.as_mut_ptr());
        (found != 0).then(|| LocalPid::from_c_arg(pid.assume_init()))
    }
}

/// `{:workflow_metal_native_registry, number, pid}`, or `:closed` in place of the pid.
fn waited<'a>(env: Env<'a>, number: u64, what: Term<'a>) -> Term<'a> {
    (workflow_metal_native_registry(), number, what).encode(env)
}

/// `{:register, registry, name, pid, value}` or `{:unregister, registry, name, pid}`.
fn message<'a>(env: Env<'a>, registry: u64, event: &Event<Value>) -> Option<Term<'a>> {
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
