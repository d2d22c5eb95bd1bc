//! A double of the machine, for tests: simulated memory, a pool that can run dry, a TLB that caches what it may,
//! and a log of every step whose order matters.
//!
//! - [`Machine`]: the double. Everything that a test can set or ask is one of its methods.
//! - [`Step`]: an entry of the log.
//! - [`Contents`]: what a frame holds, as far as anybody cares.
//! - [`tlb`]: translations that CPUs may hold; a missing invalidation, a skipped break-before-make, a table freed
//!   too early or a frame scrubbed too early panics there, where no CPU of an emulator would notice.
//!
//! Under `--cfg shuttle` a machine must be made inside the execution that is explored.

mod contents;
mod guest;
mod pool;
mod script;
mod snapshot;
mod store;
mod system;
pub mod tlb;

#[cfg(test)]
mod tests;

pub use contents::Contents;
pub use guest::{Home, Program};
pub use snapshot::Snapshot;
pub use system::{identity, system, system_with_places};

use crate::addr::{Frame, FrameSpan, Ipa};
use crate::geometry::Geometry;
use crate::hardware::{
    Event, Extent, ExternalAbort, GuestSupport, Hardware, LockName, Regime, StreamingMode, TablePage,
};
use crate::pgtable::{Format, Table};
use crate::sync::{AtomicU64, Lock, Ordering};
use crate::trap::id::IdRegisters;
use crate::trap::inject::{Entry, Source};
use crate::vm::{GuestRegime, Trap, TrapKind, VcpuContext};
use contents::Memory;
use core::fmt::Debug;
use core::mem;
use hyp_abi::{Counter, Features};
use pool::Pool;
use script::Script;
use sha2::{Digest as _, Sha256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;
use store::TableStore;
use tlb::Tlb;

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The core reported an event. The pool's own lock is reported like the core's locks.
    Core(Event),
    /// Descriptors were made visible to table walks.
    Publish,
    /// Translations were removed.
    Invalidate(Regime, Extent),
    /// Frames were zeroed and cleaned.
    Scrub(FrameSpan),
    /// Frames were zeroed, cleaned and read back, one by one.
    Prove(FrameSpan),
    /// Frames were cleaned.
    Clean(FrameSpan),
    /// The contents of a frame were digested.
    Digest(Frame),
    /// Instruction caches were emptied.
    InvalidateCode,
    /// A word of a frame was read that the host may write at any time.
    SharedLoad(Frame, usize),
    /// A page left the pool for a table.
    Allocate(TablePage),
    /// A page came back to the pool from a table.
    Free(TablePage),
    /// The host's state left the CPU, and a vCPU's came.
    LoadGuest(GuestRegime),
    /// The loaded vCPU ran until it trapped.
    RunGuest(TrapKind),
    /// An address of the loaded guest was translated.
    TranslateGuest,
    /// The vCPU's state left the CPU, and the host's came back.
    PutGuest,
}

/// The double. See the module's documentation.
#[derive(Debug)]
pub struct Machine<G: Geometry> {
    tables: TableStore<G>,
    pool: Lock<Pool>,
    log: Mutex<Option<Vec<Step>>>,
    memory: Mutex<Memory>,
    tlb: Mutex<Tlb>,
    script: Script,
    guests: guest::Guests,
}

