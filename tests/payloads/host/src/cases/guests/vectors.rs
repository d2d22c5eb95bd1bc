//! Floating point, SVE and SME: everybody's registers are their own.

use super::support::{ensure_refused_of, running, running_with};
use crate::cases::support::needs_cpus;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, schedule, sve};
use crate::probe::{self, Level};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, skip, succeed};
use crate::{cpu, sysreg};
use alloc::vec::Vec;
use hyp_abi::{Status, VmCall};
use payload_protocol::{Order, Secret};

/// The guest's vector registers must be as `seed` filled them.
fn ensure_vectors(vm: &Vm, seed: u64) -> TestResult {
    let [differ, ..] = vm.done(0, Order::VerifyVectors { seed })?;
    ensure_eq!(differ, 0, "vector registers of the guest that differ");
    Ok(())
}

case!(a_guest_begins_with_empty_vectors, {
    // Whatever the host had in them.
    let vm = Vm::launch(Plan::protected())?;
    let after = crate::guest::registers::run(vm.handle(), 0, Secret::new(1));
    ensure_eq!(after.results[0], 0, "status");
    vm.vcpus[0].leave([after.results[1], after.results[2], after.results[3]])?;
    // STR Q5, [X0] to its own memory, and what it holds.
    vm.give(super::support::PAGE)?;
    let address = payload_protocol::layout::FREE;
    vm.serve(0, Answer::Retry)?;
    for (register, offset) in [(0_u32, 0_u64), (5, 16), (31, 32)] {
        let order = Order::Execute {
            level: payload_protocol::Level::El1,
            instruction: 0x3d80_0000 | register,
            registers: [address + offset, 0],
        };
        vm.done(0, order)?;
        let halves = [vm.load8(address + offset)?, vm.load8(address + offset + 8)?];
        ensure_eq!(halves, [0, 0], "V{register}");
    }
    vm.end()
});

case!(guests_and_host_keep_their_vectors_by_turns, {
    let vms: Vec<Vm> = (0..3)
        .map(|_| running(Plan::protected()))
        .collect::<Result<_, Outcome>>()?;
    for (number, vm) in vms.iter().enumerate() {
        vm.done(0, Order::FillVectors { seed: number as u64 })?;
    }
    for round in 0..30 {
        for (number, vm) in vms.iter().enumerate() {
            // The host's own are looked at around each run.
            vm.vcpus[0].enter(Answer::Done(
                Order::VerifyVectors { seed: number as u64 }.encode(),
            ));
            let after = crate::guest::registers::run(vm.handle(), 0, Secret::new(number as u64));
            let [status, results @ ..] = after.results;
            ensure_eq!(status, 0, "status in round {round}");
            ensure_eq!(after.vectors, 0, "the host's vectors in round {round}");
            ensure_eq!(after.leaked, 0, "words of the guest in the host in round {round}");
            let exit = vm.vcpus[0].leave(results)?;
            let report = crate::guest::drive::report(exit)?;
            ensure_eq!(
                report,
                payload_protocol::Report::Done([0; 5]),
                "the guest's vectors in round {round}"
            );
        }
    }
    schedule::end_all(vms)
});

case!(vectors_survive_a_switching_load_on_all_cpus, {
    needs_cpus(2)?;
    let vms: Vec<Vm> = (0..4)
        .map(|_| Vm::launch(Plan::protected()))
        .collect::<Result<_, Outcome>>()?;
    let seed = |turn: &schedule::Turn| 100 + turn.vm as u64;
    let seen = schedule::run(&vms, cpu::count(), sysreg::counter_frequency() / 300, &|turn| {
        if turn.step > 1 && turn.step % 2 == 0 && turn.report != payload_protocol::Report::Done([0; 5]) {
            fail!("VM {} in step {}: {:x?}", turn.vm, turn.step, turn.report);
        }
        Ok(match turn.step {
            0 => Some(Order::FillVectors { seed: seed(&turn) }),
            80.. => None,
            step if step % 2 == 1 => Some(Order::VerifyVectors { seed: seed(&turn) }),
            _ => Some(Order::Spin { rounds: 2000 }),
        })
    })?;
    ensure!(
        seen.moves.load(core::sync::atomic::Ordering::Relaxed) > 0,
        "no vCPU ever moved"
    );
    schedule::end_all(vms)
});

