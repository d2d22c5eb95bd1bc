//! The registers of a vCPU, and what passes between them and the CPU.
//!
//! The layout is fixed (`repr(C)`), because the world switch is assembly that goes by the offsets of the fields. It
//! knows nothing more: what a register is set to, and what a trap means, is decided in this crate.

use crate::hardware::TablePage;
use crate::trap::syndrome::FaultRegisters;
use hyp_abi::run_page::MAX_LIST_REGISTERS;

/// All registers of a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct VcpuContext {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The program counter.
    pub pc: u64,
    /// PSTATE, as SPSR_EL2 has it.
    pub pstate: u64,
    /// The system registers of EL1 and EL0.
    pub system: SystemRegisters,
    /// The keys of pointer authentication: IA, IB, DA, DB, GA, low half first.
    pub keys: [u64; 10],
    /// The virtual timer.
    pub timer: Timer,
    /// The virtual CPU interface of the GIC.
    pub gic: GicInterface,
    /// Floating point and Advanced SIMD.
    pub simd: Simd,
}

/// System registers of EL1 and EL0 that are the guest's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "each is the register of its name")]
pub struct SystemRegisters {
    pub sp_el0: u64,
    pub sp_el1: u64,
    pub elr_el1: u64,
    pub spsr_el1: u64,
    pub sctlr_el1: u64,
    pub cpacr_el1: u64,
    pub ttbr0_el1: u64,
    pub ttbr1_el1: u64,
    pub tcr_el1: u64,
    pub esr_el1: u64,
    pub afsr0_el1: u64,
    pub afsr1_el1: u64,
    pub far_el1: u64,
    pub mair_el1: u64,
    pub amair_el1: u64,
    pub vbar_el1: u64,
    pub contextidr_el1: u64,
    pub tpidr_el0: u64,
    pub tpidrro_el0: u64,
    pub tpidr_el1: u64,
    pub par_el1: u64,
    pub cntkctl_el1: u64,
    pub csselr_el1: u64,
    pub mdscr_el1: u64,
    pub disr_el1: u64,
    /// VMPIDR_EL2: what the guest reads as MPIDR_EL1.
    pub vmpidr_el2: u64,
}

/// The virtual timer, as the guest has set it. What the CPU gets is [`super::timer`]'s to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timer {
    /// CNTV_CTL_EL0.
    pub control: u64,
    /// CNTV_CVAL_EL0.
    pub compare: u64,
    /// Whether EL2 masks it in the CPU, because its interrupt is the guest's already.
    pub held: bool,
    /// CNTVOFF_EL2 while the guest runs: how much less than the physical counter its virtual one is. The same for all
    /// vCPUs of a VM, and zero unless the VM is not protected and its host has set it.
    pub offset: u64,
}

/// The virtual CPU interface of the GIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GicInterface {
    /// ICH_VMCR_EL2.
    pub vmcr: u64,
    /// `ICH_AP0R<n>_EL2`.
    pub active_priorities_0: [u64; 4],
    /// `ICH_AP1R<n>_EL2`.
    pub active_priorities_1: [u64; 4],
    /// ICH_HCR_EL2 while the guest runs.
    pub control: u64,
    /// `ICH_LR<n>_EL2`, of which the first `count` are in use.
    pub list: [u64; MAX_LIST_REGISTERS],
    /// How many list registers are in use.
    pub count: u64,
    /// ICH_MISR_EL2 after the last run.
    pub maintenance: u64,
    /// ICH_EISR_EL2 after the last run.
    pub ended: u64,
}

impl GicInterface {
    /// ICH_HCR_EL2.En: the interface works. Set while any guest runs.
    pub const ENABLE: u64 = 1 << 0;
    /// ICH_HCR_EL2.EOIcount: how many interrupts the guest ended that are in no list register.
    pub const ENDED_ELSEWHERE: u64 = 0x1f << 27;
}

/// Floating point and Advanced SIMD: V0 to V31, FPSR, FPCR. In the CPU only after the guest's first use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Simd {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u64,
    /// FPCR.
    pub fpcr: u64,
}

/// What a guest runs in: its stage 2, and its traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRegime {
    /// The slot of the VM, which is the VMID.
    pub slot: u8,
    /// The generation of the VM's handle.
    pub generation: u32,
    /// The index of the vCPU.
    pub vcpu: u8,
    /// The root of its table.
    pub root: TablePage,
    /// Bits of an IPA.
    pub ipa_bits: u32,
    /// The level at which walks start.
    pub start_level: u8,
    /// Whether the VM is protected.
    pub protected: bool,
}

/// What kind of exception brought EL2 back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapKind {
    /// A synchronous exception: the registers say which.
    Synchronous,
    /// An interrupt of the host.
    Interrupt,
    /// An SError.
    SError,
}

/// What brought EL2 back from a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// What kind.
    pub kind: TrapKind,
    /// ESR_EL2, FAR_EL2, HPFAR_EL2.
    pub registers: FaultRegisters,
}
