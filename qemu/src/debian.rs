//! Debian's arm64 kernels as the host: the kernel, the headers that modules are built with, and busybox.
//!
//! [`Suite::fetch`] takes the current packages of a suite from the mirror that the system's own apt uses, through
//! an apt root of its own (see [`apt`]), and unpacks them into `target/debian/<suite>`. No version is written down
//! anywhere: apt says which kernel a suite has today. Once there, a suite stays until its directory is removed.

mod apt;
mod sources;

use crate::{
    process,
    progress::Step,
    workspace::{self, Lock},
};
use anyhow::{Context as _, Result, bail};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

/// A suite of Debian that has a kernel, such as `bookworm` or `bookworm-backports`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suite {
    name: String,
}

impl Suite {
    /// Debian 12, with its security updates: Linux 6.1.
    #[must_use]
    pub fn bookworm() -> Self {
        Self {
            name: "bookworm".to_owned(),
        }
    }

    /// The backports for Debian 12: Linux 6.12.
    #[must_use]
    pub fn bookworm_backports() -> Self {
        Self {
            name: "bookworm-backports".to_owned(),
        }
    }

    /// The name, as a mirror knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The release that the suite belongs to: its name without `-backports`.
    #[must_use]
    pub fn release(&self) -> &str {
        self.name.strip_suffix("-backports").unwrap_or(&self.name)
    }

    fn is_backports(&self) -> bool {
        self.release() != self.name
    }

    /// The suite's packages, from the cache or else from the mirror.
    ///
    /// # Errors
    /// If the mirror cannot be told or reached, or a package lacks what is expected in it.
    pub fn fetch(&self) -> Result<Packages> {
        let cache = workspace::target_directory("debian")?;
        let root = cache.join(&self.name);
        let _lock =
            Lock::acquire(&workspace::target_directory("locks")?.join(format!("debian-{}", self.name)))?;
        if !root.is_dir() {
            // Unpacked elsewhere and renamed when whole: what an interrupted run leaves is never mistaken for a
            // suite, and goes when the next one begins.
            let partial = cache.join(format!("{}.partial", self.name));
            if partial.exists() {
                fs::remove_dir_all(&partial)
                    .with_context(|| format!("cannot remove {}", partial.display()))?;
            }
            let mut step = Step::announced(format!("Fetching the kernel of Debian {}", self.name));
            let unpacked = self
                .download(&mut step, &partial)
                .with_context(|| format!("cannot fetch Debian {self}"))?;
            make_relocatable(&Packages::find(self, &unpacked)?.headers)?;
            fs::rename(&unpacked, &root).with_context(|| format!("cannot make {}", root.display()))?;
            // The lists and archives are of no more use.
            let _ = fs::remove_dir_all(&partial);
            step.done();
        }
        Packages::find(self, &root)
    }

    /// Downloads the sources of the suite's kernel below `directory`; returns the archive that holds them.
    pub(crate) fn kernel_source(&self, step: &mut Step, directory: &Path) -> Result<PathBuf> {
        let apt = apt::Root::new(self, &directory.join("apt"))?;
        apt.update(step)?;
        let package = apt.dependency("linux-source", "linux-source-")?;
        let archives = apt.download(step, &[package], &directory.join("archives"))?;
        let unpacked = directory.join("root");
        unpack(step, &archives, &unpacked)?;
        only_entry(&unpacked.join("usr/src"), "linux-source-")
    }

    /// Downloads and unpacks all packages below `partial`; returns the directory they were unpacked to.
    fn download(&self, step: &mut Step, partial: &Path) -> Result<PathBuf> {
        let apt = apt::Root::new(self, &partial.join("apt"))?;
        apt.update(step)?;
        // The metapackages name the current kernel; from there, dependencies lead to the rest.
        let image = apt.dependency("linux-image-cloud-arm64", "linux-image-")?;
        let headers = apt.dependency("linux-headers-cloud-arm64", "linux-headers-")?;
        let common = apt.dependency(&headers, "linux-headers-")?;
        let kbuild = apt.dependency(&headers, "linux-kbuild-")?;
        // kbuild's helpers run here, everything else in the machine.
        let kbuild = format!("{kbuild}:{}", apt::native_architecture()?);
        let wanted = [image, headers, common, kbuild, "busybox-static".to_owned()];
        let archives = apt.download(step, &wanted, &partial.join("archives"))?;
        let unpacked = partial.join("root");
        unpack(step, &archives, &unpacked)?;
        Ok(unpacked)
    }
}

