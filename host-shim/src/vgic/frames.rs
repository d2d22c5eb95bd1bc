//! The guest's accesses to the distributor and the redistributors. Source: IHI 0069, 12.8 to 12.11.
//!
//! What is fixed, is as KVM has it: GICD_STATUSR reads as ones, GICR_WAKER as zero, and private interrupts cannot be
//! configured.

use super::bank::Bank;
use super::register::{Bits, Distributor, Field, Part, Redistributor};
use super::vcpu_set::ones;
use super::{Row, VcpuSet, Vgic};
use core::sync::atomic::Ordering;
use hyp_abi::vm::affinity_of;

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The distributor: 64 KiB.
    Distributor,
    /// RD_base and SGI_base of a vCPU's redistributor: 128 KiB.
    Redistributor(usize),
}

impl Frame {
    /// Bytes in a distributor's frame.
    pub const DISTRIBUTOR: u64 = 0x1_0000;
    /// Bytes in the two frames of a redistributor.
    pub const REDISTRIBUTOR: u64 = 0x2_0000;
}

/// GICD_CTLR.EnableGrp1, with one Security state.
pub(super) const ENABLE: u32 = 1 << 1;
/// GICD_CTLR.ARE and DS, which are always set.
const ARE_DS: u32 = 1 << 4 | 1 << 6;
/// GICD_TYPER.IDbits: one less than the bits of a number.
const ID_BITS: u32 = 9 << 19;
/// Implementer Arm, product "K": what guests know KVM's by.
const PRODUCT: u32 = (b'K' as u32) << 24 | 0x43b;
/// PIDR2: GICv3.
const ARCHITECTURE: u32 = 0x3b;
/// GICR_CTLR.CES and IR: EnableLPIs can be cleared, and the invalidation registers are there.
const CES_IR: u32 = 1 << 1 | 1 << 2;
/// GICR_TYPER.Last.
const LAST: u64 = 1 << 4;

impl Vgic {
    /// A vCPU reads. A place where there is nothing, and an access of a width that a register does not have, read zero.
    #[must_use]
    pub fn read(&self, frame: Frame, offset: u64, bytes: u64) -> u64 {
        let Ok(offset) = u32::try_from(offset) else {
            return 0;
        };
        match frame {
            Frame::Distributor => Distributor::at(offset, bytes, self.interrupts as usize)
                .map_or(0, |register| self.read_distributor(register)),
            Frame::Redistributor(vcpu) => {
                Redistributor::at(offset, bytes).map_or(0, |register| self.read_redistributor(vcpu, register))
            }
        }
    }

    /// A vCPU writes. Returns the vCPUs that must look; the writer may be among them.
    pub fn write(&self, frame: Frame, offset: u64, bytes: u64, value: u64) -> VcpuSet {
        let Ok(offset) = u32::try_from(offset) else {
            return VcpuSet::EMPTY;
        };
        match frame {
            Frame::Distributor => Distributor::at(offset, bytes, self.interrupts as usize)
                .map_or(VcpuSet::EMPTY, |register| self.write_distributor(register, value)),
            Frame::Redistributor(vcpu) => Redistributor::at(offset, bytes)
                .map_or(VcpuSet::EMPTY, |register| {
                    self.write_redistributor(vcpu, register, value)
                }),
        }
    }

    /// Whether an access is about which interrupts are active (ISACTIVER, ICACTIVER). It is exact only while no vCPU is
    /// between a flush and its sync: what one has acknowledged or ended meanwhile is not known before. KVM stops all vCPUs
    /// for these registers. Nothing is lost otherwise: writes take effect when the vCPU comes back.
    #[must_use]
    pub fn is_about_active(frame: Frame, offset: u64) -> bool {
        let offset = match frame {
            Frame::Distributor => Some(offset),
            Frame::Redistributor(_) => offset.checked_sub(0x1_0000),
        };
        offset.is_some_and(|offset| (0x300..0x400).contains(&offset))
    }

    pub(super) fn read_distributor(&self, register: Distributor) -> u64 {
        let value = match register {
            Distributor::Control => ARE_DS | if self.is_enabled() { ENABLE } else { 0 },
            Distributor::Type => ID_BITS | (self.interrupts / 32 - 1),
            Distributor::Identification => identification(self.revision.load(Ordering::Relaxed)),
            Distributor::Status => u32::MAX,
            Distributor::Architecture => ARCHITECTURE,
            Distributor::Type2 | Distributor::Zero => 0,
            Distributor::Bank { bank, field } => {
                (self.spis.lock().row(bank)).map_or(0, |row| read_bank(&row.bank, field))
            }
            Distributor::Router { intid, part } => {
                let mut spis = self.spis.lock();
                return (spis.row(intid / 32)).map_or(0, |row| row.read_route(intid % 32, part));
            }
        };
        value.into()
    }

