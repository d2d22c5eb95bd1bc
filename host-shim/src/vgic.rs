//! The interrupt controller of a guest: a GICv3, as KVM presents it.
//!
//! There is one Security state (GICD_CTLR.DS), affinity routing (ARE) is always on, and there are no LPIs and no ITS.
//! The distributor and the redistributors are emulated here; a vCPU's CPU interface is the hardware's, in front of list
//! registers. Nothing here knows of a kernel, of memory, or of EL2: register accesses, lines and sent interrupts come in,
//! list registers go out and come back.
//!
//! - [`Vgic::flush`] before an entry: what the vCPU should see, in order of priority, as far as there are list registers.
//! - [`Vgic::sync`] after an exit: what the guest made of it.
//! - [`Vgic::enter`] and [`Vgic::leave`]: both, for a [`crate::Vcpu`].
//! - [`Vgic::set_level`], [`Vgic::send`], [`Vgic::read`], [`Vgic::write`]: what happens meanwhile.
//! - [`attributes`]: KVM's device, by which user space makes and saves a controller.
//!
//! # Who must be told
//!
//! What happens to an interrupt can concern vCPUs other than the caller's: those are returned, and the caller makes each
//! of them leave the guest, or wakes it if it waits ([`Vgic::is_pending`]). To lose none, the caller raises a request
//! *before* it looks whether the vCPU runs, and the vCPU looks for requests *after* its flush.
//!
//! # Locks
//!
//! A lock for what is private to each vCPU, and one for the SPIs. Order: a vCPU's → the SPIs'; never two vCPUs'. Nothing
//! is allocated, and nothing waited for, while one is held. Calls come from any CPU and from interrupt handlers, so what
//! takes these locks for the kernel has to keep interrupts off.
//!
//! # More interrupts than list registers
//!
//! The most urgent pending interrupt of each group is always listed (of both, if there is one list register alone), then
//! active ones, the most urgent first, then what else pends. Maintenance interrupts bring the vCPU back when there is room. Active interrupts that are left out end
//! from outside: the CPU counts such ends (EOIcount), and does not say which; it is taken to be the most urgent. That is
//! so as long as the guest ends interrupts in the order in which the CPU interface lets it (EOImode 0). One that
//! deactivates apart (EOImode 1), out of order, and has more than 16, or 4, at once, deactivates others than it means.

pub mod attributes;
mod bank;
mod choice;
mod enter;
mod frames;
mod lines;
mod list;
mod register;
mod run;
mod shape;
mod spis;
mod user;
mod vcpu_set;

pub use frames::Frame;
pub use lines::NoSuchLine;
pub use list::{ENDED_ELSEWHERE, Load, NONE_PENDING, UNDERFLOW};
pub use run::Synced;
pub use shape::InterfaceShape;
pub use vcpu_set::VcpuSet;

use crate::sync::SpinMutex;
use crate::vcpu::ListRegisters;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bank::Bank;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spis::{Row, Spis};
use vcpu_set::ones;

/// How many interrupts each vCPU has of its own: 16 SGIs, 16 PPIs.
pub const PRIVATE: u32 = 32;

/// The interrupt of the virtual timer, unless it is set otherwise.
pub const TIMER: u32 = 27;

/// What a controller is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VgicConfig {
    /// The VM's vCPUs. None can be added later.
    pub vcpus: VcpuSet,
    /// How many interrupts there are, private ones included: 64 to 1024, a multiple of 32.
    pub interrupts: u32,
    /// The CPU interfaces of the machine.
    pub interface: InterfaceShape,
}

const fn is_number_of_interrupts(number: u32) -> bool {
    number >= 64 && number <= 1024 && number.is_multiple_of(32)
}

/// Why there is no controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVgic {
    /// There are no vCPUs, or the number of interrupts is none that is allowed.
    #[error("no controller can be like that")]
    Config,
    /// There is no memory for it.
    #[error("there is no memory")]
    Memory,
}

