//! Initramfs archives in the newc format (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! [`Archive`] writes an archive; [`for_script`] makes the one that runs a script in a Linux host. The first
//! program there is `init.sh` of this directory, under busybox; `functions.sh` is there for scripts to source.
//! [`for_guest`] makes a guest's, whose first program is `guest.sh`.

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the first program lies in the archive that [`for_script`] makes. It is not called `/init`, so that it
/// can be laid over another archive which has one.
pub const INIT: &str = "/freehold-init";

/// The kernel parameter that hands the first program the word it must sign its verdict with.
pub const NONCE_PARAMETER: &str = "freehold.nonce";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
const SYMBOLIC_LINK: u32 = 0o120_777;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. The directories above it must have been added.
    ///
    /// # Errors
    /// If the archive grows too large for its format.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(Builder::new(path).mode(DIRECTORY).nlink(2), &[])
    }

    /// Adds a file that can be run.
    ///
    /// # Errors
    /// If it is too large for the format (4 GiB).
    pub fn program(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        self.entry(Builder::new(path).mode(PROGRAM).nlink(1), contents)
    }

    /// Adds a copy of a file, which can be run.
    ///
    /// # Errors
    /// If it cannot be read or is too large for the format (4 GiB).
    pub fn copy(&mut self, path: &str, file: &Path) -> Result<()> {
        let contents = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.program(path, &contents)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// If the archive grows too large for its format.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(Builder::new(path).mode(SYMBOLIC_LINK).nlink(1), target.as_bytes())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// If the archive grows too large for its format.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        let builder = Builder::new(path).mode(CHARACTER_DEVICE).nlink(1);
        self.entry(builder.rdev_major(major).rdev_minor(minor), &[])
    }

    /// The whole archive.
    ///
    /// # Errors
    /// If the end cannot be written.
    pub fn finish(self) -> Result<Vec<u8>> {
        let mut bytes = trailer(self.bytes).context("cannot end the archive")?;
        // The kernel takes further archives behind this one if they begin at a multiple of four.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes)
    }

    fn entry(&mut self, builder: Builder, contents: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let size = u32::try_from(contents.len()).context("a file is too large for an initramfs")?;
        self.entries += 1;
        let mut writer = builder
            .ino(self.entries)
            .write(std::mem::take(&mut self.bytes), size);
        writer.write_all(contents).context("cannot add to the archive")?;
        self.bytes = writer.finish().context("cannot add to the archive")?;
        Ok(())
    }
}

/// What goes into the initramfs of a Linux host.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// A static busybox for arm64.
    pub busybox: &'a Path,
    /// The probe program, `/freehold-probe`.
    pub probe: &'a Path,
    /// The probe's module, if there is one for the kernel.
    pub module: Option<&'a Path>,
    /// Further files, each by its path in the archive, such as `payload-kvm`. All of them can be run.
    pub files: &'a [(String, PathBuf)],
    /// The shell script that is the machine's work.
    pub script: &'a str,
}

/// An archive whose first program, [`INIT`], runs a script and prints its verdict.
///
/// # Errors
/// If a file cannot be read.
pub fn for_script(contents: Contents<'_>) -> Result<Vec<u8>> {
    let mut archive = base(contents.busybox)?;
    archive.copy("freehold-probe", contents.probe)?;
    if let Some(module) = contents.module {
        archive.copy("freehold-probe.ko", module)?;
    }
    for (path, file) in contents.files {
        archive.copy(path, file)?;
    }
    archive.program("freehold-functions", include_bytes!("initramfs/functions.sh"))?;
    archive.program("freehold-script", contents.script.as_bytes())?;
    archive.program(INIT.trim_start_matches('/'), include_bytes!("initramfs/init.sh"))?;
    archive.finish()
}

/// An archive for a guest, whose first program runs a script, prints `freehold-guest exit <status>` and powers off.
///
/// # Errors
/// If `busybox` cannot be read.
pub fn for_guest(busybox: &Path, script: &str) -> Result<Vec<u8>> {
    let mut archive = base(busybox)?;
    archive.program("guest-script", script.as_bytes())?;
    archive.program("init", include_bytes!("initramfs/guest.sh"))?;
    archive.finish()
}

/// The archive that all others begin with: directories, and busybox.
fn base(busybox: &Path) -> Result<Archive> {
    let mut archive = Archive::new();
    for directory in ["bin", "dev", "proc", "sys", "tmp", "etc", "root"] {
        archive.directory(directory)?;
    }
    // The kernel opens it for the first program before anything is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.copy("bin/busybox", busybox)?;
    archive.link("bin/sh", "busybox")?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read as _;

    #[test]
    fn an_archive_reads_back() {
        let mut archive = Archive::new();
        archive.directory("dev").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        archive.program("run", b"#!/bin/sh\n1").unwrap();
        archive.link("sh", "run").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut contents = String::new();
            reader.read_to_string(&mut contents).unwrap();
            let entry = reader.entry();
            seen.push((
                entry.name().to_owned(),
                entry.mode(),
                entry.rdev_major(),
                contents,
            ));
            rest = reader.finish().unwrap();
        }
        let row =
            |name: &str, mode, major, contents: &str| (name.to_owned(), mode, major, contents.to_owned());
        assert_eq!(
            seen,
            [
                row("dev", DIRECTORY, 0, ""),
                row("dev/console", CHARACTER_DEVICE, 5, ""),
                row("run", PROGRAM, 0, "#!/bin/sh\n1"),
                row("sh", SYMBOLIC_LINK, 0, "run"),
            ]
        );
    }
}
