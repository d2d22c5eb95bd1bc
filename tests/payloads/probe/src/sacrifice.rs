//! Work that may kill the process that does it, done in a child.
//!
//! A bad access at EL0 is a signal, which the child catches to tell what it was. A bad access at EL1 is an oops of
//! the kernel, which kills the child outright. Either way the tool lives on and says what happened.
#![expect(unsafe_code, reason = "fork, wait, signals and memory shared with the child")]

use crate::signals::Fault;
use std::io::{Error, Result, Write, stdout};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Seconds until a child that neither answers nor dies is killed: code that was jumped to may loop.
const PATIENCE: libc::c_uint = 10;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It finished its work, with this answer.
    Answered([u64; 2]),
    /// It caught the signal of a fault.
    Caught(Fault),
    /// It was killed by this signal, with no say in it.
    Killed(i32),
}

/// What the child leaves for the parent, in memory that they share.
#[derive(Debug)]
struct Note {
    kind: AtomicU64,
    words: [AtomicU64; 3],
}

/// Kinds of a note. 0 is that of fresh memory: nothing was written.
const ANSWERED: u64 = 1;
const CAUGHT: u64 = 2;

impl Note {
    fn write(&self, kind: u64, words: [u64; 3]) {
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.kind.store(kind, Ordering::Release);
    }

    fn read(&self) -> (u64, [u64; 3]) {
        let kind = self.kind.load(Ordering::Acquire);
        (
            kind,
            self.words.each_ref().map(|word| word.load(Ordering::Relaxed)),
        )
    }
}

/// The note that the signal handler of a child writes.
static NOTE: AtomicPtr<Note> = AtomicPtr::new(null_mut());

/// Memory that holds a [`Note`] and is shared with children, until it is dropped.
struct SharedNote(NonNull<Note>);

impl SharedNote {
    fn new() -> Result<Self> {
        // SAFETY: the kernel chooses an unused place.
        let place = unsafe {
            libc::mmap(
                null_mut(),
                size_of::<Note>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(place.cast()) {
            Some(note) if place != libc::MAP_FAILED => Ok(Self(note)),
            _ => Err(Error::last_os_error()),
        }
    }

    fn get(&self) -> &Note {
        // SAFETY: the mapping is a zeroed page, which is a Note; it lives as long as self and consists of atomics,
        // so that the child may write while we look.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedNote {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and references to it cannot outlive self.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Note>()) };
    }
}

/// Does `work` in a child process and answers how it ended. Work that prints also flushes.
///
/// # Errors
/// If the system has no process or memory left.
pub(crate) fn in_child(work: impl FnOnce() -> [u64; 2]) -> Result<Ended> {
    stdout().flush()?;
    let note = SharedNote::new()?;
    // SAFETY: the tool has one thread, so the child's memory is in a consistent state. (Tests have several; their
    // children take no locks.)
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(Error::last_os_error()),
        0 => {
            NOTE.store(note.0.as_ptr(), Ordering::Relaxed);
            catch_faults();
            // SAFETY: sets a timer of this process.
            unsafe { libc::alarm(PATIENCE) };
            let [first, second] = work();
            note.get().write(ANSWERED, [first, second, 0]);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        child => {
            let killed_by = wait(child)?;
            let (kind, [first, second, third]) = note.get().read();
            Ok(match (killed_by, kind) {
                (Some(signal), _) => Ended::Killed(signal),
                (None, ANSWERED) => Ended::Answered([first, second]),
                (None, CAUGHT) => Ended::Caught(Fault {
                    signal: first as i32,
                    code: second as i32,
                    address: third,
                }),
                (None, _) => return Err(Error::other("the child ended without a word")),
            })
        }
    }
}

/// Waits for a child, and answers the signal that killed it, if one did.
fn wait(child: libc::pid_t) -> Result<Option<i32>> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes the status to where it is told, a variable of ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            return Ok(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)));
        }
        let error = Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// Has this process note the signals of a fault, and end.
fn catch_faults() {
    for signal in [
        libc::SIGBUS,
        libc::SIGSEGV,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGFPE,
    ] {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls nothing but _exit.
        unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
    }
}

extern "C" fn caught(signal: libc::c_int, information: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid structure to a SA_SIGINFO handler, and nobody else has it.
    let information = unsafe { &*information };
    // SAFETY: a fault's signal has an address.
    let address = unsafe { information.si_addr() } as u64;
    // SAFETY: the pointer was set before the handler was installed, and the note is never unmapped in the child.
    if let Some(note) = unsafe { NOTE.load(Ordering::Relaxed).as_ref() } {
        note.write(CAUGHT, [signal as u64, information.si_code as u64, address]);
    }
    // SAFETY: _exit may be called in a handler.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{self, Size};

    #[test]
    fn an_answer_comes_back() {
        assert_eq!(
            in_child(|| [7, u64::MAX]).unwrap(),
            Ended::Answered([7, u64::MAX])
        );
    }

    #[test]
    fn a_bad_load_is_caught_and_told() {
        let address = 0xfff;
        let load = || {
            // SAFETY: nothing is mapped there, which is the point: the child dies of it.
            let value = unsafe { machine::load(std::ptr::without_provenance(address), Size::Byte) };
            [value, 0]
        };
        let fault = Fault {
            signal: libc::SIGSEGV,
            code: 1,
            address: address as u64,
        };
        assert_eq!(in_child(load).unwrap(), Ended::Caught(fault));
    }

    #[test]
    fn a_kill_is_told() {
        let kill = || {
            // SAFETY: the child kills itself.
            let result = unsafe { libc::raise(libc::SIGKILL) };
            [result as u64, 0]
        };
        assert_eq!(in_child(kill).unwrap(), Ended::Killed(libc::SIGKILL));
    }
}
