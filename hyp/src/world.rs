//! The world switch: what a CPU does to run a guest, and to be the host's again.
//!
//! [`load`] takes the host's state off the CPU and puts the guest's there, [`run`] enters the guest until something
//! brings EL2 back, [`put`] undoes the load. In between the CPU is at EL2 with the guest's EL1 loaded, and may go back
//! to the guest as often as it likes.
//!
//! - [`system`]: the system registers of EL1 and EL0, pointer authentication keys, the virtual timer.
//! - [`gic`]: the virtual CPU interface.
//! - [`simd`]: floating point and vectors, which change hands at the guest's first use.
//! - [`watchers`]: what would record or count for the host while the guest runs.
//!
//! What the host has is kept in a page beside the CPU's data, which only this CPU touches.

#![expect(unsafe_code, reason = "turns a page of this CPU's into a reference")]

pub(crate) mod gic;
pub(crate) mod simd;
pub(crate) mod system;
pub(crate) mod watchers;

use crate::barrier::isb;
use crate::machine::Facts;
use crate::percpu::PerCpu;
use crate::vectors::Vectors;
use crate::{cpu, panic, registers, tlb, vectors, vttbr};
use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, SPSR_EL2};
use core::ptr;
use core::sync::atomic::Ordering;
use gic::Gic;
use hyp_core::addr::FRAME_SIZE;
use hyp_core::hardware::StreamingMode;
use hyp_core::machine::CpuFeatures;
use hyp_core::trap::guest_traps::{CPTR_TFP, GuestTraps, Watchers};
use hyp_core::trap::host_traps::HostTraps;
use hyp_core::trap::stage2;
use hyp_core::trap::syndrome::{FaultRegisters, exception_class};
use hyp_core::vm::{GuestRegime, Trap, TrapKind, VcpuContext};
use simd::HostVectors;
use system::HostSystem;
use tock_registers::interfaces::{Readable, Writeable};
use watchers::Stopped;

/// ESR_ELx.EC of a trapped use of floating point or vectors.
const EC_FLOATING_POINT: u8 = 0x07;

/// How many guests a CPU remembers the last vCPU of. More cost an invalidation of this CPU's TLB.
const REMEMBERED: usize = 64;

/// What a CPU needs beside its data to switch between host and guest: one page, behind the data.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct World {
    /// Where the host goes on, and in which state.
    elr: u64,
    spsr: u64,
    system: HostSystem,
    stopped: Stopped,
    gic: Gic,
    controls: Option<Controls>,
    /// The last vCPU of a VMID that this CPU ran, by the lower bits of the VMID.
    last: [Option<Resident>; REMEMBERED],
    /// Whether the vector registers are the guest's.
    guest_has_vectors: bool,
    vectors: HostVectors,
}

const _: () = assert!(size_of::<World>() as u64 == FRAME_SIZE, "the world is one page");

/// What this CPU has, and EL2's control registers and vectors, of host and guests.
#[derive(Debug)]
struct Controls {
    features: CpuFeatures,
    host: HostTraps,
    guest: GuestTraps,
    watchers: Watchers,
    vectors: Vectors,
    vtcr: u64,
    host_root: u64,
}

/// A vCPU whose translations may be in this CPU's TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resident {
    generation: u32,
    slot: u8,
    vcpu: u8,
}

impl World {
    /// Bytes from the CPU's data to this.
    pub(crate) const OFFSET: u64 = size_of::<PerCpu>() as u64;

    /// What a CPU has that never ran a guest.
    pub(crate) fn new() -> Self {
        Self {
            elr: 0,
            spsr: 0,
            system: HostSystem::default(),
            stopped: Stopped::default(),
            gic: Gic::default(),
            controls: None,
            last: [None; REMEMBERED],
            guest_has_vectors: false,
            vectors: HostVectors::new(),
        }
    }

