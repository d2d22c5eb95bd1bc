//! The host's tree: what is gone, what is new, and that all else is as it was.

use super::*;
use crate::machine::describe;
use crate::machine::fixture::{GOOD, ONE_CPU, SIXTY_FOUR_CPUS, Tree, damage, nasty_word, wide};
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::new(start, size).unwrap()
}

/// Edits as a boot makes them.
fn boot_edits<'a>(reserved: &'a [PhysRange], seeds: &'a [u8]) -> Edits<'a> {
    Edits {
        reserved,
        bootargs: Some("console=ttyAMA0"),
        ramdisk: Some(range(0x5400_0000, 0x1000)),
        rng_seed: Some(seeds),
        kaslr_seed: seeds.get(..8),
    }
}

fn edited(input: &[u8], edits: &Edits<'_>) -> Vec<u8> {
    let mut output = vec![0xa5; output_bound(input.len(), edits)];
    let size = edit(input, &mut output, edits).unwrap();
    output.truncate(size);
    output
}

fn model(dtb: &[u8]) -> DeviceTree {
    DeviceTree::from_fdt(&Fdt::new(dtb).unwrap())
}

fn value(tree: &DeviceTree, path: &str, name: &str) -> Option<Vec<u8>> {
    let property = tree
        .find_node(path)?
        .properties()
        .find(|property| property.name() == name)?;
    Some(property.value().to_vec())
}

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

#[test]
fn without_edits_only_what_el2_keeps_is_gone() {
    for input in GOOD {
        let mut expected = model(input);
        let root = &mut expected.root;
        root.remove_child("fw-cfg@9020000").unwrap();
        root.child_mut("intc@8000000")
            .unwrap()
            .remove_child("its@8080000")
            .unwrap();
        root.child_mut("pcie@10000000")
            .unwrap()
            .remove_property("msi-map")
            .unwrap();
        let timer = root
            .child_mut("timer")
            .unwrap()
            .property_mut("interrupts")
            .unwrap();
        timer.set_value(cells(&[1, 13, 4, 1, 14, 4]).as_slice());
        let chosen = root.child_mut("chosen").unwrap();
        chosen.remove_child("module@0x50000000").unwrap();
        chosen.remove_child("module@0x54000000").unwrap();
        chosen.remove_property("rng-seed");
        chosen.remove_property("kaslr-seed");
        assert_eq!(model(&edited(input, &Edits::default())), expected);
    }
}

#[test]
fn what_the_host_is_told() {
    let reserved = [
        range(0x4020_0000, 0x20_0000),
        range(0x12_3456_7000, 0x1_0000_0000),
    ];
    let seeds: Vec<u8> = (0..64).collect();
    let tree = model(&edited(SIXTY_FOUR_CPUS, &boot_edits(&reserved, &seeds)));
    assert_eq!(
        value(&tree, "/chosen", "bootargs").as_deref(),
        Some(b"console=ttyAMA0\0".as_slice())
    );
    assert_eq!(
        value(&tree, "/chosen", "linux,initrd-start").as_deref(),
        Some(0x5400_0000_u64.to_be_bytes().as_slice())
    );
    assert_eq!(
        value(&tree, "/chosen", "linux,initrd-end").as_deref(),
        Some(0x5400_1000_u64.to_be_bytes().as_slice())
    );
    assert_eq!(
        value(&tree, "/chosen", "rng-seed").as_deref(),
        Some(seeds.as_slice())
    );
    assert_eq!(
        value(&tree, "/chosen", "kaslr-seed").as_deref(),
        Some(&seeds[..8])
    );
    assert_eq!(
        value(&tree, "/chosen", "stdout-path").as_deref(),
        Some(b"/pl011@9000000\0".as_slice())
    );
    let two = cells(&[2]);
    assert_eq!(
        value(&tree, "/reserved-memory", "#address-cells").as_deref(),
        Some(two.as_slice())
    );
    assert_eq!(
        value(&tree, "/reserved-memory", "#size-cells").as_deref(),
        Some(two.as_slice())
    );
    assert_eq!(
        value(&tree, "/reserved-memory", "ranges").as_deref(),
        Some([].as_slice())
    );
    for (path, reserved) in [
        ("/reserved-memory/freehold@40200000", reserved[0]),
        ("/reserved-memory/freehold@1234567000", reserved[1]),
    ] {
        assert_eq!(
            value(&tree, path, "reg").as_deref(),
            Some(cells(&wide(reserved.start(), reserved.size())).as_slice())
        );
        assert_eq!(value(&tree, path, "no-map").as_deref(), Some([].as_slice()));
    }
    assert_eq!(tree.find_node("/reserved-memory").unwrap().children().count(), 2);
}

