//! What VMs that are not protected borrow: rights, age, and how often.

use super::*;
use crate::map::MAX_COUNT;
use crate::ownership::guest::{Aged, GuestAccess, GuestVerdict};
use crate::state::State;
use hyp_abi::Status;
use hyp_abi::vm::Permissions;

const ALL: u64 = Permissions::all().bits();
const READ: u64 = Permissions::READ.bits();

fn verdicts(system: &System, gfn: u64) -> [GuestVerdict; 3] {
    [GuestAccess::Read, GuestAccess::Write, GuestAccess::Fetch]
        .map(|access| system.judge_guest_abort(1, ipa(gfn), access))
}

#[test]
fn the_guest_has_the_rights_that_the_host_gives_and_no_others() {
    let retry = GuestVerdict::Retry;
    for (start, gfn, frames) in [
        (HOST_REGION + 3, MEMORY, 1),
        (HOST_REGION, MEMORY, 512),
        (HOST_REGION + 9, MEMORY, 1000),
    ] {
        let (system, vm) = with_vm(OPEN);
        let hw = system.hardware();
        let lent = span(start, frames);
        watch(&system, lent, gfn);
        hw.write(lent.start(), 4);
        assert_eq!(system.guest_share(vm, lent, gfn, ALL), Ok(frames));
        assert_eq!(hw.contents(lent.start()), crate::double::Contents::Written(4));
        assert_eq!(hw.reach(Regime::Host, lent.start().address().host_ipa()).len(), 1);
        assert_eq!(verdicts(&system, gfn), [retry; 3]);
        let missing = GuestVerdict::Missing { gfn };
        assert_eq!(system.guest_set_permissions(vm, range(gfn, 1), READ), Ok(1));
        assert_eq!(verdicts(&system, gfn), [retry, missing, missing]);
        if frames > 1 {
            assert_eq!(verdicts(&system, gfn + 1), [retry; 3]);
        }
        let execute = (Permissions::READ | Permissions::EXECUTE).bits();
        assert_eq!(
            system.guest_set_permissions(vm, range(gfn, frames), execute),
            Ok(frames)
        );
        assert_eq!(verdicts(&system, gfn), [retry, missing, retry]);
        assert_eq!(
            system.guest_set_permissions(vm, range(gfn, frames), ALL),
            Ok(frames)
        );
        assert_eq!(verdicts(&system, gfn), [retry; 3]);
        assert_eq!(counts(&system).borrowed, frames);
        assert_sound(&system);
        assert_eq!(system.guest_unshare(vm, range(gfn, frames)), Ok(frames));
        assert_eq!(counts(&system).borrowed, 0);
        assert!(
            lent.iter()
                .all(|frame| entry(&system, frame.number()) == Entry::plain(State::Host))
        );
        assert_sound(&system);
    }
}

#[test]
fn beside_its_memory_a_guest_may_execute_what_comes_and_writes_to_the_host_what_it_may_only_read() {
    let (system, vm) = with_vm(OPEN);
    let gfn = MEMORY - 5;
    let missing = GuestVerdict::Missing { gfn };
    let device = GuestVerdict::Mmio;
    assert_eq!(verdicts(&system, gfn), [device, device, missing]);
    let lent = span(HOST_REGION, 1);
    let execute = (Permissions::READ | Permissions::EXECUTE).bits();
    system.guest_share(vm, lent, gfn, execute).unwrap();
    let retry = GuestVerdict::Retry;
    assert_eq!(verdicts(&system, gfn), [retry, device, retry]);
    assert_sound(&system);
}

#[test]
fn what_was_lent_page_by_page_goes_back_without_a_page_of_the_pool() {
    let (system, vm) = with_vm(OPEN);
    let hw = system.hardware();
    for index in 0..512 {
        let lent = span(HOST_REGION + index, 1);
        system.guest_share(vm, lent, MEMORY + index, ALL).unwrap();
    }
    // Somebody tidies up.
    system.collapse(span(HOST_REGION, 512)).unwrap();
    assert_eq!(
        system.guest_set_permissions(vm, range(MEMORY + 3, 1), READ),
        Ok(1)
    );
    let mut reserve = of_vm(&system, 1, |vm| {
        core::mem::replace(&mut vm.reserve, Reserve::new())
    });
    let mut pool = Vec::new();
    while let Some(page) = hw.allocate_page() {
        pool.push(page);
    }
    for index in (0..512).rev() {
        assert_eq!(system.guest_unshare(vm, range(MEMORY + index, 1)), Ok(1));
    }
    for page in pool {
        hw.free_page(page);
    }
    of_vm(&system, 1, |vm| {
        reserve.append(hw, core::mem::replace(&mut vm.reserve, Reserve::new()))
    });
    of_vm(&system, 1, |vm| vm.reserve = reserve);
    assert_sound(&system);
}

