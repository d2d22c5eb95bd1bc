//! EL2's memory on machines of every size, and what can be in its way.

use super::*;
use crate::machine::fixture::{EIGHT_CPUS, ONE_CPU, Tree, wide};
use crate::machine::{Reservation, describe};
use proptest::prelude::*;
use std::vec::Vec;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BASE: u64 = 0x4020_0000;

const WANTED: Wanted = Wanted {
    per_cpu_size: 16 * KIB,
    hyp_tables: 16,
    min_pool: 32,
};

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::new(start, size).unwrap()
}

/// QEMU's tree, where QEMU puts it on a machine of 256 MiB or more.
fn tree() -> PhysRange {
    range(0x4800_0000, MIB)
}

/// An image of 400 KiB where QEMU puts it.
fn image() -> PhysRange {
    range(BASE, 400 * KIB)
}

/// QEMU's eight CPUs with so much memory, from 1 GiB on.
fn machine_of(bytes: u64) -> Vec<u8> {
    Tree::from(EIGHT_CPUS)
        .cells("/memory@40000000", "reg", &wide(GIB, bytes))
        .dtb()
}

fn parts(plan: &BootPlan) -> [PhysRange; 7] {
    [
        plan.image,
        plan.ownership_array,
        plan.host_root,
        plan.host_tables,
        plan.per_cpu,
        plan.hyp_tables,
        plan.pool,
    ]
}

/// What holds of every plan.
fn check(plan: &BootPlan, machine: &MachineDescription<'_>, wanted: &Wanted) {
    let mut end = plan.reservation.start();
    for part in parts(plan) {
        assert!(part.start() >= end, "parts in order, apart");
        end = part.end();
        assert!(plan.reservation.contains(part));
    }
    assert_eq!(plan.pool.end(), plan.reservation.end());
    for part in &parts(plan)[1..] {
        assert!(part.start().is_multiple_of(4 * KIB));
    }
    assert!(plan.pool.size() >= wanted.min_pool * 4 * KIB);
    assert!(plan.host_root.start().is_multiple_of(plan.host_root.size()));
    assert_eq!(plan.host_root.size(), plan.input_size.root_bytes());
    assert!(plan.input_size.end() >= machine.memory.end());
    assert!(plan.ownership_array.size() >= plan.regions * 8);
    assert!(plan.regions * 2 * MIB >= machine.memory.bytes());
    assert_eq!(
        plan.per_cpu.size(),
        plan.per_cpu_stride * machine.cpus.len() as u64
    );
}

/// The promise: EL2 takes at most 2 MiB + 0.001 % of RAM at boot.
#[test]
fn el2_keeps_to_its_budget() {
    for gib in [1, 2, 4, 8, 16, 32, 64, 128, 512, 1024, 4096] {
        let dtb = machine_of(gib * GIB);
        let machine = describe(&dtb).unwrap();
        let plan = plan(&machine, image(), tree(), 48, &WANTED).unwrap();
        check(&plan, &machine, &WANTED);
        let budget = 2 * MIB + gib * GIB / 100_000;
        assert!(
            plan.reservation.size() <= budget,
            "{gib} GiB: {} > {budget}",
            plan.reservation.size()
        );
        if gib <= 64 {
            assert_eq!(plan.reservation.size(), 2 * MIB);
        }
    }
}

#[test]
fn the_parts_of_a_small_machine() {
    let machine = describe(ONE_CPU).unwrap();
    let plan = plan(&machine, image(), tree(), 40, &WANTED).unwrap();
    check(&plan, &machine, &WANTED);
    assert_eq!(plan.reservation, range(BASE, 2 * MIB));
    assert_eq!(plan.regions, 512);
    assert_eq!(plan.ownership_array.start(), BASE + 400 * KIB);
    assert_eq!((plan.input_size.bits(), plan.host_root.size()), (40, 8 * KIB));
    assert_eq!(
        plan.host_tables.size(),
        2 * 4 * KIB,
        "one GiB of RAM, one for devices"
    );
    assert_eq!(plan.per_cpu.size(), 16 * KIB);
}

