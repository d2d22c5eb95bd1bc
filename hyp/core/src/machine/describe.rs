//! From the device tree to a [`MachineDescription`], in one walk.
//!
//! The tree comes from the machine's firmware, which Freehold trusts; yet whatever the bytes are, the answer is a
//! description or a reason, never a panic and never an endless walk. What is not understood is taken at its
//! worst: a device of an unknown kind counts as a DMA master, too many of something is a refusal.

mod devices;
mod interrupts;

use super::range::MAX_MEMORY_REGIONS;
use super::refusal::Occupant;
use super::walk::{Facts, Walk, parse, strings};
use super::{
    Affinity, MAX_CPUS, MAX_RESERVATIONS, MachineDescription, MemoryMap, Module, PhysRange, PsciVersion,
    RefusalReason, Reservation,
};
use crate::addr::MAX_ADDRESS_BITS;
use arrayvec::ArrayVec;
use devices::Devices;
use dtoolkit::fdt::{Fdt, FdtProperty};
use dtoolkit::{Node, Property};
use interrupts::read_timer;

/// QEMU's firmware configuration device.
pub(super) const FW_CFG: &str = "qemu,fw-cfg-mmio";

/// The GIC's interrupt translation service.
pub(super) const ITS: &str = "arm,gic-v3-its";

/// The architected timer, as device trees name it.
pub(super) const TIMER: [&str; 2] = ["arm,armv8-timer", "arm,armv7-timer"];

/// The kinds of module that guest-loader writes.
pub(super) const KERNEL_MODULE: &str = "multiboot,kernel";
pub(super) const RAMDISK_MODULE: &str = "multiboot,ramdisk";

/// Reads the device tree at the start of `dtb`; bytes after it are ignored. Takes about 8 KiB of stack, and the
/// caller 5 KiB for the answer.
///
/// # Errors
/// The reason why Freehold cannot run on the machine, if it cannot as far as the tree tells.
pub fn describe(dtb: &[u8]) -> Result<MachineDescription<'_>, RefusalReason> {
    let tree = parse(dtb)?;
    let mut draft = Draft::new(tree)?;
    let mut walk = Walk::new(tree);
    while walk.next_node()? {
        draft.take(&walk)?;
    }
    draft.finish()
}

/// What has been found so far.
struct Draft<'a> {
    memory: MemoryMap,
    reservations: ArrayVec<Reservation, MAX_RESERVATIONS>,
    psci: Option<PsciVersion>,
    has_psci_0_1: bool,
    cpus: ArrayVec<Affinity, MAX_CPUS>,
    timer: Option<Facts<'a>>,
    devices: Devices<'a>,
    kernel: Option<Module<'a>>,
    ramdisk: Option<Module<'a>>,
    rng_seed: Option<&'a [u8]>,
    kaslr_seed: Option<&'a [u8]>,
}

impl<'a> Draft<'a> {
    fn new(tree: Fdt<'a>) -> Result<Self, RefusalReason> {
        let chosen = tree.find_node("/chosen");
        let seed = |name| Some(bytes(chosen?.property(name)?));
        let mut draft = Self {
            memory: MemoryMap::new(),
            reservations: ArrayVec::new(),
            psci: None,
            has_psci_0_1: false,
            cpus: ArrayVec::new(),
            timer: None,
            devices: Devices::new(tree),
            kernel: None,
            ramdisk: None,
            rng_seed: seed("rng-seed"),
            kaslr_seed: seed("kaslr-seed"),
        };
        for reservation in tree.memory_reservations() {
            draft.reserve(reservation.address(), reservation.size(), false)?;
        }
        Ok(draft)
    }

