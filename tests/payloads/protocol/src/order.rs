//! What a guest is told to do.

use crate::{Access, Level};
use num_enum::{IntoPrimitive, TryFromPrimitive};

/// Which instruction a call is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
pub enum Conduit {
    /// `HVC #0`.
    Hvc = 0,
    /// `SMC #0`.
    Smc = 1,
}

/// The instruction by which a guest that holds a secret leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
pub enum Door {
    /// `WFI`.
    Wait = 0,
    /// `HVC #0`. x0 is the argument, x1 to x6 are 0.
    Call = 1,
    /// `SMC #0`, with the same registers.
    Firmware = 2,
    /// A load of eight bytes from the argument, into x1.
    Load = 3,
    /// A store of eight zeroes to the argument.
    Store = 4,
    /// A write of the argument to ICC_SGI1R_EL1.
    Interrupt = 5,
    /// Loads from the argument until what comes is not zero: until then, whatever else makes it leave.
    Poll = 6,
    /// A call with x1 the argument and x0 MEM_SHARE.
    Share = 7,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Wait,
        Self::Call,
        Self::Firmware,
        Self::Load,
        Self::Store,
        Self::Interrupt,
        Self::Poll,
        Self::Share,
    ];

    /// How many of the general registers, from x0 on, the door needs for itself, so that they hold no secret.
    #[must_use]
    pub const fn registers(self) -> usize {
        match self {
            Self::Wait => 0,
            Self::Call | Self::Firmware | Self::Share => 7,
            Self::Load | Self::Poll => 2,
            Self::Store | Self::Interrupt => 1,
        }
    }
}

/// An order. Addresses are the guest's virtual ones: with its MMU off, or below [`crate::layout::NON_CACHEABLE_ALIAS`],
/// they are IPAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Do nothing. Reports nothing.
    Nothing,
    /// Access memory. Reports what was loaded, or the fault.
    Access {
        /// From where.
        level: Level,
        /// How.
        access: Access,
        /// Where.
        address: u64,
        /// What is stored.
        value: u64,
    },
    /// Call the code at an address. Reports its x0, or the fault.
    Fetch {
        /// From where.
        level: Level,
        /// Where.
        address: u64,
        /// Its x0.
        value: u64,
    },
    /// Execute one instruction. Reports x0 and x1 afterwards, or the fault.
    Execute {
        /// From where.
        level: Level,
        /// The instruction.
        instruction: u32,
        /// x0 and x1.
        registers: [u64; 2],
    },
    /// Make a call. Reports x0 to x3, and which of x4 to x17 it changed, a bit each.
    Call {
        /// By which instruction.
        conduit: Conduit,
        /// w0.
        function: u32,
        /// x1 to x3.
        arguments: [u64; 3],
    },
    /// Fill pages with [`crate::pattern`]. Reports nothing.
    Fill {
        /// Where the first one begins.
        address: u64,
        /// How many.
        frames: u64,
        /// What with.
        value: u64,
    },
    /// Compare pages with [`crate::pattern`], or with zeroes if there is no value. Reports how many words differ, and of
    /// the first that does the address and what it holds.
    Verify {
        /// Where the first one begins.
        address: u64,
        /// How many.
        frames: u64,
        /// What they hold.
        value: Option<u64>,
    },
    /// Compute a secret, hold it in every register that can hold it, leave by a door, and come back. Reports which
    /// registers no longer held it: general, vector and system ones, a bit each; and x0 and x1.
    Hold {
        /// What the secret is made from.
        seed: u64,
        /// How to leave.
        door: Door,
        /// See [`Door`].
        argument: u64,
    },
    /// Wait for an interrupt (`WFI`), once. Reports nothing.
    Wait,
    /// Arm the virtual timer and wait for its interrupt, which is taken. Reports the counter's ticks until it came.
    Timer {
        /// Ticks from now.
        ticks: u64,
        /// Whether to wait by `WFI`, rather than by looking.
        sleep: bool,
    },
    /// Take interrupts from now on, or no longer. Reports nothing.
    Interrupts {
        /// Whether.
        taken: bool,
    },
    /// Reports how often an interrupt was taken, how many were taken in all, and the INTID of the last (or all ones).
    Taken {
        /// The INTID.
        interrupt: u64,
    },
    /// Turn another vCPU on (PSCI CPU_ON), to begin as this one did. Reports x0 to x3, and as for a call.
    Start {
        /// Its MPIDR.
        target: u64,
        /// What it finds in x0: [`crate::Start`].
        start: u64,
    },
    /// Count, and do nothing else. Reports how far.
    Spin {
        /// To how much; `u64::MAX` is for ever.
        rounds: u64,
    },
    /// Load from an address for as long as it holds a value. Reports what it held then, and how often it was loaded.
    Poll {
        /// Where: eight bytes.
        address: u64,
        /// What.
        value: u64,
    },
    /// Access an address again and again. Reports what was loaded last, or the fault.
    Repeat {
        /// How.
        access: Access,
        /// Where.
        address: u64,
        /// How often.
        rounds: u64,
    },
    /// Fill the vector registers from a seed; no order but `Hold` changes them. Reports nothing.
    FillVectors {
        /// The seed.
        seed: u64,
    },
    /// Compare the vector registers with a seed. Reports which differ, a bit each.
    VerifyVectors {
        /// The seed.
        seed: u64,
    },
    /// Keep a secret in one of this vCPU's pages at [`crate::layout::KEPT`]: the first time it is written, with this
    /// seed, and every other time it is compared. Reports nothing, or that it is spoiled.
    Keep {
        /// Which page: below [`crate::layout::KEPT_PAGES`].
        page: u64,
        /// What the secret is made from.
        seed: u64,
    },
    /// `Hold`, and judge what came of it. Reports nothing, or that a register is spoiled.
    Watch {
        /// What the secret is made from.
        seed: u64,
        /// How to leave.
        door: Door,
        /// See [`Door`].
        argument: u64,
    },
}

