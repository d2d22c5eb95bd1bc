//! Eventfds.

use crate::linux::Ear;
use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// An eventfd.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eventfd(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    closed: bool,
    ears: Vec<Arc<dyn Ear>>,
    /// What happens while somebody asks whether it is closed.
    meanwhile: Meanwhile,
}

#[derive(Default)]
struct Meanwhile(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl PartialEq for Eventfd {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eventfd {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn signal(&self) {
        let ears = {
            let mut state = self.state();
            state.count += 1;
            if state.closed || state.ears.is_empty() {
                return;
            }
            state.count = 0;
            state.ears.clone()
        };
        for ear in ears {
            ear.hear();
        }
    }

    /// Answers how often it was signalled before.
    pub(super) fn add(&self, ear: &Arc<dyn Ear>) -> u64 {
        let mut state = self.state();
        state.ears.push(Arc::clone(ear));
        state.count
    }

    fn remove(&self, ear: &Arc<dyn Ear>) {
        let mut state = self.state();
        state.ears.retain(|known| !Arc::ptr_eq(known, ear));
        state.count = 0;
    }

    pub(super) fn take(&self) -> u64 {
        std::mem::take(&mut self.state().count)
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        let meanwhile = self.state().meanwhile.0.take();
        if let Some(work) = meanwhile {
            work();
        }
        self.state().closed
    }

    pub(super) fn set_meanwhile(&self, work: Box<dyn FnOnce() + Send>) {
        self.state().meanwhile.0 = Some(work);
    }

    pub(super) fn ears(&self) -> usize {
        self.state().ears.len()
    }
}

/// That an ear is at an eventfd.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) eventfd: Eventfd,
    pub(super) ear: Arc<dyn Ear>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.eventfd.remove(&self.ear);
    }
}
