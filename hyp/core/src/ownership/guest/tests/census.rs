//! The audits find what is wrong.

use super::*;
use crate::ownership::guest::table::OWN_MEMORY;
use crate::pgtable::{Change, LargestLeaf, Stage2Attributes};
use crate::state::State;
use crate::vm::GuestAnnotation;
use hyp_abi::Status;

#[test]
fn the_audit_of_a_vm_counts_what_it_looks_at() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    system
        .guest_donate(vm, span(HOST_REGION + 700, 30), MEMORY + 700)
        .unwrap();
    let all = 1 << (IPA_BITS - FRAME_SHIFT);
    let report = system.guest_audit(vm, range(0, all)).unwrap();
    assert_eq!((report.frames, report.disagreements), (all, 0));
    assert_eq!(
        system.guest_audit(vm, range(0, 0)),
        Err(Status::EmptyRange.into())
    );
    assert_eq!(
        system.guest_audit(vm, range(0, all + 1)),
        Err(Status::GfnOutOfRange.into())
    );
    assert_eq!(
        system.guest_audit(vm + 1, range(0, 1)),
        Err(Status::NoSuchVm.into())
    );
}

/// A machine on which something is wrong with the page at `MEMORY + 3`, which frame 3 of the region stands behind.
fn broken(how: impl FnOnce(&mut Vm<Machine<Arm4K>>, &System)) -> (System, u64) {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 10), MEMORY).unwrap();
    assert_sound(&system);
    let mut locked = system.lock_guest(1).unwrap();
    how(&mut locked, &system);
    drop(locked);
    (system, vm)
}

fn remap(vm: &mut Vm<Machine<Arm4K>>, system: &System, gfn: u64, to: u64, attributes: Stage2Attributes) {
    let hw = system.hardware();
    let page = IpaSpan::new(ipa(gfn), 1).unwrap();
    vm.annotate(hw, page, GuestAnnotation::Absent);
    let change = Change::Map {
        pa: frame(to).address(),
        attributes,
        largest: LargestLeaf::Page,
    };
    let owed = vm.change(hw, page, change);
    vm.pay(hw, owed);
}

#[test]
fn a_page_that_leads_to_another_frame_is_found_from_both_sides() {
    for to in [
        HOST_REGION + 100,
        HOST_REGION + 4,
        super::super::super::tests::RAM,
    ] {
        let (system, vm) = broken(|vm, system| remap(vm, system, MEMORY + 3, to, OWN_MEMORY));
        let report = system.guest_audit(vm, range(MEMORY, 512)).unwrap();
        assert_eq!(report.disagreements, 1);
        assert_eq!(system.audit(span(HOST_REGION, 512)).unwrap().disagreements, 1);
        assert!(!system.guest_census().is_empty());
    }
}

#[test]
fn a_page_with_other_attributes_or_without_any_is_found() {
    let attributes = OWN_MEMORY.not_accessed();
    let (system, vm) = broken(|vm, system| remap(vm, system, MEMORY + 3, HOST_REGION + 3, attributes));
    assert_eq!(
        system.guest_audit(vm, range(MEMORY, 512)).unwrap().disagreements,
        1
    );
    let (system, _) = broken(|vm, system| {
        let page = IpaSpan::new(ipa(MEMORY + 3), 1).unwrap();
        vm.annotate(system.hardware(), page, GuestAnnotation::Absent);
    });
    assert_eq!(system.audit(span(HOST_REGION, 512)).unwrap().disagreements, 1);
    assert!(!system.guest_census().is_empty());
}

#[test]
fn counts_that_are_wrong_are_found() {
    let (system, _) = broken(|vm, _| vm.counts.private -= 1);
    assert!(!system.guest_census().is_empty());
    let (system, _) = broken(|vm, _| vm.table_pages += 1);
    assert!(!system.guest_census().is_empty());
    let (system, _) = broken(|_, system| {
        system.force(span(HOST_REGION + 600, 1), Entry::borrowed(1).unwrap());
    });
    assert!(!system.guest_census().is_empty());
}

#[test]
fn a_borrowed_frame_without_borrowers_is_found_from_both_sides() {
    let (system, vm) = with_vm(OPEN);
    system.guest_share(vm, span(HOST_REGION, 4), MEMORY, 1).unwrap();
    let look = |system: &System| {
        let frames = system.audit(span(HOST_REGION, 512)).unwrap().disagreements;
        let pages = system.guest_audit(vm, range(MEMORY, 512)).unwrap().disagreements;
        (frames, pages)
    };
    assert_eq!(look(&system), (0, 0));
    system.force(span(HOST_REGION + 2, 1), Entry::plain(State::HostSharedGuest));
    assert_eq!(look(&system), (1, 1));
    // One that is wrong in number alone only the census finds.
    system.force(span(HOST_REGION + 2, 1), Entry::borrowed(2).unwrap());
    assert_eq!(look(&system), (0, 0));
    assert_eq!(system.guest_census().len(), 1);
}

#[test]
fn a_region_of_frames_of_as_many_vms_as_can_be_is_audited_frame_by_frame() {
    let (system, vm) = with_vm(PROTECTED);
    system.guest_donate(vm, span(HOST_REGION, 512), MEMORY).unwrap();
    // All but those of the VM that there is are said to be of VMs that there are not.
    for offset in 1..512 {
        let slot = (offset % 255 + 1) as u8;
        let entry = Entry::guest(false, slot, MEMORY + offset);
        system.force(span(HOST_REGION + offset, 1), entry);
    }
    let strange = (1..512).filter(|offset| offset % 255 != 0).count() as u64;
    let report = system.audit(span(HOST_REGION, 512)).unwrap();
    assert_eq!((report.frames, report.disagreements), (512, strange));
}
