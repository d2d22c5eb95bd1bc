//! From the steps that the core took to what the doors must do for them on a CPU.

use hyp_core::addr::FrameSpan;
use hyp_core::double::Step;
use hyp_core::geometry::{Arm4K, Geometry as _};
use hyp_core::hardware::{Event, Extent, LockName, Regime};

/// What decides how the doors do their work.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// QEMU's name of the CPU model.
    pub cpu: &'static str,
    /// How many physical address bits it has, as far as EL2 uses them.
    pub pa_bits: u32,
    /// FEAT_TLBIRANGE: invalidation by range.
    pub range_tlbi: bool,
    /// Every broadcast invalidation is done twice: Cortex-A76 errata 1286807 and 4193800, and their
    /// like.
    pub repeats_tlbi: bool,
    /// Bytes of a data cache line; the payload says it.
    pub cache_line: u64,
    /// Bytes that DC ZVA zeroes; the payload says it.
    pub zero_block: u64,
}

/// Something that must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The word of a region: its lock is taken, or given back.
    Region(u64),
    /// Entries of a node of the map, after which the node may have been filled with what all frames had in common.
    Node {
        /// The first entry.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One descriptor.
    Descriptor {
        /// Of whose table.
        regime: Regime,
        /// The first address that it translates.
        address: u64,
        /// Its level.
        level: u8,
    },
    /// Descriptors become visible to table walks; to EL2's own as well if `own`.
    Publish {
        /// Whether a descriptor of EL2's own table is among them.
        own: bool,
    },
    /// Translations are invalidated.
    Invalidate(Invalidation),
    /// So many frames, shown by the window, are zeroed if `zero`, and cleaned to the point of coherency.
    Clean {
        /// How many.
        frames: u64,
        /// Whether they are zeroed first.
        zero: bool,
    },
    /// A page of the pool is zeroed.
    ZeroPage,
}

/// The instructions by which translations are invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Names and numbers of the instructions that name the addresses, in their order.
    pub by_address: Vec<(&'static str, u64)>,
    /// What else must go once those are complete: the entries that combine both stages.
    pub then: Option<&'static str>,
    /// How often each is done.
    pub rounds: u64,
}

/// More than so many addresses, one by one, are not worth it: the whole regime goes. A choice of the door's.
const MOST_SINGLE: u64 = 128;

/// The most pages that one sequence of range invalidations takes: 32 units of the largest scale.
const MOST_IN_RANGES: u64 = 32 << 16;

impl Invalidation {
    /// What it takes on a CPU to invalidate `extent` in `regime`.
    #[must_use]
    pub fn of(regime: Regime, extent: Extent, model: &Model) -> Self {
        let (whole, combined) = match regime {
            Regime::Hyp => ("alle2is", None),
            Regime::Host | Regime::Guest(_) => ("vmalls12e1is", Some("vmalle1is")),
        };
        let rounds = if model.repeats_tlbi { 2 } else { 1 };
        let by_address = match extent {
            Extent::Range { pages, level, .. } => by_address(regime, pages, level, model),
            Extent::All => None,
        };
        match by_address {
            Some(by_address) => Self {
                by_address,
                then: combined,
                rounds,
            },
            None => Self {
                by_address: vec![(whole, 1)],
                then: None,
                rounds,
            },
        }
    }
}

/// The instructions that name addresses (Arm ARM DDI 0487, D8.16.3), or `None` if there would be too many.
fn by_address(
    regime: Regime,
    pages: u64,
    level: Option<u8>,
    model: &Model,
) -> Option<Vec<(&'static str, u64)>> {
    // If only leaves changed, the walk caches may keep the tables above.
    let (one, range) = match (regime, level.is_some()) {
        (Regime::Hyp, true) => ("vale2is", "rvale2is"),
        (Regime::Hyp, false) => ("vae2is", "rvae2is"),
        (_, true) => ("ipas2le1is", "ripas2le1is"),
        (_, false) => ("ipas2e1is", "ripas2e1is"),
    };
    let singles = pages.div_ceil(level.map_or(1, Arm4K::level_frames));
    if singles == 1 || !model.range_tlbi {
        return (singles <= MOST_SINGLE).then(|| vec![(one, singles)]);
    }
    if pages > MOST_IN_RANGES {
        return None;
    }
    // A range instruction takes up to 32 units of 2^(5 * SCALE + 1) pages: one for each digit, to the base 32, of the
    // number of pairs of pages that is not 0. What is left is an odd page.
    let pairs = pages / 2;
    let mut ranges = (0..3).filter(|digit| pairs >> (5 * digit) & 31 != 0).count() as u64;
    ranges += u64::from(pairs >> 15 != 0);
    let mut all = vec![(range, ranges)];
    if pages % 2 == 1 {
        all.push((one, 1));
    }
    Some(all)
}

