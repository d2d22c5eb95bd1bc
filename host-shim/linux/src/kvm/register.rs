//! Registers of a vCPU by KVM's names, before EL2 has them.

use crate::Errno;
use alloc::boxed::Box;
use core::ops::Range;

/// `KVM_REG_ARM64`, the architecture in a name.
const ARM64: u64 = 0x60 << 56;
/// The size in a name: 2^n bytes.
const SIZE_SHIFT: u32 = 52;
/// `KVM_REG_ARM_COPROC_MASK`: the kind in a name.
const KIND: u64 = 0xFFF << 16;
/// `KVM_REG_ARM_CORE`: the number is a place in `struct kvm_regs`, in units of 4 bytes.
const CORE: u64 = 0x10 << 16;
/// `KVM_REG_ARM_FW`: what the hypervisor's firmware is like.
const FIRMWARE: u64 = 0x14 << 16;
/// The version of PSCI.
const PSCI_VERSION: u64 = ARM64 | 3 << SIZE_SHIFT | FIRMWARE;
/// What EL2 answers to PSCI_VERSION: 1.1.
const PSCI_1_1: u64 = 0x1_0001;
/// MPIDR_EL1: `KVM_REG_ARM64_SYSREG`, op0 3, all else 0 but op2 5.
const MPIDR: u64 = ARM64 | 3 << SIZE_SHIFT | 0x13 << 16 | 3 << 14 | 5;

/// Bytes of `struct kvm_regs`.
const BYTES: usize = 864;
/// Where the program counter is in it.
const PC: usize = 32 * 8;
/// Where PSTATE is in it.
const PSTATE: usize = 33 * 8;
/// Where V0 to V31 begin.
const VECTORS: Range<usize> = 336..848;
/// FPSR and FPCR.
const FLOATING_POINT: Range<usize> = 848..856;
/// The end of those of 8 bytes: x0 to x30, SP, PC, PSTATE, SP_EL1, ELR_EL1, five SPSRs.
const WORDS: usize = 328;
/// PSTATE of a CPU that begins: EL1h, all exceptions masked.
const RESET_PSTATE: u64 = 0x3C5;

/// A register's value: up to 16 bytes.
pub(super) type Value = [u8; 16];

/// The registers of a vCPU, as user space has set them.
#[derive(Debug)]
pub(super) struct Registers {
    core: Box<[u8; BYTES]>,
}

/// Bytes of the core register at a place in the structure. `None` if none begins there.
fn size_at(place: usize) -> Option<usize> {
    match place {
        _ if place < WORDS && place.is_multiple_of(8) => Some(8),
        _ if VECTORS.contains(&place) && place.is_multiple_of(16) => Some(16),
        _ if FLOATING_POINT.contains(&place) && place.is_multiple_of(4) => Some(4),
        _ => None,
    }
}

/// Bytes of the value of the register of that name.
pub(super) const fn size_of(id: u64) -> usize {
    1 << (id >> SIZE_SHIFT & 0xF)
}

/// The place in the structure of the core register of that name.
fn place_of(id: u64) -> Result<Range<usize>, Errno> {
    let place = (id & 0xFFFF) as usize * 4;
    let size = size_of(id);
    if place + size > BYTES {
        return Err(Errno::NOENT);
    }
    if size_at(place) != Some(size) {
        return Err(Errno::INVAL);
    }
    Ok(place..place + size)
}

/// What `KVM_GET_REG_LIST` answers.
pub(super) fn names() -> impl Iterator<Item = u64> {
    let core = (0..BYTES).step_by(4).filter_map(|place| {
        let size = u64::from(size_at(place)?.trailing_zeros());
        Some(ARM64 | size << SIZE_SHIFT | CORE | (place as u64 / 4))
    });
    core.chain([PSCI_VERSION, MPIDR])
}

/// MPIDR_EL1 of a vCPU, as KVM has it: Aff0 counts to 16.
const fn mpidr(vcpu: u64) -> u64 {
    1 << 31 | (vcpu >> 4 & 0xFF) << 8 | vcpu & 0xF
}

impl Registers {
    pub(super) fn new() -> Self {
        let mut registers = Self {
            core: Box::new([0; BYTES]),
        };
        registers.set_word(PSTATE, RESET_PSTATE);
        registers
    }

