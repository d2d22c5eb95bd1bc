//! `KVM_IOEVENTFD`: places where a guest's store is a signal, and nobody else is told.

use super::abi::devices::{
    IOEVENTFD_DATAMATCH, IOEVENTFD_DEASSIGN, IOEVENTFD_PIO, IOEVENTFD_VIRTIO_CCW, Ioeventfd,
};
use super::interrupts::IrqLock;
use super::read_user;
use crate::{Errno, Linux};
use alloc::vec::Vec;
use host_shim::sync::Mutex;

/// How many doorbells a VM can have, as KVM limits what is on its bus.
const MAX_DOORBELLS: usize = 1000;

/// A doorbell.
#[derive(Debug)]
struct Doorbell<E> {
    /// How it is rung: by a store to memory, or in a way that there is not on Arm, so that it never is.
    bus: u32,
    address: u64,
    /// How many bytes are stored; 0 for any number.
    bytes: u32,
    /// What is stored, if that matters.
    value: Option<u64>,
    eventfd: E,
}

impl<E: PartialEq> Doorbell<E> {
    fn new(asked: &Ioeventfd, eventfd: E) -> Self {
        Self {
            bus: asked.flags & (IOEVENTFD_PIO | IOEVENTFD_VIRTIO_CCW),
            address: asked.addr,
            bytes: asked.len,
            value: (asked.flags & IOEVENTFD_DATAMATCH != 0).then_some(asked.datamatch),
            eventfd,
        }
    }

    /// Whether a store could ring both.
    fn is_like(&self, other: &Self) -> bool {
        let values_meet = self.value.is_none() || other.value.is_none() || self.value == other.value;
        (self.bus, self.address) == (other.bus, other.address)
            && (self.bytes == 0 || other.bytes == 0 || self.bytes == other.bytes && values_meet)
    }

    /// Whether they are the same to user space.
    fn is(&self, other: &Self) -> bool {
        (self.bus, self.address, self.bytes, self.value)
            == (other.bus, other.address, other.bytes, other.value)
            && self.eventfd == other.eventfd
    }

    fn rings(&self, address: u64, bytes: u64, value: u64) -> bool {
        let mask = u64::MAX
            .checked_shr(64_u64.saturating_sub(8 * bytes) as u32)
            .unwrap_or(0);
        self.bus == 0
            && self.address == address
            && (self.bytes == 0
                || u64::from(self.bytes) == bytes && self.value.is_none_or(|wanted| wanted == value & mask))
    }
}

/// The doorbells of a VM.
#[derive(Debug)]
pub struct Doorbells<L: Linux> {
    linux: L,
    /// Held by whoever changes them.
    alone: Mutex<L, ()>,
    all: IrqLock<L, Vec<Doorbell<L::Eventfd>>>,
}

impl<L: Linux> Doorbells<L> {
    /// None.
    pub fn new(linux: &L) -> Self {
        Self {
            linux: linux.clone(),
            alone: Mutex::<L, _>::new(()),
            all: IrqLock::new(linux, Vec::new()),
        }
    }

    /// `KVM_IOEVENTFD`.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::INVAL`]; [`Errno::BADF`]; [`Errno::EXIST`] if a store could be meant for another, too;
    /// [`Errno::NOSPC`] if there are too many; [`Errno::NOENT`] if it is to go, and is not there.
    pub fn command(&self, argument: u64) -> Result<u64, Errno> {
        let asked: Ioeventfd = read_user(&self.linux, argument)?;
        if asked.flags & IOEVENTFD_DEASSIGN != 0 {
            self.remove(&asked)
        } else {
            self.add(&asked)
        }
    }

    fn add(&self, asked: &Ioeventfd) -> Result<u64, Errno> {
        let known = IOEVENTFD_DATAMATCH | IOEVENTFD_PIO | IOEVENTFD_VIRTIO_CCW;
        let has_value = asked.flags & IOEVENTFD_DATAMATCH != 0;
        if !matches!(asked.len, 0 | 1 | 2 | 4 | 8)
            || asked.addr.checked_add(asked.len.into()).is_none()
            || asked.flags & !known != 0
            || asked.len == 0 && has_value
        {
            return Err(Errno::INVAL);
        }
        let doorbell = Doorbell::new(asked, self.linux.eventfd(asked.fd)?);
        let _alone = self.alone.lock();
        let (count, known) = self.all.with(|all| {
            let known = all.iter().any(|other| other.is_like(&doorbell));
            (all.len(), known)
        });
        if known {
            return Err(Errno::EXIST);
        }
        if count >= MAX_DOORBELLS {
            return Err(Errno::NOSPC);
        }
        // Where interrupts are off nothing is allocated or freed.
        let mut more = Vec::with_capacity(count + 1);
        self.all.with(|all| {
            more.append(all);
            more.push(doorbell);
            core::mem::swap(all, &mut more);
        });
        Ok(0)
    }

    fn remove(&self, asked: &Ioeventfd) -> Result<u64, Errno> {
        let wanted = Doorbell::new(asked, self.linux.eventfd(asked.fd)?);
        let _alone = self.alone.lock();
        let removed = self.all.with(|all| {
            let index = all.iter().position(|doorbell| doorbell.is(&wanted))?;
            Some(all.swap_remove(index))
        });
        removed.map(|_| 0).ok_or(Errno::NOENT)
    }

    /// A guest stores something. Whether it is a signal: then it is given. Called in any context.
    pub fn ring(&self, address: u64, bytes: u64, value: u64) -> bool {
        self.all.with(|all| {
            let rung = all.iter().find(|doorbell| doorbell.rings(address, bytes, value));
            if let Some(doorbell) = rung {
                self.linux.signal(&doorbell.eventfd);
            }
            rung.is_some()
        })
    }
}
