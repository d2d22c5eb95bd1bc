//! Interrupts of guests: list registers, the virtual timer, and the host's own tick, which no guest escapes.

use super::support::{PAGE, ensure_alive, ensure_done, ensure_run_refused, running, running_with};
use crate::guest::exit::Exit;
use crate::guest::vcpu::{Answer, LIST_REGISTERS};
use crate::guest::{Plan, Vm, drive, vgic};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail};
use crate::{sysreg, timer};
use hyp_abi::Status;
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::{
    ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, EXIT_LIST, EXIT_TIMER_CONTROL, EntryFlags,
    WaitKind,
};
use payload_protocol::{Level, Order, Report, layout};

/// How often vCPU `index` took `interrupt`.
fn taken(vm: &Vm, index: usize, interrupt: u64) -> Result<u64, Outcome> {
    let [count, ..] = vm.done(index, Order::Taken { interrupt })?;
    Ok(count)
}

case!(a_guest_takes_what_the_host_injects, {
    let vm = running(Plan::protected())?;
    vm.done(0, Order::Interrupts { taken: true })?;
    for number in [0, 5, 15, 16, 31, 32, 40, 63] {
        vm.vcpus[0].interrupt(number);
        ensure_eq!(taken(&vm, 0, number.into())?, 1, "interrupt {number}");
    }
    let [_, total, last, ..] = vm.done(0, Order::Taken { interrupt: 0 })?;
    ensure_eq!((total, last), (8, 63), "interrupts in all, and the last");
    vm.end()
});

case!(a_masked_interrupt_waits_in_its_list_register, {
    let vm = running(Plan::protected())?;
    vm.vcpus[0].interrupt(44);
    for _ in 0..5 {
        ensure_eq!(taken(&vm, 0, 44)?, 0, "while it is masked");
    }
    vm.done(0, Order::Interrupts { taken: true })?;
    ensure_eq!(taken(&vm, 0, 44)?, 1, "when it is not");
    vm.end()
});

case!(more_interrupts_than_list_registers_are_all_taken, {
    let vm = running(Plan::protected())?;
    for number in 32..52 {
        vm.vcpus[0].interrupt(number);
    }
    vm.done(0, Order::Interrupts { taken: true })?;
    for _ in 0..20 {
        ensure_alive(&vm)?;
    }
    for number in 32..52 {
        ensure_eq!(taken(&vm, 0, number)?, 1, "interrupt {number}");
    }
    vm.end()
});

case!(an_injected_interrupt_wakes_a_guest_that_waits, {
    let vm = running(Plan::protected())?;
    let exit = vm.begin_order(0, Order::Wait)?;
    ensure_eq!(exit, Exit::Wait(WaitKind::Interrupt), "exit");
    vm.vcpus[0].interrupt(33);
    let report = vm.finish(0, Answer::None)?;
    ensure_eq!(report, Report::Done([0; 5]), "the wait");
    vm.done(0, Order::Interrupts { taken: true })?;
    ensure_eq!(taken(&vm, 0, 33)?, 1, "interrupt 33");
    vm.end()
});

case!(an_interrupt_to_another_vcpu_goes_through_the_host, {
    let vm = running(Plan::protected().vcpus(3))?;
    super::power::start(&vm, 1)?;
    super::power::start(&vm, 2)?;
    for index in 0..3 {
        vm.done(index, Order::Interrupts { taken: true })?;
    }
    // MSR ICC_SGI1R_EL1, X0.
    let send = |value| Order::Execute {
        level: Level::El1,
        instruction: 0xd518_cba0,
        registers: [value, 0],
    };
    // SGI 4 to vCPU 1; SGI 5 to vCPUs 1 and 2; SGI 6 to all others; SGI 7 to itself.
    for value in [4 << 24 | 0b10, 5 << 24 | 0b110, 6 << 24 | 1 << 40, 7 << 24 | 0b1] {
        let exit = vm.begin_order(0, send(value))?;
        ensure_eq!(exit, Exit::SendInterrupt { value, register: 0 }, "exit");
        ensure!(vm.handle_exit(0, exit)?, "the host knows what to do");
        vm.finish(0, Answer::None)?;
    }
    for (index, numbers) in [(0, [0, 0, 0, 1]), (1, [1, 1, 1, 0]), (2, [0, 1, 1, 0])] {
        ensure_alive_of(&vm, index)?;
        for (number, expected) in (4..8).zip(numbers) {
            ensure_eq!(
                taken(&vm, index, number)?,
                expected,
                "interrupt {number} of vCPU {index}"
            );
        }
    }
    vm.end()
});

fn ensure_alive_of(vm: &Vm, index: usize) -> TestResult {
    vm.done(index, Order::Nothing).map(|_| ())
}

