//! Calls of the host: registers in, an answer out, and map, tables and contents as the specification has them.
//!
//! An input is a list of calls. Each is a byte for what happens around it, one for the function, and the registers x1 to
//! x6 as far as the function looks at them.

use super::reader::{FIRST_FRAME, Reader};
use crate::spec::World;
use crate::spec::rig::{Rig, Saved, span};
use hyp_abi::host_call::HOST_CALL_BASE;
use hyp_abi::{FRAME_SIZE, HostCall, VmCall};
use hyp_core::geometry::Tiny;
use std::cell::RefCell;

/// The most calls of one input.
const CALLS: usize = 64;

thread_local! {
    /// A machine, and how it was at first: it is too dear to be made anew for each input.
    static MACHINE: RefCell<(Rig<Tiny>, Saved<Tiny>)> = RefCell::new({
        let rig = Rig::with_spare(&[span(FIRST_FRAME, 32)], span(FIRST_FRAME, 16));
        let saved = rig.save();
        (rig, saved)
    });
}

/// Makes the calls of an input.
///
/// # Panics
/// If one is not answered as the specification says, or leaves anything in disagreement.
pub fn host_calls(data: &[u8]) {
    MACHINE.with_borrow_mut(|(rig, saved)| {
        rig.restore(saved);
        let mut reader = Reader::new(data);
        for _ in 0..CALLS {
            if reader.is_empty() {
                break;
            }
            make_call(rig, &mut reader);
        }
        if let Err(wrong) = rig.compare_all() {
            panic!("at the end: {wrong}");
        }
    });
}

/// Makes the next call.
pub(super) fn make_call(rig: &mut Rig<Tiny>, reader: &mut Reader<'_>) {
    let world = world(reader.byte());
    let registers = registers(reader);
    let address = registers[1] / FRAME_SIZE;
    let watched = [address.saturating_sub(1), address, address.saturating_add(1)];
    match rig.call(&world, registers, &watched) {
        Ok(answer) => reader.answered = answer.values[0],
        Err(wrong) => panic!("{registers:x?} in {world:?}: {wrong}"),
    }
}

/// Pages that the pool still gives out in the low half, looks for an interrupt in the high half; f is no limit.
pub(super) fn world(byte: u8) -> World {
    let limit = |half: u8| (half != 0xf).then_some(u64::from(half));
    World {
        pool_limit: limit(byte & 0xf),
        interrupt_after: limit(byte >> 4),
    }
}

/// x0 is a call of ours, by its number, or for ff eight bytes. The name of a vCPU's register is two bytes behind the others.
fn registers(reader: &mut Reader<'_>) -> [u64; 7] {
    let function = match reader.byte() {
        0xff => reader.word(),
        number => u64::from(HOST_CALL_BASE) + u64::from(number),
    };
    let mut registers = [function, 0, 0, 0, 0, 0, 0];
    // Only calls about VMs look at more than two.
    let looked_at = match HostCall::decode(registers) {
        Ok(HostCall::Vm(_)) => 6,
        _ => 2,
    };
    for register in registers.iter_mut().skip(1).take(looked_at) {
        *register = reader.register();
    }
    if let Ok(HostCall::Vm(VmCall::ReadRegister { .. } | VmCall::WriteRegister { .. })) =
        HostCall::decode(registers)
    {
        registers[3] = u64::from(reader.byte()) | u64::from(reader.byte()) << 8;
    }
    registers
}
