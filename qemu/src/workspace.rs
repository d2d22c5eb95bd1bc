//! Where things lie: the checkout, cargo's target directory and what the runner keeps in it.

use anyhow::{Context as _, Result};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

/// The root of the checkout that this runner was built from.
#[must_use]
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Cargo's target directory: `CARGO_TARGET_DIR` if it is set, otherwise `target` in the checkout.
#[must_use]
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) if !directory.is_empty() => root().join(directory),
        _ => root().join("target"),
    }
}

/// A directory below [`target`], made if it is missing.
///
/// # Errors
/// If it cannot be made.
pub fn target_directory(name: &str) -> Result<PathBuf> {
    let directory = target().join(name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// A lock between processes. It is held until the value is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock that the file at `path` stands for. The file is made if it is missing, and stays.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn acquire(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the lock file {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// After this time nobody looks at what a run left behind.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory for the files of one run, removed when the value is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Makes a directory with a name that no other run has.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self> {
        let all = target_directory("run")?;
        remove_stale(&all);
        let path = all.join(format!("{}-{:016x}", std::process::id(), unique_number()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    /// Leaves the directory where it is, so that a failed run can be repeated by its command line.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing depends on it: a directory that stays costs only space.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what earlier runs left behind: failed ones on purpose, killed ones because they could not help it.
fn remove_stale(all: &Path) {
    let is_stale = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        modified
            .ok()
            .and_then(|time| time.elapsed().ok())
            .is_some_and(|age| age > STALE)
    };
    let Ok(entries) = fs::read_dir(all) else { return };
    for entry in entries.filter_map(Result::ok).filter(is_stale) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// A number that another call, in this process or another, is not expected to give again.
#[must_use]
pub fn unique_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // The standard library seeds every `RandomState` from the system's random numbers.
    RandomState::new().hash_one(std::process::id())
}

/// Writes `contents` to `path` so that no reader ever sees half of it, and leaves a file alone that already
/// says the same.
///
/// # Errors
/// If the file cannot be written.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    let temporary = path.with_added_extension(format!("{:016x}", unique_number()));
    fs::write(&temporary, contents).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_lives_as_long_as_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_replaced_only_when_it_changes() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.path().join("file");
        write_whole(&file, b"one").unwrap();
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        write_whole(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
        write_whole(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            1,
            "a temporary file stayed behind"
        );
    }

    #[test]
    fn a_lock_keeps_a_second_owner_out() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().join("lock");
        let lock = Lock::acquire(&path).unwrap();
        let second = File::open(&path).unwrap();
        assert!(second.try_lock().is_err());
        drop(lock);
        assert!(second.try_lock().is_ok());
    }
}
