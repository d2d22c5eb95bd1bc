//! The memory of a process as guests borrow it: pages of the machine's own, each at an address, and who watches them.

use super::{FRAME_SIZE, Machine};
use crate::Errno;
use crate::linux::Watcher;
use host_shim::provider::{Contents, Provider as _};
use host_shim::vm::UserPage;
use host_shim::{Block, HostMemory as _, Pfn};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A page of the process.
#[derive(Clone, Debug)]
struct Mapped {
    frame: Pfn,
    writable: bool,
    dirty: Arc<AtomicBool>,
}

/// The process's pages, by their numbers, and its watchers.
#[derive(Debug, Default)]
pub(super) struct Space {
    pages: BTreeMap<u64, Mapped>,
    watchers: Vec<(u64, Arc<dyn Watcher>)>,
    next: u64,
}

/// A page that somebody looked up.
#[derive(Debug)]
pub(crate) struct Page(Mapped);

impl UserPage for Page {
    fn frame(&self) -> Pfn {
        self.0.frame
    }

    fn is_writable(&self) -> bool {
        self.0.writable
    }

    fn set_dirty(&self) {
        assert!(self.0.writable);
        self.0.dirty.store(true, Ordering::SeqCst);
    }
}

/// That somebody watches.
#[derive(Debug)]
pub(crate) struct Watch {
    space: Arc<Mutex<Space>>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut space = self.space.lock().unwrap();
        let at = space
            .watchers
            .iter()
            .position(|(number, _)| *number == self.number);
        let (_, watcher) = space.watchers.remove(at.unwrap());
        drop(space);
        watcher.over(&mut || ());
    }
}

impl Machine {
    /// Puts pages of this byte at an address of the process.
    pub(crate) fn map(&self, address: u64, pages: u64, byte: u8) {
        for page in address / FRAME_SIZE..address / FRAME_SIZE + pages {
            let frame = self.buddy.allocate(0, Contents::Any).unwrap().pfn;
            self.write(frame, 0, &[byte; FRAME_SIZE as usize]).unwrap();
            let mapped = Mapped {
                frame,
                writable: true,
                dirty: Arc::default(),
            };
            let before = self.space.lock().unwrap().pages.insert(page, mapped);
            assert!(before.is_none());
        }
    }

    fn watchers(&self) -> Vec<Arc<dyn Watcher>> {
        let space = self.space.lock().unwrap();
        space
            .watchers
            .iter()
            .map(|(_, watcher)| Arc::clone(watcher))
            .collect()
    }

    /// Does something to pages of the process's, of which its watchers are told.
    fn change(&self, range: Range<u64>, change: impl FnOnce(&mut Space)) {
        let watchers = self.watchers();
        for watcher in &watchers {
            watcher.begin(range.clone(), &mut || ());
        }
        change(&mut self.space.lock().unwrap());
        for watcher in &watchers {
            watcher.end();
        }
    }

    /// Takes pages from the process, and frees them. Returns whether each was written to by way of a watcher.
    pub(crate) fn unmap(&self, address: u64, pages: u64) -> Vec<bool> {
        let mut taken = BTreeMap::new();
        let first = address / FRAME_SIZE;
        self.change(address..address + pages * FRAME_SIZE, |space| {
            let mut rest = space.pages.split_off(&first);
            let mut after = rest.split_off(&(first + pages));
            space.pages.append(&mut after);
            taken = rest;
        });
        taken
            .into_values()
            .map(|mapped| {
                self.buddy.free(Block::frame(mapped.frame));
                mapped.dirty.load(Ordering::SeqCst)
            })
            .collect()
    }

    /// Lets the process write to pages, or only read.
    pub(crate) fn protect(&self, address: u64, pages: u64, writable: bool) {
        self.change(address..address + pages * FRAME_SIZE, |space| {
            for page in address / FRAME_SIZE..address / FRAME_SIZE + pages {
                space.pages.get_mut(&page).unwrap().writable = writable;
            }
        });
    }

    /// Whether the page at an address was used by way of a watcher.
    pub(crate) fn is_used(&self, address: u64, forget: bool) -> bool {
        let range = address..address + FRAME_SIZE;
        let watchers = self.watchers();
        watchers
            .iter()
            .any(|watcher| watcher.is_used(range.clone(), forget))
    }

    /// The frame at an address of the process.
    pub(crate) fn frame_at(&self, address: u64) -> Pfn {
        self.space.lock().unwrap().pages[&(address / FRAME_SIZE)].frame
    }

    pub(super) fn look_up(&self, address: u64, write: bool) -> Result<Page, Errno> {
        let space = self.space.lock().unwrap();
        let mapped = space.pages.get(&(address / FRAME_SIZE)).ok_or(Errno::FAULT)?;
        if write && !mapped.writable {
            return Err(Errno::FAULT);
        }
        Ok(Page(mapped.clone()))
    }

    pub(super) fn add_watcher(&self, watcher: Arc<dyn Watcher>) -> Watch {
        let mut space = self.space.lock().unwrap();
        space.next += 1;
        let number = space.next;
        space.watchers.push((number, watcher));
        Watch {
            space: Arc::clone(&self.space),
            number,
        }
    }
}
