//! Linux with the host's module: what it does under Freehold, and that it does nothing elsewhere.

use super::{Script, Session, matrix, stack};
use anyhow::{Result, bail};
use freehold_runner::debian::{Packages, Suite};
use freehold_runner::images;
use freehold_runner::linux::Linux;
use std::{path::PathBuf, time::Duration};

/// A Linux host that finds the module built for it, and the cases for `/dev/kvm`, in its root directory.
///
/// # Errors
/// If something cannot be fetched or built.
pub fn host(suite: Suite, script: &str) -> Result<Linux> {
    let packages = suite.fetch()?;
    let mut files = vec![
        ("freehold.ko".to_owned(), images::linux_module(&packages)?),
        ("payload-kvm".to_owned(), images::payload_kvm()?),
    ];
    files.extend(swap_modules(&packages));
    Ok(Linux {
        files,
        limit: Duration::from_secs(600),
        ..Linux::new(suite, script)
    })
}

/// The kernel's own modules for swap space in memory, as they come: some are compressed, and some built in.
fn swap_modules(packages: &Packages) -> impl Iterator<Item = (String, PathBuf)> {
    const MODULES: [&str; 5] = [
        "mm/zsmalloc",
        "crypto/lzo-rle",
        "lib/lz4/lz4_compress",
        "lib/lz4/lz4hc_compress",
        "drivers/block/zram/zram",
    ];
    MODULES
        .into_iter()
        .flat_map(|name| [format!("{name}.ko"), format!("{name}.ko.xz")])
        .map(|name| packages.modules.join("kernel").join(name))
        .filter(|path| path.is_file())
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
}

/// The cases, on each of Debian's kernels.
///
/// # Errors
/// If something cannot be fetched or built.
pub fn sessions() -> Result<Vec<Session>> {
    matrix::kernels()
        .into_iter()
        .map(|(kernel, suite)| Ok(Session::new(kernel, host(suite, "")?, &[], &[Script::MODULE])))
        .collect()
}

/// Sees that no function of the module takes much of the kernel's stack.
///
/// # Errors
/// If one does, or something cannot be fetched or built.
pub fn stack(suite: &Suite) -> Result<()> {
    stack::check(&images::linux_module(&suite.fetch()?)?)
}

/// What the module says where there is no Freehold.
const REFUSAL: &str = "freehold: not loaded: there is no Freehold beneath this kernel: boot Freehold first, and this kernel as \
                       its host";

/// Tries to load it, and says in lines of their own how that ended, how many modules of its name there are then, and
/// whether there is a `/dev/kvm`.
const TRY: &str = r#"
insmod /freehold.ko
echo "status $?"
dmesg | grep 'freehold: '
awk '$1 == "freehold" { found++ } END { print "modules " found + 0 }' /proc/modules
if [ -e /dev/kvm ]; then echo "kvm 1"; else echo "kvm 0"; fi
exit 0
"#;

/// Boots a kernel without Freehold, and sees the module refused: on a machine without EL2, where there is no `/dev/kvm`
/// then, or on one whose EL2 the kernel has itself, and a `/dev/kvm` of its own.
///
/// # Errors
/// If it is not refused, or not clearly.
pub fn refuses(suite: Suite, virtualization: bool) -> Result<()> {
    let linux = Linux {
        freehold: false,
        ..host(suite, TRY)?
    };
    let mut prepared = linux.prepare()?;
    prepared.machine.virtualization = virtualization;
    let mut console = Vec::new();
    let outcome = prepared.run(linux.limit, |line| console.push(line.to_owned()))?;
    let kvm = format!("kvm {}", u8::from(virtualization));
    // The status of busybox's insmod is the error's number: ENODEV.
    let is_said = ["status 19", "modules 0", &kvm]
        .iter()
        .all(|wanted| console.iter().any(|line| line == wanted));
    // The log has the time before each line.
    let is_refused = console.iter().any(|line| line.ends_with(REFUSAL));
    let oopses = console.iter().any(|line| line.contains("Internal error:"));
    if outcome.status != 0 || !is_said || !is_refused || oopses {
        bail!("{}", outcome.run.report(None));
    }
    Ok(())
}
