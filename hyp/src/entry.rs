//! How the CPUs come in: the Image header, the boot tables, the way to Rust.
//!
//! The assembly beside this file does what Rust cannot do while the MMU is off, and hands over to
//! [`crate::boot`] on the first CPU and to [`crate::secondary`] on the others. The bits that it writes are named
//! here; nothing is written twice.

#![expect(unsafe_code, reason = "assembly is included")]

use crate::boot::boot_main;
use crate::mmu::{SCTLR_BOOT, SCTLR_OFF, TCR, TCR_PS_SHIFT, boot_block};
use crate::refuse::{RefuseCode, refuse_main};
use crate::secondary::{StartArguments, secondary_main};
use core::arch::global_asm;
use core::mem::offset_of;
use hyp_core::pgtable::MAIR;

/// Image header flags: little-endian (bit 0 clear), 4 KiB pages (bits 2:1 = 1), anywhere in memory (bit 3).
const IMAGE_FLAGS: u64 = 0b1010;

/// HCR_EL2 until the host is entered: EL1 is AArch64 (RW), nothing else.
const HCR_BOOT: u64 = 1 << 31;

/// The only relocation type of the image (ELF for the Arm 64-bit architecture, IHI 0056).
const R_AARCH64_RELATIVE: u32 = 1027;

/// ID_AA64MMFR0_EL1.PARange and TCR_EL2.PS of a CPU with 48 bits.
const PS_48_BITS: u64 = 5;

const _: () = {
    assert!(offset_of!(StartArguments, tcr) == offset_of!(StartArguments, mair) + 8);
    assert!(offset_of!(StartArguments, sctlr) == offset_of!(StartArguments, ttbr) + 8);
    assert!(offset_of!(StartArguments, per_cpu) == offset_of!(StartArguments, stack) + 8);
};

global_asm!(
    include_str!("entry.S"),
    IMAGE_FLAGS = const IMAGE_FLAGS,
    HCR_BOOT = const HCR_BOOT,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_BOOT = const SCTLR_BOOT,
    MAIR = const MAIR,
    TCR = const TCR,
    TCR_PS_SHIFT = const TCR_PS_SHIFT,
    PS_48_BITS = const PS_48_BITS,
    BLOCK_IMAGE = const boot_block::IMAGE,
    BLOCK_DATA = const boot_block::DATA,
    REFUSE_LEVEL = const RefuseCode::Level as u64,
    REFUSE_E2H = const RefuseCode::E2h as u64,
    REFUSE_GRANULE = const RefuseCode::Granule as u64,
    REFUSE_ALIGNMENT = const RefuseCode::Alignment as u64,
    R_AARCH64_RELATIVE = const R_AARCH64_RELATIVE,
    START_MAIR_TCR = const offset_of!(StartArguments, mair),
    START_TTBR_SCTLR = const offset_of!(StartArguments, ttbr),
    START_STACK_PERCPU = const offset_of!(StartArguments, stack),
    boot_main = sym boot_main,
    refuse_main = sym refuse_main,
    secondary_main = sym secondary_main,
);
