//! The kernel, by the skin's functions.

use super::entries;
use super::lock::SleepLock;
use super::panic::Line;
use super::{hypercall, skin};
use crate::linux::{Ear, Level, Make, MakeFile, Signals, Watcher};
use crate::{Descriptor, Errno, Linux};
use alloc::sync::Arc;
use core::ffi::{CStr, c_int, c_void};
use core::fmt::{self, Write as _};
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr;
use host_shim::memfd::Mappings;
use host_shim::provider::Allocated;
use host_shim::vm::UserPage;
use host_shim::{Block, HostMemory, Hypercall, Kernel, NotReachable, Pfn};

/// The kernel that the module is loaded into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skin;

/// What the skin's functions return: 0, or an error's number, negative.
fn done(returned: c_int) -> Result<(), Errno> {
    Errno::check(returned.into()).map(drop)
}

fn reached(returned: c_int) -> Result<(), NotReachable> {
    done(returned).map_err(|_| NotReachable)
}

impl Hypercall for Skin {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        hypercall::call(registers)
    }

    fn pause(&self) {
        // SAFETY: a task may sleep.
        unsafe { skin::fh_reschedule() };
    }
}

/// The address of a word of a frame in the kernel's direct map.
fn word(frame: Pfn, index: usize) -> *mut u64 {
    // SAFETY: it only computes.
    let base = unsafe { skin::fh_direct_map() };
    let address = base.wrapping_add(frame.address()) as usize;
    ptr::with_exposed_provenance_mut::<u64>(address).wrapping_add(index)
}

impl HostMemory for Skin {
    fn read(&self, frame: Pfn, offset: usize, into: &mut [u8]) -> Result<(), NotReachable> {
        // SAFETY: the destination is that long, and a frame that cannot be read is an error.
        reached(unsafe { skin::fh_frame_read(frame.number(), offset, into.as_mut_ptr(), into.len()) })
    }

    fn write(&self, frame: Pfn, offset: usize, from: &[u8]) -> Result<(), NotReachable> {
        // SAFETY: the source is that long, and a frame that cannot be written is an error. The caller owns its contents.
        reached(unsafe { skin::fh_frame_write(frame.number(), offset, from.as_ptr(), from.len()) })
    }

    fn zero(&self, frame: Pfn, frames: u64) -> Result<(), NotReachable> {
        for number in frame.number()..frame.number() + frames {
            // SAFETY: a frame that cannot be written is an error. The caller owns its contents.
            reached(unsafe { skin::fh_frame_zero(number) })?;
        }
        Ok(())
    }

    fn clean(&self, frame: Pfn, frames: u64) {
        for number in frame.number()..frame.number() + frames {
            // SAFETY: it is memory of the kernel's own, and stays what it is.
            unsafe { skin::fh_frame_clean(number) };
        }
    }

    fn load_word(&self, frame: Pfn, index: usize) -> u64 {
        // SAFETY: the caller's pages are its own, or shared: allocated, and in the direct map until they are freed.
        unsafe { ptr::read_volatile(word(frame, index)) }
    }

    fn store_word(&self, frame: Pfn, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(word(frame, index), value) };
    }
}

impl Kernel for Skin {
    type Lock = SleepLock;

    fn relax(&self) {
        // SAFETY: a task may sleep.
        unsafe { skin::fh_relax() };
    }

    fn is_killed(&self) -> bool {
        // SAFETY: it only looks.
        unsafe { skin::fh_is_killed() }
    }

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        // SAFETY: they are restored below, on the same CPU.
        let flags = unsafe { skin::fh_interrupts_off() };
        work();
        // SAFETY: the flags are those of above.
        unsafe { skin::fh_interrupts_restore(flags) };
    }
}

/// An address space of a process: a reference to its `mm_struct`, which keeps the structure and not what is mapped.
#[derive(Debug)]
pub(crate) struct Space(*mut c_void);

// SAFETY: the kernel's functions on it can be called by any task, at any time.
unsafe impl Send for Space {}

// SAFETY: as above.
unsafe impl Sync for Space {}

impl Drop for Space {
    fn drop(&mut self) {
        // SAFETY: it was got, and is put once.
        unsafe { skin::fh_space_put(self.0) };
    }
}

/// A wait queue, and the task that is found there.
#[derive(Debug)]
pub(crate) struct Seat(*mut c_void);

// SAFETY: the kernel's functions on it can be called by any task, at any time.
unsafe impl Send for Seat {}

// SAFETY: as above.
unsafe impl Sync for Seat {}

