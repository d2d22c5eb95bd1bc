//! What the console is told at boot.

use crate::cpu;
use hyp_core::machine::{BootPlan, CpuFeatures, MachineDescription};
use log::info;

/// The machine, and EL2's memory in it.
pub(super) fn machine(machine: &MachineDescription<'_>, plan: &BootPlan, features: &CpuFeatures) {
    let cpus = machine.cpus.len();
    let model = cpu::model_name();
    info!(
        "machine: {cpus} CPU(s), {model}, {} bits of physical address, VMIDs of {} bits",
        features.pa_bits, features.vmid_bits
    );
    for region in machine.memory.regions() {
        info!("machine: RAM {region}, {} MiB", region.size() >> 20);
    }
    for reservation in &machine.reservations {
        let kind = if reservation.no_map { ", no-map" } else { "" };
        info!("machine: reserved by the firmware {}{kind}", reservation.range);
    }
    let redistributors = machine.gic.redistributors.len();
    info!(
        "machine: GICv3 distributor {}, {redistributors} region(s) of redistributors",
        machine.gic.distributor
    );
    if let Some(uart) = machine.uart {
        info!("machine: console PL011 at {:#x}", uart.start());
    }
    info!(
        "EL2: reserved {}, {} KiB",
        plan.reservation,
        plan.reservation.size() >> 10
    );
    info!(
        "EL2: image {}, ownership map {} of {} regions",
        plan.image, plan.ownership_array, plan.regions
    );
    info!(
        "EL2: CPUs {}, host's root {}, {} bits of IPA",
        plan.per_cpu,
        plan.host_root,
        plan.input_size.bits()
    );
    let (free, total) = crate::pool::pages();
    info!("EL2: pool of {total} pages, {free} free");
    for range in &machine.fw_cfgs {
        info!("EL2: keeps fw_cfg {range}");
    }
    for range in &machine.gic.its {
        info!("EL2: keeps ITS {range}");
    }
    info!("EL2: watches the LPI registers of the redistributors");
    for kind in &machine.dma_masters.kinds {
        info!(
            "trusted DMA master: {} x {} ({})",
            kind.count, kind.compatible, kind.first
        );
    }
    if machine.dma_masters.unlisted != 0 {
        info!("trusted DMA masters: {} more", machine.dma_masters.unlisted);
    }
    info!("host: kernel {}", machine.kernel.range);
    if let Some(ramdisk) = machine.ramdisk {
        info!("host: ramdisk {}", ramdisk.range);
    }
}

/// The last words before the host runs.
pub(super) fn entering_host(entry: u64, tree: u64) {
    info!("host: enters EL1 at {entry:#x}, device tree at {tree:#x}");
}
