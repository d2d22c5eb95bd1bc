//! Surviving an access to a page that the guest has not lent.
//!
//! Such an access raises SIGBUS. What accesses guest memory is compiled code of other crates, so it cannot be
//! stopped half way; instead the signal's handler puts a page of zeros in the place of the one that was touched and
//! notes which, and the access goes on there. [`Watch::end`] then brings the guest's memory back to its place and
//! tells the caller, who throws away what came of it. Any other SIGBUS ends the process as ever.
#![expect(
    unsafe_code,
    reason = "a signal handler, and mappings that are replaced under the process"
)]

use anyhow::{Result, bail};
use std::{
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::AsRawFd as _,
    ptr,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How many pages one attempt can be refused. Attempts are made of copies within a page and of walks along a chain of descriptors, which
/// touch fewer.
const PAGES: usize = 80;

/// How many mappings can be watched at a time: one in the program, several in its tests.
const MAPPINGS: usize = 32;

/// A mapping that is watched. What the handler writes is read by the thread that it interrupted.
struct Mapping {
    /// Its address, or 0 if nothing is watched here.
    start: AtomicUsize,
    size: AtomicUsize,
    /// How many of `pages` are in use.
    count: AtomicUsize,
    /// Addresses of the pages that zeros lie over.
    pages: [AtomicUsize; PAGES],
}

static WATCHED: [Mapping; MAPPINGS] = [const {
    Mapping {
        start: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        count: AtomicUsize::new(0),
        pages: [const { AtomicUsize::new(0) }; PAGES],
    }
}; MAPPINGS];

static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Watches over the accesses to a mapping.
#[derive(Debug)]
pub(super) struct Watch {
    index: usize,
}

impl Watch {
    /// Watches over the mapping at `start`, which must stay as long as this value.
    pub(super) fn new(start: usize, size: usize) -> Result<Self> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install);
        for (index, mapping) in WATCHED.iter().enumerate() {
            // A start of 1 claims the place: no address lies between 1 and 1 + 0.
            let claimed = mapping
                .start
                .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
            if claimed.is_ok() {
                mapping.count.store(0, Ordering::Relaxed);
                mapping.start.store(start, Ordering::Release);
                mapping.size.store(size, Ordering::Release);
                return Ok(Self { index });
            }
        }
        bail!("too many mappings are watched")
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self) {
        self.mapping().count.store(0, Ordering::Release);
    }

    /// Ends an attempt: the address of the first page that was refused, if any. Those pages are mapped from `file`
    /// again; without one there is nothing to map, and the zeros stay.
    pub(super) fn end(&mut self, file: Option<&File>) -> Option<usize> {
        let mapping = self.mapping();
        let count = mapping.count.swap(0, Ordering::AcqRel);
        for page in mapping.pages.iter().take(count) {
            let address = page.load(Ordering::Acquire);
            if let Some(file) = file {
                restore(address, mapping.start.load(Ordering::Acquire), file);
            }
        }
        (count > 0).then(|| mapping.pages[0].load(Ordering::Acquire))
    }

    fn mapping(&self) -> &'static Mapping {
        &WATCHED[self.index]
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mapping = self.mapping();
        mapping.size.store(0, Ordering::Release);
        mapping.start.store(0, Ordering::Release);
    }
}

/// Maps the guest's page again that zeros lie over.
fn restore(address: usize, start: usize, file: &File) {
    let page_size = PAGE_SIZE.load(Ordering::Relaxed);
    // The mapping is of the file from its beginning.
    let offset = (address - start) as libc::off_t;
    // SAFETY: it replaces one page of the watched mapping, which nobody holds a reference into, by one of the same
    // kind. If it fails the zeros stay there, which is what the guest will then see of the device.
    let _ = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(address),
            page_size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
}

/// Gives back what backs `size` bytes at `offset` of the mapping at `start`.
pub(super) fn release(start: usize, file: Option<&File>, offset: u64, size: u64) -> io::Result<()> {
    let result = match file {
        // SAFETY: a system call on a file of ours; the mapping reads zeros there afterwards.
        Some(file) => unsafe {
            libc::fallocate(
                file.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                offset as libc::off_t,
                size as libc::off_t,
            )
        },
        // SAFETY: the range lies in the mapping, which is anonymous memory and reads zeros there afterwards.
        None => unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(start + offset as usize),
                size as usize,
                libc::MADV_DONTNEED,
            )
        },
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn install() {
    // SAFETY: it only reads a number.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_SIZE.store(page_size as usize, Ordering::Relaxed);
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let pointer = action.as_mut_ptr();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    // SAFETY: an all-zero `sigaction` is a valid one, whose mask is empty.
    let action = unsafe { &mut *pointer };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the structure is whole, and the handler does only what a handler may. A failure leaves the default,
    // which ends the process.
    let _ = unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) };
}

/// Handles SIGBUS. It uses atomics and system calls only, and leaves errno alone.
extern "C" fn on_bus_error(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a whole structure to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info.si_addr() }.addr();
    let saved = errno();
    if !replace(address) {
        // The access is made again, and ends the process this time.
        // SAFETY: it sets back the default action.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
    set_errno(saved);
}

/// Puts zeros in the place of the page of `address`, if it is in a mapping that is watched.
fn replace(address: usize) -> bool {
    let found = WATCHED.iter().find(|mapping| {
        let start = mapping.start.load(Ordering::Acquire);
        let size = mapping.size.load(Ordering::Acquire);
        address.checked_sub(start).is_some_and(|offset| offset < size)
    });
    let Some(mapping) = found else { return false };
    let index = mapping.count.load(Ordering::Acquire);
    let Some(place) = mapping.pages.get(index) else {
        return false;
    };
    let page_size = PAGE_SIZE.load(Ordering::Relaxed);
    let page = address & !(page_size - 1);
    // SAFETY: it replaces one page of the guest's memory, which is accessed by volatile and atomic accesses only.
    let mapped = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(page),
            page_size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    place.store(page, Ordering::Release);
    mapping.count.store(index + 1, Ordering::Release);
    true
}

fn errno() -> libc::c_int {
    // SAFETY: the thread's own variable, which is always there.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *location }
}

fn set_errno(value: libc::c_int) {
    // SAFETY: the thread's own variable, which is always there.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *location = value };
}
