//! EL2's memory at boot: one reservation that starts at the image.
//!
//! [`plan`] lays the parts out behind the image, in order, each on a whole frame:
//! the ownership array, the root of the host's stage 2, its lower tables, the per-CPU areas, EL2's own stage-1
//! tables, and the pool with what is left. The whole is 2 MiB, or what is needed if that is more: at most
//! 2 MiB + 0.001 % of RAM (a test holds it to that). [`find_hole`] finds room in the host's memory for its tree.

use super::input_size::InputSize;
use super::range::PhysRange;
use super::refusal::{Occupant, RefusalReason};
use super::{MachineDescription, MemoryMap};
use crate::addr::FRAME_SIZE;
use crate::geometry::{Arm4K, Geometry};
use arrayvec::ArrayVec;

/// Bytes of an entry of the ownership array.
pub const REGION_ENTRY_SIZE: u64 = 8;

/// EL2's memory is at least so large, in bytes: less would only be more fragments of a 2 MiB block.
pub const MIN_RESERVATION: u64 = 2 * 1024 * 1024;

/// Tables of the host's stage 2 beyond those for RAM: one to split the GiB that holds EL2's devices with.
const DEVICE_TABLES: u64 = 1;

/// What EL2 wants of memory beside what follows from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes of one CPU's area; rounded up to whole frames.
    pub per_cpu_size: u64,
    /// Frames for EL2's own stage-1 tables.
    pub hyp_tables: u64,
    /// Frames that the pool must have at least.
    pub min_pool: u64,
}

/// Where EL2's memory is. All parts are whole frames and lie in the reservation, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// All of it.
    pub reservation: PhysRange,
    /// The image, its zero-initialized data included.
    pub image: PhysRange,
    /// The ownership array: an entry of 8 bytes for each 2 MiB region that RAM touches, in the order of
    /// [`MemoryMap::blocks`].
    pub ownership_array: PhysRange,
    /// How many regions there are.
    pub regions: u64,
    /// The root of the host's stage 2, aligned to its own size.
    pub host_root: PhysRange,
    /// The lower tables of the host's stage 2, enough to map all RAM at 2 MiB and to split one more GiB.
    pub host_tables: PhysRange,
    /// The areas of the CPUs, in the order of [`MachineDescription::cpus`].
    pub per_cpu: PhysRange,
    /// Bytes from one CPU's area to the next.
    pub per_cpu_stride: u64,
    /// EL2's own stage-1 tables.
    pub hyp_tables: PhysRange,
    /// The page pool.
    pub pool: PhysRange,
    /// The input size of the host's stage 2.
    pub input_size: InputSize,
}

/// Lays out EL2's memory on `machine`, behind the image at `image`, with the machine's tree at `tree`, on CPUs with
/// `pa_bits` physical address bits.
///
/// # Errors
/// The reason why Freehold cannot run with what is in memory now.
pub fn plan(
    machine: &MachineDescription<'_>,
    image: PhysRange,
    tree: PhysRange,
    pa_bits: u32,
    wanted: &Wanted,
) -> Result<BootPlan, RefusalReason> {
    if !image.start().is_multiple_of(1 << Arm4K::REGION_SHIFT) {
        return Err(RefusalReason::ImageMisaligned(image.start()));
    }
    let input_size = InputSize::covering_memory(machine.memory.end(), machine.device_end, pa_bits)?;
    let plan = lay_out(machine, image, input_size, wanted).ok_or(RefusalReason::PlanOverflow)?;
    refuse_overlaps(machine, plan.reservation, tree)?;
    if machine.memory.region_of(plan.reservation).is_none() {
        let needed = plan.reservation.size();
        return Err(RefusalReason::ReservationOutsideMemory {
            base: image.start(),
            needed,
        });
    }
    Ok(plan)
}

/// The parts, one behind the other. `None` if they do not fit 48 bits.
fn lay_out(
    machine: &MachineDescription<'_>,
    image: PhysRange,
    input_size: InputSize,
    wanted: &Wanted,
) -> Option<BootPlan> {
    let memory = &machine.memory;
    let regions = memory.block_count(Arm4K::REGION_SHIFT);
    let mut next = Bump { end: image.end() };
    let ownership_array = next.take(regions.checked_mul(REGION_ENTRY_SIZE)?, FRAME_SIZE)?;
    let host_root = next.take(input_size.root_bytes(), input_size.root_bytes())?;
    let host_tables = next.take_frames(host_tables(memory, input_size))?;
    let per_cpu_stride = wanted.per_cpu_size.checked_next_multiple_of(FRAME_SIZE)?;
    let cpus = u64::try_from(machine.cpus.len()).ok()?;
    let per_cpu = next.take(per_cpu_stride.checked_mul(cpus)?, FRAME_SIZE)?;
    let hyp_tables = next.take_frames(wanted.hyp_tables)?;
    let pool_start = next.end.checked_next_multiple_of(FRAME_SIZE)?;
    let needed_end = pool_start.checked_add(wanted.min_pool.max(1).checked_mul(FRAME_SIZE)?)?;
    let end = needed_end.max(image.start().checked_add(MIN_RESERVATION)?);
    Some(BootPlan {
        reservation: PhysRange::from_bounds(image.start(), end)?,
        image,
        ownership_array,
        regions,
        host_root,
        host_tables,
        per_cpu,
        per_cpu_stride,
        hyp_tables,
        pool: PhysRange::from_bounds(pool_start, end)?,
        input_size,
    })
}

