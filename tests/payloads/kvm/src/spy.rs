//! Reads the guest memory of another process that runs, such as a VMM, in one way or another.

use crate::device::{Fd, Mapping};
use crate::process::{Ended, apart};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::fd::AsRawFd as _;

/// Bytes in a page.
const PAGE: u64 = 4096;
/// Pages that are touched at a time that may be the last of whoever touches.
const TOUCHED: u64 = 256;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Pages that could not be read.
    pub(crate) refused: u64,
    /// Those that could: they are lent.
    pub(crate) read: u64,
    /// Those of them that begin with the word.
    pub(crate) secret: u64,
}

/// Looks for pages that begin with `word` in a file of guest memory. By loads (`load`), each in a process that a SIGBUS may
/// end, from some pages all over it; or from all of them by write(2), whose errors must be EFAULT.
pub(crate) fn look(way: &str, file: &Fd, word: &[u8]) -> Result<Found> {
    let size = file.file().metadata()?.len();
    let mapping = Mapping::of(file, 0, size).map_err(|error| Error::from_raw_os_error(error.0))?;
    let pages = size / PAGE;
    let mut found = Found::default();
    match way {
        "load" => {
            for part in 0..TOUCHED {
                let offset = pages * part / TOUCHED * PAGE;
                match apart(|| _ = mapping.read::<u64>(offset))? {
                    Ended::Killed(libc::SIGBUS) => found.refused += 1,
                    Ended::Exited(0) => found.saw(mapping.read::<[u8; 16]>(offset), word),
                    ended => return Err(Error::other(format!("the reader ended otherwise: {ended:?}"))),
                }
            }
        }
        "write" => {
            let (mut reader, writer) = std::io::pipe()?;
            for offset in (0..pages).map(|page| page * PAGE) {
                match mapping.write_to(writer.as_raw_fd(), offset, 16) {
                    Ok(16) => {
                        let mut bytes = [0; 16];
                        reader.read_exact(&mut bytes)?;
                        found.saw(bytes, word);
                    }
                    Err(error) if error.0 == libc::EFAULT => found.refused += 1,
                    other => return Err(Error::other(format!("write(2) ended otherwise: {other:?}"))),
                }
            }
        }
        _ => return Err(Error::new(ErrorKind::InvalidInput, "there is no such way")),
    }
    Ok(found)
}

impl Found {
    fn saw(&mut self, bytes: [u8; 16], word: &[u8]) {
        self.read += 1;
        self.secret += u64::from(bytes.starts_with(word));
    }
}
