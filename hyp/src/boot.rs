//! The first CPU's way from the entry code to the host.
//!
//! [`boot_main`] runs on the boot's own stack and tables, looks at the machine, and lays out EL2's memory. It ends
//! by switching to the final table and this CPU's own stack, on which [`finish`] gives the boot's memory to the
//! pool and enters the host. What each step needs is in a module of its own:
//!
//! - [`devices`]: which registers EL2 keeps, and which it lets the host use through it.
//! - [`ownership`]: the ownership map and the host's table as they are at first.
//! - [`tables`]: EL2's final table.
//! - [`host`]: the host's kernel and its device tree.
//! - [`seeds`]: what of the machine's entropy the host gets.
//! - [`report`]: what the console is told.

#![expect(
    unsafe_code,
    reason = "takes over what the entry code left, and reads what the loader left"
)]

mod devices;
mod host;
mod ownership;
mod report;
mod seeds;
mod tables;

use crate::console::{self, Port};
use crate::machine::{self, Facts};
use crate::mmu::{EarlyMemory, EarlyTables};
use crate::percpu::{self, PerCpu};
use crate::secondary::StartArguments;
use crate::world::{World, simd};
use crate::{cache, cpu, layout, mmu, pool, private_area, refuse, registers, smc, vectors};
use core::ptr;
use core::slice;
use dtoolkit::fdt::Fdt;
use hyp_core::addr::{FRAME_SIZE, PhysAddr};
use hyp_core::hardware::TablePage;
use hyp_core::machine::{
    BootPlan, CpuFeatures, MachineDescription, PhysRange, RefusalReason, TREE_SIZE_PREFIX, Wanted, describe,
    judge_cpu, plan, tree_size,
};
use hyp_core::pgtable::MAIR;
use hyp_core::psci::Slot;

/// Frames of the pool that the boot itself and the host's first steps take: tables for EL2's registers and for the
/// blocks around them in the host's table.
const MIN_POOL: u64 = 24;

/// Rust's first function on the first CPU. `tree`: the device tree. `image`: where the image is. `next_table`: the
/// first early table that is free.
pub(crate) extern "C" fn boot_main(tree: u64, image: u64, next_table: u64) -> ! {
    vectors::install_boot();
    // SAFETY: the entry code has just made these tables, and calls this once.
    let mut tables = unsafe { EarlyTables::take(next_table) };
    let Some(tree) = PhysAddr::new(tree) else {
        refuse::halt()
    };
    match prepare(tree, image, &mut tables) {
        Ok(start) => {
            // SAFETY: the entry code maps the tree for writing, and what was read from it was `prepare`'s alone.
            unsafe { start.seeds.wipe() };
            tables::switch(start.entry, start.tree)
        }
        Err(reason) => {
            log::error!("refused: {reason}");
            log::logger().flush();
            // SAFETY: the entry code maps the tree.
            if let Ok(tree) = unsafe { Fdt::from_raw(pointer(tree)) } {
                refuse::power_off(tree);
            }
            refuse::halt()
        }
    }
}

/// Where the host starts, and what EL2 needs to get there.
pub(crate) struct Start {
    /// Its kernel's first instruction.
    pub(crate) entry: u64,
    /// Its device tree.
    pub(crate) tree: u64,
    /// The machine's seeds, from which its own were made.
    seeds: seeds::Spent,
}

fn pointer(address: PhysAddr) -> *const u8 {
    ptr::with_exposed_provenance(address.value() as usize)
}

/// Looks at the machine and lays out everything, short of leaving the boot's tables.
fn prepare(tree: PhysAddr, image: u64, tables: &mut EarlyTables) -> Result<Start, RefusalReason> {
    let tree_bytes = read_tree(tree)?;
    open_console(tree_bytes, tables);
    let features = judge_cpu(&cpu::identity())?;
    cpu::set_features(features);
    let vector_bytes = simd::longest(&features);
    simd::set_longest(vector_bytes);
    cpu::note_errata();
    let machine = describe(tree_bytes)?;
    let image = PhysRange::from_bounds(image, layout::image_end()).ok_or(RefusalReason::PlanOverflow)?;
    let tree_range =
        PhysRange::new(tree.value(), tree_bytes.len() as u64).ok_or(RefusalReason::PlanOverflow)?;
    let redistributors = devices::redistributors(&machine, tables)?;
    let wanted = Wanted {
        per_cpu_size: percpu::area_size(vector_bytes),
        hyp_tables: tables::pages_needed(machine.cpus.len(), redistributors.len()),
        min_pool: MIN_POOL,
    };
    let plan = plan::plan(&machine, image, tree_range, features.pa_bits, &wanted)?;
    let reservation = plan.reservation;
    tables.map(reservation.address(), reservation.size(), EarlyMemory::Normal);

    let ram = machine
        .memory
        .regions()
        .iter()
        .map(|region| (region.start(), region.end()));
    let registers = redistributors.iter().map(|frame| (frame.start(), frame.end()));
    let uart = machine.uart.iter().map(|uart| (uart.start(), uart.end()));
    private_area::choose(ram.chain(registers).chain(uart)).ok_or(RefusalReason::PlanOverflow)?;

    add_pool(&plan);
    let root = pool::allocate_for_good(FRAME_SIZE).ok_or(RefusalReason::PlanOverflow)?;
    let root = TablePage::new(root.frame());
    set_up_cpus(&machine, &plan, &features, root.frame().address());
    machine::set_facts(facts(&machine, &plan, &features));
    // SAFETY: its data was initialized just now, and stays.
    unsafe { PerCpu::install(boot_cpu_data(&machine, &plan)?) };
    let hyp = tables::build(root, &plan, &machine, &redistributors);
    ownership::set_up(&machine, &plan, hyp, devices::claims(&machine, &redistributors)?);
    report::machine(&machine, &plan, &features);
    smc::set_up(machine.cpus.len(), |index| slot(&machine, &plan, index));
    let host = host::prepare(&machine, &plan, tree_bytes, tree_range, tables)?;
    Ok(Start {
        entry: host.entry,
        tree: host.tree,
        seeds: seeds::Spent::of(&machine),
    })
}

