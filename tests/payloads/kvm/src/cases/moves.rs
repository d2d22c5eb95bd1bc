//! Guests whose whole state is taken from one VM and put into another, and that do not notice.

use super::devices::guests::{LOOK, WAIT, own, setup};
use super::devices::{
    DISTRIBUTOR, Gic, INTERFACE, INTERFACE_REGISTERS, PRIORITY_MASK, REDISTRIBUTOR, drive, spi,
};
use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{Errno, PROTECTED};
use crate::guest::{BASE, CPU_ON, DATA, Do, Guest, P, PAGES, Vcpu, list_of};

cases![
    moves_a_guest_with_its_registers_time_and_interrupts,
    moves_no_guest_that_is_protected,
];

const VCPUS: u64 = 2;
/// The numbers with which the registers of the vCPUs begin.
const SEEDS: [u64; 2] = [0x1234_5678_9abc_0000, 0x4321_0000_0001_0000];
const WORD: u64 = 0x0123_4567_89ab_cdef;
/// Ticks of a second, on this machine.
const SECOND: u64 = 62_500_000;

/// The state of a controller that can be read and written, in the order in which it is written: the group, the attribute,
/// and the attribute that takes away what the value leaves out.
fn controller() -> Vec<(u32, u64, Option<u64>)> {
    let mut all = vec![(DISTRIBUTOR, 0, None)];
    for bank in 0..8 {
        for vcpu in 0..if bank == 0 { VCPUS } else { 1 } {
            let (group, first) = match bank {
                0 => (REDISTRIBUTOR, vcpu << 32 | 0x1_0000),
                _ => (DISTRIBUTOR, 4 * bank),
            };
            let mut word = |offset: u64, clear: Option<u64>| {
                all.push((group, first + offset, clear.map(|offset| first + offset)));
            };
            // Groups, enables.
            word(0x80, None);
            word(0x100, Some(0x180));
            // Priorities, and whether they are edges.
            for offset in (0x400..0x420).step_by(4) {
                word(28 * bank + offset, None);
            }
            for offset in [0xc00, 0xc04] {
                if bank > 0 || offset == 0xc04 {
                    word(4 * bank + offset, None);
                }
            }
            all.push((7, vcpu << 32 | (32 * bank), None));
            all.push((group, first + 0x200, None));
            all.push((group, first + 0x300, Some(first + 0x380)));
        }
    }
    for intid in 32..256 {
        all.extend([0, 4].map(|half| (DISTRIBUTOR, 0x6000 + 8 * intid + half, None)));
    }
    for vcpu in 0..VCPUS {
        for register in INTERFACE_REGISTERS {
            all.push((INTERFACE, vcpu << 32 | register, None));
        }
    }
    all
}

/// All that there is of a guest.
struct State {
    memory: Vec<u64>,
    controller: Vec<u64>,
    vcpus: Vec<VcpuState>,
}

/// All that there is of a vCPU: whether it is on, and its registers.
struct VcpuState {
    state: u32,
    registers: Vec<(u64, [u64; 2])>,
}

fn save_vcpu(vcpu: &Vcpu) -> Result<VcpuState, Errno> {
    vcpu.settle()?;
    let mut registers = Vec::new();
    for id in vcpu.list()? {
        let mut value = [0; 2];
        vcpu.get_whole(id, &mut value)?;
        registers.push((id, value));
    }
    Ok(VcpuState {
        state: vcpu.state()?,
        registers,
    })
}

impl State {
    fn save(guest: &Guest, gic: &Gic) -> Result<Self, Errno> {
        let vcpus = guest.vcpus.iter().map(save_vcpu).collect::<Result<_, _>>()?;
        let controller = controller()
            .into_iter()
            .map(|(group, attr, _)| gic.get(group, attr));
        Ok(Self {
            vcpus,
            controller: controller.collect::<Result<_, _>>()?,
            memory: (0..PAGES * P / 8)
                .map(|word| guest.memory.read(word * 8))
                .collect(),
        })
    }

    fn restore(&self, guest: &Guest, gic: &Gic) -> Result<(), Errno> {
        for (word, value) in (0..).zip(&self.memory) {
            guest.memory.write(word * 8, *value);
        }
        for (vcpu, saved) in guest.vcpus.iter().zip(&self.vcpus) {
            for (id, value) in &saved.registers {
                vcpu.set_whole(*id, value)?;
            }
            vcpu.set_state(saved.state)?;
        }
        for ((group, attr, clear), value) in controller().into_iter().zip(&self.controller) {
            if let Some(clear) = clear {
                gic.set(group, clear, u32::MAX.into())?;
            }
            gic.set(group, attr, *value)?;
        }
        Ok(())
    }
}

