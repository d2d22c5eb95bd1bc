//! A tap interface of the system's (Linux, Documentation/networking/tuntap.rst), which takes the right to use it.
#![expect(unsafe_code, reason = "attaching to an interface takes an ioctl")]

use super::{MAX_FRAME, Wire};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
};

/// A tap interface.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Attaches to the interface `name`, which is made if it is not there.
    ///
    /// # Errors
    /// If there can be no such interface, or it is not ours to use.
    pub fn open(name: &str) -> Result<Self> {
        ensure!(
            !name.is_empty() && name.len() < libc::IFNAMSIZ && !name.contains('\0'),
            "`{name}` is no name of an interface"
        );
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun")?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
            },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the request is whole, and the kernel writes no more than it.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot use the interface {name}"));
        }
        Ok(Self(file))
    }
}

impl Wire for Tap {
    fn send(&mut self, frame: &[u8]) {
        // A frame that the interface does not take is lost, as frames are.
        let _ = self.0.write(frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; MAX_FRAME];
        let length = self.0.read(&mut frame).ok().filter(|&length| length > 0)?;
        frame.truncate(length);
        Some(frame)
    }

    fn source(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}
