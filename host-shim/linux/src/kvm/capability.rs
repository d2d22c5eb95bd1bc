//! What `KVM_CHECK_EXTENSION` answers.
//!
//! What is not in the table is not there, and the answer is 0, as KVM's is.

use super::System;
use super::interrupts::routes::MAX_LINES;
use crate::Linux;
use host_shim::memfd::MemfdFlags;
use hyp_abi::vm::MAX_VCPUS;

/// A capability, by KVM's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "KVM's documentation says what each is")]
pub enum Capability {
    Irqchip = 0,
    UserMemory = 3,
    NrVcpus = 9,
    NrMemslots = 10,
    MpState = 14,
    SyncMmu = 16,
    DestroyMemoryRegionWorks = 21,
    IrqRouting = 25,
    JoinMemoryRegionsWorks = 30,
    Irqfd = 32,
    Ioeventfd = 36,
    MaxVcpus = 66,
    OneReg = 70,
    SignalMsi = 77,
    ReadonlyMem = 81,
    IrqfdResample = 82,
    ArmPsci = 87,
    DeviceCtrl = 89,
    EnableCapVm = 98,
    ArmPsci02 = 102,
    CheckExtensionVm = 105,
    IoeventfdAnyLength = 122,
    VcpuAttributes = 127,
    MaxVcpuId = 128,
    ImmediateExit = 136,
    ArmVmIpaSize = 165,
    ArmPtrauthAddress = 171,
    ArmPtrauthGeneric = 172,
    ArmIrqLineLayout2 = 174,
    CounterOffset = 227,
    UserMemory2 = 231,
    MemoryFaultInfo = 232,
    GuestMemfd = 234,
    GuestMemfdFlags = 244,
}

/// Every capability that can have an answer other than 0.
pub const ALL: [Capability; 34] = [
    Capability::VcpuAttributes,
    Capability::ArmPtrauthAddress,
    Capability::ArmPtrauthGeneric,
    Capability::CounterOffset,
    Capability::Irqchip,
    Capability::UserMemory,
    Capability::SyncMmu,
    Capability::ReadonlyMem,
    Capability::IrqRouting,
    Capability::Irqfd,
    Capability::Ioeventfd,
    Capability::SignalMsi,
    Capability::IrqfdResample,
    Capability::DeviceCtrl,
    Capability::EnableCapVm,
    Capability::IoeventfdAnyLength,
    Capability::ArmIrqLineLayout2,
    Capability::NrVcpus,
    Capability::NrMemslots,
    Capability::MpState,
    Capability::DestroyMemoryRegionWorks,
    Capability::JoinMemoryRegionsWorks,
    Capability::MaxVcpus,
    Capability::OneReg,
    Capability::ArmPsci,
    Capability::ArmPsci02,
    Capability::CheckExtensionVm,
    Capability::MaxVcpuId,
    Capability::ImmediateExit,
    Capability::ArmVmIpaSize,
    Capability::UserMemory2,
    Capability::MemoryFaultInfo,
    Capability::GuestMemfd,
    Capability::GuestMemfdFlags,
];

/// The answer for the capability of that number, for a VM that is protected or not. Where there is no VM yet, KVM's answer
/// is that for a VM of the usual kind.
pub fn check<L: Linux>(system: &System<L>, protected: bool, number: u64) -> u64 {
    let Some(capability) = ALL.into_iter().find(|capability| *capability as u64 == number) else {
        return 0;
    };
    match capability {
        Capability::CheckExtensionVm
        | Capability::ImmediateExit
        | Capability::MpState
        | Capability::DestroyMemoryRegionWorks
        | Capability::JoinMemoryRegionsWorks
        | Capability::OneReg
        | Capability::ArmPsci
        | Capability::ArmPsci02
        | Capability::UserMemory2
        | Capability::MemoryFaultInfo
        | Capability::GuestMemfd
        | Capability::Irqchip
        | Capability::Irqfd
        | Capability::Ioeventfd
        | Capability::SignalMsi
        | Capability::IrqfdResample
        | Capability::DeviceCtrl
        | Capability::EnableCapVm
        | Capability::IoeventfdAnyLength
        | Capability::VcpuAttributes
        | Capability::ArmIrqLineLayout2 => 1,
        Capability::ArmPtrauthAddress | Capability::ArmPtrauthGeneric => system.registers().keys.into(),
        // A protected VM has nothing of the process's own memory, and nobody else's hand on its clock.
        Capability::UserMemory
        | Capability::SyncMmu
        | Capability::ReadonlyMem
        | Capability::CounterOffset => (!protected).into(),
        Capability::IrqRouting => MAX_LINES.into(),
        Capability::GuestMemfdFlags => MemfdFlags::all().bits(),
        Capability::NrVcpus => u64::from(system.linux().cpus()).min(MAX_VCPUS as u64),
        Capability::MaxVcpus | Capability::MaxVcpuId => MAX_VCPUS as u64,
        Capability::NrMemslots => host_shim::vm::MAX_SLOTS.into(),
        Capability::ArmVmIpaSize => system.support().max_ipa_bits.into(),
    }
}
