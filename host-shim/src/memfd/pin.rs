//! Pins: pages that stay what they are while the host does I/O on them.

use super::extent::Page;
use super::file::GuestMemfd;
use super::inode::Inode;
use crate::host::Host;
use crate::vm::Identity;
use crate::{Error, Kernel, Pfn};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hyp_abi::FRAME_SIZE;

/// Pages of a file that the host may touch, pinned one by one. While it lives they are not punched, and a protected
/// guest that shares them cannot take them back or give them up: the attempt exits with
/// [`Exit::Pinned`](crate::Exit::Pinned). It outlives the file and the VM; a VM that dies is gone only when its pages
/// are unpinned.
#[derive(Debug)]
pub struct Pin<K: Kernel> {
    pages: Vec<Pinned>,
    first: u64,
    // Not the file: a pin does not keep it open.
    inode: Arc<Inode<K>>,
    vm: Arc<Identity<K>>,
}

#[derive(Clone, Copy, Debug)]
struct Pinned {
    frame: Pfn,
    /// EL2 counts it, since a protected guest owns the page.
    at_el2: bool,
}

/// A pin that EL2 would not take off when it was dropped, for want of memory.
#[derive(Debug)]
pub(crate) struct Debt<K: Kernel> {
    inode: Arc<Inode<K>>,
    page: u64,
    pinned: Pinned,
}

impl<K: Kernel> GuestMemfd<K> {
    /// Pins a range of bytes, page by page, or nothing of it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the range is empty, misaligned or runs past the end; [`Error::NotShared`] with the
    /// offending offset; [`Error::NoMemory`]; what EL2 refuses.
    pub fn pin(&self, offset: u64, length: u64) -> Result<Pin<K>, Error> {
        let range = self.pages(offset, length)?;
        let inode = self.inner.inode();
        if range.end > inode.pages() {
            return Err(Error::InvalidArgument);
        }
        // What was pinned before a refusal is unpinned by dropping this.
        let mut pin = Pin {
            pages: Vec::new(),
            first: range.start,
            inode: Arc::clone(inode),
            vm: Arc::clone(self.inner.vm()),
        };
        for page in range {
            let hold = self.reachable(page)?;
            let pinned = Pinned {
                frame: hold.frame(page),
                at_el2: matches!(hold.page(page), Page::Private(_)),
            };
            if pinned.at_el2 {
                let range = pinned.frame.range(1);
                inode
                    .host
                    .call_range(None, |_| inode.host.hypervisor().pin_shared(range))
                    .map_err(Error::from)
                    .map_err(|error| match error.status() {
                        // The guest took it back between our look and our call.
                        Some(hyp_abi::Status::NotShared) => Error::NotShared {
                            offset: page * FRAME_SIZE,
                        },
                        _ => error,
                    })?;
            }
            *inode.contents.lock().pins.entry(page).or_insert(0) += 1;
            pin.pages.push(pinned);
        }
        Ok(pin)
    }
}

impl<K: Kernel> Pin<K> {
    /// The frames, in the order of the file.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> {
        self.pages.iter().map(|page| page.frame)
    }

    /// Copies bytes from `offset` in the pinned range on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are not all pinned; [`Error::NotReachable`].
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let mut at = self.start(offset, into.len())?;
        let mut left = into;
        while !left.is_empty() {
            let (frame, within, length) = self.piece(at, left.len())?;
            let (now, later) = left.split_at_mut(length);
            self.kernel().read(frame, within, now)?;
            (at, left) = (at + length, later);
        }
        Ok(())
    }

    /// Copies bytes to the pinned range, from `offset` on.
    ///
    /// # Errors
    /// Those of [`Pin::read`].
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), Error> {
        let mut at = self.start(offset, from.len())?;
        let mut left = from;
        while !left.is_empty() {
            let (frame, within, length) = self.piece(at, left.len())?;
            let (now, later) = left.split_at(length);
            self.kernel().write(frame, within, now)?;
            (at, left) = (at + length, later);
        }
        Ok(())
    }

    fn kernel(&self) -> &K {
        self.inode.host.kernel()
    }

    fn start(&self, offset: u64, length: usize) -> Result<usize, Error> {
        let start = usize::try_from(offset).map_err(|_| Error::InvalidArgument)?;
        let end = start.checked_add(length).ok_or(Error::InvalidArgument)?;
        if end > self.pages.len() * FRAME_SIZE as usize {
            return Err(Error::InvalidArgument);
        }
        Ok(start)
    }

    /// Frame, offset in it and number of bytes, of what lies in the page of byte `at`.
    fn piece(&self, at: usize, left: usize) -> Result<(Pfn, usize, usize), Error> {
        let size = FRAME_SIZE as usize;
        let page = self.pages.get(at / size).ok_or(Error::InvalidArgument)?;
        Ok((page.frame, at % size, left.min(size - at % size)))
    }
}

impl<K: Kernel> Drop for Pin<K> {
    fn drop(&mut self) {
        let inode = &self.inode;
        for (page, pinned) in (self.first..).zip(self.pages.drain(..)) {
            if unpin(&inode.host, pinned).is_ok() {
                forget(inode, page);
            } else {
                self.vm.owe(Debt {
                    inode: Arc::clone(inode),
                    page,
                    pinned,
                });
            }
        }
        // Perhaps it was all that a dying VM waited for.
        self.vm.end_if_doomed();
    }
}

impl<K: Kernel> Debt<K> {
    /// Tries again to take the pin off.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        unpin(&self.inode.host, self.pinned)?;
        forget(&self.inode, self.page);
        Ok(())
    }
}

fn unpin<K: Kernel>(host: &Host<K>, pinned: Pinned) -> Result<(), Error> {
    if pinned.at_el2 {
        host.call_range(None, |_| host.hypervisor().unpin_shared(pinned.frame.range(1)))?;
    }
    Ok(())
}

fn forget<K: Kernel>(inode: &Inode<K>, page: u64) {
    let mut contents = inode.contents.lock();
    if let Some(count) = contents.pins.get_mut(&page) {
        *count -= 1;
        if *count == 0 {
            contents.pins.remove(&page);
        }
    }
}