/// Unpacks packages into `directory`.
fn unpack(step: &mut Step, archives: &[PathBuf], directory: &Path) -> Result<()> {
    for archive in archives {
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(archive).arg(directory);
        process::run(step, command)?;
    }
    Ok(())
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Suite {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain)
        {
            bail!("`{name}` is not the name of a suite; try `bookworm` or `bookworm-backports`");
        }
        Ok(Self {
            name: name.to_owned(),
        })
    }
}

/// The unpacked packages of a suite.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Where they came from.
    pub suite: Suite,
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// The kernel: a plain arm64 Image.
    pub kernel: PathBuf,
    /// The directory that `make -C` builds a module in.
    pub headers: PathBuf,
    /// The directory of the kernel's modules.
    pub modules: PathBuf,
    /// A static busybox for arm64.
    pub busybox: PathBuf,
}

impl Packages {
    /// Finds in the directory `root` what the packages brought.
    fn find(suite: &Suite, root: &Path) -> Result<Self> {
        let boot = root.join("boot");
        let kernel = only_entry(&boot, "vmlinuz-")?;
        let release = kernel
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"))
            .context("the kernel's name is not UTF-8")?
            .to_owned();
        let headers = root.join("usr/src").join(format!("linux-headers-{release}"));
        if !headers.is_dir() {
            bail!("there are no headers for kernel {release} in {}", root.display());
        }
        // busybox-static also brings a hook for initramfs-tools of the same name.
        let busybox = [root.join("bin/busybox"), root.join("usr/bin/busybox")]
            .into_iter()
            .find(|file| file.is_file())
            .with_context(|| format!("there is no busybox in {}", root.display()))?;
        let modules = [root.join("lib/modules"), root.join("usr/lib/modules")]
            .into_iter()
            .map(|directory| directory.join(&release))
            .find(|directory| directory.is_dir())
            .with_context(|| format!("there are no modules in {}", root.display()))?;
        Ok(Self {
            suite: suite.clone(),
            release,
            kernel,
            headers,
            modules,
            busybox,
        })
    }
}

/// Makes headers usable where they lie: the package expects to lie in `/usr/src`.
fn make_relocatable(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text =
        fs::read_to_string(&makefile).with_context(|| format!("cannot read {}", makefile.display()))?;
    // One line that includes the Makefile of the package of common headers, which lies beside this one.
    fs::write(&makefile, text.replace("include /usr/src/", "include ../"))
        .with_context(|| format!("cannot write {}", makefile.display()))?;
    // With a `vmlinux`, kbuild wants to make type information for modules, which takes a tool (pahole) and is of
    // no use here.
    let types = headers.join("vmlinux");
    if types.exists() {
        fs::remove_file(&types).with_context(|| format!("cannot remove {}", types.display()))?;
    }
    Ok(())
}

/// The one entry of `directory` whose name begins with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path());
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => bail!("there is no {prefix}* in {}", directory.display()),
        (Some(_), Some(_)) => bail!("there is more than one {prefix}* in {}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_knows_its_release() {
        assert_eq!(Suite::bookworm().release(), "bookworm");
        let backports = Suite::bookworm_backports();
        assert_eq!(
            (backports.release(), backports.is_backports()),
            ("bookworm", true)
        );
    }

    #[test]
    fn a_name_that_would_leave_the_cache_is_no_suite() {
        for name in ["", "../x", "a/b", "-x", "Bookworm", "a b"] {
            assert!(name.parse::<Suite>().is_err(), "{name}");
        }
        assert_eq!("trixie".parse::<Suite>().unwrap().name(), "trixie");
    }
}
