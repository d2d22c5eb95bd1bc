//! One VM's view of memory.

use super::extent::Page;
use super::hold::Hold;
use super::inode::Inode;
use super::{FallocateMode, Mappings, MemfdConfig, MemfdFlags, PartialPunch};
use crate::provider::Source;
use crate::sync::Mutex;
use crate::vm::{Identity, Slot};
use crate::{Error, Kernel, MAX_ORDER, Pfn, Vm};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, FrameState};

/// A file of guest memory, as one VM sees it. Clones are the same file, like duplicates of a descriptor; the last of
/// them closes it. It may be passed on, and outlive its VM.
///
/// Closing it takes the memory from a guest that borrows it. What a protected guest owns stays with the guest until its
/// VM ends, and is freed then.
#[derive(Debug)]
pub struct GuestMemfd<K: Kernel> {
    pub(crate) inner: Arc<Inner<K>>,
}

/// What all clones of a file have in common.
#[derive(Debug)]
pub(crate) struct Inner<K: Kernel> {
    inode: Arc<Inode<K>>,
    vm: Arc<Identity<K>>,
    /// The bound ranges of pages, by their first page.
    bindings: Mutex<K, BTreeMap<u64, Binding<K>>>,
}

#[derive(Debug)]
struct Binding<K: Kernel> {
    pages: u64,
    slot: Weak<Slot<K>>,
}

/// Who has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// There is no frame, or it is punched: the next use finds zeroes.
    Absent,
    /// The host. A guest that is not protected may borrow it.
    Host,
    /// A protected guest, alone.
    Private,
    /// A protected guest, which shares it with the host.
    Shared,
    /// Nobody: it has a memory error.
    Poisoned,
}

/// A frame of a file that is neither punched nor given away while this lives. It is to be short: a punch, a fault and
/// a pin of the same extent wait for it, those of the same CPU for ever; so no file, pin or VM is dropped meanwhile.
#[derive(Debug)]
pub struct PageGuard<K: Kernel> {
    // First: the file is closed after it.
    hold: Hold<K>,
    page: u64,
    _file: GuestMemfd<K>,
}

impl<K: Kernel> PageGuard<K> {
    /// The frame.
    #[must_use]
    pub const fn pfn(&self) -> Pfn {
        self.hold.frame(self.page)
    }

    /// The order of the block that the frame is a part of: the file has that many frames around it in one aligned
    /// piece.
    #[must_use]
    pub const fn order(&self) -> u8 {
        self.hold.block().order
    }
}

impl<K: Kernel> Clone for GuestMemfd<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Kernel> GuestMemfd<K> {
    /// Creates memory, and the view that `vm` has of it. Its frames come from `source`, when they are used first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size that is 0 or no multiple of what the provider hands out, unknown flags, an
    /// order beyond [`MAX_ORDER`], or splitting where the provider takes no single frame
    /// back.
    pub fn create(vm: &Vm<K>, config: MemfdConfig, source: Source) -> Result<Self, Error> {
        Self::create_mapped(vm, config, source, None)
    }

    /// As [`GuestMemfd::create`], for a file that may have mappings in user space.
    ///
    /// # Errors
    /// Those of [`GuestMemfd::create`].
    pub fn create_mapped(
        vm: &Vm<K>,
        config: MemfdConfig,
        source: Source,
        mappings: Option<Arc<dyn Mappings>>,
    ) -> Result<Self, Error> {
        let smallest = *source.orders().start();
        let valid = config.size > 0
            && config.size.is_multiple_of(FRAME_SIZE << smallest)
            && i64::try_from(config.size).is_ok()
            && MemfdFlags::all().contains(config.flags)
            && config.order <= MAX_ORDER
            && (config.partial_punch != PartialPunch::Split || smallest == 0);
        if !valid {
            return Err(Error::InvalidArgument);
        }
        let core = vm.core();
        let inode = Arc::new(Inode::new(Arc::clone(core.host()), source, config, mappings));
        Ok(Self::open(inode, Arc::clone(core)))
    }

    /// Gives another VM a view of the same memory. A page can be borrowed by both, or owned by one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is a VM of another host.
    pub fn view_for(&self, vm: &Vm<K>) -> Result<Self, Error> {
        let core = vm.core();
        let inode = &self.inner.inode;
        if !Arc::ptr_eq(core.host(), &inode.host) {
            return Err(Error::InvalidArgument);
        }
        Ok(Self::open(Arc::clone(inode), Arc::clone(core)))
    }

    fn open(inode: Arc<Inode<K>>, vm: Arc<Identity<K>>) -> Self {
        let inner = Arc::new(Inner {
            inode,
            vm,
            bindings: Mutex::<K, _>::default(),
        });
        inner.inode.add_file(Arc::downgrade(&inner));
        Self { inner }
    }

