//! What the core asks of the machine.
//!
//! One trait, implemented by the EL2 image on the machine and by a recording double in tests. It is small on
//! purpose: pages for tables, TLB invalidation, scrubbing, EL2's own mappings, and a hook through which the core
//! reports each step whose order matters.

use crate::addr::{Frame, FrameSpan, Ipa};
use crate::geometry::Geometry;
use crate::sync::AtomicU64;
use crate::trap::id::IdRegisters;
use crate::vm::{GuestRegime, Trap, VcpuContext};
use core::fmt::Debug;
use core::ops::DerefMut;
use hyp_abi::{Counter, Features};

/// A frame that EL2 owns, keeps mapped, and uses as a table of descriptors or a node of map entries.
///
/// Only the pool makes one, or a walk that found its address in a table of EL2's own; so to hold one is to know
/// that the frame may be read and written as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TablePage(Frame);

impl TablePage {
    /// The table in `frame`. The caller vouches that the frame is EL2's, mapped at EL2, and used as a table.
    #[must_use]
    #[inline]
    pub const fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// The frame that holds the table.
    #[must_use]
    #[inline]
    pub const fn frame(self) -> Frame {
        self.0
    }
}

/// Whose translations are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regime {
    /// The host's stage 2, VMID 0.
    Host,
    /// A guest's stage 2, by its VMID (never 0).
    Guest(u16),
    /// EL2's own stage 1.
    Hyp,
}

/// Which translations of a regime must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those of a run of frames' worth of addresses.
    Range {
        /// First address (an IPA; for [`Regime::Hyp`] a virtual address, which there equals the physical one).
        start: Ipa,
        /// How many 4 KiB pages.
        pages: u64,
        /// The level of the leaf descriptors that were there, if all were of one level (1 to 3): the TTL hint.
        level: Option<u8>,
    },
    /// All of the regime.
    All,
}

/// A step whose place in the order of things matters, as the core takes it. On the machine this feeds the trace
/// ring; in tests it is the log that the order tests judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A lock was taken.
    Locked(LockName),
    /// A lock was given back.
    Unlocked(LockName),
    /// A descriptor was written.
    Descriptor {
        /// Of whose table.
        regime: Regime,
        /// First address that it translates.
        address: Ipa,
        /// Its level.
        level: u8,
        /// What was there.
        old: u64,
        /// What is there now.
        new: u64,
    },
    /// Frames got a new state in the ownership map.
    Transition {
        /// Which frames.
        frames: FrameSpan,
        /// The number of the old state.
        from: u8,
        /// The number of the new state.
        to: u8,
    },
}

/// A lock, for the log of locks. The order of the variants is the order in which they may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockName {
    /// A VM, by its slot. No two VMs are locked at once.
    Vm(u8),
    /// The host table above the regions of RAM: its device part.
    HostDevices,
    /// A region of the ownership map, by its number. Several are taken in ascending order.
    Region(u64),
    /// EL2's own stage-1 table.
    HypTable,
    /// The pages kept back for topping up the pool.
    Spare,
    /// The page pool.
    Pool,
}

/// The contents of a frame could not be reached: an external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalAbort {
    /// The frame.
    pub frame: Frame,
}

/// The host is in streaming SVE mode: the vector registers are not what a guest may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamingMode;

/// What this CPU can do for guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSupport {
    /// The fewest bits that an IPA of a guest may have: 32 with the machine's own geometry.
    pub min_ipa_bits: u32,
    /// The most: 48, or what the CPUs' physical addresses have if that is less.
    pub max_ipa_bits: u32,
    /// How many list registers the GIC's virtual CPU interfaces have: 1 to 16.
    pub list_registers: u8,
    /// How many registers of active priorities they have for each group: 1, 2 or 4.
    pub active_priorities: u8,
    /// What the interfaces of all CPUs that have come in are at least, as [`crate::vm::interface::common`] has it.
    pub interface: u64,
}

/// The machine, as the core sees it.
pub trait Hardware: Sync + Debug {
    /// Geometry of all tables and nodes.
    type Geometry: Geometry;

    /// A value that lives in a page of EL2's own: a VM, or a vCPU. Whoever has it has it alone.
    type Home<T: Debug + Send>: DerefMut<Target = T> + Debug + Send;

    /// Moves `value` to `page`, which is in no table. `T` is no larger than a page.
    fn settle<T: Debug + Send>(&self, page: TablePage, value: T) -> Self::Home<T>;

