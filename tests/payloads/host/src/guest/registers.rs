//! All of the host's own registers, across a call: most of all one that runs a guest.
#![expect(unsafe_code, reason = "runs assembly on a block of its own")]

use core::mem::offset_of;
use hyp_abi::VmCall;
use payload_protocol::Secret;

/// Bytes of stack for an interrupt's handler while the stack pointer is in the block.
const HEADROOM: usize = 8192;

/// System registers: TPIDR_EL0, TPIDRRO_EL0, SP_EL0, FAR_EL1, ELR_EL1, TTBR1_EL1.
const SYSTEM: usize = 6;

/// The host's registers, in the layout of `hold.S`.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
struct Block {
    headroom: [u8; HEADROOM],
    x: [u64; 31],
    stack: u64,
    v: [u128; 32],
    system: [u64; SYSTEM],
}

unsafe extern "C" {
    fn hold_hvc(registers: *mut u64);
}

/// What came of the registers.
#[derive(Debug)]
pub(crate) struct After {
    /// The call's status and three results.
    pub(crate) results: [u64; 4],
    /// Which of x4 to x30 were changed, a bit each.
    pub(crate) general: u64,
    /// Which of the vector registers were changed, a bit each.
    pub(crate) vectors: u64,
    /// Which of the system registers were changed, a bit each.
    pub(crate) system: u64,
    /// How many words of any register are of the guest's secret.
    pub(crate) leaked: usize,
}

/// Runs a vCPU once with every register of the host set, and looks for each, and for `secret`, afterwards.
pub(crate) fn run(vm: u64, index: u64, secret: Secret) -> After {
    call(VmCall::Run { vm, index }, secret)
}

/// Calls EL2 with every register of the host set, and looks for each, and for `secret`, afterwards.
pub(crate) fn call(call: VmCall, secret: Secret) -> After {
    let own = |number: usize| 0x1057_0000_0000_0000 | (number as u64) << 8 | 0x100;
    let own_vector = |number: usize| u128::from(own(100 + number)) << 64 | u128::from(own(200 + number));
    let mut block = Block {
        headroom: [0; HEADROOM],
        x: core::array::from_fn(own),
        stack: 0,
        v: core::array::from_fn(own_vector),
        system: core::array::from_fn(|number| own(300 + number)),
    };
    block.x[..7].copy_from_slice(&call.encode());
    let place = &raw mut block;
    // SAFETY: the routine keeps what the calling convention wants kept, and writes to the block alone.
    unsafe { hold_hvc(place.wrapping_byte_add(offset_of!(Block, x)).cast()) };
    let changed = |values: &mut dyn Iterator<Item = bool>| {
        values
            .enumerate()
            .fold(0, |mask, (number, changed)| mask | u64::from(changed) << number)
    };
    let general = changed(
        &mut block
            .x
            .iter()
            .enumerate()
            .map(|(number, x)| number >= 7 && *x != own(number)),
    );
    let vectors = changed(
        &mut block
            .v
            .iter()
            .enumerate()
            .map(|(number, v)| *v != own_vector(number)),
    );
    let system = changed(
        &mut block
            .system
            .iter()
            .enumerate()
            .map(|(number, register)| *register != own(300 + number)),
    );
    let halves = block.v.iter().flat_map(|v| [*v as u64, (*v >> 64) as u64]);
    let words = block.x.iter().copied().chain(halves).chain(block.system);
    After {
        results: [block.x[0], block.x[1], block.x[2], block.x[3]],
        general,
        vectors,
        system,
        leaked: words.filter(|word| secret.is_in(*word)).count(),
    }
}

core::arch::global_asm!(
    include_str!("../../../asm/hold.S"),
    STACK = const offset_of!(Block, stack) - offset_of!(Block, x),
    V = const offset_of!(Block, v) - offset_of!(Block, x),
    SYSTEM = const offset_of!(Block, system) - offset_of!(Block, x),
);
