//! The machine, as hyp-core sees it: [`hyp_core::Hardware`] made of the pool, the doors and the per-CPU data.

#![expect(unsafe_code, reason = "turns the frames of tables into references")]

use crate::home::Home;
use crate::percpu::PerCpu;
use crate::{barrier, cache, copy, cpu, digest, exit, machine, pool, tlb, window, world};
use aarch64_cpu::registers::{SCTLR_EL1, VBAR_EL1};
use core::fmt::Debug;
use core::ptr;
use core::slice;
use hyp_abi::trace::TraceEvent;
use hyp_abi::vm::IPA_BITS;
use hyp_abi::{Counter, Features};
use hyp_core::Hardware;
use hyp_core::addr::{FRAME_SIZE, Frame, FrameSpan, Ipa};
use hyp_core::geometry::{Arm4K, Geometry};
use hyp_core::hardware::{Event, Extent, ExternalAbort, GuestSupport, Regime, StreamingMode, TablePage};
use hyp_core::sync::AtomicU64;
use hyp_core::trap::id::IdRegisters;
use hyp_core::trap::inject::{Entry, Source};
use hyp_core::vm::{GuestRegime, Trap, VcpuContext};
use tock_registers::interfaces::Readable;

/// This machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine;

impl Hardware for Machine {
    type Geometry = Arm4K;
    type Home<T: Debug + Send> = Home<T>;

    fn settle<T: Debug + Send>(&self, page: TablePage, value: T) -> Home<T> {
        Home::settle(page, value)
    }

    fn vacate<T: Debug + Send>(&self, home: Home<T>) -> TablePage {
        home.vacate()
    }

    #[inline]
    fn table(&self, page: TablePage) -> &[AtomicU64] {
        let entries: *const AtomicU64 = ptr::with_exposed_provenance(page.frame().address().value() as usize);
        // SAFETY: a `TablePage` is a frame of EL2's, mapped at its own address, and used as a table; tables are
        // only ever reached through atomics.
        unsafe { slice::from_raw_parts(entries, Arm4K::ENTRIES) }
    }

    fn allocate_page(&self) -> Option<TablePage> {
        let page = pool::allocate();
        if page.is_some() {
            self.count(Counter::PoolAllocations, 1);
        }
        page
    }

    fn free_page(&self, page: TablePage) {
        pool::free(page);
    }

    fn take_root(&self, pages: u64) -> Option<TablePage> {
        let root = pool::allocate_block(pages);
        if root.is_some() {
            self.count(Counter::PoolAllocations, pages);
        }
        root
    }

    fn give_root(&self, root: TablePage, pages: u64) {
        pool::free_block(root, pages);
    }

    fn pool_add(&self, frames: FrameSpan) {
        #[cfg(feature = "canary")]
        let frames = crate::canary::plant_in(frames);
        // SAFETY: the core has just made these frames EL2's and mapped them.
        unsafe { pool::add(frames) };
    }

    fn pool_take(&self, limit: u64) -> Option<FrameSpan> {
        pool::take(limit)
    }

    fn pool_pages(&self) -> (u64, u64) {
        pool::pages()
    }

    #[inline]
    fn publish(&self) {
        barrier::dsb_ishst();
        // EL2's own walks, where the table is EL2's, must not be ahead of the stores either.
        barrier::isb();
    }

    fn invalidate(&self, regime: Regime, extent: Extent) {
        tlb::invalidate(regime, extent);
    }

    fn scrub(&self, frames: FrameSpan) -> Result<(), ExternalAbort> {
        let done = window::with(frames, |start, end| {
            // SAFETY: the window maps it for writing, and shows frames that only EL2 may reach.
            let zeroed = unsafe { cache::zero(start, end) };
            // The frames before a broken one go to the host, which may read them past the caches.
            let end = zeroed.map_or_else(|at| at - at % FRAME_SIZE, |()| end);
            if end > start {
                // SAFETY: the window maps it.
                unsafe { cache::clean_invalidate(start, end) }?;
            }
            zeroed
        });
        self.count(Counter::FramesScrubbed, frames.frames());
        done.map_err(|at| {
            let frame = frames.start().checked_add(window::frame_offset(at));
            ExternalAbort {
                frame: frame.unwrap_or(frames.start()),
            }
        })
    }

    fn prove(&self, frames: FrameSpan) -> Result<(), ExternalAbort> {
        self.count(Counter::FramesScrubbed, frames.frames());
        for frame in frames.iter() {
            let start = frame.address().value();
            let end = start + FRAME_SIZE;
            // SAFETY: the core has mapped the frame for writing at its own address, and only EL2 may reach it.
            unsafe { cache::zero(start, end) }
                // Only what has left the caches is read back from memory.
                // SAFETY: as above.
                .and_then(|()| unsafe { cache::clean_invalidate(start, end) })
                // SAFETY: as above.
                .and_then(|()| unsafe { copy::read(start, end, &mut |_| {}) })
                .map_err(|_| ExternalAbort { frame })?;
        }
        Ok(())
    }

