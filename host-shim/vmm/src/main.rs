//! The program: [`freehold_vmm`] with a command line.

use clap::Parser as _;
use freehold_vmm::{ending::Ending, options::Options, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(ending) => {
            if let Ending::Stuck(why) = &ending {
                eprintln!("freehold-vmm: the guest cannot go on: {why}");
            }
            ExitCode::from(ending.status())
        }
        Err(error) => {
            eprintln!("freehold-vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
