//! The host's SVE state, at a vector length of its choice.
#![expect(unsafe_code, reason = "SVE instructions")]

use crate::probe::{self, Level};
use core::arch::global_asm;

/// Bytes of a vector register at the greatest length of the architecture.
const MOST: usize = 256;

/// Z0 to Z31, P0 to P15, FFR, FPCR and FPSR; as many bytes of each vector as the length has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Registers {
    z: [[u8; MOST]; 32],
    p: [[u8; MOST / 8]; 17],
    control: [u64; 2],
}

unsafe extern "C" {
    fn sve_enable(length: u64) -> u64;
    fn sve_load(registers: *const Registers);
    fn sve_store(registers: *mut Registers);
}

/// `MRS X0, ID_AA64PFR0_EL1`.
const READ_PFR0: u32 = 0xd538_0400;

/// Whether the host has SVE.
pub(crate) fn is_there() -> bool {
    probe::execute(Level::El1, READ_PFR0, [0; 2]).is_ok_and(|[features, _]| features >> 32 & 0xf != 0)
}

/// Lets this CPU use SVE with vectors of `length` times 16 bytes, if it has that length; returns the bytes that it has.
pub(crate) fn set_length(length: u64) -> u64 {
    // SAFETY: nothing that Rust keeps is in a vector register.
    unsafe { sve_enable(length - 1) }
}

impl Registers {
    /// Numbers, for vectors of `bytes` bytes.
    pub(crate) fn numbered(bytes: u64, seed: u8) -> Self {
        let mut registers = Self {
            z: [[0; MOST]; 32],
            p: [[0; MOST / 8]; 17],
            control: [0; 2],
        };
        let bytes = bytes as usize;
        for (number, z) in registers.z.iter_mut().enumerate() {
            for (place, byte) in z.iter_mut().take(bytes).enumerate() {
                *byte = seed ^ (number as u8).wrapping_mul(7) ^ place as u8;
            }
        }
        for (number, p) in registers.p.iter_mut().enumerate() {
            for (place, byte) in p.iter_mut().take(bytes / 8).enumerate() {
                *byte = seed ^ (number as u8).wrapping_mul(13) ^ place as u8;
            }
        }
        // FFR holds only a run of ones from the lowest bit on.
        registers.p[16] = [0; MOST / 8];
        registers.p[16][0] = 0x7f;
        // FPSR's cumulative flags; FPCR's rounding mode.
        registers.control = [0b1_1111, 0b11 << 22];
        registers
    }

    /// Loads the registers.
    pub(crate) fn load(&self) {
        // SAFETY: loads registers that nothing else uses.
        unsafe { sve_load(&raw const *self) };
    }

    /// What the registers hold.
    pub(crate) fn stored() -> Self {
        let mut registers = Self {
            z: [[0; MOST]; 32],
            p: [[0; MOST / 8]; 17],
            control: [0; 2],
        };
        // SAFETY: stores registers to where there is room for each at any length.
        unsafe { sve_store(&raw mut registers) };
        registers
    }
}

global_asm!(
    include_str!("sve.S"),
    P = const core::mem::offset_of!(Registers, p),
    CONTROL = const core::mem::offset_of!(Registers, control),
);