    fn clean(&self, frames: FrameSpan) {
        // An abort is the next reader's to hear of: nothing is read here.
        let _ = window::with(frames, |start, end| {
            // SAFETY: the window maps it.
            unsafe { cache::clean_invalidate(start, end) }
        });
    }

    fn digest(&self, frame: Frame) -> Result<[u8; 32], ExternalAbort> {
        let digest = window::with(FrameSpan::single(frame), |start, end| {
            // SAFETY: the window maps it.
            unsafe { digest::of(start, end) }
        });
        digest.map_err(|_| ExternalAbort { frame })
    }

    fn invalidate_code(&self) {
        tlb::invalidate_code();
    }

    #[inline]
    fn shared_load(&self, frame: Frame, first: usize, words: &mut [u64]) -> Result<(), ExternalAbort> {
        copy::shared_load(frame, first, words).map_err(|_| ExternalAbort { frame })
    }

    #[inline]
    fn shared_store(&self, frame: Frame, first: usize, words: &[u64]) -> Result<(), ExternalAbort> {
        copy::shared_store(frame, first, words).map_err(|_| ExternalAbort { frame })
    }

    fn load_guest(&self, guest: &GuestRegime, vcpu: &mut VcpuContext) -> Result<(), StreamingMode> {
        world::load(guest, vcpu)
    }

    #[inline]
    fn run_guest(&self, vcpu: &mut VcpuContext) -> Trap {
        world::run(vcpu)
    }

    fn put_guest(&self, _guest: &GuestRegime, vcpu: &mut VcpuContext) {
        world::put(vcpu);
    }

    fn translate_guest(&self, far: u64) -> Option<Ipa> {
        cpu::translate_as_el1(far)
    }

    fn enter_guest_exception(&self, entry: &Entry) {
        exit::write_exception(entry);
    }

    fn guest_exception_source(&self, vcpu: &VcpuContext) -> Source {
        Source {
            spsr: vcpu.pstate,
            elr: vcpu.pc,
            sctlr_el1: SCTLR_EL1.get(),
            vbar_el1: VBAR_EL1.get(),
            // Guarded control stacks are closed to guests.
            gcscr_el1: 0,
        }
    }

    #[inline(always)]
    fn bounded(&self, index: usize, bound: usize) -> usize {
        barrier::bounded(index, bound)
    }

    fn entropy(&self) -> Option<u64> {
        cpu::random()
    }

    fn interrupt_pending(&self) -> bool {
        // ISR_EL1 shows what waits for this CPU, masked or not: A (bit 8), I (7), F (6).
        cpu::pending_interrupts() != 0
    }

    #[inline]
    fn count(&self, counter: Counter, amount: u64) {
        PerCpu::this().count(counter, amount);
    }

    fn counter(&self, cpu: usize, counter: Counter) -> Option<u64> {
        machine::per_cpu(cpu).map(|data| data.counter(counter))
    }

    fn cpus(&self) -> usize {
        machine::cpus()
    }

    #[inline]
    fn tally(&self, frames: u64, from: u8, to: u8) {
        PerCpu::this().tally(frames, from, to);
    }

    fn tallied(&self, state: u8) -> u64 {
        (0..machine::cpus())
            .filter_map(machine::per_cpu)
            .fold(0, |sum, data| sum.wrapping_add(data.tallied(state)))
    }

    fn trace_attach(&self, cpu: usize, ring: Frame) -> bool {
        machine::per_cpu(cpu).is_some_and(|data| data.ring.attach(ring))
    }

    fn trace_ring(&self, cpu: usize) -> Option<Frame> {
        machine::per_cpu(cpu).and_then(|data| data.ring.page())
    }

    fn trace_detach(&self, cpu: usize, ring: Frame) -> bool {
        machine::per_cpu(cpu).is_some_and(|data| data.ring.detach(ring))
    }

    fn reserved_bytes(&self) -> u64 {
        machine::reserved_bytes()
    }

    #[inline]
    fn guest_support(&self) -> GuestSupport {
        GuestSupport {
            min_ipa_bits: *IPA_BITS.start() as u32,
            max_ipa_bits: cpu::features().pa_bits,
            list_registers: world::list_registers(),
            active_priorities: world::active_priorities(),
            interface: world::gic::common_interface(),
        }
    }

    fn reports_wrong_stage(&self) -> bool {
        cpu::errata().wrong_stage
    }

    fn id_registers(&self) -> &IdRegisters {
        cpu::first_id_registers()
    }

    fn features(&self) -> Features {
        let mut features = Features::TRACE | Features::VMS;
        features.set(Features::ENTROPY, cpu::features().random_numbers);
        features.set(Features::RANGE_TLBI, cpu::features().tlbi_range);
        features
    }

    // Without a call: the short ways of a hypercall have no stack.
    #[inline(always)]
    fn observe(&self, event: Event) {
        if let Event::Transition { frames, from, to } = event {
            let count = frames.frames() & 0xffff_ffff;
            let states = u64::from(from) << 32 | u64::from(to) << 48;
            PerCpu::this().ring.record_here(
                TraceEvent::Transition,
                frames.start().address().value(),
                count | states,
            );
        }
    }
}