/// How many tables below the root map all RAM at 2 MiB: a level-2 table for each GiB that RAM touches, and where
/// the walk starts at level 0, a level-1 table for each 512 GiB; and those for devices.
fn host_tables(memory: &MemoryMap, input_size: InputSize) -> u64 {
    let level_2 = memory.block_count(Arm4K::level_shift(1));
    let level_1 = if input_size.start_level() == 0 {
        memory.block_count(Arm4K::level_shift(0))
    } else {
        0
    };
    level_2 + level_1 + DEVICE_TABLES
}

/// Hands out memory, upwards.
struct Bump {
    end: u64,
}

impl Bump {
    /// The next `size` bytes at a multiple of `align`.
    fn take(&mut self, size: u64, align: u64) -> Option<PhysRange> {
        let start = self.end.checked_next_multiple_of(align)?;
        self.end = start.checked_add(size)?;
        PhysRange::new(start, size)
    }

    fn take_frames(&mut self, frames: u64) -> Option<PhysRange> {
        self.take(frames.checked_mul(FRAME_SIZE)?, FRAME_SIZE)
    }
}

/// Refuses if EL2's memory, the modules, the tree and the firmware's memory are not all apart.
fn refuse_overlaps(
    machine: &MachineDescription<'_>,
    reservation: PhysRange,
    tree: PhysRange,
) -> Result<(), RefusalReason> {
    let mut placed: ArrayVec<(Occupant, PhysRange), 4> = ArrayVec::new();
    placed.push((Occupant::Reservation, reservation));
    placed.push((Occupant::Kernel, machine.kernel.range));
    placed.extend(machine.ramdisk.map(|ramdisk| (Occupant::Ramdisk, ramdisk.range)));
    placed.push((Occupant::DeviceTree, tree));
    for (index, (first, at)) in placed.iter().copied().enumerate() {
        // A loader may well list what it put in memory as reserved. What no kernel may map is another matter, and
        // EL2 shares its memory with nobody.
        let keeps_off = |no_map: bool| match first {
            Occupant::Reservation => true,
            Occupant::Kernel | Occupant::Ramdisk => no_map,
            Occupant::DeviceTree | Occupant::Firmware => false,
        };
        let firmware = machine
            .reservations
            .iter()
            .filter(|reservation| keeps_off(reservation.no_map));
        let firmware = firmware.map(|reservation| (Occupant::Firmware, reservation.range));
        let others = placed.iter().copied().skip(index + 1).chain(firmware);
        if let Some((second, with)) = others.into_iter().find(|(_, with)| at.overlaps(*with)) {
            return Err(RefusalReason::Overlap {
                first,
                at,
                second,
                with,
            });
        }
    }
    Ok(())
}

/// The lowest `size` bytes of RAM at a multiple of `align` (a power of two) that are apart from what the firmware
/// reserved, from the modules, and from everything in `avoid`: EL2's memory, the machine's tree, and the whole
/// memory that the kernel's Image header asks for, which is more than its file. `None` if there is no such place.
#[must_use]
pub fn find_hole(
    machine: &MachineDescription<'_>,
    size: u64,
    align: u64,
    avoid: &[PhysRange],
) -> Option<PhysRange> {
    if !align.is_power_of_two() {
        return None;
    }
    let modules = [Some(machine.kernel), machine.ramdisk]
        .into_iter()
        .flatten()
        .map(|module| module.range);
    let reserved = machine.reservations.iter().map(|reservation| reservation.range);
    let busy = modules.chain(reserved).chain(avoid.iter().copied());
    machine.memory.regions().iter().find_map(|region| {
        let mut start = region.start();
        // Each turn ends at a place that is free, or goes on behind something in the way: always upwards.
        loop {
            let hole = PhysRange::new(start.checked_next_multiple_of(align)?, size)?;
            if !region.contains(hole) {
                return None;
            }
            match busy.clone().find(|busy| busy.overlaps(hole)) {
                None => return Some(hole),
                Some(busy) => start = busy.end(),
            }
        }
    })
}

#[cfg(test)]
mod tests;
