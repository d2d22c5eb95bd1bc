//! The payload's acts, played once more on hyp-core's recording double.
//!
//! The double gets the RAM, the table shapes and the devices of the machine, as its device tree has them, and a pool
//! where the machine's is; then the same call makes the same core take the same steps.
//!
//! - [`guest`]: guests that do what the machine's did.

mod guest;

use super::acts::{Act, Answer, Arguments, Deed};
use anyhow::{Context as _, Result, anyhow, ensure};
use hyp_abi::vm::MAX_VMS;
use hyp_core::addr::{Frame, FrameSpan, Ipa, PhysAddr};
use hyp_core::double::{Machine, Step};
use hyp_core::geometry::{Arm4K, Geometry as _};
use hyp_core::hardware::Regime;
use hyp_core::hypercall::host_call;
use hyp_core::machine::{InputSize, MachineDescription, describe};
use hyp_core::map::{Entry, OwnershipMap};
use hyp_core::ownership::{AbortVerdict, DeviceOwner, DeviceRange, Devices, HostAccess, Ownership};
use hyp_core::pgtable::{
    Change, HypAccess, HypAttributes, HypStage1, IpaSpan, LargestLeaf, Stage2, Stage2Attributes, Table,
};
use hyp_core::state::HypUse;
use hyp_core::sync::AtomicU64;
use hyp_core::vm::VmSlot;

/// The lower half of a machine in this process.
#[derive(Debug)]
pub struct Replay {
    system: Ownership<'static, Machine<Arm4K>>,
}

impl Replay {
    /// The machine that `tree` describes, with CPUs of `pa_bits` physical address bits, as its payload finds it.
    /// EL2's memory is the `reserved` bytes from `image` on.
    ///
    /// # Errors
    /// If the tree is not one, or the double does not come up.
    pub fn new(tree: &[u8], pa_bits: u32, image: u64, reserved: u64) -> Result<Self> {
        let machine = describe(tree).map_err(|refusal| anyhow!("{refusal}"))?;
        let reservation = frames(image, reserved)?;
        let ram: Vec<FrameSpan> = machine
            .memory
            .regions()
            .iter()
            .map(|region| region.frames_touched())
            .collect();
        let double = Machine::<Arm4K>::new(&ram, reservation);
        let count = OwnershipMap::<Arm4K>::words_needed(ram.iter().copied()).context("RAM in disorder")?;
        let words: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let map = OwnershipMap::new(Box::leak(words.into_boxed_slice()), ram.iter().copied())
            .map_err(|error| anyhow!("{error:?}"))?;
        let host = host_table(&double, &machine, pa_bits)?;
        let hyp = hyp_table(&double, reservation)?;
        let slots: Vec<VmSlot<Machine<Arm4K>>> = (0..MAX_VMS).map(|_| VmSlot::new()).collect();
        let slots = Box::leak(slots.into_boxed_slice());
        let system = Ownership::new(double, map, host, hyp, devices(&machine)?, slots);
        system
            .claim_at_boot(reservation, Entry::hyp(HypUse::Boot))
            .map_err(|refusal| anyhow!("{refusal:?}"))?;
        system.keep_spare();
        let replay = Self { system };
        // The payload has talked before its first act.
        let uart = machine.uart.context("the machine has no UART")?;
        replay.touch(uart.start())?;
        Ok(replay)
    }

    /// Plays an act, and tells the steps that the core took.
    ///
    /// # Errors
    /// If the answer is not the one that the machine gave.
    pub fn play(&self, act: &Act) -> Result<Vec<Step>> {
        let double = self.system.hardware();
        double.record(true);
        match &act.deed {
            Deed::Call(arguments, answer) => self.call(*arguments, *answer).context(act.name.clone())?,
            Deed::Run(run) => self.run(run).context(act.name.clone())?,
            &Deed::Load(address, was_let_through) => {
                let verdict = self.touch(address)?;
                ensure!(
                    was_let_through == (verdict == AbortVerdict::Retry),
                    "{}: hyp-core says {verdict:?}",
                    act.name
                );
            }
        }
        Ok(double.take_log())
    }

    fn call(&self, arguments: Arguments, expected: Answer) -> Result<()> {
        let answer = host_call(&self.system, arguments);
        let [v1, v2, v3] = answer.values;
        let answer = [answer.status.to_register(), v1, v2, v3];
        ensure!(
            answer == expected,
            "the machine answered {expected:x?}, and hyp-core answers {answer:x?}"
        );
        Ok(())
    }

    fn touch(&self, address: u64) -> Result<AbortVerdict> {
        let address = Ipa::new(address).context("an address beyond 48 bits")?;
        Ok(self.system.judge_host_abort(address, HostAccess::Read))
    }
}

fn frames(start: u64, bytes: u64) -> Result<FrameSpan> {
    PhysAddr::new(start)
        .and_then(|start| FrameSpan::new(start.frame(), bytes >> hyp_core::addr::FRAME_SHIFT))
        .context("no such frames")
}

/// All RAM mapped to itself by blocks of a region.
fn host_table(
    double: &Machine<Arm4K>,
    machine: &MachineDescription<'_>,
    pa_bits: u32,
) -> Result<Table<Stage2, Arm4K>> {
    let size = InputSize::covering_memory(machine.memory.end(), machine.device_end, pa_bits)
        .map_err(|refusal| anyhow!("{refusal}"))?;
    let root = double.allocate_root(size.root_tables());
    let host = Table::new(root, size.start_level(), size.bits(), Regime::Host)
        .context("no such table for the host")?;
    for run in machine.memory.blocks(Arm4K::REGION_SHIFT) {
        let regions = Frame::new(run.first << Arm4K::BITS_PER_LEVEL)
            .and_then(|start| FrameSpan::new(start, run.count << Arm4K::BITS_PER_LEVEL))
            .context("RAM beyond 48 bits")?;
        let change = Change::Map {
            pa: regions.start().address(),
            attributes: Stage2Attributes::HOST_MEMORY,
            largest: LargestLeaf::Region,
        };
        host.apply(double, IpaSpan::identity(regions), change)?
            .complete(double);
    }
    Ok(host)
}

/// EL2's own memory mapped to itself, page by page.
fn hyp_table(double: &Machine<Arm4K>, reservation: FrameSpan) -> Result<Table<HypStage1, Arm4K>> {
    let table = Table::new(
        double.allocate_root(1),
        0,
        hyp_core::addr::MAX_ADDRESS_BITS,
        Regime::Hyp,
    )
    .context("no such table for EL2")?;
    let change = Change::Map {
        pa: reservation.start().address(),
        attributes: HypAttributes::memory(HypAccess::ReadWrite),
        largest: LargestLeaf::Page,
    };
    table
        .apply(double, IpaSpan::identity(reservation), change)?
        .complete(double);
    Ok(table)
}

/// The registers that EL2 keeps. (Those that it emulates lie beside them.)
fn devices(machine: &MachineDescription<'_>) -> Result<Devices> {
    let mut devices = Devices::new();
    for range in machine.fw_cfgs.iter().chain(&machine.gic.its) {
        let frames = range.frames_touched();
        devices.add(DeviceRange {
            start: frames.start().address(),
            bytes: frames.bytes(),
            owner: DeviceOwner::Hyp,
        })?;
    }
    Ok(devices)
}
