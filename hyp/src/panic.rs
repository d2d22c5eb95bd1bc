//! The end: EL2 found that it is wrong.
//!
//! The CPU that panics takes the tables of the host and of every guest that runs away: it zeroes the entries of their
//! roots and tells all TLBs to forget, so that every other CPU faults into EL2 at its next step, and waits there. Then it tells what it knows, and
//! has the firmware reset the machine.

#![expect(
    unsafe_code,
    reason = "takes the tables and the UART away, and walks the stack"
)]

use crate::console::Port;
use crate::percpu::{EMERGENCY_STACK_SIZE, PerCpu, STACK_SIZE};
use crate::vectors::{HostFrame, kind};
use crate::{fixup, layout, machine, private_area, refuse, tlb};
use aarch64_cpu::registers::{
    ELR_EL2, ESR_EL2, FAR_EL2, FP, HCR_EL2, HPFAR_EL2, MPIDR_EL1, SCTLR_EL2, SPSR_EL2, TPIDR_EL2, TTBR0_EL2,
    VTTBR_EL2,
};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_core::addr::FRAME_SIZE;
use hyp_core::machine::Affinity;
use hyp_core::trap::syndrome::exception_class;
use smccc::{Smc, psci};
use tock_registers::interfaces::{Readable, Writeable};

/// The CPU that has begun to panic: its affinity plus one; or zero; or [`ENDING`].
static PANICKING: AtomicU64 = AtomicU64::new(0);

/// Nobody panics, but the machine is about to be reset, and no CPU may run anything but EL2 any more.
const ENDING: u64 = u64::MAX;

/// The most frames of a backtrace.
const MAX_FRAMES: usize = 32;

/// ESR_EL2.EC of a data abort of EL2's own.
const EC_OWN_DATA_ABORT: u8 = 0x25;

/// Waits for ever if another CPU panics, or the machine is about to be reset: that is why this one is here.
#[inline]
pub(crate) fn park_if_panicking() {
    if PANICKING.load(Ordering::SeqCst) != 0 {
        refuse::halt();
    }
}