/// What must be seen for the steps of an act, in this order.
#[must_use]
pub fn expected(steps: &[Step], model: &Model) -> Vec<Expected> {
    let mut all = Vec::new();
    let mut own = false;
    let mut changed: Option<(u64, u64)> = None;
    for step in steps {
        if let Step::Core(Event::Transition { frames, .. }) = step {
            let (first, count) = (frames.start().number(), frames.frames());
            changed = match changed {
                // The run of a change is told in parts if the frames had different states.
                Some((start, so_far)) if start + so_far == first && same_region(start, first) => {
                    Some((start, so_far + count))
                }
                Some(before) => {
                    all.extend(node(before));
                    Some((first, count))
                }
                None => Some((first, count)),
            };
            continue;
        }
        all.extend(changed.take().and_then(node));
        match *step {
            Step::Core(
                Event::Locked(LockName::Region(number)) | Event::Unlocked(LockName::Region(number)),
            ) => {
                all.push(Expected::Region(number));
            }
            Step::Core(Event::Descriptor {
                regime,
                address,
                level,
                ..
            }) => {
                own |= regime == Regime::Hyp;
                all.push(Expected::Descriptor {
                    regime,
                    address: address.value(),
                    level,
                });
            }
            Step::Publish => {
                all.push(Expected::Publish { own });
                own = false;
            }
            Step::Invalidate(regime, extent) => {
                all.push(Expected::Invalidate(Invalidation::of(regime, extent, model)));
            }
            Step::Scrub(frames) => all.push(clean(frames, true)),
            Step::Clean(frames) => all.push(clean(frames, false)),
            Step::Allocate(_) => all.push(Expected::ZeroPage),
            // The other locks are no words of the map; a page that comes back is only put on a list.
            // No operation that is traced gives a guest anything to execute yet.
            Step::Core(Event::Locked(_) | Event::Unlocked(_) | Event::Transition { .. })
            | Step::Free(_)
            | Step::InvalidateCode
            | Step::SharedLoad(..) => {}
        }
    }
    all.extend(changed.take().and_then(node));
    all
}

fn same_region(one: u64, other: u64) -> bool {
    one / Arm4K::REGION_FRAMES == other / Arm4K::REGION_FRAMES
}

/// What a change of frames stores into a node: nothing, if it is a whole region's.
fn node((first, count): (u64, u64)) -> Option<Expected> {
    (count < Arm4K::REGION_FRAMES).then_some(Expected::Node {
        first: first % Arm4K::REGION_FRAMES,
        count,
    })
}

fn clean(frames: FrameSpan, zero: bool) -> Expected {
    Expected::Clean {
        frames: frames.frames(),
        zero,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyp_core::addr::Ipa;

    const PLAIN: Model = Model {
        cpu: "plain",
        pa_bits: 40,
        range_tlbi: false,
        repeats_tlbi: false,
        cache_line: 64,
        zero_block: 64,
    };
    const RANGES: Model = Model {
        range_tlbi: true,
        ..PLAIN
    };

    fn range(pages: u64, level: Option<u8>) -> Extent {
        let start = Ipa::default();
        Extent::Range { start, pages, level }
    }

    fn by_address(pages: u64, level: Option<u8>, model: &Model) -> Vec<(&'static str, u64)> {
        Invalidation::of(Regime::Host, range(pages, level), model).by_address
    }

    #[test]
    fn one_instruction_for_each_leaf_or_all_at_once() {
        assert_eq!(by_address(1, Some(3), &PLAIN), [("ipas2le1is", 1)]);
        assert_eq!(by_address(512, Some(2), &PLAIN), [("ipas2le1is", 1)]);
        assert_eq!(by_address(128, Some(3), &PLAIN), [("ipas2le1is", 128)]);
        assert_eq!(by_address(128, None, &PLAIN), [("ipas2e1is", 128)]);
        assert_eq!(by_address(129, Some(3), &PLAIN), [("vmalls12e1is", 1)]);
        let hyp = |extent| Invalidation::of(Regime::Hyp, extent, &PLAIN);
        assert_eq!(hyp(range(16, Some(3))).by_address, [("vale2is", 16)]);
        assert_eq!(hyp(range(512, None)).by_address, [("alle2is", 1)]);
        assert_eq!(hyp(range(16, Some(3))).then, None);
        assert_eq!(Invalidation::of(Regime::Host, Extent::All, &PLAIN).then, None);
    }

    #[test]
    fn ranges_are_digits_to_the_base_of_32() {
        assert_eq!(by_address(1, Some(3), &RANGES), [("ipas2le1is", 1)]);
        assert_eq!(by_address(512, Some(2), &RANGES), [("ipas2le1is", 1)]);
        assert_eq!(by_address(2, Some(3), &RANGES), [("ripas2le1is", 1)]);
        assert_eq!(by_address(40, Some(3), &RANGES), [("ripas2le1is", 1)]);
        assert_eq!(by_address(512, Some(3), &RANGES), [("ripas2le1is", 1)]);
        assert_eq!(
            by_address(63, None, &RANGES),
            [("ripas2e1is", 1), ("ipas2e1is", 1)]
        );
        assert_eq!(by_address(66, None, &RANGES), [("ripas2e1is", 2)]);
        assert_eq!(by_address(32 << 16, None, &RANGES), [("ripas2e1is", 1)]);
        assert_eq!(by_address((32 << 16) + 1, None, &RANGES), [("vmalls12e1is", 1)]);
    }
}
