//! The memory of a file: its extents, and who holds them.

use super::extent::{Extent, Page};
use super::file::Inner;
use super::hold::Hold;
use super::{Mappings, MemfdConfig, PartialPunch};
use crate::account::Purpose;
use crate::frames::aligned_pieces;
use crate::host::Host;
use crate::provider::{Contents, Source};
use crate::sync::Mutex;
use crate::{Block, Error, Kernel};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use hyp_abi::FRAME_SIZE;

/// How many extents are counted before others may have the lock.
const EXTENTS_AT_ONCE: usize = 1024;

/// Memory. Pages are numbered from the start of the file.
#[derive(Debug)]
pub(crate) struct Inode<K: Kernel> {
    pub(crate) host: Arc<Host<K>>,
    pub(crate) source: Source,
    pub(crate) config: MemfdConfig,
    pub(crate) contents: Mutex<K, Memory>,
    files: Mutex<K, Vec<Weak<Inner<K>>>>,
    mappings: Option<Arc<dyn Mappings>>,
}

/// What the file has, and what of it is pinned.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    extents: BTreeMap<u64, Extent>,
    /// How often each page is pinned by the host.
    pub(crate) pins: BTreeMap<u64, u32>,
}

impl Memory {
    /// The extent in which a page lies, with its first page.
    pub(super) fn find(&mut self, page: u64) -> Option<(u64, &mut Extent)> {
        let (start, extent) = self.extents.range_mut(..=page).next_back()?;
        (page - start < extent.frames()).then_some((*start, extent))
    }

    /// The extent that begins with a page. It is found sooner than the one in which a page lies.
    pub(super) fn at(&mut self, start: u64) -> Option<&mut Extent> {
        self.extents.get_mut(&start)
    }

    /// The first extent that a range of pages meets.
    pub(super) fn first_in(&mut self, range: &Range<u64>) -> Option<u64> {
        if let Some((start, _)) = self.find(range.start) {
            return Some(start);
        }
        let (start, _) = self.extents.range(range.clone()).next()?;
        Some(*start)
    }

    pub(super) fn insert(&mut self, start: u64, extent: Extent) {
        self.extents.insert(start, extent);
    }

    pub(super) fn remove(&mut self, start: u64) -> Option<Extent> {
        self.extents.remove(&start)
    }

    pub(super) fn first_pinned(&self, range: Range<u64>) -> Option<u64> {
        self.pins.range(range).next().map(|(page, _)| *page)
    }
}

impl<K: Kernel> Inode<K> {
    pub(super) fn new(
        host: Arc<Host<K>>,
        source: Source,
        config: MemfdConfig,
        mappings: Option<Arc<dyn Mappings>>,
    ) -> Self {
        Self {
            mappings,
            host,
            source,
            config,
            contents: Mutex::<K, _>::default(),
            files: Mutex::<K, _>::default(),
        }
    }

    pub(crate) const fn pages(&self) -> u64 {
        self.config.size / FRAME_SIZE
    }

    /// Takes pages from the mappings of user space, with their hold.
    pub(crate) fn zap(&self, pages: Range<u64>) {
        if let Some(mappings) = &self.mappings {
            mappings.zap(pages);
        }
    }

    pub(super) fn add_file(&self, file: Weak<Inner<K>>) {
        self.files.lock().push(file);
    }

    /// Forgets the files that are closed.
    pub(super) fn forget_files(&self) {
        self.files.lock().retain(|file| file.strong_count() > 0);
    }