    pub(super) fn write_distributor(&self, register: Distributor, value: u64) -> VcpuSet {
        match register {
            Distributor::Control => {
                let enable = value as u32 & ENABLE != 0;
                let was = self.enabled.swap(enable, Ordering::SeqCst);
                // Everyone may have something pending that was held back, or listed that must not be any more.
                if was == enable {
                    VcpuSet::EMPTY
                } else {
                    self.present
                }
            }
            Distributor::Bank { bank, field } => {
                let mut spis = self.spis.lock();
                let Some(row) = spis.row(bank) else {
                    return VcpuSet::EMPTY;
                };
                // A listed interrupt is in the hands of its vCPU, which looks again whatever is done to it.
                let touched = self.write_row(row, field, value as u32);
                self.settle(row, touched)
            }
            Distributor::Router { intid, part } => {
                let mut spis = self.spis.lock();
                let Some(row) = spis.row(intid / 32) else {
                    return VcpuSet::EMPTY;
                };
                let touched = row.write_route(intid % 32, part, value, self.present);
                self.settle(row, touched)
            }
            _ => VcpuSet::EMPTY,
        }
    }

    fn write_row(&self, row: &mut Row, field: Field, value: u32) -> u32 {
        if field == Field::Bits(Bits::SetActive) {
            for at in ones(value & !(row.bank.active | row.bank.listed)) {
                row.own_by_route(at, self.present);
            }
        }
        match field {
            Field::Config { upper } => row.bank.write_config(upper, value),
            _ => write_bank(&mut row.bank, field, value, self.interface.priority_mask()),
        }
    }

    pub(super) fn read_redistributor(&self, vcpu: usize, register: Redistributor) -> u64 {
        let Some(local) = self.local(vcpu) else {
            return 0;
        };
        let value = match register {
            Redistributor::Control if self.revision.load(Ordering::Relaxed) >= 3 => CES_IR,
            Redistributor::Control | Redistributor::Zero => 0,
            Redistributor::Identification => PRODUCT,
            Redistributor::Architecture => ARCHITECTURE,
            Redistributor::Type(part) => return self.redistributor_type(vcpu, part),
            Redistributor::Bank(field) => read_bank(&local.state.lock().bank, field),
        };
        value.into()
    }

    pub(super) fn write_redistributor(&self, vcpu: usize, register: Redistributor, value: u64) -> VcpuSet {
        let (Some(local), Redistributor::Bank(field)) = (self.local(vcpu), register) else {
            return VcpuSet::EMPTY;
        };
        let state = &mut *local.state.lock();
        let mask = self.interface.priority_mask();
        let touched = write_bank(&mut state.bank, field, value as u32, mask);
        if state.must_look(touched) {
            VcpuSet::one(vcpu)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// GICR_TYPER: affinity (63:32), processor number (23:8), Last.
    fn redistributor_type(&self, vcpu: usize, part: Part) -> u64 {
        let is_last = |local: &super::Local| local.last.load(Ordering::Relaxed);
        let last = if self.local(vcpu).is_some_and(is_last) {
            LAST
        } else {
            0
        };
        part.take(u64::from(affinity_of(vcpu)) << 32 | (vcpu as u64) << 8 | last)
    }

    /// Says after which vCPUs' redistributors none follows (GICR_TYPER.Last).
    pub fn set_last(&self, last: VcpuSet) {
        for vcpu in self.present.iter() {
            if let Some(local) = self.local(vcpu) {
                local.last.store(last.contains(vcpu), Ordering::Relaxed);
            }
        }
    }
}

/// GICD_IIDR.
pub(super) const fn identification(revision: u32) -> u32 {
    PRODUCT | revision << 12
}

fn read_bank(bank: &Bank, field: Field) -> u32 {
    match field {
        Field::Bits(bits) => bank.read(bits),
        Field::Priority { at, count } => bank.read_priorities(at, count),
        Field::Config { upper } => bank.read_config(upper),
        Field::Zero => 0,
    }
}

/// Writes what can be written of any interrupt. The configuration is not: it is fixed for private ones.
fn write_bank(bank: &mut Bank, field: Field, value: u32, priority_mask: u8) -> u32 {
    match field {
        Field::Bits(bits) => bank.write(bits, value),
        Field::Priority { at, count } => bank.write_priorities(at, count, value, priority_mask),
        Field::Config { .. } | Field::Zero => 0,
    }
}
