//! The lock of this crate: a fair one that spins.
//!
//! Under test it is the standard library's, since threads that are preempted while they queue for a fair lock keep all
//! others waiting for a whole time slice.

#[cfg(not(test))]
pub(crate) use spin::Mutex;
#[cfg(test)]
pub(crate) use tested::Mutex;

#[cfg(test)]
mod tested {
    extern crate std;
    use std::sync::{MutexGuard, PoisonError};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            // A test that has failed already may still want to unwind through this.
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
