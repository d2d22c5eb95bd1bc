//! Which CPU the tool runs on.
#![expect(unsafe_code, reason = "a system call that takes a pointer")]

use std::io::{Error, ErrorKind, Result};

/// Moves this process, and the children that it will have, to one CPU.
///
/// # Errors
/// If there is no such CPU, or it is offline.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(Error::from(ErrorKind::InvalidInput));
    }
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is smaller than the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set has the size that is given.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}
