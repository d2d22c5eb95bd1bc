//! What the host may ask about guests in general: what they can be on this machine, and what they see of it.

use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::trap::guest_id::{GuestCpu, id_number};
use crate::trap::syndrome::SystemRegister;
use crate::vm::possible_ipa_bits;
use hyp_abi::vm::MAX_VCPUS;
use hyp_abi::{GuestSupport, HostReturn, Status};

pub(super) fn support<H: Hardware>(ownership: &Ownership<'_, H>) -> HostReturn {
    let hw = ownership.hardware();
    let bits = possible_ipa_bits(hw);
    let support = GuestSupport {
        interface: hw.guest_support().interface,
        min_ipa_bits: *bits.start() as u8,
        max_ipa_bits: *bits.end() as u8,
        vms: ownership.vms().places() as u32,
        vcpus: MAX_VCPUS as u32,
    };
    HostReturn::success(support.to_registers())
}

pub(super) fn register<H: Hardware>(ownership: &Ownership<'_, H>, name: u64, ipa_bits: u64) -> HostReturn {
    let hw = ownership.hardware();
    let register = named(name).filter(|register| id_number(*register).is_some());
    let ipa_bits = u32::try_from(ipa_bits)
        .ok()
        .filter(|bits| possible_ipa_bits(hw).contains(bits));
    let (Some(register), Some(ipa_bits)) = (register, ipa_bits) else {
        return HostReturn::refused(Status::InvalidParameter);
    };
    let cpu = GuestCpu {
        id: hw.id_registers(),
        ipa_bits,
    };
    HostReturn::success([cpu.read(register), 0, 0])
}

/// The register of a name that [`hyp_abi::guest_support::system_register`] made.
fn named(name: u64) -> Option<SystemRegister> {
    let name = u16::try_from(name).ok()?;
    let part = |shift: u32| (name >> shift) as u8;
    Some(SystemRegister::new(part(14), part(11), part(7), part(3), part(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Frame, FrameSpan};
    use crate::double::system;
    use crate::geometry::Arm4K;
    use crate::hypercall::host_call;
    use crate::ownership::Devices;
    use hyp_abi::guest_support::system_register;
    use hyp_abi::{HostCall, VmCall, vm::MAX_VMS};

    fn machine() -> Ownership<'static, crate::double::Machine<Arm4K>> {
        let span = |frames| FrameSpan::new(Frame::new(0).unwrap(), frames).unwrap();
        system::<Arm4K>(&[span(512)], span(64), Devices::new())
    }

    #[test]
    fn the_host_learns_what_guests_can_be() {
        let system = machine();
        let answer = host_call(&system, HostCall::GuestSupport.encode());
        let support = GuestSupport::from_registers(answer.values);
        assert_eq!(answer.status, Status::Success);
        assert_eq!((support.min_ipa_bits, support.max_ipa_bits), (32, 48));
        assert_eq!(support.interface, 0x9000_0003);
        assert!((1..=MAX_VMS).contains(&(support.vms as usize)));
        assert_eq!(support.vcpus as usize, MAX_VCPUS);
    }

    #[test]
    fn the_sizes_that_are_told_are_those_that_a_vm_can_have() {
        let system = machine();
        for ipa_bits in 0..=64 {
            let ask = HostCall::GuestRegister {
                register: system_register(3, 0, 0, 7, 0),
                ipa_bits,
            };
            let create = HostCall::Vm(VmCall::Create {
                flags: 0,
                vcpus: 1,
                ipa_bits,
            });
            let status = host_call(&system, ask.encode()).status;
            let possible = (32..=48).contains(&ipa_bits);
            assert_eq!(status == Status::Success, possible, "{ipa_bits}");
            assert_eq!(
                host_call(&system, create.encode()).status == Status::InvalidParameter,
                !possible,
                "{ipa_bits}"
            );
        }
    }

    #[test]
    fn a_feature_register_reads_as_a_guest_reads_it() {
        let system = machine();
        for crm in 1..=7 {
            for op2 in 0..=7 {
                let register = system_register(3, 0, 0, crm, op2);
                let call = HostCall::GuestRegister {
                    register,
                    ipa_bits: 40,
                };
                let cpu = GuestCpu {
                    id: system.hardware().id_registers(),
                    ipa_bits: 40,
                };
                let seen = cpu.read(SystemRegister::new(3, 0, 0, crm, op2));
                let answer = host_call(&system, call.encode());
                assert_eq!((answer.status, answer.values), (Status::Success, [seen, 0, 0]));
            }
        }
    }

    #[test]
    fn other_registers_are_not_for_the_host_to_ask_for() {
        let system = machine();
        for name in (0..=u64::from(u16::MAX)).chain([1 << 16 | 0xc020, u64::MAX]) {
            let call = HostCall::GuestRegister {
                register: name,
                ipa_bits: 40,
            };
            let id = (0xc008..=0xc03f).contains(&name);
            let status = host_call(&system, call.encode()).status;
            assert_eq!(status == Status::Success, id, "{name:#x}");
        }
    }
}
