//! The same maps, protections and unmaps done by the `aarch64-paging` crate, and the tables compared.
//!
//! Its tables are never active here, so that it may do what it refuses on live ones.

use super::*;
use aarch64_paging::descriptor::{
    El23Attributes, PagingAttributes, Stage2Attributes as Stage2Flags, UpdatableDescriptor,
};
use aarch64_paging::linearmap::LinearMap;
use aarch64_paging::paging::{self, MemoryRegion, TranslationRegime};
use bitflags::Flags;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

/// A leaf: first address, level, output address, attribute bits.
type Leaf = (u64, u8, u64, u64);

fn region((first, pages): (u64, u64)) -> MemoryRegion {
    MemoryRegion::new((first << 12) as usize, ((first + pages) << 12) as usize)
}

/// The leaves of an oracle's table. Its walk cuts a leaf where the range ends; here the range is everything.
fn oracle_leaves<R: TranslationRegime>(table: &LinearMap<R>, pages: u64, attributes: u64) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    table
        .walk_range(&region((0, pages)), &mut |range, descriptor, level| {
            if descriptor.is_valid() && (level == 3 || !descriptor.is_table_or_page()) {
                leaves.push((
                    range.start().0 as u64,
                    u8::try_from(level).unwrap(),
                    descriptor.output_address().0 as u64,
                    descriptor.flags().bits() as u64 & attributes,
                ));
            }
            Ok(())
        })
        .unwrap();
    leaves
}

fn leaves<F: Format>(hw: &Machine<Arm4K>, table: &Table<F, Arm4K>) -> Vec<Leaf> {
    table
        .entries(hw, table.span())
        .filter_map(|entry| match entry.descriptor {
            Descriptor::Leaf { pa, attributes } => {
                Some((entry.start.value(), entry.level, pa.value(), attributes.to_bits()))
            }
            _ => None,
        })
        .collect()
}

/// What leaves say, whatever their size: runs of addresses that go to contiguous memory in one way, as first address,
/// bytes, output address and attribute bits.
fn runs(leaves: &[Leaf]) -> Vec<(u64, u64, u64, u64)> {
    let mut runs: Vec<(u64, u64, u64, u64)> = Vec::new();
    for &(start, level, to, attributes) in leaves {
        let bytes = 1 << Arm4K::level_shift(level);
        match runs.last_mut() {
            Some(last) if (start, to, attributes) == (last.0 + last.1, last.2 + last.1, last.3) => {
                last.1 += bytes
            }
            _ => runs.push((start, bytes, to, attributes)),
        }
    }
    runs
}

/// Ranges in four GiB, at and beside the edges of blocks.
fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let edge = || (0..4 * 512_u64, 0..3_u64).prop_map(|(block, nudge)| (block << 9) + nudge);
    let pages = prop_oneof![Just(1_u64), Just(512), Just(1 << 18), 1..1100_u64];
    let range = (edge(), pages).prop_map(|(first, pages)| (first, pages.min((4 << 18) - first)));
    prop::collection::vec(range, 1..5)
}

/// What is done: our words for it, and the oracle's.
struct Words<F: Format, A> {
    attributes: F::Attributes,
    flags: A,
    protect: Update<F>,
    set: A,
    clear: A,
}

/// Ranges to map, to write-protect and to unmap.
type Ranges = [Vec<(u64, u64)>; 3];

