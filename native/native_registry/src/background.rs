//! Threads of the library's own, and why the library stays loaded.

use once_cell::sync::OnceCell;
use rustler::{Env, Resource, ResourceArc};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A resource that is never given back. The VM does not unload a library, even after its module was
/// purged, while there is a resource whose destructor lies in that library.
struct Pin;

#[rustler::resource_impl]
impl Resource for Pin {
    fn destructor(self, _env: Env<'_>) {}
}

/// Keeps the library loaded from now on. Threads run its code, and the directory of registries lies
/// in its memory.
pub(crate) fn pin() {
    static PIN: OnceCell<ResourceArc<Pin>> = OnceCell::new();
    PIN.get_or_init(|| ResourceArc::new(Pin));
}

/// Starts a thread.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    pin();
    let thread = std::thread::Builder::new().name("native_registry".into());
    thread.spawn(work).map(drop)
}

/// Does work that takes long on a thread of its own, because the caller may be a scheduler. If no
/// thread can be started, the caller does it.
pub(crate) fn elsewhere<F: FnOnce() + Send + 'static>(work: F) {
    fn run<F: FnOnce()>(work: &Mutex<Option<F>>) {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work();
        }
    }
    let work = Arc::new(Mutex::new(Some(work)));
    let shared = Arc::clone(&work);
    if spawn(move || run(&shared)).is_err() {
        run(&work);
    }
}
