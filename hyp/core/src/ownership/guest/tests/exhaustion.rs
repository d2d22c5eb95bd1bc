//! Pages that run out, in the pool and in the reserve, at every point: a refusal changes nothing and says what is lacking,
//! and what it says suffices.

use super::*;
use crate::ownership::Refusal;
use crate::ownership::guest::GuestOutcome;
use hyp_abi::Status;

/// A call whose need of pages is tried: what goes before it, and the call itself.
struct Case {
    name: &'static str,
    kind: Kind,
    before: fn(&System, u64),
    call: fn(&System, u64) -> Result<u64, Refusal>,
    done: u64,
}

/// A guest's call in the form of a host's.
fn of_guest(outcome: GuestOutcome) -> Result<u64, Refusal> {
    match outcome {
        GuestOutcome::Done(done) => Ok(done),
        GuestOutcome::NeedsPages(pages) => Err(Refusal::vm_needs(pages)),
        other => panic!("{other:?}"),
    }
}

fn block(system: &System, vm: u64) {
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
}

fn nothing(_: &System, _: u64) {}

const CASES: [Case; 18] = [
    Case {
        name: "donate a page",
        kind: PROTECTED,
        before: nothing,
        call: |system, vm| system.guest_donate(vm, span(HOST_REGION + 5, 1), MEMORY),
        done: 1,
    },
    Case {
        name: "donate pages over a border",
        kind: PROTECTED,
        before: nothing,
        call: |system, vm| system.guest_donate(vm, span(HOST_REGION + 5, 30), MEMORY + 500),
        done: 30,
    },
    Case {
        name: "donate a block",
        kind: PROTECTED,
        before: nothing,
        call: |system, vm| system.guest_donate(vm, span(HOST_REGION, 512), MEMORY),
        done: 512,
    },
    Case {
        name: "donate a region unaligned",
        kind: PROTECTED,
        before: nothing,
        call: |system, vm| system.guest_donate(vm, span(HOST_REGION, 512), MEMORY + 1),
        done: 512,
    },
    Case {
        name: "donate before launch",
        kind: Kind {
            life: Life::Created,
            ..PROTECTED
        },
        before: nothing,
        call: |system, vm| system.guest_donate(vm, span(HOST_REGION + 5, 3), MEMORY),
        done: 3,
    },
    Case {
        name: "lend a page of a block",
        kind: PROTECTED,
        before: block,
        call: |system, _| of_guest(system.guest_lend(1, range(MEMORY + 7, 1))),
        done: 1,
    },
    Case {
        name: "lend a block",
        kind: PROTECTED,
        before: block,
        call: |system, _| of_guest(system.guest_lend(1, range(MEMORY, 512))),
        done: 512,
    },
    Case {
        name: "unlend a page of a block",
        kind: PROTECTED,
        before: |system, vm| {
            block(system, vm);
            system.guest_lend(1, range(MEMORY, 512));
        },
        call: |system, _| of_guest(system.guest_unlend(1, range(MEMORY + 7, 1))),
        done: 1,
    },
    Case {
        name: "relinquish a page of a block",
        kind: PROTECTED,
        before: block,
        call: |system, _| of_guest(system.guest_relinquish(1, range(MEMORY + 7, 1))),
        done: 1,
    },
    Case {
        name: "relinquish a block",
        kind: PROTECTED,
        before: block,
        call: |system, _| of_guest(system.guest_relinquish(1, range(MEMORY, 512))),
        done: 512,
    },
    Case {
        name: "relinquish a lent page of a block",
        kind: PROTECTED,
        before: |system, vm| {
            block(system, vm);
            system.guest_lend(1, range(MEMORY, 512));
        },
        call: |system, _| of_guest(system.guest_relinquish(1, range(MEMORY + 7, 1))),
        done: 1,
    },
    Case {
        name: "reclaim a page of a block",
        kind: PROTECTED,
        before: |system, vm| {
            block(system, vm);
            die(system);
        },
        call: |system, vm| system.guest_reclaim(vm, range(MEMORY + 7, 1)),
        done: 1,
    },
    Case {
        name: "reclaim a block",
        kind: PROTECTED,
        before: |system, vm| {
            block(system, vm);
            die(system);
        },
        call: |system, vm| system.guest_reclaim(vm, range(MEMORY, 512)),
        done: 512,
    },
    Case {
        name: "reclaim a lent page of a block",
        kind: PROTECTED,
        before: |system, vm| {
            block(system, vm);
            system.guest_lend(1, range(MEMORY, 512));
            die(system);
        },
        call: |system, vm| system.guest_reclaim(vm, range(MEMORY + 7, 1)),
        done: 1,
    },
    Case {
        name: "take a page of a block by force",
        kind: PROTECTED,
        before: block,
        call: |system, _| system.force_reclaim(frame(HOST_REGION + 7)).map(|()| 1),
        done: 1,
    },
    Case {
        name: "share pages",
        kind: OPEN,
        before: nothing,
        call: |system, vm| system.guest_share(vm, span(HOST_REGION + 5, 30), MEMORY + 500, 7),
        done: 30,
    },
    Case {
        name: "unshare a page of a block",
        kind: OPEN,
        before: |system, vm| {
            system.guest_share(vm, span(HOST_REGION, 512), MEMORY, 7).unwrap();
        },
        call: |system, vm| system.guest_unshare(vm, range(MEMORY + 7, 1)),
        done: 1,
    },
    Case {
        name: "change the rights to a page of a block",
        kind: OPEN,
        before: |system, vm| {
            system.guest_share(vm, span(HOST_REGION, 512), MEMORY, 7).unwrap();
        },
        call: |system, vm| system.guest_set_permissions(vm, range(MEMORY + 7, 1), 1),
        done: 1,
    },
];

