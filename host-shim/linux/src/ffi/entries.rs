//! What the skin calls. `freehold.h` says when.

use super::Skin;
use super::skin::{self, Object};
use crate::errno::returned;
use crate::kvm::{Refusal, System, statistics};
use crate::linux::{Ear, Level, Watcher};
use crate::{Descriptor, Errno, Linux};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use host_shim::Pfn;

/// The module as a whole, as the skin keeps it.
type Module = *mut c_void;

/// Hands an object to the skin.
pub(super) fn give(object: Arc<dyn Descriptor>) -> Object {
    Box::into_raw(Box::new(object)).cast()
}

/// An object that the skin has.
///
/// # Safety
/// [`give`] made it, and it is not taken back while the reference is used.
pub(super) unsafe fn look<'a>(object: Object) -> &'a Arc<dyn Descriptor> {
    // SAFETY: by the caller's promise.
    unsafe { &*object.cast_const().cast::<Arc<dyn Descriptor>>() }
}

/// Takes an object back from the skin.
///
/// # Safety
/// [`give`] made it, it is taken once, and nobody looks at it any more.
pub(super) unsafe fn take(object: Object) -> Arc<dyn Descriptor> {
    // SAFETY: by the caller's promise.
    *unsafe { Box::from_raw(object.cast::<Arc<dyn Descriptor>>()) }
}

/// # Safety
/// [`fhr_start`] made it, and it is not stopped while the reference is used.
unsafe fn system<'a>(module: Module) -> &'a Arc<System<Skin>> {
    // SAFETY: by the caller's promise.
    unsafe { &*module.cast_const().cast::<Arc<System<Skin>>>() }
}

/// The module is loaded. The place for it is the skin's.
#[unsafe(no_mangle)]
extern "C" fn fhr_start(place: &mut Module) -> c_int {
    match System::start(Skin) {
        Ok(system) => {
            *place = Box::into_raw(Box::new(system)).cast();
            0
        }
        Err(refusal) => {
            Skin.log(Level::Error, format_args!("not loaded: {refusal}"));
            let errno = match refusal {
                Refusal::NoFreehold | Refusal::NoAnswer(_) => Errno::NODEV,
                Refusal::OtherVersion(_) | Refusal::NoVms => Errno::OPNOTSUPP,
            };
            -errno.number()
        }
    }
}

/// The module is unloaded.
///
/// # Safety
/// [`fhr_start`] made it, it is stopped once, and nobody has a descriptor.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_stop(module: Module) {
    // SAFETY: by the caller's promise.
    let system = unsafe { Box::from_raw(module.cast::<Arc<System<Skin>>>()) };
    system.stop();
}

/// A command of `/dev/kvm`.
///
/// # Safety
/// [`fhr_start`] made it, and it is not stopped before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_system_ioctl(module: Module, command: c_uint, argument: c_ulong) -> c_long {
    // SAFETY: by the caller's promise.
    let system = unsafe { system(module) };
    returned(system.ioctl(command, argument))
}

/// A file under `/sys/kernel/debug/freehold` is read.
///
/// # Safety
/// [`fhr_start`] made it, and it is not stopped before this returns; the sequence is one that is being shown.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_show(module: Module, file: c_uint, seq: *mut c_void) {
    // SAFETY: by the caller's promise.
    let system = unsafe { system(module) };
    let Some(file) = statistics::File::from_number(file) else {
        return;
    };
    let text = statistics::show(system, file);
    // SAFETY: the text is there until the function returns.
    unsafe { skin::fh_show(seq, text.as_ptr(), text.len()) };
}

/// Whether Freehold refuses the kernel accesses to what is at a physical address.
///
/// # Safety
/// [`fhr_start`] made it, and it is not stopped before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_is_refused(module: Module, address: c_ulong) -> bool {
    // SAFETY: by the caller's promise.
    let system = unsafe { system(module) };
    system.is_refused(address)
}

/// A command of another descriptor.
///
/// # Safety
/// The descriptor has the object, and is not closed before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_ioctl(object: Object, command: c_uint, argument: c_ulong) -> c_long {
    // SAFETY: by the caller's promise.
    let object = unsafe { look(object) };
    returned(Arc::clone(object).ioctl(command, argument))
}

/// The last duplicate of a descriptor, and its last mapping, are gone.
///
/// # Safety
/// The descriptor had the object, and it is closed once.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_close(object: Object) {
    // SAFETY: by the caller's promise.
    drop(unsafe { take(object) });
}

/// How many pages of a descriptor can be mapped.
///
/// # Safety
/// The descriptor has the object, and is not closed before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_pages(object: Object) -> c_long {
    // SAFETY: by the caller's promise.
    let object = unsafe { look(object) };
    returned(object.pages().ok_or(Errno::NODEV))
}

/// Hands an ear to the skin.
pub(super) fn give_ear(ear: Arc<dyn Ear>) -> *mut c_void {
    Box::into_raw(Box::new(ear)).cast()
}

