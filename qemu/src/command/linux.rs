//! `freehold linux`: a Linux kernel as the host, and a script as its work.

use anyhow::{Context as _, Result};
use clap::Args;
use freehold_runner::{debian::Suite, linux::Linux, machine::Memory, setup};
use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

/// What the host does when it is given no script.
const DEFAULT_SCRIPT: &str = include_str!("linux/hello.sh");

/// Arguments of `freehold linux`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// CPU model, as QEMU names it
    #[arg(long, value_name = "MODEL", default_value = "cortex-a72")]
    cpu: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    smp: u32,
    /// RAM, such as 512M or 8G
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: Memory,
    /// Debian suite whose kernel is booted
    #[arg(long, value_name = "NAME", default_value = "bookworm")]
    suite: Suite,
    /// Another arm64 Image to boot instead
    #[arg(long, value_name = "IMAGE")]
    kernel: Option<PathBuf>,
    /// The probe's module, built for that kernel
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// An initramfs archive to unpack beneath our own
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Shell script to run in the host; its exit status becomes ours
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Further kernel parameters
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Seconds after which a machine that still runs is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    time_limit: u64,
    /// Boot the same kernel on the same machine without EL2, to compare
    #[arg(long, hide = true)]
    without_freehold: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_tools()?;
    let script = match &arguments.script {
        Some(file) => fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => DEFAULT_SCRIPT.to_owned(),
    };
    let linux = Linux {
        cpu: arguments.cpu.clone(),
        smp: arguments.smp,
        memory: arguments.memory,
        kernel: arguments.kernel.clone(),
        module: arguments.module.clone(),
        initrd: arguments.initrd.clone(),
        freehold: !arguments.without_freehold,
        parameters: arguments.append.clone(),
        limit: Duration::from_secs(arguments.time_limit),
        ..Linux::new(arguments.suite.clone(), script)
    };
    let outcome = linux.run(|line| println!("{line}"))?;
    Ok(ExitCode::from(outcome.status))
}
