//! Registers of vCPUs, before their VM begins and after.

use super::run::{Guest, OFF, exit};
use crate::kvm::abi::devices::{
    CREATE_DEVICE, CreateDevice, DEV_TYPE_ARM_VGIC_V3, DeviceAttr, GET_DEVICE_ATTR, HAS_DEVICE_ATTR,
    SET_DEVICE_ATTR,
};
use crate::kvm::abi::{
    ARM_SET_COUNTER_OFFSET, CHECK_EXTENSION, CounterOffset, GET_ONE_REG, GET_REG_LIST, OneReg, RUN,
    SET_ONE_REG, SET_SIGNAL_MASK, VM_TYPE_PROTECTED,
};
use crate::kvm::capability::Capability;
use crate::kvm::fake::USER;
use crate::{Descriptor, Errno, Linux as _};
use host_shim::fake::Act;
use hyp_abi::run_page::ExitReason;
use hyp_abi::{HostCall, VcpuRegister, VmCall};
use std::sync::Arc;

/// Names.
const PC: u64 = 0x6030_0000_0010_0040;
const PSTATE: u64 = 0x6030_0000_0010_0042;
const X1: u64 = 0x6030_0000_0010_0002;
const V3: u64 = 0x6040_0000_0010_0060;
const SCTLR: u64 = 0x6030_0000_0013_c080;
const MPIDR: u64 = 0x6030_0000_0013_c005;
const PFR0: u64 = 0x6030_0000_0013_c020;
const COMPARE: u64 = 0x6030_0000_0013_df02;
const CONTROL: u64 = 0x6030_0000_0013_df19;
const COUNT: u64 = 0x6030_0000_0013_df1a;
const PSCI: u64 = 0x6030_0000_0014_0000;

/// Where values and lists lie.
const VALUE: u64 = 0x100;
const LIST: u64 = 0x1000;

pub(super) const REPORT: Act = exit(ExitReason::MmioWrite, [0x900_0000, 8, 1]);

impl Guest {
    fn one(&self, vcpu: usize, command: u32, id: u64) -> Result<u64, Errno> {
        let asked = OneReg {
            id,
            address: USER + VALUE,
        };
        let argument = self.machine.set_user(0, &asked);
        let vcpu: Arc<dyn Descriptor> = Arc::clone(&self.vcpus[vcpu]) as _;
        vcpu.ioctl(command, argument)
    }

    pub(super) fn get(&self, vcpu: usize, id: u64) -> Result<u64, Errno> {
        self.machine.set_user(VALUE, &[0_u64; 2]);
        self.one(vcpu, GET_ONE_REG, id)?;
        Ok(self.machine.user(VALUE))
    }

    pub(super) fn set(&self, vcpu: usize, id: u64, value: u64) -> Result<u64, Errno> {
        self.machine.set_user(VALUE, &[value, !value]);
        self.one(vcpu, SET_ONE_REG, id)
    }

    fn list(&self) -> Vec<u64> {
        let argument = self.machine.set_user(LIST, &400_u64);
        let vcpu: Arc<dyn Descriptor> = Arc::clone(&self.vcpus[0]) as _;
        vcpu.ioctl(GET_REG_LIST, argument).unwrap();
        let count: u64 = self.machine.user(LIST);
        (1..=count)
            .map(|index| self.machine.user(LIST + index * 8))
            .collect()
    }

    fn vm(&self) -> Arc<dyn Descriptor> {
        self.machine.object(self.descriptors[0])
    }

    /// What was written to registers of vCPUs since the last look.
    fn written(&self) -> Vec<(u64, VcpuRegister, u64)> {
        let write = |call: HostCall| match call {
            HostCall::Vm(VmCall::WriteRegister {
                index,
                register,
                value,
                ..
            }) => Some((index, VcpuRegister::from_register(register).unwrap(), value)),
            _ => None,
        };
        self.machine.el2.log().into_iter().filter_map(write).collect()
    }
}

