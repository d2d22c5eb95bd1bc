//! Values that live in a page of EL2's own: a VM, or a vCPU.
//!
//! A [`Home`] is to its page what a box is to its memory, but that the page comes from the pool and goes back
//! there by hand: a home that is only dropped keeps its page for ever. The core never drops one.

#![expect(unsafe_code, reason = "turns a page into a value and back")]

use crate::hardware::Machine;
use core::fmt::{self, Debug, Formatter};
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use hyp_core::addr::{FRAME_SIZE, PhysAddr};
use hyp_core::hardware::TablePage;
use hyp_core::vm::{Vcpu, Vm};

const _: () = assert!(
    size_of::<Vm<Machine>>() <= FRAME_SIZE as usize,
    "a VM is one page"
);
const _: () = assert!(size_of::<Vcpu>() <= FRAME_SIZE as usize, "a vCPU is one page");

/// A value in a page of its own, which nobody else has.
pub(crate) struct Home<T> {
    value: NonNull<T>,
    owned: PhantomData<T>,
}

// SAFETY: a home has its value alone, as a box does, and EL2's pages are mapped alike on all CPUs.
unsafe impl<T: Send> Send for Home<T> {}

impl<T> Home<T> {
    /// Moves `value` to `page`, which holds nothing and is in no table.
    pub(crate) fn settle(page: TablePage, value: T) -> Self {
        const { assert!(size_of::<T>() <= FRAME_SIZE as usize && align_of::<T>() <= FRAME_SIZE as usize) };
        let place: *mut T = ptr::with_exposed_provenance_mut(page.frame().address().value() as usize);
        let place = NonNull::new(place).expect("EL2 has no page at address 0");
        // SAFETY: a `TablePage` that is in no table is a page of EL2's which the caller alone has; it is mapped for
        // writing, and large enough.
        unsafe { place.write(value) };
        Self {
            value: place,
            owned: PhantomData,
        }
    }

    /// Ends the life of the value, and answers its page.
    pub(crate) fn vacate(self) -> TablePage {
        let address =
            PhysAddr::new(self.value.addr().get() as u64).expect("`settle` had the address of a frame");
        // SAFETY: the value was written by `settle`, nobody else has it, and `self` ends here.
        unsafe { self.value.drop_in_place() };
        TablePage::new(address.frame())
    }
}

impl<T> Deref for Home<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value was written by `settle`, and lives until `vacate` takes `self`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Home<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and whoever has `self` alone has the value alone.
        unsafe { self.value.as_mut() }
    }
}

impl<T: Debug> Debug for Home<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}
