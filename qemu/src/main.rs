//! The program `freehold`, what `cargo run` starts: boots Freehold and tells what happens.
//!
//! Each subcommand is a module of [`command`]; everything they stand on is the library.

mod command;

use clap::{Parser, Subcommand};
use freehold_runner::story::Host;
use std::process::ExitCode;

/// Boots Freehold, a hypervisor for arm64, under QEMU. Without a subcommand: with Debian as its host, step by step
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Who has guests in what is told step by step
    #[arg(long, value_enum, default_value_t = Host::Linux)]
    host: Host,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what building and booting need, and fetches Debian's kernels
    Setup,
    /// Boots a Linux kernel as Freehold's host and runs a script there
    Linux(command::linux::Arguments),
    /// Has a hostile host, with hostile guests, attack Freehold at random; fails if anything gives way
    Attack(command::attack::Arguments),
    /// Counts what Freehold's operations cost, beside Linux 7.2's; fails if one is not below
    Bench(command::bench::Arguments),
    /// Puts errors into the core, one at a time; fails if the tests do not notice one
    Mutate(command::mutate::Arguments),
    /// Runs every test in full, which takes hours
    Soak(command::soak::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => command::story::run(cli.host),
        Some(Command::Setup) => command::setup::run(),
        Some(Command::Linux(arguments)) => command::linux::run(&arguments),
        Some(Command::Attack(arguments)) => command::attack::run(&arguments),
        Some(Command::Bench(arguments)) => command::bench::run(&arguments),
        Some(Command::Mutate(arguments)) => command::mutate::run(&arguments),
        Some(Command::Soak(arguments)) => command::soak::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        // The chain of causes; a backtrace of the runner would only hide it.
        anstream::eprintln!(
            "{}error:{} {error:#}",
            command::ERROR,
            command::ERROR.render_reset()
        );
        ExitCode::FAILURE
    })
}