    /// Does `work` with this CPU's world. Not to be nested.
    #[inline(always)]
    fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let this: *const PerCpu = PerCpu::this();
        let world: *mut Self = ptr::with_exposed_provenance_mut(this.addr() + Self::OFFSET as usize);
        // SAFETY: the boot has initialized the page behind each CPU's data before the CPU ran, and maps it for writing.
        // Only its own CPU reaches it, only here, and EL2 takes no interrupts; no `work` calls this again.
        work(unsafe { &mut *world })
    }
}

/// Makes this CPU ready for guests: each time it comes in. `host` are the traps of the host.
pub(crate) fn prepare(features: CpuFeatures, vectors: Vectors, host: HostTraps, facts: &Facts) {
    let id = cpu::id_registers();
    World::with(|world| {
        world.gic = Gic::of_this_cpu();
        world.gic.clear();
        world.controls = Some(Controls {
            features,
            host,
            guest: GuestTraps::new(&id, cpu::guest_trap_settings()),
            watchers: Watchers::of(&id),
            vectors,
            vtcr: facts.vtcr,
            host_root: facts.host_root.start().address().value(),
        });
    });
}

/// How many list registers this CPU has.
#[inline]
pub(crate) fn list_registers() -> u8 {
    World::with(|world| world.gic.list_registers())
}

/// How many registers of active priorities this CPU has for each group.
pub(crate) fn active_priorities() -> u8 {
    World::with(|world| world.gic.active_priorities())
}

/// Takes the host off this CPU and loads a vCPU. See [`hyp_core::Hardware::load_guest`].
///
/// # Errors
/// [`StreamingMode`]; nothing was done.
pub(crate) fn load(guest: &GuestRegime, vcpu: &mut VcpuContext) -> Result<(), StreamingMode> {
    World::with(|world| {
        let controls = prepared(&world.controls);
        let features = &controls.features;
        if simd::is_streaming(features) {
            return Err(StreamingMode);
        }
        // From here on a CPU that panics takes this root away too. It may have begun before it could see that.
        let root = root_and_size(guest);
        PerCpu::this().guest_root.store(root, Ordering::SeqCst);
        if panic::must_put_guest() {
            // Nothing was done, and nobody reads why: the host has no memory any more.
            return Err(StreamingMode);
        }
        world.elr = ELR_EL2.get();
        world.spsr = SPSR_EL2.get();
        world.stopped.stop(&controls.watchers);
        world.system.save(features);
        let vtcr = stage2::vtcr(guest.ipa_bits, guest.start_level, features.pa_range);
        let stopped = vttbr::stop_walks();
        system::load(&vcpu.system, &vcpu.keys, features);
        registers::load_guest(&controls.guest, vtcr);
        vttbr::load_guest(guest.root, guest.slot);
        if world.last.note(guest) {
            tlb::forget_loaded_guest();
        }
        system::load_translation(&vcpu.system, stopped);
        system::load_timer(&mut vcpu.timer);
        world.gic.load(&mut vcpu.gic);
        controls.vectors.use_for_guest();
        Ok(())
    })
}

/// Runs the loaded vCPU. See [`hyp_core::Hardware::run_guest`].
#[inline]
pub(crate) fn run(vcpu: &mut VcpuContext) -> Trap {
    loop {
        let vector = vectors::enter_guest(vcpu);
        if panic::must_put_guest() {
            return Trap {
                kind: TrapKind::Interrupt,
                registers: FaultRegisters::default(),
            };
        }
        let kind = match vector {
            vectors::kind::SYNC => TrapKind::Synchronous,
            vectors::kind::SERROR => TrapKind::SError,
            _ => TrapKind::Interrupt,
        };
        let esr = ESR_EL2.get();
        if kind == TrapKind::Synchronous && exception_class(esr) == EC_FLOATING_POINT && give_vectors(vcpu) {
            continue;
        }
        let registers = FaultRegisters {
            esr,
            far: FAR_EL2.get(),
            hpfar: HPFAR_EL2.get(),
        };
        return Trap { kind, registers };
    }
}