/// Takes an ear back from the skin.
///
/// # Safety
/// [`give_ear`] made it, it is taken once, and nothing is heard any more.
pub(super) unsafe fn take_ear(ear: *mut c_void) -> Arc<dyn Ear> {
    // SAFETY: by the caller's promise.
    *unsafe { Box::from_raw(ear.cast::<Arc<dyn Ear>>()) }
}

/// Somebody has signalled an eventfd.
///
/// # Safety
/// [`give_ear`] made it, and it is not taken back before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_hear(ear: *mut c_void) {
    // SAFETY: by the caller's promise.
    let ear = unsafe { &*ear.cast_const().cast::<Arc<dyn Ear>>() };
    ear.hear();
}

/// Something that is listened at was closed for the last time.
///
/// # Safety
/// [`fhr_start`] made it, and it is not stopped before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_sweep(module: Module) {
    // SAFETY: by the caller's promise.
    let system = unsafe { system(module) };
    system.sweep();
}

/// Hands a watcher to the skin.
pub(super) fn give_watcher(watcher: Arc<dyn Watcher>) -> *mut c_void {
    Box::into_raw(Box::new(watcher)).cast()
}

/// Takes a watcher back from the skin.
///
/// # Safety
/// [`give_watcher`] made it, it is taken once, and nothing is told any more.
pub(super) unsafe fn take_watcher(watcher: *mut c_void) -> Arc<dyn Watcher> {
    // SAFETY: by the caller's promise.
    *unsafe { Box::from_raw(watcher.cast::<Arc<dyn Watcher>>()) }
}

/// # Safety
/// [`give_watcher`] made it, and it is not taken back while the reference is used.
unsafe fn watcher<'a>(watcher: *mut c_void) -> &'a Arc<dyn Watcher> {
    // SAFETY: by the caller's promise.
    unsafe { &*watcher.cast_const().cast::<Arc<dyn Watcher>>() }
}

/// Lets others have the CPU, if the kernel lets us.
fn pause(may_sleep: bool) {
    if may_sleep {
        // SAFETY: the task may sleep.
        unsafe { skin::fh_reschedule() };
    }
}

/// Pages are about to be taken from an address space.
///
/// # Safety
/// The watcher is that of a watch, which is not freed before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_watch_begin(pointer: *mut c_void, start: c_ulong, end: c_ulong, may_sleep: bool) {
    // SAFETY: by the caller's promise.
    let watcher = unsafe { watcher(pointer) };
    watcher.begin(start..end, &mut || pause(may_sleep));
}

/// They are taken.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_watch_end(pointer: *mut c_void) {
    // SAFETY: by the caller's promise.
    let watcher = unsafe { watcher(pointer) };
    watcher.end();
}

/// Whether pages of an address space were used.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_watch_used(
    pointer: *mut c_void,
    start: c_ulong,
    end: c_ulong,
    forget: bool,
) -> bool {
    // SAFETY: by the caller's promise.
    let watcher = unsafe { watcher(pointer) };
    watcher.is_used(start..end, forget)
}

/// The address space ends, or is not watched any more.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_watch_over(pointer: *mut c_void) {
    // SAFETY: by the caller's promise.
    let watcher = unsafe { watcher(pointer) };
    watcher.over(&mut || pause(true));
}

/// A page of a mapping is touched.
///
/// # Safety
/// The descriptor has the object, and is not closed before this returns; the fault is one that is being served.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_fault(object: Object, page: c_ulong, fault: *mut c_void) -> c_int {
    // SAFETY: by the caller's promise.
    let object = unsafe { look(object) };
    let mut insert = |pfn: Pfn| {
        // SAFETY: the fault is being served, and the object sees that the frame stays what it is meanwhile.
        let inserted = unsafe { skin::fh_fault_insert(fault, pfn.number()) };
        Errno::check(inserted.into()).map(drop)
    };
    match object.fault(page, &mut insert) {
        Ok(()) => 0,
        Err(error) => -error.number(),
    }
}

/// A file under `/proc/PROCESS/fdinfo` is read.
///
/// # Safety
/// The descriptor has the object, and is not closed before this returns; the sequence is one that is being shown.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_describe(object: Object, seq: *mut c_void) {
    // SAFETY: by the caller's promise.
    let object = unsafe { look(object) };
    let text = object.describe();
    // SAFETY: the text is there until the function returns.
    unsafe { skin::fh_show(seq, text.as_ptr(), text.len()) };
}

/// Part of a file is allocated or freed.
///
/// # Safety
/// The file has the object, and is not closed before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_fallocate(object: Object, mode: c_uint, offset: u64, length: u64) -> c_int {
    // SAFETY: by the caller's promise.
    let object = unsafe { look(object) };
    match object.fallocate(mode, offset, length) {
        Ok(()) => 0,
        Err(error) => -error.number(),
    }
}

/// Whether what a task waits for is ready.
///
/// # Safety
/// The context is that of a wait that has not returned.
#[unsafe(no_mangle)]
unsafe extern "C" fn fhr_ready(context: *mut c_void) -> bool {
    // SAFETY: by the caller's promise it is the closure's, which nobody else asks meanwhile.
    let ready = unsafe { &mut *context.cast::<&mut dyn FnMut() -> bool>() };
    ready()
}
