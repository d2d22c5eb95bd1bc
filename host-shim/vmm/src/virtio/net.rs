//! A network card (section 5.1 of the specification) without offloads.
//!
//! What is at the other end of the wire is a [`Wire`]: [`responder`] is a small host of our own that answers, [`tap`]
//! a network interface of the system's.

pub mod responder;
pub mod tap;

use super::{
    Device, id,
    queue::{Broken, Queues},
};
use std::os::fd::RawFd;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Feature bit: the device has an address of its own.
const MAC: u64 = 1 << 5;

/// The header before each frame. Without offloads all of it is zero but the number of buffers, the last two bytes.
const HEADER: usize = 12;

/// An Ethernet frame is no longer than this, without its checksum.
pub const MAX_FRAME: usize = 1514;

/// The guest's address, a locally administered one.
pub const GUEST: [u8; 6] = [0x02, 0x46, 0x48, 0x00, 0x00, 0x01];

/// The other end of the wire.
pub trait Wire: Send + std::fmt::Debug {
    /// Takes a frame from the guest.
    fn send(&mut self, frame: &[u8]);
    /// The next frame for the guest, if there is one.
    fn receive(&mut self) -> Option<Vec<u8>>;
    /// A descriptor that becomes readable when a frame comes, if frames come by themselves.
    fn source(&self) -> Option<RawFd> {
        None
    }
}

/// A network card.
#[derive(Debug)]
pub struct Net {
    wire: Box<dyn Wire>,
    /// A frame that the guest had no buffer for.
    pending: Option<Vec<u8>>,
    sent: u64,
    received: u64,
    failed: u64,
}

impl Net {
    /// A card on this wire.
    #[must_use]
    pub fn new(wire: Box<dyn Wire>) -> Self {
        Self {
            wire,
            pending: None,
            sent: 0,
            received: 0,
            failed: 0,
        }
    }

    fn transmit(&mut self, queues: &mut Queues<'_>) -> Result<(), Broken> {
        while let Some(chain) = queues.next(TRANSMIT)? {
            match queues
                .read(&chain)
                .ok()
                .as_deref()
                .and_then(|data| data.get(HEADER..))
            {
                Some(frame) if !frame.is_empty() && frame.len() <= MAX_FRAME => {
                    self.wire.send(frame);
                    self.sent += 1;
                }
                _ => self.failed += 1,
            }
            queues.complete(TRANSMIT, chain, 0)?;
        }
        Ok(())
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        id::NET
    }

    fn features(&self) -> u64 {
        MAC
    }

    fn queue_sizes(&self) -> &[u16] {
        &[128, 128]
    }

    fn config(&self) -> Vec<u8> {
        GUEST.to_vec()
    }

    fn notified(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Broken> {
        if index == TRANSMIT {
            self.transmit(queues)?;
        }
        // A frame sent may have been answered, and a buffer made available may be what an answer waits for.
        self.ready(queues)
    }

    fn source(&self) -> Option<RawFd> {
        self.wire.source()
    }

    fn ready(&mut self, queues: &mut Queues<'_>) -> Result<(), Broken> {
        while let Some(frame) = self.pending.take().or_else(|| self.wire.receive()) {
            let Some(chain) = queues.next(RECEIVE)? else {
                self.pending = Some(frame);
                return Ok(());
            };
            let mut data = vec![0; HEADER];
            data[HEADER - 2] = 1;
            data.extend(&frame);
            // A frame that does not fit, or whose buffer is private, is lost, as frames are.
            let written = match queues.write(&chain, 0, &data) {
                Ok(written) if written == data.len() => {
                    self.received += 1;
                    written
                }
                _ => {
                    self.failed += 1;
                    0
                }
            };
            queues.complete(RECEIVE, chain, written)?;
        }
        Ok(())
    }

    fn report(&self) -> String {
        format!(
            "net sent={} received={} failures={}",
            self.sent, self.received, self.failed
        )
    }
}

#[cfg(test)]
mod tests;
