//! What the host is told about guests in general is what guests then are.

use super::limits::{SMALLEST_IPA_BITS, largest_ipa_bits};
use super::support::running;
use super::sysregs::{mrs, read};
use crate::cases::support::ensure_refused;
use crate::guest::Plan;
use crate::guest::vcpu::LIST_REGISTERS;
use crate::hypercall::HYPERVISOR;
use crate::registry::{case, ensure, ensure_eq, succeed};
use hyp_abi::guest_support::system_register;
use hyp_abi::vm::{MAX_VCPUS, MAX_VMS};
use hyp_abi::{HostCall, Status};

case!(the_host_is_told_what_guests_can_be, {
    let support = succeed!(HYPERVISOR.guest_support());
    ensure_eq!(u64::from(support.min_ipa_bits), SMALLEST_IPA_BITS, "fewest bits");
    ensure_eq!(u64::from(support.max_ipa_bits), largest_ipa_bits()?, "most bits");
    ensure_eq!(support.vms as usize, MAX_VMS, "VMs");
    ensure_eq!(support.vcpus as usize, MAX_VCPUS, "vCPUs");
    // ICH_VTR_EL2: ListRegs, PREbits, PRIbits. Fewer than 4 bits of preemption there cannot be.
    let interface = support.interface;
    ensure_eq!((interface & 0x1f) as usize + 1, LIST_REGISTERS, "list registers");
    ensure!(
        interface >> 26 & 7 >= 4 && interface >> 29 >= interface >> 26 & 7,
        "priorities in {interface:#x}"
    );
    Ok(())
});

case!(the_host_is_told_what_a_guest_reads, {
    for ipa_bits in [32, 36] {
        let vm = running(Plan {
            ipa_bits,
            ..Plan::protected()
        })?;
        for (crm, op2) in (1..=7).flat_map(|crm| (0..=7).map(move |op2| (crm, op2))) {
            let seen = read(&vm, mrs(3, 0, 0, crm, op2))?;
            let name = system_register(3, 0, 0, crm as u8, op2 as u8);
            let told = succeed!(HYPERVISOR.guest_register(name, ipa_bits));
            ensure_eq!(told, seen, "S3_0_C0_C{crm}_{op2} with {ipa_bits} bits");
        }
        vm.end()?;
    }
    Ok(())
});

case!(of_other_registers_and_sizes_nothing_is_told, {
    let feature = system_register(3, 0, 0, 4, 0);
    let largest = largest_ipa_bits()?;
    for (register, ipa_bits) in [
        // MIDR_EL1, SCTLR_EL1, CNTVCT_EL0, and no name at all.
        (system_register(3, 0, 0, 0, 0), 32),
        (system_register(3, 0, 1, 0, 0), 32),
        (system_register(3, 3, 14, 0, 2), 32),
        (1 << 16 | feature, 32),
        (u64::MAX, 32),
        (feature, 0),
        (feature, SMALLEST_IPA_BITS - 1),
        (feature, largest + 1),
        (feature, 1 << 32 | 32),
        (feature, u64::MAX),
    ] {
        let call = HostCall::GuestRegister { register, ipa_bits };
        ensure_refused(call, Status::InvalidParameter, &[])?;
    }
    Ok(())
});