/// The order's number: bits 7:0 of x0.
#[derive(Clone, Copy, IntoPrimitive, TryFromPrimitive)]
#[repr(u8)]
enum Number {
    Nothing,
    Access,
    Fetch,
    Execute,
    Call,
    Fill,
    Verify,
    VerifyZero,
    Hold,
    Wait,
    Timer,
    Interrupts,
    Taken,
    Start,
    Spin,
    Poll,
    Repeat,
    FillVectors,
    VerifyVectors,
    Keep,
    Watch,
}

/// x0: the number, two small fields and one of 32 bits.
const fn head(number: Number, first: u8, second: u8, word: u32) -> u64 {
    (word as u64) << 32 | (second as u64) << 16 | (first as u64) << 8 | number as u64
}

impl Order {
    /// The registers x0 to x3 that hold the order.
    #[must_use]
    pub fn encode(self) -> [u64; 4] {
        let plain = |number| head(number, 0, 0, 0);
        match self {
            Self::Nothing => [plain(Number::Nothing), 0, 0, 0],
            Self::Access {
                level,
                access,
                address,
                value,
            } => [
                head(Number::Access, level.into(), access.into(), 0),
                address,
                value,
                0,
            ],
            Self::Fetch {
                level,
                address,
                value,
            } => [head(Number::Fetch, level.into(), 0, 0), address, value, 0],
            Self::Execute {
                level,
                instruction,
                registers: [x0, x1],
            } => [head(Number::Execute, level.into(), 0, instruction), x0, x1, 0],
            Self::Call {
                conduit,
                function,
                arguments: [x1, x2, x3],
            } => [head(Number::Call, conduit.into(), 0, function), x1, x2, x3],
            Self::Fill {
                address,
                frames,
                value,
            } => [plain(Number::Fill), address, frames, value],
            Self::Verify {
                address,
                frames,
                value: Some(value),
            } => [plain(Number::Verify), address, frames, value],
            Self::Verify {
                address,
                frames,
                value: None,
            } => [plain(Number::VerifyZero), address, frames, 0],
            Self::Hold { seed, door, argument } => [head(Number::Hold, door.into(), 0, 0), seed, argument, 0],
            Self::Wait => [plain(Number::Wait), 0, 0, 0],
            Self::Timer { ticks, sleep } => [head(Number::Timer, sleep.into(), 0, 0), ticks, 0, 0],
            Self::Interrupts { taken } => [head(Number::Interrupts, taken.into(), 0, 0), 0, 0, 0],
            Self::Taken { interrupt } => [plain(Number::Taken), interrupt, 0, 0],
            Self::Start { target, start } => [plain(Number::Start), target, start, 0],
            Self::Spin { rounds } => [plain(Number::Spin), rounds, 0, 0],
            Self::Poll { address, value } => [plain(Number::Poll), address, value, 0],
            Self::Repeat {
                access,
                address,
                rounds,
            } => [head(Number::Repeat, 0, access.into(), 0), address, rounds, 0],
            Self::FillVectors { seed } => [plain(Number::FillVectors), seed, 0, 0],
            Self::VerifyVectors { seed } => [plain(Number::VerifyVectors), seed, 0, 0],
            Self::Keep { page, seed } => [plain(Number::Keep), page, seed, 0],
            Self::Watch { seed, door, argument } => {
                [head(Number::Watch, door.into(), 0, 0), seed, argument, 0]
            }
        }
    }

