//! A hypercall that breaks EL2 on purpose, so that the end can be tested. Not in any image that is shipped.

#![expect(unsafe_code, reason = "touches what is not there")]

use core::hint::black_box;
use core::ptr;

/// Function identifier of the call: the last one of Freehold's own.
const FUNCTION: u64 = 0xC600_4FFF;

/// Breaks EL2 if x0 asks for it. x1: 0 panics, 1 runs the stack over, 2 touches memory that EL2 does not map.
pub(crate) fn hear(x: [u64; 3]) {
    match (x[0], x[1]) {
        (FUNCTION, 0) => panic!("asked for by the host"),
        (FUNCTION, 1) => {
            black_box(recurse(x[2]));
        }
        (FUNCTION, 2) => {
            let nowhere: *const u64 = ptr::with_exposed_provenance(x[2] as usize);
            // SAFETY: it is not safe. That is what this is for.
            black_box(unsafe { nowhere.read_volatile() });
        }
        _ => {}
    }
}

/// Never ends.
#[inline(never)]
#[expect(unconditional_recursion, reason = "this is how a stack is run over")]
fn recurse(value: u64) -> u64 {
    let frame = black_box([value; 32]);
    recurse(frame[31].wrapping_add(1)).wrapping_add(frame[0])
}
