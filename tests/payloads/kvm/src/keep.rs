//! Has files of guest memory when nothing else of the guest is left, its own or those of another process, and what
//! becomes of them.
#![expect(
    unsafe_code,
    reason = "descriptors of other processes come by system calls of numbers"
)]

use crate::device::{Fd, Mapping, PROTECTED};
use crate::guest::{DATA, Do, Guest};
use crate::process::{Ended, apart};
use std::collections::BTreeSet;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// Pages that are touched in each file, all over it.
const TOUCHED: u64 = 16;

/// The file of a protected guest's memory, which the guest has used. All else of it is gone.
pub(crate) fn file_of_a_guest() -> std::result::Result<Fd, String> {
    let Guest {
        vm,
        file,
        memory,
        vcpus,
    } = Guest::new(PROTECTED, &[&[Do::Store(8, DATA, 1), Do::Report(1)]])?;
    vcpus[0].reports("the guest", 1)?;
    drop((vm, memory, vcpus));
    Ok(file)
}

/// The files of guest memory that a process has, as descriptors of our own.
pub(crate) fn files_of(process: u32) -> Result<Vec<Fd>> {
    // SAFETY: it has no pointers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let process_fd = descriptor(raw)?;
    let mut files = Vec::new();
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        let is_memory = std::fs::read_link(&path)?
            .to_string_lossy()
            .contains("[kvm-gmem]");
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<i32>().ok());
        if let Some(number) = number.filter(|_| is_memory) {
            // SAFETY: it has no pointers.
            let raw = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process_fd.as_raw_fd(), number, 0) };
            let file = Fd::from(descriptor(raw)?);
            // It may have a file more than once.
            if inodes.insert(file.file().metadata()?.ino()) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn descriptor(raw: libc::c_long) -> Result<OwnedFd> {
    if raw < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// How many of some pages of the files can be read by who maps them, and how many are looked at.
pub(crate) fn reachable(files: &[Fd]) -> Result<(u64, u64)> {
    let (mut reached, mut touched) = (0, 0);
    for file in files {
        let size = file.file().metadata()?.len();
        let mapping = Mapping::of(file, 0, size).map_err(|error| Error::from_raw_os_error(error.0))?;
        for part in 0..TOUCHED {
            touched += 1;
            let page = size / 4096 * part / TOUCHED;
            let ended = apart(|| _ = mapping.read::<u64>(page * 4096))?;
            reached += u64::from(ended == Ended::Exited(0));
        }
    }
    Ok((reached, touched))
}
