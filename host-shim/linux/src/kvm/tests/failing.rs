//! What cannot be made leaves nothing behind, and can be tried again.

use super::devices::Ground;
use crate::kvm::Controller as _;
use crate::kvm::abi::{CREATE_GUEST_MEMFD, CREATE_VCPU, CREATE_VM};
use crate::kvm::fake::EMFILE;
use crate::{Descriptor as _, Errno};
use hyp_abi::{CallId, Status, VmCallId};
use std::sync::Arc;

#[test]
fn what_finds_no_descriptor_is_not_made() {
    let ground = Ground::new();
    let vm = || Arc::clone(&ground.vm);
    let file = ground.machine.set_user(64, &[4096_u64, 3, 0, 0, 0, 0, 0, 0]);
    let commands = [(CREATE_GUEST_MEMFD, file), (CREATE_VCPU, 0)];
    ground.machine.refuse_descriptors(true);
    for (command, argument) in commands {
        assert_eq!(vm().ioctl(command, argument), Err(EMFILE));
    }
    assert_eq!(ground.create_device(), Err(EMFILE));
    assert!(vm().controller().is_none());
    assert_eq!(ground.system.ioctl(CREATE_VM, 0), Err(EMFILE));
    assert_eq!((ground.machine.el2.vms(), ground.system.vms().len()), (1, 1));
    ground.machine.refuse_descriptors(false);
    for (command, argument) in commands {
        ground.machine.close(vm().ioctl(command, argument).unwrap());
    }
    let device = ground.create_device().unwrap();
    ground.end(device);
}

#[test]
fn a_vcpu_that_el2_refuses_has_no_redistributor() {
    for device_first in [false, true] {
        let ground = Ground::new();
        let vm = || Arc::clone(&ground.vm);
        let device = device_first.then(|| ground.create_device().unwrap());
        ground
            .machine
            .el2
            .refuse_next(CallId::Vm(VmCallId::CreateVcpu), Status::InvalidParameter);
        assert_eq!(vm().ioctl(CREATE_VCPU, 0), Err(Errno::INVAL));
        let device = device.unwrap_or_else(|| ground.create_device().unwrap());
        // Another is the first then, and the last.
        let vcpu = vm().ioctl(CREATE_VCPU, 1).unwrap();
        for (group, attribute, value) in [(0, 2, 0x800_0000), (0, 3, 0x80a_0000), (4, 0, 0)] {
            ground.set(device, group, attribute, value).unwrap();
        }
        let interrupts = ground.vm.wires().interrupts();
        interrupts.start().unwrap();
        let typer = interrupts.load(1, 0x80a_0008, 8).map(|(typer, _)| typer);
        assert_eq!(typer, Some(1 << 32 | 1 << 8 | 1 << 4));
        assert_eq!(interrupts.load(1, 0x80c_0008, 8), None);
        ground.machine.close(vcpu);
        ground.end(device);
    }
}
