//! What a guest holds in its registers while it leaves: the host finds no trace of it, in its own registers, in the run
//! page or in any memory that it can read, and the guest finds all of it when it comes back.

use super::support::{PAGE, force, running_with};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Vm, drive, registers, scan};
use crate::machine::machine;
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail};
use crate::{sysreg, timer};
use hyp_abi::Status;
use hyp_abi::guest_call::{GuestCallId, HOST_SERVICE_LAST};
use hyp_abi::run_page::{AccessFlags, WaitKind};
use payload_protocol::{Door, Order, Report, Secret, layout};

/// A machine with more memory than this is not searched: others of the same code are.
const SEARCHED: u64 = 512 << 20;

/// Tells the secrets of the cases apart.
const SEED: u64 = 0x0f1e_2d3c_4b5a_6978;

/// Has vCPU 0 hold a secret and leave by `door`, and returns the exit. In between the host's registers are looked at
/// with every exit, and all memory after the last.
fn leave(vm: &Vm, door: Door, argument: u64) -> Result<Exit, Outcome> {
    let seed = SEED ^ door as u64;
    let secret = Secret::new(seed);
    let order = Order::Hold { seed, door, argument };
    let mut answer = Answer::Done(order.encode());
    loop {
        vm.vcpus[0].enter(answer);
        answer = Answer::None;
        let after = registers::run(vm.handle(), 0, secret);
        let [status, results @ ..] = after.results;
        ensure_eq!(status, Status::Success.to_register(), "status of the run");
        ensure_eq!(after.general, 0, "general registers of the host that changed");
        ensure_eq!(after.vectors, 0, "vector registers of the host that changed");
        ensure_eq!(after.system, 0, "system registers of the host that changed");
        ensure_eq!(after.leaked, 0, "words of the secret in the host's registers");
        let exit = vm.vcpus[0].leave(results)?;
        // On the way the guest touches its own memory for the first time.
        let is_own = exit != Exit::Interrupt && drive::is_its_own(exit);
        if !is_own && !matches!(exit, Exit::MemoryNeeded(_)) {
            search(secret)?;
            return Ok(exit);
        }
        vm.handle_exit(0, exit)?;
    }
}

/// No memory that the host can read may hold a word of the secret.
fn search(secret: Secret) -> TestResult {
    if machine().memory_size() > SEARCHED {
        return Ok(());
    }
    let found = scan::all_memory(secret);
    ensure!(found.frames > 1000, "only {} frames were searched", found.frames);
    ensure!(found.refused > 0, "the host reads everything");
    ensure_eq!(
        found.words,
        0,
        "words of the secret in the host's memory, the first at {:x?}",
        found.first
    );
    Ok(())
}

/// The guest must find its secret, and these x0 and x1.
fn come_back(vm: &Vm, answer: Answer, expected: [Option<u64>; 2]) -> TestResult {
    let Report::Done([general, vectors, system, x0, x1]) = vm.finish(0, answer)? else {
        fail!("the guest lost more than registers")
    };
    ensure_eq!(general, 0, "general registers that the guest lost");
    ensure_eq!(vectors, 0, "vector registers that the guest lost");
    ensure_eq!(system, 0, "system registers that the guest lost");
    for (got, expected) in [x0, x1].into_iter().zip(expected) {
        ensure!(
            expected.is_none_or(|expected| expected == got),
            "x0 and x1: {x0:#x} {x1:#x}"
        );
    }
    Ok(())
}

case!(nothing_is_left_by_a_wait, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Wait, 0)?;
    ensure_eq!(exit, Exit::Wait(WaitKind::Interrupt), "exit");
    vm.vcpus[0].interrupt(8);
    come_back(&vm, Answer::None, [None; 2])?;
    vm.end()
});

case!(nothing_but_its_arguments_is_left_by_a_service_call, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Call, HOST_SERVICE_LAST.into())?;
    let expected = Exit::Service {
        function: HOST_SERVICE_LAST.into(),
        arguments: [0; 6],
    };
    ensure_eq!(exit, expected, "exit");
    come_back(&vm, Answer::Done([7, 8, 9, 10]), [Some(7), Some(8)])?;
    vm.end()
});

case!(nothing_but_the_address_is_left_by_a_load_from_a_device, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Load, layout::DEVICE)?;
    let expected = Exit::MmioRead {
        ipa: layout::DEVICE,
        bytes: 8,
    };
    ensure_eq!(exit, expected, "exit");
    come_back(
        &vm,
        Answer::Done([0x55aa, 0, 0, 0]),
        [Some(layout::DEVICE), Some(0x55aa)],
    )?;
    vm.end()
});

