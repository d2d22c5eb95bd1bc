//! Floating point and vectors. They stay the host's until a guest uses them, or EL2 itself does for a moment.
//!
//! A guest's first use traps. Then, and before EL2 computes with them, all that the host has in them is saved, on a CPU
//! with SVE at the longest vectors that there are, whatever the host has chosen: what a shorter choice hides is there when
//! a longer one is made. A guest has V0 to V31 alone; SVE and SME trap from it, so ZCR_EL1, SMCR_EL1, SVCR and ZA are never
//! touched.

#![expect(unsafe_code, reason = "calls the assembly that uses vector registers")]

use super::World;
use super::system::{read_register, write_register};
use crate::barrier::isb;
use crate::percpu::PerCpu;
use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_core::addr::FRAME_SIZE;
use hyp_core::machine::CpuFeatures;
use hyp_core::trap::host_traps::{CPTR_RES1, CPTR_TSM, VECTOR_LENGTH_MAX};
use hyp_core::vm::context::Simd;

global_asm!(include_str!("simd.S"));

unsafe extern "C" {
    fn simd_save(to: *mut u128);
    fn simd_load(from: *const u128);
    fn simd_vector_bytes() -> u64;
    fn simd_sve_save(to: *mut u8);
    fn simd_sve_load(from: *const u8);
}

/// SVCR.SM: the CPU is in streaming mode.
const SVCR_SM: u64 = 1 << 0;

/// Bytes of a Z register for which the CPUs have room; zero without SVE.
static VECTOR_BYTES: AtomicU64 = AtomicU64::new(0);

/// The host's V0 to V31 on a CPU without SVE, and its FPSR and FPCR on any. With SVE, Z0 to Z31, P0 to P15 and the FFR
/// lie in the pages behind the world.
#[derive(Debug)]
pub(super) struct HostVectors(Simd);

/// Whether the host is in streaming SVE mode.
#[inline]
pub(super) fn is_streaming(features: &CpuFeatures) -> bool {
    features.sme && read_register!("S3_3_C4_C2_2") & SVCR_SM != 0
}

/// Looks how long this CPU's vectors can be: bytes of a Z register, or zero without SVE.
pub(crate) fn longest(features: &CpuFeatures) -> u64 {
    if !features.sve {
        return 0;
    }
    // SVE is open to EL2 itself, and as long as the CPU can. The traps for the host come later.
    write_register!(
        "cptr_el2",
        if features.sme {
            CPTR_RES1
        } else {
            CPTR_RES1 | CPTR_TSM
        }
    );
    isb();
    write_register!("S3_4_C1_C2_0", VECTOR_LENGTH_MAX);
    isb();
    // SAFETY: asks for the length; the CPU has SVE, and it is open.
    unsafe { simd_vector_bytes() }
}

/// Keeps how long vectors may be, from the first CPU.
pub(crate) fn set_longest(bytes: u64) {
    VECTOR_BYTES.store(bytes, Ordering::Relaxed);
}

/// Whether there is room for vectors of `bytes` bytes.
pub(crate) fn has_room(bytes: u64) -> bool {
    bytes <= VECTOR_BYTES.load(Ordering::Relaxed)
}

/// Bytes behind each CPU's world, in whole pages: 32 Z registers, 16 P registers and the FFR of an eighth of their
/// length.
pub(crate) fn room(vector_bytes: u64) -> u64 {
    (32 * vector_bytes + 17 * vector_bytes / 8).next_multiple_of(FRAME_SIZE)
}

/// The room for this CPU's Z and P registers.
fn long_vectors() -> *mut u8 {
    let this: *const PerCpu = PerCpu::this();
    ptr::with_exposed_provenance_mut(this.addr() + World::OFFSET as usize + size_of::<World>())
}

impl HostVectors {
    pub(super) const fn new() -> Self {
        Self(Simd {
            v: [0; 32],
            fpsr: 0,
            fpcr: 0,
        })
    }

    /// Saves the host's. EL2 must be allowed to use them, and the host not be in streaming mode.
    pub(super) fn save(&mut self, features: &CpuFeatures) {
        if features.sve {
            // SAFETY: the plan keeps room for vectors as long as this CPU's behind its world, and nobody else's.
            unsafe { simd_sve_save(long_vectors()) };
            save_status(&mut self.0);
        } else {
            save_guest(&mut self.0);
        }
    }

    /// Loads what [`HostVectors::save`] saved. EL2 must be allowed to use them.
    pub(super) fn load(&self, features: &CpuFeatures) {
        if features.sve {
            // SAFETY: `save` wrote it, on this CPU.
            unsafe { simd_sve_load(long_vectors()) };
            load_status(&self.0);
        } else {
            load_guest(&self.0);
        }
    }
}

/// Loads V0 to V31, FPSR and FPCR.
pub(super) fn load_guest(simd: &Simd) {
    // SAFETY: reads 32 registers' worth.
    unsafe { simd_load(simd.v.as_ptr()) };
    load_status(simd);
}

/// Saves V0 to V31, FPSR and FPCR.
pub(super) fn save_guest(simd: &mut Simd) {
    // SAFETY: writes 32 registers' worth.
    unsafe { simd_save(simd.v.as_mut_ptr()) };
    save_status(simd);
}

// FPCR and FPSR by number: the compiler's target has no floating point.
fn save_status(simd: &mut Simd) {
    simd.fpcr = read_register!("S3_3_C4_C4_0");
    simd.fpsr = read_register!("S3_3_C4_C4_1");
}

fn load_status(simd: &Simd) {
    write_register!("S3_3_C4_C4_0", simd.fpcr);
    write_register!("S3_3_C4_C4_1", simd.fpsr);
}
