//! The lease of this VM, and whether its deadline has passed.

use crate::clock;
use registry_core::lease::Lease;

/// The lease of this VM, which all leased registries share.
pub(crate) static LEASE: Lease = Lease::new();

/// Whether processes of this node may hold names of leased registries.
#[inline]
pub(crate) fn ahead() -> bool {
    // The clock is read after the deadline, and after the name was found: what the answer says is true at
    // that instant.
    let deadline = LEASE.deadline();
    deadline > clock::now()
}
