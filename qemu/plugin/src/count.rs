//! `mode=count`: how many instructions each CPU executed, by range of their address.
//!
//! Every instruction counts for itself, not its block: a block may be left in its middle by a fault, and under
//! `-icount` by an access to a device, after which QEMU translates the rest anew. On a machine with one CPU the
//! translated code adds to the counter itself, where QEMU can; else a callback does.
//!
//! **The first instruction in user space.** A plugin does not see the exception level. But Linux goes to EL0 by an
//! ERET at an address of the kernel's half (bit 55 set), and nothing else that it does leads from an ERET there to
//! an address of the lower half: its identity-mapped code is reached by branches. So the first instruction at a low
//! address outside all named ranges, between which and an ERET at a high address no other high instruction was
//! executed, is user space's. Code of EL2 in between (an interrupt may be taken to it) changes nothing, since it lies
//! in a named range.
//!
//! **Code that runs at two addresses.** QEMU 8 and later keep one translation of a physical page for all its virtual
//! addresses, and tell a plugin the first of them: what Linux ran before it turned the MMU on counts there for ever.
//! The total is right, so is the range of an image that runs at one address only; the split into `high` and `low` is
//! right on QEMU 7.2 alone. On the later ones [`crate::options::Options::user`] needs a named range over all RAM, so
//! that no kernel code is taken for user space's.

use crate::decode::{Kind, Operation};
use crate::plugin;
use crate::report::{Address, Counts, Line, Mark, Total};
use crate::sys::{self, Block, Instruction, Token};
use std::ffi::c_uint;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What one CPU has done. Only that CPU's thread writes it.
#[derive(Debug)]
struct Cpu {
    /// Instructions executed: one counter for each named range, then [`Counters::high`], then `low`.
    counts: Vec<AtomicU64>,
    /// What the `high` counter was right after the last ERET at a high address; all ones before the first.
    after_eret: AtomicU64,
    /// Which marks it has met.
    met: Vec<AtomicBool>,
    met_user: AtomicBool,
}

#[derive(Debug)]
struct Counters {
    cpus: Vec<Cpu>,
    /// The counter of addresses with bit 55 set in no named range; `low`, of the others, is the next.
    high: usize,
    /// Whether the translated code adds by itself.
    inline: bool,
}

static COUNTERS: LazyLock<Counters> = LazyLock::new(|| {
    let plugin = plugin();
    let high = plugin.options.ranges.len();
    let cpu = || Cpu {
        counts: (0..high + 2).map(|_| AtomicU64::new(0)).collect(),
        after_eret: AtomicU64::new(u64::MAX),
        met: plugin
            .options
            .marks
            .iter()
            .map(|_| AtomicBool::new(false))
            .collect(),
        met_user: AtomicBool::new(false),
    };
    Counters {
        cpus: (0..plugin.cpus).map(|_| cpu()).collect(),
        high,
        inline: plugin.cpus == 1 && sys::can_add(),
    }
});

impl Counters {
    fn counter_of(&self, address: u64) -> usize {
        let named = plugin()
            .options
            .ranges
            .iter()
            .position(|range| range.at.contains(address));
        // Bit 55 says which of the two halves of the address space is meant (Arm ARM DDI 0487, D8.2).
        named.unwrap_or(self.high + usize::from(address & 1 << 55 == 0))
    }
}

impl Cpu {
    fn add(&self, counter: usize) {
        if let Some(counter) = self.counts.get(counter) {
            // One writer: no read-modify-write is needed.
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    fn read(&self, counter: usize) -> u64 {
        self.counts
            .get(counter)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn counts(&self) -> Counts {
        let names = plugin().options.ranges.iter().map(|range| range.name.as_str());
        let names = names.chain(["high", "low"]);
        names
            .zip(&self.counts)
            .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
            .collect()
    }

    fn mark(&self, cpu: usize, name: &str, pc: u64) {
        let mark = Mark {
            name: name.to_owned(),
            cpu,
            pc: Address(pc),
            counts: self.counts(),
        };
        plugin().output.always(&Line::Mark(mark));
    }
}

/// An address that keeps its low 48 bits and bit 55: the rest of a token names the counter.
fn pack(address: u64, counter: usize) -> Token {
    sys::token(address << 16 | counter as u64 & 0xffff)
}

/// The CPU, its number, the instruction's address (bits 63:48 cleared) and its counter.
fn unpack(cpu: c_uint, token: Token) -> Option<(&'static Cpu, usize, u64, usize)> {
    let number = sys::number(token);
    let cpu = usize::try_from(cpu).ok()?;
    let counter = usize::try_from(number & 0xffff).ok()?;
    Some((COUNTERS.cpus.get(cpu)?, cpu, number >> 16, counter))
}

extern "C" fn plain(cpu: c_uint, token: Token) {
    if let Some((state, _, _, counter)) = unpack(cpu, token) {
        state.add(counter);
    }
}

extern "C" fn eret_at_high(cpu: c_uint, token: Token) {
    if let Some((state, _, _, counter)) = unpack(cpu, token) {
        state.add(counter);
        state.after_eret.store(state.read(counter), Ordering::Relaxed);
    }
}

/// The first instruction of a block at a low address: where user space may begin.
extern "C" fn perhaps_user(cpu: c_uint, token: Token) {
    if let Some((state, number, pc, counter)) = unpack(cpu, token) {
        let from_kernel = state.after_eret.load(Ordering::Relaxed) == state.read(COUNTERS.high);
        if from_kernel && !state.met_user.swap(true, Ordering::Relaxed) {
            state.mark(number, "user", pc);
        }
        state.add(counter);
    }
}

extern "C" fn marked(cpu: c_uint, token: Token) {
    if let Some((state, number, pc, counter)) = unpack(cpu, token) {
        for (mark, met) in plugin().options.marks.iter().zip(&state.met) {
            if mark.at << 16 >> 16 == pc && !met.swap(true, Ordering::Relaxed) {
                state.mark(number, &mark.name, mark.at);
            }
        }
        state.add(counter);
    }
}

pub(crate) fn translate(block: &Block<'_>) {
    for (index, instruction) in block.instructions().enumerate() {
        let address = instruction.address();
        let counter = COUNTERS.counter_of(address);
        let token = pack(address, counter);
        if plugin().options.marks.iter().any(|mark| mark.at == address) {
            instruction.on_execute(marked, token);
        } else if plugin().options.user && counter == COUNTERS.high && is_eret(&instruction) {
            instruction.on_execute(eret_at_high, token);
        } else if plugin().options.user && counter > COUNTERS.high && index == 0 && user_is_open() {
            instruction.on_execute(perhaps_user, token);
        } else {
            match COUNTERS.cpus.first().and_then(|cpu| cpu.counts.get(counter)) {
                Some(count) if COUNTERS.inline => instruction.add_on_execute(count),
                _ => instruction.on_execute(plain, token),
            }
        }
    }
}

fn is_eret(instruction: &Instruction<'_>) -> bool {
    Operation::decode(instruction.word()).is_some_and(|operation| operation.kind == Kind::Eret)
}

/// Whether some CPU has not come to user space yet.
fn user_is_open() -> bool {
    COUNTERS
        .cpus
        .iter()
        .any(|cpu| !cpu.met_user.load(Ordering::Relaxed))
}

pub(crate) fn end() {
    for (number, cpu) in COUNTERS.cpus.iter().enumerate() {
        let counts = cpu.counts();
        if counts.values().any(|&count| count != 0) {
            plugin().output.line(&Line::Total(Total { cpu: number, counts }));
        }
    }
    plugin().output.end();
}
