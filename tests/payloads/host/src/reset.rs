//! A reset of the machine while others hold memory: what the kernel after it can find.
//!
//! RAM keeps its contents, so the payload lives twice. The first time it gives frames away, has a guest fill its memory
//! and hold a secret in its registers, and resets the machine while the guest runs. The second time it finds what it left
//! for itself, and looks for what it must not find.

use crate::console::println;
use crate::exit::{Exit, leave};
use crate::frames::{self, Frames};
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, scan};
use crate::hypercall::HYPERVISOR;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, ensure, ensure_eq, fail, succeed};
use crate::{cpu, firmware, sysreg};
use core::sync::atomic::{AtomicBool, Ordering};
use hyp_abi::FRAME_SIZE;
use payload_protocol::reset::{SEED, SEED_OF_THE_DEAD};
use payload_protocol::{Door, Order, Secret, layout};

/// What the payload leaves for itself.
const NOTE: u64 = 0x6e6f_7465_746f_6d65;
/// What frames are filled with that EL2 or the guest gets.
const GIVEN: u64 = 0x0617_e21a_b1e5_5ed0;
/// Frames that are donated to EL2.
const DONATED: u64 = 4;
/// Pages of the guest that it fills.
const FILLED: u64 = 4;
/// PSCI SYSTEM_RESET.
const SYSTEM_RESET: u32 = 0x8400_0009;

/// Plays the first life or the second one, and says which: `R life <number>`, and at the end of the second `R end`.
pub(crate) fn run() -> ! {
    // What is allocated first lies at the same place in both lives.
    let Some(note) = frames::allocate(1) else {
        leave(Exit::Failed)
    };
    let is_second = word(note.frame(0), 0) == Ok(NOTE);
    println!("R life {}", 1 + u64::from(is_second));
    let result = if is_second { second(&note) } else { first(&note) };
    match result {
        Ok(()) => {
            println!("R end");
            leave(Exit::Passed)
        }
        Err(Outcome::Failed(failure)) => {
            println!("R fail {}:{} {}", failure.file, failure.line, failure.text);
            leave(Exit::Failed)
        }
        Err(Outcome::Skipped(why)) => {
            println!("R fail skipped: {why}");
            leave(Exit::Failed)
        }
    }
}

fn word(frame: u64, index: u64) -> Result<u64, ()> {
    probe::access(Level::El1, Access::Load8, frame + index * 8, 0).map_err(|_| ())
}

fn write(frame: u64, index: u64, value: u64) -> TestResult {
    succeed!(probe::access(
        Level::El1,
        Access::Store8,
        frame + index * 8,
        value
    ));
    Ok(())
}

fn first(note: &Frames) -> TestResult {
    let note = note.frame(0);
    let mut noted = 1;
    let mut remember = |frame: u64| {
        write(note, noted, frame)?;
        noted += 1;
        Ok::<_, Outcome>(())
    };
    // A frame that stays the host's shows, in the second life, that RAM was kept.
    let Some(kept) = frames::allocate(1) else {
        fail!("no frame is free")
    };
    kept.fill(GIVEN);
    remember(kept.frame(0))?;
    let Some(donated) = frames::allocate(DONATED) else {
        fail!("no frames are free")
    };
    donated.fill(GIVEN);
    for index in 0..DONATED {
        remember(donated.frame(index))?;
    }
    succeed!(HYPERVISOR.donate(donated.range()));
    let dead = Vm::launch(Plan::protected())?;
    dead.ready()?;
    dead.exit(
        0,
        Answer::Done(
            Order::Hold {
                seed: SEED_OF_THE_DEAD,
                door: Door::Load,
                argument: layout::DEVICE,
            }
            .encode(),
        ),
    )?;
    dead.end()?;
    let vm = Vm::launch(Plan::protected())?;
    vm.ready()?;
    let first_gfn = layout::FREE / FRAME_SIZE;
    for gfn in first_gfn..first_gfn + FILLED {
        remember(vm.give(gfn)?)?;
        vm.fill(gfn, GIVEN)?;
    }
    // The guest holds its secret and looks at a word that nobody writes.
    let poll = first_gfn + FILLED;
    remember(vm.give(poll)?)?;
    write(note, 0, NOTE)?;
    sysreg::barrier();
    let begun = AtomicBool::new(false);
    cpu::run_on_first(2, |this| {
        if this == 1 {
            let order = Order::Hold {
                seed: SEED,
                door: Door::Poll,
                argument: poll * FRAME_SIZE,
            };
            begun.store(true, Ordering::Release);
            loop {
                // Nothing brings it back but the end.
                let _ = vm.exit(0, Answer::Done(order.encode()));
            }
        }
        while !begun.load(Ordering::Acquire) {
            sysreg::relax();
        }
        let deadline = sysreg::counter() + sysreg::counter_frequency() / 2;
        while sysreg::counter() < deadline {
            sysreg::relax();
        }
        println!("R reset");
        firmware::call(SYSTEM_RESET, [0; 3]);
        println!("R goes on");
    });
    fail!("the machine goes on after a reset")
}

fn second(note: &Frames) -> TestResult {
    let note = note.frame(0);
    let frame = |index| word(note, index).unwrap_or(0);
    let holds = |frame: u64, expected: &dyn Fn(u64) -> u64| {
        (0..FRAME_SIZE / 8).all(|index| word(frame, index) == Ok(expected(frame + index * 8)))
    };
    ensure!(
        holds(frame(1), &|address| GIVEN ^ address),
        "the machine does not keep its RAM, so this shows nothing"
    );
    let hidden = DONATED + FILLED + 1;
    for index in 2..2 + hidden {
        ensure!(
            holds(frame(index), &|_| 0),
            "frame {:#x} (number {index}) was not the host's, and is not zero",
            frame(index)
        );
    }
    let found = scan::all_memory(Secret::new(SEED));
    ensure!(found.frames > 1000, "only {} frames were searched", found.frames);
    ensure_eq!(
        found.words,
        0,
        "words of the guest's secret, the first at {:x?}",
        found.first
    );
    Ok(())
}