/// The result describes the same machine, less what EL2 keeps: so it is read again by the code that boots.
#[test]
fn the_result_is_a_machine() {
    let reserved = [range(0x4020_0000, 0x20_0000)];
    let seeds = [7; 32];
    let edits = boot_edits(&reserved, &seeds);
    for input in GOOD {
        let host = edited(input, &edits);
        assert_eq!(describe(&host), Err(RefusalReason::NoHostKernel));
        let again = Tree::from(&host)
            .node("/chosen", "kernel")
            .bytes("/chosen/kernel", "compatible", b"multiboot,kernel\0")
            .cells("/chosen/kernel", "reg", &[0, 0x5000_0000, 0, 0x1_0000])
            .dtb();
        let (before, after) = (describe(input).unwrap(), describe(&again).unwrap());
        assert!(!before.gic.its.is_empty() && !before.fw_cfgs.is_empty());
        assert!(after.gic.its.is_empty() && after.fw_cfgs.is_empty());
        assert_eq!((before.timer.physical, before.timer.virtual_el1), (30, Some(27)));
        assert_eq!((after.timer.physical, after.timer.virtual_el1), (30, None));
        assert_eq!(
            (
                before.memory,
                before.cpus,
                before.psci,
                before.uart,
                before.dma_masters
            ),
            (
                after.memory,
                after.cpus,
                after.psci,
                after.uart,
                after.dma_masters
            )
        );
        assert_eq!(
            after
                .reservations
                .first()
                .map(|reservation| (reservation.range, reservation.no_map)),
            Some((reserved[0], true))
        );
        assert_eq!(
            (after.rng_seed, after.kaslr_seed),
            (Some(seeds.as_slice()), seeds.get(..8))
        );
    }
}

#[test]
fn what_the_input_says_of_the_host_is_replaced_or_taken_away() {
    let input = Tree::from(SIXTY_FOUR_CPUS)
        .bytes("/chosen", "bootargs", b"init=/evil\0")
        .bytes("/chosen", "linux,initrd-start", &[1; 8])
        .bytes("/chosen", "linux,initrd-end", &[2; 8])
        .dtb();
    let tree = model(&edited(&input, &Edits::default()));
    for name in REPLACED_IN_CHOSEN {
        assert_eq!(value(&tree, "/chosen", name).as_deref(), None, "{name}");
    }
    let seeds = [9; 32];
    let tree = model(&edited(&input, &boot_edits(&[], &seeds)));
    for name in REPLACED_IN_CHOSEN {
        let found = tree
            .find_node("/chosen")
            .unwrap()
            .properties()
            .filter(|property| property.name() == name);
        assert_eq!(found.count(), 1, "{name}");
    }
    assert!(
        tree.find_node("/reserved-memory").is_none(),
        "no node for nothing"
    );
}

#[test]
fn a_tree_without_chosen_gets_one() {
    let input = Tree::from(ONE_CPU).without_node("/", "chosen").dtb();
    let tree = model(&edited(&input, &boot_edits(&[], &[1; 32])));
    assert_eq!(
        value(&tree, "/chosen", "bootargs").as_deref(),
        Some(b"console=ttyAMA0\0".as_slice())
    );
}

#[test]
fn reservations_join_those_that_are_there() {
    let input = |address_cells: u32| {
        Tree::from(ONE_CPU)
            .memreserve(0x4700_0000, 0x1000)
            .node("/", "reserved-memory")
            .cells("/reserved-memory", "#address-cells", &[address_cells])
            .cells("/reserved-memory", "#size-cells", &[1])
            .bytes("/reserved-memory", "ranges", b"")
            .node("/reserved-memory", "old@0")
            .dtb()
    };
    let reserved = [range(0x4020_0000, 0x20_0000)];
    let edits = Edits {
        reserved: &reserved,
        ..Edits::default()
    };
    let path = "/reserved-memory/freehold@40200000";
    let tree = model(&edited(&input(1), &edits));
    assert_eq!(
        value(&tree, path, "reg").as_deref(),
        Some(cells(&[0x4020_0000, 0x20_0000]).as_slice())
    );
    assert!(tree.find_node("/reserved-memory/old@0").is_some());
    assert_eq!(tree.memory_reservations.len(), 1);
    let high = [range(0x1_0000_0000, 0x20_0000)];
    let edits = Edits {
        reserved: &high,
        ..Edits::default()
    };
    let tree = model(&edited(&input(2), &edits));
    assert_eq!(
        value(&tree, "/reserved-memory/freehold@100000000", "reg").as_deref(),
        Some(cells(&[1, 0, 0x20_0000]).as_slice())
    );
    let mut output = vec![0; 0x10000];
    for address_cells in [0, 1, 3, u32::MAX] {
        assert_eq!(
            edit(&input(address_cells), &mut output, &edits),
            Err(EditError::CellsTooFew(high[0]))
        );
    }
}