#[test]
fn every_register_that_is_listed_can_be_read_and_written_at_any_time() {
    for (kind, count) in [(0, 168), (VM_TYPE_PROTECTED, 136)] {
        let guest = Guest::new(kind, 1);
        guest.program(0, [REPORT, OFF]);
        let check = || {
            let list = guest.list();
            assert_eq!(list.len(), count);
            for id in list {
                let value = guest.get(0, id).unwrap();
                assert_eq!(guest.set(0, id, value), Ok(0), "{id:#x}");
            }
        };
        check();
        guest.run().unwrap();
        if kind == 0 {
            guest.set(0, PSTATE, 5).unwrap();
            check();
        } else {
            for id in guest.list() {
                assert_eq!(guest.get(0, id), Err(Errno::PERM), "{id:#x}");
                assert_eq!(guest.set(0, id, 0), Err(Errno::PERM), "{id:#x}");
            }
        }
        guest.end();
    }
}

#[test]
fn el2_gets_what_was_set_of_all_vcpus_and_nothing_else() {
    let guest = Guest::new(0, 2);
    assert_eq!(guest.get(1, PSTATE), Ok(0x3c5));
    assert_eq!(guest.get(1, SCTLR), Ok(0x30d0_0800));
    // Not where EL2 could begin a vCPU.
    guest.set(0, PC, 0xffff_8000_0000_0002).unwrap();
    guest.set(1, X1, 7).unwrap();
    guest.set(1, V3, 8).unwrap();
    guest.program(0, [REPORT]);
    guest.written();
    guest.run().unwrap();
    use VcpuRegister as R;
    let wanted = [
        (0, R::CounterOffset, 0),
        (0, R::Pc, 0xffff_8000_0000_0002),
        (0, R::Power, 1),
        (1, R::General(1), 7),
        (1, R::VectorLow(3), 8),
        (1, R::VectorHigh(3), !8),
        (1, R::Power, 0),
    ];
    assert_eq!(guest.written(), wanted);
    assert_eq!(guest.get(1, X1), Ok(7));
    assert_eq!((guest.get(1, V3), guest.machine.user(VALUE + 8)), (Ok(8), !8_u64));
    guest.set(1, X1, 9).unwrap();
    assert_eq!(guest.written(), [(1, R::General(1), 9)]);
    guest.end();
}

#[test]
fn el2_gets_no_registers_of_a_protected_vm() {
    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    guest.set(0, X1, 7).unwrap();
    assert_eq!(guest.get(0, SCTLR), Err(Errno::NOENT));
    assert_eq!(guest.get(0, COUNT), Err(Errno::NOENT));
    guest.program(0, [REPORT]);
    guest.run().unwrap();
    assert_eq!(guest.written(), []);
    guest.end();
}

#[test]
fn what_follows_from_vm_and_machine_is_what_it_is() {
    let guest = Guest::new(0, 2);
    guest.program(0, [REPORT]);
    for errno in [Errno::INVAL, Errno::BUSY] {
        // This EL2 answers with the name, and the bits of an address.
        assert_eq!(guest.get(1, PFR0), Ok(0xc020 << 16 | 40));
        assert_eq!(guest.set(1, PFR0, 0xc020 << 16 | 40), Ok(0));
        assert_eq!(guest.set(1, PFR0, 0), Err(errno));
        assert_eq!(guest.get(1, PSCI), Ok(0x1_0001));
        assert_eq!(guest.set(1, PSCI, 2), Err(Errno::INVAL));
        if errno == Errno::INVAL {
            assert_eq!(guest.get(1, MPIDR), Ok(1 << 31 | 1));
            assert_eq!(guest.set(1, MPIDR, 0), Err(Errno::INVAL));
            guest.run().unwrap();
        }
    }
    // None of its modes.
    for mode in [1, 8, 9, 0x10, 0x1f] {
        assert_eq!(guest.set(1, PSTATE, mode), Err(Errno::INVAL));
    }
    guest.end();
}

