//! Registers of vCPUs whose VM runs, and vCPUs and guests that begin anew.

use super::{cases, refused, same, succeed};
use crate::Outcome;
use crate::device::{
    ARM_SET_COUNTER_OFFSET, CHECK_EXTENSION, Fd, GET_DEVICE_ATTR, HAS_DEVICE_ATTR, PROTECTED, SET_DEVICE_ATTR,
};
use crate::guest::{BASE, DATA, Do, Exit, Guest, KINDS, SYSTEM_RESET, Vcpu, list_of};
use crate::process::{until_signalled_soon, with_signal_waiting};
use kvm_bindings::{KVM_CAP_COUNTER_OFFSET, kvm_device_attr};

cases![
    registers_are_as_the_guest_has_left_them,
    registers_are_as_they_were_set_when_the_guest_goes_on,
    registers_follow_what_was_done_for_the_guest,
    registers_of_features_cannot_be_changed,
    registers_of_time_are_the_vms,
    registers_turn_vcpus_on_and_off,
    registers_begin_anew,
    registers_begin_anew_after_a_reset,
    registers_do_not_begin_anew_if_they_are_protected,
    registers_say_which_interrupt_the_timer_has,
];

const X21: u64 = 0x6030_0000_0010_002a;
const PC: u64 = 0x6030_0000_0010_0040;
const PSTATE: u64 = 0x6030_0000_0010_0042;
const V0: u64 = 0x6040_0000_0010_0054;
const TPIDR_EL0: u64 = 0x6030_0000_0013_de82;
const PFR0: u64 = 0x6030_0000_0013_c020;
const COUNT: u64 = 0x6030_0000_0013_df1a;
/// Ticks of a second, on this machine.
const SECOND: u64 = 62_500_000;
const SEED: u64 = 0x1_0000;

/// A run that nothing but a signal ends.
fn only_a_signal(vcpu: &Vcpu) -> Outcome {
    refused("the run", until_signalled_soon(|| vcpu.run()), libc::EINTR)
}

fn registers_are_as_the_guest_has_left_them() -> Outcome {
    let guest = Guest::new(
        0,
        &[&[Do::FillRegisters(SEED), Do::Report(1), Do::CheckRegisters(SEED)]],
    )?;
    let vcpu = guest.vcpu();
    same("before", vcpu.get(PSTATE), Ok(0x3c5))?;
    vcpu.reports("the guest", 1)?;
    // x21 is the first, TPIDR_EL0 the twelfth, V0 the nineteenth.
    same("x21", vcpu.get(X21), Ok(SEED))?;
    same("TPIDR_EL0", vcpu.get(TPIDR_EL0), Ok(SEED + 11 * 16))?;
    let mut vector = [0; 2];
    succeed("V0", vcpu.get_whole(V0, &mut vector))?;
    let low = SEED + 18 * 16;
    same("V0", vector, [low, !low])?;
    // Everything can be written as it was read.
    for id in succeed("the list", vcpu.list())? {
        let mut value = [0; 2];
        succeed(&format!("reading {id:#x}"), vcpu.get_whole(id, &mut value))?;
        succeed(&format!("writing {id:#x}"), vcpu.set_whole(id, &value))?;
    }
    vcpu.reports("registers that changed", 0)?;
    vcpu.turns_off()
}

fn registers_are_as_they_were_set_when_the_guest_goes_on() -> Outcome {
    let list = [
        Do::FillRegisters(SEED),
        Do::Report(1),
        Do::CheckRegisters(SEED),
        Do::CheckRegisters(SEED),
    ];
    let guest = Guest::new(0, &[&list])?;
    let vcpu = guest.vcpu();
    vcpu.reports("the guest", 1)?;
    succeed("x21", vcpu.set(X21, 1))?;
    succeed("TPIDR_EL0", vcpu.set(TPIDR_EL0, 1))?;
    succeed("V0", vcpu.set_whole(V0, &[1, 2]))?;
    vcpu.reports("registers that changed", 4)?;
    for mode in [1, 0x10, 0x1f] {
        refused("another mode", vcpu.set(PSTATE, mode), libc::EINVAL)?;
    }
    vcpu.reports("registers that changed", 4)
}

fn registers_follow_what_was_done_for_the_guest() -> Outcome {
    let device = 0x0a00_0000;
    let guest = Guest::new(0, &[&[Do::Load(4, device), Do::Report(1)]])?;
    let vcpu = guest.vcpu();
    same("the exit", vcpu.run(), Ok(Exit::Load(device, 4)))?;
    let before = succeed("PC", vcpu.get(PC))?;
    vcpu.answer(0x1_2345_6789);
    succeed("settling it", vcpu.settle())?;
    same("PC", vcpu.get(PC), Ok(before + 4))?;
    same("x0", vcpu.get(0x6030_0000_0010_0000), Ok(0x2345_6789))?;
    // And not once more.
    succeed("settling it", vcpu.settle())?;
    same("PC", vcpu.get(PC), Ok(before + 4))?;
    vcpu.reports("what it has read", 0x2345_6789)?;
    let before = succeed("PC", vcpu.get(PC))?;
    let stopped = with_signal_waiting(|| {
        // It comes for the run alone.
        succeed("the signals", vcpu.set_signals(Some(0)))?;
        refused("the run", vcpu.run(), libc::EINTR)?;
        succeed("the signals", vcpu.set_signals(None))
    });
    stopped?;
    same("PC", vcpu.get(PC), Ok(before + 4))?;
    vcpu.reports("the guest", 1)
}

