//! What guests do while they are counted: a page of code.
#![expect(unsafe_code, reason = "reads code of the image")]

use crate::bench::Mark;
use crate::frames::Frames;
use alloc::vec::Vec;
use hyp_abi::guest_call::HOST_SERVICE_FIRST;

/// The number in the marker instructions of the image, which no benchmark has.
const PLACEHOLDER: u16 = 0xffff;

unsafe extern "C" {
    static programs_begin: u8;
    static programs_call: u8;
    static programs_range: u8;
    static programs_report_only: u8;
    static programs_halves: u8;
    static programs_wait: u8;
    static programs_touch: u8;
    static programs_end: u8;
}

core::arch::global_asm!(
    include_str!("programs.S"),
    SERVICE_LOW = const HOST_SERVICE_FIRST & 0xffff,
    SERVICE_HIGH = const HOST_SERVICE_FIRST >> 16,
    PLACEHOLDER = const PLACEHOLDER,
);

/// What a guest does, for ever.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    /// Makes the calls that it is told to make, and reports what came of each.
    Call,
    /// The same for ranged calls, each until all is done.
    Range,
    /// Reports.
    Report,
    /// Reports, the two halves of a report marked apart.
    Halves,
    /// Waits.
    Wait,
    /// Loads from one page after the other, from the one in x0 on.
    Touch,
}

impl Program {
    /// Bytes from the beginning of the page to where it begins.
    pub(super) fn offset(self) -> u64 {
        let start = match self {
            Self::Call => &raw const programs_call,
            Self::Range => &raw const programs_range,
            Self::Report => &raw const programs_report_only,
            Self::Halves => &raw const programs_halves,
            Self::Wait => &raw const programs_wait,
            Self::Touch => &raw const programs_touch,
        };
        (start.addr() - (&raw const programs_begin).addr()) as u64
    }
}

/// Writes all programs to a frame, with the marker of a benchmark.
pub(super) fn write(frame: &Frames, mark: Mark) {
    let start = &raw const programs_begin;
    let words = ((&raw const programs_end).addr() - start.addr()) / 4;
    let code: Vec<u32> = (0..words)
        .map(|word| {
            // SAFETY: the programs are code of the image, which is readable and aligned to instructions.
            let instruction = unsafe { start.cast::<u32>().wrapping_add(word).read() };
            if instruction == marker(PLACEHOLDER) {
                marker(mark.number)
            } else {
                instruction
            }
        })
        .collect();
    frame.write_code(0, &code);
}

/// `movz xzr, #number` (Arm ARM DDI 0487, C6.2, MOVZ).
const fn marker(number: u16) -> u32 {
    0xd280_001f | (number as u32) << 5
}
