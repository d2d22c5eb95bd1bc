//! Virtio devices (Virtual I/O Device specification, version 1.2) on the MMIO transport.
//!
//! A [`Device`] knows its requests; [`mmio`] has its registers, [`queue`] the way to its rings. Everything that a
//! request needs is copied out of the guest's memory before it is looked at, and what it answers is copied back:
//! no device holds on to memory that the guest can change or take away.

pub mod balloon;
pub mod block;
pub mod console;
pub mod mmio;
pub mod net;
pub mod queue;

#[cfg(test)]
mod driver;

use queue::{Broken, Queues};
use std::os::fd::RawFd;

/// Device identifiers (section 5 of the specification).
pub mod id {
    /// A network card.
    pub const NET: u32 = 1;
    /// A disk.
    pub const BLOCK: u32 = 2;
    /// A console.
    pub const CONSOLE: u32 = 3;
    /// A memory balloon.
    pub const BALLOON: u32 = 5;
}

/// Feature bits that belong to no device (section 6).
pub mod feature {
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
    /// VIRTIO_F_ACCESS_PLATFORM: the driver must use the platform's way of reaching memory, here the bounce memory.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// What a device does, whatever its transport.
pub trait Device: Send + std::fmt::Debug {
    /// Its identifier, one of [`id`].
    fn id(&self) -> u32;

    /// The features that it offers beyond those of the transport.
    fn features(&self) -> u64;

    /// The greatest size of each of its queues.
    fn queue_sizes(&self) -> &[u16];

    /// Its configuration space.
    fn config(&self) -> Vec<u8>;

    /// The driver has written to its configuration space.
    fn config_written(&mut self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver has made buffers available in queue `index`.
    ///
    /// # Errors
    /// If its rings cannot be used any more.
    fn notified(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Broken>;

    /// A descriptor that becomes readable when [`Device::ready`] should be called.
    fn source(&self) -> Option<RawFd> {
        None
    }

    /// Its source has become readable.
    ///
    /// # Errors
    /// If its rings cannot be used any more.
    fn ready(&mut self, queues: &mut Queues<'_>) -> Result<(), Broken> {
        let _ = queues;
        Ok(())
    }

    /// What it has done, in words and numbers, for the report at the end.
    fn report(&self) -> String;
}
