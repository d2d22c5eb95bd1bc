//! The orders, carried out.
#![expect(unsafe_code, reason = "reads and writes memory that an order names")]

use crate::exception::Fault;
use crate::{boot, hold, interrupts, keep, probe, sysreg};
use core::arch::asm;
use core::ptr::with_exposed_provenance_mut;
use hyp_abi::FRAME_SIZE;
use payload_protocol::{Access, Conduit, Door, Level, Order, Report, pattern};

/// PSCI CPU_ON, 64-bit (Arm DEN0022).
const CPU_ON: u32 = 0xc400_0003;

/// Carries an order out and reports what came of it.
pub(crate) fn carry_out(order: Order) -> Report {
    match order {
        Order::Nothing => done([]),
        Order::Access {
            level,
            access,
            address,
            value,
        } => either(probe::access(level, access, address, value).map(|value| [value])),
        Order::Fetch {
            level,
            address,
            value,
        } => either(probe::fetch(level, address, value).map(|value| [value])),
        Order::Execute {
            level,
            instruction,
            registers,
        } => either(probe::execute(level, instruction, registers)),
        Order::Call {
            conduit,
            function,
            arguments: [x1, x2, x3],
        } => Report::Done(call(conduit, [u64::from(function), x1, x2, x3])),
        Order::Fill {
            address,
            frames,
            value,
        } => {
            words(address, frames).for_each(|at| write(at, pattern(value, at)));
            done([])
        }
        Order::Verify {
            address,
            frames,
            value,
        } => verify(address, frames, value),
        Order::Hold { seed, door, argument } => Report::Done(hold::hold(seed, door, argument)),
        Order::Wait => {
            sysreg::wait_for_interrupt();
            done([])
        }
        Order::Timer { ticks, sleep } => done([interrupts::wait_for_timer(ticks, sleep)]),
        Order::Interrupts { taken } => {
            if taken {
                sysreg::unmask_irqs();
            } else {
                sysreg::mask_irqs();
            }
            done([])
        }
        Order::Taken { interrupt } => done(interrupts::taken(interrupt)),
        Order::Start { target, start } => Report::Done(call(
            Conduit::Hvc,
            [u64::from(CPU_ON), target, boot::entry_address(), start],
        )),
        Order::Spin { rounds } => {
            let mut count = 0;
            while count < rounds || rounds == u64::MAX {
                count = core::hint::black_box(count).wrapping_add(1);
            }
            done([count])
        }
        Order::Poll { address, value } => poll(address, value),
        Order::Repeat {
            access,
            address,
            rounds,
        } => repeat(access, address, rounds),
        Order::FillVectors { seed } => {
            hold::fill_vectors(seed);
            done([])
        }
        Order::VerifyVectors { seed } => done([hold::verify_vectors(seed)]),
        Order::Keep { page, seed } => keep::keep(page, seed),
        Order::Watch { seed, door, argument } => watch(seed, door, argument),
    }
}

/// A report of up to five values; the others are 0.
fn done<const N: usize>(values: [u64; N]) -> Report {
    let mut all = [0; 5];
    for (place, value) in all.iter_mut().zip(values) {
        *place = value;
    }
    Report::Done(all)
}

fn either<const N: usize>(result: Result<[u64; N], Fault>) -> Report {
    match result {
        Ok(values) => done(values),
        Err(Fault { esr, far, elr, spsr }) => Report::Fault { esr, far, elr, spsr },
    }
}

/// Holds a secret, and says only whether every register still held it.
fn watch(seed: u64, door: Door, argument: u64) -> Report {
    let [general, vectors, system, ..] = hold::hold(seed, door, argument);
    // An exception that leaves FAR_EL1 alone would have its handler report what it finds there.
    sysreg::clear_fault_registers();
    match [general, vectors, system] {
        [0, 0, 0] => done([]),
        differences => Report::Spoiled {
            address: 0,
            differences,
        },
    }
}

fn words(address: u64, frames: u64) -> impl Iterator<Item = u64> {
    (address..address.wrapping_add(frames.wrapping_mul(FRAME_SIZE))).step_by(8)
}

fn read(address: u64) -> u64 {
    // SAFETY: the order says that it is memory, apart from this image; a fault is reported as this guest's end.
    unsafe { with_exposed_provenance_mut::<u64>(address as usize).read_volatile() }
}

fn write(address: u64, value: u64) {
    // SAFETY: as in `read`.
    unsafe { with_exposed_provenance_mut::<u64>(address as usize).write_volatile(value) };
}

fn verify(address: u64, frames: u64, value: Option<u64>) -> Report {
    let expected = |at| value.map_or(0, |value| pattern(value, at));
    let mut differences = 0;
    let mut first = [0, 0];
    for at in words(address, frames) {
        let got = read(at);
        if got != expected(at) {
            if differences == 0 {
                first = [at, got];
            }
            differences += 1;
        }
    }
    done([differences, first[0], first[1]])
}

fn poll(address: u64, value: u64) -> Report {
    let mut loads = 1_u64;
    loop {
        let got = read(address);
        if got != value {
            return done([got, loads]);
        }
        loads = loads.wrapping_add(1);
        sysreg::relax();
    }
}

fn repeat(access: Access, address: u64, rounds: u64) -> Report {
    let mut last = Ok([0]);
    for round in 0..rounds {
        last = probe::access(Level::El1, access, address, round).map(|value| [value]);
        if last.is_err() {
            break;
        }
    }
    either(last)
}

/// Makes a call with a pattern in x4 to x17. Returns x0 to x3, and which of x4 to x17 it changed.
fn call(conduit: Conduit, [x0, x1, x2, x3]: [u64; 4]) -> [u64; 5] {
    let before: [u64; 14] = core::array::from_fn(|number| 0x0101_0101_0101_0101 * (number as u64 + 0x44));
    let mut registers = [0; 18];
    registers[..4].copy_from_slice(&[x0, x1, x2, x3]);
    registers[4..].copy_from_slice(&before);
    macro_rules! call {
        ($instruction:literal) => {
            // SAFETY: what the call does to memory is the order's affair; every register that it may change is named.
            unsafe {
                asm!(
                    "stp x19, x20, [sp, #-16]!",
                    "mov x20, {block}",
                    "ldp x0, x1, [x20]", "ldp x2, x3, [x20, #16]", "ldp x4, x5, [x20, #32]",
                    "ldp x6, x7, [x20, #48]", "ldp x8, x9, [x20, #64]", "ldp x10, x11, [x20, #80]",
                    "ldp x12, x13, [x20, #96]", "ldp x14, x15, [x20, #112]", "ldp x16, x17, [x20, #128]",
                    $instruction,
                    "stp x0, x1, [x20]", "stp x2, x3, [x20, #16]", "stp x4, x5, [x20, #32]",
                    "stp x6, x7, [x20, #48]", "stp x8, x9, [x20, #64]", "stp x10, x11, [x20, #80]",
                    "stp x12, x13, [x20, #96]", "stp x14, x15, [x20, #112]", "stp x16, x17, [x20, #128]",
                    "ldp x19, x20, [sp], #16",
                    block = in(reg) &raw mut registers,
                    out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _,
                    out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                    out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                )
            }
        };
    }
    match conduit {
        Conduit::Hvc => call!("hvc #0"),
        Conduit::Smc => call!("smc #0"),
    }
    let changed = registers[4..]
        .iter()
        .zip(before)
        .enumerate()
        .filter(|(_, (after, before))| **after != *before)
        .fold(0, |mask, (number, _)| mask | 1 << (number + 4));
    [registers[0], registers[1], registers[2], registers[3], changed]
}
