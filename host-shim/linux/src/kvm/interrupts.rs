//! What interrupts a VM's vCPUs: the interrupt controller in the kernel, and the lines that end there.
//!
//! - [`device`]: KVM's device, by which user space makes the controller.
//! - [`line`]: `KVM_IRQ_LINE` and `KVM_SIGNAL_MSI`. [`routes`]: which interrupt a line is. [`irqfd`]: eventfds as lines.
//! - [`lock`]: how tasks and interrupts share.
//!
//! An eventfd is signalled from any context, and the controller's locks are taken there. So whoever calls the controller
//! does it with interrupts off. Order of the locks: that of the resamplers; an eventfd's own; then that of the routes, or
//! the controller's, never both. Who holds one of the last two signals no eventfd.

mod command;
pub mod device;
pub mod irqfd;
pub mod line;
pub mod lock;
pub mod routes;

pub use lock::{IrqLock, uninterrupted};
pub use routes::{Route, Routes};

use super::{Controller, Place};
use crate::{Errno, Linux};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use host_shim::sync::Mutex;
use host_shim::vcpu::{Entry, Interrupts as Exited};
use host_shim::vgic::attributes::{self, VgicDevice};
use host_shim::vgic::{InterfaceShape, VcpuSet, Vgic};
use hyp_abi::run_page::SgiRegister;
use hyp_abi::vm::MAX_VCPUS;
use irqfd::{Irqfds, Resampler};
use spin::Once;

/// Where others find the vCPUs of a VM.
pub type Places<L> = [Once<Arc<Place<L>>>; MAX_VCPUS];

/// What interrupts a VM's vCPUs. Lines that are heard in an interrupt keep it, so it has nothing that only a task can end.
#[derive(Debug)]
pub struct Interrupts<L: Linux> {
    linux: L,
    places: Arc<Places<L>>,
    device: Once<VgicDevice>,
    /// Which interrupt the virtual timers of the vCPUs have.
    timer: AtomicU32,
    routes: IrqLock<L, Routes>,
    resamplers: IrqLock<L, Vec<Resampler<L>>>,
    /// The vCPUs in the order in which they came. Held by whoever makes, sets up or starts the device.
    order: Mutex<L, Vec<usize>>,
}

/// What interrupts a VM's vCPUs, and the eventfds that are lines.
#[derive(Debug)]
pub struct Wires<L: Linux> {
    interrupts: Arc<Interrupts<L>>,
    irqfds: Mutex<L, Irqfds<L>>,
}

impl<L: Linux> Wires<L> {
    /// Of a VM whose vCPUs are found at `places`. It has no controller yet.
    pub fn new(linux: &L, places: Arc<Places<L>>) -> Self {
        Self {
            interrupts: Arc::new(Interrupts {
                linux: linux.clone(),
                places,
                device: Once::new(),
                timer: AtomicU32::new(27),
                routes: IrqLock::new(linux, Routes::default()),
                resamplers: IrqLock::new(linux, Vec::new()),
                order: Mutex::<L, _>::new(Vec::new()),
            }),
            irqfds: Mutex::<L, _>::new(Irqfds::new()),
        }
    }

    /// What interrupts the vCPUs.
    pub const fn interrupts(&self) -> &Arc<Interrupts<L>> {
        &self.interrupts
    }
}

/// The error of the controller, as the interface has it.
fn errno(error: attributes::Errno) -> Errno {
    Errno::from_number(error.number())
}

impl<L: Linux> Interrupts<L> {
    /// The device, if there is one.
    pub fn device(&self) -> Option<&VgicDevice> {
        self.device.get()
    }

    /// The controller, if it is made.
    pub fn vgic(&self) -> Option<&Vgic> {
        self.device()?.vgic()
    }

    /// Which interrupt the virtual timers have.
    pub fn timer(&self) -> u32 {
        self.timer.load(Ordering::Relaxed)
    }

    /// Says which, of a VM that has not begun: a private one.
    pub fn set_timer(&self, interrupt: u32) {
        self.timer.store(interrupt, Ordering::Relaxed);
    }

    /// Makes the device, of a VM that has not begun.
    ///
    /// # Errors
    /// [`Errno::EXIST`]; [`Errno::INVAL`].
    fn create(&self, interface: InterfaceShape, ipa_bits: u32) -> Result<(), Errno> {
        let order = self.order.lock();
        if self.device.is_completed() {
            return Err(Errno::EXIST);
        }
        let device = VgicDevice::new(interface, ipa_bits);
        for vcpu in &*order {
            device.add_vcpu(*vcpu).map_err(errno)?;
        }
        self.device.call_once(|| device);
        Ok(())
    }

