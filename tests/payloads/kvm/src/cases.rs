//! The cases, by what they are about.

mod devices;
mod exhaustion;
mod figures;
mod hostile;
mod isolation;
mod memfd;
mod moves;
mod own;
mod registers;
mod run;
mod slots;
mod system;
mod vcpus;

use crate::device::Errno;
use crate::process::{Ended, apart};
use crate::{Case, Outcome};
use std::fmt::Debug;

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    [
        system::CASES,
        memfd::CASES,
        slots::CASES,
        slots::guests::CASES,
        own::CASES,
        own::slots::CASES,
        own::processes::CASES,
        own::upkeep::CASES,
        vcpus::CASES,
        figures::CASES,
        exhaustion::CASES,
        run::CASES,
        run::memory::CASES,
        run::shares::CASES,
        run::work::CASES,
        devices::CASES,
        devices::guests::CASES,
        hostile::CASES,
        registers::CASES,
        moves::CASES,
        isolation::CASES,
        isolation::run_page::CASES,
        isolation::given::CASES,
        isolation::mappings::CASES,
        isolation::devices::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Names a function as a case.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(in crate::cases) const CASES: &[crate::Case] = &[
            $(crate::Case { name: stringify!($name), run: $name }),*
        ];
    };
}
use cases;

/// Fails unless two things are the same.
fn same<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Outcome {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {got:?}, not {wanted:?}"))
    }
}

/// Fails unless it was refused with that error.
fn refused<T: Debug>(what: &str, got: Result<T, Errno>, wanted: i32) -> Outcome {
    match got {
        Err(Errno(errno)) if errno == wanted => Ok(()),
        other => Err(format!("{what}: {other:?}, not {:?}", Errno(wanted))),
    }
}

/// What must succeed.
fn succeed<T>(what: &str, got: Result<T, Errno>) -> Result<T, String> {
    got.map_err(|error| format!("{what}: {error:?}"))
}

/// Fails unless that ends a process of its own so.
fn ends(what: &str, wanted: Ended, work: impl FnOnce()) -> Outcome {
    same(what, apart(work).map_err(|error| error.to_string())?, wanted)
}

/// Fails unless a process that touches that is killed for it.
fn bus_error(what: &str, touch: impl FnOnce()) -> Outcome {
    ends(what, Ended::Killed(libc::SIGBUS), touch)
}