#[test]
fn msi_properties_go_if_they_lead_to_an_its() {
    let its = 0x8003;
    let input = Tree::from(ONE_CPU)
        .node("/", "a")
        .cells("/a", "msi-parent", &[0x77, its, 5])
        .node("/", "b")
        .cells("/b", "msi-parent", &[0x77, 6])
        .cells("/b", "msi-map", &[its, 0x77, its, its])
        .cells("/b", "dma-parent", &[its])
        .dtb();
    let found = Fdt::new(&input)
        .unwrap()
        .find_node("/intc/its")
        .and_then(|node| node.property("phandle"));
    assert_eq!(
        found.map(|phandle| phandle.value().to_vec()),
        Some(cells(&[its])),
        "the fixture's phandle"
    );
    let tree = model(&edited(&input, &Edits::default()));
    assert_eq!(value(&tree, "/a", "msi-parent").as_deref(), None);
    assert!(value(&tree, "/b", "msi-parent").is_some());
    assert!(
        value(&tree, "/b", "msi-map").is_some(),
        "the ITS's number stands where no controller does"
    );
    assert!(value(&tree, "/b", "dma-parent").is_some());
}

#[test]
fn the_timer_keeps_the_physical_timer_under_any_binding() {
    let named = Tree::from(ONE_CPU)
        .cells("/timer", "interrupts", &[1, 10, 4, 1, 11, 4, 1, 14, 4, 1, 13, 8])
        .bytes("/timer", "interrupt-names", b"hyp-phys\0virt\0phys\0sec-phys\0")
        .dtb();
    let tree = model(&edited(&named, &Edits::default()));
    assert_eq!(
        value(&tree, "/timer", "interrupts").as_deref(),
        Some(cells(&[1, 14, 4, 1, 13, 8]).as_slice())
    );
    assert_eq!(
        value(&tree, "/timer", "interrupt-names").as_deref(),
        Some(b"phys\0sec-phys\0".as_slice())
    );
    let partitioned = Tree::from(ONE_CPU)
        .cells("/intc@8000000", "#interrupt-cells", &[4])
        .cells("/timer", "interrupts", &[1, 13, 4, 0, 1, 14, 4, 0, 1, 11, 4, 0])
        .dtb();
    let tree = model(&edited(&partitioned, &Edits::default()));
    assert_eq!(
        value(&tree, "/timer", "interrupts").as_deref(),
        Some(cells(&[1, 13, 4, 0, 1, 14, 4, 0]).as_slice())
    );
}

#[test]
fn what_is_dropped_goes_with_all_below_it_and_nothing_else() {
    let input = Tree::from(ONE_CPU)
        .node("/fw-cfg@9020000", "below")
        .node("/fw-cfg@9020000/below", "further")
        .node("/intc@8000000", "after-its")
        .node("/chosen", "other")
        .dtb();
    let tree = model(&edited(&input, &Edits::default()));
    assert!(tree.find_node("/fw-cfg@9020000").is_none());
    assert!(tree.find_node("/intc@8000000/after-its").is_some());
    assert!(tree.find_node("/chosen/other").is_some());
    let names = |node: &DeviceTreeNode| node.children().map(|child| child.name().len()).sum::<usize>();
    assert_eq!(
        names(&model(&input).root) - names(&tree.root),
        "fw-cfg@9020000".len()
    );
}

#[test]
fn a_buffer_too_small_is_refused_and_the_bound_is_enough() {
    let reserved = [range(0x4020_0000, 0x20_0000); 8];
    let edits = boot_edits(&reserved, &[3; 32]);
    let needed = edited(ONE_CPU, &edits).len();
    for size in (0..needed).step_by(61).chain([needed - 1]) {
        let mut output = vec![0; size];
        assert_eq!(
            edit(ONE_CPU, &mut output, &edits),
            Err(EditError::OutputTooSmall(size))
        );
    }
    assert!(edit(ONE_CPU, &mut vec![0; needed], &edits).is_ok());
    let bare = Tree::from(ONE_CPU).without_node("/", "chosen").dtb();
    let large = [3; 4096];
    for input in [ONE_CPU, &bare] {
        for edits in [
            boot_edits(&reserved, &large),
            boot_edits(&[], &[]),
            Edits::default(),
        ] {
            assert!(edited(input, &edits).len() <= output_bound(input.len(), &edits));
        }
    }
}

#[test]
fn editing_twice_changes_nothing_more() {
    let edits = Edits {
        bootargs: Some("quiet"),
        ..Edits::default()
    };
    let once = edited(SIXTY_FOUR_CPUS, &edits);
    let twice = edited(&once, &edits);
    assert_eq!(model(&once), model(&twice));
}

proptest! {
    #[test]
    fn damaged_trees_never_panic_and_a_result_is_a_tree(
        which in 0..GOOD.len(),
        changes in prop::collection::vec((any::<usize>(), nasty_word()), 1..6),
        room in 0..40_000_usize,
    ) {
        let reserved = [range(0x4020_0000, 0x20_0000)];
        let mut output = vec![0; room];
        if let Ok(size) = edit(&damage(GOOD[which], &changes), &mut output, &boot_edits(&reserved, &[5; 32])) {
            prop_assert!(Fdt::new(&output[..size]).is_ok());
        }
    }
}