/// Takes a lock of the double's own bookkeeping, which no schedule is explored around.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G: Geometry> Machine<G> {
    /// A machine with this RAM, of which EL2 reserved `boot_pool` at boot for its tables.
    #[must_use]
    pub fn new(ram: &[FrameSpan], boot_pool: FrameSpan) -> Self {
        Self {
            tables: TableStore::new(ram.iter().copied().chain([boot_pool])),
            pool: Lock::new(Pool::new(boot_pool, G::STEP_FRAMES)),
            log: Mutex::new(Some(Vec::new())),
            memory: Mutex::new(Memory::default()),
            tlb: Mutex::new(Tlb::default()),
            script: Script::default(),
            guests: guest::Guests::default(),
        }
    }

    /// A machine that is nothing but a pool of `pages` pages.
    ///
    /// # Panics
    /// If `pages` is zero or absurd.
    #[must_use]
    pub fn with_pool(pages: u64) -> Self {
        let start = Frame::new(0x8_0000).expect("a small number");
        Self::new(
            &[],
            FrameSpan::new(start, pages).expect("a pool has pages, and not too many"),
        )
    }

    /// A word, by its index, of a page that host and EL2 use together, as the host reads it.
    #[must_use]
    pub fn word(&self, frame: Frame, word: usize) -> u64 {
        held(&self.memory).word(frame, word)
    }

    /// Writes such a word, as the host does.
    pub fn set_word(&self, frame: Frame, word: usize, value: u64) {
        held(&self.memory).set_word(frame, word, value);
    }

    /// Takes `count` pages out of the pool that lie side by side and are aligned to their whole size, as a root.
    ///
    /// # Panics
    /// If the pool has none.
    #[must_use]
    pub fn allocate_root(&self, count: u64) -> TablePage {
        let first = self
            .pool
            .lock()
            .take_aligned(count)
            .expect("the pool has room for a root");
        for frame in FrameSpan::new(first, count).into_iter().flat_map(FrameSpan::iter) {
            self.tables.clear(frame);
        }
        TablePage::new(first)
    }

    /// Lets the pool give out at most `pages` more pages, or with `None` all that it has.
    pub fn limit_pool(&self, pages: Option<u64>) {
        self.pool.lock().limit(pages);
    }

    /// Starts or stops recording.
    pub fn record(&self, on: bool) {
        *held(&self.log) = on.then(Vec::new);
    }

    /// The log since it was last taken.
    #[must_use]
    pub fn take_log(&self) -> Vec<Step> {
        held(&self.log).as_mut().map(mem::take).unwrap_or_default()
    }

    /// What a frame holds.
    #[must_use]
    pub fn contents(&self, frame: Frame) -> Contents {
        held(&self.memory).contents(frame)
    }

    /// Its owner writes to a frame: something that can be recognized later.
    pub fn write(&self, frame: Frame, what: u64) {
        held(&self.memory).write(frame, what);
    }

    /// Whether what was last written to the frame may still be on its way to memory.
    #[must_use]
    pub fn is_dirty(&self, frame: Frame) -> bool {
        held(&self.memory).is_dirty(frame)
    }

    /// From now on an access to the frame is an external abort.
    pub fn poison(&self, frame: Frame) {
        held(&self.memory).poison(frame);
    }

    /// Breaks a frame, or mends it.
    pub fn set_poisoned(&self, frame: Frame, broken: bool) {
        if broken {
            held(&self.memory).poison(frame);
        } else {
            held(&self.memory).mend(frame);
        }
    }

    /// Lets an interrupt wait after it has been asked for `polls` times in vain; `None` is never.
    pub fn interrupt_after(&self, polls: Option<u64>) {
        self.script.interrupt_after(polls);
    }

    /// Says which CPU the core's calls come from, for its counters.
    pub fn set_cpu(&self, cpu: usize) {
        self.script.set_cpu(cpu);
    }

    /// Says what the machine's CPUs can do.
    pub fn set_features(&self, features: Features) {
        self.script.set_features(features);
    }

    /// Lets the TLB hold, from now on, whatever a CPU may hold of `table` for these addresses: it walks the table
    /// for them after every step.
    pub fn watch<F: Format>(&self, table: &Table<F, G>, addresses: impl IntoIterator<Item = Ipa>) {
        held(&self.tlb).watch(table, addresses);
        self.speculate();
    }

    /// Where a CPU that uses `ia` in `regime` may go: every translation that it may hold or find. Only of a table
    /// and an address that is watched.
    #[must_use]
    pub fn reach(&self, regime: Regime, ia: Ipa) -> Vec<tlb::Translation> {
        self.speculate();
        held(&self.tlb).reach(regime, ia)
    }

    /// Checks that for all watched addresses CPUs hold nothing but what the tables say now.
    ///
    /// # Panics
    /// If a stale translation is left.
    pub fn assert_coherent(&self) {
        let (walks, _) = self.walks();
        held(&self.tlb).assert_coherent(&walks);
    }

    /// Stops watching, and lets all CPUs forget what they hold.
    pub fn unwatch(&self) {
        *held(&self.tlb) = Tlb::default();
    }

    /// How many pages the pool has given out.
    #[must_use]
    pub fn pages_in_use(&self) -> u64 {
        self.pool.lock().in_use()
    }

    fn log(&self, step: Step) {
        if let Some(log) = held(&self.log).as_mut() {
            log.push(step);
        }
    }

    /// Walks the watched tables for the watched addresses, and says after how many invalidations. The tables are read without the TLB's lock: their
    /// entries are what the explored schedules are about.
    fn walks(&self) -> (Vec<tlb::Walk>, u64) {
        let (starts, invalidations) = held(&self.tlb).starts();
        let walks = starts
            .into_iter()
            .map(|start| start.walk::<G>(|page, index| self.tables.read(page, index)))
            .collect();
        (walks, invalidations)
    }

    /// Lets the TLB hold all that it may.
    fn speculate(&self) {
        if held(&self.tlb).is_idle() {
            return;
        }
        // What a walk finds may itself be where the next one starts.
        while {
            let (walks, invalidations) = self.walks();
            held(&self.tlb).hold(walks, invalidations)
        } {}
    }

    /// Runs `action` on the pool, and reports its lock as the core reports its own.
    fn with_pool_lock<T>(&self, action: impl FnOnce(&mut Pool) -> T) -> T {
        let mut pool = self.pool.lock();
        self.log(Step::Core(Event::Locked(LockName::Pool)));
        let result = action(&mut pool);
        self.log(Step::Core(Event::Unlocked(LockName::Pool)));
        result
    }
}