fn registers_of_features_cannot_be_changed() -> Outcome {
    for kind in KINDS {
        let guest = Guest::new(kind, &[&[Do::Report(1)]])?;
        let vcpu = guest.vcpu();
        let value = succeed("ID_AA64PFR0_EL1", vcpu.get(PFR0))?;
        succeed("as it is", vcpu.set(PFR0, value))?;
        refused("otherwise", vcpu.set(PFR0, value ^ 1), libc::EINVAL)?;
        vcpu.reports("the guest", 1)?;
        if kind == 0 {
            same("ID_AA64PFR0_EL1", vcpu.get(PFR0), Ok(value))?;
            succeed("as it is", vcpu.set(PFR0, value))?;
            refused("otherwise", vcpu.set(PFR0, value ^ 1), libc::EBUSY)?;
        }
    }
    Ok(())
}

fn set_offset(vm: &Fd, offset: u64, reserved: u64) -> Result<u64, crate::device::Errno> {
    vm.pass(ARM_SET_COUNTER_OFFSET, &mut [offset, reserved])
}

fn registers_of_time_are_the_vms() -> Outcome {
    let list = [
        Do::Time,
        Do::Timer(SECOND / 10),
        Do::Wait,
        Do::Time,
        Do::Time,
        Do::Time,
    ];
    let guest = Guest::new(0, &[&list, &[]])?;
    let (vcpu, vm) = (guest.vcpu(), &guest.vm);
    let near = |what: &str, time: u64, wanted: u64| {
        if time >= wanted && time - wanted < 20 * SECOND {
            Ok(())
        } else {
            Err(format!("{what}: {time}, not {wanted}"))
        }
    };
    let machine = succeed("the time", vcpu.get(COUNT))?;
    succeed("its time", guest.vcpus[1].set(COUNT, 1 << 50))?;
    let start = vcpu.reported()?;
    near("the guest's time", start, 1 << 50)?;
    // The timer is in its time.
    near("the time after a tenth", vcpu.reported()?, start + SECOND / 10)?;
    near(
        "as user space sees it",
        succeed("the time", vcpu.get(COUNT))?,
        start,
    )?;
    succeed("its time", vcpu.set(COUNT, 5))?;
    near("the guest's time", vcpu.reported()?, 5)?;
    // From now on the offset is what counts.
    refused("a structure", set_offset(vm, 0, 1), libc::EINVAL)?;
    succeed("the offset", set_offset(vm, 0, 0))?;
    succeed("its time", vcpu.set(COUNT, 5))?;
    near("the guest's time", vcpu.reported()?, machine)?;

    let guest = Guest::new(PROTECTED, &[&[Do::Time]])?;
    let capability = KVM_CAP_COUNTER_OFFSET.into();
    same(
        "the capability",
        guest.vm.ioctl(CHECK_EXTENSION, capability),
        Ok(0),
    )?;
    same("the other's", vm.ioctl(CHECK_EXTENSION, capability), Ok(1))?;
    refused("the offset", set_offset(&guest.vm, 1, 0), libc::EPERM)?;
    refused("its time", guest.vcpu().set(COUNT, 5), libc::ENOENT)?;
    near("the guest's time", guest.vcpu().reported()?, machine)
}

fn registers_turn_vcpus_on_and_off() -> Outcome {
    let guest = Guest::new(
        0,
        &[&[Do::Report(1), Do::Report(2)], &[Do::Report(3), Do::Report(4)]],
    )?;
    let [first, second] = [&guest.vcpus[0], &guest.vcpus[1]];
    first.reports("the guest", 1)?;
    same("the second", second.state(), Ok(5))?;
    only_a_signal(second)?;
    // On, with the registers that it is given.
    succeed("its beginning", second.begin_at(BASE, list_of(1)))?;
    succeed("turning it on", second.set_state(0))?;
    second.reports("the second", 3)?;
    same("the second", second.state(), Ok(0))?;
    succeed("turning the first off", first.set_state(5))?;
    only_a_signal(first)?;
    same("the first", first.state(), Ok(5))?;
    succeed("turning the first on", first.set_state(0))?;
    first.reports("the guest", 2)?;
    second.reports("the second", 4)
}

