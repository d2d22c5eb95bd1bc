//! The instructions on arm64.

use super::Size;
use core::arch::asm;

/// The smallest line that a data or instruction cache may have (Arm ARM DDI 0487, CTR_EL0: 2^IminLine words).
const SMALLEST_LINE: usize = 16;

/// See [`super::load`].
pub(super) unsafe fn load(address: *const u8, size: Size) -> u64 {
    let value: u64;
    match size {
        // SAFETY: one load, from where the caller says.
        Size::Byte => unsafe { asm!("ldrb {v:w}, [{a}]", v = out(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Half => unsafe { asm!("ldrh {v:w}, [{a}]", v = out(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Word => unsafe { asm!("ldr {v:w}, [{a}]", v = out(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Double => unsafe { asm!("ldr {v}, [{a}]", v = out(reg) value, a = in(reg) address) },
    }
    value
}

/// See [`super::store`].
pub(super) unsafe fn store(address: *mut u8, size: Size, value: u64) {
    match size {
        // SAFETY: one store, to where the caller says.
        Size::Byte => unsafe { asm!("strb {v:w}, [{a}]", v = in(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Half => unsafe { asm!("strh {v:w}, [{a}]", v = in(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Word => unsafe { asm!("str {v:w}, [{a}]", v = in(reg) value, a = in(reg) address) },
        // SAFETY: as above.
        Size::Double => unsafe { asm!("str {v}, [{a}]", v = in(reg) value, a = in(reg) address) },
    }
}

/// See [`super::call`].
pub(super) unsafe fn call(address: *const u8) -> Option<u64> {
    let value: u64;
    // SAFETY: the caller vouches for the code; what the procedure call standard lets it change is declared.
    unsafe { asm!("blr {f}", f = in(reg) address, lateout("x0") value, clobber_abi("C")) };
    Some(value)
}

/// See [`super::sync_code`].
pub(super) unsafe fn sync_code(address: *const u8, bytes: usize) {
    // Arm ARM DDI 0487, B2.7 ("Synchronization of ... self-modifying code"): clean the data to the point of
    // unification, then invalidate the instructions, each made complete by a DSB.
    let lines = (0..bytes.next_multiple_of(SMALLEST_LINE)).step_by(SMALLEST_LINE);
    for line in lines.clone() {
        // SAFETY: maintenance by address changes no contents; the bytes are mapped.
        unsafe { asm!("dc cvau, {a}", a = in(reg) address.wrapping_add(line)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish") };
    for line in lines {
        // SAFETY: as above.
        unsafe { asm!("ic ivau, {a}", a = in(reg) address.wrapping_add(line)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb") };
}
