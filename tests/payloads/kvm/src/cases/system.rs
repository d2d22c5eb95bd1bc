//! `/dev/kvm` itself, and VMs without anything in them.

use super::devices::Gic;
use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{
    CHECK_EXTENSION, CREATE_VCPU, CREATE_VM, GET_API_VERSION, GET_VCPU_MMAP_SIZE, Kvm, PROTECTED,
};
use crate::guest::Guest;
use kvm_bindings::{
    KVM_CAP_ARM_VM_IPA_SIZE, KVM_CAP_CHECK_EXTENSION_VM, KVM_CAP_COALESCED_MMIO, KVM_CAP_COUNTER_OFFSET,
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_MAX_VCPU_ID, KVM_CAP_MAX_VCPUS, KVM_CAP_NR_MEMSLOTS, KVM_CAP_NR_VCPUS,
    KVM_CAP_READONLY_MEM, KVM_CAP_S390_PSW, KVM_CAP_SYNC_MMU, KVM_CAP_USER_MEMORY,
};

cases![
    system_says_version_12,
    system_says_how_large_a_run_page_is,
    system_says_what_it_can_do,
    system_has_no_other_commands,
    system_makes_vms_of_every_size,
    system_makes_no_vms_of_other_kinds,
    system_has_a_limit_of_vms_and_lives,
    system_serves_only_the_process_whose_vm_it_is,
];

fn kvm() -> Result<Kvm, String> {
    succeed("/dev/kvm", Kvm::open())
}

fn system_says_version_12() -> Outcome {
    let kvm = kvm()?;
    same("the version", kvm.0.ioctl(GET_API_VERSION, 0), Ok(12))?;
    refused("an argument", kvm.0.ioctl(GET_API_VERSION, 1), libc::EINVAL)
}

fn system_says_how_large_a_run_page_is() -> Outcome {
    let kvm = kvm()?;
    same("the size", kvm.0.ioctl(GET_VCPU_MMAP_SIZE, 0), Ok(4096))?;
    refused("an argument", kvm.0.ioctl(GET_VCPU_MMAP_SIZE, 1), libc::EINVAL)
}

fn system_says_what_it_can_do() -> Outcome {
    let kvm = kvm()?;
    let vm = succeed("a VM", kvm.create_vm(0))?;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let answers = [
        (KVM_CAP_CHECK_EXTENSION_VM, 1),
        (KVM_CAP_NR_VCPUS, cpus.min(64)),
        (KVM_CAP_MAX_VCPUS, 64),
        (KVM_CAP_MAX_VCPU_ID, 64),
        (KVM_CAP_NR_MEMSLOTS, 32767),
        (KVM_CAP_IMMEDIATE_EXIT, 1),
        // What another architecture has, what we have not, and what nobody has.
        (KVM_CAP_S390_PSW, 0),
        (KVM_CAP_COALESCED_MMIO, 0),
        (100_000, 0),
    ];
    for (capability, answer) in answers {
        for fd in [&kvm.0, &vm] {
            let got = fd.ioctl(CHECK_EXTENSION, capability.into());
            same(&format!("capability {capability}"), got, Ok(answer))?;
        }
    }
    // A protected VM's memory is not the process's.
    let protected = succeed("a VM", kvm.create_vm(PROTECTED))?;
    for capability in [
        KVM_CAP_USER_MEMORY,
        KVM_CAP_SYNC_MMU,
        KVM_CAP_READONLY_MEM,
        KVM_CAP_COUNTER_OFFSET,
    ] {
        for (fd, answer) in [(&kvm.0, 1), (&vm, 1), (&protected, 0)] {
            let got = fd.ioctl(CHECK_EXTENSION, capability.into());
            same(&format!("capability {capability}"), got, Ok(answer))?;
        }
    }
    let bits = succeed(
        "the addresses",
        kvm.0.ioctl(CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE.into()),
    )?;
    if (40..=48).contains(&bits) {
        Ok(())
    } else {
        Err(format!("addresses have {bits} bits"))
    }
}

/// KVM for arm64 takes what it does not know for an argument without a meaning, but for its devices' commands.
fn system_has_no_other_commands() -> Outcome {
    let guest = Guest::new(PROTECTED, &[&[]])?;
    let kvm = kvm()?;
    let gic = succeed("a controller", Gic::of(&guest.vm))?;
    for (whose, fd, errno) in [
        ("system", &kvm.0, libc::EINVAL),
        ("VM", &guest.vm, libc::EINVAL),
        ("vCPU", &guest.vcpu().fd, libc::EINVAL),
        ("device", &gic.0, libc::ENOTTY),
        ("file", &guest.file, libc::ENOTTY),
    ] {
        // Numbers that nobody has, of KVM's and of others, and one with a structure that it has not.
        for command in [0xAE02, 0xAEFF, 0xAF00, GET_API_VERSION | 1 << 31, 0, u32::MAX] {
            refused(
                &format!("{whose}: command {command:#x}"),
                fd.ioctl(command, 0),
                errno,
            )?;
        }
    }
    // Those of the one are not the other's.
    refused("a VM of a VM", guest.vm.ioctl(CREATE_VM, 0), libc::EINVAL)?;
    refused("a vCPU of the system", kvm.0.ioctl(CREATE_VCPU, 0), libc::EINVAL)
}

fn system_makes_vms_of_every_size() -> Outcome {
    let kvm = kvm()?;
    let limit = succeed(
        "the limit",
        kvm.0.ioctl(CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE.into()),
    )?;
    for bits in 0..=64 {
        for protected in [0, PROTECTED] {
            let vm = kvm.create_vm(bits | protected);
            if bits == 0 || (32..=limit).contains(&bits) {
                succeed(&format!("{bits} bits, {protected:#x}"), vm)?;
            } else {
                refused(&format!("{bits} bits, {protected:#x}"), vm, libc::EINVAL)?;
            }
        }
    }
    Ok(())
}

fn system_makes_no_vms_of_other_kinds() -> Outcome {
    let kvm = kvm()?;
    for bit in (8..31).chain(32..64) {
        refused(&format!("bit {bit}"), kvm.create_vm(1 << bit), libc::EINVAL)?;
    }
    Ok(())
}

fn system_has_a_limit_of_vms_and_lives() -> Outcome {
    let kvm = kvm()?;
    let mut vms = Vec::new();
    let refusal = loop {
        match kvm.create_vm(if vms.len() % 2 == 0 { 0 } else { PROTECTED }) {
            Ok(vm) => vms.push(vm),
            Err(error) => break error,
        }
    };
    same("the error", refusal.0, libc::ENOMEM)?;
    same("the number of VMs", vms.len(), 255)?;
    // One that goes makes room for one.
    vms.pop();
    succeed("another", kvm.create_vm(0)).map(drop)
}

fn system_serves_only_the_process_whose_vm_it_is() -> Outcome {
    let kvm = kvm()?;
    let vm = succeed("a VM", kvm.create_vm(0))?;
    let ended = crate::process::in_child(|| {
        refused("a command of another", vm.ioctl(CHECK_EXTENSION, 0), libc::EIO)?;
        same("a command for all", kvm.0.ioctl(GET_API_VERSION, 0), Ok(12))
    });
    same("the child", ended.ok(), Some(crate::process::Ended::Exited(0)))
}
