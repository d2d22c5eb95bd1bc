//! vCPUs and their registers, before they run.

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{
    ARM_PREFERRED_TARGET, ARM_VCPU_FINALIZE, CREATE_VCPU, Fd, GET_MP_STATE, GET_ONE_REG, GET_REG_LIST, Kvm,
    Mapping, RUN, SET_MP_STATE, SET_ONE_REG,
};
use crate::guest::{Do, Guest, KINDS, P, Vcpu};
use kvm_bindings::{kvm_mp_state, kvm_one_reg, kvm_vcpu_init};

cases![
    vcpu_is_there_once,
    vcpu_is_initialized_before_all_else,
    vcpu_has_no_other_features,
    vcpu_has_a_page,
    vcpu_lists_its_registers_and_has_them,
    vcpu_says_whether_it_is_on,
    vcpu_registers_of_a_guest_that_runs_are_its_own,
    vcpu_comes_too_late_after_the_launch,
];

fn vm(kind: u64) -> Result<Fd, String> {
    succeed("a VM", Kvm::open().and_then(|kvm| kvm.create_vm(kind)))
}

fn vcpu_is_there_once() -> Outcome {
    for kind in KINDS {
        let vm = vm(kind)?;
        let first = succeed("a vCPU", vm.make(CREATE_VCPU, 0))?;
        refused("it again", vm.make(CREATE_VCPU, 0), libc::EEXIST)?;
        drop(first);
        refused(
            "it again when it is closed",
            vm.make(CREATE_VCPU, 0),
            libc::EEXIST,
        )?;
        succeed("the last", vm.make(CREATE_VCPU, 63))?;
        for index in [64, 1 << 20, u64::MAX] {
            refused(
                &format!("vCPU {index}"),
                vm.make(CREATE_VCPU, index),
                libc::EINVAL,
            )?;
        }
    }
    Ok(())
}

fn vcpu_is_initialized_before_all_else() -> Outcome {
    for kind in KINDS {
        let vm = vm(kind)?;
        let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
        refused("a run", vcpu.run(), libc::ENOEXEC)?;
        refused("a register", vcpu.begin_at(0, 0), libc::ENOEXEC)?;
        refused("the list", vcpu.fd.pass(GET_REG_LIST, &mut 0_u64), libc::ENOEXEC)?;
        refused(
            "finalizing it",
            vcpu.fd.pass(ARM_VCPU_FINALIZE, &mut 4_u32),
            libc::ENOEXEC,
        )?;
        succeed("a vCPU", vcpu.init(4))?;
        refused(
            "finalizing it",
            vcpu.fd.pass(ARM_VCPU_FINALIZE, &mut 4_u32),
            libc::EINVAL,
        )?;
        refused("an argument of a run", vcpu.fd.ioctl(RUN, 1), libc::EINVAL)?;
        refused("a command of others", vcpu.fd.ioctl(CREATE_VCPU, 1), libc::EINVAL)?;
    }
    Ok(())
}

fn vcpu_has_no_other_features() -> Outcome {
    let vm = vm(0)?;
    let mut target = kvm_vcpu_init::default();
    succeed("the target", vm.pass(ARM_PREFERRED_TARGET, &mut target))?;
    same("the target", (target.target, target.features), (5, [0; 7]))?;
    let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
    for bit in 0..32 {
        let made = vcpu.init(1 << bit | 4);
        match bit {
            0 | 2 => succeed(&format!("bit {bit}"), made)?,
            1 | 3..9 => refused(&format!("bit {bit}"), made, libc::EINVAL)?,
            _ => refused(&format!("bit {bit}"), made, libc::ENOENT)?,
        }
    }
    refused("without what it had", vcpu.init(0), libc::EINVAL)
}