case!(the_virtual_timer_interrupts_a_guest_that_looks, {
    let vm = running(Plan::protected())?;
    for ticks in [10, 1000, sysreg::counter_frequency() / 1000] {
        let [passed, ..] = vm.done(0, Order::Timer { ticks, sleep: false })?;
        ensure!(passed >= ticks, "{passed} ticks passed, not {ticks}");
    }
    ensure_eq!(taken(&vm, 0, 27)?, 3, "timer interrupts");
    vm.end()
});

case!(the_virtual_timer_wakes_a_guest_that_waits, {
    let vm = running(Plan::protected())?;
    for ticks in [10, 1000, sysreg::counter_frequency() / 100] {
        let [passed, ..] = vm.done(0, Order::Timer { ticks, sleep: true })?;
        ensure!(passed >= ticks, "{passed} ticks passed, not {ticks}");
    }
    ensure_eq!(taken(&vm, 0, 27)?, 3, "timer interrupts");
    vm.end()
});

case!(the_exit_record_says_when_the_guests_timer_is_due, {
    let vm = running(Plan::protected())?;
    let ticks = sysreg::counter_frequency() / 50;
    let before = sysreg::counter();
    let exit = vm.begin_order(0, Order::Timer { ticks, sleep: true })?;
    ensure_eq!(exit, Exit::Wait(WaitKind::Interrupt), "exit");
    let Some(due) = vm.vcpus[0].alarm() else {
        fail!(
            "no alarm: control {:#x}",
            vm.vcpus[0].page.read(EXIT_TIMER_CONTROL)
        )
    };
    ensure!(
        (before + ticks..before + ticks + sysreg::counter_frequency()).contains(&due),
        "due at {due:#x}, armed after {before:#x}"
    );
    let Report::Done([passed, ..]) = vm.finish(0, Answer::None)? else {
        fail!("the guest did not wake")
    };
    ensure!(passed >= ticks, "{passed} ticks passed");
    vm.end()
});

case!(
    a_timer_that_falls_due_while_the_host_does_not_look_is_still_told,
    {
        let vm = running(Plan::protected())?;
        let ticks = sysreg::counter_frequency() / 100;
        vm.begin_order(0, Order::Timer { ticks, sleep: true })?;
        let due = vm.vcpus[0].alarm().unwrap_or(0);
        for _ in 0..3 {
            while sysreg::counter() <= due {
                sysreg::relax();
            }
            // The host has injected nothing, as if it had looked just before: the guest finds no interrupt and waits again.
            vm.vcpus[0].page.write(ENTRY_FLAGS, 0);
            let results = crate::guest::calls::call(hyp_abi::VmCall::Run {
                vm: vm.handle(),
                index: 0,
            });
            let exit = vm.vcpus[0].leave(crate::registry::succeed!(results))?;
            ensure!(matches!(exit, Exit::Wait(_) | Exit::Interrupt), "exit {exit:x?}");
            ensure_eq!(vm.vcpus[0].alarm(), Some(due), "the alarm in the exit record");
        }
        let Report::Done([passed, ..]) = vm.finish(0, Answer::None)? else {
            fail!("the guest did not wake")
        };
        ensure!(passed >= ticks, "{passed} ticks passed");
        vm.end()
    }
);

case!(the_hosts_counter_is_the_guests, {
    let vm = running(Plan::protected())?;
    // MRS X0, CNTVCT_EL0.
    let order = Order::Execute {
        level: Level::El1,
        instruction: 0xd53b_e040,
        registers: [0; 2],
    };
    let before = sysreg::counter();
    let [seen, ..] = vm.done(0, order)?;
    let after = sysreg::counter();
    ensure!(
        (before..=after).contains(&seen),
        "{before:#x} {seen:#x} {after:#x}"
    );
    vm.end()
});

/// The guest spins for ever; every tick of the host's brings it back.
fn ensure_interrupted(vm: &Vm, order: Order) -> TestResult {
    timer::interrupt_every(sysreg::counter_frequency() / 1000);
    let before = timer::interrupts();
    let mut exit = vm.run(0, Answer::Done(order.encode()));
    for _ in 0..20 {
        match exit {
            Ok(Exit::Interrupt) => drive::take_interrupts(),
            Ok(exit @ Exit::MemoryFault { .. }) => {
                vm.handle_exit(0, exit)?;
            }
            _ => break,
        }
        exit = vm.run(0, Answer::None);
    }
    timer::stop();
    drive::take_interrupts();
    ensure_eq!(exit?, Exit::Interrupt, "the last exit");
    ensure!(timer::interrupts() - before >= 20, "ticks of the host");
    Ok(())
}

