//! The numbers of KVM's interface.
//!
//! A command's number holds the direction and the size of its argument (Linux, `Documentation/userspace-api/ioctl`).

/// `KVM_GET_API_VERSION` answers it, and has since Linux 2.6.22.
pub const API_VERSION: u64 = 12;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// The type letter of KVM's commands.
const KVM: u32 = 0xAE << 8;

const fn command(number: u32) -> u32 {
    KVM | number
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
