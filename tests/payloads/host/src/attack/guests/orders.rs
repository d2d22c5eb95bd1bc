//! What guests are told to do: everything that a hostile guest might.

use super::place::{Place, Seat, VCPUS};
use crate::attack::attacker::Attacker;
use crate::attack::random::Random;
use crate::guest::vgic;
use core::sync::atomic::Ordering;
use hyp_abi::FRAME_SIZE;
use hyp_abi::guest_call::GuestCallId;
use payload_protocol::{Access, Conduit, Door, Level, Order, SERVICE, Start, layout};

/// Guest frame numbers that a guest shares, unshares and gives up, from here on, and how many.
pub(super) const WINDOW: u64 = layout::FREE / FRAME_SIZE;
pub(super) const WINDOW_PAGES: u64 = 12;

/// PSCI functions (Arm DEN0022, 5.1) that a VM survives: VERSION, FEATURES, AFFINITY_INFO, MIGRATE_INFO_TYPE,
/// CPU_SUSPEND, CPU_ON.
const PSCI: [u32; 8] = [
    0x8400_0000,
    0x8400_000a,
    0xc400_0004,
    0x8400_0006,
    0x8400_0001,
    0xc400_0001,
    0x8400_0003,
    0xc400_0003,
];
/// CPU_OFF, SYSTEM_OFF and SYSTEM_RESET.
const PSCI_ENDS: [u32; 3] = [0x8400_0002, 0x8400_0008, 0x8400_0009];

/// WFE, SEV, HVC #1, SMC #1, ERET, DRPS, HLT #0, BRK #0, DCPS2, DC ZVA, TLBI VMALLE1, TLBI ALLE1, IC IALLU, AT S12E1R,
/// MSR VBAR_EL1, MSR TTBR0_EL1, MSR HCR_EL2, MRS SP_EL1: all with x0.
const INSTRUCTIONS: [u32; 18] = [
    0xd503_205f,
    0xd503_209f,
    0xd400_0022,
    0xd400_0023,
    0xd69f_03e0,
    0xd6bf_03e0,
    0xd440_0000,
    0xd420_0000,
    0xd4a0_0002,
    0xd50b_7420,
    0xd508_871f,
    0xd50c_879f,
    0xd508_751f,
    0xd50c_7880,
    0xd518_c000,
    0xd518_2000,
    0xd51c_1100,
    0xd53c_4100,
];

/// The address of a page in the window.
fn page(random: &mut Random) -> u64 {
    (WINDOW + random.below(WINDOW_PAGES)) * FRAME_SIZE
}

/// Any address that a guest may think of, but that a guest which keeps a secret must not give away.
fn address(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => layout::DEVICE + random.below(FRAME_SIZE),
        2 => layout::DEVICE & !(FRAME_SIZE - 1),
        // Not the beginning of memory: a long range from there has the secret in it.
        3 => 1 << random.pick(&[3, 12, 21, 29, 31, 32, 36, 40, 47]),
        4 => layout::FREE + random.below(4096) * FRAME_SIZE,
        5 => 0xffff_f000,
        6 => page(random) + random.below(FRAME_SIZE),
        _ => random.next() | 1 << 40,
    }
}

