//! Random changes, compared with the model after each one, while a TLB holds all that it may.

use super::model::{Model, Page};
use super::*;
use crate::geometry::Tiny;
use proptest::prelude::*;
use std::vec;

/// A format whose attributes and updates can be drawn by number.
trait Drawn: Format {
    const REGIME: Regime;
    fn attributes(number: u8) -> Self::Attributes;
    fn update(number: u8) -> Update<Self>;
}

impl Drawn for Stage2 {
    const REGIME: Regime = Regime::Guest(1);

    fn attributes(number: u8) -> Stage2Attributes {
        match number % 3 {
            0 => RAM,
            1 => Stage2Attributes::HOST_DEVICE,
            _ => RAM.with_software(number & 0xf).not_accessed(),
        }
    }

    fn update(number: u8) -> Update<Self> {
        match number % 7 {
            0 => Update::write_protect(),
            1 => Update::allow(Stage2Access::WRITE),
            2 => Update::execute(Execute::Never),
            3 => Update::mark_accessed(),
            4 => Update::software(5),
            5 => Update::replace(RAM),
            _ => Update::replace(Stage2Attributes::HOST_DEVICE),
        }
    }
}

impl Drawn for HypStage1 {
    const REGIME: Regime = Regime::Hyp;

    fn attributes(number: u8) -> HypAttributes {
        match number % 3 {
            0 => HypAttributes::memory(HypAccess::ReadWrite),
            1 => HypAttributes::memory(HypAccess::ReadExecute),
            _ => HypAttributes::device(),
        }
    }

    fn update(number: u8) -> Update<Self> {
        match number % 4 {
            0 => Update::access(HypAccess::ReadOnly),
            1 => Update::access(HypAccess::ReadWrite),
            2 => Update::mark_accessed(),
            _ => Update::replace(HypAttributes::device()),
        }
    }
}

/// A call of the engine, drawn by numbers.
#[derive(Clone, Debug)]
enum Call {
    Map {
        range: (u64, u64),
        to: u64,
        attributes: u8,
        largest: LargestLeaf,
    },
    Unmap {
        range: (u64, u64),
        annotation: u64,
        largest: LargestLeaf,
    },
    Protect {
        range: (u64, u64),
        update: u8,
    },
    Populate {
        range: (u64, u64),
        leaves: LargestLeaf,
    },
    Fold {
        page: u64,
        level: u8,
    },
    TakeAccessed {
        range: (u64, u64),
    },
}

fn largest() -> impl Strategy<Value = LargestLeaf> {
    prop_oneof![
        Just(LargestLeaf::Gigabyte),
        Just(LargestLeaf::Region),
        Just(LargestLeaf::Page)
    ]
}

/// A page number below `end`, most often at or beside the edge of an entry of some level.
fn page<G: Geometry>(end: u64) -> impl Strategy<Value = u64> {
    (0..end, 0..4_u8, 0..4_u64).prop_map(move |(page, level, nudge)| {
        let aligned = page & !(G::level_frames(level) - 1);
        match nudge {
            0 | 1 => aligned,
            2 => (aligned + 1).min(end - 1),
            _ => aligned.saturating_sub(1),
        }
    })
}

/// A range below `end`: first page and count.
fn range<G: Geometry>(end: u64) -> impl Strategy<Value = (u64, u64)> {
    let pages = prop_oneof![
        Just(1_u64),
        Just(G::level_frames(2)),
        Just(G::level_frames(1)),
        1..=2 * G::level_frames(2),
    ];
    (page::<G>(end), pages).prop_map(move |(first, pages)| (first, pages.min(end - first)))
}

fn call<G: Geometry>(end: u64) -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (range::<G>(end), page::<G>(end), any::<u8>(), largest(), any::<bool>()).prop_map(
            |(range, to, attributes, largest, same)| Call::Map {
                range,
                to: if same { range.0 } else { to },
                attributes,
                largest,
            }
        ),
        3 => (range::<G>(end), 0..3_u64, largest()).prop_map(|(range, annotation, largest)| Call::Unmap {
            range,
            annotation,
            largest,
        }),
        2 => (range::<G>(end), any::<u8>()).prop_map(|(range, update)| Call::Protect { range, update }),
        1 => (range::<G>(end), largest()).prop_map(|(range, leaves)| Call::Populate { range, leaves }),
        2 => (page::<G>(end), 1..=2_u8).prop_map(|(page, level)| Call::Fold { page, level }),
        1 => range::<G>(end).prop_map(|range| Call::TakeAccessed { range }),
    ]
}

