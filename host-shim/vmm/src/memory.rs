//! The guest's RAM, as far as the VMM can reach it.
//!
//! Of a protected guest's memory the VMM reaches only what the guest has lent to the host: an access to any other
//! page ends in a SIGBUS. A guest decides where its rings and buffers lie, so such an access must be an error to
//! that one request and never the end of the VMM. [`Ram::attempt`] is the one door to guest memory, and answers
//! [`Fault::Private`] then; [`faults`] is how.

mod faults;

use crate::{
    bus::lock,
    layout::{self, Range},
};
use anyhow::{Context as _, Result};
use faults::Watch;
use std::{
    fs::File,
    ops::Range as Span,
    os::fd::AsRawFd as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use thiserror::Error;
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};

/// Why an access to guest memory failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The guest has not lent the page to the host.
    #[error("the guest's memory at {0:#x} is private")]
    Private(u64),
    /// The guest has no memory there.
    #[error("the guest has no memory at {0:#x}")]
    Outside(u64),
}

/// The guest's RAM.
#[derive(Debug)]
pub struct Ram {
    /// Held during an attempt: what is put in a private page's place must not be taken for the guest's page by
    /// another thread.
    /// It goes before the mapping does.
    attempt: Mutex<Watch>,
    memory: GuestMemoryMmap,
    /// What backs it, unless it is anonymous memory.
    file: Option<File>,
    /// Where it is mapped in this process.
    start: usize,
    size: u64,
    refused: AtomicU64,
    gives_up_by_itself: bool,
}

impl Ram {
    /// RAM of `size` bytes in anonymous memory.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn anonymous(size: u64) -> Result<Self> {
        let region = MmapRegion::new(usize::try_from(size)?).context("cannot map the guest's memory")?;
        Self::new(region, None, size)
    }

    /// RAM of `size` bytes that `file` backs, such as a guest_memfd.
    ///
    /// # Errors
    /// If the system refuses to map it.
    pub fn of_file(file: File, size: u64) -> Result<Self> {
        let offset = FileOffset::new(file.try_clone().context("cannot share the guest_memfd")?, 0);
        let region = MmapRegion::from_file(offset, usize::try_from(size)?)
            .context("cannot map the guest's memory file")?;
        Self::new(region, Some(file), size)
    }

    /// The same for a guest whose memory leaves it only by calls of its own: [`Ram::release`] takes nothing from it.
    #[must_use]
    pub fn protected(self) -> Self {
        Self {
            gives_up_by_itself: true,
            ..self
        }
    }

    fn new(region: MmapRegion, file: Option<File>, size: u64) -> Result<Self> {
        let start = region.as_ptr().expose_provenance();
        let region = GuestRegionMmap::new(region, GuestAddress(layout::RAM))
            .context("the guest's memory does not end in its address space")?;
        let memory = GuestMemoryMmap::from_regions(vec![region])?;
        Ok(Self {
            memory,
            file,
            start,
            size,
            attempt: Mutex::new(Watch::new(start, usize::try_from(size)?)?),
            refused: AtomicU64::new(0),
            gives_up_by_itself: false,
        })
    }

    /// Does `access`, which must touch at most 80 pages.
    ///
    /// # Errors
    /// [`Fault::Private`] if it touched a page that is private; whatever `access` made of it, it worked on a page
    /// of zeros instead.
    pub fn attempt<T>(&self, access: impl FnOnce(&GuestMemoryMmap) -> T) -> Result<T, Fault> {
        let mut watch = lock(&self.attempt);
        watch.begin();
        let done = access(&self.memory);
        let Some(first) = watch.end(self.file.as_ref()) else {
            return Ok(done);
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let offset = first.saturating_sub(self.start) as u64;
        Err(Fault::Private(layout::RAM + offset))
    }

    /// Reads `data.len()` bytes from the guest's address `address`.
    ///
    /// # Errors
    /// If not all of it can be read; what `data` holds then is of no use.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Fault> {
        for span in pages(address, data.len()) {
            let from = address.wrapping_add(span.start as u64);
            self.attempt(|memory| memory.read_slice(&mut data[span], GuestAddress(from)))?
                .map_err(|_| Fault::Outside(from))?;
        }
        Ok(())
    }

    /// Writes `data` to the guest's address `address`.
    ///
    /// # Errors
    /// If not all of it can be written; a part may have been.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Fault> {
        for span in pages(address, data.len()) {
            let to = address.wrapping_add(span.start as u64);
            self.attempt(|memory| memory.write_slice(&data[span], GuestAddress(to)))?
                .map_err(|_| Fault::Outside(to))?;
        }
        Ok(())
    }

    /// Gives pages of the guest's back to the host, as its balloon asks. The guest finds zeros there afterwards.
    ///
    /// A protected guest gives pages up by its own call to the hypervisor, and then they are gone already; one that
    /// only told its balloon still owns them, and taking them would take their contents.
    ///
    /// # Errors
    /// If they are not the guest's, or the system refuses.
    pub fn release(&self, pages: Range) -> Result<()> {
        let Some(offset) = pages
            .start
            .checked_sub(layout::RAM)
            .filter(|offset| offset.checked_add(pages.size).is_some_and(|end| end <= self.size))
        else {
            return Err(Fault::Outside(pages.start).into());
        };
        if self.gives_up_by_itself {
            return Ok(());
        }
        faults::release(self.start, self.file.as_ref(), offset, pages.size).context("cannot release memory")
    }

    /// How many accesses were refused because the page is private.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The memory itself, for what happens before the guest runs, when nothing is private, and for what looks at
    /// its addresses only. All else goes by [`Ram::attempt`].
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Its number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is mapped in this process.
    #[must_use]
    pub fn mapping(&self) -> u64 {
        self.start as u64
    }

    /// The descriptor of what backs it, unless it is anonymous memory.
    #[must_use]
    pub fn descriptor(&self) -> Option<i32> {
        self.file.as_ref().map(|file| file.as_raw_fd())
    }

    /// Whether the guest has memory at all of these addresses.
    #[must_use]
    pub fn contains(&self, address: u64, length: usize) -> bool {
        self.memory.check_range(GuestAddress(address), length)
    }
}

/// The parts of `length` bytes at `address` that lie in one page each, as offsets.
fn pages(address: u64, length: usize) -> impl Iterator<Item = Span<usize>> {
    let page = layout::PAGE;
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let in_page = page - address.wrapping_add(at as u64) % page;
        let end = length.min(at.saturating_add(in_page as usize));
        let span = at..end;
        at = end;
        Some(span)
    })
}

#[cfg(test)]
mod tests;
