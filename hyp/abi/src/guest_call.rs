//! What a guest may ask, by `HVC #0`: the documented interface of KVM on arm64, so that an unmodified Linux guest
//! works, the ranged forms that Android added, and a few calls of Freehold's own.
//!
//! Numbers and meanings: Linux, Documentation/virt/kvm/arm/hypercalls.rst; SMC Calling Convention, Arm DEN0028; TRNG
//! Firmware Interface, Arm DEN0098. PSCI (Arm DEN0022) is in its own crate. What is in no list here and is no PSCI
//! call answers [`NOT_SUPPORTED`].

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// There is no such call.
pub const NOT_SUPPORTED: i64 = -1;
/// The feature that is asked about needs nothing here (SMCCC_ARCH_WORKAROUND_2).
pub const NOT_REQUIRED: i64 = -2;
/// The call was refused: an argument has no meaning, or the memory is not in the state that it wants.
pub const INVALID_PARAMETER: i64 = -3;
/// There is no entropy at the moment (DEN0098).
pub const NO_ENTROPY: i64 = -3;

/// The function identifiers that EL2 answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u32)]
pub enum GuestCallId {
    /// SMCCC_VERSION.
    SmcccVersion = 0x8000_0000,
    /// SMCCC_ARCH_FEATURES. x1: a function identifier.
    SmcccArchFeatures = 0x8000_0001,
    /// SMCCC_ARCH_WORKAROUND_3.
    SmcccWorkaround3 = 0x8000_3fff,
    /// SMCCC_ARCH_WORKAROUND_2.
    SmcccWorkaround2 = 0x8000_7fff,
    /// SMCCC_ARCH_WORKAROUND_1.
    SmcccWorkaround1 = 0x8000_8000,
    /// TRNG_VERSION.
    TrngVersion = 0x8400_0050,
    /// TRNG_FEATURES. x1: a function identifier.
    TrngFeatures = 0x8400_0051,
    /// TRNG_GET_UUID.
    TrngGetUuid = 0x8400_0052,
    /// TRNG_RND, 32-bit. x1: bits, at most 96.
    TrngRnd32 = 0x8400_0053,
    /// TRNG_RND, 64-bit. x1: bits, at most 192.
    TrngRnd64 = 0xc400_0053,
    /// The vendor's feature bitmap: x0 to x3.
    VendorFeatures = 0x8600_0000,
    /// The vendor's UID: x0 to x3.
    VendorUid = 0x8600_ff01,
    /// HYP_MEMINFO: x0 is the granule in bytes, x1 bit 0 says that counts are taken. x1 to x3 must be 0.
    MemInfo = 0xc600_0002,
    /// MEM_SHARE. x1: IPA; x2: granules, of which 0 means 1; x3 must be 0. x1 answers how many are done.
    MemShare = 0xc600_0003,
    /// MEM_UNSHARE, with the arguments of MEM_SHARE.
    MemUnshare = 0xc600_0004,
    /// MMIO_GUARD_INFO: x0 is the granule in bytes. x1 to x3 must be 0.
    MmioGuardInfo = 0xc600_0005,
    /// MMIO_GUARD_ENROLL: the guard is in force from now on. x1 to x3 must be 0.
    MmioGuardEnroll = 0xc600_0006,
    /// MMIO_GUARD_MAP: the host may emulate the page of IPA x1. x2 and x3 must be 0. The first one that is done puts the
    /// guard in force; one that is refused, as the host can have it refused by a page that it puts there first, changes
    /// nothing. A guest that means the guard whatever comes of its devices begins with [`Self::MmioGuardEnroll`].
    MmioGuardMap = 0xc600_0007,
    /// MMIO_GUARD_UNMAP: no longer. x2 and x3 must be 0.
    MmioGuardUnmap = 0xc600_0008,
    /// MEM_RELINQUISH, with the arguments of MEM_SHARE.
    MemRelinquish = 0xc600_0009,
    /// MMIO_GUARD_RMAP. x1: IPA; x2: granules; x3 must be 0. x1 answers how many are done. With the first page that is
    /// done the guard is in force.
    MmioGuardRangeMap = 0xc600_000a,
    /// MMIO_GUARD_RUNMAP, with the arguments of MMIO_GUARD_RMAP.
    MmioGuardRangeUnmap = 0xc600_000b,
    /// Freehold's own: a half of the launch digest. x1: 0 or 1. x1 and x2 answer 16 of its 32 bytes, the first of
    /// them in the low byte of x1.
    LaunchDigest = 0xc600_4660,
}

impl GuestCallId {
    /// All of them. Those of a family are next to each other.
    pub const ALL: [Self; 23] = [
        Self::SmcccVersion,
        Self::SmcccArchFeatures,
        Self::SmcccWorkaround3,
        Self::SmcccWorkaround2,
        Self::SmcccWorkaround1,
        Self::TrngVersion,
        Self::TrngFeatures,
        Self::TrngGetUuid,
        Self::TrngRnd32,
        Self::TrngRnd64,
        Self::VendorFeatures,
        Self::VendorUid,
        Self::MemInfo,
        Self::MemShare,
        Self::MemUnshare,
        Self::MmioGuardInfo,
        Self::MmioGuardEnroll,
        Self::MmioGuardMap,
        Self::MmioGuardUnmap,
        Self::MemRelinquish,
        Self::MmioGuardRangeMap,
        Self::MmioGuardRangeUnmap,
        Self::LaunchDigest,
    ];
}

/// The first of the function identifiers that the host answers: a service of its own, such as a console.
pub const HOST_SERVICE_FIRST: u32 = 0xc600_4680;
/// The last of them.
pub const HOST_SERVICE_LAST: u32 = 0xc600_46ff;

/// KVM's UID, which a guest looks for, as x0 to x3 answer it.
pub const KVM_UID: [u32; 4] = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];

/// The version of the SMC Calling Convention that EL2 speaks to guests: 1.1.
pub const SMCCC_VERSION: u64 = 0x1_0001;

/// What [`GuestCallId::MemInfo`] answers in x1: counts of granules are taken.
pub const MEMINFO_HAS_RANGE: u64 = 1 << 0;

/// The bit of the vendor's feature bitmap that stands for a function, if it has one: its number.
#[must_use]
pub const fn feature_bit(id: GuestCallId) -> Option<u32> {
    let function = id as u32;
    // KVM numbers the features of its vendor service by function number; the bitmap has 128 bits.
    let is_vendor = matches!(function >> 16, 0x8600 | 0xc600);
    let number = function & 0xffff;
    if is_vendor && number < 128 {
        Some(number)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_that_linux_looks_for_have_its_bits() {
        assert_eq!(feature_bit(GuestCallId::VendorFeatures), Some(0));
        assert_eq!(feature_bit(GuestCallId::MemInfo), Some(2));
        assert_eq!(feature_bit(GuestCallId::MemShare), Some(3));
        assert_eq!(feature_bit(GuestCallId::MmioGuardMap), Some(7));
        assert_eq!(feature_bit(GuestCallId::MemRelinquish), Some(9));
        assert_eq!(feature_bit(GuestCallId::VendorUid), None);
        assert_eq!(feature_bit(GuestCallId::SmcccVersion), None);
        assert_eq!(feature_bit(GuestCallId::LaunchDigest), None);
    }

    #[test]
    fn no_call_of_el2s_is_a_service_of_the_hosts() {
        for function in HOST_SERVICE_FIRST..=HOST_SERVICE_LAST {
            assert!(GuestCallId::try_from(function).is_err());
        }
    }
}