/// A table under test: its machine, and the model that runs beside it.
struct Pair<F: Drawn, G: Geometry> {
    hw: Machine<G>,
    table: Table<F, G>,
    model: Model,
    roots: u64,
}

impl<F: Drawn, G: Geometry> Pair<F, G> {
    fn new(start_level: u8, ia_bits: u32, watched: &[u64]) -> Self {
        let hw = Machine::with_pool(4096);
        hw.record(false);
        let roots = Table::<F, G>::root_tables(start_level, ia_bits).unwrap();
        let table = Table::new(hw.allocate_root(roots), start_level, ia_bits, F::REGIME).unwrap();
        let end = table.span().pages();
        hw.watch(&table, watched.iter().map(|page| ipa((page % end) << 12)));
        Self {
            model: Model::new(end),
            hw,
            table,
            roots,
        }
    }

    /// Carries out a change with just the pages that it says it takes, after it was refused with one page less.
    fn apply(&self, (first, pages): (u64, u64), change: Change<F>) -> Result<(), EngineError> {
        let range = span(first << 12, pages);
        let plan = self.table.plan(&self.hw, range, change)?;
        if let Some(few) = plan.tables().checked_sub(1) {
            self.hw.limit_pool(Some(few));
            let refused = self.table.apply(&self.hw, range, change);
            assert_eq!(
                refused.map(|_| ()),
                Err(EngineError::OutOfPages {
                    needed: plan.tables()
                })
            );
            assert_eq!(Model::of(&self.hw, &self.table), self.model);
        }
        self.hw.limit_pool(Some(plan.tables()));
        plan.reserve(&self.hw)?.commit(&self.hw).complete(&self.hw);
        self.hw.limit_pool(None);
        let again = self.table.plan(&self.hw, range, change);
        match change {
            Change::Map { .. } => assert!(matches!(again, Err(EngineError::Mapped { .. }))),
            _ => assert!(again.unwrap().is_empty(), "a change that was made is made"),
        }
        Ok(())
    }

    fn call(&mut self, call: &Call) {
        match *call {
            Call::Map {
                range,
                to,
                attributes,
                largest,
            } => {
                let attributes = F::attributes(attributes);
                let change = Change::Map {
                    pa: pa(to << 12),
                    attributes,
                    largest,
                };
                let result = self.apply(range, change);
                if let Some(first) = self.model.first_mapped(range.0, range.1) {
                    assert_eq!(result, Err(EngineError::Mapped { at: ipa(first << 12) }));
                    return;
                }
                result.unwrap();
                let offset = to.cast_signed() - range.0.cast_signed();
                let attributes = attributes.to_bits();
                self.model
                    .set(range.0, range.1, |_| Page::Mapped { offset, attributes });
            }
            Call::Unmap {
                range,
                annotation,
                largest,
            } => {
                let annotation = Annotation::new(annotation).unwrap();
                self.apply(range, Change::Unmap { annotation, largest }).unwrap();
                self.model.set(range.0, range.1, |_| Page::Invalid(annotation));
            }
            Call::Protect { range, update } => {
                let update = F::update(update);
                self.apply(range, Change::Protect { update }).unwrap();
                self.model.set(range.0, range.1, |page| match page {
                    Page::Mapped { offset, attributes } => Page::Mapped {
                        offset,
                        attributes: update.apply(attributes),
                    },
                    invalid => invalid,
                });
            }
            Call::Populate { range, leaves } => {
                self.apply(range, Change::Populate { leaves }).unwrap();
                let range = span(range.0 << 12, range.1);
                for entry in self.table.entries(&self.hw, range) {
                    assert!(leaves.allows(entry.level) || matches!(entry.descriptor, Descriptor::Table(_)));
                }
            }
            Call::Fold { page, level } => self.fold(page, level),
            Call::TakeAccessed { range } => self.take_accessed(range),
        }
    }

