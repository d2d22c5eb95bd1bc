//! What stands in on other architectures, so that the tool's logic can be tested there.

use super::Size;

/// A number that may lie at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T: Copy>(T);

/// See [`super::load`].
pub(super) unsafe fn load(address: *const u8, size: Size) -> u64 {
    match size {
        // SAFETY: one load, from where the caller says.
        Size::Byte => u64::from(unsafe { address.read_volatile() }),
        // SAFETY: as above; the packed structure needs no alignment.
        Size::Half => u64::from(unsafe { address.cast::<Unaligned<u16>>().read_volatile() }.0),
        // SAFETY: as above.
        Size::Word => u64::from(unsafe { address.cast::<Unaligned<u32>>().read_volatile() }.0),
        // SAFETY: as above.
        Size::Double => unsafe { address.cast::<Unaligned<u64>>().read_volatile() }.0,
    }
}

/// See [`super::store`].
pub(super) unsafe fn store(address: *mut u8, size: Size, value: u64) {
    match size {
        // SAFETY: one store, to where the caller says.
        Size::Byte => unsafe { address.write_volatile(value as u8) },
        // SAFETY: as above; the packed structure needs no alignment.
        Size::Half => unsafe {
            address
                .cast::<Unaligned<u16>>()
                .write_volatile(Unaligned(value as u16))
        },
        // SAFETY: as above.
        Size::Word => unsafe {
            address
                .cast::<Unaligned<u32>>()
                .write_volatile(Unaligned(value as u32))
        },
        // SAFETY: as above.
        Size::Double => unsafe { address.cast::<Unaligned<u64>>().write_volatile(Unaligned(value)) },
    }
}

/// See [`super::call`]: the code that this tool plants is arm64's.
pub(super) unsafe fn call(_address: *const u8) -> Option<u64> {
    None
}

/// See [`super::sync_code`].
pub(super) unsafe fn sync_code(_address: *const u8, _bytes: usize) {}
