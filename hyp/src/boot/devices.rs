//! Which device registers EL2 keeps from the host, and which the host uses through EL2.
//!
//! fw_cfg and the ITSs master memory where they are told: EL2 keeps them. A redistributor's RD_base frame can name
//! tables in memory, so the host reaches it through EL2; its SGI_base frame is the host's.

#![expect(unsafe_code, reason = "reads GICR_TYPER")]

use crate::mmu::{EarlyMemory, EarlyTables};
use arrayvec::ArrayVec;
use core::ptr;
use hyp_core::addr::{FRAME_SIZE, PhysAddr};
use hyp_core::machine::{MachineDescription, PhysRange, RefusalReason};
use hyp_core::ownership::device::{DeviceError, MAX_DEVICE_RANGES};
use hyp_core::ownership::{DeviceOwner, DeviceRange, Devices};
use hyp_core::trap::redistributor::{FRAME_BYTES, STRIDE_GICV3, STRIDE_GICV4};

/// GICR_TYPER, at offset 8 of RD_base.
const TYPER: u64 = 8;
/// GICR_TYPER.VLPIS: the redistributor has frames for virtual LPIs too.
const TYPER_VLPIS: u64 = 1 << 1;
/// GICR_TYPER.Last: no redistributor follows in this region.
const TYPER_LAST: u64 = 1 << 4;

/// The frames of the redistributors that the host reaches through EL2.
pub(super) type Redistributors = ArrayVec<PhysRange, MAX_DEVICE_RANGES>;

/// Finds the RD_base frames (with GICv4, the VLPI frames too), by walking each region as a kernel does (IHI 0069,
/// 12.10, GICR_TYPER).
///
/// # Errors
/// If there are more than EL2 has room for: the host could then enable LPIs on one that EL2 does not watch.
pub(super) fn redistributors(
    machine: &MachineDescription<'_>,
    tables: &mut EarlyTables,
) -> Result<Redistributors, RefusalReason> {
    let too_many = |_| RefusalReason::TooMany {
        what: "redistributors",
        capacity: MAX_DEVICE_RANGES,
    };
    let mut found = Redistributors::new();
    for region in &machine.gic.redistributors {
        let mut at = region.start();
        while let Some(frame) = PhysRange::new(at, FRAME_BYTES).filter(|frame| region.contains(*frame)) {
            tables.map(frame.address(), FRAME_SIZE, EarlyMemory::Device);
            let typer = read_typer(at);
            let own = if typer & TYPER_VLPIS != 0 {
                STRIDE_GICV4
            } else {
                STRIDE_GICV3
            };
            found.try_push(frame).map_err(too_many)?;
            if own == STRIDE_GICV4 {
                let virtual_frames = PhysRange::new(at + 2 * FRAME_BYTES, 2 * FRAME_BYTES);
                virtual_frames
                    .map_or(Ok(()), |frames| found.try_push(frames))
                    .map_err(too_many)?;
            }
            if typer & TYPER_LAST != 0 {
                break;
            }
            at = at.saturating_add(machine.gic.redistributor_stride.unwrap_or(own).max(own));
        }
    }
    Ok(found)
}

/// GICR_TYPER of the redistributor at `base`, in two halves as every GIC allows.
fn read_typer(base: u64) -> u64 {
    let register: *const u32 = ptr::with_exposed_provenance((base + TYPER) as usize);
    let upper = register.wrapping_add(1);
    // SAFETY: the tree says that a redistributor is there, and it was mapped just now; reading TYPER changes
    // nothing.
    let low = unsafe { register.read_volatile() };
    // SAFETY: as above; the register has 64 bits.
    let high = unsafe { upper.read_volatile() };
    u64::from(high) << 32 | u64::from(low)
}

/// The claims of EL2 on device registers.
///
/// # Errors
/// If there are more than EL2 has room for.
pub(super) fn claims(
    machine: &MachineDescription<'_>,
    redistributors: &Redistributors,
) -> Result<Devices, RefusalReason> {
    let kept = machine
        .fw_cfgs
        .iter()
        .chain(&machine.gic.its)
        .map(|range| (*range, DeviceOwner::Hyp));
    let shared = redistributors.iter().map(|range| (*range, DeviceOwner::Emulated));
    let mut devices = Devices::new();
    for (range, owner) in kept.chain(shared) {
        let frames = range.frames_touched();
        let start: PhysAddr = frames.start().address();
        match devices.add(DeviceRange {
            start,
            bytes: frames.bytes(),
            owner,
        }) {
            // Two devices in one page: whoever came first has claimed it.
            Ok(()) | Err(DeviceError::Overlap | DeviceError::BadRange) => {}
            Err(DeviceError::TooMany) => {
                return Err(RefusalReason::TooMany {
                    what: "devices that EL2 keeps",
                    capacity: MAX_DEVICE_RANGES,
                });
            }
        }
    }
    Ok(devices)
}
