//! A secret in every register while the vCPU leaves; and vector registers that stay filled from order to order.
//!
//! The code of this crate is built without floating point, so nothing but this module and the snippets touch a vector
//! register.
#![expect(unsafe_code, reason = "runs assembly on a block of its own")]

use crate::{MAX_VCPUS, sysreg};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use hyp_abi::guest_call::GuestCallId;
use payload_protocol::{Door, Secret};

/// Bytes of stack for an exception while the stack pointer is in a block.
const HEADROOM: usize = 4096;

/// System registers that hold a word of the secret: TPIDR_EL0, TPIDRRO_EL0, SP_EL0, FAR_EL1, ELR_EL1, TTBR1_EL1.
const SYSTEM: usize = 6;

/// What the registers are loaded from and stored to. The stack pointer is at `x` meanwhile: it is the one register that
/// still says where that is.
#[repr(C, align(16))]
struct Block {
    headroom: [u8; HEADROOM],
    x: [u64; 31],
    stack: u64,
    v: [u128; 32],
    system: [u64; SYSTEM],
}

/// A block that one vCPU uses.
struct Own(UnsafeCell<Block>);

// SAFETY: each vCPU uses the block with its own index alone.
unsafe impl Sync for Own {}

static BLOCKS: [Own; MAX_VCPUS] = [const {
    Own(UnsafeCell::new(Block {
        headroom: [0; HEADROOM],
        x: [0; 31],
        stack: 0,
        v: [0; 32],
        system: [0; SYSTEM],
    }))
}; MAX_VCPUS];

type Holder = unsafe extern "C" fn(registers: *mut u64);

unsafe extern "C" {
    fn hold_wait(registers: *mut u64);
    fn hold_hvc(registers: *mut u64);
    fn hold_smc(registers: *mut u64);
    fn hold_load(registers: *mut u64);
    fn hold_store(registers: *mut u64);
    fn hold_interrupt(registers: *mut u64);
    fn hold_poll(registers: *mut u64);
    fn vectors_load(v: *const [u128; 32]);
    fn vectors_store(v: *mut [u128; 32]);
}

/// Words of the secret for the vector registers and the system registers begin with these numbers.
const VECTOR_WORDS: u16 = 32;
const SYSTEM_WORDS: u16 = 96;

fn vector(secret: Secret, number: usize) -> u128 {
    let word = |half: u16| u128::from(secret.word(VECTOR_WORDS + 2 * number as u16 + half));
    word(1) << 64 | word(0)
}

/// Which of `values` are not as `expected` has them, a bit each.
fn differences<T: PartialEq>(values: &[T], expected: impl Fn(usize) -> T) -> u64 {
    values
        .iter()
        .enumerate()
        .filter(|(number, value)| **value != expected(*number))
        .fold(0, |mask, (number, _)| mask | 1 << number)
}

/// Holds the secret of `seed` while leaving by `door`. Returns which general, vector and system registers no longer held
/// it, and x0 and x1.
pub(crate) fn hold(seed: u64, door: Door, argument: u64) -> [u64; 5] {
    let secret = Secret::new(seed);
    let public = door.registers();
    let expected = |number: usize| secret.word(number as u16);
    // Even numbers: bit 0 of TTBR1_EL1 has a meaning.
    let system = |number: usize| secret.word(SYSTEM_WORDS + 2 * number as u16);
    let place = BLOCKS[sysreg::vcpu()].0.get();
    // SAFETY: the block is this vCPU's own, and nobody else has a reference to it.
    let block = unsafe { &mut *place };
    for (number, x) in block.x.iter_mut().enumerate() {
        *x = if number < public { 0 } else { expected(number) };
    }
    if door == Door::Share {
        block.x[0] = u64::from(GuestCallId::MemShare as u32);
        block.x[1] = argument;
    } else if public > 0 {
        block.x[0] = argument;
    }
    for (number, v) in block.v.iter_mut().enumerate() {
        *v = vector(secret, number);
    }
    for (number, register) in block.system.iter_mut().enumerate() {
        *register = system(number);
    }
    let holder: Holder = match door {
        Door::Wait => hold_wait,
        Door::Call | Door::Share => hold_hvc,
        Door::Firmware => hold_smc,
        Door::Load => hold_load,
        Door::Store => hold_store,
        Door::Interrupt => hold_interrupt,
        Door::Poll => hold_poll,
    };
    let registers = place.wrapping_byte_add(offset_of!(Block, x)).cast();
    // SAFETY: the routine keeps what the calling convention wants kept, and writes to the block alone, to which no
    // reference is in use.
    unsafe { holder(registers) };
    // SAFETY: as above.
    let block = unsafe { &*place };
    let general = differences(&block.x, expected) & !((1 << public) - 1);
    [
        general,
        differences(&block.v, |number| vector(secret, number)),
        differences(&block.system, system),
        block.x[0],
        block.x[1],
    ]
}

/// Fills the vector registers from `seed`.
pub(crate) fn fill_vectors(seed: u64) {
    let secret = Secret::new(seed);
    let v: [u128; 32] = core::array::from_fn(|number| vector(secret, number));
    // SAFETY: loads registers that nothing else uses.
    unsafe { vectors_load(&raw const v) };
}

/// Which vector registers are not as `seed` has them, a bit each.
pub(crate) fn verify_vectors(seed: u64) -> u64 {
    let secret = Secret::new(seed);
    let mut v = [0; 32];
    // SAFETY: stores 32 registers to where there is room for them.
    unsafe { vectors_store(&raw mut v) };
    differences(&v, |number| vector(secret, number))
}

core::arch::global_asm!(
    include_str!("../../asm/hold.S"),
    STACK = const offset_of!(Block, stack) - offset_of!(Block, x),
    V = const offset_of!(Block, v) - offset_of!(Block, x),
    SYSTEM = const offset_of!(Block, system) - offset_of!(Block, x),
);
