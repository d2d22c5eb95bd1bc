//! The page through which host and EL2 pass what belongs to one run of a vCPU.
//!
//! The host shares the page with EL2 and names it when it creates the vCPU; EL2 pins it. It is an array of 64-bit
//! little-endian words. Before [`crate::VmCall::Run`] the host writes the *entry record*, after it the host
//! reads the *exit record*. EL2 reads each word of the entry record at most once, and never reads the exit record.
//! Of a protected guest the exit record holds only what the exit needs.
//!
//! | words | what |
//! |---|---|
//! | 0 | [`EntryFlags`] |
//! | 1 | [`Answer`] to the last exit, with `EntryFlags::ANSWER` |
//! | 2 to 5 | the answer's values |
//! | 6 | how many list registers follow, with `EntryFlags::INTERRUPTS` |
//! | 7 | ICH_HCR_EL2: only the maintenance interrupt enables, UIE to VGrp1DIE, count |
//! | 8 to 23 | list registers, as `ICH_LR<n>_EL2` |
//! | 64 | [`ExitReason`] |
//! | 65 to 71 | the exit's values |
//! | 72 | how many list registers follow |
//! | 73 | ICH_MISR_EL2 |
//! | 74 | ICH_EISR_EL2 |
//! | 75 | CNTV_CTL_EL0: ENABLE, IMASK, ISTATUS, as the guest left it |
//! | 76 | CNTV_CVAL_EL0 |
//! | 77 | ICH_HCR_EL2: only EOIcount (bits 31:27) |
//! | 80 to 95 | list registers |
//!
//! The virtual timer is the guest's. EL2 stops it while the host runs: if word 75 says that it is enabled, not masked
//! and due, the host injects its interrupt (INTID 27); if it is not yet due, the host sets an alarm for word 76. That is
//! in the guest's time, which is the host's less the offset that the host has given the VM
//! ([`crate::VcpuRegister::CounterOffset`]), if it has.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// Word of the flags of the entry record.
pub const ENTRY_FLAGS: usize = 0;
/// Word of the answer.
pub const ENTRY_ANSWER: usize = 1;
/// First word of the answer's four values.
pub const ENTRY_VALUES: usize = 2;
/// Word of the number of list registers.
pub const ENTRY_LIST_COUNT: usize = 6;
/// Word of ICH_HCR_EL2.
pub const ENTRY_ICH_HCR: usize = 7;
/// First word of the list registers.
pub const ENTRY_LIST: usize = 8;
/// Word of the exit's reason.
pub const EXIT_REASON: usize = 64;
/// First word of the exit's seven values.
pub const EXIT_VALUES: usize = 65;
/// How many values an exit has at most.
pub const EXIT_VALUE_COUNT: usize = 7;
/// Word of the number of list registers.
pub const EXIT_LIST_COUNT: usize = 72;
/// Word of ICH_MISR_EL2.
pub const EXIT_ICH_MISR: usize = 73;
/// Word of ICH_EISR_EL2.
pub const EXIT_ICH_EISR: usize = 74;
/// Word of CNTV_CTL_EL0.
pub const EXIT_TIMER_CONTROL: usize = 75;
/// Word of CNTV_CVAL_EL0.
pub const EXIT_TIMER_COMPARE: usize = 76;
/// Word of ICH_HCR_EL2.EOIcount: how many interrupts the guest ended that are in no list register.
pub const EXIT_ICH_HCR: usize = 77;
/// First word of the list registers.
pub const EXIT_LIST: usize = 80;
/// The most list registers that a CPU can have.
pub const MAX_LIST_REGISTERS: usize = 16;

bitflags::bitflags! {
    /// What of the entry record EL2 is to read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EntryFlags: u64 {
        /// The answer and its values.
        const ANSWER = 1 << 0;
        /// The list registers. Without this flag they are as the last exit left them.
        const INTERRUPTS = 1 << 1;
    }
}

