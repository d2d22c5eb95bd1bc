//! A memory balloon (section 5.5 of the specification): memory that the guest gives back and may take again.

use super::{
    Device, id,
    queue::{Broken, Queues},
};
use crate::layout::{PAGE, Range};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;

/// Feature bits: the guest asks before it uses a page of the balloon's again; it may take pages when it has no
/// other left.
const MUST_TELL_HOST: u64 = 1 << 0;
const DEFLATE_ON_OOM: u64 = 1 << 2;

/// A balloon.
#[derive(Debug, Default)]
pub struct Balloon {
    /// How many pages the host would like to have.
    target: u32,
    /// How many the guest says that it has given.
    actual: u32,
    given: u64,
    taken: u64,
    failed: u64,
}

impl Balloon {
    /// A balloon that asks the guest for `bytes` bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            target: pages(bytes),
            ..Self::default()
        }
    }
}

/// So many bytes in pages, or as many as can be asked for.
#[must_use]
fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}

impl Device for Balloon {
    fn id(&self) -> u32 {
        id::BALLOON
    }

    fn features(&self) -> u64 {
        MUST_TELL_HOST | DEFLATE_ON_OOM
    }

    fn queue_sizes(&self) -> &[u16] {
        &[128, 128]
    }

    fn config(&self) -> Vec<u8> {
        [self.target, self.actual].map(u32::to_le_bytes).concat()
    }

    fn config_written(&mut self, offset: usize, data: &[u8]) {
        if let (4, Ok(bytes)) = (offset, data.try_into()) {
            self.actual = u32::from_le_bytes(bytes);
        }
    }

    fn notified(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Broken> {
        while let Some(chain) = queues.next(index)? {
            let Ok(numbers) = queues.read(&chain) else {
                self.failed += 1;
                queues.complete(index, chain, 0)?;
                continue;
            };
            let (numbers, _) = numbers.as_chunks();
            for number in numbers.iter().copied().map(u32::from_le_bytes) {
                let page = Range {
                    start: u64::from(number) * PAGE,
                    size: PAGE,
                };
                match index {
                    INFLATE if queues.ram().release(page).is_ok() => self.given += 1,
                    DEFLATE if queues.ram().contains(page.start, PAGE as usize) => self.taken += 1,
                    _ => self.failed += 1,
                }
            }
            queues.complete(index, chain, 0)?;
        }
        Ok(())
    }

    fn report(&self) -> String {
        format!(
            "balloon given={} taken={} failures={} pages={}",
            self.given, self.taken, self.failed, self.actual
        )
    }
}

#[cfg(test)]
mod tests;