impl Drop for Seat {
    fn drop(&mut self) {
        // SAFETY: it was created, and is freed once; who waits at it has a reference.
        unsafe { skin::fh_seat_free(self.0) };
    }
}

/// The inode of a file, to which what user space has mapped belongs.
#[derive(Debug)]
struct Inode(*mut c_void);

// SAFETY: the kernel's functions on it can be called by any task, at any time.
unsafe impl Send for Inode {}

// SAFETY: as above.
unsafe impl Sync for Inode {}

impl Mappings for Inode {
    fn zap(&self, pages: Range<u64>) {
        // SAFETY: it was got, and not put yet.
        unsafe { skin::fh_inode_zap(self.0, pages.start, pages.end - pages.start) };
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        // SAFETY: it was got, and is put once.
        unsafe { skin::fh_inode_put(self.0) };
    }
}

/// A file that has nothing behind it yet, and the number of the descriptor that it is to have.
struct Unopened {
    descriptor: c_int,
    file: *mut c_void,
}

impl Unopened {
    /// One whose file is made by `create`.
    fn new(create: impl FnOnce(&mut *mut c_void) -> c_int) -> Result<Self, Errno> {
        // SAFETY: it has no conditions.
        let descriptor = unsafe { skin::fh_descriptor_reserve() };
        Errno::check(descriptor.into())?;
        let mut file = ptr::null_mut();
        match done(create(&mut file)) {
            Ok(()) => Ok(Self { descriptor, file }),
            Err(error) => {
                // SAFETY: it was reserved, and is released once.
                unsafe { skin::fh_descriptor_release(descriptor) };
                Err(error)
            }
        }
    }

    /// Gives it what is behind it, and the caller the descriptor.
    fn open(self, object: Arc<dyn Descriptor>) -> u64 {
        let this = ManuallyDrop::new(self);
        let object = entries::give(object);
        // SAFETY: both were got for this, and it is done once; the object is the file's until it is closed.
        unsafe { skin::fh_descriptor_install(this.descriptor, this.file, object) };
        u64::from(this.descriptor.cast_unsigned())
    }
}

impl Drop for Unopened {
    fn drop(&mut self) {
        // SAFETY: it was reserved, and is released once.
        unsafe { skin::fh_descriptor_release(self.descriptor) };
        // SAFETY: nobody else has it, and it has no object.
        unsafe { skin::fh_descriptor_put(self.file) };
    }
}

/// An eventfd: a reference to the kernel's structure.
#[derive(Debug)]
pub(crate) struct Eventfd(*mut c_void);

// SAFETY: the kernel's functions on it can be called by any task, at any time.
unsafe impl Send for Eventfd {}

// SAFETY: as above.
unsafe impl Sync for Eventfd {}

impl PartialEq for Eventfd {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Drop for Eventfd {
    fn drop(&mut self) {
        // SAFETY: it was got, and is put once.
        unsafe { skin::fh_eventfd_put(self.0) };
    }
}

/// An entry in the wait queue of an eventfd, and whose it is.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: *mut c_void,
    ear: *mut c_void,
}

// SAFETY: the kernel's functions on it can be called by any task, at any time; an ear is `Send` and `Sync`.
unsafe impl Send for Listener {}

// SAFETY: as above.
unsafe impl Sync for Listener {}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: it was created, and is freed once.
        unsafe { skin::fh_listener_free(self.listener) };
        // SAFETY: nothing is heard any more.
        drop(unsafe { entries::take_ear(self.ear) });
    }
}

/// A page of a process: a reference to the kernel's structure.
#[derive(Debug)]
pub(crate) struct Page {
    page: *mut c_void,
    frame: Pfn,
    writable: bool,
}

impl UserPage for Page {
    fn frame(&self) -> Pfn {
        self.frame
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn set_dirty(&self) {
        // SAFETY: it was got, and not put yet.
        unsafe { skin::fh_user_page_set_dirty(self.page) };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was got, and is put once.
        unsafe { skin::fh_user_page_put(self.page) };
    }
}

/// A notifier of an address space, and whose it is.
#[derive(Debug)]
pub(crate) struct Watch {
    watch: *mut c_void,
    watcher: *mut c_void,
}

// SAFETY: the kernel's functions on it can be called by any task, at any time; a watcher is `Send` and `Sync`.
unsafe impl Send for Watch {}

// SAFETY: as above.
unsafe impl Sync for Watch {}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: it was created, and is freed once.
        unsafe { skin::fh_watch_free(self.watch) };
        // SAFETY: nothing is told any more.
        drop(unsafe { entries::take_watcher(self.watcher) });
    }
}

