//! `KVM_IRQFD`: eventfds as lines.
//!
//! A signal lets the line go high and low again, which makes an edge-triggered interrupt pending. With a second eventfd
//! the line stays high until the guest has served the interrupt; then it goes low, and the second is signalled, so that
//! the device can look whether there is more.

use super::{Interrupts, Wires};
use crate::kvm::abi::devices::{IRQFD_DEASSIGN, IRQFD_RESAMPLE, Irqfd as Asked};
use crate::kvm::read_user;
use crate::linux::Ear;
use crate::{Errno, Linux};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

/// How many eventfds can be lines of a VM. Those that resample are gone through with interrupts off.
const MAX_IRQFDS: usize = 1000;

/// The eventfds that are lines.
#[derive(Debug)]
pub(super) struct Irqfds<L: Linux> {
    all: Vec<Irqfd<L>>,
    /// What the next is called.
    next: u64,
}

/// An eventfd that is a line.
#[derive(Debug)]
struct Irqfd<L: Linux> {
    id: u64,
    gsi: u32,
    eventfd: L::Eventfd,
    resamples: bool,
    listener: L::Listener,
}

/// Who is to look again when an interrupt is served.
#[derive(Debug)]
pub(super) struct Resampler<L: Linux> {
    /// Of which line.
    of: u64,
    gsi: u32,
    eventfd: L::Eventfd,
}

/// What a signal does.
#[derive(Debug)]
struct Line<L: Linux> {
    interrupts: Arc<Interrupts<L>>,
    gsi: u32,
    resamples: bool,
}

impl<L: Linux> Irqfds<L> {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            next: 0,
        }
    }
}

impl<L: Linux> Ear for Line<L> {
    fn hear(&self) {
        let interrupts = &self.interrupts;
        if let Some(spi) = interrupts.routes.with(|routes| routes.spi(self.gsi)) {
            interrupts.set_spi(spi, true);
            if !self.resamples {
                interrupts.set_spi(spi, false);
            }
        }
    }
}

impl<L: Linux> Interrupts<L> {
    /// A guest has served interrupts. Called with interrupts off.
    pub(super) fn resample(&self, ended: &[u32]) {
        self.resamplers.with(|resamplers| {
            let ended = |one: &Resampler<L>| {
                let spi = self.routes.with(|routes| routes.spi(one.gsi));
                spi.filter(|spi| ended.contains(spi))
            };
            // All low before anybody looks: one of them may let it go high at once.
            for spi in resamplers.iter().filter_map(ended) {
                self.set_spi(spi, false);
            }
            for resampler in resamplers.iter().filter(|one| ended(one).is_some()) {
                self.linux.signal(&resampler.eventfd);
            }
        });
    }

    fn add_resampler(&self, resampler: Resampler<L>) {
        let count = self.resamplers.with(|all| all.len());
        // Where interrupts are off nothing is allocated or freed.
        let mut more = Vec::with_capacity(count + 1);
        self.resamplers.with(|all| {
            more.append(all);
            more.push(resampler);
            mem::swap(all, &mut more);
        });
    }

    /// The line of an eventfd is none any more. If it was the last that resamples, it does not stay high.
    fn remove_resampler(&self, gsi: u32, of: u64) {
        let (_removed, is_last) = self.resamplers.with(|all| {
            let index = all.iter().position(|one| one.of == of);
            let removed = index.map(|index| all.swap_remove(index));
            (removed, !all.iter().any(|one| one.gsi == gsi))
        });
        if is_last && let Some(spi) = self.routes.with(|routes| routes.spi(gsi)) {
            self.set_spi(spi, false);
        }
    }
}

impl<L: Linux> Wires<L> {
    /// `KVM_IRQFD`.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::INVAL`]; [`Errno::BADF`]; [`Errno::AGAIN`] if the controller is not made yet;
    /// [`Errno::BUSY`] if the eventfd is a line already; [`Errno::NOSPC`] if there are too many.
    pub fn command(&self, argument: u64) -> Result<u64, Errno> {
        let linux = &self.interrupts.linux;
        let asked: Asked = read_user(linux, argument)?;
        if asked.flags & !(IRQFD_DEASSIGN | IRQFD_RESAMPLE) != 0 {
            return Err(Errno::INVAL);
        }
        if asked.flags & IRQFD_DEASSIGN != 0 {
            let eventfd = linux.eventfd(asked.fd.cast_signed())?;
            self.remove(|irqfd| irqfd.gsi == asked.gsi && irqfd.eventfd == eventfd);
            return Ok(0);
        }
        self.add(&asked)
    }

    fn add(&self, asked: &Asked) -> Result<u64, Errno> {
        let linux = &self.interrupts.linux;
        if self.interrupts.vgic().is_none() {
            return Err(Errno::AGAIN);
        }
        // It may be about to be forgotten.
        self.sweep();
        let descriptor = asked.fd.cast_signed();
        let eventfd = linux.eventfd(descriptor)?;
        let resamples = asked.flags & IRQFD_RESAMPLE != 0;
        let resample = match resamples {
            true => Some(linux.eventfd(asked.resamplefd.cast_signed())?),
            false => None,
        };
        let mut irqfds = self.irqfds.lock();
        if irqfds.all.iter().any(|irqfd| irqfd.eventfd == eventfd) {
            return Err(Errno::BUSY);
        }
        if irqfds.all.len() >= MAX_IRQFDS {
            return Err(Errno::NOSPC);
        }
        let (id, gsi) = (irqfds.next, asked.gsi);
        irqfds.next += 1;
        // It may be signalled already.
        if let Some(eventfd) = resample {
            let of = id;
            self.interrupts.add_resampler(Resampler { of, gsi, eventfd });
        }
        let line = Line {
            interrupts: Arc::clone(&self.interrupts),
            gsi,
            resamples,
        };
        let heard = linux.listen(descriptor, Arc::new(line));
        let (eventfd, listener) = heard.inspect_err(|_| {
            if resamples {
                self.interrupts.remove_resampler(gsi, id);
            }
        })?;
        irqfds.all.push(Irqfd {
            id,
            gsi,
            eventfd,
            resamples,
            listener,
        });
        Ok(0)
    }

    /// Forgets the eventfds that nobody has any more.
    pub(in crate::kvm) fn sweep(&self) {
        let linux = &self.interrupts.linux;
        self.remove(|irqfd| linux.is_closed(&irqfd.listener));
    }

    /// Forgets all of them. None is heard any more.
    pub(in crate::kvm) fn end(&self) {
        self.remove(|_| true);
    }

    fn remove(&self, is_meant: impl Fn(&Irqfd<L>) -> bool) {
        let all = &mut self.irqfds.lock().all;
        let (gone, left) = mem::take(all).into_iter().partition(is_meant);
        *all = left;
        let gone: Vec<_> = gone;
        for irqfd in gone {
            // First nothing is heard any more.
            drop(irqfd.listener);
            if irqfd.resamples {
                self.interrupts.remove_resampler(irqfd.gsi, irqfd.id);
            }
        }
    }
}
