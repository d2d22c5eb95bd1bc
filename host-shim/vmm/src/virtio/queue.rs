//! A device's way to its rings: chains of buffers come out, and go back used.

use crate::memory::{Fault, Ram};
use std::sync::atomic::{AtomicU32, Ordering};
use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vmm_sys_util::eventfd::EventFd;

/// How many descriptors a chain may have. No driver needs more for the requests that our devices take.
const MAX_DESCRIPTORS: usize = 32;

/// How many bytes a chain may have each way, so that a guest cannot make the VMM take memory without end.
pub const MAX_BYTES: usize = 2 << 20;

/// Why a device's rings can no longer be used. The driver must reset it.
#[derive(Debug, Error)]
pub enum Broken {
    /// The ring, or a place that an answer must go to, cannot be reached.
    #[error("{0}")]
    Unreachable(#[from] Fault),
    /// The ring makes no sense.
    #[error("{0}")]
    Ring(#[from] virtio_queue::Error),
    /// A chain of descriptors makes no sense.
    #[error("a chain of descriptors is too long, or its readable part does not come first")]
    Chain,
}

/// How a device interrupts its guest.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    event: EventFd,
}

impl Interrupt {
    /// InterruptStatus: buffers have been used.
    pub const USED: u32 = 1 << 0;
    /// InterruptStatus: the configuration has changed, or the device needs a reset.
    pub const CONFIGURATION: u32 = 1 << 1;

    /// An interrupt that is raised by `event`.
    #[must_use]
    pub fn new(event: EventFd) -> Self {
        Self {
            status: AtomicU32::new(0),
            event,
        }
    }

    /// Raises the interrupt for `reason`.
    pub fn raise(&self, reason: u32) {
        self.status.fetch_or(reason, Ordering::AcqRel);
        // An event that cannot be written is full, and then the interrupt is raised already.
        let _ = self.event.write(1);
    }

    /// The reasons that the driver has not acknowledged.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// The driver acknowledges these reasons.
    pub fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::AcqRel);
    }

    /// The event, for the interrupt controller.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

/// A chain of buffers that the driver has made available.
#[derive(Debug)]
#[must_use = "the driver waits for it to come back"]
pub struct Chain {
    head: u16,
    readable: Vec<(u64, usize)>,
    writable: Vec<(u64, usize)>,
}

impl Chain {
    /// How many bytes the device may write.
    #[must_use]
    pub fn writable(&self) -> usize {
        self.writable.iter().map(|(_, length)| length).sum()
    }
}

/// The queues of a device, while it works on them.
#[derive(Debug)]
pub struct Queues<'a> {
    pub(super) ram: &'a Ram,
    pub(super) queues: &'a mut [Queue],
    pub(super) interrupt: &'a Interrupt,
}

impl Queues<'_> {
    /// The next chain of queue `index`, if the driver has made one available.
    ///
    /// # Errors
    /// If ring or chain cannot be read or make no sense.
    pub fn next(&mut self, index: usize) -> Result<Option<Chain>, Broken> {
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else {
            return Ok(None);
        };
        let walked = self.ram.attempt(|memory| {
            let Some(descriptors) = queue.iter(memory)?.next() else {
                return Ok(None);
            };
            let mut chain = Chain {
                head: descriptors.head_index(),
                readable: Vec::new(),
                writable: Vec::new(),
            };
            for (number, descriptor) in descriptors.enumerate() {
                let buffer = (descriptor.addr().0, descriptor.len() as usize);
                if number == MAX_DESCRIPTORS || (!descriptor.is_write_only() && !chain.writable.is_empty()) {
                    return Err(Broken::Chain);
                }
                if descriptor.is_write_only() {
                    chain.writable.push(buffer);
                } else {
                    chain.readable.push(buffer);
                }
            }
            Ok(Some(chain))
        })?;
        match walked? {
            Some(chain) if is_too_long(&chain.readable) || is_too_long(&chain.writable) => Err(Broken::Chain),
            other => Ok(other),
        }
    }

    /// How many bytes the device may write into the next chain of queue `index`, which stays where it is.
    ///
    /// # Errors
    /// As for [`Queues::next`].
    pub fn peek(&mut self, index: usize) -> Result<Option<usize>, Broken> {
        let chain = self.next(index)?;
        if chain.is_some() {
            self.queues[index].go_to_previous_position();
        }
        Ok(chain.map(|chain| chain.writable()))
    }

    /// All that the driver wrote into the chain.
    ///
    /// # Errors
    /// If a buffer cannot be reached.
    pub fn read(&self, chain: &Chain) -> Result<Vec<u8>, Fault> {
        let mut data = vec![0; chain.readable.iter().map(|(_, length)| length).sum()];
        let mut rest = data.as_mut_slice();
        for &(address, length) in &chain.readable {
            let (part, behind) = rest.split_at_mut(length);
            self.ram.read(address, part)?;
            rest = behind;
        }
        Ok(data)
    }

    /// Writes `data` from byte `offset` of the chain's writable part on; what does not fit is left out. Returns how
    /// many bytes are written.
    ///
    /// # Errors
    /// If a buffer cannot be reached.
    pub fn write(&self, chain: &Chain, offset: usize, data: &[u8]) -> Result<usize, Fault> {
        let (mut skip, mut rest) = (offset, data);
        for &(address, length) in &chain.writable {
            let skipped = skip.min(length);
            skip -= skipped;
            let (part, behind) = rest.split_at(rest.len().min(length - skipped));
            self.ram.write(address.wrapping_add(skipped as u64), part)?;
            rest = behind;
        }
        Ok(data.len() - rest.len())
    }

    /// Gives a chain back to the driver, with `written` bytes in its writable part.
    ///
    /// # Errors
    /// If the ring cannot be reached.
    pub fn complete(&mut self, index: usize, chain: Chain, written: usize) -> Result<(), Broken> {
        let queue = &mut self.queues[index];
        let length = u32::try_from(written).unwrap_or(u32::MAX);
        self.ram
            .attempt(|memory| queue.add_used(memory, chain.head, length))??;
        if self.ram.attempt(|memory| queue.needs_notification(memory))?? {
            self.interrupt.raise(Interrupt::USED);
        }
        Ok(())
    }

    /// Tells the driver that the configuration has changed.
    pub fn configuration_changed(&self) {
        self.interrupt.raise(Interrupt::CONFIGURATION);
    }

    /// The guest's memory, for a device that is about memory itself.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        self.ram
    }
}

fn is_too_long(buffers: &[(u64, usize)]) -> bool {
    let total = buffers
        .iter()
        .try_fold(0usize, |total, (_, length)| total.checked_add(*length));
    total.is_none_or(|total| total > MAX_BYTES)
}
