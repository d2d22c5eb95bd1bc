//! Entry: from the loader to Rust with MMU, caches and vectors on.
#![expect(unsafe_code, reason = "assembly, and a start block that it reads")]

use crate::{exit::Exit, paging};
use core::cell::UnsafeCell;

/// Bytes of stack for each CPU.
pub(crate) const STACK_SIZE: usize = 64 * 1024;

/// A stack, as memory that only the CPU that runs on it touches.
#[repr(C, align(4096))]
pub(crate) struct Stack(UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: no Rust code reads or writes the contents through this type; it only hands out the address of the end.
unsafe impl Sync for Stack {}

impl Stack {
    /// A stack of zeroes.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; STACK_SIZE]))
    }

    /// The address that the stack pointer starts from.
    pub(crate) fn top(&self) -> u64 {
        self.0.get().addr() as u64 + STACK_SIZE as u64
    }
}

static BOOT_STACK: Stack = Stack::new();

/// What a CPU that PSCI starts needs to know, in the order in which `secondary_entry` reads it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SecondaryStart {
    /// Where its stack begins.
    pub(crate) stack: u64,
    /// Its number.
    pub(crate) number: u64,
}

unsafe extern "C" {
    fn secondary_entry() -> !;
}

/// Where a CPU that PSCI starts begins, MMU off.
pub(crate) fn secondary_entry_address() -> u64 {
    secondary_entry as *const () as usize as u64
}

/// The addresses that the image occupies.
pub(crate) fn image() -> core::ops::Range<u64> {
    unsafe extern "C" {
        static _image_start: u8;
        static _image_end: u8;
    }
    (&raw const _image_start).addr() as u64..(&raw const _image_end).addr() as u64
}

core::arch::global_asm!(
    include_str!("boot.S"),
    R_AARCH64_RELATIVE = const 1027,
    EXIT_BOOT_FAILED = const Exit::BootFailed as i32,
    BOOT_TABLE = sym paging::BOOT_TABLE,
    FINAL_TABLE = sym paging::FINAL_TABLE,
    BOOT_STACK_TOP = sym BOOT_STACK,
    BOOT_STACK_SIZE = const STACK_SIZE,
    DEVICE_BLOCK = const paging::DEVICE_BLOCK,
    NORMAL_BLOCK = const paging::NORMAL_BLOCK,
    MAIR = const paging::MAIR,
    TCR = const paging::TCR,
    TCR_IPS_SHIFT = const 32,
    PA_48_BITS = const 0b0101,
    SCTLR = const paging::SCTLR,
    SCTLR_M = const 1 << 0,
    SCTLR_C = const 1 << 2,
    PAYLOAD_MAIN = sym crate::payload_main,
    SECONDARY_MAIN = sym crate::cpu::secondary_main,
);