fn registers_begin_anew() -> Outcome {
    let list = [Do::FillRegisters(SEED), Do::Report(1), Do::Report(2)];
    let guest = Guest::new(0, &[&list])?;
    let vcpu = guest.vcpu();
    for _ in 0..3 {
        vcpu.reports("the guest", 1)?;
        succeed("a new beginning", vcpu.init(4))?;
        for (register, value) in [(X21, 0), (TPIDR_EL0, 0), (V0, 0), (PSTATE, 0x3c5), (PC, 0)] {
            same("a register", vcpu.get(register), Ok(value))?;
        }
        succeed("its beginning", vcpu.begin_at(BASE, list_of(0)))?;
    }
    refused("without what it had", vcpu.init(0), libc::EINVAL)?;
    succeed("off", vcpu.init(5))?;
    same("the state", vcpu.state(), Ok(5))?;
    only_a_signal(vcpu)
}

fn registers_begin_anew_after_a_reset() -> Outcome {
    let list = [
        Do::Load(8, DATA),
        Do::Store(8, DATA, 7),
        Do::Report(1),
        Do::Call(SYSTEM_RESET, 0, 0, 0),
    ];
    let guest = Guest::new(0, &[&list, &[Do::Report(3)]])?;
    let vcpu = guest.vcpu();
    let mut word = 0;
    for round in 0..5 {
        std::thread::scope(|scope| -> Outcome {
            // One that waits meanwhile.
            let other = scope.spawn(|| only_a_signal(&guest.vcpus[1]));
            vcpu.reports("its memory", word)?;
            vcpu.reports("the guest", 1)?;
            same("the exit", vcpu.run(), Ok(Exit::Event(2)))?;
            other.join().map_err(|_| "the second panicked".to_owned())?
        })?;
        for vcpu in &guest.vcpus {
            same("the state", vcpu.state(), Ok(5))?;
            same("a register", vcpu.get(PSTATE), Ok(0x3c5))?;
        }
        // The guest's memory is as it was, and user space can write there.
        same("its memory", guest.memory.read::<u64>(DATA - BASE), 7)?;
        word = 100 + round;
        guest.memory.write(DATA - BASE, word);
        succeed("a new beginning", vcpu.init(4))?;
        succeed("its beginning", vcpu.begin_at(BASE, list_of(0)))?;
    }
    // The other, this time.
    succeed("off", vcpu.init(5))?;
    succeed("a new beginning", guest.vcpus[1].init(4))?;
    succeed("its beginning", guest.vcpus[1].begin_at(BASE, list_of(1)))?;
    guest.vcpus[1].reports("the second", 3)?;
    guest.vcpus[1].turns_off()
}

fn registers_do_not_begin_anew_if_they_are_protected() -> Outcome {
    let guest = Guest::new(PROTECTED, &[&[Do::Call(SYSTEM_RESET, 0, 0, 0)]])?;
    let vcpu = guest.vcpu();
    same("the exit", vcpu.run(), Ok(Exit::Event(2)))?;
    refused("a new beginning", vcpu.init(4), libc::EPERM)?;
    refused("a register", vcpu.get(PC), libc::EPERM)?;
    refused("turning it off", vcpu.set_state(5), libc::EPERM)?;
    only_a_signal(vcpu)
}

fn registers_say_which_interrupt_the_timer_has() -> Outcome {
    let guest = Guest::new(0, &[&[Do::Report(1)]])?;
    let vcpu = guest.vcpu();
    let attribute = |command, group, attr, value: &mut u32| {
        let mut asked = kvm_device_attr {
            flags: 0,
            group,
            attr,
            addr: (&raw mut *value).expose_provenance() as u64,
        };
        vcpu.fd.pass(command, &mut asked)
    };
    let mut value = 0;
    same("the timer", attribute(HAS_DEVICE_ATTR, 1, 0, &mut value), Ok(0))?;
    same("the timer", attribute(GET_DEVICE_ATTR, 1, 0, &mut value), Ok(0))?;
    same("its interrupt", value, 27)?;
    refused(
        "without a controller",
        attribute(SET_DEVICE_ATTR, 1, 0, &mut value),
        libc::EINVAL,
    )?;
    for (group, attr) in [(0, 0), (1, 9), (2, 0), (9, 0)] {
        refused(
            "what there is not",
            attribute(HAS_DEVICE_ATTR, group, attr, &mut value),
            libc::ENXIO,
        )?;
    }
    let gic = succeed("a controller", super::devices::Gic::of(&guest.vm))?;
    succeed("its place", gic.make())?;
    refused("no PPI", attribute(SET_DEVICE_ATTR, 1, 0, &mut 32), libc::EINVAL)?;
    same("another", attribute(SET_DEVICE_ATTR, 1, 0, &mut 26), Ok(0))?;
    vcpu.reports("the guest", 1)?;
    refused("too late", attribute(SET_DEVICE_ATTR, 1, 0, &mut 27), libc::EBUSY)
}