    /// A vCPU is made by `make`, if it can have a redistributor.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the controller is made, [`Errno::INVAL`] if there is no place for its redistributor; those of `make`.
    pub fn add_vcpu<R>(&self, vcpu: usize, make: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
        let mut order = self.order.lock();
        let device = self.device();
        if let Some(device) = device {
            device.add_vcpu(vcpu).map_err(errno)?;
        }
        let made = make();
        if made.is_ok() {
            order.push(vcpu);
        } else if let Some(device) = device {
            device.remove_vcpu(vcpu);
        }
        made
    }

    /// Has vCPUs look at what concerns them. Called in any context.
    fn tell(&self, vcpus: VcpuSet) {
        for place in vcpus.iter().filter_map(|vcpu| self.places.get(vcpu)?.get()) {
            place.tell();
        }
    }

    /// Has the controller do something, if it is made, and tells those whom it concerns. Called in any context.
    fn with_vgic<R>(&self, work: impl FnOnce(&Vgic) -> (VcpuSet, R)) -> Option<R> {
        let vgic = self.vgic()?;
        let (concerned, result) = uninterrupted(&self.linux, || work(vgic));
        self.tell(concerned);
        Some(result)
    }

    /// Lets an SPI be high or low, if there is such a one. Called in any context.
    fn set_spi(&self, intid: u32, high: bool) {
        self.with_vgic(|vgic| (vgic.set_level(intid, 0, high).unwrap_or_default(), ()));
    }

    /// Where a controller is reached that can be: by its vCPUs, once the VM has begun.
    fn located(&self, ipa: u64, bytes: u64) -> Option<(&Vgic, attributes::Located)> {
        let (vgic, layout) = self.device()?.start().ok()?;
        Some((vgic, layout.locate(ipa, bytes)?))
    }
}

impl<L: Linux> Controller for Interrupts<L> {
    fn start(&self) -> Result<(), Errno> {
        let _order = self.order.lock();
        match self.device() {
            Some(device) => {
                let (vgic, _) = device.start().map_err(errno)?;
                vgic.set_timer(self.timer()).map_err(|_| Errno::INVAL)
            }
            None => Ok(()),
        }
    }

    fn enter(&self, vcpu: usize, entry: Entry) -> Entry {
        match self.vgic() {
            Some(vgic) => vgic.enter(vcpu, entry),
            None => entry,
        }
    }

    fn cancel(&self, vcpu: usize) -> VcpuSet {
        self.vgic().map_or(VcpuSet::EMPTY, |vgic| vgic.cancel(vcpu))
    }

    fn leave(&self, vcpu: usize, interrupts: &Exited) -> VcpuSet {
        let Some(vgic) = self.vgic() else {
            return VcpuSet::EMPTY;
        };
        let synced = vgic.sync(vcpu, interrupts);
        if !synced.ended.is_empty() {
            self.resample(&synced.ended);
        }
        synced.kicks
    }

    fn is_pending(&self, vcpu: usize) -> bool {
        self.vgic().is_some_and(|vgic| vgic.is_pending(vcpu))
    }

    fn timer_is_due(&self, vcpu: usize) -> VcpuSet {
        self.vgic()
            .and_then(|vgic| vgic.set_level(vgic.timer(), vcpu, true).ok())
            .unwrap_or_default()
    }

    fn send(&self, vcpu: usize, register: SgiRegister, value: u64) -> VcpuSet {
        self.vgic()
            .map_or(VcpuSet::EMPTY, |vgic| vgic.send(vcpu, register, value))
    }

    fn load(&self, _: usize, ipa: u64, bytes: u64) -> Option<(u64, VcpuSet)> {
        let (vgic, at) = self.located(ipa, bytes)?;
        Some((vgic.read(at.frame, at.offset, bytes), VcpuSet::EMPTY))
    }

    fn store(&self, _: usize, ipa: u64, bytes: u64, value: u64) -> Option<VcpuSet> {
        let (vgic, at) = self.located(ipa, bytes)?;
        Some(vgic.write(at.frame, at.offset, bytes, value))
    }
}