    fn word(&self, place: usize) -> u64 {
        self.core
            .get(place..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn set_word(&mut self, place: usize, value: u64) {
        if let Some(bytes) = self
            .core
            .get_mut(place..)
            .and_then(|bytes| bytes.first_chunk_mut())
        {
            *bytes = value.to_le_bytes();
        }
    }

    /// Where the vCPU begins.
    pub(super) fn entry(&self) -> u64 {
        self.word(PC)
    }

    /// What it begins with in x0.
    pub(super) fn argument(&self) -> u64 {
        self.word(0)
    }

    /// The value of the register of that name, of which [`size_of`] bytes count.
    ///
    /// # Errors
    /// [`Errno::NOENT`]; [`Errno::INVAL`].
    pub(super) fn get(&self, id: u64, vcpu: u64) -> Result<Value, Errno> {
        let mut value = Value::default();
        let mut copy = |from: &[u8]| {
            for (to, from) in value.iter_mut().zip(from) {
                *to = *from;
            }
        };
        match id {
            PSCI_VERSION => copy(&PSCI_1_1.to_le_bytes()),
            MPIDR => copy(&mpidr(vcpu).to_le_bytes()),
            _ if is_core(id) => copy(self.core.get(place_of(id)?).unwrap_or_default()),
            _ => return Err(Errno::NOENT),
        }
        Ok(value)
    }

    /// Sets the register of that name to the first [`size_of`] bytes of a value.
    ///
    /// # Errors
    /// [`Errno::NOENT`]; [`Errno::INVAL`], also for a value that cannot be.
    pub(super) fn set(&mut self, id: u64, vcpu: u64, value: &Value) -> Result<(), Errno> {
        match id {
            // What there is, and nothing else.
            PSCI_VERSION | MPIDR if self.get(id, vcpu)? == *value => Ok(()),
            PSCI_VERSION | MPIDR => Err(Errno::INVAL),
            _ if is_core(id) => {
                let place = place_of(id)?;
                let to = self.core.get_mut(place).unwrap_or_default();
                for (to, from) in to.iter_mut().zip(value) {
                    *to = *from;
                }
                Ok(())
            }
            _ => Err(Errno::NOENT),
        }
    }
}

const fn is_core(id: u64) -> bool {
    id >> 56 == ARM64 >> 56 && id & KIND == CORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_told_can_be_read_and_written() {
        let mut registers = Registers::new();
        let names: Vec<u64> = names().collect();
        // 31, SP, PC, PSTATE; SP_EL1, ELR_EL1, 5 SPSRs; 32 vectors, FPSR, FPCR; PSCI's version, MPIDR_EL1.
        assert_eq!(names.len(), 34 + 7 + 34 + 2);
        for id in names {
            let value = registers.get(id, 17).unwrap();
            registers.set(id, 17, &value).unwrap();
        }
        assert_eq!(registers.get(MPIDR, 17).unwrap()[..2], [1, 1]);
        assert_eq!(registers.set(MPIDR, 17, &[0; 16]), Err(Errno::INVAL));
    }

    #[test]
    fn where_a_guest_begins_is_in_pc_and_x0() {
        let mut registers = Registers::new();
        let mut value = [0; 16];
        value[..8].copy_from_slice(&0x8000_0000_u64.to_le_bytes());
        registers.set(0x6030_0000_0010_0040, 0, &value).unwrap();
        value[0] = 7;
        registers.set(0x6030_0000_0010_0000, 0, &value).unwrap();
        assert_eq!(
            (registers.entry(), registers.argument()),
            (0x8000_0000, 0x8000_0007)
        );
    }

    #[test]
    fn what_is_no_register_is_none() {
        let registers = Registers::new();
        for (id, errno) in [
            // Half a register, one of the wrong size, and what is past the end.
            (0x6030_0000_0010_0001, Errno::INVAL),
            (0x6020_0000_0010_0000, Errno::INVAL),
            (0x6030_0000_0010_00d8, Errno::NOENT),
            // Another kind, another architecture.
            (0x6030_0000_0013_c000, Errno::NOENT),
            (0x2030_0000_0010_0000, Errno::NOENT),
        ] {
            assert_eq!(registers.get(id, 0), Err(errno), "{id:#x}");
        }
    }
}