/// Skips the case on a CPU without SVE.
pub(super) fn needs_sve() -> TestResult {
    if !sve::is_there() {
        skip!("the CPU has no SVE");
    }
    Ok(())
}

case!(the_hosts_sve_state_survives_a_guest_at_every_length, {
    needs_sve()?;
    let vm = running_with(0)?;
    vm.done(0, Order::FillVectors { seed: 3 })?;
    let (mut tried, mut last) = (0, 0);
    for length in 1..=16 {
        let bytes = sve::set_length(length);
        if bytes == last {
            continue;
        }
        last = bytes;
        tried += 1;
        let registers = sve::Registers::numbered(bytes, length as u8);
        registers.load();
        ensure_vectors(&vm, 3)?;
        let after = sve::Registers::stored();
        ensure!(
            after == registers,
            "the host's registers changed at {bytes} bytes"
        );
        // The length is the host's too.
        ensure_eq!(sve::set_length(length), bytes, "bytes of a vector");
    }
    ensure!(tried > 1, "the CPU has one length only");
    vm.end()
});

case!(the_hosts_sve_state_survives_a_guest_that_uses_no_vectors, {
    needs_sve()?;
    let vm = running_with(0)?;
    let bytes = sve::set_length(16);
    let registers = sve::Registers::numbered(bytes, 0x3c);
    registers.load();
    vm.done(0, Order::Spin { rounds: 100 })?;
    ensure!(
        sve::Registers::stored() == registers,
        "the host's registers changed"
    );
    vm.end()
});

case!(a_guests_sve_instruction_is_undefined, {
    // RDVL X0, #1, and a read of ZCR_EL1: no guest has SVE yet, whatever its CPU has.
    let vm = running_with(0)?;
    super::sysregs::untrap_vectors(&vm)?;
    for instruction in [0x04bf_5020, 0xd538_1200] {
        let order = Order::Execute {
            level: payload_protocol::Level::El1,
            instruction,
            registers: [0; 2],
        };
        ensure_eq!(vm.order(0, order)?.class(), Some(0), "class of {instruction:#x}");
    }
    vm.end()
});

/// `SMSTART SM` and `SMSTOP SM`, and `MSR CPACR_EL1, X0` and `MRS X0, CPACR_EL1`, `MRS X0, ID_AA64PFR1_EL1`.
const STREAM: u32 = 0xd503_437f;
const STOP_STREAMING: u32 = 0xd503_427f;
const WRITE_CPACR: u32 = 0xd518_1040;
const READ_CPACR: u32 = 0xd538_1040;
const READ_PFR1: u32 = 0xd538_0420;

/// Skips the case on a CPU without SME.
pub(super) fn needs_sme() -> TestResult {
    let [features, _] = succeed!(probe::execute(Level::El1, READ_PFR1, [0; 2]));
    if features >> 24 & 0xf == 0 {
        skip!("the CPU has no SME");
    }
    Ok(())
}

/// Does `work` in streaming mode.
pub(super) fn streaming<R>(work: impl FnOnce() -> R) -> Result<R, Outcome> {
    let [before, _] = succeed!(probe::execute(Level::El1, READ_CPACR, [0; 2]));
    // CPACR_EL1.SMEN and ZEN.
    succeed!(probe::execute(
        Level::El1,
        WRITE_CPACR,
        [before | 0b11 << 24 | 0b11 << 16, 0]
    ));
    succeed!(probe::execute(Level::El1, STREAM, [0; 2]));
    let result = work();
    succeed!(probe::execute(Level::El1, STOP_STREAMING, [0; 2]));
    succeed!(probe::execute(Level::El1, WRITE_CPACR, [before, 0]));
    Ok(result)
}

case!(a_guest_is_not_entered_in_streaming_mode, {
    needs_sme()?;
    let vm = running_with(0)?;
    let run = VmCall::Run {
        vm: vm.handle(),
        index: 0,
    };
    streaming(|| ensure_refused_of(&vm, run, Status::StreamingMode, &[]))??;
    super::support::ensure_alive(&vm)?;
    vm.end()
});
