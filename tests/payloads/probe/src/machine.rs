//! Single loads and stores, calls of foreign code and cache maintenance: the instructions that a test is about.
//!
//! The one place that knows the architecture. On other machines than arm64 the tool still builds, so that its
//! logic can be tested there; what cannot be done answers [`None`].
#![expect(unsafe_code, reason = "loads, stores and jumps are what this module is for")]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(target_arch = "aarch64"))]
mod other;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(target_arch = "aarch64"))]
use other as arch;

/// Bytes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Size {
    /// The four sizes, small to large.
    pub(crate) const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    /// How many bytes.
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// The size of so many bytes.
    pub(crate) fn from_bytes(bytes: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|size| u64::from(size.bytes()) == bytes)
    }
}

/// Loads from an address, aligned or not, in one instruction.
///
/// # Safety
/// The address is mapped memory that no Rust object lives in, or the caller has made up its mind to be killed.
pub(crate) unsafe fn load(address: *const u8, size: Size) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { arch::load(address, size) }
}

/// Stores to an address, aligned or not, in one instruction.
///
/// # Safety
/// As for [`load`].
pub(crate) unsafe fn store(address: *mut u8, size: Size, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { arch::store(address, size, value) };
}

/// Calls the code at an address as a function without arguments, and answers what it returns; `None` where this
/// tool has no code for the architecture.
///
/// # Safety
/// The code keeps to the procedure call standard, or the caller has made up its mind to be killed.
pub(crate) unsafe fn call(address: *const u8) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe { arch::call(address) }
}

/// Makes code that was stored at `address` (4-aligned) visible to instruction fetches of every CPU.
///
/// # Safety
/// The bytes are mapped.
pub(crate) unsafe fn sync_code(address: *const u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { arch::sync_code(address, bytes) };
}
