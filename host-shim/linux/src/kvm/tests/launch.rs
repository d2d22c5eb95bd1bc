//! Who waits while a VM is launched.

use super::run::Guest;
use crate::kvm::abi::devices::{CREATE_DEVICE, CreateDevice, DEV_TYPE_ARM_VGIC_V3};
use crate::kvm::abi::{CREATE_VCPU, VM_TYPE_PROTECTED};
use crate::linux::Signals;
use crate::{Descriptor as _, Errno};
use hyp_abi::run_page::ExitReason;
use std::sync::Arc;

#[test]
fn what_must_be_done_before_the_launch_waits_for_it_and_can_be_killed() {
    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    let vm = Arc::clone(&guest.system.vms()[0]);
    let device = CreateDevice {
        kind: DEV_TYPE_ARM_VGIC_V3,
        fd: 0,
        flags: 0,
    };
    let argument = guest.machine.set_user(0, &device);
    let commands = [(CREATE_VCPU, 1), (CREATE_DEVICE, argument)];
    let launch = vm.beginning.enter(Signals::All).unwrap();
    guest.machine.el2.set_killed(true);
    for (command, argument) in commands {
        assert_eq!(Arc::clone(&vm).ioctl(command, argument), Err(Errno::INTR));
    }
    guest.machine.el2.set_killed(false);
    std::thread::scope(|scope| {
        let waits = commands.map(|(command, argument)| {
            let vm = Arc::clone(&vm);
            scope.spawn(move || vm.ioctl(command, argument))
        });
        drop(launch);
        for waits in waits {
            assert!(waits.join().unwrap().is_ok());
        }
    });
}

#[test]
fn a_run_that_waits_for_another_launch_ends_by_a_signal() {
    let guest = Guest::new(0, 2);
    let vm = Arc::clone(&guest.system.vms()[0]);
    let launch = vm.beginning.enter(Signals::All).unwrap();
    guest.machine.set_signal(true);
    assert_eq!(guest.run(), Err(Errno::INTR));
    // KVM_EXIT_INTR, where user space looks for it.
    assert_eq!(guest.word(1) as u32, 10);
    guest.machine.set_signal(false);
    drop(launch);
    guest.program(0, [super::run::exit(ExitReason::SystemOff, [0; 3])]);
    assert_eq!(guest.run(), Ok(0));
    drop(vm);
    guest.end();
}