    /// The files that are open. The caller lets go of them only after its hold: a file that is closed by that may end
    /// its VM, which waits for holds.
    pub(super) fn files(&self) -> Vec<Arc<Inner<K>>> {
        self.files.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// How many pages have a frame. Others may change what was counted before the end.
    pub(crate) fn resident(&self) -> u64 {
        let (mut pages, mut from) = (0, 0);
        loop {
            self.host.kernel().pause();
            let contents = self.contents.lock();
            let mut last = None;
            for (start, extent) in contents.extents.range(from..).take(EXTENTS_AT_ONCE) {
                pages += extent.resident();
                last = Some(*start);
            }
            match last {
                Some(start) => from = start + 1,
                None => return pages,
            }
        }
    }

    /// Whether a page is donated to the VM of that number.
    pub(super) fn has_private(&self, vm: u64) -> bool {
        let contents = self.contents.lock();
        contents.extents.values().any(|extent| {
            extent
                .runs(0..extent.frames())
                .iter()
                .any(|(_, page)| *page == Page::Private(vm))
        })
    }

    /// Takes the hold of the first extent that the range meets, after whoever has it; `None` if there is none.
    pub(crate) fn hold_first(self: &Arc<Self>, range: &Range<u64>) -> Option<Hold<K>> {
        // Whoever goes through a file does it hold by hold.
        self.host.kernel().pause();
        loop {
            {
                let mut contents = self.contents.lock();
                let start = contents.first_in(range).filter(|_| !range.is_empty())?;
                let (_, extent) = contents.find(start)?;
                if let (false, Some(pfn)) = (extent.held, extent.pfn) {
                    extent.held = true;
                    return Some(Hold::new(self, start, Block::new(pfn, extent.order)));
                }
            }
            self.host.kernel().relax();
        }
    }

    /// Takes the hold of the extent in which a page lies, after whoever has it; `None` if the page has no frame.
    pub(crate) fn hold(self: &Arc<Self>, page: u64) -> Option<Hold<K>> {
        self.hold_first(&(page..page + 1))
    }

    /// As [`Inode::hold`], and allocates the frame if there is none: the largest block that the file asks for, that
    /// fits and can be had.
    ///
    /// Whoever allocates holds the place first. Of two that want the same huge page, the second waits and does not
    /// fail for want of another one.
    pub(crate) fn hold_or_fill(self: &Arc<Self>, page: u64) -> Result<Hold<K>, Error> {
        let sizes = self.source.orders();
        let mut order = self.config.order.clamp(*sizes.start(), *sizes.end());
        self.host.kernel().pause();
        loop {
            let start = {
                let mut contents = self.contents.lock();
                if let Some((_, extent)) = contents.find(page) {
                    if extent.held {
                        None
                    } else {
                        drop(contents);
                        match self.hold(page) {
                            Some(hold) => return Ok(hold),
                            None => continue,
                        }
                    }
                } else {
                    let start = loop {
                        let start = page >> order << order;
                        let range = start..start + (1 << order);
                        if range.end <= self.pages() && contents.first_in(&range).is_none() {
                            break start;
                        }
                        if order == *sizes.start() {
                            return Err(Error::NoMemory);
                        }
                        order -= 1;
                    };
                    contents.insert(start, Extent::filling(order));
                    Some(start)
                }
            };
            let Some(start) = start else {
                self.host.kernel().relax();
                continue;
            };
            let allocated = self.source.allocate(Purpose::Guest, order, Contents::Any);
            let mut contents = self.contents.lock();
            match (allocated, contents.find(start)) {
                (Ok(allocated), Some((_, extent))) => {
                    extent.pfn = Some(allocated.pfn);
                    if allocated.zeroed {
                        extent.set(0..1 << order, Page::Ready);
                    }
                    return Ok(Hold::new(self, start, Block::new(allocated.pfn, order)));
                }
                (Err(error), _) => {
                    contents.remove(start);
                    if order == *sizes.start() {
                        return Err(error);
                    }
                    order -= 1;
                }
                // Nobody removes an extent that another holds.
                (Ok(allocated), None) => {
                    drop(contents);
                    self.source.free(Purpose::Guest, Block::new(allocated.pfn, order));
                    return Err(Error::NoMemory);
                }
            }
        }
    }

    /// Gives up pages that are the host's: the whole block if nothing else keeps it, else as the file's policy says.
    pub(super) fn discard(&self, hold: Hold<K>, part: Range<u64>) -> Result<(), Error> {
        self.zap(part.clone());
        let whole = hold.range();
        if part == whole {
            hold.remove();
            return Ok(());
        }
        if self.config.partial_punch == PartialPunch::Split {
            hold.split(part);
            return Ok(());
        }
        for (run, page) in hold.runs(part) {
            if matches!(page, Page::Fresh | Page::Ready) {
                self.host
                    .kernel()
                    .zero(hold.frame(run.start), run.end - run.start)?;
                hold.set(run, Page::Hole);
            }
        }
        if hold.is_all_holes() {
            hold.remove();
        }
        Ok(())
    }

    /// Frees the frames of pages `range` of an extent, but for those with a memory error.
    pub(super) fn free(&self, extent: &Extent, range: Range<u64>) {
        let Some(first) = extent.pfn else {
            return;
        };
        let whole = range == (0..extent.frames());
        let runs = extent.runs(range);
        let poisoned = |page: &Page| *page == Page::Poisoned;
        if whole && !runs.iter().any(|(_, page)| poisoned(page)) {
            self.source.free(Purpose::Guest, Block::new(first, extent.order));
            return;
        }
        let parts_can_go = *self.source.orders().start() == 0;
        for (run, page) in runs {
            if poisoned(&page) || !parts_can_go {
                // Never used again, and not paid for any more.
                self.source.abandon(Purpose::Guest, run.end - run.start);
                continue;
            }
            for (start, order) in aligned_pieces(first.number() + run.start, run.end - run.start) {
                let pfn = first.after(start - first.number());
                self.source.free(Purpose::Guest, Block::new(pfn, order));
            }
        }
    }
}

impl<K: Kernel> Drop for Inode<K> {
    fn drop(&mut self) {
        let extents = core::mem::take(&mut self.contents.get_mut().extents);
        for extent in extents.values() {
            self.host.kernel().pause();
            let whole = 0..extent.frames();
            let runs = extent.runs(whole.clone());
            // A page that is still a guest's is lost to the host. Only a VM that could not be ended leaves one.
            let lost = |page: &Page| matches!(page, Page::Private(_));
            if !runs.iter().any(|(_, page)| lost(page)) {
                self.free(extent, whole);
                continue;
            }
            for (run, page) in runs {
                if !lost(&page) {
                    self.free(extent, run);
                }
            }
        }
    }
}