/// Lets the loaded vCPU have the vector registers. Answers whether it did not have them before, and there are some.
#[cold]
#[inline(never)]
fn give_vectors(vcpu: &VcpuContext) -> bool {
    World::with(|world| {
        let controls = prepared(&world.controls);
        if world.guest_has_vectors || !controls.features.simd {
            return false;
        }
        registers::write_cptr(controls.host.cptr_el2);
        isb();
        world.vectors.save(&controls.features);
        simd::load_guest(&vcpu.simd);
        world.guest_has_vectors = true;
        registers::write_cptr(controls.guest.cptr_el2 & !CPTR_TFP);
        true
    })
}

/// Saves the loaded vCPU, and gives this CPU back to the host. See [`hyp_core::Hardware::put_guest`].
pub(crate) fn put(vcpu: &mut VcpuContext) {
    World::with(|world| {
        let controls = prepared(&world.controls);
        let features = &controls.features;
        world.gic.put(&mut vcpu.gic);
        system::put_timer(&mut vcpu.timer, &vcpu.gic);
        system::save(&mut vcpu.system, &mut vcpu.keys, features);
        let stopped = vttbr::stop_walks();
        registers::load_host(&controls.host, controls.vtcr);
        vttbr::load_host(controls.host_root);
        // The ISB of the door above counts for CPTR_EL2 too.
        if world.guest_has_vectors {
            simd::save_guest(&mut vcpu.simd);
            world.vectors.load(features);
            world.guest_has_vectors = false;
        }
        world.system.load(features, stopped);
        controls.vectors.use_for_host();
        world.stopped.resume(&controls.watchers);
        ELR_EL2.set(world.elr);
        SPSR_EL2.set(world.spsr);
    });
    PerCpu::this().guest_root.store(0, Ordering::Release);
}

/// Does `work` with the vector registers, and gives the host's back. Answers `None`, and does nothing, where the CPU's
/// features are not `wanted`, the host is in streaming mode, or a guest is loaded.
pub(crate) fn with_vectors<R>(wanted: fn(&CpuFeatures) -> bool, work: impl FnOnce() -> R) -> Option<R> {
    if PerCpu::this().guest_root.load(Ordering::Relaxed) != 0 {
        return None;
    }
    World::with(|world| {
        // CPTR_EL2 is the host's, by which they do not trap.
        let features = &prepared(&world.controls).features;
        if !features.simd || !wanted(features) || simd::is_streaming(features) {
            return None;
        }
        world.vectors.save(features);
        let result = work();
        world.vectors.load(features);
        Some(result)
    })
}

fn prepared(controls: &Option<Controls>) -> &Controls {
    controls
        .as_ref()
        .expect("a CPU is prepared before it enters the host")
}

/// The root of a guest's table, which is aligned to its size, with the number of its pages in the lower bits.
fn root_and_size(guest: &GuestRegime) -> u64 {
    // A table at level 3 translates 21 bits of address, and each level above 9 more.
    let one = 21 + 9 * 3_u32.saturating_sub(guest.start_level.into());
    let pages = 1_u64 << guest.ipa_bits.saturating_sub(one).min(4);
    guest.root.frame().address().value() | pages
}

/// Remembers the vCPUs whose translations this CPU's TLB may hold.
trait Residents {
    /// Notes that the vCPU of `guest` runs now. Answers whether another of its VM's, or of an older VM with its VMID,
    /// may have left translations: stage 1 of two vCPUs need not agree, and not everything in a TLB is tagged with an
    /// ASID.
    fn note(&mut self, guest: &GuestRegime) -> bool;
}

impl Residents for [Option<Resident>; REMEMBERED] {
    fn note(&mut self, guest: &GuestRegime) -> bool {
        let now = Some(Resident {
            generation: guest.generation,
            slot: guest.slot,
            vcpu: guest.vcpu,
        });
        let place = &mut self[usize::from(guest.slot) % REMEMBERED];
        let changed = *place != now;
        *place = now;
        changed
    }
}
