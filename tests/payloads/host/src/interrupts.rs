//! Interrupts: a GICv3 with the two timers' interrupts and one to wake CPUs, and nothing else enabled.
#![expect(unsafe_code, reason = "takes the GIC's registers")]

use crate::machine::Machine;
use crate::sysreg::{self, AFFINITY};
use crate::timer;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{
    GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator, Group, SgiTarget,
    SgiTargetGroup,
};
use arm_gic::{IntId, InterruptGroup, Trigger};
use core::ptr::{NonNull, with_exposed_provenance_mut};
use safe_mmio::UniqueMmioPointer;

/// The non-secure physical timer of EL1: PPI 14, INTID 30 (Arm BSA, DEN0094).
pub(crate) const TIMER: IntId = IntId::ppi(14);

/// The virtual timer: PPI 11, INTID 27. It belongs to guests; while one runs, its interrupt brings EL2 back, and EL2
/// stops the timer before the host could see it.
const GUEST_TIMER: IntId = IntId::ppi(11);

/// What one CPU sends another that may sleep: there is something to do.
const WAKE: IntId = IntId::sgi(0);

/// Sets the distributor up. Once, on the boot CPU.
pub(crate) fn init(machine: &Machine) {
    let registers = NonNull::new(with_exposed_provenance_mut::<Gicd>(
        machine.gic_distributor as usize,
    ))
    .expect("a distributor is not at address 0");
    // SAFETY: the device tree says that a GICv3 distributor is there; it is mapped as a device; this is the only
    // place that uses it.
    let registers = unsafe { UniqueMmioPointer::new(registers) };
    GicDistributor::new(registers).configure_default_settings();
}

/// Sets this CPU's redistributor and interface up and enables the interrupts.
pub(crate) fn init_cpu(machine: &Machine) {
    GicCpuInterface::enable_system_register_el1();
    let mut redistributor = own_redistributor(machine).expect("every CPU has a redistributor");
    // It may be awake already, which is just as good.
    let _ = redistributor.mark_core_awake();
    redistributor.configure_default_settings();
    for result in [
        redistributor.set_group(TIMER, Group::Group1NS),
        redistributor.set_trigger(TIMER, Trigger::Level),
        redistributor.set_interrupt_priority(TIMER, 0x80),
        redistributor.enable_interrupt(TIMER, true),
        redistributor.set_group(GUEST_TIMER, Group::Group1NS),
        redistributor.set_trigger(GUEST_TIMER, Trigger::Level),
        redistributor.set_interrupt_priority(GUEST_TIMER, 0x80),
        redistributor.enable_interrupt(GUEST_TIMER, true),
        redistributor.enable_interrupt(WAKE, true),
    ] {
        result.expect("SGIs and PPIs are the redistributor's");
    }
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
}

/// Wakes the CPU with this affinity, if it waits for an interrupt.
pub(crate) fn wake(affinity: u64) {
    // What the CPU is to find must be there before the interrupt is.
    sysreg::barrier();
    let [affinity0, affinity1, affinity2, _, affinity3, ..] = affinity.to_le_bytes();
    // QEMU's and Arm's clusters have up to 16 CPUs, so that an SGI's list can name each.
    let target = SgiTarget::List {
        affinity3,
        affinity2,
        affinity1,
        target_list: 1 << (affinity0 & 0xf),
    };
    GicCpuInterface::send_sgi(WAKE, target, SgiTargetGroup::CurrentGroup1).expect("an SGI can be sent");
}

/// Physical address of this CPU's redistributor: its RD frame, with the SGI frame 64 KiB above.
pub(crate) fn own_redistributor_address(machine: &Machine) -> Option<u64> {
    machine.gic_redistributors.iter().find_map(|region| {
        let index = redistributors(region.start)?.position(|redistributor| is_own(&redistributor))?;
        Some(region.start + (index * size_of::<GicrSgi>()) as u64)
    })
}

fn own_redistributor(machine: &Machine) -> Option<GicRedistributor<'static>> {
    machine
        .gic_redistributors
        .iter()
        .find_map(|region| redistributors(region.start)?.find(is_own))
}

/// The redistributors of a region of the device tree.
fn redistributors(base: u64) -> Option<GicRedistributorIterator<'static>> {
    let base = NonNull::new(with_exposed_provenance_mut::<GicrSgi>(base as usize))?;
    // SAFETY: the device tree names the region, it is mapped as a device, and its last redistributor says so.
    // Every CPU reads TYPER of all, which disturbs nobody, and goes on to use its own alone.
    Some(unsafe { GicRedistributorIterator::new(base, false) })
}

fn is_own(redistributor: &GicRedistributor<'_>) -> bool {
    redistributor.typer().core_mpidr() == sysreg::mpidr() & AFFINITY
}

/// Takes the timer's interrupt, or whatever else is there, and ends it.
pub(crate) fn serve() {
    while let Some(interrupt) = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) {
        if interrupt == TIMER {
            timer::expired();
        }
        GicCpuInterface::end_interrupt(interrupt, InterruptGroup::Group1);
    }
}
