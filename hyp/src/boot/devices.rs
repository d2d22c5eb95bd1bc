//! Which device registers EL2 keeps from the host, and which the host uses through EL2.
//!
//! fw_cfg and the ITSs master memory where they are told: EL2 keeps them. A redistributor's RD_base frame can name
//! tables in memory, so the host reaches it through EL2; its SGI_base frame is the host's.

#![expect(unsafe_code, reason = "reads GICR_TYPER and ends LPIs in GICR_CTLR")]

use crate::mmu::{EarlyMemory, EarlyTables};
use arrayvec::ArrayVec;
use core::ptr;
use hyp_core::addr::{FRAME_SIZE, PhysAddr};
use hyp_core::geometry::{Arm4K, Geometry};
use hyp_core::machine::{MachineDescription, PhysRange, RefusalReason};
use hyp_core::ownership::device::{DeviceError, MAX_DEVICE_RANGES};
use hyp_core::ownership::{DeviceOwner, DeviceRange, Devices};
use hyp_core::trap::redistributor::{CTLR_ENABLE_LPIS, CTLR_RWP, FRAME_BYTES, STRIDE_GICV3, STRIDE_GICV4};

/// GICR_TYPER, at offset 8 of RD_base.
const TYPER: u64 = 8;
/// GICR_TYPER.PLPIS: the redistributor has LPIs.
const TYPER_PLPIS: u64 = 1 << 0;
/// GICR_TYPER.VLPIS: the redistributor has frames for virtual LPIs too.
const TYPER_VLPIS: u64 = 1 << 1;
/// GICR_TYPER.Last: no redistributor follows in this region.
const TYPER_LAST: u64 = 1 << 4;

/// How often GICR_CTLR is looked at, at most, until a write of it has taken effect.
const PATIENCE: u32 = 1_000_000;

/// The frames of the redistributors that the host reaches through EL2.
pub(super) type Redistributors = ArrayVec<PhysRange, MAX_DEVICE_RANGES>;

/// Finds the RD_base frames (with GICv4, the VLPI frames too), by walking each region as a kernel does (IHI 0069,
/// 12.10, GICR_TYPER).
///
/// # Errors
/// If there are more than EL2 has room for: the host could then enable LPIs on one that EL2 does not watch. If one
/// has LPIs enabled already, by the firmware or by what ran before, and keeps them.
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
            if typer & TYPER_PLPIS != 0 && !end_lpis(at) {
                return Err(RefusalReason::LpisEnabled(at));
            }
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

/// Clears GICR_CTLR.EnableLPIs of the redistributor at `base`, and answers whether it is clear then: once set, not
/// every GIC lets it go (IHI 0069, 12.11, GICR_CTLR.CES).
fn end_lpis(base: u64) -> bool {
    let register: *mut u32 = ptr::with_exposed_provenance_mut(base as usize);
    // SAFETY: the tree says that a redistributor is there, and it was mapped; reading CTLR, its first register,
    // changes nothing.
    let read = || unsafe { register.read_volatile() };
    let found = read();
    if found & CTLR_ENABLE_LPIS == 0 {
        return true;
    }
    // SAFETY: as above; the redistributor stops using its tables, and nobody has interrupts of it yet.
    unsafe { register.write_volatile(found & !CTLR_ENABLE_LPIS) };
    (0..PATIENCE).any(|_| read() & (CTLR_ENABLE_LPIS | CTLR_RWP) == 0)
}

/// The claims of EL2 on device registers.
///
/// # Errors
/// If there are more than EL2 has room for, or if one lies so that EL2 could not keep all of it.
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
        let claim = DeviceRange {
            start,
            bytes: frames.bytes(),
            owner,
        };
        // Of a region that also holds RAM the map judges every page, and it knows nothing of these claims.
        if machine.memory.shares_block(range, Arm4K::REGION_SHIFT) {
            return Err(RefusalReason::RegistersNotApart(range));
        }
        match devices.add(claim) {
            Ok(()) => {}
            // Two devices of one owner in one page: it is claimed already.
            Err(DeviceError::Overlap)
                if devices
                    .find(start)
                    .is_some_and(|other| other.owner == owner && other.end() >= claim.end()) => {}
            Err(DeviceError::Overlap | DeviceError::BadRange) => {
                return Err(RefusalReason::RegistersNotApart(range));
            }
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
