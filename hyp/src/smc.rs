//! SMCs of the host, and the firmware below: hyp-core judges ([`hyp_core::trap::smc`]) and relays
//! ([`hyp_core::psci`]), this carries out.

#![expect(
    unsafe_code,
    reason = "calls the firmware, and places the CPUs' slots in a page of the pool"
)]

use crate::percpu::PerCpu;
use crate::{farewell, layout, machine, panic, pool};
use core::arch::asm;
use core::ptr;
use core::slice;
use hyp_abi::{Counter, FrameState};
use hyp_core::addr::PhysAddr;
use hyp_core::psci::{Firmware, Relay, Slot};
use hyp_core::trap::smc::{Verdict, judge};
use spin::Once;

/// The relay of PSCI, over all CPUs.
static RELAY: Once<Relay<'static>> = Once::new();

/// The firmware, by SMC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smc;

impl Firmware for Smc {
    #[inline(always)]
    fn call(&self, function: u32, arguments: [u64; 3]) -> u64 {
        let [a1, a2, a3] = arguments;
        let registers = [u64::from(function), a1, a2, a3];
        if farewell::is_one(function) {
            farewell::prepare();
            forward(registers);
            // The firmware would not, and the host has no memory left to be told so.
            panic::reset();
        }
        forward(registers)[0]
    }
}

/// Calls the firmware with x0 to x3 and returns its x0 to x3.
///
/// The `smccc` crate's call moves all of x0 to x17 through memory, which is a third of what a forwarded SMC costs; on
/// this way only these four mean anything. Firmware before SMCCC 1.1 may change x4 to x17 (DEN0028, 2.6).
#[inline]
fn forward(registers: [u64; 4]) -> [u64; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = registers;
    // SAFETY: hyp-core lets only functions through that name no memory, or with addresses of EL2's choice; the
    // firmware keeps the registers that are not named here.
    unsafe {
        asm!(
            "smc #0",
            inout("x0") x0,
            inout("x1") x1,
            inout("x2") x2,
            inout("x3") x3,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
            out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack),
        );
    }
    [x0, x1, x2, x3]
}

/// Makes the relay for `count` CPUs. `slot` gives each CPU's.
///
/// # Panics
/// If the pool has too few pages in one piece.
pub(crate) fn set_up(count: usize, slot: impl Fn(usize) -> Slot) {
    let room = pool::allocate_for_good((count * size_of::<Slot>()) as u64)
        .expect("the plan keeps pages for the CPUs");
    let slots: *mut Slot = ptr::with_exposed_provenance_mut(room.value() as usize);
    for index in 0..count {
        let place = slots.wrapping_add(index);
        // SAFETY: the pool gave room for `count` slots, aligned to a page, to nobody else.
        unsafe { place.write(slot(index)) };
    }
    // SAFETY: all of them were written just now, and the room stays theirs.
    let slots = unsafe { slice::from_raw_parts(slots, count) };
    RELAY.call_once(|| Relay::new(slots, layout::secondary_entry(), &Smc));
}

/// The relay.
///
/// # Panics
/// Before [`set_up`], which is before the host or another CPU runs.
pub(crate) fn relay() -> &'static Relay<'static> {
    RELAY
        .get()
        .expect("the boot sets up the relay before anyone needs it")
}

/// An SMC of the host: x0 to x3 in and out.
pub(crate) fn host_smc(this: &PerCpu, x: &mut [u64; 31], immediate: u16) {
    let registers = [x[0], x[1], x[2], x[3]];
    match judge(immediate, registers) {
        Verdict::Forward(registers) => [x[0], x[1], x[2], x[3]] = forward(registers),
        Verdict::Psci(registers) => x[0] = relay().call(this.index, registers, &Smc, may_execute),
        Verdict::Answer(answer) => {
            this.count(Counter::SmcsRefused, 1);
            x[0] = answer.cast_unsigned();
        }
    }
}

/// Whether the host may have a CPU begin at `address`: RAM that it may use.
fn may_execute(address: u64) -> bool {
    let info = PhysAddr::new(address).map(|address| machine::ownership().frame_info(address.frame()));
    info.is_some_and(|info| {
        info.is_ok_and(|info| {
            !matches!(
                info.state,
                FrameState::NotYours | FrameState::Device | FrameState::Relinquished
            )
        })
    })
}