    /// Ends the life of the value in `home`, and answers its page, which must be zeroed before it is a table.
    fn vacate<T: Debug + Send>(&self, home: Self::Home<T>) -> TablePage;

    /// The entries of a table or node; exactly `Geometry::ENTRIES` of them.
    fn table(&self, page: TablePage) -> &[AtomicU64];

    /// A page from the pool, all zero and mapped at EL2, or `None` if the pool is empty. One that was reserved at boot, if
    /// there is any: the others can be given back.
    fn allocate_page(&self) -> Option<TablePage>;

    /// Gives a page back to the pool. The page is no longer part of any table, and no TLB can lead to it.
    fn free_page(&self, page: TablePage);

    /// `pages` pages of the pool side by side, a power of two up to 16, aligned to their whole size and zeroed, for the
    /// root of a guest's table; or `None` if there are none.
    fn take_root(&self, pages: u64) -> Option<TablePage>;

    /// Gives back what [`Hardware::take_root`] gave.
    fn give_root(&self, root: TablePage, pages: u64);

    /// Hands frames to the pool. They are EL2's by the ownership map, mapped at EL2, and used for nothing else.
    fn pool_add(&self, frames: FrameSpan);

    /// Takes at most `limit` free frames, which lie in one naturally aligned block of at most 64 KiB, out of the
    /// pool for good, or `None` if none is free. Never frames that EL2 reserved at boot: only such that
    /// [`Hardware::pool_add`] brought.
    fn pool_take(&self, limit: u64) -> Option<FrameSpan>;

    /// How many pages of the pool are free, and how many there are, free and used.
    fn pool_pages(&self) -> (u64, u64);

    /// Makes descriptor stores before it visible to every table walker after it (DSB ISHST).
    fn publish(&self);

    /// Removes translations from the TLBs of all CPUs, with every barrier that this needs: the stores before it
    /// are complete before the invalidation starts, and the invalidation is complete, combined stage-1 entries
    /// of the regime included, when it returns (Arm ARM DDI 0487, D8.16).
    fn invalidate(&self, regime: Regime, extent: Extent);

    /// Writes zeros to at most 64 KiB of frames that only EL2 may reach, and cleans them to the point of coherency.
    ///
    /// # Errors
    /// [`ExternalAbort`] if the memory answers with one.
    fn scrub(&self, frames: FrameSpan) -> Result<(), ExternalAbort>;

    /// Finds out whether at most 64 KiB of frames answer, which EL2 has mapped and nobody else may reach: writes zeros to
    /// one after the other, cleans them to the point of coherency, and reads them back. What lies behind one that does not
    /// answer is left as it is.
    ///
    /// # Errors
    /// [`ExternalAbort`] if the memory answers with one.
    fn prove(&self, frames: FrameSpan) -> Result<(), ExternalAbort>;

    /// Cleans and invalidates at most 64 KiB of frames to the point of coherency, so that nothing of what the
    /// last owner wrote is still on its way.
    fn clean(&self, frames: FrameSpan);

    /// The SHA-256 of the contents of a frame that only EL2 may reach.
    ///
    /// # Errors
    /// [`ExternalAbort`] if the memory answers with one.
    fn digest(&self, frame: Frame) -> Result<[u8; 32], ExternalAbort>;

    /// Removes what the instruction caches of all CPUs hold: a guest may be about to execute from frames that had
    /// other contents.
    fn invalidate_code(&self);

    /// Reads 64-bit words, each once, of a pinned frame that the host may write at any time, from the word with index
    /// `first` on.
    ///
    /// # Errors
    /// [`ExternalAbort`] if the memory answers with one, or if the words do not lie in the frame.
    fn shared_load(&self, frame: Frame, first: usize, words: &mut [u64]) -> Result<(), ExternalAbort>;

    /// Writes words, each once, of a pinned frame that the host may read and write at any time.
    ///
    /// # Errors
    /// As for [`Hardware::shared_load`]. Some words may have been written.
    fn shared_store(&self, frame: Frame, first: usize, words: &[u64]) -> Result<(), ExternalAbort>;

    /// Takes the host's EL1 state off this CPU and loads the guest's. Between this and [`Hardware::put_guest`] nothing
    /// but [`Hardware::run_guest`] and work of EL2's happens on this CPU.
    ///
    /// # Errors
    /// [`StreamingMode`]; then nothing was done.
    fn load_guest(&self, guest: &GuestRegime, vcpu: &mut VcpuContext) -> Result<(), StreamingMode>;

