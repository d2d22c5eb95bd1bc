//! guest_memfd: a guest's memory, as a file.
//!
//! The *inode* is the memory: extents of frames, each page in one state. A *file* is one VM's view of it: [`GuestMemfd`].
//! A *binding* ties a range of a file to a slot of the VM. A file keeps its VM's identity alive, and may outlive the VM;
//! a slot has only a weak reference to the file, and a file that is closed leaves an empty slot behind.
//!
//! # Holds
//!
//! Whoever changes an extent, gives it to a guest or takes it away, *holds* it, and there is one holder at a time. A
//! fault holds the extent until EL2 has mapped the frame, so memory that is being mapped is never punched (get and
//! lock, put and unlock), and of two vCPUs that miss one page the second finds it mapped. [`PageGuard`] is such a hold.
//! A punch holds the extent, tells every VM that is bound to it, and only then frees it.
//!
//! # Blocks
//!
//! A file asks its provider for blocks of up to its order, and takes smaller ones if the provider has them to offer.
//! What becomes of a block that is punched in part is the file's policy: [`PartialPunch`].

mod extent;
mod file;
mod hold;
mod inode;
mod pin;
mod punch;

pub(crate) use extent::Page;
pub(crate) use file::Inner;
pub use file::{Attribute, GuestMemfd, PageGuard};
pub(crate) use hold::Hold;
pub(crate) use inode::Inode;
pub(crate) use pin::Debt;
pub use pin::Pin;

use core::fmt::Debug;
use core::ops::Range;

bitflags::bitflags! {
    /// What a file can do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MemfdFlags: u64 {
        /// User space may map it. What it can touch is another question: pages that the host may touch.
        const MMAP = 1 << 0;
        /// All of it is shared with the host from the start. If the VM is protected, that is so until its launch, and until
        /// a page is given to it before that; afterwards the guest decides, page by page.
        const INIT_SHARED = 1 << 1;
    }
}

/// Mappings of a file in user space, if there can be any: the kernel's.
pub trait Mappings: Send + Sync + Debug {
    /// Takes pages, numbered from the start of the file, from every mapping: the next access to them is a fault. Called
    /// with their hold, which such a fault waits for: before the host loses them, and before they are freed.
    fn zap(&self, pages: Range<u64>);
}

/// What happens if a part of a huge page is punched. A guest that gives up a part is never refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartialPunch {
    /// It is refused.
    Reject,
    /// The part is zeroed and remembered. The block is freed when all of it is punched.
    #[default]
    ZeroOnly,
    /// The block is split and the part freed. Only for providers that hand out single frames, too.
    Split,
}

/// What happens if a page is punched that is private to a protected guest which lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LivePunch {
    /// It is refused.
    #[default]
    Refuse,
    /// EL2 takes it by force, zeroed. The guest has lost it for good: its next access there is an error, and nothing can
    /// be put in its place. A page that the guest shares is not taken.
    Force,
}

/// How a file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemfdConfig {
    /// Bytes, a multiple of 4 KiB and of the provider's smallest block, for good.
    pub size: u64,
    /// What it can do.
    pub flags: MemfdFlags,
    /// The order of the blocks that it asks for; what the provider has decides in the end.
    pub order: u8,
    /// What happens if a part of a huge page is punched.
    pub partial_punch: PartialPunch,
    /// What happens if a live guest's page is punched.
    pub live_punch: LivePunch,
}

impl MemfdConfig {
    /// A file of `size` bytes in 4 KiB pages, without flags.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            flags: MemfdFlags::empty(),
            order: 0,
            partial_punch: PartialPunch::default(),
            live_punch: LivePunch::default(),
        }
    }
}

bitflags::bitflags! {
    /// What [`GuestMemfd::fallocate`] is to do, by Linux's numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// Do not change the size, which never changes. Always needed.
        const KEEP_SIZE = 1 << 0;
        /// Free and do not allocate.
        const PUNCH_HOLE = 1 << 1;
    }
}