case!(nothing_but_the_data_is_left_by_a_store_to_a_device, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Store, layout::DEVICE)?;
    let expected = Exit::MmioWrite {
        ipa: layout::DEVICE,
        bytes: 8,
        value: 0,
    };
    ensure_eq!(exit, expected, "exit");
    come_back(&vm, Answer::Done([0; 4]), [Some(layout::DEVICE), None])?;
    vm.end()
});

case!(nothing_is_left_by_a_fault_on_memory, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Load, layout::FREE)?;
    let expected = Exit::MemoryFault {
        gfn: PAGE,
        access: AccessFlags::empty(),
    };
    ensure_eq!(exit, expected, "exit");
    vm.give(PAGE)?;
    come_back(&vm, Answer::Retry, [Some(layout::FREE), Some(0)])?;
    let exit = leave(&vm, Door::Store, layout::FREE + hyp_abi::FRAME_SIZE)?;
    let expected = Exit::MemoryFault {
        gfn: PAGE + 1,
        access: AccessFlags::WRITE,
    };
    ensure_eq!(exit, expected, "exit");
    vm.give(PAGE + 1)?;
    come_back(&vm, Answer::Retry, [None; 2])?;
    vm.end()
});

case!(nothing_is_left_by_a_call_that_is_restarted, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Share, layout::FREE)?;
    let expected = Exit::MemoryFault {
        gfn: PAGE,
        access: AccessFlags::CALL,
    };
    ensure_eq!(exit, expected, "exit");
    vm.give(PAGE)?;
    come_back(&vm, Answer::Retry, [Some(0), Some(1)])?;
    vm.end()
});

case!(nothing_is_left_by_a_lost_page, {
    let vm = running_with(1)?;
    force(&vm, PAGE)?;
    let exit = leave(&vm, Door::Load, layout::FREE)?;
    ensure_eq!(exit, Exit::Lost(PAGE), "exit");
    vm.end()
});

case!(nothing_but_the_value_is_left_by_an_interrupt_to_others, {
    let vm = running_with(0)?;
    // SGI 3 to everybody else.
    let value = 1 << 40 | 3 << 24;
    let exit = leave(&vm, Door::Interrupt, value)?;
    ensure_eq!(exit, Exit::SendInterrupt { value, register: 0 }, "exit");
    come_back(&vm, Answer::None, [Some(value), None])?;
    vm.end()
});

case!(nothing_is_left_by_an_interrupt_of_the_host, {
    let vm = running_with(1)?;
    super::support::ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    let flag = vm.frame_view(PAGE)?;
    flag.zero();
    timer::interrupt_every(sysreg::counter_frequency() / 100);
    let exit = leave(&vm, Door::Poll, layout::FREE);
    timer::stop();
    drive::take_interrupts();
    ensure_eq!(exit?, Exit::Interrupt, "exit");
    flag.fill(1);
    come_back(&vm, Answer::None, [Some(layout::FREE), None])?;
    vm.end()
});

case!(nothing_is_left_by_the_end_of_a_vcpu, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Call, super::power::CPU_OFF.into())?;
    ensure_eq!(exit, Exit::CpuOff, "exit");
    vm.end()
});

case!(nothing_is_left_by_the_end_of_a_guest, {
    let vm = running_with(0)?;
    let exit = leave(&vm, Door::Call, super::power::SYSTEM_OFF.into())?;
    ensure_eq!(exit, Exit::SystemOff, "exit");
    vm.end()
});

case!(nothing_is_left_of_a_dead_guest, {
    let vm = running_with(1)?;
    let secret = Secret::new(SEED ^ Door::Wait as u64);
    let exit = leave(&vm, Door::Wait, 0)?;
    ensure_eq!(exit, Exit::Wait(WaitKind::Interrupt), "exit");
    vm.end()?;
    search(secret)
});

case!(a_call_that_el2_answers_leaves_the_rest_alone, {
    let vm = running_with(1)?;
    for (door, argument) in [
        (Door::Call, u64::from(GuestCallId::SmcccVersion as u32)),
        (Door::Call, u64::from(GuestCallId::VendorFeatures as u32)),
        (Door::Call, u64::from(super::power::VERSION)),
        (Door::Firmware, u64::from(super::power::VERSION)),
        (Door::Share, layout::FREE),
    ] {
        let exit = leave(&vm, door, argument)?;
        let Report::Done([0, 0, 0, ..]) = drive::report(exit)? else {
            fail!("{door:?} {argument:#x}: {exit:x?}")
        };
    }
    vm.end()
});