impl Attacker<'_> {
    /// The next order of a vCPU.
    pub(super) fn order(&mut self, place: &Place, index: u64, seat: &Seat) -> Order {
        let pinned = match self.random.one_in(3) {
            true => place.book.try_lock().and_then(|book| book.any_pinned()),
            false => None,
        };
        let order = match self.random.below(10) {
            // What the host needs for its I/O, the guest wants for itself.
            0..5 if let Some(gfn) = pinned => Order::Call {
                conduit: Conduit::Hvc,
                function: self
                    .random
                    .pick(&[GuestCallId::MemUnshare, GuestCallId::MemRelinquish])
                    .into(),
                arguments: [gfn * FRAME_SIZE, 0, 0],
            },
            0..3 if place.nature.keeps => self.secret_order(place),
            0..3 => self.wild_order(),
            3..7 => self.call_order(place.nature.keeps),
            _ => self.plain_order(index),
        };
        let asked = match order {
            Order::Call {
                conduit: Conduit::Hvc,
                function,
                ..
            } => function,
            _ => 0,
        };
        seat.asked.store(u64::from(asked), Ordering::Relaxed);
        order
    }

    /// Something about the secret.
    pub(super) fn secret_order(&mut self, place: &Place) -> Order {
        let seed = place.seed;
        if self.random.one_in(2) {
            let page = self.random.below(layout::KEPT_PAGES);
            return Order::Keep { page, seed };
        }
        let random = &mut self.random;
        let (door, argument) = match random.below(6) {
            0 => (Door::Wait, 0),
            1 => (
                Door::Call,
                random.pick(&[
                    0xc600_0002,
                    0x8400_0000,
                    0xc600_1234,
                    u64::from(SERVICE) + 1,
                    random.clone().next() | 1 << 31,
                ]),
            ),
            2 => (Door::Firmware, random.next()),
            3 => (Door::Load, page(random)),
            4 => (Door::Interrupt, random.below(16) << 24 | random.below(16)),
            _ => (Door::Share, page(random)),
        };
        Order::Watch { seed, door, argument }
    }

    /// Something that guests do.
    fn plain_order(&mut self, index: u64) -> Order {
        let random = &mut self.random;
        match random.below(12) {
            0 => {
                let target = random.below(VCPUS);
                Order::Start {
                    target: vgic::affinity(target),
                    start: Start {
                        index: target as u8,
                        mmu_off: false,
                        tag: index,
                    }
                    .to_register(),
                }
            }
            1 => Order::Timer {
                ticks: random.below(20_000),
                sleep: random.one_in(2),
            },
            2 => Order::Wait,
            3 => Order::Spin {
                rounds: random.below(100_000),
            },
            4 => Order::FillVectors { seed: random.next() },
            5..8 => Order::Access {
                level: Level::El1,
                access: random.pick(&[
                    Access::Load8,
                    Access::Store8,
                    Access::StorePair,
                    Access::LoadVector,
                ]),
                address: page(random) + 16 * random.below(256),
                value: random.next(),
            },
            8 => Order::Access {
                level: Level::El1,
                access: random.pick(&[Access::Load4, Access::Store4]),
                address: layout::DEVICE + 4 * random.below(1024),
                value: random.next(),
            },
            _ => Order::Fill {
                address: page(random),
                frames: 1,
                value: random.next(),
            },
        }
    }

    /// A call, of any kind.
    fn call_order(&mut self, keeps: bool) -> Order {
        let random = &mut self.random;
        let conduit = if random.one_in(8) {
            Conduit::Smc
        } else {
            Conduit::Hvc
        };
        let about_memory = [
            GuestCallId::MemShare,
            GuestCallId::MemUnshare,
            GuestCallId::MemRelinquish,
        ];
        let about_devices = [GuestCallId::MmioGuardRangeMap, GuestCallId::MmioGuardRangeUnmap];
        let (function, arguments) = match random.below(16) {
            0..7 => (
                random.pick(&about_memory).into(),
                [page(random), random.below(3), 0],
            ),
            7 => (
                random.pick(&about_memory).into(),
                [address(random), random.pick(&[0, 1, 2, 512, 1 << 40]), 0],
            ),
            8 => (
                random.pick(&about_devices).into(),
                [
                    layout::DEVICE + random.below(8) * FRAME_SIZE,
                    1 + random.below(4),
                    0,
                ],
            ),
            // Its first argument is an address, a number of bits, a half or nothing.
            9..13 => {
                let id = random.pick(&GuestCallId::ALL);
                let first = match id {
                    GuestCallId::MemShare | GuestCallId::MemUnshare | GuestCallId::MemRelinquish => {
                        page(random)
                    }
                    GuestCallId::MmioGuardMap | GuestCallId::MmioGuardUnmap => layout::DEVICE,
                    GuestCallId::LaunchDigest => random.below(3),
                    GuestCallId::TrngRnd32 | GuestCallId::TrngRnd64 => random.below(200),
                    // The calls of each family are next to each other.
                    GuestCallId::SmcccArchFeatures => u32::from(random.pick(&GuestCallId::ALL[..5])).into(),
                    GuestCallId::TrngFeatures => u32::from(random.pick(&GuestCallId::ALL[4..11])).into(),
                    _ => 0,
                };
                (id.into(), [first, 0, 0])
            }
            13 => (random.pick(&PSCI), [random.below(300), address(random), 1]),
            14 if random.one_in(2) => (
                random.next() as u32,
                [address(random), random.next(), random.next()],
            ),
            _ if random.one_in(if keeps { 16 } else { 2 }) => (random.pick(&PSCI_ENDS), [0; 3]),
            _ => (
                random.pick(&GuestCallId::ALL).into(),
                [address(random), random.below(4), 0],
            ),
        };
        Order::Call {
            conduit,
            function,
            arguments,
        }
    }

    /// What a guest does that wants to break out, or does not know what it does.
    fn wild_order(&mut self) -> Order {
        let random = &mut self.random;
        let level = random.pick(&Level::ALL);
        match random.below(10) {
            0..3 => Order::Execute {
                level,
                // MSR, MRS, SYS and SYSL of anything, with x0.
                instruction: 0xd500_0000 | (random.next() as u32 & 0x2f_ffe0),
                registers: [random.next(), 0],
            },
            3 => Order::Execute {
                level,
                instruction: random.pick(&INSTRUCTIONS),
                registers: [address(random), 0],
            },
            4 => Order::Execute {
                level,
                instruction: random.next() as u32,
                registers: [random.next(), random.next()],
            },
            5 => Order::Fetch {
                level,
                address: address(random),
                value: 0,
            },
            6 => Order::Repeat {
                access: random.pick(&Access::ALL),
                address: page(random),
                rounds: 200,
            },
            7 => Order::Call {
                conduit: Conduit::Hvc,
                function: GuestCallId::MemShare.into(),
                // Whatever it lives on.
                arguments: [layout::IMAGE + random.below(64) * FRAME_SIZE, random.below(4), 0],
            },
            _ => Order::Access {
                level,
                access: random.pick(&Access::ALL),
                address: address(random),
                value: random.next(),
            },
        }
    }
}
