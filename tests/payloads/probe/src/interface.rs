//! What `/dev/freehold-probe` understands: the requests and their structures.
//!
//! The other side is `module/interface.h`, which says what each field means. Each side checks the sizes, and a
//! request number holds the size of its structure, so two sides that differ end in `ENOTTY`.

/// Path of the module's device.
pub(crate) const DEVICE: &str = "/dev/freehold-probe";

/// Bit of an `mmap` offset that asks for Device memory.
pub(crate) const MMAP_DEVICE: u64 = 1 << 56;

/// The address in a [`Run`] that stands for a fresh page of the module's own.
pub(crate) const RUN_OWN_PAGE: u64 = u64::MAX;

/// The most instructions that a [`Run`] carries.
pub(crate) const RUN_WORDS: usize = 8;

/// One load or store at EL1: `struct fhp_access`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Access {
    pub(crate) address: u64,
    pub(crate) value: u64,
    pub(crate) size: u32,
    pub(crate) mapping: u32,
    pub(crate) store: u32,
    pub(crate) bare: u32,
    pub(crate) refused: u32,
    pub(crate) padded: u32,
}

/// A jump at EL1: `struct fhp_run`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Run {
    pub(crate) address: u64,
    pub(crate) x: [u64; 8],
    pub(crate) code: [u32; RUN_WORDS],
    pub(crate) words: u32,
    pub(crate) reserved: u32,
}

/// One HVC or SMC: `struct fhp_call`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Call {
    pub(crate) x: [u64; 18],
    pub(crate) conduit: u32,
    pub(crate) reserved: u32,
}

/// A run of kernel pages: `struct fhp_pages`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Pages {
    pub(crate) base: u64,
    pub(crate) order: u32,
    pub(crate) reserved: u32,
}

/// A structure that a request carries both ways.
pub(crate) trait Request: Copy {
    /// The request number.
    const NUMBER: u32;
}

/// `_IOWR('F', number, …)` of Linux' `asm-generic/ioctl.h`: direction in 31:30, size in 29:16, type in 15:8.
const fn read_write(number: u32, size: usize) -> u32 {
    assert!(size < 1 << 14);
    3 << 30 | (size as u32) << 16 | (b'F' as u32) << 8 | number
}

impl Request for Access {
    const NUMBER: u32 = read_write(0x10, size_of::<Self>());
}

impl Request for Run {
    const NUMBER: u32 = read_write(0x11, size_of::<Self>());
}

impl Request for Call {
    const NUMBER: u32 = read_write(0x12, size_of::<Self>());
}

/// `FHP_PAGES_ALLOCATE`.
pub(crate) const PAGES_ALLOCATE: u32 = read_write(0x13, size_of::<Pages>());

/// `FHP_PAGES_FREE`.
pub(crate) const PAGES_FREE: u32 = read_write(0x14, size_of::<Pages>());

const _: () = assert!(size_of::<Access>() == 40);
const _: () = assert!(size_of::<Run>() == 112);
const _: () = assert!(size_of::<Call>() == 152);
const _: () = assert!(size_of::<Pages>() == 16);
