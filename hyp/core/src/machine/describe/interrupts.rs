//! The interrupt controller and the timer's interrupts.

use super::{bytes, push};
use crate::machine::walk::{Facts, Walk, strings};
use crate::machine::{Gic, RefusalReason, Timer};
use arrayvec::ArrayVec;
use dtoolkit::{Property, ToCellInt};

/// The GICv3 node that the walk is at, its ITSs not yet counted, and the cells of an interrupt.
pub(super) fn read_gic(walk: &Walk<'_>) -> Result<(Gic, usize), RefusalReason> {
    let facts = walk.facts();
    let bad = |property| RefusalReason::bad("the GICv3 node", property);
    let mut registers = walk.physical_reg();
    let distributor = registers.next().ok_or(bad("reg"))?;
    let mut redistributors = ArrayVec::new();
    for _ in 0..facts.redistributor_regions.unwrap_or(1) {
        let region = registers.next().ok_or(bad("reg"))?;
        push(&mut redistributors, region, "redistributor regions")?;
    }
    if redistributors.is_empty() {
        return Err(bad("#redistributor-regions"));
    }
    // One cell or two, by the binding.
    let stride = facts.redistributor_stride.map(bytes);
    let stride = stride.map(|bytes| {
        bytes
            .iter()
            .rev()
            .take(8)
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    });
    // Three cells, and a fourth where PPIs are partitioned among CPUs.
    let cells = match facts.interrupt_cells {
        Some(3) => 3,
        Some(4) => 4,
        _ => return Err(bad("#interrupt-cells")),
    };
    let redistributor_stride = stride.filter(|stride| *stride != 0);
    Ok((
        Gic {
            distributor,
            redistributors,
            redistributor_stride,
            its: ArrayVec::new(),
        },
        cells,
    ))
}

/// The interrupts of the timer node, `cells` cells each. The order is the binding's (secure physical, physical,
/// virtual, EL2 physical) unless `interrupt-names` gives another.
pub(super) fn read_timer(facts: &Facts<'_>, cells: usize) -> Result<Timer, RefusalReason> {
    const PPI: u64 = 1;
    const FIRST_PPI: u32 = 16;
    let bad = || RefusalReason::bad("the timer node", "interrupts");
    let interrupts = facts.interrupts.ok_or(bad())?;
    let mut entries: ArrayVec<u32, 8> = ArrayVec::new();
    let rest = cells.saturating_sub(2);
    for [kind, number, _] in interrupts
        .as_prop_encoded_array([1, 1, rest])
        .map_err(|_| bad())?
    {
        let (Ok(PPI), Ok(number @ 0..16)) = (kind.to_int::<u64>(), number.to_int::<u32>()) else {
            return Err(bad());
        };
        entries.try_push(FIRST_PPI + number).map_err(|_| bad())?;
    }
    let interrupt = |name: &str, place: usize| {
        let place = match facts.interrupt_names {
            Some(_) => strings(facts.interrupt_names).position(|found| found == name)?,
            None => place,
        };
        entries.get(place).copied()
    };
    Ok(Timer {
        physical: interrupt("phys", 1).ok_or(bad())?,
        virtual_el1: interrupt("virt", 2),
        hypervisor: interrupt("hyp-phys", 3),
    })
}
