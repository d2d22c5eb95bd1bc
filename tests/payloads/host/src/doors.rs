//! Operations for an instruction trace, one act at a time.
//!
//! Whoever traces EL2 from outside compares what it did in each act with what it should have done. An act is one call
//! or one access, between two marker instructions; after it a line on the console says which CPU did what, numbers in
//! hexadecimal:
//!
//! - `D <cpu> call <name> <x0> .. <x6> = <x0> .. <x3>`;
//! - `D <cpu> run <name> <vm> <vcpu> <run page> <six words of the entry record> <deeds> = <x0> .. <x3>`, with what brought
//!   the guest to EL2, in order: `call:<x0>,..,<x6>`, `fault:<gfn>,<access>`, `denied:<gfn>,<access>`, `unused:<gfn>`, `interrupt:`, `vectors:`;
//! - `D <cpu> load <name> <address> <outcome>`, the outcome `done` or `refused`.
//!
//! So the acts and the markers of a CPU come in the same order. Nothing else of that CPU goes to EL2 between the markers,
//! and nobody else makes calls that an act would notice.
//!
//! - [`acts`]: acts, and the lines.
//! - [`host`]: pages between the host and EL2.
//! - [`guest`]: a guest that does what it is told.
//! - [`lending`]: pages of a protected guest.
//! - [`borrowing`]: pages that a guest borrows.
//! - [`turns`]: vCPUs that take turns on CPUs.

mod acts;
mod borrowing;
mod guest;
mod host;
mod lending;
mod turns;

use crate::bench::tell_facts;
use crate::console::println;
use crate::registry::{Failure, Outcome, TestResult};
use crate::sysreg;

/// How a run of acts went.
pub(crate) struct Played {
    /// Scenes.
    pub(crate) scenes: usize,
    /// Scenes that went wrong.
    pub(crate) failed: usize,
}

/// Plays every scene, in an order on which later ones depend. Before them the facts, as benchmarks tell them.
pub(crate) fn play() -> Played {
    tell_facts();
    let scenes: &[fn() -> TestResult] = &[
        host::share,
        host::donate_pages,
        host::donate_blocks,
        host::pin,
        host::pool,
        host::refuse,
        host::touch_devices,
        lending::play,
        borrowing::play,
        turns::play,
        host::donate_many,
    ];
    let mut failed = 0;
    for scene in scenes {
        match sysreg::without_irqs(scene) {
            Ok(()) => {}
            Err(Outcome::Skipped(why)) => {
                failed += 1;
                println!("D fail {why}");
            }
            Err(Outcome::Failed(Failure { file, line, text })) => {
                failed += 1;
                println!("D fail {file}:{line} {text}");
            }
        }
    }
    Played {
        scenes: scenes.len(),
        failed,
    }
}
