//! Cases apart from each other: each in a child, which may die.
#![expect(unsafe_code, reason = "forks and waits")]

use crate::Outcome;
use std::io::{Error, Result, Write as _, stdout};

/// Seconds until a child that does not end is killed.
const PATIENCE: libc::c_uint = 60;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Runs something in a child, which says why it failed if it did.
pub(crate) fn in_child(work: impl FnOnce() -> Outcome) -> Result<Ended> {
    stdout().flush()?;
    // SAFETY: there is one thread, so that the child finds everything in order.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        0 => {
            // SAFETY: the child has no other use for the alarm.
            unsafe { libc::alarm(PATIENCE) };
            let status = match work() {
                Ok(()) => 0,
                Err(why) => {
                    println!("{why}");
                    1
                }
            };
            let _ = stdout().flush();
            // SAFETY: nothing of the parent's is to be run at the child's end.
            unsafe { libc::_exit(status) }
        }
        child => wait(child),
    }
}

fn wait(child: libc::pid_t) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: the status has a place.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(Error::last_os_error());
    }
    Ok(if libc::WIFEXITED(status) {
        Ended::Exited(libc::WEXITSTATUS(status))
    } else {
        Ended::Killed(libc::WTERMSIG(status))
    })
}
