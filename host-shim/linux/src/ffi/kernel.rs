//! The kernel, by the skin's functions.

use super::entries;
use super::lock::SleepLock;
use super::panic::Line;
use super::{hypercall, skin};
use crate::linux::Level;
use crate::{Descriptor, Errno, Linux};
use alloc::sync::Arc;
use core::ffi::{CStr, c_int, c_void};
use core::fmt::{self, Write as _};
use core::ptr;
use host_shim::provider::Allocated;
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

impl Linux for Skin {
    type Space = Space;

    fn has_freehold(&self) -> bool {
        // SAFETY: it only looks.
        unsafe { skin::fh_has_freehold() }
    }

    fn cpus(&self) -> u32 {
        // SAFETY: it only looks.
        unsafe { skin::fh_cpus() }
    }

    fn address_bits(&self) -> u32 {
        // SAFETY: it only looks.
        unsafe { skin::fh_address_bits() }
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

    fn open(&self, name: &CStr, object: Arc<dyn Descriptor>) -> Result<u64, Errno> {
        let object = entries::give(object);
        // SAFETY: the name ends; the object is the descriptor's until it is closed.
        let descriptor = unsafe { skin::fh_descriptor_open(name.as_ptr(), object) };
        Errno::check(descriptor.into()).inspect_err(|_| {
            // SAFETY: nobody else has it, since there is no descriptor.
            drop(unsafe { entries::take(object) });
        })
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

    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let mut line = Line::<256>::new();
        // What does not fit is left out.
        let _ = line.write_fmt(message);
        let text = line.as_bytes();
        // SAFETY: the text is there until the function returns.
        unsafe { skin::fh_log(level as c_int, text.as_ptr(), text.len()) };
    }
}
