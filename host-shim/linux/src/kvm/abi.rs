//! The numbers of KVM's interface.
//!
//! A command's number holds the direction and the size of its argument (Linux, `Documentation/userspace-api/ioctl`).

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub mod devices;

/// `KVM_GET_API_VERSION` answers it, and has since Linux 2.6.22.
pub const API_VERSION: u64 = 12;

/// The type letter of KVM's commands.
const KVM: u32 = 0xAE << 8;

const fn command(number: u32) -> u32 {
    KVM | number
}

/// The command writes what its argument points to.
const READ: u32 = 2 << 30;
/// The command reads it.
const WRITE: u32 = 1 << 30;

/// A command whose argument points to a `T`.
const fn with<T>(direction: u32, number: u32) -> u32 {
    direction | (size_of::<T>() as u32) << 16 | KVM | number
}

/// `KVM_GET_API_VERSION`.
pub const GET_API_VERSION: u32 = command(0x00);
/// `KVM_CREATE_VM`.
pub const CREATE_VM: u32 = command(0x01);
/// `KVM_CHECK_EXTENSION`.
pub const CHECK_EXTENSION: u32 = command(0x03);
/// `KVM_GET_VCPU_MMAP_SIZE`.
pub const GET_VCPU_MMAP_SIZE: u32 = command(0x04);

/// The type of a VM: how many bits its addresses have, 0 for [`DEFAULT_IPA_BITS`].
pub const VM_TYPE_IPA_SIZE: u64 = 0xFF;
/// The type of a VM: it is protected.
pub const VM_TYPE_PROTECTED: u64 = 1 << 31;
/// Bits of a VM's addresses if its creator does not say.
pub const DEFAULT_IPA_BITS: u64 = 40;

/// `KVM_CREATE_VCPU`. Argument: its index.
pub const CREATE_VCPU: u32 = command(0x41);
/// `KVM_GET_DIRTY_LOG`. Argument: a [`DirtyLog`].
pub const GET_DIRTY_LOG: u32 = with::<DirtyLog>(WRITE, 0x42);
/// `KVM_SET_USER_MEMORY_REGION`. Argument: a [`MemoryRegion`].
pub const SET_USER_MEMORY_REGION: u32 = with::<MemoryRegion>(WRITE, 0x46);
/// `KVM_SET_USER_MEMORY_REGION2`. Argument: a [`MemoryRegion2`].
pub const SET_USER_MEMORY_REGION2: u32 = with::<MemoryRegion2>(WRITE, 0x49);
/// `KVM_ARM_PREFERRED_TARGET`. Answers a [`VcpuInit`].
pub const ARM_PREFERRED_TARGET: u32 = with::<VcpuInit>(READ, 0xAF);
/// `KVM_CREATE_GUEST_MEMFD`. Argument: a [`CreateGuestMemfd`].
pub const CREATE_GUEST_MEMFD: u32 = with::<CreateGuestMemfd>(READ | WRITE, 0xD4);
/// `KVM_RUN`.
pub const RUN: u32 = command(0x80);
/// `KVM_GET_MP_STATE`. Answers a number.
pub const GET_MP_STATE: u32 = with::<u32>(READ, 0x98);
/// `KVM_SET_MP_STATE`. Argument: a number.
pub const SET_MP_STATE: u32 = with::<u32>(WRITE, 0x99);
/// `KVM_GET_ONE_REG`. Argument: a [`OneReg`].
pub const GET_ONE_REG: u32 = with::<OneReg>(WRITE, 0xAB);
/// `KVM_SET_ONE_REG`. Argument: a [`OneReg`].
pub const SET_ONE_REG: u32 = with::<OneReg>(WRITE, 0xAC);
/// `KVM_ARM_VCPU_INIT`. Argument: a [`VcpuInit`].
pub const ARM_VCPU_INIT: u32 = with::<VcpuInit>(WRITE, 0xAE);
/// `KVM_GET_REG_LIST`. Argument: a number, and as many places.
pub const GET_REG_LIST: u32 = with::<u64>(READ | WRITE, 0xB0);
/// `KVM_ARM_VCPU_FINALIZE`. Argument: a number.
pub const ARM_VCPU_FINALIZE: u32 = with::<u32>(WRITE, 0xC2);

/// `KVM_SET_SIGNAL_MASK`. Argument: how many bytes, and as many with a bit for each signal.
pub const SET_SIGNAL_MASK: u32 = with::<u32>(WRITE, 0x8B);
/// `KVM_ARM_SET_COUNTER_OFFSET`. Argument: a [`CounterOffset`].
pub const ARM_SET_COUNTER_OFFSET: u32 = with::<CounterOffset>(WRITE, 0xB5);

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct MemoryRegion {
    /// Its number.
    pub slot: u32,
    /// `KVM_MEM_*`.
    pub flags: u32,
    /// Where it begins for the guest.
    pub guest_phys_addr: u64,
    /// Bytes; 0 deletes the slot.
    pub memory_size: u64,
    /// Where it begins for the caller.
    pub userspace_addr: u64,
}