fn vcpu_has_a_page() -> Outcome {
    let vm = vm(0)?;
    let vcpu = succeed("a vCPU", Vcpu::create(&vm, 0))?;
    same(
        "the page",
        (0..P / 8).all(|word| vcpu.page.read::<u64>(word * 8) == 0),
        true,
    )?;
    let again = succeed("the page again", Mapping::of(&vcpu.fd, 0, P))?;
    vcpu.page.write::<u8>(1, 1);
    same("the other mapping", again.read::<u8>(1), 1)?;
    let private = Mapping::with(&vcpu.fd, 0, P, libc::MAP_PRIVATE);
    refused("a private mapping", private, libc::EINVAL)?;
    refused("a VM's", Mapping::of(&vm, 0, P), libc::ENODEV)?;
    // The page stays when the descriptor goes.
    drop((vcpu, vm));
    same("the page", again.read::<u8>(1), 1)
}

fn vcpu_lists_its_registers_and_has_them() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[], &[]])?;
        let vcpu = &guest.vcpus[1].fd;
        let mut list = [0_u64; 256];
        let (count, _) = list.split_at_mut(1);
        refused("no place", vcpu.pass(GET_REG_LIST, &mut count[0]), libc::E2BIG)?;
        let names = list[0] as usize;
        same("the places", (70..256).contains(&names), true)?;

        let address = (&raw mut list) as u64;
        succeed("the list", vcpu.ioctl(GET_REG_LIST, address))?;
        for id in list[1..=names].iter().copied() {
            let mut value = [0_u64; 2];
            let mut register = kvm_one_reg {
                id,
                addr: (&raw mut value) as u64,
            };
            succeed(&format!("reading {id:#x}"), vcpu.pass(GET_ONE_REG, &mut register))?;
            succeed(&format!("writing {id:#x}"), vcpu.pass(SET_ONE_REG, &mut register))?;
            if id == 0x6030_0000_0013_c005 {
                same("MPIDR_EL1", value[0], 1 << 31 | 1)?;
            }
        }
        let mut register = kvm_one_reg {
            id: 0x6030_0000_0013_ffff,
            addr: 8,
        };
        refused("another", vcpu.pass(GET_ONE_REG, &mut register), libc::ENOENT)?;
        register.id = list[1];
        refused("no address", vcpu.pass(GET_ONE_REG, &mut register), libc::EFAULT)?;
    }
    Ok(())
}

fn vcpu_says_whether_it_is_on() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[], &[]])?;
        for (vcpu, state) in guest.vcpus.iter().zip([0, 5]) {
            let mut got = kvm_mp_state::default();
            succeed("asking", vcpu.fd.pass(GET_MP_STATE, &mut got))?;
            same("the state", got.mp_state, state)?;
            for wanted in [5, 0] {
                let mut wanted = kvm_mp_state { mp_state: wanted };
                succeed("setting", vcpu.fd.pass(SET_MP_STATE, &mut wanted))?;
                succeed("asking", vcpu.fd.pass(GET_MP_STATE, &mut got))?;
                same("the state", got.mp_state, wanted.mp_state)?;
            }
            let mut other = kvm_mp_state { mp_state: 1 };
            refused("another", vcpu.fd.pass(SET_MP_STATE, &mut other), libc::EINVAL)?;
        }
    }
    Ok(())
}

fn vcpu_registers_of_a_guest_that_runs_are_its_own() -> Outcome {
    let guest = Guest::new(crate::device::PROTECTED, &[&[Do::Report(1), Do::Report(2)]])?;
    let vcpu = guest.vcpu();
    vcpu.reports("the guest", 1)?;
    refused("a register", vcpu.begin_at(0, 0), libc::EPERM)?;
    let mut value = 0_u64;
    let mut register = kvm_one_reg {
        id: 0x6030_0000_0010_0040,
        addr: (&raw mut value) as u64,
    };
    refused("the PC", vcpu.fd.pass(GET_ONE_REG, &mut register), libc::EPERM)?;
    refused("a new beginning", vcpu.init(4), libc::EPERM)?;
    let mut stopped = kvm_mp_state { mp_state: 5 };
    refused("a stop", vcpu.fd.pass(SET_MP_STATE, &mut stopped), libc::EPERM)?;
    vcpu.reports("the guest", 2)
}

fn vcpu_comes_too_late_after_the_launch() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Report(1)]])?;
        guest.vcpu().reports("the guest", 1)?;
        refused("another vCPU", guest.vm.make(CREATE_VCPU, 1), libc::EBUSY)?;
    }
    Ok(())
}
