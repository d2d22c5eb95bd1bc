//! The world switch, in the right order and in others.

use super::*;

/// Walks for a speculative AT may mix what host and guest have.
const SPECULATES: Model = Model {
    speculates_at: true,
    ..MODEL
};

const STOP_WALKS: [&str; 4] = ["msr tcr_el1", "isb", "msr sctlr_el1", "isb"];
const BEGIN_WALKS: [&str; 3] = ["msr sctlr_el1", "isb", "msr tcr_el1"];
const EXCHANGE: [&str; 4] = ["msr cptr_el2", "msr mdcr_el2", "msr vmpidr_el2", "msr vbar_el2"];
const STAGE_1: [&str; 2] = ["msr ttbr0_el1", "msr ttbr1_el1"];
const STAGE_2: [&str; 4] = ["msr vtcr_el2", "msr hcr_el2", "msr vttbr_el2", "isb"];
const FORGET: [&str; 5] = ["tlbi vmalle1", "dsb nsh", "ic iallu", "dsb nsh", "isb"];

/// No step may come before the one before it. Two registers without a barrier between them may change places only where
/// they are exchanged and do not rule translation.
#[track_caller]
fn needs_its_order(expected: &[Expected], model: &Model, steps: &[&str]) {
    needs_all(expected, model, steps);
    for second in 1..steps.len() {
        let mut swapped = steps.to_vec();
        swapped.swap(second - 1, second);
        let is_free = |step: &&str| EXCHANGE.contains(step);
        let pair = &steps[second - 1..=second];
        if pair.iter().any(is_free) {
            continue;
        }
        assert!(
            judge(expected, model, &swapped).is_err(),
            "{pair:?} in the other order"
        );
    }
}

#[test]
fn a_vcpu_is_loaded_in_this_order() {
    let again = [Expected::LoadGuest { forget: false }];
    let simple = [
        &EXCHANGE[..],
        &STAGE_1,
        &STAGE_2,
        &["msr sctlr_el1", "msr tcr_el1"],
    ]
    .concat();
    needs_its_order(&again, &MODEL, &simple);
    let careful = [&EXCHANGE[..], &STOP_WALKS, &STAGE_1, &STAGE_2, &BEGIN_WALKS].concat();
    needs_its_order(&again, &SPECULATES, &careful);
    assert!(
        judge(&again, &MODEL, &careful).is_err(),
        "walks are stopped where they need not be"
    );
    assert!(
        judge(&again, &SPECULATES, &simple).is_err(),
        "walks go on where they must not"
    );
}

#[test]
fn what_another_vcpu_has_left_is_forgotten_before_walks_begin() {
    let first = [Expected::LoadGuest { forget: true }];
    let steps = [
        &EXCHANGE[..],
        &STOP_WALKS,
        &STAGE_1,
        &STAGE_2,
        &FORGET,
        &BEGIN_WALKS,
    ]
    .concat();
    needs_its_order(&first, &SPECULATES, &steps);
    let late = [
        &EXCHANGE[..],
        &STOP_WALKS,
        &STAGE_1,
        &STAGE_2,
        &BEGIN_WALKS,
        &FORGET,
    ]
    .concat();
    assert!(judge(&first, &SPECULATES, &late).is_err());
    let in_vain = [Expected::LoadGuest { forget: false }];
    assert!(judge(&in_vain, &SPECULATES, &steps).is_err());
}

#[test]
fn the_host_comes_back_in_this_order() {
    let put = [Expected::PutGuest];
    let steps = [&STOP_WALKS[..], &STAGE_2, &STAGE_1, &BEGIN_WALKS, &EXCHANGE].concat();
    needs_its_order(&put, &SPECULATES, &steps);
    let early = [&STOP_WALKS[..], &STAGE_1, &STAGE_2, &BEGIN_WALKS, &EXCHANGE].concat();
    assert!(
        judge(&put, &SPECULATES, &early).is_err(),
        "stage 1 of the one with stage 2 of the other"
    );
}

#[test]
fn a_guest_gets_the_vector_registers_in_between() {
    let run = |vectors| {
        [Expected::RunGuest {
            vector: 0x480,
            vectors,
        }]
    };
    let steps = [
        "eret",
        "vector 400",
        "msr cptr_el2",
        "msr cptr_el2",
        "eret",
        "vector 480",
    ];
    needs_its_order(&run(true), &MODEL, &steps);
    assert!(judge(&run(false), &MODEL, &steps).is_err());
    needs_its_order(&run(false), &MODEL, &["eret", "vector 480"]);
}

#[test]
fn another_vmid_is_in_force_for_an_invalidation() {
    let invalidation = Invalidation {
        by_address: vec![("vmalls12e1is", 1)],
        then: None,
        rounds: 1,
        elsewhere: true,
    };
    let expected = [Expected::Invalidate(invalidation)];
    let invalidate = ["tlbi vmalls12e1is", "dsb ish"];
    let change = ["msr vttbr_el2", "isb"];
    let simple = [&["dsb ishst"], &change[..], &invalidate, &change].concat();
    needs_its_order(&expected, &MODEL, &simple);
    let careful = [
        &["dsb ishst"],
        &STOP_WALKS[..],
        &change,
        &invalidate,
        &change,
        &BEGIN_WALKS,
        &["isb"],
    ]
    .concat();
    needs_its_order(&expected, &SPECULATES, &careful);
    assert!(judge(&expected, &SPECULATES, &simple).is_err());
}

#[test]
fn an_address_of_the_guest_is_translated_before_the_answer_is_read() {
    needs_its_order(&[Expected::TranslateGuest], &MODEL, &["at s1e1r", "isb"]);
}
