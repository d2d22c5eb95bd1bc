//! The rules on sequences made by hand.
//!
//! - [`world`]: between host and guest.

mod world;

use super::*;
use freehold_runner::plugin::Operation;
use hyp_core::addr::Ipa;
use hyp_core::hardware::Extent;

const MODEL: Model = Model {
    cpu: "test",
    pa_bits: 40,
    range_tlbi: false,
    repeats_tlbi: false,
    speculates_at: false,
    cache_line: 64,
    zero_block: 1024,
};

fn step(text: &str) -> Told {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (name, times) = rest.split_once(" x").unwrap_or((rest, "1"));
    let number = || u64::from_str_radix(name, 16).unwrap();
    let kind = match word {
        "dsb" => Kind::Dsb,
        "dmb" => Kind::Dmb,
        "isb" => Kind::Isb,
        "tlbi" => Kind::Tlbi,
        "dc" => Kind::Dc,
        "ic" => Kind::Ic,
        "at" => Kind::At,
        "eret" => Kind::Eret,
        _ => Kind::Msr,
    };
    let token = match word {
        "vector" => Token::Vector(u16::try_from(number()).unwrap()),
        "descriptor" => Token::Descriptor(number()),
        "window" => Token::Window(number()),
        "node" => Token::Node(number()),
        "region" => Token::Region(number()),
        _ => Token::Operation(Operation {
            kind,
            name: name.to_owned().into(),
        }),
    };
    Told {
        token,
        times: times.parse().unwrap(),
        pc: 0,
    }
}

fn judge(expected: &[Expected], model: &Model, steps: &[&str]) -> Result<Tables, String> {
    let told: Vec<Told> = ["vector 400"]
        .iter()
        .chain(steps)
        .chain(&["eret"])
        .map(|text| step(text))
        .collect();
    refines(expected, &told, model, &Tables::default())
}

/// The steps are right, and without any one of them they are not.
#[track_caller]
fn needs_all(expected: &[Expected], model: &Model, steps: &[&str]) {
    judge(expected, model, steps).unwrap();
    for missing in 0..steps.len() {
        let mut fewer = steps.to_vec();
        let left_out = fewer.remove(missing);
        assert!(
            judge(expected, model, &fewer).is_err(),
            "{left_out} is not missed"
        );
    }
}

fn page(regime: Regime, model: &Model) -> Expected {
    let start = Ipa::default();
    let extent = Extent::Range {
        start,
        pages: 1,
        level: Some(3),
    };
    Expected::Invalidate(Invalidation::of(regime, extent, model))
}

#[test]
fn an_invalidation_of_the_host_needs_all_its_steps() {
    let steps = [
        "dsb ishst",
        "tlbi ipas2le1is",
        "dsb ish",
        "tlbi vmalle1is",
        "dsb ish",
        "isb",
    ];
    needs_all(&[page(Regime::Host, &MODEL)], &MODEL, &steps);
    for other in [
        [
            "dsb ishst",
            "tlbi vmalle1is",
            "dsb ish",
            "tlbi ipas2le1is",
            "dsb ish",
            "isb",
        ],
        [
            "dsb ishst",
            "tlbi ipas2le1",
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
        ],
        [
            "dsb ishst",
            "tlbi ipas2le1is",
            "dsb ishst",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
        ],
        [
            "dsb nsh",
            "tlbi ipas2le1is",
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
        ],
        [
            "dsb ishst",
            "tlbi ipas2le1is x2",
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
        ],
    ] {
        assert!(
            judge(&[page(Regime::Host, &MODEL)], &MODEL, &other).is_err(),
            "{other:?}"
        );
    }
}

#[test]
fn an_erratum_doubles_each_invalidation() {
    let model = Model {
        repeats_tlbi: true,
        ..MODEL
    };
    let steps = [
        "dsb ishst",
        "tlbi ipas2le1is",
        "dsb ish",
        "tlbi ipas2le1is",
        "dsb ish",
        "tlbi vmalle1is",
        "dsb ish",
        "tlbi vmalle1is",
        "dsb ish",
        "isb",
    ];
    needs_all(&[page(Regime::Host, &model)], &model, &steps);
    let own = [
        "dsb ishst",
        "tlbi vale2is",
        "dsb ish",
        "tlbi vale2is",
        "dsb ish",
        "isb",
    ];
    needs_all(&[page(Regime::Hyp, &model)], &model, &own);
}

#[test]
fn stronger_barriers_are_as_good() {
    let steps = [
        "dsb sy",
        "tlbi ipas2le1is",
        "dsb sy",
        "dmb ish",
        "tlbi vmalle1is",
        "dsb osh",
        "isb",
    ];
    judge(&[page(Regime::Host, &MODEL)], &MODEL, &steps).unwrap();
}

