//! Entry: from the first instruction of a vCPU to Rust with vectors, and with MMU and caches on unless told otherwise.
#![expect(unsafe_code, reason = "assembly, and stacks for it")]

use crate::{MAX_VCPUS, paging};
use core::cell::UnsafeCell;

/// Bytes of stack for each vCPU.
const STACK_SIZE: usize = 16 * 1024;

/// Stacks, of which a vCPU's own is touched by no other.
#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[[u8; STACK_SIZE]; MAX_VCPUS]>);

// SAFETY: no Rust code reads or writes the contents through this type.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_SIZE]; MAX_VCPUS]));

unsafe extern "C" {
    fn boot_entry() -> !;
}

/// Where a vCPU that PSCI turns on begins.
pub(crate) fn entry_address() -> u64 {
    boot_entry as *const () as usize as u64
}

core::arch::global_asm!(
    include_str!("boot.S"),
    TABLE = sym paging::TABLE,
    STACKS = sym STACKS,
    STACK_SIZE = const STACK_SIZE,
    MAIR = const paging::MAIR,
    TCR = const paging::TCR,
    TCR_IPS_SHIFT = const 32,
    PA_48_BITS = const 0b0101,
    SCTLR = const paging::SCTLR,
    GUEST_MAIN = sym crate::guest_main,
);