/// The interrupt controller of a VM.
#[derive(Debug)]
pub struct Vgic {
    interface: InterfaceShape,
    interrupts: u32,
    present: VcpuSet,
    /// GICD_CTLR.EnableGrp1, which KVM has for both groups.
    enabled: AtomicBool,
    /// GICD_IIDR.Revision.
    revision: AtomicU32,
    /// Which PPI the virtual timer has.
    timer: AtomicU32,
    /// A place for each index up to the highest; those that are not present stay as they were made.
    vcpus: Box<[Local]>,
    /// The vCPUs that may have an SPI pending or active. A vCPU that is not in it need not look. Bits are set and
    /// cleared with the SPIs locked.
    attention: AtomicU64,
    spis: SpinMutex<Spis>,
}

/// What belongs to one vCPU.
#[derive(Debug)]
struct Local {
    /// GICR_TYPER.Last: no redistributor follows upon its own.
    last: AtomicBool,
    state: SpinMutex<LocalState>,
}

#[derive(Debug)]
struct LocalState {
    bank: Bank,
    /// The list registers of the entry that has not been followed by an exit.
    loaded: ListRegisters,
    /// How many active interrupts were left out of them.
    left_out: usize,
    /// EL2 is known to have empty list registers for it, and no maintenance interrupt on.
    clean: bool,
    /// It will be, if the vCPU is entered with what it was flushed with last.
    emptied: bool,
    /// Who must look because of what was taken back by a flush.
    owed: VcpuSet,
}

impl Vgic {
    /// Makes a controller. Everything that it will ever need is allocated here.
    ///
    /// # Errors
    /// [`NoVgic`].
    pub fn new(config: &VgicConfig) -> Result<Self, NoVgic> {
        let VgicConfig {
            vcpus: present,
            interrupts,
            interface,
        } = *config;
        if present.is_empty() || !is_number_of_interrupts(interrupts) {
            return Err(NoVgic::Config);
        }
        let spis = Spis::new(interrupts, present).ok_or(NoVgic::Memory)?;
        let mut vcpus = Vec::new();
        (vcpus.try_reserve_exact(present.span())).map_err(|_| NoVgic::Memory)?;
        vcpus.resize_with(present.span(), Local::new);
        Ok(Self {
            interface,
            interrupts,
            present,
            enabled: AtomicBool::new(false),
            revision: AtomicU32::new(user::LATEST_REVISION),
            timer: AtomicU32::new(TIMER),
            vcpus: vcpus.into_boxed_slice(),
            attention: AtomicU64::new(0),
            spis: SpinMutex::new(spis),
        })
    }

    /// The VM's vCPUs.
    #[must_use]
    pub const fn vcpus(&self) -> VcpuSet {
        self.present
    }

    /// How many interrupts there are, private ones included.
    #[must_use]
    pub const fn interrupts(&self) -> u32 {
        self.interrupts
    }

    /// The CPU interfaces of the machine.
    #[must_use]
    pub const fn interface(&self) -> &InterfaceShape {
        &self.interface
    }

    fn local(&self, vcpu: usize) -> Option<&Local> {
        (self.vcpus.get(vcpu)).filter(|_| self.present.contains(vcpu))
    }

    fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    fn needs_attention(&self, vcpu: usize) -> bool {
        VcpuSet::from_bits(self.attention.load(Ordering::SeqCst)).contains(vcpu)
    }

    /// Sees to it that those SPIs of a row that were touched come to the vCPUs that they are for. Called with the SPIs
    /// locked. Returns the vCPUs that must look.
    fn settle(&self, row: &Row, touched: u32) -> VcpuSet {
        let looks = row.bank.deliverable() | row.bank.listed;
        let mut kicks = VcpuSet::EMPTY;
        for at in ones(touched & (looks | row.bank.active)) {
            let whose = row.whose(at, self.present);
            self.attention.fetch_or(whose.bits(), Ordering::SeqCst);
            if looks >> at & 1 != 0 {
                kicks |= whose;
            }
        }
        kicks
    }
}

impl Local {
    fn new() -> Self {
        Self {
            last: AtomicBool::new(false),
            state: SpinMutex::new(LocalState {
                bank: Bank::private(),
                loaded: ListRegisters::new(),
                left_out: 0,
                clean: false,
                emptied: false,
                owed: VcpuSet::EMPTY,
            }),
        }
    }
}

impl LocalState {
    /// Whether those private interrupts that were touched are a reason for the vCPU to look.
    const fn must_look(&self, touched: u32) -> bool {
        touched & (self.bank.deliverable() | self.bank.listed) != 0
    }
}

#[cfg(test)]
mod tests;