fn with_gic(lists: &[&[Do]]) -> Result<(Guest, Gic), String> {
    let guest = Guest::new(0, lists)?;
    let gic = succeed("a controller", Gic::of(&guest.vm))?;
    succeed("its place", gic.make())?;
    Ok((guest, gic))
}

fn moves_a_guest_with_its_registers_time_and_interrupts() -> Outcome {
    let mut first = setup();
    first.extend([
        Do::Call(CPU_ON, 1, BASE, list_of(1)),
        Do::FillRegisters(SEEDS[0]),
        Do::Store(8, DATA, WORD),
        Do::Time,
        Do::Timer(SECOND / 2),
        // To itself.
        Do::Send(5 << 24 | 0b1),
        Do::Acknowledge,
        // Here it is moved.
        Do::CheckRegisters(SEEDS[0]),
        Do::Time,
        Do::Load(8, DATA),
        Do::End(5),
        LOOK,
        LOOK,
        Do::Send(6 << 24 | 0b10),
        Do::Report(4),
    ]);
    let mut second = own(1);
    second.extend([
        Do::FillRegisters(SEEDS[1]),
        Do::Report(3),
        Do::CheckRegisters(SEEDS[1]),
        WAIT,
    ]);
    let (old, gic) = with_gic(&[&first, &second])?;
    let time = std::thread::scope(|scope| {
        let other = scope.spawn(|| old.vcpus[1].reports("the second", 3));
        old.vcpu().reports("that the second is on", 0)?;
        let time = old.vcpu().reported()?;
        old.vcpu().reports("its own interrupt", 5)?;
        other.join().map_err(|_| "the second panicked".to_owned())??;
        Ok::<_, String>(time)
    })?;
    same("a line", drive(&old.vm, spi(41), 1), Ok(0))?;
    let state = succeed("saving it", State::save(&old, &gic))?;
    drop((old, gic));

    let (new, gic) = with_gic(&[&[], &[]])?;
    succeed("restoring it", state.restore(&new, &gic))?;
    let again = succeed("saving it again", State::save(&new, &gic))?;
    same("the controller", again.controller, state.controller)?;
    let vcpu = new.vcpu();
    vcpu.reports("registers that changed", 0)?;
    let later = vcpu.reported()?;
    if later < time || later - time > 30 * SECOND {
        return Err(format!("its time was {time}, and is {later}"));
    }
    vcpu.reports("its memory", WORD)?;
    // The line is high, and the timer becomes due.
    let mut interrupts = Vec::new();
    for _ in 0..2 {
        let interrupt = vcpu.reported()?;
        if interrupt == 41 {
            same("the line", drive(&new.vm, spi(41), 0), Ok(0))?;
        }
        interrupts.push(interrupt);
    }
    interrupts.sort_unstable();
    same("the interrupts", interrupts, vec![27, 41])?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Outcome {
            let vcpu = &new.vcpus[1];
            vcpu.reports("registers of the second that changed", 0)?;
            vcpu.reports("the second's interrupt", 6)
        });
        vcpu.reports("that it was sent", 4)?;
        other.join().map_err(|_| "the second panicked".to_owned())?
    })?;
    // No vCPU runs any more then.
    vcpu.turns_off()
}

fn moves_no_guest_that_is_protected() -> Outcome {
    let guest = Guest::new(PROTECTED, &[&[Do::Report(1), Do::Report(2)]])?;
    let gic = succeed("a controller", Gic::of(&guest.vm))?;
    succeed("its place", gic.make())?;
    let vcpu = guest.vcpu();
    // PMR, which nobody has used yet.
    same("a register", gic.get(6, 0xc230), Ok(0))?;
    vcpu.reports("the guest", 1)?;
    succeed("settling it", vcpu.settle())?;
    let list = succeed("the list", vcpu.list())?;
    for id in list {
        refused(&format!("reading {id:#x}"), vcpu.get(id), libc::EPERM)?;
        refused(&format!("writing {id:#x}"), vcpu.set(id, 0), libc::EPERM)?;
    }
    refused("a register", gic.get(6, 0xc230), libc::ENXIO)?;
    refused("a register", gic.set(INTERFACE, PRIORITY_MASK, 0), libc::ENXIO)?;
    vcpu.reports("the guest", 2)
}
