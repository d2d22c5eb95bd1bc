//! The shared interrupts (SPIs), and who gets them.

use super::bank::Bank;
use super::register::Part;
use super::vcpu_set::VcpuSet;
use alloc::boxed::Box;
use alloc::vec::Vec;
use hyp_abi::vm::{MAX_VCPUS, vcpu_at};

/// How many numbers there are: those from 1020 on have meanings of their own, and are no interrupts.
pub(super) const INTIDS: u32 = 1020;

/// To whom an interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Its affinity is no vCPU's.
    Nobody,
    One(u8),
    /// Whichever takes it first.
    Anyone,
}

/// 32 SPIs.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) bank: Bank,
    route: [u32; 32],
    target: [Target; 32],
    /// Which vCPU has it listed, or has it active.
    owner: [u8; 32],
}

/// No vCPU.
const NOBODY: u8 = u8::MAX;

impl Row {
    const ROUTE_ANYONE: u32 = 1 << 31;
    /// Affinities have no Aff3, as the distributor says (GICD_TYPER.A3V).
    const ROUTE: u32 = Self::ROUTE_ANYONE | 0xff_ffff;

    fn new(first: u32, present: VcpuSet) -> Self {
        let valid = (0..32)
            .filter(|at| first + at < INTIDS)
            .fold(0, |valid, at| valid | 1 << at);
        Self {
            bank: Bank::shared(valid),
            route: [0; 32],
            target: [Self::target(0, present); 32],
            owner: [NOBODY; 32],
        }
    }

    const fn target(route: u32, present: VcpuSet) -> Target {
        if route & Self::ROUTE_ANYONE != 0 {
            return Target::Anyone;
        }
        match vcpu_at(route) {
            Some(vcpu) if present.contains(vcpu) => Target::One(vcpu as u8),
            _ => Target::Nobody,
        }
    }

    /// Reads a part of GICD_IROUTER.
    pub(super) fn read_route(&self, at: usize, part: Part) -> u64 {
        part.take(self.route[at].into())
    }

    /// Writes a part of it. Returns the interrupts that are touched.
    pub(super) const fn write_route(&mut self, at: usize, part: Part, value: u64, present: VcpuSet) -> u32 {
        // The upper half is Aff3 alone, which there is none of.
        if matches!(part, Part::High) || !self.bank.has(at) {
            return 0;
        }
        self.route[at] = value as u32 & Self::ROUTE;
        self.target[at] = Self::target(self.route[at], present);
        1 << at
    }

    /// The vCPUs that an interrupt is for: the one that has it, or else those that it goes to.
    pub(super) const fn whose(&self, at: usize, present: VcpuSet) -> VcpuSet {
        if (self.bank.listed | self.bank.active) >> at & 1 != 0 {
            return VcpuSet::one(self.owner[at] as usize);
        }
        match self.target[at] {
            Target::Nobody => VcpuSet::EMPTY,
            Target::One(vcpu) => VcpuSet::one(vcpu as usize),
            Target::Anyone => present,
        }
    }

    /// A vCPU has the interrupt from now on.
    pub(super) const fn own(&mut self, at: usize, vcpu: usize) {
        self.owner[at] = vcpu as u8;
    }

    /// The interrupt is made active by a register: it is the vCPU's that it goes to, unless a vCPU has it.
    pub(super) const fn own_by_route(&mut self, at: usize, present: VcpuSet) {
        self.owner[at] = match self.target[at] {
            Target::Nobody => NOBODY,
            Target::One(vcpu) => vcpu,
            Target::Anyone => present.bits().trailing_zeros() as u8,
        };
    }
}

/// All SPIs.
#[derive(Debug)]
pub(super) struct Spis {
    rows: Box<[Row]>,
}

impl Spis {
    /// Those of a distributor with `interrupts` interrupts; `None` if there is no memory.
    pub(super) fn new(interrupts: u32, present: VcpuSet) -> Option<Self> {
        const { assert!(MAX_VCPUS < NOBODY as usize) };
        let banks = interrupts.div_ceil(32);
        let mut rows = Vec::new();
        rows.try_reserve_exact(banks.saturating_sub(1) as usize).ok()?;
        rows.extend((1..banks).map(|bank| Row::new(32 * bank, present)));
        Some(Self {
            rows: rows.into_boxed_slice(),
        })
    }

    /// The bank of which the first interrupt has the number `32 * bank`; there is none for bank 0.
    pub(super) fn row(&mut self, bank: usize) -> Option<&mut Row> {
        self.rows.get_mut(bank.checked_sub(1)?)
    }

    /// All of them, with the number of each first interrupt.
    pub(super) fn rows(&mut self) -> impl Iterator<Item = (u32, &mut Row)> {
        (1..).map(|bank| 32 * bank).zip(&mut self.rows)
    }
}
