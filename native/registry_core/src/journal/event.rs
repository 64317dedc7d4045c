//! Changes of names, and their recipients.

use crate::pid::Pid;

/// A change of one name. `V` is what the table keeps with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<V> {
    /// In canonical bytes.
    pub name: Box<[u8]>,
    /// The process that holds the name, or did until this change.
    pub pid: Pid,
    /// What is kept with the name, or was until this change.
    pub kept: Option<V>,
    /// What happened.
    pub change: Change,
}

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was registered.
    Registered,
    /// It was given back, taken over from a holder that has ended, or freed after its holder ended.
    Unregistered,
}

/// A recipient of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The process that is registered with the VM by this atom (its word).
    Listener(u64),
    /// A process that subscribed to names of a pattern.
    Subscriber(Pid),
}

/// A process that waits for a name, and the number of the wait. It is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter(pub Pid, pub u64);

/// What [`super::Journal::take`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<V> {
    /// A change, and its recipients: none if all have unsubscribed since.
    Event(Event<V>, Vec<Recipient>),
    /// This many changes were dropped here. It is not known any more which processes they concerned, so all
    /// are told.
    Lost(u64, Vec<Recipient>),
    /// The process has registered a name that these waited for. If there are many, the next notice
    /// has more of them.
    Awaited(Pid, Vec<Waiter>),
    /// The registry is closed, and these waited for names in vain. If there are many, the next notice
    /// has more of them.
    Closed(Vec<Waiter>),
}
