//! `freehold attack`: a hostile host, and what became of its attacks.

use anyhow::Result;
use clap::Args;
use freehold_runner::{
    attack::{self, Attack},
    machine::Memory,
    setup,
};
use std::{process::ExitCode, time::Duration};

/// Arguments of `freehold attack`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// What the streams of attacks begin with; a random one if it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Hypercalls to issue, by all CPUs together; other attacks come in addition
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    calls: u64,
    /// CPU model, as QEMU names it
    #[arg(long, value_name = "MODEL", default_value = "cortex-a72")]
    cpu: String,
    /// Number of CPUs, all of which attack
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: u32,
    /// RAM, such as 256M or 1G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: Memory,
    /// Seconds after which a machine that still runs is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    time_limit: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_tools()?;
    let seed = arguments.seed.unwrap_or_else(attack::random_seed);
    println!(
        "Attack with seed {seed}: {} calls by {} CPUs of {}",
        arguments.calls, arguments.smp, arguments.cpu
    );
    let attack = Attack {
        cpu: arguments.cpu.clone(),
        smp: arguments.smp,
        memory: arguments.memory,
        calls: arguments.calls,
        limit: Duration::from_secs(arguments.time_limit),
        ..Attack::new(seed)
    };
    let report = attack.run(|line| {
        // Its own lines come as a table in the end.
        if !line.starts_with("A ") {
            println!("{line}");
        }
    })?;
    print!("{}", report.table());
    if report.passed() {
        println!("Freehold held.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Freehold did not hold. The same streams of attacks come again with --seed {seed}.");
    Ok(ExitCode::FAILURE)
}
