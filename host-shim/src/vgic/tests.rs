//! A controller, vCPUs that run on it, and what they must see.

mod attributes;
mod cpu;
mod delivery;
mod enter;
mod overflow;
mod races;
mod random;
mod registers;
mod routing;
mod sending;
mod user;

extern crate std;

use super::{Frame, InterfaceShape, Load, Synced, VcpuSet, Vgic, VgicConfig};
use crate::vcpu::Interrupts;
use cpu::Cpu;
use hyp_abi::run_page::SgiRegister;
use std::vec::Vec;

/// Offsets in the distributor, and, for the first 32, in SGI_base.
const CTLR: u64 = 0;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ICFGR: u64 = 0xc00;
const IROUTER: u64 = 0x6000;
const SGI_BASE: u64 = 0x1_0000;

/// A controller and the CPUs of its guest.
#[derive(Debug)]
struct Bench {
    vgic: Vgic,
    cpus: Vec<Cpu>,
}

fn vgic(vcpus: usize, interrupts: u32, lists: u8) -> Vgic {
    Vgic::new(&VgicConfig {
        vcpus: VcpuSet::first(vcpus),
        interrupts,
        interface: InterfaceShape::new(lists, 5),
    })
    .unwrap()
}

impl Bench {
    /// `vcpus` vCPUs with `lists` list registers and 96 interrupts. Everything is enabled, all priorities are 0xa0.
    fn new(vcpus: usize, lists: u8) -> Self {
        let bench = Self {
            vgic: vgic(vcpus, 96, lists),
            cpus: (0..vcpus).map(|_| Cpu::new(lists)).collect(),
        };
        bench.write(CTLR, 2);
        for intid in 0..96 {
            bench.enable(intid);
            bench.set_priority(intid, 0xa0);
        }
        bench
    }

    /// Writes 32 bits to the distributor.
    fn write(&self, offset: u64, value: u64) -> VcpuSet {
        self.vgic.write(Frame::Distributor, offset, 4, value)
    }

    fn read(&self, offset: u64) -> u64 {
        self.vgic.read(Frame::Distributor, offset, 4)
    }

    /// The frame of an interrupt of all vCPUs or of vCPU 0, and what is to be added to the offset there.
    fn frame(intid: u32) -> (Frame, u64) {
        if intid < 32 {
            (Frame::Redistributor(0), SGI_BASE)
        } else {
            (Frame::Distributor, 0)
        }
    }

    /// Sets the bit of an interrupt in a register that has one for each; private ones are vCPU 0's.
    fn bit(&self, register: u64, intid: u32) -> VcpuSet {
        let (frame, base) = Self::frame(intid);
        let offset = base + register + u64::from(intid / 32 * 4);
        self.vgic.write(frame, offset, 4, 1 << (intid % 32))
    }

    fn has_bit(&self, register: u64, intid: u32) -> bool {
        let (frame, base) = Self::frame(intid);
        let offset = base + register + u64::from(intid / 32 * 4);
        self.vgic.read(frame, offset, 4) >> (intid % 32) & 1 != 0
    }

    /// Enables an interrupt, of all vCPUs if it is private.
    fn enable(&self, intid: u32) {
        if intid >= 32 {
            self.bit(ISENABLER, intid);
            return;
        }
        for vcpu in 0..self.cpus.len() {
            let frame = Frame::Redistributor(vcpu);
            self.vgic.write(frame, SGI_BASE + ISENABLER, 4, 1 << intid);
        }
    }

    /// Gives an interrupt a priority, of all vCPUs if it is private.
    fn set_priority(&self, intid: u32, priority: u8) {
        let offset = IPRIORITYR + u64::from(intid);
        if intid >= 32 {
            self.vgic.write(Frame::Distributor, offset, 1, priority.into());
            return;
        }
        for vcpu in 0..self.cpus.len() {
            let frame = Frame::Redistributor(vcpu);
            self.vgic.write(frame, SGI_BASE + offset, 1, priority.into());
        }
    }

    /// Makes an SPI edge-triggered or level-sensitive.
    fn set_edge(&self, intid: u32, edge: bool) {
        let offset = ICFGR + u64::from(intid / 16 * 4);
        let shift = intid % 16 * 2;
        let value = self.read(offset) & !(0b11 << shift) | u64::from(edge) << 1 << shift;
        self.write(offset, value);
    }

    fn route(&self, intid: u32, value: u64) -> VcpuSet {
        let offset = IROUTER + u64::from(intid) * 8;
        self.vgic.write(Frame::Distributor, offset, 8, value)
    }

    fn raise(&self, intid: u32, vcpu: usize) -> VcpuSet {
        self.vgic.set_level(intid, vcpu, true).unwrap()
    }

    fn lower(&self, intid: u32, vcpu: usize) -> VcpuSet {
        self.vgic.set_level(intid, vcpu, false).unwrap()
    }

    /// A vCPU enters the guest.
    fn enter(&mut self, vcpu: usize) {
        if let Some(load) = self.vgic.flush(vcpu) {
            self.cpus[vcpu].load(&load);
        }
    }

    /// It leaves it.
    fn leave(&mut self, vcpu: usize) -> Synced {
        let interrupts = self.cpus[vcpu].save();
        self.vgic.sync(vcpu, &interrupts)
    }

    /// A vCPU that is in the guest acknowledges.
    fn acknowledge(&mut self, vcpu: usize) -> Option<u32> {
        self.cpus[vcpu].acknowledge()
    }

    fn end(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].end(intid);
    }

    /// A vCPU that is not in the guest enters, takes all that it can, one after the other, and leaves.
    fn drain(&mut self, vcpu: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        self.enter(vcpu);
        while let Some(intid) = self.acknowledge(vcpu) {
            taken.push(intid);
            self.end(vcpu, intid);
            if self.cpus[vcpu].maintenance() != 0 {
                self.leave(vcpu);
                self.enter(vcpu);
            }
            assert!(taken.len() < 1000, "no end of it: {taken:?}");
        }
        self.leave(vcpu);
        taken
    }
}

/// The vCPUs of a set.
fn set(vcpus: &[usize]) -> VcpuSet {
    vcpus.iter().copied().collect()
}
