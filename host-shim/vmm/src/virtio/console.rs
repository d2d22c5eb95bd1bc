//! A console (section 5.3 of the specification) with one port.

use super::{
    Device, id,
    queue::{Broken, Queues},
};
use crate::{input::Input, serial::Output};
use std::os::fd::RawFd;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A console.
pub struct Console {
    output: Output,
    input: Input,
    sent: u64,
    received: u64,
    failed: u64,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// A console whose output goes to `output`, and which gets what is typed in `input`.
    #[must_use]
    pub fn new(output: Output, input: Input) -> Self {
        Self {
            output,
            input,
            sent: 0,
            received: 0,
            failed: 0,
        }
    }

    fn print(&mut self, queues: &mut Queues<'_>) -> Result<(), Broken> {
        while let Some(chain) = queues.next(TRANSMIT)? {
            match queues.read(&chain) {
                Ok(text) => {
                    self.sent += text.len() as u64;
                    // Output that goes nowhere is lost; the guest cannot be told.
                    let _ = self.output.write_all(&text).and_then(|()| self.output.flush());
                }
                Err(_) => self.failed += 1,
            }
            queues.complete(TRANSMIT, chain, 0)?;
        }
        Ok(())
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        id::CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn notified(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Broken> {
        match index {
            TRANSMIT => self.print(queues),
            _ => self.ready(queues),
        }
    }

    fn source(&self) -> Option<RawFd> {
        self.input.descriptor()
    }

    fn ready(&mut self, queues: &mut Queues<'_>) -> Result<(), Broken> {
        loop {
            // What is typed waits in its pipe or terminal until there is a buffer for it.
            let Some(room) = queues.peek(RECEIVE)? else {
                return Ok(());
            };
            let typed = self.input.take(room);
            if typed.is_empty() {
                return Ok(());
            }
            let Some(chain) = queues.next(RECEIVE)? else {
                return Ok(());
            };
            let written = queues.write(&chain, 0, &typed).unwrap_or_else(|_| {
                self.failed += 1;
                0
            });
            self.received += written as u64;
            queues.complete(RECEIVE, chain, written)?;
        }
    }

    fn report(&self) -> String {
        format!(
            "console sent={} received={} failures={}",
            self.sent, self.received, self.failed
        )
    }
}

#[cfg(test)]
mod tests;
