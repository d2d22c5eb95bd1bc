//! `mode=trace`: the interesting instructions of the EL2 image, in the order in which they are executed.
//!
//! The steps are what [`Operation`] knows, entries through a vector, stores of the watched kind, and marks. Steps of
//! one CPU are in its program order; between CPUs the order is that in which their threads wrote, which says nothing
//! unless QEMU runs them in turns (`-icount`, or `-accel tcg,thread=single`).
//! QEMU 7.2 lets a plugin see neither registers nor values: which address a TLBI names is not told.

use crate::calls::{pack, unpack};
use crate::decode::{Operation, accesses_memory, marker};
use crate::plugin;
use crate::report::{Address, Line, Step, What};
use crate::sys::{self, Block, Token};
use std::ffi::c_uint;

fn tell(cpu: c_uint, pc: u64, what: What) {
    if let Ok(cpu) = usize::try_from(cpu) {
        plugin().output.line(&Line::Step(Step {
            cpu,
            pc: Address(pc),
            what,
        }));
    }
}

fn address_of(token: Token) -> (u64, u32) {
    let (offset, word) = unpack(token);
    (
        plugin().options.image().map_or(0, |image| image.start) + offset,
        word,
    )
}

extern "C" fn at_vector(cpu: c_uint, token: Token) {
    let (pc, _) = address_of(token);
    if let Some(offset) = plugin().options.vector(pc) {
        tell(cpu, pc, What::Vector(offset));
    }
}

extern "C" fn at_operation(cpu: c_uint, token: Token) {
    let (pc, word) = address_of(token);
    if let Some(operation) = Operation::decode(word) {
        tell(cpu, pc, What::Operation(operation));
    }
}

extern "C" fn at_watched_store(cpu: c_uint, info: u32, to: u64, token: Token) {
    let (pc, _) = address_of(token);
    store(cpu, pc, info, to);
}

extern "C" fn at_store(cpu: c_uint, info: u32, to: u64, token: Token) {
    if plugin().options.tables.iter().any(|table| table.contains(to)) {
        let (pc, _) = address_of(token);
        store(cpu, pc, info, to);
    }
}

fn store(cpu: c_uint, pc: u64, info: u32, to: u64) {
    if !sys::is_store(info) {
        return;
    }
    tell(
        cpu,
        pc,
        What::Store {
            to: Address(to),
            size: sys::access_size(info),
        },
    );
}

/// The token is the mark's number.
extern "C" fn at_mark(cpu: c_uint, token: Token) {
    let mark = usize::try_from(sys::number(token))
        .ok()
        .and_then(|index| plugin().options.marks.get(index));
    if let Some(mark) = mark {
        tell(cpu, mark.at, What::Mark(mark.name.clone()));
    }
}

/// The token is the marker instruction's address, without bits 63:48, and its number.
extern "C" fn at_marker(cpu: c_uint, token: Token) {
    let number = sys::number(token);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower 16 bits are the marker's number"
    )]
    tell(cpu, number >> 16, What::Marker(number as u16));
}

pub(crate) fn translate(block: &Block<'_>) {
    let options = &plugin().options;
    let Some(image) = options.image() else { return };
    for instruction in block.instructions() {
        let (address, word) = (instruction.address(), instruction.word());
        for (index, mark) in options.marks.iter().enumerate() {
            if mark.at == address {
                instruction.on_execute(at_mark, sys::token(index as u64));
            }
        }
        if let Some(number) = marker(word) {
            instruction.on_execute(at_marker, sys::token(address << 16 | u64::from(number)));
        }
        if !image.contains(address) {
            continue;
        }
        let token = pack(address - image.start, word);
        if options.vector(address).is_some() {
            instruction.on_execute(at_vector, token);
        }
        if Operation::decode(word).is_some() {
            instruction.on_execute(at_operation, token);
        }
        // QEMU 7.2 keeps the callback of an instruction that leaves its block, such as ERET, for the next access that
        // is made by another.
        if !accesses_memory(word) {
            continue;
        }
        if options.stores.iter().any(|range| range.contains(address)) {
            instruction.on_store(at_watched_store, token);
        } else if !options.tables.is_empty() {
            instruction.on_store(at_store, token);
        }
    }
}

pub(crate) fn end() {
    plugin().output.end();
}