    /// The order that registers x0 to x3 hold, if they hold one.
    #[must_use]
    pub fn decode([x0, x1, x2, x3]: [u64; 4]) -> Option<Self> {
        let [number, first, second, ..] = x0.to_le_bytes();
        let word = (x0 >> 32) as u32;
        let level = || Level::try_from(first).ok();
        let access = || Access::try_from(second).ok();
        Some(match Number::try_from(number).ok()? {
            Number::Nothing => Self::Nothing,
            Number::Access => Self::Access {
                level: level()?,
                access: access()?,
                address: x1,
                value: x2,
            },
            Number::Fetch => Self::Fetch {
                level: level()?,
                address: x1,
                value: x2,
            },
            Number::Execute => Self::Execute {
                level: level()?,
                instruction: word,
                registers: [x1, x2],
            },
            Number::Call => Self::Call {
                conduit: Conduit::try_from(first).ok()?,
                function: word,
                arguments: [x1, x2, x3],
            },
            Number::Fill => Self::Fill {
                address: x1,
                frames: x2,
                value: x3,
            },
            Number::Verify => Self::Verify {
                address: x1,
                frames: x2,
                value: Some(x3),
            },
            Number::VerifyZero => Self::Verify {
                address: x1,
                frames: x2,
                value: None,
            },
            Number::Hold => Self::Hold {
                seed: x1,
                door: Door::try_from(first).ok()?,
                argument: x2,
            },
            Number::Wait => Self::Wait,
            Number::Timer => Self::Timer {
                ticks: x1,
                sleep: first != 0,
            },
            Number::Interrupts => Self::Interrupts { taken: first != 0 },
            Number::Taken => Self::Taken { interrupt: x1 },
            Number::Start => Self::Start {
                target: x1,
                start: x2,
            },
            Number::Spin => Self::Spin { rounds: x1 },
            Number::Poll => Self::Poll {
                address: x1,
                value: x2,
            },
            Number::Repeat => Self::Repeat {
                access: access()?,
                address: x1,
                rounds: x2,
            },
            Number::FillVectors => Self::FillVectors { seed: x1 },
            Number::VerifyVectors => Self::VerifyVectors { seed: x1 },
            Number::Keep => Self::Keep { page: x1, seed: x2 },
            Number::Watch => Self::Watch {
                seed: x1,
                door: Door::try_from(first).ok()?,
                argument: x2,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_survives_its_registers() {
        let (level, access, address, value) = (Level::El0, Access::StorePair, 0x4060_0040, 0xfeed);
        for order in [
            Order::Nothing,
            Order::Access {
                level,
                access,
                address,
                value,
            },
            Order::Fetch {
                level,
                address,
                value,
            },
            Order::Execute {
                level,
                instruction: 0xd503_207f,
                registers: [1, 2],
            },
            Order::Call {
                conduit: Conduit::Smc,
                function: 0xc600_0003,
                arguments: [1, 2, 3],
            },
            Order::Fill {
                address,
                frames: 2,
                value,
            },
            Order::Verify {
                address,
                frames: 2,
                value: Some(value),
            },
            Order::Verify {
                address,
                frames: 2,
                value: None,
            },
            Order::Hold {
                seed: 5,
                door: Door::Store,
                argument: 6,
            },
            Order::Wait,
            Order::Timer {
                ticks: 7,
                sleep: true,
            },
            Order::Interrupts { taken: true },
            Order::Taken { interrupt: 27 },
            Order::Start { target: 1, start: 2 },
            Order::Spin { rounds: u64::MAX },
            Order::Poll { address, value },
            Order::Repeat {
                access,
                address,
                rounds: 9,
            },
            Order::FillVectors { seed: 1 },
            Order::VerifyVectors { seed: 2 },
            Order::Keep { page: 1, seed: 2 },
            Order::Watch {
                seed: 3,
                door: Door::Share,
                argument: 4,
            },
        ] {
            assert_eq!(Order::decode(order.encode()), Some(order));
        }
    }

    #[test]
    fn what_is_no_order_is_none() {
        for x0 in [0xff, 0x0200 | Number::Access as u64, u64::MAX] {
            assert_eq!(Order::decode([x0, 0, 0, 0]), None, "{x0:#x}");
        }
    }
}