impl<G: Geometry> Hardware for Machine<G> {
    type Geometry = G;

    type Home<T: Debug + Send> = Home<T>;

    fn settle<T: Debug + Send>(&self, page: TablePage, value: T) -> Home<T> {
        Home::new(page, value)
    }

    fn vacate<T: Debug + Send>(&self, home: Home<T>) -> TablePage {
        home.into_page()
    }

    fn table(&self, page: TablePage) -> &[AtomicU64] {
        self.tables.get(page.frame())
    }

    fn allocate_page(&self) -> Option<TablePage> {
        let frame = self.with_pool_lock(Pool::take)?;
        self.tables.clear(frame);
        let page = TablePage::new(frame);
        self.count(Counter::PoolAllocations, 1);
        self.log(Step::Allocate(page));
        Some(page)
    }

    fn free_page(&self, page: TablePage) {
        held(&self.tlb).assert_no_walk_reads(page);
        // What still reads the page as a table goes far astray.
        for entry in self.table(page) {
            entry.store(u64::MAX, Ordering::Relaxed);
        }
        self.log(Step::Free(page));
        self.with_pool_lock(|pool| pool.give(page.frame()));
    }

    fn take_root(&self, pages: u64) -> Option<TablePage> {
        let first = self.with_pool_lock(|pool| pool.take_aligned(pages))?;
        for frame in FrameSpan::new(first, pages)?.iter() {
            self.tables.clear(frame);
            self.log(Step::Allocate(TablePage::new(frame)));
        }
        self.count(Counter::PoolAllocations, pages);
        Some(TablePage::new(first))
    }

    fn give_root(&self, root: TablePage, pages: u64) {
        held(&self.tlb).forget_root(root);
        for frame in (0..pages).filter_map(|number| root.frame().checked_add(number)) {
            self.free_page(TablePage::new(frame));
        }
    }

    fn pool_add(&self, frames: FrameSpan) {
        held(&self.memory).occupy(frames);
        self.with_pool_lock(|pool| pool.add(frames));
    }

    fn pool_take(&self, limit: u64) -> Option<FrameSpan> {
        self.with_pool_lock(|pool| pool.remove(limit))
    }

    fn pool_pages(&self) -> (u64, u64) {
        let pool = self.pool.lock();
        (pool.free(), pool.free() + pool.in_use())
    }

    fn publish(&self) {
        self.log(Step::Publish);
        self.speculate();
    }

    fn invalidate(&self, regime: Regime, extent: Extent) {
        self.speculate();
        self.log(Step::Invalidate(regime, extent));
        self.count(Counter::TlbInvalidations, 1);
        held(&self.tlb).invalidate(regime, extent);
        self.speculate();
    }

    fn scrub(&self, frames: FrameSpan) -> Result<(), ExternalAbort> {
        assert!(frames.frames() <= G::STEP_FRAMES, "more than 64 KiB in one step");
        self.speculate();
        held(&self.tlb).assert_unreachable(frames);
        self.log(Step::Scrub(frames));
        self.count(Counter::FramesScrubbed, frames.frames());
        held(&self.memory).scrub(frames)
    }

    fn prove(&self, frames: FrameSpan) -> Result<(), ExternalAbort> {
        assert!(frames.frames() <= G::STEP_FRAMES, "more than 64 KiB in one step");
        self.speculate();
        held(&self.tlb).assert_unreachable(frames);
        self.log(Step::Prove(frames));
        self.count(Counter::FramesScrubbed, frames.frames());
        held(&self.memory).scrub(frames)
    }

