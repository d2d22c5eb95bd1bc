//! The description of QEMU's machines, of odd ones, and of bytes that are no machine's.

use super::*;
use crate::machine::Timer;
use crate::machine::fixture::{EIGHT_CPUS, GIC_V2, NO_EL2, NUMA, ONE_CPU, SIXTY_FOUR_CPUS, Tree};
use std::string::ToString;
use std::vec::Vec;

const GIB: u64 = 1 << 30;

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::new(start, size).unwrap()
}

fn refusal(tree: Tree) -> RefusalReason {
    describe(&tree.dtb()).unwrap_err()
}

#[test]
fn qemu_with_one_cpu() {
    let machine = describe(ONE_CPU).unwrap();
    assert_eq!(machine.memory.regions(), [range(GIB, GIB)]);
    assert!(machine.reservations.is_empty());
    assert_eq!(machine.psci, PsciVersion::V1_0);
    assert_eq!(machine.gic.distributor, range(0x800_0000, 0x1_0000));
    assert_eq!(
        machine.gic.redistributors.as_slice(),
        [range(0x80a_0000, 0xf6_0000)]
    );
    assert_eq!(machine.gic.redistributor_stride, None);
    assert_eq!(machine.gic.its.as_slice(), [range(0x808_0000, 0x2_0000)]);
    assert_eq!(machine.uart, Some(range(0x900_0000, 0x1000)));
    assert_eq!(machine.cpus.as_slice(), [Affinity::from_mpidr(0)]);
    assert_eq!(
        machine.timer,
        Timer {
            physical: 30,
            virtual_el1: Some(27),
            hypervisor: Some(26)
        }
    );
    assert_eq!(machine.fw_cfgs.as_slice(), [range(0x902_0000, 0x18)]);
    assert_eq!(machine.kernel.range, range(0x5000_0000, 0x1_0000));
    assert_eq!(machine.kernel.bootargs, Some("console=ttyAMA0 root=/dev/ram"));
    assert_eq!(
        machine.ramdisk,
        Some(Module {
            range: range(0x5400_0000, 0x1000),
            bootargs: None
        })
    );
    assert_eq!(
        (machine.rng_seed, machine.kaslr_seed, machine.has_smmu),
        (None, None, false)
    );
    assert_eq!(machine.device_end, 1 << 40, "the high PCI window");
}

#[test]
fn the_dma_masters_of_qemu() {
    let machine = describe(SIXTY_FOUR_CPUS).unwrap();
    let mut kinds: Vec<_> = machine
        .dma_masters
        .kinds
        .iter()
        .map(|kind| (kind.compatible, kind.count))
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            ("arm,smmu-v3", 1),
            ("pci-host-ecam-generic", 1),
            ("virtio,mmio", 32)
        ]
    );
    assert_eq!(machine.dma_masters.unlisted, 0);
    assert!(machine.has_smmu);
}

#[test]
fn qemu_with_64_cpus_and_seeds() {
    let machine = describe(SIXTY_FOUR_CPUS).unwrap();
    assert_eq!(machine.memory.regions(), [range(GIB, 64 * GIB)]);
    assert_eq!(machine.cpus.len(), 64);
    assert_eq!(
        machine.cpu_index(0x8000_030f),
        Some(63),
        "bit 31 of MPIDR_EL1 is no affinity"
    );
    assert_eq!(machine.cpu_index(0x0000_0000), Some(0));
    assert_eq!(machine.cpu_index(0x0000_0400), None);
    assert_eq!(machine.rng_seed.map(<[u8]>::len), Some(32));
    assert_eq!(machine.kaslr_seed.map(<[u8]>::len), Some(8));
}

#[test]
fn numa_nodes_that_touch_are_one_region() {
    let machine = describe(NUMA).unwrap();
    assert_eq!(machine.memory.regions(), [range(GIB, 2 * GIB)]);
    assert_eq!(describe(EIGHT_CPUS).unwrap().cpus.len(), 8);
}

#[test]
fn a_hole_in_ram_makes_two_regions() {
    let tree = Tree::from(ONE_CPU).memory(3 * GIB, GIB / 2);
    let dtb = tree.dtb();
    assert_eq!(
        describe(&dtb).unwrap().memory.regions(),
        [range(GIB, GIB), range(3 * GIB, GIB / 2)]
    );
    let disabled = tree.bytes("/memory@c0000000", "status", b"disabled\0").dtb();
    assert_eq!(describe(&disabled).unwrap().memory.regions(), [range(GIB, GIB)]);
}