/// For a CPU that has a vCPU: waits for ever if another CPU panics, and answers whether the machine is about to be reset.
/// Then it must not wait here, but put the vCPU back first, whose registers are still to be zeroed; it waits at its next
/// exit from the host.
#[inline]
pub(crate) fn must_put_guest() -> bool {
    match PANICKING.load(Ordering::SeqCst) {
        0 => false,
        ENDING => true,
        _ => refuse::halt(),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // One line: every line of the report begins alike.
    let message = info.message();
    match info.location() {
        Some(place) => end(None, FP.get(), format_args!("{message}, at {place}")),
        None => end(None, FP.get(), format_args!("{message}")),
    }
}

/// The end, with the registers of an exit.
pub(crate) fn on_frame(frame: &HostFrame, reason: fmt::Arguments<'_>) -> ! {
    end(Some(frame), FP.get(), reason)
}

/// An exception at EL2 itself. Comes back only if the instruction has a fixup.
pub(crate) extern "C" fn hyp_exception(frame: &mut HostFrame, vector: u64) {
    let esr = ESR_EL2.get();
    let is_data_abort = vector == kind::SYNC && exception_class(esr) == EC_OWN_DATA_ABORT;
    if let Some(target) = fixup::find(ELR_EL2.get()).filter(|_| is_data_abort) {
        ELR_EL2.set(target);
        return;
    }
    let what = match vector {
        kind::SYNC => "a synchronous exception",
        kind::IRQ => "an IRQ",
        kind::FIQ => "an FIQ",
        _ => "an SError",
    };
    end(Some(frame), frame.x[29], format_args!("{what} at EL2"))
}

/// The stack of this CPU ran over. `pointer`: where its stack pointer would have been.
pub(crate) extern "C" fn hyp_overflow(frame: &mut HostFrame, vector: u64, pointer: u64) -> ! {
    end(
        Some(frame),
        frame.x[29],
        format_args!("stack overflow at EL2 (vector {vector}, SP {pointer:#x})"),
    )
}

fn end(frame: Option<&HostFrame>, frame_pointer: u64, reason: fmt::Arguments<'_>) -> ! {
    let this = (MPIDR_EL1.get() & Affinity::MPIDR_MASK) + 1;
    let before = PANICKING.compare_exchange(0, this, Ordering::SeqCst, Ordering::SeqCst);
    let before =
        before.or_else(|_| PANICKING.compare_exchange(ENDING, this, Ordering::SeqCst, Ordering::SeqCst));
    match before {
        Ok(_) => {}
        // The report of this CPU's own panic failed: nothing more can be told.
        Err(first) if first == this => reset(),
        Err(_) => refuse::halt(),
    }
    stop_the_others();
    // Even a report that fails must not keep the machine.
    if let Some(mut port) = take_uart() {
        let _ = report(&mut port, frame, frame_pointer, reason);
        port.flush();
    }
    reset()
}

/// Stops every other CPU at its next step outside of EL2, for good: the machine is about to be reset.
pub(crate) fn stop_for_good() {
    let _ = PANICKING.compare_exchange(0, ENDING, Ordering::SeqCst, Ordering::SeqCst);
    stop_the_others();
}

/// Has the firmware reset the machine.
pub(crate) fn reset() -> ! {
    let _ = psci::system_reset::<Smc>();
    refuse::halt()
}

/// Takes its memory away from every CPU, whether the host or a guest runs there.
fn stop_the_others() {
    let Some(facts) = machine::facts() else { return };
    // Twice: a CPU that was about to link a table when the panic began may have written its entry after the first.
    for _ in 0..2 {
        empty(facts.host_root.start().address().value(), facts.host_root.bytes());
        for data in (0..machine::cpus()).filter_map(machine::per_cpu) {
            // A CPU that loads a guest says so first, and then looks whether one panics.
            let root = data.guest_root.load(Ordering::SeqCst);
            empty(root & !(FRAME_SIZE - 1), root % FRAME_SIZE * FRAME_SIZE);
        }
        tlb::invalidate_everything_below();
    }
}

/// Zeroes the root of a stage-2 table, of `bytes` bytes.
fn empty(root: u64, bytes: u64) {
    let root: *mut u64 = ptr::with_exposed_provenance_mut(root as usize);
    for index in 0..(bytes / 8) as usize {
        let entry = root.wrapping_add(index);
        // SAFETY: the roots of the host's table and of a loaded guest's are EL2's and mapped; their entries are only ever
        // reached as whole words, and a walk that sees this one faults.
        unsafe { entry.write_volatile(0) };
    }
}

/// The UART, whoever drives it now.
fn take_uart() -> Option<Port> {
    let address = machine::facts()?.uart?;
    // SAFETY: the boot found and mapped it. The host can no longer reach it.
    unsafe { Port::new(address) }
}

fn report(
    port: &mut Port,
    frame: Option<&HostFrame>,
    frame_pointer: u64,
    reason: fmt::Arguments<'_>,
) -> fmt::Result {
    writeln!(port, "\nfreehold: panic: {reason}")?;
    let base = layout::image_start();
    let elr = ELR_EL2.get();
    writeln!(port, "freehold: CPU {:#x} image {base:#x}", MPIDR_EL1.get())?;
    writeln!(
        port,
        "freehold: ELR {elr:#018x} SPSR {:#018x} ESR  {:#018x}",
        SPSR_EL2.get(),
        ESR_EL2.get()
    )?;
    writeln!(
        port,
        "freehold: FAR {:#018x} HPFAR {:#018x} HCR {:#018x}",
        FAR_EL2.get(),
        HPFAR_EL2.get(),
        HCR_EL2.get()
    )?;
    let (sctlr, ttbr, vttbr) = (SCTLR_EL2.get(), TTBR0_EL2.get_baddr(), VTTBR_EL2.get());
    writeln!(
        port,
        "freehold: SCTLR {sctlr:#018x} TTBR0 {ttbr:#018x} VTTBR {vttbr:#018x}"
    )?;
    if let Some(frame) = frame {
        for (index, row) in frame.x.chunks(4).enumerate() {
            write!(port, "freehold:")?;
            for (column, value) in row.iter().enumerate() {
                write!(port, " x{:<2} {value:#018x}", index * 4 + column)?;
            }
            writeln!(port)?;
        }
    }
    backtrace(port, frame.map(|_| elr), frame_pointer)
}

/// Prints where the code stopped and from where it was called, as offsets in the image, innermost first. Frames are chained by x29, which
/// is zero in the outermost one.
fn backtrace(port: &mut Port, innermost: Option<u64>, frame_pointer: u64) -> fmt::Result {
    let image = layout::image_start()..layout::text_end();
    let mut number = 0;
    let mut line = |port: &mut Port, address: u64| {
        let result = writeln!(port, "freehold: backtrace {number} {:#x}", address - image.start);
        number += 1;
        result
    };
    if let Some(address) = innermost.filter(|address| image.contains(address)) {
        line(port, address)?;
    }
    let mut at = frame_pointer;
    for _ in 0..MAX_FRAMES {
        if !is_on_a_stack(at) {
            break;
        }
        let record: *const u64 = ptr::with_exposed_provenance(at as usize);
        // SAFETY: it lies on a stack of this CPU, whole and aligned.
        let next = unsafe { record.read_volatile() };
        let second = record.wrapping_add(1);
        // SAFETY: as above.
        let link = unsafe { second.read_volatile() };
        if !image.contains(&link) {
            break;
        }
        // The call is the instruction before the one that it returns to.
        line(port, link - 4)?;
        // Frames lie further and further up, or on another stack.
        if next <= at && is_on_same_stack(at, next) {
            break;
        }
        at = next;
    }
    Ok(())
}

/// The stacks that this CPU may be on: its own, its emergency stack, the boot's.
fn stacks() -> [(u64, u64); 3] {
    let boot = (layout::boot_start(), layout::boot_end());
    if TPIDR_EL2.get() == 0 {
        return [boot; 3];
    }
    let this = PerCpu::this();
    let own = private_area::stack(this.index);
    let emergency = ptr::from_ref(this).addr() as u64 + PerCpu::EMERGENCY_OFFSET as u64;
    [
        (own, own + STACK_SIZE),
        (emergency, emergency + EMERGENCY_STACK_SIZE as u64),
        boot,
    ]
}

fn is_on_a_stack(at: u64) -> bool {
    at.is_multiple_of(8) && stacks().iter().any(|(start, end)| at >= *start && at <= end - 16)
}

fn is_on_same_stack(one: u64, other: u64) -> bool {
    stacks()
        .iter()
        .any(|(start, end)| (*start..*end).contains(&one) && (*start..*end).contains(&other))
}
