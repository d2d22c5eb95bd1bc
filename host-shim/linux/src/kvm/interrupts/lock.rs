//! A lock for what tasks and interrupts both use.

use crate::Linux;
use host_shim::sync::SpinLock;

/// A value that one CPU has at a time, with its interrupts off. It is had for a few instructions, and not twice by one CPU.
#[derive(Debug)]
pub struct IrqLock<L: Linux, T> {
    linux: L,
    value: lock_api::Mutex<SpinLock, T>,
}

impl<L: Linux, T> IrqLock<L, T> {
    /// A value that nobody has.
    pub fn new(linux: &L, value: T) -> Self {
        Self {
            linux: linux.clone(),
            value: lock_api::Mutex::new(value),
        }
    }

    /// Does something with the value. Called in any context.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        uninterrupted(&self.linux, || work(&mut self.value.lock()))
    }
}

/// Does something with the interrupts of this CPU off.
///
/// # Panics
/// Never: the kernel does what it is asked.
pub fn uninterrupted<L: Linux, R>(linux: &L, work: impl FnOnce() -> R) -> R {
    let (mut work, mut result) = (Some(work), None);
    linux.uninterrupted(&mut || result = work.take().map(|work| work()));
    result.expect("the work was done, once")
}