    fn clean(&self, frames: FrameSpan) {
        assert!(frames.frames() <= G::STEP_FRAMES, "more than 64 KiB in one step");
        self.speculate();
        held(&self.tlb).assert_unreachable(frames);
        self.log(Step::Clean(frames));
        held(&self.memory).clean(frames);
    }

    fn digest(&self, frame: Frame) -> Result<[u8; 32], ExternalAbort> {
        self.speculate();
        held(&self.tlb).assert_unreachable(FrameSpan::single(frame));
        self.log(Step::Digest(frame));
        let contents = held(&self.memory).read(frame)?;
        Ok(Sha256::digest(std::format!("{contents:?}")).into())
    }

    fn invalidate_code(&self) {
        self.log(Step::InvalidateCode);
    }

    fn shared_load(&self, frame: Frame, first: usize, words: &mut [u64]) -> Result<(), ExternalAbort> {
        held(&self.memory).read(frame)?;
        for (word, value) in (first..).zip(words) {
            self.log(Step::SharedLoad(frame, word));
            *value = self.word(frame, word);
        }
        Ok(())
    }

    fn shared_store(&self, frame: Frame, first: usize, words: &[u64]) -> Result<(), ExternalAbort> {
        held(&self.memory).read(frame)?;
        for (word, value) in (first..).zip(words) {
            self.set_word(frame, word, *value);
        }
        Ok(())
    }

    fn load_guest(&self, guest: &GuestRegime, vcpu: &mut VcpuContext) -> Result<(), StreamingMode> {
        self.guest_load(guest, vcpu)?;
        self.log(Step::LoadGuest(*guest));
        Ok(())
    }

    fn run_guest(&self, vcpu: &mut VcpuContext) -> Trap {
        let trap = self.guest_run(vcpu);
        self.log(Step::RunGuest(trap.kind));
        trap
    }

    fn put_guest(&self, guest: &GuestRegime, vcpu: &mut VcpuContext) {
        self.guest_put(guest, vcpu);
        self.log(Step::PutGuest);
    }

    fn translate_guest(&self, far: u64) -> Option<Ipa> {
        self.log(Step::TranslateGuest);
        self.guest_translate(far)
    }

    fn enter_guest_exception(&self, entry: &Entry) {
        self.guest_exception(entry);
    }

    fn guest_exception_source(&self, vcpu: &VcpuContext) -> Source {
        self.guest_source(vcpu)
    }

    fn guest_support(&self) -> GuestSupport {
        // A geometry whose tables resolve less than a guest of the machine has makes smaller guests.
        let most = G::level_shift(0) + G::BITS_PER_LEVEL;
        GuestSupport {
            min_ipa_bits: most.min(32),
            max_ipa_bits: most.min(48),
            list_registers: 4,
            active_priorities: 2,
            // 32 priorities, 16-bit numbers, 4 list registers.
            interface: 0x9000_0003,
        }
    }

    fn reports_wrong_stage(&self) -> bool {
        false
    }

    fn entropy(&self) -> Option<u64> {
        self.take_entropy()
    }

    fn interrupt_pending(&self) -> bool {
        self.script.poll()
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.script.count(counter, amount);
    }

    fn counter(&self, cpu: usize, counter: Counter) -> Option<u64> {
        self.script.counter(cpu, counter)
    }

    fn cpus(&self) -> usize {
        script::CPUS
    }

    fn tally(&self, frames: u64, from: u8, to: u8) {
        self.script.tally(frames, from, to);
    }

    fn tallied(&self, state: u8) -> u64 {
        self.script.tallied(state)
    }

    fn trace_attach(&self, cpu: usize, ring: Frame) -> bool {
        self.script.attach(cpu, ring)
    }

    fn trace_ring(&self, cpu: usize) -> Option<Frame> {
        self.script.ring(cpu)
    }

    fn trace_detach(&self, cpu: usize, ring: Frame) -> bool {
        self.script.detach(cpu, ring)
    }

    fn reserved_bytes(&self) -> u64 {
        self.pool.lock().boot_pages() << crate::addr::FRAME_SHIFT
    }

    fn id_registers(&self) -> &IdRegisters {
        &guest::CPU
    }

    fn features(&self) -> Features {
        self.script.features()
    }

    fn observe(&self, event: Event) {
        self.log(Step::Core(event));
        if matches!(event, Event::Descriptor { .. }) {
            self.speculate();
        }
    }
}
