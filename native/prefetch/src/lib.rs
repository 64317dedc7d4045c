//! A hint to the processor to load memory that will be read soon.
//!
//! A crate of its own, because `registry_core` forbids `unsafe`, and the intrinsics of the processors are
//! unsafe functions: they take a pointer. Rust's own `core::hint::prefetch_read` is not stable.
#![no_std]

/// Starts to load the line of the processor's cache in which `value` begins, and does not wait for it. A
/// load whose result nobody uses is no replacement: the processor does not finish the instructions behind
/// it before it has arrived.
///
/// Does nothing on processors other than x86-64 and AArch64, and under Miri.
#[inline]
pub fn prefetch<T>(value: &T) {
    let at: *const T = value;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 processor has the instruction. It changes no memory, and ends in no fault
    // whatever the address is.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: every AArch64 processor has the instruction. It changes no memory, register or flag, and
    // ends in no fault whatever the address is.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn a_value_of_any_size_stays_as_it_is() {
        let large = [7_u64; 64];
        prefetch(&large);
        prefetch(&large[63]);
        prefetch(&());
        assert_eq!(large, [7; 64]);
    }
}
