//! The specification, case by case.
//!
//! - `<call> on <holding>`: every call that names a frame, on everything that a frame may be. The system must answer as
//!   the specification says, and a refusal must have changed nothing.
//! - [`rows`]: the transitions that pKVM tests at boot, in our terms.
//! - [`guest_rows`]: those of guests, and what pKVM says it does not cover: two borrowers of one frame, reclaim by force, what
//!   a dead guest leaves.
//! - [`known_bugs`], [`known_guest_bugs`]: published bugs of pKVM that have a counterpart here.

#[path = "specification/cases.rs"]
mod cases;
#[path = "specification/guest_rows.rs"]
mod guest_rows;
#[path = "specification/guests.rs"]
mod guests;
#[path = "specification/known_bugs.rs"]
mod known_bugs;
#[path = "specification/known_guest_bugs.rs"]
mod known_guest_bugs;
#[path = "specification/limits.rs"]
mod limits;
#[path = "specification/rows.rs"]
mod rows;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = cases::trials();
    trials.extend(named(rows::ROWS));
    trials.extend(named(limits::LIMITS));
    trials.extend(named(guest_rows::GUESTS));
    trials.extend(named(known_bugs::KNOWN_BUGS));
    trials.extend(named(known_guest_bugs::KNOWN_GUEST_BUGS));
    libtest_mimic::run(&arguments, trials).exit();
}

/// A case with a name. It panics if it fails.
type Case = (&'static str, fn());

fn named(cases: &'static [Case]) -> impl Iterator<Item = Trial> {
    cases.iter().map(|(name, case)| {
        Trial::test(*name, || {
            case();
            Ok(())
        })
    })
}
