//! A million random calls of a host, and a million steps of a host and its guests, each judged by the specification.
//!
//! `FREEHOLD_SEED=n` runs the one sequence that a failure names, `FREEHOLD_CALLS=n` as many calls as one has time for.

use freehold_tests::spec::random::{Outcome, run};
use hyp_abi::run_page::ExitReason;
use hyp_abi::{CallId, HostCallId, Status, VmCallId};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Calls in one sequence, which has one seed and one machine.
const SEQUENCE: u64 = 2500;

/// Calls if nobody says otherwise.
const CALLS: u64 = 1_000_000;

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

/// Runs all sequences, or the one that is asked for.
fn sequences(guests: bool) -> Option<Outcome> {
    if let Some(seed) = number("FREEHOLD_SEED") {
        run(seed, SEQUENCE as usize, guests);
        return None;
    }
    let sequences = number("FREEHOLD_CALLS").unwrap_or(CALLS).div_ceil(SEQUENCE);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Outcome::default());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= sequences {
                        break;
                    }
                    let outcome = run(seed, SEQUENCE as usize, guests);
                    total.lock().expect("no worker panics with it").add(&outcome);
                    if seed % 50 == 49 {
                        println!("{} of {sequences} sequences", seed + 1);
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("no worker panicked");
    println!("{:?}\n{:?}\n{:?}", total.calls, total.statuses, total.exits);
    Some(total)
}

/// Each of the statuses must have been answered, but for those that need what there is not here.
fn assert_answered(total: &Outcome, statuses: impl Iterator<Item = Status>, but: &[Status]) {
    for status in statuses.filter(|status| !but.contains(status)) {
        assert!(
            total.statuses.contains_key(&status),
            "{status:?} was never answered"
        );
    }
}

#[test]
fn a_million_calls_agree_with_the_specification() {
    let Some(total) = sequences(false) else { return };
    for call in HostCallId::all() {
        let tally = total
            .calls
            .get(&Some(CallId::Host(call)))
            .copied()
            .unwrap_or_default();
        assert!(tally.accepted > 0, "{call:?} was never accepted");
        assert!(
            tally.refused > 0 || matches!(call, HostCallId::Version | HostCallId::GuestSupport),
            "{call:?} was never refused"
        );
    }
    // The others are about VMs, and their numbers are behind this one's.
    let last = i64::from(Status::WrongTraceState);
    let own = Status::all().filter(|status| i64::from(*status) >= last);
    assert_answered(
        &total,
        own,
        &[
            // A guest, 65,535 pins, a secure world.
            Status::SharedWithGuest,
            Status::CountOverflow,
            Status::SharedWithSecure,
        ],
    );
}

#[test]
fn a_million_steps_of_host_and_guests_agree_with_the_specification() {
    let Some(total) = sequences(true) else { return };
    for call in VmCallId::all() {
        let tally = total
            .calls
            .get(&Some(CallId::Vm(call)))
            .copied()
            .unwrap_or_default();
        assert!(tally.accepted > 0 && tally.refused > 0, "{call:?}: {tally:?}");
    }
    assert_answered(
        &total,
        Status::all(),
        &[
            // 65,535 pins or borrowers, a secure world, 255 VMs, a second CPU, streaming SVE mode, an interrupt at the
            // moment.
            Status::CountOverflow,
            Status::SharedWithSecure,
            Status::NoVmSlot,
            Status::VcpuRunning,
            Status::StreamingMode,
            Status::Busy,
        ],
    );
    for reason in [
        ExitReason::Interrupt,
        ExitReason::Wait,
        ExitReason::MemoryFault,
        ExitReason::MmioRead,
        ExitReason::MmioWrite,
        ExitReason::MemoryNeeded,
        ExitReason::Pinned,
        ExitReason::HostService,
        ExitReason::CpuOn,
        ExitReason::CpuOff,
        ExitReason::SystemOff,
        ExitReason::SystemReset,
        ExitReason::Lost,
        ExitReason::Relinquished,
    ] {
        let number = u64::from(reason);
        assert!(
            total.exits.contains_key(&number),
            "no guest exited with {reason:?}"
        );
    }
}