/// Leaves so many pages in the reserve, and takes the others away.
fn leave(system: &System, pages: u64) {
    of_vm(system, 1, |vm| {
        let hw = system.hardware();
        let away = vm.reserve.pages() - pages;
        vm.reserve.split(hw, away).unwrap().release(hw);
    });
}

#[test]
fn running_out_of_pages_refuses_changes_nothing_and_says_what_is_lacking() {
    for case in CASES {
        let mut pool_needed = 0;
        let mut reserve_needed = 0;
        for reserve in 0..=6 {
            for pool in 0..=4 {
                let (system, vm) = with_vm(case.kind);
                (case.before)(&system, vm);
                leave(&system, reserve);
                let hw = system.hardware();
                hw.limit_pool(Some(pool));
                let before = everything(&system);
                let what = std::format!("{} with {reserve} and {pool}", case.name);
                match (case.call)(&system, vm) {
                    Ok(done) => assert_eq!(done, case.done, "{what}"),
                    Err(refusal) => {
                        assert_eq!(everything(&system), before, "{what}: a refusal changed something");
                        match refusal.status {
                            Status::VmNeedsMemory => {
                                assert!(refusal.pages_needed > 0);
                                reserve_needed = reserve_needed.max(reserve + refusal.pages_needed);
                            }
                            Status::NoMemory => {
                                assert!(refusal.pages_needed > pool);
                                pool_needed = pool_needed.max(refusal.pages_needed);
                            }
                            other => panic!("{what}: {other:?}"),
                        }
                    }
                }
                hw.limit_pool(None);
                assert_sound(&system);
            }
        }
        // What the refusals asked for is enough, and one page less of either is not.
        for (lack_reserve, lack_pool) in [(0, 0), (1, 0), (0, 1)] {
            if lack_reserve > reserve_needed || lack_pool > pool_needed {
                continue;
            }
            let (system, vm) = with_vm(case.kind);
            (case.before)(&system, vm);
            leave(&system, reserve_needed - lack_reserve);
            system.hardware().limit_pool(Some(pool_needed - lack_pool));
            let enough = lack_reserve + lack_pool == 0;
            let answer = (case.call)(&system, vm);
            assert_eq!(
                answer.is_ok(),
                enough,
                "{}: {reserve_needed} and {pool_needed}",
                case.name
            );
        }
    }
}

#[test]
fn a_guest_drains_its_own_reserve_and_not_the_pool() {
    let (system, vm) = with_vm(PROTECTED);
    for region in 0..4 {
        let first = HOST_REGION + region * 512;
        system
            .guest_donate(vm, span(first, 512), MEMORY + region * 512)
            .unwrap();
    }
    system.hardware().limit_pool(Some(0));
    let mut lent = 0;
    let needed = loop {
        match system.guest_lend(1, range(MEMORY + lent * 512, 1)) {
            GuestOutcome::Done(1) => lent += 1,
            GuestOutcome::NeedsPages(pages) => break pages,
            other => panic!("{other:?}"),
        }
        if lent == 4 {
            leave(&system, 0);
            let outcome = system.guest_relinquish(1, range(MEMORY + 1, 1));
            let GuestOutcome::NeedsPages(pages) = outcome else {
                panic!("{outcome:?}");
            };
            break pages;
        }
    };
    assert_eq!(needed, 1, "the guest's block is split");
    assert_sound(&system);
}