/// The longest that is waited for a time, in nanoseconds: about an hour.
const MAX_WAIT: u64 = 1 << 42;

impl Linux for Skin {
    type Space = Space;
    type Seat = Seat;
    type Eventfd = Eventfd;
    type Listener = Listener;
    type UserPage = Page;
    type Watch = Watch;

    fn has_freehold(&self) -> bool {
        // SAFETY: it only looks.
        unsafe { skin::fh_has_freehold() }
    }

    fn cpus(&self) -> u32 {
        // SAFETY: it only looks.
        unsafe { skin::fh_cpus() }
    }

    fn copy_from_user(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: the destination is that long; the kernel checks the address.
        done(unsafe { skin::fh_copy_from_user(into.as_mut_ptr(), address, into.len()) })
    }

    fn copy_to_user(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        // SAFETY: the source is that long; the kernel checks the address.
        done(unsafe { skin::fh_copy_to_user(address, from.as_ptr(), from.len()) })
    }

    fn allocate_frames(&self, order: u8, zeroed: bool) -> Option<Allocated> {
        let mut is_zero = false;
        // SAFETY: the answer has a place.
        let pfn = unsafe { skin::fh_pages_allocate(order.into(), zeroed, &raw mut is_zero) };
        // No frame has that number if there is none.
        Some(Allocated {
            pfn: Pfn::new(pfn)?,
            zeroed: is_zero,
        })
    }

    fn free_frames(&self, block: Block) {
        // SAFETY: the caller promises that they were allocated, and that nobody uses them any more.
        unsafe { skin::fh_pages_free(block.pfn.number(), block.order.into()) };
    }

    fn space(&self) -> Space {
        // SAFETY: a task has an address space when it calls us.
        Space(unsafe { skin::fh_space_get() })
    }

    fn is_caller(&self, space: &Space) -> bool {
        // SAFETY: it was got, and not put yet.
        unsafe { skin::fh_space_is_caller(space.0) }
    }

    fn lock_frames(&self, space: &Space, frames: u64) -> bool {
        // SAFETY: as above.
        unsafe { skin::fh_space_lock(space.0, frames) }
    }

    fn unlock_frames(&self, space: &Space, frames: u64) {
        // SAFETY: as above.
        unsafe { skin::fh_space_unlock(space.0, frames) };
    }

    fn user_page(&self, address: u64, write: bool) -> Result<Page, Errno> {
        let (mut page, mut frame, mut writable) = (ptr::null_mut(), 0, false);
        // SAFETY: the answers have a place; the kernel checks the address.
        let found = unsafe {
            skin::fh_user_page_get(address, write, &raw mut page, &raw mut frame, &raw mut writable)
        };
        done(found)?;
        let Some(frame) = Pfn::new(frame) else {
            // SAFETY: it was got, and is put once.
            unsafe { skin::fh_user_page_put(page) };
            return Err(Errno::FAULT);
        };
        Ok(Page {
            page,
            frame,
            writable,
        })
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) -> Result<Watch, Errno> {
        let watcher = entries::give_watcher(watcher);
        let mut watch = ptr::null_mut();
        // SAFETY: the answer has a place; the watcher is the watch's until it is freed.
        let created = unsafe { skin::fh_watch_create(watcher, &raw mut watch) };
        if let Err(error) = done(created) {
            // SAFETY: nobody else has it, since nothing is watched.
            drop(unsafe { entries::take_watcher(watcher) });
            return Err(error);
        }
        Ok(Watch { watch, watcher })
    }

    fn open(&self, name: &CStr, make: Make<'_>) -> Result<u64, Errno> {
        // SAFETY: the name ends; the answer has a place.
        let file = Unopened::new(|file| unsafe { skin::fh_descriptor_create(name.as_ptr(), file) })?;
        Ok(file.open(make()?))
    }

    fn find(&self, descriptor: i32) -> Result<Arc<dyn Descriptor>, Errno> {
        let (mut file, mut object) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the answers have a place.
        done(unsafe { skin::fh_descriptor_get(descriptor, &raw mut file, &raw mut object) })?;
        // SAFETY: the file keeps it until it is put.
        let found = Arc::clone(unsafe { entries::look(object) });
        // SAFETY: it was got, and is put once.
        unsafe { skin::fh_descriptor_put(file) };
        Ok(found)
    }

    fn open_file(&self, name: &CStr, bytes: u64, make: MakeFile<'_>) -> Result<u64, Errno> {
        let mut inode = ptr::null_mut();
        // SAFETY: the name ends; the answers have a place.
        let create =
            |file: &mut _| unsafe { skin::fh_file_create(name.as_ptr(), bytes, file, &raw mut inode) };
        let file = Unopened::new(create)?;
        // It was got with the file.
        let mappings = Arc::new(Inode(inode));
        Ok(file.open(make(mappings)?))
    }

