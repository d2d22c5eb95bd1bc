//! What `KVM_CHECK_EXTENSION` answers.
//!
//! What is not in the table is not there, and the answer is 0, as KVM's is.

use crate::Linux;
use hyp_abi::vm::{IPA_BITS, MAX_VCPUS};

/// A capability, by KVM's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "KVM's documentation says what each is")]
pub enum Capability {
    NrVcpus = 9,
    NrMemslots = 10,
    MaxVcpus = 66,
    CheckExtensionVm = 105,
    MaxVcpuId = 128,
    ImmediateExit = 136,
    ArmVmIpaSize = 165,
}

/// Every capability that has an answer other than 0.
pub const ALL: [Capability; 7] = [
    Capability::NrVcpus,
    Capability::NrMemslots,
    Capability::MaxVcpus,
    Capability::CheckExtensionVm,
    Capability::MaxVcpuId,
    Capability::ImmediateExit,
    Capability::ArmVmIpaSize,
];

/// The answer for the capability of that number.
pub fn check(linux: &impl Linux, number: u64) -> u64 {
    let Some(capability) = ALL.into_iter().find(|capability| *capability as u64 == number) else {
        return 0;
    };
    match capability {
        Capability::CheckExtensionVm | Capability::ImmediateExit => 1,
        Capability::NrVcpus => u64::from(linux.cpus()).min(MAX_VCPUS as u64),
        Capability::MaxVcpus | Capability::MaxVcpuId => MAX_VCPUS as u64,
        Capability::NrMemslots => host_shim::vm::MAX_SLOTS.into(),
        Capability::ArmVmIpaSize => ipa_limit(linux),
    }
}

/// The most bits that a VM's addresses can have.
pub fn ipa_limit(linux: &impl Linux) -> u64 {
    u64::from(linux.address_bits()).min(*IPA_BITS.end())
}
