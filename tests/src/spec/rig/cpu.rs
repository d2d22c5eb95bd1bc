//! A CPU of the double that carries out what a guest is to do: it walks the guest's table as the hardware would, and
//! writes down all that happens.

use super::super::vm::guest::{At, Event, Instruction, Reach, Registers, Waits};
use hyp_abi::HostCall;
use hyp_core::addr::{FRAME_SIZE, Ipa};
use hyp_core::double::{Machine, Program};
use hyp_core::geometry::Geometry;
use hyp_core::hardware::Regime;
use hyp_core::hypercall::host_call;
use hyp_core::ownership::Ownership;
use hyp_core::pgtable::{Descriptor, Execute, Stage2, Stage2Access, Table};
use hyp_core::trap::syndrome::FaultRegisters;
use hyp_core::vm::{GuestRegime, Trap, TrapKind, VcpuContext};
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

/// Where a guest puts each of its instructions.
const HERE: u64 = 0x1000;
/// Where its exceptions go: the vectors are at 0, and it uses its own stack pointer.
const VECTOR: u64 = 0x200;
/// The register that loads go to, and the one that stores come from.
const LOADED: usize = 5;
const STORED: usize = 6;

const CLASS_WFX: u64 = 0x01 << 26;
const CLASS_HVC: u64 = 0x16 << 26;
const CLASS_SMC: u64 = 0x17 << 26;
const CLASS_FETCH: u64 = 0x20 << 26;
const CLASS_DATA: u64 = 0x24 << 26;
const IL: u64 = 1 << 25;
const TRANSLATION: u64 = 0b00_0100;
const ACCESS_FLAG: u64 = 0b00_1000;
const PERMISSION: u64 = 0b00_1100;

/// A system, as a CPU that runs its guests has it.
pub(super) type Shared<G> = Arc<Ownership<'static, Machine<G>>>;

/// What a CPU wrote down.
pub(super) type Log = Arc<Mutex<Vec<Event>>>;

struct Cpu<G: Geometry> {
    system: Shared<G>,
    /// It begins where it was told to, which may be any place.
    starts: bool,
    script: VecDeque<Instruction>,
    /// What is under way, and may be entered again.
    current: Option<Instruction>,
    log: Log,
    /// The handle of the VM.
    vm: u64,
}

/// What came of looking an address up.
enum Lookup {
    Frame(u64),
    Fault(u64),
}

/// A guest that does what `script` says, after what it waited for, or from its start.
pub(super) fn program<G: Geometry>(
    system: &Shared<G>,
    starts: bool,
    waits: Waits,
    script: &[Instruction],
    log: &Log,
    vm: u64,
) -> Program {
    let current = match waits {
        Waits::For(_, instruction) => Some(instruction),
        Waits::Nothing | Waits::Next | Waits::Results(_) => None,
    };
    let mut cpu = Cpu {
        system: Arc::clone(system),
        starts,
        script: script.iter().copied().collect(),
        current,
        log: Arc::clone(log),
        vm,
    };
    Box::new(move |regime, vcpu| cpu.enter(regime, vcpu))
}

impl<G: Geometry> Cpu<G> {
    fn note(&self, event: Event) {
        self.log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(event);
    }

    fn enter(&mut self, regime: &GuestRegime, vcpu: &mut VcpuContext) -> Trap {
        let at = match vcpu.pc {
            pc if mem::take(&mut self.starts) => At::Address(pc),
            HERE => At::Same,
            pc if pc == HERE + 4 => At::Next,
            VECTOR => self
                .system
                .hardware()
                .with_guest_registers(|system| At::Exception(system.esr_el1)),
            pc => At::Address(pc),
        };
        let [x0, x1, x2, x3, ..] = vcpu.x;
        self.note(Event::Entered(Registers {
            at,
            x: [x0, x1, x2, x3],
            loaded: vcpu.x[LOADED],
        }));
        if at != At::Same {
            self.current = None;
        }
        loop {
            let Some(instruction) = self.current.take().or_else(|| self.script.pop_front()) else {
                self.note(Event::Interrupted);
                // It stands before an instruction of no meaning, and chooses anew when it goes on.
                vcpu.pc = HERE + 4;
                return trap(TrapKind::Interrupt, FaultRegisters::default());
            };
            vcpu.pc = HERE;
            if let Some(registers) = self.step(regime, vcpu, instruction) {
                self.current = Some(instruction);
                self.note(Event::Trapped(instruction));
                return trap(TrapKind::Synchronous, registers);
            }
        }
    }