#[test]
fn a_256_mib_machine_and_a_64_cpu_machine() {
    let small = Tree::from(ONE_CPU)
        .cells("/memory@40000000", "reg", &wide(GIB, 256 * MIB))
        .cells("/chosen/module@0x50000000", "reg", &wide(0x4400_0000, 0x1_0000))
        .without_node("/chosen", "module@0x54000000")
        .dtb();
    let machine = describe(&small).unwrap();
    check(
        &plan(&machine, image(), tree(), 40, &WANTED).unwrap(),
        &machine,
        &WANTED,
    );
    let machine = describe(crate::machine::fixture::SIXTY_FOUR_CPUS).unwrap();
    let plan = plan(&machine, image(), tree(), 48, &WANTED).unwrap();
    check(&plan, &machine, &WANTED);
    assert!(plan.reservation.size() <= 2 * MIB + 64 * GIB / 100_000);
}

#[test]
fn holes_in_ram_cost_nothing() {
    let dtb = Tree::from(ONE_CPU).memory(64 * GIB + MIB, GIB).dtb();
    let machine = describe(&dtb).unwrap();
    let plan = plan(&machine, image(), tree(), 40, &WANTED).unwrap();
    check(&plan, &machine, &WANTED);
    assert_eq!(
        plan.regions,
        512 + 513,
        "the second region of RAM touches one 2 MiB block more"
    );
    assert_eq!(plan.host_tables.size(), (1 + 2 + 1) * 4 * KIB);
}

#[test]
fn a_walk_from_level_0_needs_level_1_tables() {
    let dtb = Tree::from(ONE_CPU).memory(1 << 45, GIB).dtb();
    let machine = describe(&dtb).unwrap();
    let plan = plan(&machine, image(), tree(), 48, &WANTED).unwrap();
    check(&plan, &machine, &WANTED);
    assert_eq!(
        (
            plan.input_size.bits(),
            plan.input_size.start_level(),
            plan.host_root.size()
        ),
        (46, 0, 4 * KIB)
    );
    assert_eq!(plan.host_tables.size(), (2 + 2 + 1) * 4 * KIB);
}

#[test]
fn the_reservation_grows_if_it_must() {
    let machine = describe(ONE_CPU).unwrap();
    let wanted = Wanted {
        min_pool: 1024,
        per_cpu_size: 5000,
        ..WANTED
    };
    let plan = plan(&machine, image(), tree(), 40, &wanted).unwrap();
    check(&plan, &machine, &wanted);
    assert_eq!(plan.per_cpu_stride, 8 * KIB);
    assert_eq!(plan.pool.size(), 4 * MIB);
    assert!(plan.reservation.size() > 4 * MIB);
}

#[test]
fn what_is_in_the_way_is_named() {
    let module =
        |start: u64| Tree::from(ONE_CPU).cells("/chosen/module@0x50000000", "reg", &wide(start, 0x1_0000));
    let overlap =
        |dtb: &[u8], tree: PhysRange| match plan(&describe(dtb).unwrap(), image(), tree, 40, &WANTED) {
            Err(RefusalReason::Overlap { first, second, .. }) => (first, second),
            other => panic!("{other:?}"),
        };
    let last = BASE + 2 * MIB - 1;
    assert_eq!(
        overlap(&module(last - 0xffff).dtb(), tree()),
        (Occupant::Reservation, Occupant::Kernel)
    );
    assert_eq!(
        overlap(&module(0x4800_0000).dtb(), tree()),
        (Occupant::Kernel, Occupant::DeviceTree)
    );
    assert_eq!(
        overlap(&module(0x5400_0000).dtb(), tree()),
        (Occupant::Kernel, Occupant::Ramdisk)
    );
    assert_eq!(
        overlap(ONE_CPU, range(last, MIB)),
        (Occupant::Reservation, Occupant::DeviceTree)
    );
    assert_eq!(
        overlap(ONE_CPU, range(0x5400_0fff, MIB)),
        (Occupant::Ramdisk, Occupant::DeviceTree)
    );
    let reserved = Tree::from(ONE_CPU).memreserve(last, 1).dtb();
    assert_eq!(
        overlap(&reserved, tree()),
        (Occupant::Reservation, Occupant::Firmware)
    );
    // A loader that reserves what it loaded is not in its own way; memory that no kernel may map is.
    let own = Tree::from(ONE_CPU)
        .memreserve(tree().start(), tree().size())
        .memreserve(0x5000_0000, MIB)
        .dtb();
    assert!(plan(&describe(&own).unwrap(), image(), tree(), 40, &WANTED).is_ok());
    let no_map = Tree::from(ONE_CPU)
        .node("/", "reserved-memory")
        .cells("/reserved-memory", "#size-cells", &[2])
        .node("/reserved-memory", "secure")
        .cells("/reserved-memory/secure", "reg", &wide(0x5000_f000, 0x1000))
        .bytes("/reserved-memory/secure", "no-map", b"")
        .dtb();
    assert_eq!(overlap(&no_map, tree()), (Occupant::Kernel, Occupant::Firmware));
}

