//! A Linux kernel as Freehold's host, with a script as its work.
//!
//! [`Linux`] says what to boot; [`Linux::run`] builds or fetches what that takes, boots it and judges the script's
//! status by [`verdict::init`]. The same kernel boots without Freehold too ([`Linux::freehold`]), to compare.

use crate::{
    debian::Suite,
    images::{self, initramfs},
    machine::{Boot, Host, Machine, Memory, Run},
    verdict, workspace,
    workspace::Scratch,
};
use anyhow::{Context as _, Result, anyhow};
use std::{fs, path::PathBuf, time::Duration};

/// What to boot, and on what machine.
#[derive(Clone, Debug)]
pub struct Linux {
    /// The machine's CPU model.
    pub cpu: String,
    /// Its number of CPUs.
    pub smp: u32,
    /// Its RAM.
    pub memory: Memory,
    /// Where the kernel comes from, and busybox in any case.
    pub suite: Suite,
    /// Another arm64 Image instead of the suite's kernel.
    pub kernel: Option<PathBuf>,
    /// The probe's module for it; the suite's kernel gets one that is built for it.
    pub module: Option<PathBuf>,
    /// Further files of the host's, each by its path in the root directory.
    pub files: Vec<(String, PathBuf)>,
    /// An archive that is unpacked before ours.
    pub initrd: Option<PathBuf>,
    /// The shell script that is the host's work.
    pub script: String,
    /// Whether Freehold runs below. Without it the machine has no EL2 at all.
    pub freehold: bool,
    /// Further kernel parameters.
    pub parameters: String,
    /// How long the machine may run.
    pub limit: Duration,
}

/// A Linux host that is ready to boot.
#[derive(Debug)]
pub struct Prepared {
    /// The machine. Whoever changes it leaves the host's kernel and ramdisk in place.
    pub machine: Machine,
    /// Freehold's image, if it takes part.
    pub hypervisor: Option<images::Image>,
    scratch: Scratch,
    nonce: String,
}

/// What came of a boot that can be believed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The script's exit status.
    pub status: u8,
    /// The console without the status line, and the rest.
    pub run: Run,
}

impl Linux {
    /// The current kernel of `suite` under Freehold, on two `cortex-a72` with 1 GiB, to run `script`.
    #[must_use]
    pub fn new(suite: Suite, script: impl Into<String>) -> Self {
        Self {
            cpu: "cortex-a72".to_owned(),
            smp: 2,
            memory: Memory::gib(1),
            suite,
            kernel: None,
            module: None,
            files: Vec::new(),
            initrd: None,
            script: script.into(),
            freehold: true,
            parameters: String::new(),
            limit: Duration::from_secs(300),
        }
    }

    /// Boots it and waits for the script's end. Each console line but the status line is handed to `on_line` as it
    /// comes.
    ///
    /// # Errors
    /// If something cannot be fetched or built, or the run proves nothing: then the error holds its report.
    pub fn run(&self, on_line: impl FnMut(&str)) -> Result<Outcome> {
        self.prepare()?.run(self.limit, on_line)
    }

    /// Fetches and builds everything and puts the machine together, so that it can still be changed.
    ///
    /// # Errors
    /// If something cannot be fetched or built.
    pub fn prepare(&self) -> Result<Prepared> {
        let scratch = Scratch::new()?;
        let nonce = format!("{:016x}", workspace::unique_number());
        let (machine, hypervisor) = self.machine(&scratch, &nonce)?;
        Ok(Prepared {
            machine,
            hypervisor,
            scratch,
            nonce,
        })
    }

    /// The machine, with every image in place, and Freehold's image if it takes part. Files that only this machine
    /// needs go to `scratch`; its first program signs with `nonce`.
    ///
    /// # Errors
    /// If something cannot be fetched or built.
    pub fn machine(&self, scratch: &Scratch, nonce: &str) -> Result<(Machine, Option<images::Image>)> {
        let packages = self.suite.fetch()?;
        let probe = images::probe()?;
        let module = match (&self.kernel, &self.module) {
            (_, Some(module)) => Some(module.clone()),
            (None, None) => Some(images::probe_module(&packages)?),
            // A module fits one kernel; of this one we know nothing.
            (Some(_), None) => None,
        };
        let contents = initramfs::Contents {
            busybox: &packages.busybox,
            probe: &probe,
            module: module.as_deref(),
            files: &self.files,
            script: &self.script,
        };
        // The kernel unpacks one archive after the other: ours last, so that it finds its own files.
        let mut archive = match &self.initrd {
            Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => Vec::new(),
        };
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(initramfs::for_script(contents)?);
        let initrd = scratch.path().join("initramfs.cpio");
        fs::write(&initrd, archive).with_context(|| format!("cannot write {}", initrd.display()))?;

        let kernel = self.kernel.clone().unwrap_or(packages.kernel);
        let arguments = self.arguments(nonce);
        let hypervisor = if self.freehold {
            Some(images::hypervisor()?)
        } else {
            None
        };
        let mut machine = Machine::new(kernel.clone());
        machine.cpu.clone_from(&self.cpu);
        machine.smp = self.smp;
        machine.memory = self.memory;
        machine.virtualization = self.freehold;
        match &hypervisor {
            Some(image) => {
                machine.boot = Boot::Kernel {
                    image: image.flat.clone(),
                    initrd: None,
                    arguments: None,
                };
                machine.host = Some(Host {
                    image: kernel,
                    initrd: Some(initrd),
                    arguments,
                });
            }
            None => {
                machine.boot = Boot::Kernel {
                    image: kernel,
                    initrd: Some(initrd),
                    arguments: Some(arguments),
                };
            }
        }
        Ok((machine, hypervisor))
    }

    /// The kernel's command line.
    fn arguments(&self, nonce: &str) -> String {
        let mut words = vec![
            "console=ttyAMA0".to_owned(),
            // Errors and worse; an oops raises the level to everything by itself. A panic ends the machine.
            "loglevel=4 panic=-1".to_owned(),
            format!(
                "rdinit={} {}={nonce}",
                initramfs::INIT,
                initramfs::NONCE_PARAMETER
            ),
        ];
        words.extend((!self.parameters.is_empty()).then(|| self.parameters.clone()));
        words.join(" ")
    }
}

impl Prepared {
    /// Boots it, as [`Linux::run`] does.
    ///
    /// # Errors
    /// If the run proves nothing: then the error holds its report.
    pub fn run(self, limit: Duration, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
        let mark = verdict::init::mark(&self.nonce);
        let mut run = self.machine.run(limit, |line| {
            if !line.starts_with(&mark) {
                on_line(line);
            }
        })?;
        match verdict::init::judge(&run, &self.nonce) {
            Ok(status) => {
                run.console.retain(|line| !line.starts_with(&mark));
                Ok(Outcome { status, run })
            }
            Err(why) => {
                self.scratch.keep();
                let elf = self.hypervisor.as_ref().map(|image| image.elf.as_path());
                Err(anyhow!("{why}\n{}", run.report(elf)))
            }
        }
    }
}