    /// Carries an instruction out; answers what traps.
    fn step(
        &self,
        regime: &GuestRegime,
        vcpu: &mut VcpuContext,
        instruction: Instruction,
    ) -> Option<FaultRegisters> {
        let with = |esr| {
            Some(FaultRegisters {
                esr: esr | IL,
                ..FaultRegisters::default()
            })
        };
        match instruction {
            Instruction::Call(immediate, x) => {
                vcpu.x[..4].copy_from_slice(&x);
                vcpu.x[4..7].fill(0);
                vcpu.pc = HERE + 4;
                with(CLASS_HVC | u64::from(immediate))
            }
            Instruction::Smc(x0) => {
                vcpu.x[0] = x0;
                with(CLASS_SMC)
            }
            Instruction::Wait { event } => with(CLASS_WFX | u64::from(event)),
            Instruction::Meanwhile(call) => {
                let registers = HostCall::Vm(call.call(self.vm, regime.vcpu.into())).encode();
                let answer = host_call(&self.system, registers);
                self.note(Event::Answered(call, answer));
                None
            }
            Instruction::Access {
                ipa,
                reach,
                bytes,
                described,
            } => {
                vcpu.x[LOADED] = !0;
                if let Reach::Store(value) = reach {
                    vcpu.x[STORED] = value;
                }
                match self.look_up(regime, ipa, reach) {
                    Lookup::Frame(frame) => {
                        if let Reach::Store(value) = reach {
                            self.system.hardware().write(super::frame(frame), value);
                        }
                        self.note(Event::Reached(instruction, frame));
                        None
                    }
                    Lookup::Fault(status) => Some(fault(ipa, reach, bytes, described, status)),
                }
            }
        }
    }

    /// Walks the guest's table.
    fn look_up(&self, regime: &GuestRegime, ipa: u64, reach: Reach) -> Lookup {
        let table = Table::<Stage2, G>::new(
            regime.root,
            regime.start_level,
            regime.ipa_bits,
            Regime::Guest(regime.slot.into()),
        );
        let table = table.expect("a guest that runs has a table");
        let address = Ipa::new(ipa).expect("an address of a script");
        let Some(entry) = table.walk(self.system.hardware(), address) else {
            return Lookup::Fault(TRANSLATION);
        };
        let level = u64::from(entry.level);
        let Descriptor::Leaf { pa, attributes } = entry.descriptor else {
            return Lookup::Fault(TRANSLATION | level);
        };
        if !attributes.accessed() {
            return Lookup::Fault(ACCESS_FLAG | level);
        }
        let access = attributes.access();
        let allowed = access.contains(Stage2Access::READ)
            && match reach {
                Reach::Load | Reach::Walk => true,
                Reach::Store(_) => access.contains(Stage2Access::WRITE),
                Reach::Fetch => attributes.execute() == Execute::All,
            };
        if !allowed {
            return Lookup::Fault(PERMISSION | level);
        }
        Lookup::Frame((pa.value() + (ipa - entry.start.value())) / FRAME_SIZE)
    }
}

fn trap(kind: TrapKind, registers: FaultRegisters) -> Trap {
    Trap { kind, registers }
}

/// What the CPU says of an access that faulted.
fn fault(ipa: u64, reach: Reach, bytes: u8, described: bool, status: u64) -> FaultRegisters {
    let class = if reach == Reach::Fetch {
        CLASS_FETCH
    } else {
        CLASS_DATA
    };
    let write = u64::from(matches!(reach, Reach::Store(_))) << 6;
    let walk = u64::from(reach == Reach::Walk) << 7;
    let register = if write != 0 { STORED } else { LOADED } as u64;
    let size = u64::from(bytes.trailing_zeros()) << 22;
    let full = u64::from(bytes == 8) << 15;
    let syndrome = if described && matches!(reach, Reach::Load | Reach::Store(_)) {
        1 << 24 | size | register << 16 | full
    } else {
        0
    };
    // HPFAR_EL2 is not valid for a permission fault, but for one on a walk.
    let known = status & !0b11 != PERMISSION || reach == Reach::Walk;
    FaultRegisters {
        esr: class | IL | syndrome | write | walk | status,
        far: ipa,
        hpfar: if known { ipa >> 12 << 4 } else { 0 },
    }
}