#[test]
fn the_timer_is_due_when_its_time_has_come() {
    let guest = Guest::new(0, 1);
    assert_eq!(guest.get(0, CONTROL), Ok(4));
    guest.set(0, COMPARE, 1).unwrap();
    guest.set(0, CONTROL, 7).unwrap();
    assert_eq!(guest.get(0, CONTROL), Ok(3));
    guest.set(0, COUNT, 1).unwrap();
    assert_eq!(guest.get(0, CONTROL), Ok(7));
    guest.end();
}

#[test]
fn time_is_set_by_the_count_or_by_an_offset_that_then_counts() {
    let guest = Guest::new(0, 1);
    let offset = |offset, reserved| {
        let argument = guest.machine.set_user(0, &CounterOffset { offset, reserved });
        guest.vm().ioctl(ARM_SET_COUNTER_OFFSET, argument)
    };
    let now = guest.machine.counter();
    guest.set(0, COUNT, 1000).unwrap();
    assert_eq!(guest.get(0, COUNT), Ok(1000));
    guest.program(0, [REPORT]);
    guest.written();
    guest.run().unwrap();
    let wanted = now.wrapping_sub(1000);
    assert_eq!(guest.written()[0], (0, VcpuRegister::CounterOffset, wanted));
    assert_eq!(offset(7, 1), Err(Errno::INVAL));
    assert_eq!(offset(7, 0), Ok(0));
    assert_eq!(guest.written(), [(0, VcpuRegister::CounterOffset, 7)]);
    guest.set(0, COUNT, 1000).unwrap();
    assert_eq!(guest.get(0, COUNT), Ok(now.wrapping_sub(7)));
    assert_eq!(guest.written(), []);
    guest.end();

    let guest = Guest::new(VM_TYPE_PROTECTED, 1);
    let argument = guest.machine.set_user(0, &[1_u64, 0]);
    assert_eq!(
        guest.vm().ioctl(ARM_SET_COUNTER_OFFSET, argument),
        Err(Errno::PERM)
    );
    let number = Capability::CounterOffset as u64;
    assert_eq!(guest.vm().ioctl(CHECK_EXTENSION, number), Ok(0));
    guest.end();
}

#[test]
fn signals_that_are_to_wait_do_not_end_a_run() {
    let guest = Guest::new(0, 1);
    guest.program(0, [REPORT, REPORT]);
    let vcpu = |command, argument| {
        let vcpu: Arc<dyn Descriptor> = Arc::clone(&guest.vcpus[0]) as _;
        vcpu.ioctl(command, argument)
    };
    guest.machine.set_user(4, &1_u64);
    let argument = guest.machine.set_user(0, &4_u32);
    assert_eq!(vcpu(SET_SIGNAL_MASK, argument), Err(Errno::INVAL));
    guest.machine.set_user(0, &8_u32);
    assert_eq!(vcpu(SET_SIGNAL_MASK, argument), Ok(0));
    guest.machine.set_signal(true);
    assert_eq!(vcpu(RUN, 0), Ok(0));
    assert_eq!(vcpu(SET_SIGNAL_MASK, 0), Ok(0));
    assert_eq!(vcpu(RUN, 0), Err(Errno::INTR));
    guest.end();
}

/// A guest with an interrupt controller, which is its last descriptor.
fn with_controller(kind: u64) -> Guest {
    let mut guest = Guest::new(kind, 2);
    let asked = CreateDevice {
        kind: DEV_TYPE_ARM_VGIC_V3,
        fd: 0,
        flags: 0,
    };
    let argument = guest.machine.set_user(0, &asked);
    guest.vm().ioctl(CREATE_DEVICE, argument).unwrap();
    let device = guest.machine.user::<CreateDevice>(0).fd.into();
    guest.descriptors.push(device);
    for (group, attr, value) in [(0, 2, 0x800_0000), (0, 3, 0x80a_0000), (4, 0, 0)] {
        attribute(&guest, SET_DEVICE_ATTR, group, attr, value).unwrap();
    }
    guest
}

fn attribute(guest: &Guest, command: u32, group: u32, attr: u64, value: u64) -> Result<u64, Errno> {
    let asked = DeviceAttr {
        flags: 0,
        group,
        attr,
        addr: USER + VALUE,
    };
    guest.machine.set_user(VALUE, &value);
    let argument = guest.machine.set_user(0, &asked);
    let device = guest.machine.object(*guest.descriptors.last().unwrap());
    device.ioctl(command, argument)?;
    Ok(guest.machine.user(VALUE))
}

