//! The entry record and the exit record.

use super::*;
use crate::double::Step;
use hyp_abi::run_page::{
    ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, EXIT_ICH_EISR, EXIT_ICH_HCR, EXIT_ICH_MISR, EXIT_LIST,
    EXIT_LIST_COUNT, EXIT_TIMER_COMPARE, EXIT_TIMER_CONTROL,
};

/// What the host's list registers must not hold, and what is left of all ones.
const LIST: u64 = 0b11 << 62 | 1 << 60 | 0xff << 48 | 1 << 41 | 0xffff_ffff;

fn word(bench: Bench, word: usize) -> u64 {
    bench.hw().word(Frame::new(RUN_PAGES).unwrap(), word)
}

#[test]
fn a_record_without_a_meaning_is_refused_and_nothing_has_changed() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([look(|context| {
        assert_eq!((context.pc, context.x[0]), (ENTRY, 77));
        assert_eq!(context.gic.count, 0);
    })]);
    let refused = || bench.refused(VmCall::Run { vm, index: 0 }, Status::InvalidParameter);
    for flags in [4, u64::MAX, 1 << 63] {
        bench.write(0, ENTRY_FLAGS, flags);
        refused();
    }
    for answer in [Answer::Refuse.into(), Answer::Done.into(), 3, u64::MAX] {
        bench.write(0, ENTRY_FLAGS, EntryFlags::ANSWER.bits());
        bench.write(0, ENTRY_ANSWER, answer);
        refused();
    }
    bench.write(0, ENTRY_FLAGS, EntryFlags::INTERRUPTS.bits());
    for count in [5, 16, 17, u64::MAX] {
        bench.write(0, ENTRY_LIST_COUNT, count);
        refused();
    }
    bench.answers(Answer::Retry, [0; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn an_answer_must_be_one_to_the_exit() {
    let bench = Bench::new();
    let vm = bench.guest();
    let accepts = |answer: Answer| {
        bench.answers(answer, [0; 4]);
        bench.ask(VmCall::Run { vm, index: 0 }).status
    };
    let service = || hvc([0xc600_4680, 0, 0, 0]);
    let wfi = || act(|_| synchronous(0x01 << 26 | IL));
    let load = || act(|_| aborts(0x24 << 26 | IL | 1 << 24 | 0b111, 0x1000, 0x900_0000));
    let missing = || act(|_| aborts(0x24 << 26 | IL | 0b111, 0x1000, ENTRY));
    for (make, allowed) in [
        (Box::new(service) as Box<dyn Fn() -> Act>, [true, false, true]),
        (Box::new(wfi), [true, false, false]),
        (Box::new(load), [true, true, true]),
        (Box::new(missing), [true, true, false]),
    ] {
        for (answer, allowed) in [Answer::Retry, Answer::Refuse, Answer::Done]
            .into_iter()
            .zip(allowed)
        {
            bench.says_nothing();
            bench.plays([make()]);
            let (reason, _) = bench.run(vm, 0);
            assert_ne!(reason, ExitReason::Interrupt);
            let expected = if allowed {
                Status::Success
            } else {
                Status::InvalidParameter
            };
            assert_eq!(accepts(answer), expected, "{answer:?} to {reason:?}");
            // What was refused is still waited for; what was answered is not.
            bench.says_nothing();
            bench.runs_to(vm, ExitReason::Interrupt, []);
        }
    }
}

#[test]
fn list_registers_are_cleaned_of_what_is_not_the_hosts() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.write(0, ENTRY_FLAGS, EntryFlags::INTERRUPTS.bits());
    bench.write(0, ENTRY_LIST_COUNT, 3);
    bench.write(0, ENTRY_ICH_HCR, u64::MAX);
    for number in 0..4 {
        bench.write(0, ENTRY_LIST + number, u64::MAX - number as u64);
    }
    bench.plays([act(|context| {
        let gic = &mut context.gic;
        assert_eq!(gic.count, 3);
        assert_eq!(gic.control, 0xf800_00ff);
        assert_eq!(gic.list[0], LIST);
        assert_eq!(gic.list[2], LIST - 2);
        assert_eq!(gic.list[3], 0);
        gic.list[1] = 27;
        gic.maintenance = 1;
        gic.ended = 2;
        gic.control = 3 << 27 | 0xff;
        interrupt()
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(word(bench, EXIT_LIST_COUNT), 3);
    assert_eq!(word(bench, EXIT_LIST + 1), 27);
    assert_eq!(word(bench, EXIT_LIST + 3), 0);
    assert_eq!((word(bench, EXIT_ICH_MISR), word(bench, EXIT_ICH_EISR)), (1, 2));
    assert_eq!(word(bench, EXIT_ICH_HCR), 3 << 27);
    // Without the flag they stay as they are, whatever the page says.
    bench.says_nothing();
    bench.plays([look(|context| {
        assert_eq!((context.gic.count, context.gic.list[1]), (3, 27));
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_host_in_streaming_mode_runs_nothing_and_changes_nothing() {
    let bench = Bench::new();
    let vm = bench.guest();
    let interrupts = |list: u64| {
        bench.write(0, ENTRY_FLAGS, EntryFlags::INTERRUPTS.bits());
        bench.write(0, ENTRY_LIST_COUNT, 1);
        bench.write(0, ENTRY_LIST, list);
    };
    interrupts(5);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    interrupts(6);
    bench.hw().set_streaming(true);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::StreamingMode);
    assert_eq!(bench.hw().loaded_guest(), None);
    bench.hw().set_streaming(false);
    bench.says_nothing();
    bench.plays([look(|context| assert_eq!(context.gic.list[0], 5))]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_vcpu_that_was_refused_before_its_start_still_starts() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.hw().set_streaming(true);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::StreamingMode);
    bench.hw().set_streaming(false);
    bench.plays([look(|context| {
        assert_eq!((context.pc, context.x[0]), (ENTRY, 77));
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn the_timer_is_shown_as_the_guest_left_it() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([act(|context| {
        context.timer.control = 5;
        context.timer.compare = 0x1234_5678;
        interrupt()
    })]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    assert_eq!(word(bench, EXIT_TIMER_CONTROL), 5);
    assert_eq!(word(bench, EXIT_TIMER_COMPARE), 0x1234_5678);
}

#[test]
fn no_word_of_the_record_is_read_twice() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([hvc([0xc600_4680, 0, 0, 0])]);
    bench.runs_to(vm, ExitReason::HostService, [0xc600_4680]);
    bench.answers(Answer::Done, [1, 2, 3, 4]);
    bench.write(
        0,
        ENTRY_FLAGS,
        (EntryFlags::ANSWER | EntryFlags::INTERRUPTS).bits(),
    );
    bench.write(0, ENTRY_LIST_COUNT, 3);
    bench.hw().record(true);
    bench.done(VmCall::Run { vm, index: 0 });
    let log = bench.hw().take_log();
    bench.hw().record(false);
    let mut read: Vec<_> = log
        .iter()
        .filter_map(|step| match step {
            Step::SharedLoad(_, word) => Some(*word),
            _ => None,
        })
        .collect();
    let words = read.len();
    // The flags, the answer and its values, the count, the control register, three list registers.
    assert_eq!(words, 1 + 1 + 4 + 1 + 1 + 3);
    read.sort_unstable();
    read.dedup();
    assert_eq!(read.len(), words);
}

#[test]
fn a_run_page_that_cannot_be_read_is_a_refusal_of_the_run() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([look(|context| {
        assert_eq!((context.pc, context.x[0]), (ENTRY, 77))
    })]);
    bench.hw().set_poisoned(Frame::new(RUN_PAGES).unwrap(), true);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::Poisoned);
    bench.hw().set_poisoned(Frame::new(RUN_PAGES).unwrap(), false);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn an_exit_that_cannot_be_written_is_told_by_the_next_run() {
    let bench = Bench::new();
    let vm = bench.guest();
    let page = Frame::new(RUN_PAGES).unwrap();
    bench.plays([
        act(move |context| {
            bench.hw().set_poisoned(page, true);
            context.x[..4].copy_from_slice(&[0xc600_4680, 5, 6, 7]);
            context.pc += 4;
            synchronous(ESR_HVC)
        }),
        look(|context| assert_eq!(context.x[..4], [1, 2, 3, 4])),
    ]);
    for _ in 0..3 {
        bench.refused(VmCall::Run { vm, index: 0 }, Status::Poisoned);
    }
    bench.hw().set_poisoned(page, false);
    bench.runs_to(vm, ExitReason::HostService, [0xc600_4680, 5, 6, 7]);
    bench.answers(Answer::Done, [1, 2, 3, 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_vcpu_that_turned_itself_off_is_on_until_the_host_was_told() {
    let bench = Bench::new();
    let vm = bench.guest();
    let page = Frame::new(RUN_PAGES).unwrap();
    bench.plays([act(move |context| {
        bench.hw().set_poisoned(page, true);
        context.x[0] = 0x8400_0002;
        context.pc += 4;
        synchronous(ESR_HVC)
    })]);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::Poisoned);
    bench.hw().set_poisoned(page, false);
    bench.runs_to(vm, ExitReason::CpuOff, []);
    bench.refused(VmCall::Run { vm, index: 0 }, Status::VcpuOff);
}
