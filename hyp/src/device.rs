//! Accesses to device registers that EL2 carries out for the host: the redistributors' RD_base frames.

#![expect(unsafe_code, reason = "reads and writes device registers")]

use crate::exit::Outcome;
use crate::fixup::{self, Aborted};
use crate::percpu::PerCpu;
use aarch64_cpu::registers::{SCTLR_EL1, SPSR_EL2};
use hyp_abi::Counter;
use hyp_core::addr::Ipa;
use hyp_core::ownership::DeviceRange;
use hyp_core::trap::Abort;
use hyp_core::trap::access::{Width, big_endian};
use hyp_core::trap::redistributor::{Decision, FRAME_BYTES, FrameKind, Place, judge_at};
use tock_registers::interfaces::Readable;

/// Carries out the access that aborted at `address`, in `range`, as far as the host may.
pub(crate) fn access(
    this: &PerCpu,
    x: &mut [u64; 31],
    abort: &Abort,
    address: Ipa,
    range: DeviceRange,
) -> Outcome {
    // Without a syndrome (a pair, a vector, cache maintenance) EL2 cannot know what was wanted; a table walk or a
    // fetch has no business here.
    let Some(access) = abort
        .access
        .filter(|_| !abort.stage1_walk && !abort.cache_maintenance)
    else {
        return Outcome::Inject;
    };
    this.count(Counter::DeviceAccesses, 1);
    let swapped = big_endian(SPSR_EL2.get(), SCTLR_EL1.get());
    let write = access.write.then(|| access.stored(x, swapped));
    // A claimed range is one RD_base frame, or with GICv4 the two frames behind SGI_base (crate::boot).
    let frame = if range.bytes == FRAME_BYTES {
        FrameKind::Rd
    } else {
        FrameKind::Other
    };
    let place = Place {
        index: 0,
        frame,
        offset: address.value() - range.start.value(),
    };
    // An abort of the device's is the host's: it wanted the access.
    let memory = match judge_at(place, access.width, write) {
        Decision::Read { hidden } => read(address, access.width).map(|value| value & !hidden),
        Decision::Write { value } => self::write(address, access.width, value).map(|()| 0),
        Decision::Ignore => Ok(0),
        Decision::Refuse => Err(Aborted),
    };
    let Ok(memory) = memory else {
        return Outcome::Inject;
    };
    if !access.write {
        access.load(x, memory, swapped);
    }
    Outcome::Done
}

/// Reads a register of a redistributor. A width that no register has reads as zero.
fn read(address: Ipa, width: Width) -> Result<u64, Aborted> {
    match width {
        // SAFETY: a redistributor's frame that the boot found and mapped as Device memory at its own address; the
        // address is a multiple of the width, and reading these registers changes nothing of EL2's.
        Width::Word => unsafe { fixup::read_u32(address.value()) }.map(u64::from),
        // SAFETY: as above.
        Width::Double => unsafe { fixup::read_u64(address.value()) },
        Width::Byte | Width::Half => Ok(0),
    }
}

/// Writes a register of a redistributor, of those that hyp-core lets through: none of them names memory.
fn write(address: Ipa, width: Width, value: u64) -> Result<(), Aborted> {
    match width {
        // SAFETY: as for `read`.
        Width::Word => unsafe { fixup::write_u32(address.value(), value as u32) },
        // SAFETY: as for `read`.
        Width::Double => unsafe { fixup::write_u64(address.value(), value) },
        Width::Byte | Width::Half => Ok(()),
    }
}
