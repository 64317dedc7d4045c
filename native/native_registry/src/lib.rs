//! The NIF under `WorkflowMetal.Registration.NativeRegistry`.
//!
//! A lookup goes: `whereis` finds the registry in the directory, which takes no lock, writes the name into this
//! thread's buffer, and asks the table. `unsafe` stands where rustler has no safe way: `word`, to keep
//! terms that are mere words; `kept`, to keep others; `term` and `layout`, to look into terms without
//! copying them; `nif`, to spare what rustler's own macro allocates on every call; `entry` and `watch`,
//! so that the module can be loaded again while it is in use; and one call in `courier`.

mod cluster;
mod courier;
mod directory;
mod entry;
mod kept;
mod layout;
mod meta;
mod names;
mod nif;
mod observe;
mod odd;
mod refusal;
mod registries;
mod term;
mod watch;
mod word;