#[test]
fn bytes_after_the_tree_are_ignored() {
    let mut dtb = ONE_CPU.to_vec();
    dtb.extend([0xa5; 100]);
    assert_eq!(describe(&dtb), describe(ONE_CPU));
}

#[test]
fn machines_that_cannot_be_run_on() {
    assert_eq!(describe(GIC_V2), Err(RefusalReason::NoGicV3("a GICv2")));
    assert_eq!(describe(NO_EL2), Err(RefusalReason::PsciConduit("HVC")));
    let one = || Tree::from(ONE_CPU);
    let kernel = "/chosen/module@0x50000000";
    let odd_method = one().bytes("/psci", "method", b"\0");
    let old_psci = one().bytes("/psci", "compatible", b"arm,psci\0");
    let spin_table = one().bytes("/cpus/cpu@0", "enable-method", b"spin-table\0");
    let outside = one().cells(kernel, "reg", &[0, 0x3fff_f000, 0, 0x2000]);
    let beyond = one().memory((1 << 48) - 0x1000, 0x2000);
    let wrapping = one().memory(0x1000, u64::MAX);
    let cases = [
        (
            one().without_node("/", "memory@40000000"),
            RefusalReason::NoMemory,
        ),
        (
            beyond,
            RefusalReason::MemoryBeyond48Bits {
                end: (1 << 48) + 0x1000,
            },
        ),
        (wrapping, RefusalReason::MemoryBeyond48Bits { end: u64::MAX }),
        (
            one().without("/memory@40000000", "reg"),
            RefusalReason::bad("a memory node", "reg"),
        ),
        (
            one().cells("/memory@40000000", "reg", &[0; 3]),
            RefusalReason::bad("a memory node", "reg"),
        ),
        (
            one().cells("/", "#address-cells", &[3]),
            RefusalReason::bad("a memory node", "reg"),
        ),
        (
            one().cells("/", "#address-cells", &[u32::MAX]),
            RefusalReason::bad("a memory node", "reg"),
        ),
        (one().without_node("/", "psci"), RefusalReason::NoPsci),
        (old_psci, RefusalReason::PsciTooOld),
        (odd_method, RefusalReason::PsciConduit("an unknown method")),
        (one().without_node("/", "cpus"), RefusalReason::NoCpus),
        (
            one().without("/cpus/cpu@0", "reg"),
            RefusalReason::bad("a CPU node", "reg"),
        ),
        (
            one().cells("/cpus/cpu@0", "reg", &[1 << 31]),
            RefusalReason::bad("a CPU node", "reg"),
        ),
        (spin_table, RefusalReason::CpuEnableMethod(0)),
        (
            one().without_node("/", "intc@8000000"),
            RefusalReason::NoGicV3("no GIC known here"),
        ),
        (
            one().without("/intc@8000000", "reg"),
            RefusalReason::bad("the GICv3 node", "reg"),
        ),
        (
            one().cells("/intc@8000000", "#redistributor-regions", &[0]),
            RefusalReason::bad("the GICv3 node", "#redistributor-regions"),
        ),
        (
            one().cells("/intc@8000000", "#redistributor-regions", &[u32::MAX]),
            RefusalReason::bad("the GICv3 node", "reg"),
        ),
        (
            one().cells("/intc@8000000", "#interrupt-cells", &[1]),
            RefusalReason::bad("the GICv3 node", "#interrupt-cells"),
        ),
        (
            one().without("/intc@8000000/its@8080000", "reg"),
            RefusalReason::bad("an ITS node", "reg"),
        ),
        (
            one().without("/fw-cfg@9020000", "reg"),
            RefusalReason::bad("the fw_cfg node", "reg"),
        ),
        (one().without_node("/", "timer"), RefusalReason::NoTimer),
        (
            one().cells("/timer", "interrupts", &[1, 13, 4]),
            RefusalReason::bad("the timer node", "interrupts"),
        ),
        (
            one().cells("/timer", "interrupts", &[0; 6]),
            RefusalReason::bad("the timer node", "interrupts"),
        ),
        (
            one().without_node("/chosen", "module@0x50000000"),
            RefusalReason::NoHostKernel,
        ),
        (one().without_node("/", "chosen"), RefusalReason::NoHostKernel),
        (
            one().without(kernel, "reg"),
            RefusalReason::bad("a module in /chosen", "reg"),
        ),
        (
            outside,
            RefusalReason::ModuleOutsideMemory {
                name: Occupant::Kernel,
                range: range(0x3fff_f000, 0x2000),
            },
        ),
    ];
    for (index, (tree, expected)) in cases.into_iter().enumerate() {
        let refused = refusal(tree);
        assert_eq!(refused, expected, "case {index}");
        assert!(
            refused.to_string().len() > 20,
            "case {index} says nothing: {refused}"
        );
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    let too_many = |what, capacity| RefusalReason::TooMany { what, capacity };
    let islands = (0..33).fold(Tree::from(ONE_CPU), |tree, n| tree.memory((8 + 2 * n) * GIB, GIB));
    assert_eq!(refusal(islands), too_many("separate regions of RAM", 32));
    let reserved = (0..33).fold(Tree::from(ONE_CPU), |tree, n| {
        tree.memreserve(GIB + n * 0x2000, 0x1000)
    });
    assert_eq!(refusal(reserved), too_many("reserved ranges", 32));
    let crowd = (1..513).fold(Tree::from(ONE_CPU), cpu);
    assert_eq!(refusal(crowd), too_many("CPUs", 512));
    let full = (1..512).fold(Tree::from(ONE_CPU), cpu).dtb();
    assert_eq!(describe(&full).unwrap().cpus.len(), 512);
    let kernel = "/chosen/module@0x60000000";
    let two = Tree::from(ONE_CPU).node("/chosen", "module@0x60000000").bytes(
        kernel,
        "compatible",
        b"multiboot,module\0multiboot,kernel\0",
    );
    assert_eq!(
        refusal(two.cells(kernel, "reg", &[0, 0x6000_0000, 0, 1])),
        too_many("host kernels", 1)
    );
}

/// Adds a CPU with MPIDR `number`.
fn cpu(tree: Tree, number: u32) -> Tree {
    let name = std::format!("cpu@{number:x}");
    let path = std::format!("/cpus/{name}");
    tree.node("/cpus", &name)
        .bytes(&path, "device_type", b"cpu\0")
        .cells(&path, "reg", &[number])
}

#[test]
fn cpus_with_two_cells_and_cpus_named_twice() {
    let two_cells = Tree::from(ONE_CPU)
        .cells("/cpus", "#address-cells", &[2])
        .cells("/cpus/cpu@0", "reg", &[0x12, 0x0034_5678])
        .dtb();
    let machine = describe(&two_cells).unwrap();
    assert_eq!(
        machine.cpus.first().map(|cpu| (cpu.mpidr(), cpu.packed())),
        Some((0x12_0034_5678, 0x1234_5678))
    );
    let name_of_another = cpu(Tree::from(ONE_CPU), 5).cells("/cpus/cpu@5", "reg", &[0]);
    assert_eq!(refusal(name_of_another), RefusalReason::DuplicateCpu(0));
}

#[test]
fn reservations_of_both_kinds() {
    let tree = Tree::from(ONE_CPU)
        .memreserve(0x4100_0000, 0x1000)
        .memreserve(0x4200_0000, u64::MAX)
        .node("/", "reserved-memory")
        .cells("/reserved-memory", "#address-cells", &[2])
        .cells("/reserved-memory", "#size-cells", &[1])
        .node("/reserved-memory", "secure@43000000")
        .cells(
            "/reserved-memory/secure@43000000",
            "reg",
            &[0, 0x4300_0000, 0x10_0000, 1, 0, 0x20_0000],
        )
        .bytes("/reserved-memory/secure@43000000", "no-map", b"")
        .node("/reserved-memory", "pool")
        .cells("/reserved-memory/pool", "size", &[0x10_0000])
        .dtb();
    let expected = [
        Reservation {
            range: range(0x4100_0000, 0x1000),
            no_map: false,
        },
        Reservation {
            range: range(0x4200_0000, (1 << 48) - 0x4200_0000),
            no_map: false,
        },
        Reservation {
            range: range(0x4300_0000, 0x10_0000),
            no_map: true,
        },
        Reservation {
            range: range(0x1_0000_0000, 0x20_0000),
            no_map: true,
        },
    ];
    assert_eq!(describe(&tree).unwrap().reservations.as_slice(), expected);
}

#[test]
fn the_console_is_the_one_that_chosen_names() {
    let second = || {
        Tree::from(ONE_CPU)
            .node("/", "pl011@9040000")
            .bytes("/pl011@9040000", "compatible", b"arm,pl011\0arm,primecell\0")
            .cells("/pl011@9040000", "reg", &[0, 0x904_0000, 0, 0x1000])
    };
    let uart = |tree: Tree| describe(&tree.dtb()).unwrap().uart.map(PhysRange::start);
    let to = |path: &[u8]| second().bytes("/chosen", "stdout-path", path);
    assert_eq!(uart(to(b"/pl011@9040000\0")), Some(0x904_0000));
    assert_eq!(uart(to(b"/pl011@9040000:115200n8\0")), Some(0x904_0000));
    assert_eq!(uart(to(b"/pl011@9000000\0")), Some(0x900_0000));
    let alias =
        to(b"serial1:115200\0")
            .node("/", "aliases")
            .bytes("/aliases", "serial1", b"/pl011@9040000\0");
    assert_eq!(uart(alias), Some(0x904_0000));
    assert!(uart(to(b"/nowhere\0")).is_some(), "any PL011 is better than none");
    assert_eq!(uart(Tree::from(ONE_CPU).without_node("/", "pl011@9000000")), None);
}

#[test]
fn addresses_behind_a_bus_are_translated() {
    let bus = || {
        Tree::from(ONE_CPU)
            .without_node("/", "pl011@9000000")
            .node("/", "soc")
            .cells("/soc", "#address-cells", &[1])
            .cells("/soc", "#size-cells", &[1])
            .node("/soc", "serial@1000")
            .bytes("/soc/serial@1000", "compatible", b"arm,pl011\0")
            .cells("/soc/serial@1000", "reg", &[0x1000, 0x1000])
            .bytes("/chosen", "stdout-path", b"/soc/serial\0")
    };
    let uart = |tree: Tree| describe(&tree.dtb()).unwrap().uart;
    assert_eq!(
        uart(bus()),
        None,
        "a bus without `ranges` is not in the CPU's reach"
    );
    let shifted = bus().cells(
        "/soc",
        "ranges",
        &[0x5000, 0, 0x1000, 0x10, 0, 2, 0x1000_0000, 0x1_0000],
    );
    assert_eq!(uart(shifted), Some(range(0x2_1000_1000, 0x1000)));
    let too_short = bus().cells("/soc", "ranges", &[0, 2, 0, 0x1fff]);
    assert_eq!(uart(too_short), None);
    let wrapping = bus().cells("/soc", "ranges", &[0, u32::MAX, 0xffff_f000, 0x1_0000]);
    assert_eq!(uart(wrapping), None);
}

#[test]
fn the_timer_by_names_and_with_four_cells() {
    let named = Tree::from(ONE_CPU)
        .cells("/timer", "interrupts", &[1, 10, 4, 1, 11, 4, 1, 14, 4])
        .bytes("/timer", "interrupt-names", b"hyp-phys\0virt\0phys\0")
        .dtb();
    let expected = Timer {
        physical: 30,
        virtual_el1: Some(27),
        hypervisor: Some(26),
    };
    assert_eq!(describe(&named).unwrap().timer, expected);
    let partitioned = Tree::from(ONE_CPU)
        .cells("/intc@8000000", "#interrupt-cells", &[4])
        .cells("/timer", "interrupts", &[1, 13, 4, 0, 1, 14, 4, 0])
        .dtb();
    let expected = Timer {
        physical: 30,
        virtual_el1: None,
        hypervisor: None,
    };
    assert_eq!(describe(&partitioned).unwrap().timer, expected);
}

#[test]
fn an_unknown_device_counts_as_a_dma_master() {
    let tree =
        Tree::from(ONE_CPU)
            .node("/", "thing@b000000")
            .cells("/thing@b000000", "reg", &[0, 0xb00_0000, 0, 4]);
    let dtb = tree.bytes("/thing@b000000", "status", b"disabled\0").dtb();
    let kinds = describe(&dtb).unwrap().dma_masters.kinds;
    assert!(
        kinds
            .iter()
            .any(|kind| (kind.compatible, kind.first, kind.count) == ("", "thing@b000000", 1))
    );
}
