//! Instructions with the whole register file in view, and accesses with stage 1 off.
#![expect(unsafe_code, reason = "runs assembly, and code that it writes")]

use crate::exception::{Fault, Frame};
use crate::{cpu, sysreg};
use core::cell::UnsafeCell;
use spin::mutex::TicketMutex;

/// x0 to x28. x18 is the gadgets' own and reads as whatever it was before.
pub(super) const REGISTERS: usize = 29;

/// The register that the gadgets need for themselves.
pub(super) const OWN_REGISTER: usize = 18;

/// The values of x0 to x28, by number.
pub(super) type Registers = [u64; REGISTERS];

unsafe extern "C" {
    static gadget_hvc: u8;
    static gadget_smc: u8;
    static gadget_template: u8;
    static gadget_template_slot: u8;
    static gadget_template_end: u8;
    fn gadget_run(block: *mut Registers, code: u64);
    fn gadget_return();
    fn gadget_mmu_off(address: u64, what: u64, value: u64) -> Pair;
}

core::arch::global_asm!(include_str!("gadget.S"));

/// Two registers, as the procedure call standard returns them (AAPCS64, 6.9).
#[repr(C)]
struct Pair(u64, u64);

/// A page that each CPU copies the template to.
#[repr(C, align(4096))]
struct CodePage(UnsafeCell<[u32; 1024]>);

// SAFETY: each CPU writes only the page with its own number, and only in `execute`.
unsafe impl Sync for CodePage {}

static CODE: [CodePage; cpu::MAX] = [const { CodePage(UnsafeCell::new([0; 1024])) }; cpu::MAX];

/// The last exception of a gadget, for each CPU.
static CAUGHT: [TicketMutex<Option<Fault>>; cpu::MAX] = [const { TicketMutex::new(None) }; cpu::MAX];

/// Executes `HVC #0` and returns the exception that it ended in, if any.
pub(super) fn hvc(registers: &mut Registers) -> Option<Fault> {
    run((&raw const gadget_hvc).addr() as u64, registers)
}

/// Executes `SMC #0` and returns the exception that it ended in, if any.
pub(super) fn smc(registers: &mut Registers) -> Option<Fault> {
    run((&raw const gadget_smc).addr() as u64, registers)
}

/// Executes two instructions and returns the exception that they ended in, if any.
///
/// They must leave the stack, x18, x29 and x30 alone and whatever else the payload lives on.
pub(super) fn execute(instructions: [u32; 2], registers: &mut Registers) -> Option<Fault> {
    let template = &raw const gadget_template;
    let words = ((&raw const gadget_template_end).addr() - template.addr()) / 4;
    let slot = ((&raw const gadget_template_slot).addr() - template.addr()) / 4;
    let page = CODE[cpu::number()].0.get().cast::<u32>();
    for word in 0..words {
        // SAFETY: the template is code of the image, which is readable and aligned to instructions.
        let instruction = unsafe { template.cast::<u32>().wrapping_add(word).read() };
        let instruction = match word.checked_sub(slot) {
            Some(index @ 0..=1) => instructions[index],
            _ => instruction,
        };
        // SAFETY: the page is this CPU's own, see CodePage, and has room for the template many times over.
        unsafe { page.wrapping_add(word).write_volatile(instruction) };
    }
    let start = page.addr() as u64;
    (start..start + words as u64 * 4)
        .step_by(16)
        .for_each(sysreg::synchronize_code);
    run(start, registers)
}

fn run(code: u64, registers: &mut Registers) -> Option<Fault> {
    let caught = &CAUGHT[cpu::number()];
    *caught.lock() = None;
    let block = &raw mut *registers;
    // The handler of exceptions finds it again by its address.
    let _ = block.expose_provenance();
    // SAFETY: the gadget preserves what the calling convention asks for, and reads and writes its block only.
    unsafe { gadget_run(block, code) };
    caught.lock().take()
}

/// Called by the handler for exceptions from EL1. Returns whether the exception was a gadget's; if so it is recorded,
/// the block holds the registers as they were then, and the frame goes back to the gadget's caller.
pub(crate) fn caught_at_el1(frame: &mut Frame, fault: Fault) -> bool {
    let resume = gadget_return as *const () as usize as u64;
    // A gadget calls nothing, so x30 still says that `gadget_run` called it.
    if frame.x[30] != resume {
        return false;
    }
    let block: *mut Registers = core::ptr::with_exposed_provenance_mut(frame.x[OWN_REGISTER] as usize);
    let mut registers: Registers = core::array::from_fn(|number| frame.x[number]);
    registers[OWN_REGISTER] = 0;
    // SAFETY: x18 is the block that `gadget_run` was called with, on the stack of this CPU, which waits for it.
    unsafe { block.write(registers) };
    *CAUGHT[cpu::number()].lock() = Some(fault);
    frame.elr = resume;
    true
}

/// What is done with stage 1 off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    /// Load eight bytes.
    Load,
    /// Store eight bytes.
    Store(u64),
    /// Call the code there, which ends with `RET`.
    Fetch,
}

/// Accesses a physical address with this CPU's MMU and caches off. Returns what was loaded.
///
/// # Errors
/// ESR_EL1 and FAR_EL1 of the exception.
pub(super) fn without_mmu(bare: Bare, address: u64) -> Result<u64, (u64, u64)> {
    let (what, value) = match bare {
        Bare::Load => (0, 0),
        Bare::Store(value) => (1, value),
        Bare::Fetch => (2, 0),
    };
    // SAFETY: the image is mapped one to one, so code and stack stay where they are; what is accessed is a frame
    // that the caller owns, or one that it must not reach.
    match unsafe { gadget_mmu_off(address, what, value) } {
        Pair(0, value) => Ok(value),
        Pair(esr, far) => Err((esr, far)),
    }
}
