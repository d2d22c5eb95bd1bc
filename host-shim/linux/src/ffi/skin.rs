//! The functions of the skin. `freehold.h` says what each does.

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

/// A descriptor's object, as the skin keeps it.
pub(super) type Object = *mut c_void;

unsafe extern "C" {
    pub(super) fn fh_has_freehold() -> bool;
    pub(super) fn fh_cpus() -> c_uint;
    pub(super) fn fh_log(level: c_int, text: *const u8, length: usize);
    pub(super) fn fh_panic(text: *const u8, length: usize) -> !;

    pub(super) fn fh_allocate(size: usize, align: usize) -> *mut u8;
    pub(super) fn fh_free(pointer: *mut u8);

    pub(super) fn fh_lock_wait(word: *mut c_ulong);
    pub(super) fn fh_lock_wake(word: *mut c_ulong);
    pub(super) fn fh_relax();

    pub(super) fn fh_direct_map() -> c_ulong;
    pub(super) fn fh_pages_allocate(order: c_uint, zero: bool, zeroed: *mut bool) -> u64;
    pub(super) fn fh_pages_free(pfn: u64, order: c_uint);
    pub(super) fn fh_frame_read(pfn: u64, offset: usize, to: *mut u8, length: usize) -> c_int;
    pub(super) fn fh_frame_write(pfn: u64, offset: usize, from: *const u8, length: usize) -> c_int;
    pub(super) fn fh_frame_zero(pfn: u64) -> c_int;
    pub(super) fn fh_frame_clean(pfn: u64);

    pub(super) fn fh_copy_from_user(to: *mut u8, address: c_ulong, length: usize) -> c_int;
    pub(super) fn fh_copy_to_user(address: c_ulong, from: *const u8, length: usize) -> c_int;

    pub(super) fn fh_space_get() -> *mut c_void;
    pub(super) fn fh_space_put(space: *mut c_void);
    pub(super) fn fh_space_is_caller(space: *mut c_void) -> bool;
    pub(super) fn fh_space_lock(space: *mut c_void, frames: c_ulong) -> bool;
    pub(super) fn fh_space_unlock(space: *mut c_void, frames: c_ulong);

    pub(super) fn fh_user_page_get(
        address: c_ulong,
        write: bool,
        page: *mut *mut c_void,
        pfn: *mut u64,
        writable: *mut bool,
    ) -> c_int;
    pub(super) fn fh_user_page_set_dirty(page: *mut c_void);
    pub(super) fn fh_user_page_put(page: *mut c_void);
    pub(super) fn fh_watch_create(watcher: *mut c_void, watch: *mut *mut c_void) -> c_int;
    pub(super) fn fh_watch_free(watch: *mut c_void);

    pub(super) fn fh_descriptor_reserve() -> c_int;
    pub(super) fn fh_descriptor_release(descriptor: c_int);
    pub(super) fn fh_descriptor_create(name: *const c_char, file: *mut *mut c_void) -> c_int;
    pub(super) fn fh_descriptor_install(descriptor: c_int, file: *mut c_void, object: Object);
    pub(super) fn fh_descriptor_get(descriptor: c_int, file: *mut *mut c_void, object: *mut Object) -> c_int;
    pub(super) fn fh_descriptor_put(file: *mut c_void);
    pub(super) fn fh_fault_insert(fault: *mut c_void, pfn: u64) -> c_int;

    pub(super) fn fh_file_create(
        name: *const c_char,
        bytes: u64,
        file: *mut *mut c_void,
        inode: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn fh_inode_zap(inode: *mut c_void, first: u64, pages: u64);
    pub(super) fn fh_inode_put(inode: *mut c_void);

    pub(super) fn fh_seat_create() -> *mut c_void;
    pub(super) fn fh_seat_free(seat: *mut c_void);
    pub(super) fn fh_seat_occupy(seat: *mut c_void, occupied: bool);
    pub(super) fn fh_seat_wait(seat: *mut c_void, fatal: bool, nanoseconds: u64, ready: *mut c_void)
    -> c_int;
    pub(super) fn fh_seat_wake(seat: *mut c_void);
    pub(super) fn fh_seat_interrupt(seat: *mut c_void);
    pub(super) fn fh_interrupt_here();
    pub(super) fn fh_interrupts_off() -> c_ulong;
    pub(super) fn fh_interrupts_restore(flags: c_ulong);
    pub(super) fn fh_has_signal() -> bool;
    pub(super) fn fh_is_killed() -> bool;
    pub(super) fn fh_block_signals(signals: u64);
    pub(super) fn fh_unblock_signals();
    pub(super) fn fh_do_due_work() -> c_int;
    pub(super) fn fh_has_due_work() -> bool;
    pub(super) fn fh_reschedule();
    pub(super) fn fh_counter() -> u64;
    pub(super) fn fh_counter_frequency() -> u64;

    pub(super) fn fh_eventfd_get(descriptor: c_int, eventfd: *mut *mut c_void) -> c_int;
    pub(super) fn fh_eventfd_put(eventfd: *mut c_void);
    pub(super) fn fh_eventfd_signal(eventfd: *mut c_void);
    pub(super) fn fh_listener_create(
        descriptor: c_int,
        ear: *mut c_void,
        eventfd: *mut *mut c_void,
        listener: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn fh_listener_is_closed(listener: *mut c_void) -> bool;
    pub(super) fn fh_listener_free(listener: *mut c_void);

    pub(super) fn fh_show(seq: *mut c_void, text: *const u8, length: usize);
}

/// The kernel's `long` is what results are returned as.
const _: () = assert!(size_of::<c_long>() == 8);