#[test]
fn frames_are_borrowed_several_times_and_counted() {
    let (system, vm) = with_vm(OPEN);
    let other = create(&system, 2, OPEN);
    let block = span(HOST_REGION, 512);
    system.guest_share(vm, block, MEMORY, ALL).unwrap();
    system
        .guest_share(other, span(HOST_REGION + 5, 3), 77, READ)
        .unwrap();
    system.guest_share(vm, span(HOST_REGION + 6, 1), 5, READ).unwrap();
    let borrowers = |offset| entry(&system, HOST_REGION + offset).count();
    assert_eq!([4, 5, 6, 7, 8].map(borrowers), [1, 2, 3, 2, 1]);
    assert_sound(&system);
    assert_eq!(
        system.share_hyp(span(HOST_REGION + 6, 1)),
        Err(Status::SharedWithGuest.into())
    );
    assert_eq!(system.guest_unshare(vm, range(MEMORY, 512)), Ok(512));
    assert_eq!([4, 5, 6, 7, 8].map(borrowers), [0, 1, 2, 1, 0]);
    assert_sound(&system);
    assert_eq!(system.guest_unshare(other, range(77, 3)), Ok(3));
    assert_eq!(system.guest_unshare(vm, range(5, 1)), Ok(1));
    assert_eq!(
        system.guest_unshare(vm, range(5, 1)),
        Err(Status::GfnNotMapped.into())
    );
    system.collapse(block).unwrap();
    assert_eq!(system.frame_info(block.start()).unwrap().agreeing, 2 << 20);
    assert_sound(&system);
}

#[test]
fn too_many_borrowers_are_refused() {
    let (system, vm) = with_vm(OPEN);
    let full = Entry::borrowed(MAX_COUNT).unwrap();
    system.force(span(HOST_REGION + 9, 1), full);
    let before = everything(&system);
    for lent in [
        span(HOST_REGION + 9, 1),
        span(HOST_REGION + 5, 10),
        span(HOST_REGION, 512),
    ] {
        let refused = system.guest_share(vm, lent, MEMORY, ALL);
        assert_eq!(refused, Err(Status::CountOverflow.into()));
    }
    assert_eq!(everything(&system), before);
}

#[test]
fn permissions_that_make_no_sense_are_refused() {
    let (system, vm) = with_vm(OPEN);
    system.guest_share(vm, span(HOST_REGION, 1), MEMORY, ALL).unwrap();
    let before = everything(&system);
    for permissions in [0, 2, 4, 6, 8, 9, u64::MAX] {
        let refused = Err(Status::InvalidParameter.into());
        assert_eq!(
            system.guest_share(vm, span(HOST_REGION + 1, 1), MEMORY + 1, permissions),
            refused
        );
        assert_eq!(
            system.guest_set_permissions(vm, range(MEMORY, 1), permissions),
            refused
        );
    }
    assert_eq!(everything(&system), before);
}

#[test]
fn age_is_taken_by_descriptor_and_begins_anew() {
    let (system, vm) = with_vm(OPEN);
    let hw = system.hardware();
    watch(&system, span(HOST_REGION, 1024), MEMORY);
    system
        .guest_share(vm, span(HOST_REGION, 512), MEMORY, ALL)
        .unwrap();
    system
        .guest_share(vm, span(HOST_REGION + 600, 10), MEMORY + 600, ALL)
        .unwrap();
    let used = |frames, used| Ok(Aged { frames, used });
    assert_eq!(
        system.guest_test_age(vm, range(MEMORY + 10, 1024)),
        used(1024, 512)
    );
    assert_eq!(system.guest_test_age(vm, range(MEMORY, 1024)), used(1024, 0));
    assert!(
        hw.reach(Regime::Guest(1), ipa(MEMORY)).is_empty(),
        "the next access faults"
    );
    assert_eq!(verdicts(&system, MEMORY + 3)[0], GuestVerdict::Retry);
    assert_eq!(mapped(&system, MEMORY + 3).0, 2, "a block is marked as it is");
    assert_eq!(verdicts(&system, MEMORY + 605)[1], GuestVerdict::Retry);
    assert_eq!(system.guest_test_age(vm, range(MEMORY, 1024)), used(1024, 513));
    // Rights come and go without a look at the age.
    assert_eq!(
        system.guest_set_permissions(vm, range(MEMORY, 1024), READ),
        Ok(1024)
    );
    assert_eq!(system.guest_test_age(vm, range(MEMORY, 1024)), used(1024, 0));
    assert_sound(&system);
}