#[test]
fn a_scrub_needs_all_its_steps() {
    let steps = [
        "window 8000",
        "window 8008",
        "dsb ishst",
        "isb",
        "dc zva x8",
        "dc civac x128",
        "dsb sy",
        "window 8000",
        "window 8008",
        "dsb ishst",
        "tlbi vale2is x2",
        "dsb ish",
        "isb",
    ];
    let expected = Expected::Show {
        frames: 2,
        work: Work::Scrub,
    };
    let expected = [expected];
    needs_all(&expected, &MODEL, &steps);
    let replaced = |index: usize, other| {
        let mut steps = steps.to_vec();
        steps[index] = other;
        steps
    };
    for (index, other) in [
        (4, "dc zva x7"),
        (5, "dc cvac x128"),
        (6, "dsb ishst"),
        (8, "window 8010"),
    ] {
        assert!(
            judge(&expected, &MODEL, &replaced(index, other)).is_err(),
            "{other}"
        );
    }
}

#[test]
fn a_proof_cleans_each_frame_before_the_next_one() {
    let steps = [
        "dc zva x4",
        "dc civac x64",
        "dsb sy",
        "dc zva x4",
        "dc civac x64",
        "dsb sy",
    ];
    let expected = [Expected::Prove { frames: 2 }];
    needs_all(&expected, &MODEL, &steps);
    let at_once = ["dc zva x8", "dc civac x128", "dsb sy"];
    assert!(judge(&expected, &MODEL, &at_once).is_err());
}

#[test]
fn descriptors_are_where_their_address_says() {
    let at = |address, level| Expected::Descriptor {
        regime: Regime::Host,
        address,
        level,
    };
    let both = [at(0x8020_3000, 3), at(0x8020_5000, 3)];
    judge(&both, &MODEL, &["descriptor 7018", "descriptor 7028"]).unwrap();
    assert!(judge(&both, &MODEL, &["descriptor 7018", "descriptor 7030"]).is_err());
    assert!(
        judge(&both, &MODEL, &["descriptor 7018", "descriptor 8028"]).is_err(),
        "another table"
    );
    assert!(judge(&both, &MODEL, &["descriptor 7028", "descriptor 7018"]).is_err());
    assert!(judge(&both, &MODEL, &["descriptor 7018"]).is_err());
    assert!(
        judge(&both[..1], &MODEL, &["descriptor 7018", "descriptor 7028"]).is_err(),
        "one too many"
    );
}

#[test]
fn tables_above_the_last_level_stay_where_they_are() {
    let at = |level| {
        [Expected::Descriptor {
            regime: Regime::Host,
            address: 0,
            level,
        }]
    };
    for (level, moves) in [(2, false), (3, true)] {
        let told = |to| [step("vector 400"), step(to), step("eret")];
        let tables = refines(&at(level), &told("descriptor 1000"), &MODEL, &Tables::default()).unwrap();
        let again = refines(&at(level), &told("descriptor 2000"), &MODEL, &tables);
        assert_eq!(again.is_ok(), moves, "level {level}");
    }
}

#[test]
fn a_node_is_filled_before_it_changes() {
    let change = [Expected::Node { first: 3, count: 2 }];
    judge(&change, &MODEL, &["node 9018", "node 9020"]).unwrap();
    assert!(judge(&change, &MODEL, &["node 9018"]).is_err());
    assert!(judge(&change, &MODEL, &["node 9018", "node a020"]).is_err());
    let fill: Vec<String> = (0..512)
        .map(|index| format!("node {:x}", 0x9000 + 8 * index))
        .collect();
    let mut steps: Vec<&str> = fill.iter().map(String::as_str).collect();
    steps.extend(["node 9018", "node 9020"]);
    judge(&change, &MODEL, &steps).unwrap();
    assert!(judge(&change, &MODEL, &steps[1..]).is_err());
}

#[test]
fn what_nobody_asked_for_is_noticed() {
    for extra in [
        "dsb ish",
        "tlbi alle1is",
        "dc civac",
        "msr vttbr_el2",
        "region 3",
        "vector 480",
    ] {
        assert!(judge(&[], &MODEL, &[extra]).is_err(), "{extra}");
    }
    judge(&[], &MODEL, &["isb", "dmb ish"]).unwrap();
    judge(&[], &MODEL, &["dsb nsh", "isb"]).unwrap();
}

#[test]
fn what_is_published_is_published_before_the_lock_is_given_back() {
    let at = Expected::Descriptor {
        regime: Regime::Host,
        address: 0,
        level: 3,
    };
    let expected = [
        Expected::Region(1),
        at,
        Expected::Publish { own: false },
        Expected::Region(1),
    ];
    judge(
        &expected,
        &MODEL,
        &["region 1", "descriptor 1000", "dsb ishst", "region 1"],
    )
    .unwrap();
    assert!(
        judge(
            &expected,
            &MODEL,
            &["region 1", "dsb ishst", "descriptor 1000", "region 1"]
        )
        .is_err()
    );
    assert!(
        judge(
            &expected,
            &MODEL,
            &["region 1", "descriptor 1000", "region 1", "dsb ishst"]
        )
        .is_err()
    );
    needs_all(&[Expected::Publish { own: true }], &MODEL, &["dsb ishst", "isb"]);
}