    fn seat(&self) -> Seat {
        // SAFETY: it has no conditions.
        Seat(unsafe { skin::fh_seat_create() })
    }

    fn occupy(&self, seat: &Seat, occupied: bool) {
        // SAFETY: the seat is there as long as the reference.
        unsafe { skin::fh_seat_occupy(seat.0, occupied) };
    }

    fn wait(
        &self,
        seat: &Seat,
        signals: Signals,
        deadline: Option<u64>,
        mut ready: &mut dyn FnMut() -> bool,
    ) -> Result<(), Errno> {
        let nanoseconds = deadline.map_or(u64::MAX, |deadline| {
            // SAFETY: it only looks.
            let frequency = unsafe { skin::fh_counter_frequency() };
            let ticks = u128::from(deadline.saturating_sub(self.counter()));
            let nanoseconds = (ticks * 1_000_000_000).div_ceil(u128::from(frequency.max(1)));
            // What is further away than the kernel's time goes is waited for again.
            u64::try_from(nanoseconds).map_or(MAX_WAIT, |time| time.min(MAX_WAIT))
        });
        let context = (&raw mut ready).cast();
        // SAFETY: the seat is there as long as the reference; what is ready is asked of the closure only until this
        // returns.
        done(unsafe { skin::fh_seat_wait(seat.0, signals == Signals::Fatal, nanoseconds, context) })
    }

    fn wake(&self, seat: &Seat) {
        // SAFETY: the seat is there as long as the reference.
        unsafe { skin::fh_seat_wake(seat.0) };
    }

    fn interrupt(&self, seat: &Seat) {
        // SAFETY: as above.
        unsafe { skin::fh_seat_interrupt(seat.0) };
    }

    fn interrupt_here(&self) {
        // SAFETY: the caller has interrupts off.
        unsafe { skin::fh_interrupt_here() };
    }

    fn has_signal(&self) -> bool {
        // SAFETY: it only looks.
        unsafe { skin::fh_has_signal() }
    }

    fn block_signals(&self, signals: u64) {
        // SAFETY: they are unblocked by the same task.
        unsafe { skin::fh_block_signals(signals) };
    }

    fn unblock_signals(&self) {
        // SAFETY: they were blocked by the same task.
        unsafe { skin::fh_unblock_signals() };
    }

    fn do_due_work(&self) -> Result<(), Errno> {
        // SAFETY: a task may sleep.
        done(unsafe { skin::fh_do_due_work() })
    }

    fn has_due_work(&self) -> bool {
        // SAFETY: it only looks.
        unsafe { skin::fh_has_due_work() }
    }

    fn counter(&self) -> u64 {
        // SAFETY: it only looks.
        unsafe { skin::fh_counter() }
    }

    fn eventfd(&self, descriptor: i32) -> Result<Eventfd, Errno> {
        let mut eventfd = ptr::null_mut();
        // SAFETY: the answer has a place.
        done(unsafe { skin::fh_eventfd_get(descriptor, &raw mut eventfd) })?;
        Ok(Eventfd(eventfd))
    }

    fn signal(&self, eventfd: &Eventfd) {
        // SAFETY: it was got, and not put yet.
        unsafe { skin::fh_eventfd_signal(eventfd.0) };
    }

    fn listen(&self, descriptor: i32, ear: Arc<dyn Ear>) -> Result<(Eventfd, Listener), Errno> {
        let ear = entries::give_ear(ear);
        let (mut eventfd, mut listener) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the answers have a place; the ear is the listener's until it is freed.
        let created =
            unsafe { skin::fh_listener_create(descriptor, ear, &raw mut eventfd, &raw mut listener) };
        if let Err(error) = done(created) {
            // SAFETY: nobody else has it, since there is no listener.
            drop(unsafe { entries::take_ear(ear) });
            return Err(error);
        }
        Ok((Eventfd(eventfd), Listener { listener, ear }))
    }

    fn is_closed(&self, listener: &Listener) -> bool {
        // SAFETY: it was created, and is not freed yet.
        unsafe { skin::fh_listener_is_closed(listener.listener) }
    }

    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let mut line = Line::<256>::new();
        // What does not fit is left out.
        let _ = line.write_fmt(message);
        let text = line.as_bytes();
        // SAFETY: the text is there until the function returns.
        unsafe { skin::fh_log(level as c_int, text.as_ptr(), text.len()) };
    }
}
