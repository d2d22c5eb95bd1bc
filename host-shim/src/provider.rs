//! Where frames come from: one trait, and the providers that need nothing of a kernel.
//!
//! Frame numbers cross the trait, never page structures, so that memory without any can stand behind it. A file of
//! guest memory is told which provider it has; a host's own allocator is one more.

mod buddy;
mod carve_out;
mod huge_pool;

pub use buddy::Buddy;
pub use carve_out::CarveOut;
pub use huge_pool::HugePool;

use crate::account::{Account, Purpose};
use crate::{Block, Error, HostMemory, Pfn};
use alloc::sync::Arc;
use core::fmt::Debug;
use core::ops::RangeInclusive;

/// What a frame must hold when it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Anything: the caller or EL2 overwrites it.
    Any,
    /// Zeroes, if the provider can have that cheaply. It says what it did.
    Zeroed,
}

/// What a provider handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The first frame of the block.
    pub pfn: Pfn,
    /// Whether the block is known to be zero.
    pub zeroed: bool,
}

/// A source of blocks of frames that the host owns and nobody else reaches.
pub trait Provider: Send + Sync + Debug {
    /// The orders of blocks that there can be: the smallest, which is also the smallest part in which a block can be
    /// freed, and the largest, at most [`crate::MAX_ORDER`].
    fn orders(&self) -> RangeInclusive<u8>;

    /// Hands out a block of 2^`order` frames, aligned to its size; `None` if there is none.
    fn allocate(&self, order: u8, contents: Contents) -> Option<Allocated>;

    /// Takes a block back: one that was handed out, or an aligned part of one. Its contents are no secret.
    fn free(&self, block: Block);
}

/// A provider with the account that pays for what is taken from it.
#[derive(Clone, Debug)]
pub struct Source {
    provider: Arc<dyn Provider>,
    account: Arc<dyn Account>,
}

impl Source {
    /// Frames of `provider`, charged to `account`.
    pub fn new(provider: Arc<dyn Provider>, account: Arc<dyn Account>) -> Self {
        Self { provider, account }
    }

    /// The orders of blocks that there can be.
    #[must_use]
    pub fn orders(&self) -> RangeInclusive<u8> {
        self.provider.orders()
    }

    /// Charges and allocates a block.
    ///
    /// # Errors
    /// [`Error::OverLimit`]; [`Error::NoMemory`]. Nothing stays charged.
    pub fn allocate(&self, purpose: Purpose, order: u8, contents: Contents) -> Result<Allocated, Error> {
        let frames = 1 << order;
        self.account.charge(purpose, frames)?;
        self.provider.allocate(order, contents).ok_or_else(|| {
            self.account.uncharge(purpose, frames);
            Error::NoMemory
        })
    }

    /// Allocates one frame of zeroes.
    ///
    /// # Errors
    /// Those of [`Source::allocate`]; [`Error::NotReachable`].
    pub(crate) fn allocate_zeroed(&self, purpose: Purpose, memory: &impl HostMemory) -> Result<Pfn, Error> {
        let Allocated { pfn, zeroed } = self.allocate(purpose, 0, Contents::Zeroed)?;
        if !zeroed && memory.zero(pfn, 1).is_err() {
            // The frame is not what the provider thought: it is kept from further use.
            return Err(Error::NotReachable);
        }
        Ok(pfn)
    }

    /// Takes the charge of frames back that are never to be used again.
    pub(crate) fn abandon(&self, purpose: Purpose, frames: u64) {
        self.account.uncharge(purpose, frames);
    }

    /// Frees a block and takes the charge back.
    pub fn free(&self, purpose: Purpose, block: Block) {
        self.provider.free(block);
        self.account.uncharge(purpose, block.frames());
    }
}