    /// Takes in the node that the walk is at.
    fn take(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let facts = walk.facts();
        if walk.depth() == 1 && strings(facts.device_type).eq(["memory"]) {
            return if facts.is_enabled() {
                self.take_memory(walk)
            } else {
                Ok(())
            };
        }
        if walk.is_child_of("reserved-memory") {
            return self.take_reservation(walk);
        }
        if walk.is_child_of("cpus") {
            return if strings(facts.device_type).eq(["cpu"]) {
                self.take_cpu(walk)
            } else {
                Ok(())
            };
        }
        if walk.is_child_of("chosen") {
            return self.take_module(walk);
        }
        if facts.is_compatible(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]) {
            return self.take_psci(facts);
        }
        if facts.is_compatible(&TIMER) && self.timer.is_none() {
            self.timer = Some(*facts);
        }
        self.devices.take(walk)
    }

    fn take_memory(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let entries = walk.reg().ok_or(RefusalReason::bad("a memory node", "reg"))?;
        for [start, size] in entries.filter(|[_, size]| *size != 0) {
            let end = start.saturating_add(size);
            let range = PhysRange::new(start, size).ok_or(RefusalReason::MemoryBeyond48Bits { end })?;
            let too_many = RefusalReason::TooMany {
                what: "separate regions of RAM",
                capacity: MAX_MEMORY_REGIONS,
            };
            self.memory.add(range).map_err(|_| too_many)?;
        }
        Ok(())
    }

    fn take_reservation(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let facts = walk.facts();
        // A node without `reg` asks the kernel to find the memory: the kernel's own affair.
        if facts.reg.is_none() || !facts.is_enabled() {
            return Ok(());
        }
        let entries = walk
            .reg()
            .ok_or(RefusalReason::bad("a child of /reserved-memory", "reg"))?;
        for [start, size] in entries {
            self.reserve(start, size, facts.no_map)?;
        }
        Ok(())
    }

    fn reserve(&mut self, start: u64, size: u64, no_map: bool) -> Result<(), RefusalReason> {
        const END: u64 = 1 << MAX_ADDRESS_BITS;
        // What is empty, or beyond every address that anyone here can use, needs no keeping.
        match PhysRange::from_bounds(start, start.saturating_add(size).min(END)) {
            Some(range) => push(
                &mut self.reservations,
                Reservation { range, no_map },
                "reserved ranges",
            ),
            None => Ok(()),
        }
    }

    fn take_cpu(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let facts = walk.facts();
        let number = walk.reg().and_then(|mut entries| entries.next());
        let bad = RefusalReason::bad("a CPU node", "reg");
        let [mpidr, _] = number.ok_or(bad.clone())?;
        if mpidr & !Affinity::MPIDR_MASK != 0 {
            return Err(bad);
        }
        if strings(facts.enable_method)
            .next()
            .is_some_and(|method| method != "psci")
        {
            return Err(RefusalReason::CpuEnableMethod(mpidr));
        }
        let cpu = Affinity::from_mpidr(mpidr);
        if self.cpus.contains(&cpu) {
            return Err(RefusalReason::DuplicateCpu(mpidr));
        }
        push(&mut self.cpus, cpu, "CPUs")
    }

    fn take_module(&mut self, walk: &Walk<'a>) -> Result<(), RefusalReason> {
        let facts = walk.facts();
        let (place, what) = if facts.is_compatible(&[KERNEL_MODULE]) {
            (&mut self.kernel, "host kernels")
        } else if facts.is_compatible(&[RAMDISK_MODULE]) {
            (&mut self.ramdisk, "ramdisks")
        } else {
            return Ok(());
        };
        let bad = RefusalReason::bad("a module in /chosen", "reg");
        let [start, size] = walk
            .reg_in_root_cells()
            .and_then(|mut entries| entries.next())
            .ok_or(bad.clone())?;
        let range = PhysRange::new(start, size).ok_or(bad)?;
        if place.is_some() {
            return Err(RefusalReason::TooMany { what, capacity: 1 });
        }
        *place = Some(Module {
            range,
            bootargs: strings(facts.bootargs).next(),
        });
        Ok(())
    }

    fn take_psci(&mut self, facts: &Facts<'a>) -> Result<(), RefusalReason> {
        let version = if facts.is_compatible(&["arm,psci-1.0"]) {
            PsciVersion::V1_0
        } else if facts.is_compatible(&["arm,psci-0.2"]) {
            PsciVersion::V0_2
        } else {
            self.has_psci_0_1 = true;
            return Ok(());
        };
        match strings(facts.method).next() {
            Some("smc") => self.psci = Some(version),
            Some("hvc") => return Err(RefusalReason::PsciConduit("HVC")),
            _ => return Err(RefusalReason::PsciConduit("an unknown method")),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<MachineDescription<'a>, RefusalReason> {
        if self.memory.regions().is_empty() {
            return Err(RefusalReason::NoMemory);
        }
        let missing = if self.has_psci_0_1 {
            RefusalReason::PsciTooOld
        } else {
            RefusalReason::NoPsci
        };
        let psci = self.psci.ok_or(missing)?;
        let gic = self.devices.take_gic()?;
        if self.cpus.is_empty() {
            return Err(RefusalReason::NoCpus);
        }
        let timer = read_timer(
            &self.timer.ok_or(RefusalReason::NoTimer)?,
            self.devices.interrupt_cells,
        )?;
        let kernel = self.kernel.ok_or(RefusalReason::NoHostKernel)?;
        for (name, module) in [
            (Occupant::Kernel, Some(kernel)),
            (Occupant::Ramdisk, self.ramdisk),
        ] {
            let stray = module.filter(|module| self.memory.region_of(module.range).is_none());
            if let Some(Module { range, .. }) = stray {
                return Err(RefusalReason::ModuleOutsideMemory { name, range });
            }
        }
        Ok(MachineDescription {
            memory: self.memory,
            reservations: self.reservations,
            psci,
            gic,
            uart: self.devices.uart(),
            cpus: self.cpus,
            timer,
            fw_cfgs: self.devices.fw_cfgs,
            dma_masters: self.devices.dma_masters,
            has_smmu: self.devices.has_smmu,
            kernel,
            ramdisk: self.ramdisk,
            rng_seed: self.rng_seed,
            kaslr_seed: self.kaslr_seed,
            device_end: self.devices.device_end,
        })
    }
}

/// Adds to a list, or says that there is too much of it.
fn push<T, const N: usize>(
    list: &mut ArrayVec<T, N>,
    item: T,
    what: &'static str,
) -> Result<(), RefusalReason> {
    list.try_push(item)
        .map_err(|_| RefusalReason::TooMany { what, capacity: N })
}

/// A property's bytes, which live as long as the tree.
fn bytes(property: FdtProperty<'_>) -> &[u8] {
    property.value_as().unwrap_or_default()
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
