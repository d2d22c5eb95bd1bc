//! A disk (section 5.2 of the specification), which a file holds.

use super::{
    Device, id,
    queue::{Broken, Chain, Queues},
};
use anyhow::{Context as _, Result};
use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

const SECTOR: u64 = 512;

/// Feature bits: limits of a segment's size and of the number of segments, read-only, flush.
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;

/// A request of this many segments of that size is well within what a chain may have.
const SEGMENTS: u32 = 16;
const SEGMENT_SIZE: u32 = 64 << 10;

/// Request types.
mod request {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
}

/// What a request ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// How long the name is that [`request::GET_ID`] asks for.
const ID_LENGTH: usize = 20;

/// The header before the data: type, priority, sector.
const HEADER: usize = 16;

/// A disk.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    read: u64,
    written: u64,
    flushed: u64,
    failed: u64,
}

impl Block {
    /// The disk that the file at `path` holds, in whole sectors of 512 bytes.
    ///
    /// # Errors
    /// If the file cannot be opened, for writing too unless `read_only`.
    pub fn open(path: &Path, read_only: bool) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .with_context(|| format!("cannot open the disk {}", path.display()))?;
        Self::new(file, read_only).with_context(|| format!("cannot use {} as a disk", path.display()))
    }

    /// The disk that `file` holds.
    ///
    /// # Errors
    /// If its size cannot be told.
    pub fn new(file: File, read_only: bool) -> Result<Self> {
        use std::io::{Seek as _, SeekFrom};
        // A block device has no length in its metadata.
        let size = (&file).seek(SeekFrom::End(0)).context("it has no size")?;
        Ok(Self {
            file,
            sectors: size / SECTOR,
            read_only,
            read: 0,
            written: 0,
            flushed: 0,
            failed: 0,
        })
    }

    /// Serves a request; returns how many bytes of the chain are written.
    fn serve(&mut self, queues: &Queues<'_>, chain: &Chain) -> Result<usize, Broken> {
        // The last byte is for the status.
        let Some(room) = chain.writable().checked_sub(1) else {
            return Err(Broken::Chain);
        };
        let (status, answer) = match queues.read(chain) {
            Ok(asked) => self.answer(&asked, room),
            Err(_) => (Status::IoError, Vec::new()),
        };
        let mut status = status;
        let written = match queues.write(chain, 0, &answer) {
            Ok(written) => written,
            Err(_) => {
                status = Status::IoError;
                0
            }
        };
        if status != Status::Ok {
            self.failed += 1;
        }
        // Without a place for its status a request can have no end.
        queues.write(chain, room, &[status as u8])?;
        Ok(if written == room { room + 1 } else { written })
    }

    fn answer(&mut self, asked: &[u8], room: usize) -> (Status, Vec<u8>) {
        let Some((header, data)) = asked.split_first_chunk::<HEADER>() else {
            return (Status::IoError, Vec::new());
        };
        let (kind, _, sector) = split(header);
        let done = match kind {
            request::IN => self.read(sector, room),
            request::OUT => self.write(sector, data).map(|()| Vec::new()),
            request::FLUSH => self.file.sync_data().ok().map(|()| {
                self.flushed += 1;
                Vec::new()
            }),
            request::GET_ID => {
                let mut name = b"freehold".to_vec();
                name.resize(ID_LENGTH.min(room), 0);
                Some(name)
            }
            _ => return (Status::Unsupported, Vec::new()),
        };
        match done {
            Some(answer) => (Status::Ok, answer),
            None => (Status::IoError, Vec::new()),
        }
    }

    fn read(&mut self, sector: u64, length: usize) -> Option<Vec<u8>> {
        let offset = self.range(sector, length)?;
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, offset).ok()?;
        self.read += 1;
        Some(data)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Option<()> {
        if self.read_only {
            return None;
        }
        let offset = self.range(sector, data.len())?;
        self.file.write_all_at(data, offset).ok()?;
        self.written += 1;
        Some(())
    }

    /// Where in the file `length` bytes at `sector` lie, if they are whole sectors of the disk.
    fn range(&self, sector: u64, length: usize) -> Option<u64> {
        let length = length as u64;
        let end = sector.checked_add(length / SECTOR)?;
        (length.is_multiple_of(SECTOR) && end <= self.sectors).then(|| sector * SECTOR)
    }
}

fn split(header: &[u8; HEADER]) -> (u32, u32, u64) {
    let [a, b, c, d, e, f, g, h, sector @ ..] = *header;
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
        u64::from_le_bytes(sector),
    )
}

impl Device for Block {
    fn id(&self) -> u32 {
        id::BLOCK
    }

    fn features(&self) -> u64 {
        SIZE_MAX | SEG_MAX | FLUSH | if self.read_only { READ_ONLY } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[128]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.sectors.to_le_bytes().to_vec();
        config.extend(SEGMENT_SIZE.to_le_bytes());
        config.extend(SEGMENTS.to_le_bytes());
        config
    }

    fn notified(&mut self, index: usize, queues: &mut Queues<'_>) -> Result<(), Broken> {
        while let Some(chain) = queues.next(index)? {
            let written = self.serve(queues, &chain)?;
            queues.complete(index, chain, written)?;
        }
        Ok(())
    }

    fn report(&self) -> String {
        format!(
            "disk reads={} writes={} flushes={} failures={}",
            self.read, self.written, self.flushed, self.failed
        )
    }
}

#[cfg(test)]
mod tests;