    /// A fold happens just when the model says that a table's pages agree, and there is one level to fold.
    fn fold(&self, page: u64, level: u8) {
        let address = ipa(page << 12);
        let frames = G::level_frames(level);
        let first = page & !(frames - 1);
        let entry = self.table.walk(&self.hw, address).unwrap();
        let below: Vec<_> = self
            .table
            .entries(&self.hw, span(first << 12, frames))
            .filter(|entry| entry.level > level)
            .collect();
        let one_level = below
            .iter()
            .all(|entry| entry.level == level + 1 && !matches!(entry.descriptor, Descriptor::Table(_)));
        let here = self.model.at(first);
        let agrees = (first..first + frames).all(|page| self.model.at(page) == here);
        let aligned = match here {
            Page::Invalid(_) => true,
            Page::Mapped { offset, .. } => (first.cast_signed() + offset) & (frames.cast_signed() - 1) == 0,
        };
        let expected =
            level >= self.table.start_level() && entry.level > level && one_level && agrees && aligned;
        match self.table.fold(&self.hw, address, level) {
            Some(owed) => {
                assert!(expected);
                owed.complete(&self.hw);
                assert_eq!(self.table.walk(&self.hw, address).unwrap().level, level);
            }
            None => assert!(!expected),
        }
    }

    fn take_accessed(&mut self, (first, pages): (u64, u64)) {
        let range = span(first << 12, pages);
        let mut seen = vec![];
        self.table
            .take_accessed(&self.hw, range, |entry| seen.push(entry))
            .complete(&self.hw);
        for entry in seen {
            self.model
                .set(entry.start.value() >> 12, entry.pages, |page| match page {
                    Page::Mapped { offset, attributes } => {
                        assert_ne!(attributes & F::ACCESSED, 0);
                        Page::Mapped {
                            offset,
                            attributes: attributes & !F::ACCESSED,
                        }
                    }
                    Page::Invalid(_) => panic!("what is not mapped is not accessed"),
                });
        }
        // Nothing of the range is left with its flag.
        self.model.clone().set(first, pages, |page| {
            assert!(!matches!(page, Page::Mapped { attributes, .. } if attributes & F::ACCESSED != 0));
            page
        });
    }

    fn run(mut self, calls: &[Call]) {
        for call in calls {
            self.call(call);
            assert_eq!(Model::of(&self.hw, &self.table), self.model, "after {call:?}");
            self.hw.assert_coherent();
            let tables = tables_below_root(&self.hw, &self.table);
            assert_eq!(self.hw.pages_in_use(), self.roots + tables, "after {call:?}");
        }
    }
}

/// Pages of a table of `ia_bits`.
const fn pages(ia_bits: u32) -> u64 {
    1 << (ia_bits - 12)
}

fn watched(end: u64) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..end, 1..8)
}

/// Cases of one property; an interpreter runs fewer.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn tiny_tables_from_level_0(
        calls in prop::collection::vec(call::<Tiny>(pages(20)), 1..40),
        watched in watched(pages(20)),
    ) {
        Pair::<Stage2, Tiny>::new(0, 20, &watched).run(&calls);
    }

    #[test]
    fn tiny_tables_with_sixteen_roots(
        calls in prop::collection::vec(call::<Tiny>(pages(22)), 1..40),
        watched in watched(pages(22)),
    ) {
        Pair::<Stage2, Tiny>::new(1, 22, &watched).run(&calls);
    }

    #[test]
    fn tiny_tables_of_el2(
        calls in prop::collection::vec(call::<Tiny>(pages(20)), 1..40),
        watched in watched(pages(20)),
    ) {
        Pair::<HypStage1, Tiny>::new(0, 20, &watched).run(&calls);
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn tables_of_the_arm_granule(
        calls in prop::collection::vec(call::<Arm4K>(pages(32)), 1..10),
        watched in prop::collection::vec(0..pages(32), 1..3),
    ) {
        Pair::<Stage2, Arm4K>::new(1, 32, &watched).run(&calls);
    }
}
