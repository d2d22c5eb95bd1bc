//! What user space sees of the registers: the whole state, so that it can be saved and put back. All vCPUs are out of
//! the guest meanwhile.

use super::frames::Frame;
use super::lines::SGIS;
use super::register::{Bits, Distributor, Field, Redistributor};
use super::{PRIVATE, VcpuSet, Vgic};
use core::sync::atomic::Ordering;
use thiserror::Error;

/// GICD_IIDR.Revision: since 2 groups are the guest's to choose, since 3 GICR_CTLR says CES and IR.
const REVISIONS: core::ops::RangeInclusive<u32> = 2..=LATEST_REVISION;
pub(super) const LATEST_REVISION: u32 = 3;
const REVISION_SHIFT: u32 = 12;
const REVISION: u32 = 0xf << REVISION_SHIFT;

/// The value is none that the register can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the register cannot have that value")]
pub struct NotPossible;

impl Vgic {
    /// Reads 32 bits for user space. ISPENDR is the latch alone, without the line; ICPENDR reads zero.
    #[must_use]
    pub fn user_read(&self, frame: Frame, offset: u32) -> u32 {
        let value = match frame {
            Frame::Distributor => match Distributor::at(offset, 4, self.interrupts as usize) {
                Some(Distributor::Bank { bank, field }) if is_pending(field) => {
                    let row_latch = |row: &mut super::Row| row.bank.latch;
                    let latch = self.spis.lock().row(bank).map_or(0, row_latch);
                    u64::from(latch & shown(field))
                }
                Some(register) => self.read_distributor(register),
                None => 0,
            },
            Frame::Redistributor(vcpu) => match Redistributor::at(offset, 4) {
                Some(Redistributor::Bank(field)) if is_pending(field) => {
                    let latch = (self.local(vcpu)).map_or(0, |local| local.state.lock().bank.latch);
                    u64::from(latch & shown(field))
                }
                Some(register) => self.read_redistributor(vcpu, register),
                None => 0,
            },
        };
        value as u32
    }

    /// Writes 32 bits for user space. ISPENDR is the latch, of which clear bits count too; ICPENDR is ignored.
    ///
    /// # Errors
    /// [`NotPossible`] for what GICD_IIDR and GICD_TYPER2 are not. Nothing was done.
    pub fn user_write(&self, frame: Frame, offset: u32, value: u32) -> Result<VcpuSet, NotPossible> {
        Ok(match frame {
            Frame::Distributor => match Distributor::at(offset, 4, self.interrupts as usize) {
                Some(Distributor::Identification) => {
                    let now = self.read_distributor(Distributor::Identification) as u32;
                    let revision = checked_revision(now, value)?;
                    self.revision.store(revision, Ordering::Relaxed);
                    VcpuSet::EMPTY
                }
                Some(Distributor::Type2) if value != 0 => return Err(NotPossible),
                Some(Distributor::Bank { bank, field }) if is_pending(field) => {
                    let mut spis = self.spis.lock();
                    match spis.row(bank) {
                        Some(row) if field == Field::Bits(Bits::SetPending) => {
                            let touched = row.bank.set_latches(value);
                            self.settle(row, touched)
                        }
                        _ => VcpuSet::EMPTY,
                    }
                }
                Some(register) => self.write_distributor(register, value.into()),
                None => VcpuSet::EMPTY,
            },
            Frame::Redistributor(vcpu) => match Redistributor::at(offset, 4) {
                Some(Redistributor::Bank(field)) if is_pending(field) => {
                    if let (Some(local), Field::Bits(Bits::SetPending)) = (self.local(vcpu), field) {
                        local.state.lock().bank.set_latches(value);
                    }
                    VcpuSet::one(vcpu)
                }
                Some(register) => self.write_redistributor(vcpu, register, value.into()),
                None => VcpuSet::EMPTY,
            },
        })
    }

    /// Sets GICD_IIDR.Revision to one that [`checked_revision`] let through.
    pub(super) fn set_revision(&self, revision: u32) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// The lines of 32 interrupts from `32 * bank` on. SGIs, edge-triggered ones and those that do not exist have none.
    #[must_use]
    pub fn lines(&self, vcpu: usize, bank: usize) -> u32 {
        if bank > 0 {
            return self.spis.lock().row(bank).map_or(0, |row| row.bank.lines());
        }
        (self.local(vcpu)).map_or(0, |local| local.state.lock().bank.lines())
    }

    /// Sets them, whatever the interrupts' configuration will be. Returns the vCPUs that must look.
    pub fn set_lines(&self, vcpu: usize, bank: usize, high: u32) -> VcpuSet {
        if bank > 0 {
            let mut spis = self.spis.lock();
            let Some(row) = spis.row(bank) else {
                return VcpuSet::EMPTY;
            };
            let touched = row.bank.set_lines(u32::MAX, high);
            return self.settle(row, touched);
        }
        const { assert!(PRIVATE == u32::BITS) };
        if let Some(local) = self.local(vcpu) {
            local.state.lock().bank.set_lines(u32::MAX << SGIS, high);
        }
        VcpuSet::one(vcpu)
    }
}

/// The revision in a GICD_IIDR that user space writes; everything else must be as it is.
pub(super) fn checked_revision(now: u32, value: u32) -> Result<u32, NotPossible> {
    let revision = (value & REVISION) >> REVISION_SHIFT;
    if (now ^ value) & !REVISION != 0 || !REVISIONS.contains(&revision) {
        return Err(NotPossible);
    }
    Ok(revision)
}

const fn is_pending(field: Field) -> bool {
    matches!(field, Field::Bits(Bits::SetPending | Bits::ClearPending))
}

/// What user space sees of the latch in one of the two registers.
const fn shown(field: Field) -> u32 {
    match field {
        Field::Bits(Bits::SetPending) => u32::MAX,
        _ => 0,
    }
}
