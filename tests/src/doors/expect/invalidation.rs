//! What it takes on a CPU to invalidate translations.

use super::Model;
use hyp_core::geometry::{Arm4K, Geometry as _};
use hyp_core::hardware::{Extent, Regime};

/// The instructions by which translations are invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Names and numbers of the instructions that name the addresses, in their order.
    pub by_address: Vec<(&'static str, u64)>,
    /// What else must go once those are complete: the entries that combine both stages.
    pub then: Option<&'static str>,
    /// How often each is done.
    pub rounds: u64,
    /// Whether another VMID is in force than the one that they are about.
    pub elsewhere: bool,
}

/// More than so many addresses, one by one, are not worth it: the whole regime goes. A choice of the door's.
const MOST_SINGLE: u64 = 128;

/// The most pages that one sequence of range invalidations takes: 32 units of the largest scale.
const MOST_IN_RANGES: u64 = 32 << 16;

impl Invalidation {
    /// What it takes on a CPU to invalidate `extent` in `regime`, where its VMID is in force.
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
                elsewhere: false,
            },
            None => Self {
                by_address: vec![(whole, 1)],
                then: None,
                rounds,
                elsewhere: false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyp_core::addr::Ipa;

    const PLAIN: Model = Model {
        cpu: "plain",
        pa_bits: 40,
        range_tlbi: false,
        repeats_tlbi: false,
        speculates_at: false,
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