/// Does all of it on both sides, and compares the tables after each step: after a map, leaf by leaf.
fn compare<F: Format, R: TranslationRegime>(
    words: &Words<F, R::Attributes>,
    offset: u64,
    [maps, protects, unmaps]: &Ranges,
    mut oracle: LinearMap<R>,
) {
    let hw = Machine::<Arm4K>::with_pool(4096);
    hw.record(false);
    let table = Table::<F, Arm4K>::new(hw.allocate_root(1), 1, 32, Regime::Host).unwrap();
    let both = |oracle: &LinearMap<R>| {
        let theirs = oracle_leaves(oracle, table.span().pages(), F::ATTRIBUTES);
        (leaves(&hw, &table), theirs)
    };
    // The oracle splits a block at the edge of every range, the engine only where something changes.
    let same = |oracle: &LinearMap<R>| {
        let (ours, theirs) = both(oracle);
        assert_eq!(runs(&ours), runs(&theirs));
    };
    for &(first, pages) in maps {
        let change = Change::Map {
            pa: pa((first << 12) + offset),
            attributes: words.attributes,
            largest: LargestLeaf::Gigabyte,
        };
        // What is mapped already, the engine refuses to map and the oracle would map again.
        if let Ok(owed) = table.apply(&hw, span(first << 12, pages), change) {
            owed.complete(&hw);
            oracle.map_range(&region((first, pages)), words.flags).unwrap();
            let (ours, theirs) = both(&oracle);
            assert_eq!(ours, theirs);
        }
    }
    let valid = R::Attributes::VALID;
    let modify = |oracle: &mut LinearMap<R>, range, set, clear| {
        let update = |_: &MemoryRegion, entry: &mut UpdatableDescriptor<R::Attributes>| {
            if (entry.flags() & valid) == valid {
                entry.modify_flags(set, clear)
            } else {
                Ok(())
            }
        };
        oracle.modify_range(&region(range), &update).unwrap();
    };
    for &range in protects {
        let change = Change::Protect {
            update: words.protect,
        };
        table
            .apply(&hw, span(range.0 << 12, range.1), change)
            .unwrap()
            .complete(&hw);
        modify(&mut oracle, range, words.set, words.clear);
        same(&oracle);
    }
    for &range in unmaps {
        let change = Change::Unmap {
            annotation: Annotation::NONE,
            largest: LargestLeaf::Gigabyte,
        };
        table
            .apply(&hw, span(range.0 << 12, range.1), change)
            .unwrap()
            .complete(&hw);
        modify(&mut oracle, range, R::Attributes::default(), valid);
        same(&oracle);
    }
}

/// An offset between input and output that is aligned to a page, a region or a GiB.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(0x1000), Just(2 << 20), Just(5 * GIB)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn stage_2_maps_as_the_oracle_does(
        all in [ranges(), ranges(), ranges()],
        offset in offset(),
    ) {
        let words = Words::<Stage2, Stage2Flags> {
            attributes: RAM,
            flags: Stage2Flags::VALID
                | Stage2Flags::MEMATTR_NORMAL_INNER_WB
                | Stage2Flags::MEMATTR_NORMAL_OUTER_WB
                | Stage2Flags::S2AP_ACCESS_RW
                | Stage2Flags::SH_INNER
                | Stage2Flags::ACCESS_FLAG,
            protect: Update::write_protect(),
            set: Stage2Flags::empty(),
            clear: Stage2Flags::S2AP_ACCESS_WO,
        };
        let oracle = LinearMap::new(1, isize::try_from(offset).unwrap(), paging::Stage2);
        compare(&words, offset, &all, oracle);
    }

    #[test]
    fn el2_stage_1_maps_as_the_oracle_does(
        all in [ranges(), ranges(), ranges()],
        offset in offset(),
    ) {
        let words = Words::<HypStage1, El23Attributes> {
            attributes: HypAttributes::memory(HypAccess::ReadWrite),
            flags: El23Attributes::VALID
                | El23Attributes::ATTRIBUTE_INDEX_0
                | El23Attributes::USER_RES1
                | El23Attributes::INNER_SHAREABLE
                | El23Attributes::ACCESSED
                | El23Attributes::XN,
            protect: Update::access(HypAccess::ReadOnly),
            set: El23Attributes::READ_ONLY,
            clear: El23Attributes::empty(),
        };
        let oracle = LinearMap::new(1, isize::try_from(offset).unwrap(), paging::El2);
        compare(&words, offset, &all, oracle);
    }
}