#[test]
fn what_cannot_be_laid_out_is_refused() {
    let machine = describe(ONE_CPU).unwrap();
    let refused = |image, bits, wanted: &Wanted| plan(&machine, image, tree(), bits, wanted).unwrap_err();
    assert_eq!(
        refused(range(BASE + 4096, MIB), 40, &WANTED),
        RefusalReason::ImageMisaligned(BASE + 4096)
    );
    for base in [0x7fe0_0000 + 2 * MIB, 0x3fe0_0000, 0] {
        let refusal = RefusalReason::ReservationOutsideMemory {
            base,
            needed: 2 * MIB,
        };
        assert_eq!(refused(range(base, 400 * KIB), 40, &WANTED), refusal);
    }
    for wanted in [
        Wanted {
            per_cpu_size: u64::MAX,
            ..WANTED
        },
        Wanted {
            hyp_tables: u64::MAX,
            ..WANTED
        },
        Wanted {
            min_pool: u64::MAX / 4096,
            ..WANTED
        },
    ] {
        assert_eq!(refused(image(), 40, &wanted), RefusalReason::PlanOverflow);
    }
    let dtb = machine_of(64 * GIB);
    let end = 65 * GIB;
    assert_eq!(
        plan(&describe(&dtb).unwrap(), image(), tree(), 36, &WANTED),
        Err(RefusalReason::MemoryBeyondPaRange { end, bits: 36 })
    );
}

#[test]
fn a_hole_is_found_past_everything() {
    let mut machine = describe(ONE_CPU).unwrap();
    let firmware = Reservation {
        range: range(GIB, MIB),
        no_map: true,
    };
    machine.reservations.push(firmware);
    let own = range(BASE, 2 * MIB);
    let kernel_memory = range(0x5000_0000, 64 * MIB);
    let avoid = [own, tree(), kernel_memory];
    assert_eq!(
        find_hole(&machine, MIB, 4096, &avoid),
        Some(range(GIB + MIB, MIB))
    );
    assert_eq!(
        find_hole(&machine, MIB + 1, 4096, &avoid),
        Some(range(BASE + 2 * MIB, MIB + 1))
    );
    assert_eq!(
        find_hole(&machine, 128 * MIB, 2 * MIB, &avoid),
        Some(range(0x5420_0000, 128 * MIB))
    );
    assert_eq!(find_hole(&machine, GIB, 4096, &avoid), None);
    for (size, align) in [(0, 8), (u64::MAX, 8), (8, 0), (8, 3), (8, 1 << 63)] {
        assert_eq!(find_hole(&machine, size, align, &avoid), None);
    }
}

proptest! {
    #[test]
    fn a_hole_is_free_and_the_lowest(
        size in 1..64_u64,
        align in 0..8_u32,
        busy in prop::collection::vec((0..256_u64, 1..32_u64), 0..12),
    ) {
        let dtb = Tree::from(ONE_CPU).cells("/memory@40000000", "reg", &wide(0x100_0000, 0x10_0000));
        let module = wide(0x108_0000, 0x1000);
        let dtb = dtb.cells("/chosen/module@0x50000000", "reg", &module).without_node("/chosen", "module@0x54000000");
        let dtb = dtb.dtb();
        let machine = describe(&dtb).unwrap();
        let frame = |number: u64, count: u64| range(0x100_0000 + number * 4096, count * 4096);
        let busy: Vec<PhysRange> = busy.into_iter().map(|(start, count)| frame(start, count)).collect();
        let free = |hole: PhysRange| {
            range(0x100_0000, 0x10_0000).contains(hole)
                && !hole.overlaps(machine.kernel.range)
                && !busy.iter().any(|busy| busy.overlaps(hole))
        };
        let expected = (0..256)
            .filter(|number| u64::is_multiple_of(*number, 1 << align))
            .map(|number| frame(number, size))
            .find(|hole| free(*hole));
        prop_assert_eq!(find_hole(&machine, size * 4096, 4096 << align, &busy), expected);
    }
}