    /// Runs the loaded guest until something traps to EL2. The general-purpose registers, PC and PSTATE are in `vcpu`
    /// before and after it; the rest of its state is in the CPU.
    fn run_guest(&self, vcpu: &mut VcpuContext) -> Trap;

    /// Saves the guest's state to `vcpu`, and gives the CPU back to the host.
    fn put_guest(&self, guest: &GuestRegime, vcpu: &mut VcpuContext);

    /// Where stage 1 of the loaded guest takes a virtual address; `None` if nowhere.
    fn translate_guest(&self, far: u64) -> Option<Ipa>;

    /// Has the loaded guest take an exception at EL1: its ELR_EL1, SPSR_EL1, ESR_EL1 and, where given, FAR_EL1. PC and
    /// PSTATE are the caller's to set in the context.
    fn enter_guest_exception(&self, entry: &crate::trap::inject::Entry);

    /// What the loaded guest's SCTLR_EL1, VBAR_EL1 hold, for an exception that it is to take, with its PC and PSTATE.
    fn guest_exception_source(&self, vcpu: &VcpuContext) -> crate::trap::inject::Source;

    /// What this CPU can do for guests.
    fn guest_support(&self) -> GuestSupport;

    /// Whether this CPU may report a fault of stage 1 as one of stage 2 (Cortex-A57 erratum 834220), so that HPFAR_EL2
    /// is not to be believed.
    fn reports_wrong_stage(&self) -> bool;

    /// `index` where it is below `bound`, and else 0, on paths too that the CPU takes only by guess. For an index out of a
    /// register of the host's or a guest's, by which a value is read that then leads to an address: past a check that was
    /// guessed right, what lies behind the array would lead to one, and the caches would tell it (Spectre, variant 1; Arm,
    /// "Cache Speculation Side-channels": a conditional select and CSDB).
    #[inline(always)]
    fn bounded(&self, index: usize, bound: usize) -> usize {
        if index < bound { index } else { 0 }
    }

    /// 64 bits of entropy, or `None` if there is none at the moment.
    fn entropy(&self) -> Option<u64>;

    /// Whether an interrupt waits for the host on this CPU, so that long work should stop soon.
    fn interrupt_pending(&self) -> bool;

    /// Adds to a counter of this CPU.
    fn count(&self, counter: Counter, amount: u64);

    /// The counter of a CPU (in the order of the device tree), or `None` if there is no such CPU.
    fn counter(&self, cpu: usize, counter: Counter) -> Option<u64>;

    /// How many CPUs the machine has.
    fn cpus(&self) -> usize;

    /// Moves `frames` frames from one state to another in the running totals, which are kept for each CPU so that
    /// no two CPUs meet here. States go by their number, which is below 16.
    fn tally(&self, frames: u64, from: u8, to: u8);

    /// How many more frames are in a state than when the map was made, and all were the host's: the sum over all
    /// CPUs, modulo 2^64.
    fn tallied(&self, state: u8) -> u64;

    /// Lets the trace records of a CPU go to a frame that is pinned and mapped at EL2. Answers `false`, and does
    /// nothing, if that CPU has a ring already. `cpu` is below [`Hardware::cpus`].
    fn trace_attach(&self, cpu: usize, ring: Frame) -> bool;

    /// Where the trace records of a CPU go, if it has a ring. `cpu` is below [`Hardware::cpus`].
    fn trace_ring(&self, cpu: usize) -> Option<Frame>;

    /// Ends the tracing of a CPU to `ring`, to which no record is written once this returns. Answers `false`, and
    /// does nothing, if that is not where its records go.
    fn trace_detach(&self, cpu: usize, ring: Frame) -> bool;

    /// Bytes that EL2 reserved at boot.
    fn reserved_bytes(&self) -> u64;

    /// The ID registers of the CPU that booted, from which it is computed what guests see.
    fn id_registers(&self) -> &IdRegisters;

    /// What this machine can do, for the answer of [`hyp_abi::HostCall::Version`].
    fn features(&self) -> Features;

    /// Hears of a step whose order matters. Costs nothing where nobody listens.
    #[inline]
    fn observe(&self, event: Event) {
        let _ = event;
    }
}
