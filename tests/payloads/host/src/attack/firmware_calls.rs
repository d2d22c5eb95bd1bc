//! SMCs: any function identifier, and PSCI with what it must not accept.

use super::attacker::Attacker;
use super::call::{ensure_preserved, registers};
use super::gadget;
use super::ground::boundary;
use super::tally::{self, Kind};
use crate::machine::machine;
use crate::probe::{self, Level};
use crate::{boot, cpu};

// Function identifiers: DEN0022 5.1, DEN0028 7, DEN0077A 2, DEN0098 2.
const CPU_SUSPEND: u32 = 0xc400_0001;
const CPU_ON: u32 = 0xc400_0003;
const AFFINITY_INFO: u32 = 0xc400_0004;
/// Those that end or stop what the attack runs on, when they do as they are told: CPU_SUSPEND, CPU_OFF, SYSTEM_OFF,
/// SYSTEM_RESET, CPU_FREEZE, CPU_DEFAULT_SUSPEND, SYSTEM_SUSPEND, SYSTEM_RESET2, SYSTEM_OFF2; and CPU_ON, which
/// has an attack of its own.
const DEADLY: [u32; 10] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x0c, 0x0e, 0x12, 0x15];
/// MIGRATE_INFO_UP_CPU, PSCI_VERSION, PSCI_FEATURES, SET_SUSPEND_MODE, MIGRATE, AFFINITY_INFO, STAT, MEM_PROTECT and
/// what comes after the last of them.
const PSCI: [u32; 16] = [
    0x8400_0000,
    0x8400_0004,
    0x8400_0005,
    0xc400_0005,
    0x8400_0006,
    0x8400_0007,
    0xc400_0007,
    0x8400_000a,
    0x8400_000d,
    0x8400_000f,
    0xc400_0010,
    0x8400_0011,
    0x8400_0013,
    0xc400_0014,
    0x8400_001f,
    0xc400_0016,
];
/// Owners of functions, and the first function of some of their services: architecture, CPU, SiP, OEM, secure and
/// hypervisor services, FF-A, TRNG, SDEI, trusted OS.
const SERVICES: [u32; 16] = [
    0x8000_0000,
    0x8000_0001,
    0x8000_8000,
    0x8000_7fff,
    0x8000_3fff,
    0x8100_0000,
    0x8200_0000,
    0xc300_0000,
    0x8400_0050,
    0x8400_0060,
    0xc400_0066,
    0xc400_0072,
    0xc400_0020,
    0xc600_4600,
    0xb200_0000,
    0xc400_0150,
];

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;
const INVALID_ADDRESS: i64 = -9;

/// The fast-call bit, the 64-bit bit and the SVE hint: what may be set or not for one and the same function.
const FAST: u32 = 1 << 31;
const SVE_HINT: u32 = 1 << 16;
const WIDE: u64 = 1 << 30;

/// Whether a call could end this machine, or stop this CPU, if it were let through.
const fn is_deadly(function: u64) -> bool {
    let function = function as u32;
    let plain = function & !(SVE_HINT | 1 << 30);
    let number = plain & 0xffff;
    if plain & FAST == 0 || plain >> 16 != 0x8400 {
        return false;
    }
    let mut index = 0;
    while index < DEADLY.len() {
        if DEADLY[index] == number {
            return true;
        }
        index += 1;
    }
    false
}

/// Makes an SMC and returns x0. All other registers must stay as they are, but that a 32-bit function may cut its
/// arguments to 32 bits: no call that Freehold lets through has more than one result on this machine.
fn smc(arguments: [u64; 4]) -> i64 {
    let before = registers(arguments);
    let mut after = before;
    if let Some(fault) = gadget::smc(&mut after) {
        tally::fail(format_args!("SMC {:#x} ended in {fault:?}", arguments[0]));
        return NOT_SUPPORTED;
    }
    for number in 1..4 {
        if arguments[0] & WIDE == 0 && after[number] == before[number] & 0xffff_ffff {
            after[number] = before[number];
        }
    }
    ensure_preserved("SMC", &before, &after, 1);
    after[0].cast_signed()
}

