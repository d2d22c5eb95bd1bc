//! The cache door: every data cache instruction of EL2 is in the assembly beside this file.
//!
//! Lines are as long as CTR_EL0 says on the CPU at work; `DC ZVA` is used where DCZID_EL0 allows it. The routines
//! that reach for memory which may answer with an external abort have fixups ([`crate::fixup`]).

#![expect(unsafe_code, reason = "calls the assembly")]

use crate::fixup;
use core::arch::global_asm;
use hyp_core::addr::PhysAddr;

global_asm!(include_str!("fixup.S"), include_str!("cache.S"));

unsafe extern "C" {
    /// Cleans (and invalidates) the lines of `[start, end)` to the point of coherency.
    fn cache_clean(start: u64, end: u64);
    /// Cleans and invalidates the lines of `[start, end)` to the point of coherency. Returns 0, or the address at
    /// which memory answered with an abort.
    fn cache_clean_invalidate(start: u64, end: u64) -> u64;
    /// Zeroes `[start, end)`, both multiples of 4 KiB. Returns 0, or the address at which memory answered with an
    /// abort.
    fn cache_zero(start: u64, end: u64) -> u64;
}

/// Cleans what lies at `start` to the point of coherency, for an observer whose caches are off.
///
/// # Safety
/// `[start, start + size)` is mapped at EL2.
pub(crate) unsafe fn clean(start: PhysAddr, size: u64) {
    let end = start.value().saturating_add(size);
    // SAFETY: the range is mapped, as the caller vouches; cleaning changes no contents.
    unsafe { cache_clean(start.value(), end) };
}

/// Cleans and invalidates `[start, end)` to the point of coherency.
///
/// # Errors
/// The address at which memory answered with an abort.
///
/// # Safety
/// The range is mapped at EL2.
pub(crate) unsafe fn clean_invalidate(start: u64, end: u64) -> Result<(), u64> {
    fixup::survive(|| {
        // SAFETY: the range is mapped, as the caller vouches; an abort is fixed up.
        match unsafe { cache_clean_invalidate(start, end) } {
            0 => Ok(()),
            address => Err(address),
        }
    })
}

/// Zeroes `[start, end)`, which begins and ends on a page.
///
/// # Errors
/// The address at which memory answered with an abort.
///
/// # Safety
/// The range is mapped for writing at EL2, and nothing that Rust knows of lies in it.
pub(crate) unsafe fn zero(start: u64, end: u64) -> Result<(), u64> {
    fixup::survive(|| {
        // SAFETY: as the caller vouches; an abort is fixed up.
        match unsafe { cache_zero(start, end) } {
            0 => Ok(()),
            address => Err(address),
        }
    })
}