/// A slot that may have a file behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct MemoryRegion2 {
    /// What the older command has too.
    pub region: MemoryRegion,
    /// Where in the file it begins.
    pub guest_memfd_offset: u64,
    /// The file, with [`MEM_GUEST_MEMFD`].
    pub guest_memfd: u32,
    /// Not looked at.
    pub pad: [u32; 29],
}

/// What the guest writes to in the slot is kept.
pub const MEM_LOG_DIRTY_PAGES: u32 = 1 << 0;
/// The guest may not write to the slot.
pub const MEM_READONLY: u32 = 1 << 1;
/// The slot has a file behind it.
pub const MEM_GUEST_MEMFD: u32 = 1 << 2;

/// Where to write what the guest has written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct DirtyLog {
    /// The slot.
    pub slot: u32,
    /// Not looked at.
    pub pad: u32,
    /// The caller's address of a bitmap: a bit for each page, in words of 64.
    pub bitmap: u64,
}

/// A file of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CreateGuestMemfd {
    /// Bytes.
    pub size: u64,
    /// `GUEST_MEMFD_FLAG_*`, which are those of [`host_shim::memfd::MemfdFlags`].
    pub flags: u64,
    /// Not looked at.
    pub reserved: [u64; 6],
}

/// What kind of CPU a vCPU is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VcpuInit {
    /// [`TARGET_GENERIC_V8`].
    pub target: u32,
    /// Bits: see [`Features`].
    pub features: [u32; 7],
}

/// `KVM_ARM_TARGET_GENERIC_V8`.
pub const TARGET_GENERIC_V8: u32 = 5;

bitflags::bitflags! {
    /// What a vCPU is to have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// It is off until it is turned on.
        const POWER_OFF = 1 << 0;
        /// It is one of 32 bits.
        const EL1_32BIT = 1 << 1;
        /// Calls of PSCI 0.2 and later. They are there, asked for or not.
        const PSCI_0_2 = 1 << 2;
        /// A performance monitor.
        const PMU_V3 = 1 << 3;
        /// The scalable vector extension.
        const SVE = 1 << 4;
        /// Authentication of pointers, by address keys.
        const PTRAUTH_ADDRESS = 1 << 5;
        /// The same, by the generic key.
        const PTRAUTH_GENERIC = 1 << 6;
        /// An EL2 of its own.
        const HAS_EL2 = 1 << 7;
        /// The same, without VHE.
        const HAS_EL2_E2H0 = 1 << 8;
        /// Authentication of pointers.
        const PTRAUTH = Self::PTRAUTH_ADDRESS.bits() | Self::PTRAUTH_GENERIC.bits();
    }
}

/// A register, by its name and where its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct OneReg {
    /// The name.
    pub id: u64,
    /// The caller's address of the value.
    pub address: u64,
}

/// How much less the guest's counter is than the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CounterOffset {
    /// Ticks.
    pub offset: u64,
    /// Zero.
    pub reserved: u64,
}

/// `KVM_MP_STATE_RUNNABLE`: it runs, or could.
pub const MP_STATE_RUNNABLE: u32 = 0;
/// `KVM_MP_STATE_STOPPED`: it is off.
pub const MP_STATE_STOPPED: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_numbers_of_linux() {
        assert_eq!(SET_USER_MEMORY_REGION, 0x4020_AE46);
        assert_eq!(SET_USER_MEMORY_REGION2, 0x40A0_AE49);
        assert_eq!(GET_DIRTY_LOG, 0x4010_AE42);
        assert_eq!(CREATE_GUEST_MEMFD, 0xC040_AED4);
        assert_eq!((RUN, CREATE_VCPU), (0xAE80, 0xAE41));
        assert_eq!((GET_MP_STATE, SET_MP_STATE), (0x8004_AE98, 0x4004_AE99));
        assert_eq!((GET_ONE_REG, SET_ONE_REG), (0x4010_AEAB, 0x4010_AEAC));
        assert_eq!((ARM_VCPU_INIT, ARM_PREFERRED_TARGET), (0x4020_AEAE, 0x8020_AEAF));
        assert_eq!(
            (SET_SIGNAL_MASK, ARM_SET_COUNTER_OFFSET),
            (0x4004_AE8B, 0x4010_AEB5)
        );
        assert_eq!((GET_REG_LIST, ARM_VCPU_FINALIZE), (0xC008_AEB0, 0x4004_AEC2));
    }
}