#[test]
fn interfaces_to_the_controller_are_read_and_written_wherever_they_are() {
    // ICC_PMR_EL1, ICC_AP0R0_EL1, ICC_AP1R0_EL1 of the second vCPU.
    let register = |number: u64| 1 << 32 | number;
    let [mask, first, second] = [0xc230, 0xc644, 0xc648].map(register);
    for kind in [0, VM_TYPE_PROTECTED] {
        let guest = with_controller(kind);
        let set = |number, value| attribute(&guest, SET_DEVICE_ATTR, 6, number, value).map(drop);
        let get = |number| attribute(&guest, GET_DEVICE_ATTR, 6, number, 0);
        let has = |number| attribute(&guest, HAS_DEVICE_ATTR, 6, number, 0).map(drop);
        assert_eq!(
            (has(mask), set(mask, 0xf8), get(mask)),
            (Ok(()), Ok(()), Ok(0xf8))
        );
        set(first, 0b110).unwrap();
        set(second, 0b010).unwrap();
        // A priority is active in one group.
        assert_eq!((get(first), get(second)), (Ok(0b100), Ok(0b010)));
        guest.program(0, [REPORT]);
        guest.written();
        guest.run().unwrap();
        if kind == 0 {
            use VcpuRegister as R;
            let written = guest.written();
            assert!(written.contains(&(1, R::GicControl, 0xf8 << 24 | 1 << 3)));
            assert!(written.contains(&(1, R::ActivePriorities0(0), 0b100)));
            assert_eq!((has(mask), get(mask), get(second)), (Ok(()), Ok(0xf8), Ok(0b010)));
            set(mask, 0x80).unwrap();
            assert_eq!(guest.written(), [(1, R::GicControl, 0x80 << 24 | 1 << 3)]);
        } else {
            assert_eq!((has(mask), set(mask, 0)), (Err(Errno::NXIO), Err(Errno::NXIO)));
            assert_eq!(get(mask), Err(Errno::NXIO));
        }
        guest.end();
    }
}

#[test]
fn the_timer_has_the_interrupt_that_user_space_says() {
    let guest = with_controller(0);
    let ask = |command, group, attr, value: u32| {
        let asked = DeviceAttr {
            flags: 0,
            group,
            attr,
            addr: USER + VALUE,
        };
        guest.machine.set_user(VALUE, &value);
        let argument = guest.machine.set_user(0, &asked);
        let vcpu: Arc<dyn Descriptor> = Arc::clone(&guest.vcpus[1]) as _;
        vcpu.ioctl(command, argument)?;
        Ok(guest.machine.user::<u32>(VALUE))
    };
    assert_eq!(ask(HAS_DEVICE_ATTR, 1, 0, 0), Ok(0));
    assert_eq!(ask(GET_DEVICE_ATTR, 1, 0, 0), Ok(27));
    for interrupt in [0, 15, 32, u32::MAX] {
        assert_eq!(ask(SET_DEVICE_ATTR, 1, 0, interrupt), Err(Errno::INVAL));
    }
    assert_eq!(ask(SET_DEVICE_ATTR, 1, 0, 20), Ok(20));
    for (group, attr) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(ask(HAS_DEVICE_ATTR, group, attr, 0), Err(Errno::NXIO));
    }
    assert_eq!(ask(SET_DEVICE_ATTR, 0, 0, 0), Err(Errno::NODEV));
    guest.program(0, [REPORT]);
    guest.run().unwrap();
    assert_eq!(ask(GET_DEVICE_ATTR, 1, 0, 0), Ok(20));
    assert_eq!(ask(SET_DEVICE_ATTR, 1, 0, 27), Err(Errno::BUSY));
    let vgic = guest.system.vms()[0].wires().interrupts().vgic().unwrap().timer();
    assert_eq!(vgic, 20);
    guest.end();
}
