//! What Freehold adds to the boot of a whole Linux: instructions from reset to init's first one.
//!
//! The same Debian kernel, ramdisk and command line, at the same addresses, on the same machine (`cortex-a72`, one
//! CPU, 1 GiB), once as Freehold's host and once with `virtualization=off`. Nothing in them is random (`nokaslr`, no
//! seeds in the tree, a fixed clock), so each boot repeats to the last instruction.

use super::{Twice, boot};
use crate::{
    debian::Suite,
    linux::Linux,
    machine::{Boot, Machine, Run, layout},
    plugin::{Counts, Mode, Named, Options, Plugin, Report, Span},
    verdict,
    workspace::Scratch,
};
use anyhow::{Context as _, Result, ensure};
use dtoolkit::{Node as _, Property as _, fdt::Fdt};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// How long a boot may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What init signs with. It is on the kernel's command line, so it must not differ from boot to boot.
const NONCE: &str = "0000000000000000";

/// How much longer the boot may become.
const MOST: f64 = 1.02;

/// Instructions from reset to init's first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BootRatio {
    /// With Freehold below, all levels together.
    pub freehold: u64,
    /// Without.
    pub bare: u64,
    /// What EL2 executes of the first.
    pub el2: u64,
}

impl BootRatio {
    /// How much longer the boot is with Freehold.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.freehold as f64 / self.bare as f64
    }

    /// EL2's share of the boot.
    #[must_use]
    pub fn el2_share(&self) -> f64 {
        self.el2 as f64 / self.freehold as f64
    }

    /// Whether the boot is at most 2 % longer.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.ratio() <= MOST
    }
}

/// Boots Debian 6.1 with and without Freehold, once each.
///
/// # Errors
/// If something cannot be fetched or built, or a boot proves nothing.
pub fn boot_ratio() -> Result<BootRatio> {
    let plugin = Plugin::build()?;
    Ok(ratio(&count(true, &plugin)?.0, &count(false, &plugin)?.0))
}

/// Does the same with every boot repeated.
///
/// # Errors
/// As [`boot_ratio`].
pub fn measure(twice: &mut Twice) -> Result<BootRatio> {
    let plugin = Plugin::build()?;
    let freehold = twice.run("Debian's boot with Freehold", || count(true, &plugin))?;
    let bare = twice.run("Debian's boot without", || count(false, &plugin))?;
    Ok(ratio(&freehold, &bare))
}

fn ratio(freehold: &Counts, bare: &Counts) -> BootRatio {
    BootRatio {
        freehold: freehold.values().sum(),
        bare: bare.values().sum(),
        el2: freehold.get("el2").copied().unwrap_or_default(),
    }
}

fn count(with_freehold: bool, plugin: &Plugin) -> Result<(Counts, String)> {
    let scratch = Scratch::new()?;
    let linux = Linux {
        smp: 1,
        parameters: "nokaslr".to_owned(),
        limit: LIMIT,
        ..Linux::new(Suite::bookworm(), "true\n")
    };
    let (mut machine, hypervisor) = linux.machine(&scratch, NONCE)?;
    machine.icount = true;
    let file = scratch.path().join("counts.json");
    let mut options = Options::new(Mode::Count, &file);
    options.user = true;
    if with_freehold {
        let hypervisor = hypervisor.as_ref().context("Freehold takes part")?;
        options.ranges.push(boot::el2(&hypervisor.elf)?);
    } else {
        machine = without_freehold(machine)?;
    }
    // After EL2's: the first range that fits counts. All RAM is named, so that no code of the kernel's that runs
    // where it was loaded is taken for user space's.
    options.ranges.push(Named {
        name: "physical".to_owned(),
        at: Span {
            start: layout::RAM,
            end: layout::RAM + machine.memory.bytes(),
        },
    });
    plugin.attach(&mut machine, &options)?;
    let run = machine.run(LIMIT, |_| ())?;
    judge(&run, hypervisor.as_ref().map(|image| image.elf.as_path()))?;
    let counts = Report::read(&file)?.between(None, "user", 0)?;
    Ok((counts, run.command))
}

fn judge(run: &Run, elf: Option<&Path>) -> Result<()> {
    let status = verdict::init::judge(run, NONCE);
    ensure!(
        status == Ok(0),
        "Debian did not come through: {status:?}\n{}",
        run.report(elf)
    );
    Ok(())
}

/// The same host on the same machine without EL2, everything where it was.
fn without_freehold(mut machine: Machine) -> Result<Machine> {
    let host = machine.host.take().context("Freehold's machine has a host")?;
    let initrd = host.initrd.clone().context("Debian has a ramdisk")?;
    let placement = layout::place(&machine, &host)?;
    let size = std::fs::metadata(&initrd)
        .with_context(|| format!("cannot read {}", initrd.display()))?
        .len();
    machine.virtualization = false;
    // QEMU writes command line and ramdisk into the tree of a kernel that it boots itself.
    let mut donor = machine.clone();
    donor.extra.extend(["-kernel".into(), host.image.clone().into()]);
    donor.extra.extend(["-initrd".into(), initrd.clone().into()]);
    donor.extra.extend(["-append".into(), host.arguments.into()]);
    let mut tree = donor.device_tree()?;
    move_ramdisk(&mut tree, placement.initrd, placement.initrd + size)?;
    machine.boot = Boot::Placed {
        image: host.image,
        address: placement.kernel,
        tree,
    };
    let file = initrd.to_str().context("a path is not UTF-8")?.replace(',', ",,");
    machine.extra.push("-device".into());
    machine
        .extra
        .push(format!("loader,force-raw=on,addr={:#x},file={file}", placement.initrd).into());
    Ok(machine)
}

/// Writes over where a device tree says that the ramdisk is.
fn move_ramdisk(tree: &mut [u8], start: u64, end: u64) -> Result<()> {
    for (name, address) in [("linux,initrd-start", start), ("linux,initrd-end", end)] {
        let (at, length) = {
            let fdt = Fdt::new(tree).ok().context("QEMU's device tree cannot be read")?;
            let chosen = fdt.find_node("/chosen").context("the tree has no /chosen")?;
            let property = chosen
                .property(name)
                .with_context(|| format!("the tree has no {name}"))?;
            let value = property.value();
            (value.as_ptr().addr() - tree.as_ptr().addr(), value.len())
        };
        let bytes = address.to_be_bytes();
        ensure!(
            length == 8 || length == 4 && address < 1 << 32,
            "{name} has {length} bytes, too few for {address:#x}"
        );
        tree[at..at + length].copy_from_slice(&bytes[8 - length..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_are_allowed_and_no_more() {
        let ratio = |freehold| BootRatio {
            freehold,
            bare: 1000,
            el2: 5,
        };
        assert!(ratio(1020).is_good());
        assert!(!ratio(1021).is_good());
        assert!(ratio(990).is_good());
    }
}
