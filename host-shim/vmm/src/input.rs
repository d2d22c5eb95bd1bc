//! What is typed for the guest.
#![expect(
    unsafe_code,
    reason = "asking whether there is something to read takes a system call"
)]

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, stdin},
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};
use vmm_sys_util::terminal::Terminal as _;

/// A source of bytes, which is read only when there is something to read.
#[derive(Debug)]
pub struct Input {
    file: Option<File>,
    raw: bool,
}

impl Input {
    /// Standard input. A terminal hands over each key as it is typed, until this value is dropped.
    ///
    /// # Errors
    /// If it cannot be opened a second time.
    pub fn standard() -> io::Result<Self> {
        let raw = stdin().is_terminal() && stdin().lock().set_raw_mode().is_ok();
        Ok(Self {
            file: Some(stdin().as_fd().try_clone_to_owned()?.into()),
            raw,
        })
    }

    /// The file, pipe or device `file`.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file: Some(file),
            raw: false,
        }
    }

    /// Nothing is ever typed.
    #[must_use]
    pub fn none() -> Self {
        Self {
            file: None,
            raw: false,
        }
    }

    /// The descriptor that becomes readable when something is typed, unless nothing more can come.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.as_raw_fd())
    }

    /// At most `limit` bytes that have been typed; none if nothing has.
    pub fn take(&mut self, limit: usize) -> Vec<u8> {
        let mut bytes = vec![0; limit];
        let ready = self.file.as_ref().is_some_and(is_readable);
        let length = match &mut self.file {
            Some(file) if ready && limit > 0 => file.read(&mut bytes).unwrap_or(0),
            _ => 0,
        };
        if ready && limit > 0 && length == 0 {
            // Its end.
            self.file = None;
        }
        bytes.truncate(length);
        bytes
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if self.raw {
            // The terminal is the user's; if it is gone there is nothing to restore.
            let _ = stdin().lock().set_canon_mode();
        }
    }
}

fn is_readable(file: &File) -> bool {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure is passed, and its number is 1.
    let found = unsafe { libc::poll(&raw mut poll, 1, 0) };
    found == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write as _, pipe};

    #[test]
    fn only_what_was_typed_is_read() {
        let (reader, mut writer) = pipe().unwrap();
        let mut input = Input::new(std::os::fd::OwnedFd::from(reader).into());
        assert!(input.take(8).is_empty());
        writer.write_all(b"abc").unwrap();
        assert_eq!(input.take(2), b"ab");
        assert!(input.take(0).is_empty());
        assert_eq!(input.take(2), b"c");
        assert!(input.take(2).is_empty() && input.descriptor().is_some());
        drop(writer);
        assert!(input.take(2).is_empty() && input.descriptor().is_none());
        assert!(Input::none().take(2).is_empty());
    }
}