/// What the host says to the exit before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum Answer {
    /// Do again what the guest wanted. Answers every exit that waits for something; also what no answer means.
    Retry = 0,
    /// Refuse what the guest wanted. Answers [`ExitReason::Pinned`] (the guest's call fails),
    /// [`ExitReason::MemoryFault`], [`ExitReason::MmioRead`] and [`ExitReason::MmioWrite`] (the guest gets a
    /// synchronous external abort, or its call fails).
    Refuse = 1,
    /// It is done. Answers [`ExitReason::MmioRead`] (the first value is what was read), [`ExitReason::MmioWrite`],
    /// and [`ExitReason::HostService`] (the four values are x0 to x3).
    Done = 2,
}

/// Why a vCPU stopped running. Values that are not named are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum ExitReason {
    /// An interrupt waits for the host, or EL2 stopped to let one through.
    Interrupt = 0,
    /// The guest waits for an interrupt: WFI, WFE or PSCI CPU_SUSPEND. Value 0: [`WaitKind`].
    Wait = 1,
    /// The guest has no page at a place in its memory. Value 0: gfn; value 1: [`AccessFlags`]. The host donates or
    /// shares the page and runs the vCPU again.
    ///
    /// Beside the declared memory, a VM that is not protected exits so with a fetch, and with what no syndrome describes,
    /// where it has no page: the host may share one, or answers [`Answer::Refuse`]. What it stores in a page that it may only
    /// read is one to a device there.
    MemoryFault = 2,
    /// A load from a device that the host emulates. Value 0: IPA; value 1: bytes (1, 2, 4 or 8).
    MmioRead = 3,
    /// A store to one. Value 0: IPA; value 1: bytes; value 2: what is stored, zero-extended.
    MmioWrite = 4,
    /// EL2 needs pages for what the guest wants. Value 0: how many to add with [`crate::VmCall::TopUp`].
    MemoryNeeded = 5,
    /// The guest wants a page for itself that the host has pinned. Value 0: gfn. The host unpins and answers
    /// [`Answer::Retry`], or answers [`Answer::Refuse`].
    Pinned = 6,
    /// The guest calls a service of the host's. Value 0: function identifier; values 1 to 6: x1 to x6.
    HostService = 7,
    /// The guest sends software-generated interrupts. Value 0: what it wrote; value 1: to which register, [`SgiRegister`].
    SendInterrupt = 8,
    /// The guest turned another of its vCPUs on. Value 0: its index. The host runs both from now on.
    CpuOn = 9,
    /// The vCPU turned itself off. It cannot run until another turns it on.
    CpuOff = 10,
    /// The guest turned itself off: PSCI SYSTEM_OFF. No vCPU can be run any more. Those that run on other CPUs meanwhile
    /// go on until their next exit, which the host hastens by an interrupt; they cannot be run again either.
    SystemOff = 11,
    /// The guest wants a reset: PSCI SYSTEM_RESET. No vCPU can run any more, as after [`ExitReason::SystemOff`]: a new
    /// launch takes a new VM.
    SystemReset = 12,
    /// The guest has touched a page that was taken from it by force. Value 0: gfn. It meets it again when it is run
    /// again.
    Lost = 13,
    /// The guest gave pages up. Value 0: gfn of the first; value 1: how many. The host drops what references it has
    /// and takes them with [`crate::VmCall::TakeBack`], which tells of one that turned out to be broken: the guest is rid
    /// of that too, and nobody gets it.
    Relinquished = 14,
    /// The guest did something that EL2 does not carry out. Value 0: the exception class.
    Unhandled = 15,
}

/// How a guest waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum WaitKind {
    /// WFI.
    Interrupt = 0,
    /// WFE.
    Event = 1,
    /// PSCI CPU_SUSPEND.
    Suspend = 2,
}

/// By which register a guest sends software-generated interrupts (IHI 0069, 12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
pub enum SgiRegister {
    /// ICC_SGI1R_EL1: group 1 of the sender's own Security state.
    Group1 = 0,
    /// ICC_ASGI1R_EL1: group 1 of the other Security state.
    OtherGroup1 = 1,
    /// ICC_SGI0R_EL1: group 0.
    Group0 = 2,
}

bitflags::bitflags! {
    /// How a guest reached for a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AccessFlags: u64 {
        /// By a store.
        const WRITE = 1 << 0;
        /// By an instruction fetch.
        const FETCH = 1 << 1;
        /// By a walk of its own tables.
        const WALK = 1 << 2;
        /// By a call of its own, which is restarted.
        const CALL = 1 << 3;
    }
}
