//! How a guest reaches for memory, and what comes of it if it does not get there.

use super::super::super::Memory;
use super::super::{Place, Vm};
use super::{At, Instruction, Reach, Registers, Then, Waits, wrong};
use hyp_abi::FRAME_SIZE;
use hyp_abi::run_page::{AccessFlags, ExitReason};
use hyp_abi::vm::Permissions;

const UNDEFINED: u64 = 0;
const ABORT_FETCH: u64 = 0x21;
const ABORT_DATA: u64 = 0x25;
const EXTERNAL: u64 = 0x10;

impl Vm {
    /// Whether a vCPU's exceptions go elsewhere, or its data is big-endian.
    fn has_odd(&self, index: u64) -> bool {
        self.vcpus.get(&index).is_some_and(|vcpu| vcpu.registers.odd)
    }

    /// How the guest is affected by an access that faulted: `None` if it is allowed.
    fn fault(&self, slot_gfn: u64, reach: Reach, described: bool) -> Option<Fault> {
        let gfn = slot_gfn;
        let place = self.places.get(&gfn);
        let wanted = match reach {
            Reach::Load | Reach::Walk => Permissions::READ,
            Reach::Store(_) => Permissions::WRITE,
            Reach::Fetch => Permissions::EXECUTE,
        };
        let is_memory = self.is_memory(gfn);
        // The host of a VM that is not protected may have memory where there is none yet.
        let undescribed = if self.protected {
            Fault::Exception
        } else {
            Fault::Missing
        };
        match place {
            Some(place @ (Place::Mine { .. } | Place::Borrowed { .. })) => {
                if place.permissions().contains(wanted) {
                    return None;
                }
                let to_a_device = wanted == Permissions::WRITE && !is_memory;
                return Some(match described {
                    true if to_a_device => Fault::Device,
                    false if to_a_device => undescribed,
                    _ => Fault::Missing,
                });
            }
            Some(Place::Lost) => return Some(Fault::Lost),
            Some(Place::Device) | None if is_memory => return Some(Fault::Missing),
            Some(Place::Device) | None => {}
        }
        let emulated = !self.guard || place == Some(&Place::Device);
        Some(match reach {
            _ if !emulated => Fault::Exception,
            Reach::Load | Reach::Store(_) if described => Fault::Device,
            // Nobody executes from device registers.
            Reach::Fetch if place == Some(&Place::Device) => Fault::Exception,
            _ => undescribed,
        })
    }
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Lost,
    Device,
    Exception,
}

const fn flags(reach: Reach) -> u64 {
    match reach {
        Reach::Load => 0,
        Reach::Store(_) => AccessFlags::WRITE.bits(),
        Reach::Fetch => AccessFlags::FETCH.bits(),
        Reach::Walk => AccessFlags::WALK.bits(),
    }
}

impl Memory {
    /// An access that went through led where it should.
    pub(in crate::spec::vm) fn reached(
        &self,
        slot: u8,
        instruction: Instruction,
        frame: u64,
    ) -> Result<(), String> {
        let Instruction::Access { ipa, reach, .. } = instruction else {
            return Err("no access".to_owned());
        };
        let vm = &self.vms.live[&slot];
        let gfn = ipa / FRAME_SIZE;
        let place = vm.places.get(&gfn).and_then(|place| place.frame());
        if place != Some(frame) || vm.fault(gfn, reach, true).is_some() {
            return Err(format!(
                "{instruction:x?} reached frame {frame:#x}, where there is {place:x?}"
            ));
        }
        Ok(())
    }

    pub(in crate::spec::vm) fn faulted(
        &self,
        slot: u8,
        index: u64,
        instruction: Instruction,
        then: &Then,
    ) -> Result<Waits, String> {
        let Instruction::Access {
            ipa,
            reach,
            bytes,
            described,
        } = instruction
        else {
            return Err("no access".to_owned());
        };
        let gfn = ipa / FRAME_SIZE;
        // What runs into the next page is not described to anybody.
        let described = described && ipa % FRAME_SIZE + u64::from(bytes) <= FRAME_SIZE;
        let vm = &self.vms.live[&slot];
        let fault = vm.fault(gfn, reach, described);
        match (fault, *then) {
            (None, Then::Entered(registers)) if registers.at == At::Same => return Ok(Waits::Nothing),
            (Some(Fault::Missing), Then::Exit(reason @ ExitReason::MemoryFault, values))
                if values == [gfn, flags(reach), 0, 0, 0, 0, 0] =>
            {
                return Ok(Waits::For(reason, instruction));
            }
            (Some(Fault::Lost), Then::Exit(reason @ ExitReason::Lost, values))
                if values == [gfn, 0, 0, 0, 0, 0, 0] =>
            {
                return Ok(Waits::For(reason, instruction));
            }
            (Some(Fault::Device), Then::Exit(reason, values)) => {
                let bytes = u64::from(bytes);
                let wanted = match reach {
                    Reach::Store(value) => (
                        ExitReason::MmioWrite,
                        [ipa, bytes, narrow(value, bytes), 0, 0, 0, 0],
                    ),
                    _ => (ExitReason::MmioRead, [ipa, bytes, 0, 0, 0, 0, 0]),
                };
                let mut values = values;
                if vm.has_odd(index) && reason == ExitReason::MmioWrite {
                    // Its bytes may be the other way round.
                    values[2] = wanted.1[2];
                }
                if wanted == (reason, values) {
                    return Ok(Waits::For(reason, instruction));
                }
            }
            (Some(Fault::Exception), Then::Entered(_)) if vm.has_odd(index) => return Ok(Waits::Next),
            (Some(Fault::Exception), Then::Entered(registers)) => {
                return is_external_abort(registers, reach).map(|()| Waits::Next);
            }
            _ => {}
        }
        Err(format!("{}: the fault is {fault:?}", wrong(then, &instruction)))
    }
}

/// The low bytes of a value.
pub(in crate::spec::vm) const fn narrow(value: u64, bytes: u64) -> u64 {
    if bytes >= 8 {
        value
    } else {
        value & ((1 << (bytes * 8)) - 1)
    }
}

/// The guest got a synchronous external abort.
pub(in crate::spec::vm) fn is_external_abort(registers: Registers, reach: Reach) -> Result<(), String> {
    let class = if reach == Reach::Fetch {
        ABORT_FETCH
    } else {
        ABORT_DATA
    };
    match registers.at {
        At::Exception(esr) if esr >> 26 == class && esr & 0x3f == EXTERNAL => Ok(()),
        At::Exception(esr) if esr >> 26 == UNDEFINED => Err("an undefined instruction".to_owned()),
        _ => Err(format!("{registers:x?} is no external abort of {reach:?}")),
    }
}
