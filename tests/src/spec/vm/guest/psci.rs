//! The power of vCPUs (PSCI, Arm DEN0022).

use super::super::super::Memory;
use super::super::Life;
use super::super::registers::Registers;
use super::{At, Instruction, Then, Waits, exits, expect_results, expect_x0, wrong};
use hyp_abi::FRAME_SIZE;
use hyp_abi::run_page::{ExitReason, WaitKind};

const PSCI_VERSION: u64 = 0x8400_0000;
const PSCI_SUSPEND: u64 = 0xc400_0001;
const PSCI_CPU_OFF: u64 = 0x8400_0002;
const PSCI_CPU_ON: u64 = 0xc400_0003;
const PSCI_AFFINITY_INFO: u64 = 0xc400_0004;
const PSCI_SYSTEM_OFF: u64 = 0x8400_0008;
const PSCI_SYSTEM_RESET: u64 = 0x8400_0009;

impl Memory {
    pub(in crate::spec::vm) fn psci(
        &mut self,
        slot: u8,
        index: u64,
        x: [u64; 4],
        then: &Then,
    ) -> Result<Waits, String> {
        let instruction = Instruction::Call(0, x);
        // The calls of 32 bits are the same, with arguments of 32 bits.
        let [function, a1, a2, a3] = match x {
            [function @ (0x8400_0001 | 0x8400_0003 | 0x8400_0004), a1, a2, a3] => {
                [function | 1 << 30, low(a1), low(a2), low(a3)]
            }
            other => other,
        };
        let vm = self.vm(slot);
        let target = vm
            .vcpus
            .keys()
            .copied()
            .find(|index| (index & 15) | (index >> 4) << 8 == a1);
        match function {
            PSCI_VERSION => expect_results(then, [0x1_0001, 0, 0, 0], &instruction),
            PSCI_SUSPEND if a1 == 0 => {
                let values = [WaitKind::Suspend.into(), 0, 0, 0, 0, 0, 0];
                exits(then, ExitReason::Wait, values, &instruction)?;
                Ok(Waits::Results([0; 4]))
            }
            // A state that powers down is one that the vCPU does not come back from here.
            PSCI_SUSPEND => match then {
                Then::Exit(ExitReason::Wait, [2, 0, 0, 0, 0, 0, 0]) => Ok(Waits::Nothing),
                Then::Entered(registers) if registers.at == At::Next => Ok(Waits::Next),
                _ => Err(wrong(then, &instruction)),
            },
            PSCI_CPU_OFF => {
                exits(then, ExitReason::CpuOff, [0; 7], &instruction)?;
                if let Some(vcpu) = vm.vcpus.get_mut(&index) {
                    vcpu.on = false;
                    vcpu.start = None;
                }
                Ok(Waits::Nothing)
            }
            PSCI_CPU_ON => {
                let answer = match target {
                    None => -2_i64,
                    Some(target) if vm.vcpus[&target].on => {
                        // ALREADY_ON, or ON_PENDING before it ran.
                        let already = if vm.vcpus[&target].start.is_some() { -5 } else { -4 };
                        if a2 % 4 != 0 || a2 / FRAME_SIZE >= vm.gfns {
                            let either = [already, -9_i64].map(i64::cast_unsigned);
                            return match then {
                                Then::Entered(registers)
                                    if registers.at == At::Next && either.contains(&registers.x[0]) =>
                                {
                                    Ok(Waits::Next)
                                }
                                _ => Err(wrong(then, &instruction)),
                            };
                        }
                        already
                    }
                    Some(_) if a2 % 4 != 0 || a2 / FRAME_SIZE >= vm.gfns => -9,
                    Some(target) => {
                        exits(then, ExitReason::CpuOn, [target, 0, 0, 0, 0, 0, 0], &instruction)?;
                        if let Some(vcpu) = vm.vcpus.get_mut(&target) {
                            vcpu.on = true;
                            vcpu.start = Some((a2, a3));
                            vcpu.waits = Waits::Nothing;
                            vcpu.registers = Registers::beginning(a2, a3);
                        }
                        return Ok(Waits::Results([0; 4]));
                    }
                };
                expect_x0(then, answer.cast_unsigned(), &instruction)
            }
            PSCI_AFFINITY_INFO if a2 == 0 => {
                let answer = match target.and_then(|target| vm.vcpus.get(&target)) {
                    None => (-2_i64).cast_unsigned(),
                    Some(vcpu) if vcpu.on && vcpu.start.is_some() => 2,
                    Some(vcpu) if vcpu.on => 0,
                    Some(_) => 1,
                };
                expect_x0(then, answer, &instruction)
            }
            PSCI_SYSTEM_OFF | PSCI_SYSTEM_RESET => {
                let reason = if function == PSCI_SYSTEM_OFF {
                    ExitReason::SystemOff
                } else {
                    ExitReason::SystemReset
                };
                exits(then, reason, [0; 7], &instruction)?;
                vm.life = Life::Off;
                Ok(Waits::Nothing)
            }
            _ => match then {
                Then::Entered(registers) if registers.at == At::Next => Ok(Waits::Next),
                _ => Err(wrong(then, &instruction)),
            },
        }
    }
}

const fn low(argument: u64) -> u64 {
    argument & 0xffff_ffff
}