/// The bytes of the device tree.
///
/// # Errors
/// If the header is not one, or claims more than the boot protocol allows.
fn read_tree(tree: PhysAddr) -> Result<&'static [u8], RefusalReason> {
    // SAFETY: the entry code maps the tree, up to the 2 MiB that it may have; nobody writes it before the host runs,
    // and the boot is over by then.
    let prefix = unsafe { slice::from_raw_parts(pointer(tree), TREE_SIZE_PREFIX) };
    let size = tree_size(prefix)?;
    // SAFETY: as above, and the size was checked.
    Ok(unsafe { slice::from_raw_parts(pointer(tree), size) })
}

/// Opens the console that the tree names, so that what comes can be told. Without one the boot is silent.
fn open_console(tree: &[u8], tables: &mut EarlyTables) {
    let Some(uart) = Fdt::new(tree).ok().and_then(refuse::find_uart) else {
        return;
    };
    tables.map(uart, FRAME_SIZE, EarlyMemory::Device);
    // SAFETY: the tree says that a PL011 is there; it was mapped as device memory, and nobody else runs.
    if let Some(port) = unsafe { Port::new(uart) } {
        console::open(port);
    }
}

/// What everyone after the boot needs to know.
fn facts(machine: &MachineDescription<'_>, plan: &BootPlan, features: &CpuFeatures) -> Facts {
    Facts {
        reservation: plan.reservation.frames_touched(),
        per_cpu: data_address(plan, 0),
        stride: plan.per_cpu_stride,
        cpus: machine.cpus.len(),
        host_root: plan.host_root.frames_touched(),
        vtcr: registers::vtcr(plan.input_size, features),
        uart: machine.uart.map(PhysRange::address),
    }
}

/// Where the data of CPU `index` is: after its stack.
fn data_address(plan: &BootPlan, index: u64) -> PhysAddr {
    let area = plan.per_cpu.start() + index * plan.per_cpu_stride;
    PhysAddr::new(area + percpu::STACK_SIZE).expect("the plan lies below 2^48")
}

/// The data of the CPU that this is.
fn boot_cpu_data(machine: &MachineDescription<'_>, plan: &BootPlan) -> Result<PhysAddr, RefusalReason> {
    let mpidr = cpu::mpidr();
    let index = machine
        .cpu_index(mpidr)
        .ok_or(RefusalReason::BootCpuMissing(mpidr))?;
    Ok(data_address(plan, index as u64))
}

/// What the relay of PSCI knows of a CPU at first.
fn slot(machine: &MachineDescription<'_>, plan: &BootPlan, index: usize) -> Slot {
    let affinity = machine.cpus.get(index).map_or(0, |cpu| cpu.mpidr());
    let argument = data_address(plan, index as u64).value();
    if machine.cpu_index(cpu::mpidr()) == Some(index) {
        Slot::on(affinity, argument)
    } else {
        Slot::off(affinity, argument)
    }
}

/// Initializes the data of every CPU.
fn set_up_cpus(machine: &MachineDescription<'_>, plan: &BootPlan, features: &CpuFeatures, root: PhysAddr) {
    for (index, affinity) in machine.cpus.iter().enumerate() {
        let address = data_address(plan, index as u64);
        let start = StartArguments {
            mair: MAIR,
            tcr: mmu::TCR | features.pa_range << mmu::TCR_PS_SHIFT,
            ttbr: root.value(),
            sctlr: mmu::SCTLR,
            stack: private_area::stack_top(index),
            per_cpu: address.value(),
        };
        let data: *mut PerCpu = ptr::with_exposed_provenance_mut(address.value() as usize);
        // SAFETY: the plan keeps this page of EL2's memory for the data of this CPU, which does not run yet, and
        // the reservation is mapped.
        unsafe { data.write(PerCpu::new(index, affinity.mpidr(), start)) };
        let world: *mut World = ptr::with_exposed_provenance_mut((address.value() + World::OFFSET) as usize);
        // SAFETY: as above: the page behind the data is the CPU's too.
        unsafe { world.write(World::new()) };
        // SAFETY: it is mapped. The CPU reads what it starts with while its caches are off.
        unsafe { cache::clean(address, FRAME_SIZE) };
    }
}

/// Gives the pool what the plan keeps for tables and for the pool itself.
fn add_pool(plan: &BootPlan) {
    pool::set_reservation(plan.reservation.frames_touched());
    for part in [plan.host_tables, plan.hyp_tables, plan.pool] {
        if let Some(frames) = part.frames_inside() {
            // SAFETY: the plan gives these frames to nothing else, and the reservation is mapped.
            unsafe { pool::add(frames) };
        }
    }
}

/// The rest of the boot, on this CPU's own stack and EL2's final table.
pub(crate) extern "C" fn finish(entry: u64, tree: u64) -> ! {
    let this = PerCpu::this();
    let boot = layout::frames(layout::boot_start(), layout::boot_end());
    // SAFETY: the boot's stack and tables are used no more; they are mapped for writing, as all of EL2's data.
    unsafe { pool::add(boot) };
    #[cfg(feature = "canary")]
    crate::canary::plant();
    registers::prepare_for_host(this, *cpu::features());
    report::entering_host(entry, tree);
    console::close();
    vectors::enter_host(entry, tree, private_area::stack_top(this.index))
}
