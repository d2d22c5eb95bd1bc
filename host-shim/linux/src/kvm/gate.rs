//! What one task at a time has, and perhaps for long.

use crate::linux::Signals;
use crate::{Errno, Linux};
use core::ops::{Deref, DerefMut};
use host_shim::sync::Mutex;
use lock_api::MutexGuard;

/// What one task at a time has, and perhaps for long: a signal ends the wait of another that wants it, which nothing does
/// at a lock.
#[derive(Debug)]
pub struct Gate<L: Linux, T> {
    linux: L,
    /// Where those wait who want it.
    door: L::Seat,
    inside: Mutex<L, T>,
}

/// It, until this is dropped.
#[derive(Debug)]
pub struct Inside<'a, L: Linux, T> {
    gate: &'a Gate<L, T>,
    held: Option<MutexGuard<'a, L::Lock, T>>,
}

impl<L: Linux, T> Gate<L, T> {
    /// Of something that nobody has yet.
    pub fn new(linux: &L, inside: T) -> Self {
        Self {
            door: linux.seat(),
            linux: linux.clone(),
            inside: Mutex::<L, _>::new(inside),
        }
    }

    /// It, if nobody has it.
    pub fn try_enter(&self) -> Option<Inside<'_, L, T>> {
        let held = Some(self.inside.try_lock()?);
        Some(Inside { gate: self, held })
    }

    /// It, after whoever has it.
    ///
    /// # Errors
    /// [`Errno::INTR`] for such a signal.
    pub fn enter(&self, signals: Signals) -> Result<Inside<'_, L, T>, Errno> {
        let mut inside = None;
        self.linux.wait(&self.door, signals, None, &mut || {
            inside = self.try_enter();
            inside.is_some()
        })?;
        inside.ok_or(Errno::INTR)
    }
}

impl<L: Linux, T> Deref for Inside<'_, L, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_deref().expect("it is there until it is dropped")
    }
}

impl<L: Linux, T> DerefMut for Inside<'_, L, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().expect("it is there until it is dropped")
    }
}

impl<L: Linux, T> Drop for Inside<'_, L, T> {
    fn drop(&mut self) {
        self.held = None;
        self.gate.linux.wake(&self.gate.door);
    }
}