    /// Bytes. They never change.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.inode.config.size
    }

    /// What it can do.
    #[must_use]
    pub fn flags(&self) -> MemfdFlags {
        self.inner.inode.config.flags
    }

    /// Whether two files are views of the same memory.
    #[must_use]
    pub fn is_same_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner.inode, &other.inner.inode)
    }

    /// How many pages have a frame that is in use.
    #[must_use]
    pub fn resident_pages(&self) -> u64 {
        self.inner.inode.resident()
    }

    /// Allocates or punches, as Linux's `fallocate` does. Punching beyond the end is no error.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for a mode that is not `KEEP_SIZE` with or without `PUNCH_HOLE`;
    /// [`Error::InvalidArgument`] for a range that is empty, misaligned, or does not fit; those of
    /// [`GuestMemfd::allocate`] and [`GuestMemfd::punch`].
    pub fn fallocate(&self, mode: FallocateMode, offset: u64, length: u64) -> Result<(), Error> {
        if mode == FallocateMode::KEEP_SIZE {
            self.allocate(offset, length)
        } else if mode == FallocateMode::KEEP_SIZE | FallocateMode::PUNCH_HOLE {
            self.punch(offset, length)
        } else {
            Err(Error::NotSupported)
        }
    }

    /// Allocates frames for those pages of a range of bytes that have none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the range is empty, misaligned, or runs past the end; [`Error::NoMemory`] and
    /// [`Error::OverLimit`] and [`Error::Interrupted`]: what was allocated by then stays.
    pub fn allocate(&self, offset: u64, length: u64) -> Result<(), Error> {
        let pages = self.pages(offset, length)?;
        if pages.end > self.inner.inode.pages() {
            return Err(Error::InvalidArgument);
        }
        let mut at = pages.start;
        while at < pages.end {
            self.inner.inode.host.go_on()?;
            let hold = self.inner.inode.hold_or_fill(at)?;
            let end = hold.range().end.min(pages.end);
            for (run, page) in hold.runs(at..end) {
                if page == Page::Hole {
                    hold.set(run, Page::Ready);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Frees the frames of a range of bytes. Every VM that reaches them loses them first. The next use finds zeroes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the range is empty or misaligned; [`Error::Pinned`], [`Error::InUse`] or
    /// [`Error::PartOfHugePage`] with the offending offset: nothing was changed, if it was so when the call began;
    /// what EL2 refuses.
    pub fn punch(&self, offset: u64, length: u64) -> Result<(), Error> {
        let pages = self.pages(offset, length)?;
        let end = pages.end.min(self.inner.inode.pages());
        self.inner.inode.punch(pages.start.min(end)..end)
    }

    /// The frame of the page at `offset`, allocated and zeroed if there was none, for whoever maps it. What a guest owns
    /// keeps its contents.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the offset is misaligned or beyond the end; [`Error::NoMemory`];
    /// [`Error::OverLimit`]; [`Error::Poisoned`].
    pub fn get_pfn(&self, offset: u64) -> Result<PageGuard<K>, Error> {
        let page = self.page(offset)?;
        let hold = self.inner.inode.hold_or_fill(page)?;
        hold.prepare(page..page + 1)?;
        match hold.page(page) {
            Page::Poisoned => Err(Error::Poisoned),
            _ => Ok(self.guard(hold, page)),
        }
    }

    /// The frame of the page at `offset` for a mapping of user space: only what the host may touch. The kernel drops the
    /// guard once the mapping is there, and takes the mapping away before it punches.
    ///
    /// # Errors
    /// [`Error::NotMappable`] unless the file was created to be mapped; [`Error::NotShared`] if the host may not touch
    /// the page, or it lies beyond the end (for both user space gets SIGBUS); those of [`GuestMemfd::get_pfn`].
    pub fn host_page(&self, offset: u64) -> Result<PageGuard<K>, Error> {
        if !self.flags().contains(MemfdFlags::MMAP) {
            return Err(Error::NotMappable);
        }
        let page = offset / FRAME_SIZE;
        if page >= self.inner.inode.pages() {
            return Err(Error::NotShared { offset });
        }
        let hold = self.reachable(page)?;
        Ok(self.guard(hold, page))
    }

    /// Who has the page at `offset`. It may change at any time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the offset is misaligned or beyond the end; what EL2 refuses.
    pub fn attribute(&self, offset: u64) -> Result<Attribute, Error> {
        let page = self.page(offset)?;
        let Some(hold) = self.inner.inode.hold(page) else {
            return Ok(Attribute::Absent);
        };
        Ok(match hold.page(page) {
            Page::Hole => Attribute::Absent,
            Page::Fresh | Page::Ready => Attribute::Host,
            Page::Poisoned => Attribute::Poisoned,
            Page::Private(_) if self.inner.is_shared(hold.frame(page))? => Attribute::Shared,
            Page::Private(_) => Attribute::Private,
        })
    }

    /// Holds a page that the host may touch: one of a file that is shared from the start, or one that a protected guest
    /// shares at the moment.
    pub(super) fn reachable(&self, page: u64) -> Result<Hold<K>, Error> {
        let inner = &self.inner;
        let refused = Err(Error::NotShared {
            offset: page * FRAME_SIZE,
        });
        let may_fill = self.flags().contains(MemfdFlags::INIT_SHARED)
            && !(inner.vm.is_protected() && inner.vm.is_launched());
        let hold = if may_fill {
            let hold = inner.inode.hold_or_fill(page)?;
            hold.prepare(page..page + 1)?;
            hold
        } else {
            match inner.inode.hold(page) {
                Some(hold) => hold,
                None => return refused,
            }
        };
        match hold.page(page) {
            Page::Ready if may_fill => Ok(hold),
            Page::Private(_) if inner.is_shared(hold.frame(page))? => Ok(hold),
            Page::Poisoned => Err(Error::Poisoned),
            _ => refused,
        }
    }

    fn guard(&self, hold: Hold<K>, page: u64) -> PageGuard<K> {
        PageGuard {
            hold,
            page,
            _file: self.clone(),
        }
    }

    fn page(&self, offset: u64) -> Result<u64, Error> {
        if !offset.is_multiple_of(FRAME_SIZE) || offset >= self.size() {
            return Err(Error::InvalidArgument);
        }
        Ok(offset / FRAME_SIZE)
    }

    pub(super) fn pages(&self, offset: u64, length: u64) -> Result<Range<u64>, Error> {
        let end = offset
            .checked_add(length)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(Error::InvalidArgument)?;
        if length == 0 || !offset.is_multiple_of(FRAME_SIZE) || !length.is_multiple_of(FRAME_SIZE) {
            return Err(Error::InvalidArgument);
        }
        Ok(offset / FRAME_SIZE..end / FRAME_SIZE)
    }
}

impl<K: Kernel> Inner<K> {
    pub(crate) const fn inode(&self) -> &Arc<Inode<K>> {
        &self.inode
    }

    pub(crate) const fn vm(&self) -> &Arc<Identity<K>> {
        &self.vm
    }

    /// Binds a range of pages to a slot. No other slot has a part of it through this file.
    pub(crate) fn bind(&self, pages: &Range<u64>, slot: &Arc<Slot<K>>) -> Result<(), Error> {
        let mut bindings = self.bindings.lock();
        let before = bindings.range(..pages.end).next_back();
        if before.is_some_and(|(start, binding)| start + binding.pages > pages.start) {
            return Err(Error::Exists);
        }
        let binding = Binding {
            pages: pages.end - pages.start,
            slot: Arc::downgrade(slot),
        };
        bindings.insert(pages.start, binding);
        Ok(())
    }

    pub(crate) fn unbind(&self, first: u64) {
        self.bindings.lock().remove(&first);
    }

    /// Takes a range of pages from the VM, as far as it borrows them. A VM that is gone has none of them.
    pub(super) fn unmap(&self, pages: &Range<u64>) -> Result<(), Error> {
        let bound: Vec<(u64, Weak<Slot<K>>)> = self
            .bindings
            .lock()
            .range(..pages.end)
            .filter(|(start, binding)| *start + binding.pages > pages.start)
            .map(|(start, binding)| (*start, binding.slot.clone()))
            .collect();
        for (first, slot) in bound {
            if let Some(slot) = slot.upgrade() {
                let window = pages.start.max(first) - first..pages.end.min(first + slot.pages()) - first;
                self.vm.unshare(&slot, window)?;
            }
        }
        Ok(())
    }

    fn is_shared(&self, frame: Pfn) -> Result<bool, Error> {
        let info = self.vm.host().hypervisor().frame_state(frame.address())?;
        Ok(info.state == FrameState::GuestSharedHost)
    }
}

impl<K: Kernel> Drop for Inner<K> {
    fn drop(&mut self) {
        self.inode.forget_files();
        let all = 0..self.inode.pages();
        let taken = self.unmap(&all);
        let protected = self.vm.flags().contains(VmFlags::PROTECTED);
        if taken.is_err() || (protected && self.inode.has_private(self.vm.number())) {
            // The VM frees it with everything else that it leaves behind.
            self.vm.adopt(Arc::clone(&self.inode));
        }
    }
}
