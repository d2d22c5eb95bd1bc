//! A guest that reports every register that it has, or loads them all: two programs, and the block that they go by.
#![expect(unsafe_code, reason = "reads code of the image")]

use crate::frames::Frames;
use alloc::vec::Vec;
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};

/// Where the parts of a block begin, in bytes.
const VECTORS: usize = 256;
const WORDS: usize = 768;
/// The word that says whether the guest has keys.
const HAS_KEYS: usize = 63;
/// Words of a block.
pub(crate) const BLOCK: usize = WORDS / 8 + 64;

/// Words that are not registers of their own to the host: of PSTATE, of ICH_VMCR_EL2, and the counters.
pub(crate) const NZCV: usize = 0;
pub(crate) const DAIF: usize = 1;
pub(crate) const PRIORITY_MASK: usize = 29;
pub(crate) const CONTROL: usize = 30;
pub(crate) const BINARY_POINT_0: usize = 31;
pub(crate) const BINARY_POINT_1: usize = 32;
pub(crate) const GROUP_0: usize = 33;
pub(crate) const GROUP_1: usize = 34;
/// The virtual counter, the physical one, and the virtual one again.
pub(crate) const COUNTERS: [usize; 3] = [37, 38, 39];

unsafe extern "C" {
    static all_registers_begin: u8;
    static all_registers_report: u8;
    static all_registers_reported: u8;
    static all_registers_load_all: u8;
    static all_registers_loaded: u8;
    static all_registers_call: u8;
    static all_registers_end: u8;
}

core::arch::global_asm!(
    include_str!("all_registers.S"),
    VECTORS = const VECTORS,
    WORDS = const WORDS,
    HAS_KEYS = const HAS_KEYS,
);

/// A place in the programs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Where the program begins that stores every register.
    Report,
    /// Where it stops.
    Reported,
    /// Where the program begins that loads every register.
    Load,
    /// Where it stops.
    Loaded,
    /// A `SVC #0`.
    Call,
}

impl Place {
    /// Bytes from the beginning of the page.
    pub(crate) fn offset(self) -> u64 {
        let place = match self {
            Self::Report => &raw const all_registers_report,
            Self::Reported => &raw const all_registers_reported,
            Self::Load => &raw const all_registers_load_all,
            Self::Loaded => &raw const all_registers_loaded,
            Self::Call => &raw const all_registers_call,
        };
        (place.addr() - (&raw const all_registers_begin).addr()) as u64
    }
}

/// `WFI`, and `B .` (Arm ARM DDI 0487, C6.2).
const WFI: u32 = 0xd503_207f;
const STAY: u32 = 0x1400_0000;

/// Bytes from the beginning of the page to its vectors. An exception that is taken there waits, wherever it came from.
pub(crate) const EXCEPTIONS: u64 = 0x800;

/// Writes the programs to a frame, and vectors behind them.
pub(crate) fn write_programs(frame: &Frames) {
    let start = &raw const all_registers_begin;
    let words = ((&raw const all_registers_end).addr() - start.addr()) / 4;
    // SAFETY: the programs are code of the image, which is readable and aligned to instructions.
    let program = (0..words).map(|word| unsafe { start.cast::<u32>().wrapping_add(word).read() });
    let mut code: Vec<u32> = program.collect();
    code.resize(EXCEPTIONS as usize / 4, STAY);
    for _ in 0..16 {
        code.extend([WFI, STAY]);
        code.resize(code.len() + 30, STAY);
    }
    frame.write_code(0, &code);
}

/// Writes a block to a frame.
pub(crate) fn write_block(frame: &Frames, block: &[u64; BLOCK]) {
    let halves: Vec<u32> = block
        .iter()
        .flat_map(|word| [*word as u32, (*word >> 32) as u32])
        .collect();
    frame.write_code(0, &halves);
}

/// Reads a block from a frame.
pub(crate) fn read_block(frame: &Frames) -> [u64; BLOCK] {
    let mut block = [0; BLOCK];
    for (place, word) in block.iter_mut().zip(frame.contents()) {
        *place = word;
    }
    block
}

/// The word of a block with this number.
pub(crate) fn word(number: usize) -> usize {
    WORDS / 8 + number
}

/// Says in a block whether the guest has keys.
pub(crate) fn set_keys(block: &mut [u64; BLOCK], there: bool) {
    block[word(HAS_KEYS)] = there.into();
}

/// Where a block has a register, if it is one word there.
pub(crate) fn place(register: VcpuRegister) -> Option<usize> {
    use SystemRegister as S;
    Some(match register {
        VcpuRegister::General(number) => number.into(),
        VcpuRegister::VectorLow(number) => VECTORS / 8 + 2 * usize::from(number),
        VcpuRegister::VectorHigh(number) => VECTORS / 8 + 2 * usize::from(number) + 1,
        VcpuRegister::Fpsr => word(2),
        VcpuRegister::Fpcr => word(3),
        VcpuRegister::TimerCompare => word(27),
        VcpuRegister::TimerControl => word(28),
        VcpuRegister::ActivePriorities0(0) => word(35),
        VcpuRegister::ActivePriorities1(0) => word(36),
        VcpuRegister::Key(number) => word(40 + usize::from(number)),
        VcpuRegister::System(register) => word(match register {
            S::SpEl0 => 4,
            S::ElrEl1 => 5,
            S::SpsrEl1 => 6,
            S::SctlrEl1 => 7,
            S::CpacrEl1 => 8,
            S::Ttbr0El1 => 9,
            S::Ttbr1El1 => 10,
            S::TcrEl1 => 11,
            S::EsrEl1 => 12,
            S::Afsr0El1 => 13,
            S::Afsr1El1 => 14,
            S::FarEl1 => 15,
            S::MairEl1 => 16,
            S::AmairEl1 => 17,
            S::VbarEl1 => 18,
            S::ContextidrEl1 => 19,
            S::TpidrEl0 => 20,
            S::TpidrroEl0 => 21,
            S::TpidrEl1 => 22,
            S::ParEl1 => 23,
            S::CntkctlEl1 => 24,
            S::CsselrEl1 => 25,
            S::MpidrEl1 => 26,
            // Where the block is.
            S::SpEl1 => return None,
        }),
        _ => return None,
    })
}
