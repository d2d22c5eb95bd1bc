//! VMs that begin again.

use super::support::*;
use crate::fake::Act;
use crate::{Error, MemfdConfig};
use hyp_abi::vm::VmFlags;
use hyp_abi::{GuestRange, VcpuRegister};

extern crate std;

fn renewed(guest: &Guest) {
    guest.vm.renew().unwrap();
    assert!(!guest.vm.is_launched());
    guest.vm.add_memory(GuestRange::new(GFN, 4096)).unwrap();
    guest.vm.launch(IPA, 0).unwrap();
}

#[test]
fn a_vm_begins_again_with_its_memory_and_its_vcpus() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    for turn in 0..3 {
        let handle = guest.vm.handle();
        machine.fake.program(handle, 0, [Act::Expect(GFN, turn)]);
        machine.fake.program(handle, 0, [Act::Write(GFN, turn + 1)]);
        guest.run();
        renewed(&guest);
        assert_ne!(guest.vm.handle(), handle);
        assert_eq!(machine.fake.mapped(guest.vm.handle(), GFN), None);
        assert_eq!(machine.fake.vms(), 1);
    }
    drop(guest);
    machine.assert_nothing_left();
}

#[test]
fn registers_of_a_vcpu_are_set_by_its_index() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    guest.vm.write_register(0, VcpuRegister::Pc, 8).unwrap();
    assert_eq!(guest.vcpu.read_register(VcpuRegister::Pc), Ok(8));
    renewed(&guest);
    assert_eq!(guest.vcpu.read_register(VcpuRegister::Pc), Ok(0));
}

#[test]
fn a_protected_vm_does_not_begin_again() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    assert_eq!(guest.vm.renew(), Err(Error::NotSupported));
    machine.fake.program(guest.vm.handle(), 0, [Act::Write(GFN, 1)]);
    guest.run();
}

#[test]
fn wherever_memory_is_short_a_beginning_can_be_repeated_or_given_up() {
    for repeats in [true, false] {
        for allocations in 0.. {
            let machine = Machine::new();
            let mut guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
            machine.fake.program(guest.vm.handle(), 0, [Act::Write(GFN, 1)]);
            guest.run();
            machine.host.drain().unwrap();
            machine.fail_after(allocations);
            let first = guest.vm.renew();
            machine.never_fail();
            if first.is_err() {
                assert_eq!(first, Err(Error::NoMemory));
                assert!(guest.vm.launch(IPA, 0).is_err());
                if repeats {
                    renewed(&guest);
                    machine.fake.program(guest.vm.handle(), 0, [Act::Expect(GFN, 1)]);
                    guest.run();
                }
            }
            drop(guest);
            machine.assert_nothing_left();
            if first.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_vm_that_is_to_end_does_not_begin_again() {
    let machine = Machine::new();
    let guest = machine.guest(VmFlags::empty(), MemfdConfig::new(4 * P));
    guest.vm.destroy().unwrap();
    assert_eq!(guest.vm.renew(), Err(Error::Gone));
    drop(guest);
    machine.assert_nothing_left();
}