impl Attacker<'_> {
    /// One attack by way of the firmware.
    pub(super) fn firmware_call(&mut self) {
        match self.random.below(10) {
            0..4 => self.any_smc(),
            4..7 => self.psci(),
            7..9 => self.cpu_on(),
            _ => self.el0_call(),
        }
    }

    fn any_smc(&mut self) {
        let mut function = match self.random.below(4) {
            0 => self.random.next(),
            1 => self.random.next() & 0xffff_ffff,
            2 if self.random.one_in(2) => u64::from(self.random.pick(&SERVICES)),
            2 => u64::from(self.random.pick(&SERVICES)) + self.random.below(32),
            _ => u64::from(self.random.pick(&SERVICES)) ^ 1 << self.random.below(32),
        };
        if is_deadly(function) {
            function ^= 1 << 26;
        }
        let address = boundary(self.ground, &mut self.random);
        let answer = smc([function, address, self.forbidden(), self.random.next()]);
        tally::attack(Kind::Smc, answer != NOT_SUPPORTED);
        // What passes: SMCCC_VERSION, ARCH_FEATURES, SOC_ID and the workarounds.
        let passes = matches!(
            function & !u64::from(SVE_HINT),
            0x8000_0000..=0x8000_0002 | 0x8000_3fff | 0x8000_7fff | 0x8000_8000
        );
        let is_psci = function & 0xffff_ffff_bffe_ffe0 == 0x8400_0000;
        if answer != NOT_SUPPORTED && !passes && !is_psci {
            self.fail(format_args!("SMC {function:#x} answered {answer:#x}"));
        }
    }

    fn psci(&mut self) {
        let function = self.random.pick(&PSCI);
        let argument = match self.random.below(3) {
            0 => boundary(self.ground, &mut self.random),
            1 => u64::from(self.random.pick(&PSCI)),
            _ => self.random.pick(&machine().cpus),
        };
        let answer = match self.random.below(4) {
            // A standby, which the timer ends at once. The states that lose the context have no business here.
            0 => smc([
                u64::from(CPU_SUSPEND),
                self.random.pick(&[0, 1, 1 << 31, u64::MAX]),
                self.forbidden(),
                0,
            ]),
            1 => smc([u64::from(AFFINITY_INFO), argument, self.random.below(6), 0]),
            _ => smc([
                u64::from(function),
                argument,
                self.random.next(),
                self.random.next(),
            ]),
        };
        tally::attack(Kind::Psci, answer >= SUCCESS);
    }

    /// CPU_ON of CPUs that run or do not exist, or to places that are not the host's.
    fn cpu_on(&mut self) {
        let cpus = &machine().cpus;
        let (target, exists) = match self.random.below(3) {
            0 => (self.random.next(), false),
            1 => (0xff_00ff_ff00 | self.random.below(256), false),
            _ => (self.random.pick(cpus), true),
        };
        // A place that is the host's may only be named for this CPU, which is surely on.
        let own = cpus[cpu::number()];
        let (target, entry) = if self.random.one_in(4) {
            (own, boot::secondary_entry_address())
        } else {
            let entry = match self.random.below(3) {
                0 => boundary(self.ground, &mut self.random),
                1 => self.ground.hyp.start,
                _ => self.forbidden(),
            };
            (target, entry)
        };
        let answer = smc([u64::from(CPU_ON), target, entry, self.random.next()]);
        tally::attack(Kind::CpuOn, answer == SUCCESS);
        let expected: &[i64] = match (target == own, exists) {
            (true, _) => &[ALREADY_ON, INVALID_ADDRESS],
            (false, true) => &[ALREADY_ON, INVALID_ADDRESS, ON_PENDING],
            (false, false) => &[INVALID_PARAMETERS],
        };
        let unlikely = !exists && cpus.contains(&target);
        if !expected.contains(&answer) && !unlikely {
            self.fail(format_args!("CPU_ON {target:#x} {entry:#x} answered {answer}"));
        }
    }

    /// HVC and SMC of a user program, which have no such instructions.
    fn el0_call(&mut self) {
        let immediate = self.random.below(1 << 16) as u32;
        let instruction = self.random.pick(&[0xd400_0002, 0xd400_0003]) | immediate << 5;
        let result = probe::execute(Level::El0, instruction, [0xc600_4600, self.random.next()]);
        tally::attack(Kind::El0Call, result.is_ok());
        match result {
            Err(fault) if fault.class() == crate::exception::class::UNKNOWN => {}
            result => self.fail(format_args!("{instruction:#x} at EL0: {result:x?}")),
        }
    }
}