case!(a_guest_that_never_exits_is_interrupted_by_the_hosts_tick, {
    let vm = running(Plan::protected())?;
    ensure_interrupted(&vm, Order::Spin { rounds: u64::MAX })?;
    vm.end()
});

case!(a_guest_that_masks_everything_is_interrupted_too, {
    let vm = running_with(1)?;
    // MSR DAIFSet, #15.
    vm.done(
        0,
        Order::Execute {
            level: Level::El1,
            instruction: 0xd503_4fdf,
            registers: [0; 2],
        },
    )?;
    ensure_done(&vm, GuestCallId::MemShare, PAGE)?;
    vm.frame_view(PAGE)?.zero();
    ensure_interrupted(
        &vm,
        Order::Poll {
            address: layout::FREE,
            value: 0,
        },
    )?;
    vm.end()
});

/// Writes list registers to the entry record, as they are.
fn enter_list(vm: &Vm, count: u64, list: &[u64]) {
    let page = &vm.vcpus[0].page;
    vm.vcpus[0].enter(Answer::Done(Order::Taken { interrupt: 40 }.encode()));
    page.write(ENTRY_FLAGS, (EntryFlags::ANSWER | EntryFlags::INTERRUPTS).bits());
    page.write(ENTRY_ICH_HCR, 0);
    page.write(ENTRY_LIST_COUNT, count);
    for (word, entry) in list.iter().enumerate() {
        page.write(ENTRY_LIST + word, *entry);
    }
}

case!(more_list_registers_than_there_are_have_no_meaning, {
    let vm = running(Plan::protected())?;
    for count in [LIST_REGISTERS as u64 + 1, 16, 17, 1 << 32, u64::MAX] {
        enter_list(&vm, count, &[]);
        ensure_run_refused(&vm, 0, Status::InvalidParameter)?;
    }
    ensure_alive(&vm)?;
    vm.end()
});

case!(a_list_register_never_reaches_a_physical_interrupt, {
    let vm = running(Plan::protected())?;
    // ICH_LR<n>_EL2.HW with the physical timer's INTID, and reserved bits besides.
    let entry = vgic::pending(40) | 1 << 61 | 30 << 32 | 1 << 45 | 1 << 56;
    enter_list(&vm, 1, &[entry]);
    let exit = vm.serve(0, Answer::Done(Order::Taken { interrupt: 40 }.encode()));
    // `serve` has written the record anew: the interrupt was never there. Once more, by hand.
    exit?;
    enter_list(&vm, 1, &[entry]);
    let results = crate::guest::calls::call(hyp_abi::VmCall::Run {
        vm: vm.handle(),
        index: 0,
    });
    let exit = vm.vcpus[0].leave(crate::registry::succeed!(results))?;
    drive::report(exit)?;
    let shown = vm.vcpus[0].page.read(EXIT_LIST);
    ensure_eq!(shown & 1 << 61, 0, "ICH_LR0_EL2.HW");
    ensure_eq!(shown as u32, 40, "its INTID");
    vm.end()
});

case!(the_guests_interface_is_its_own, {
    // What a guest sets its mask to is there when it comes back, whatever other guests and the host have done.
    let (first, second) = (running(Plan::protected())?, running(Plan::protected())?);
    // MSR ICC_PMR_EL1, X0 and MRS X0, ICC_PMR_EL1.
    let write = |value| Order::Execute {
        level: Level::El1,
        instruction: 0xd518_4600,
        registers: [value, 0],
    };
    let read = Order::Execute {
        level: Level::El1,
        instruction: 0xd538_4600,
        registers: [0; 2],
    };
    first.done(0, write(0xa0))?;
    second.done(0, write(0x50))?;
    for _ in 0..5 {
        ensure_eq!(first.done(0, read)?[0], 0xa0, "ICC_PMR_EL1 of the first");
        ensure_eq!(second.done(0, read)?[0], 0x50, "ICC_PMR_EL1 of the second");
    }
    first.end()?;
    second.end()
});

case!(an_interrupt_below_the_guests_mask_waits, {
    let vm = running(Plan::protected())?;
    vm.done(0, Order::Interrupts { taken: true })?;
    let pmr = |value| Order::Execute {
        level: Level::El1,
        instruction: 0xd518_4600,
        registers: [value, 0],
    };
    // The host injects with priority 0x80.
    vm.done(0, pmr(0x40))?;
    vm.vcpus[0].interrupt(50);
    ensure_eq!(taken(&vm, 0, 50)?, 0, "while its priority is too low");
    vm.done(0, pmr(0xff))?;
    ensure_eq!(taken(&vm, 0, 50)?, 1, "afterwards");
    vm.end()
});
