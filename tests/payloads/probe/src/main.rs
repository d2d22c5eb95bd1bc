//! The probe: a tool inside the host Linux that reaches any physical address, from EL0 by itself and from EL1 by a
//! small kernel module, and that speaks to EL2 and EL3. Tests and scripts attack Freehold with it.
//!
//! `freehold-probe --help` tells the commands; [`cli`] is where they are defined. Everything that may kill the
//! process that does it is done in a child ([`sacrifice`]). [`deed`] reaches addresses by [`el0`] and [`el1`],
//! [`ways`] by all of these; [`calls`] speaks [`hyp_abi`] through [`conduit`]; [`device`] and [`interface`] are the
//! module's side, whose sources are in `module/`; [`outcome`] is what every command ends in.

use anyhow::{Context, ensure};
use clap::Parser;
use host_shim::Hypervisor;
use hyp_abi::Counter;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

mod calls;
mod cli;
mod conduit;
mod cpu;
mod deed;
mod device;
mod el0;
mod el1;
mod instructions;
mod interface;
mod kernel_log;
mod machine;
mod map;
mod memory;
mod number;
mod outcome;
mod pages;
mod sacrifice;
mod signals;
mod system_registers;
mod ways;

use calls::CallCommand;
use cli::{All, Command, CommandLine, RegisterCommand, Registers};
use conduit::{Conduit, Instruction};
use deed::{Deed, Place, Way};
use device::Device;
use outcome::{Answer, Exit, Expected, Outcome, conclude};
use sacrifice::Ended;

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(exit) => ExitCode::from(exit),
        Err(error) => {
            report(&error);
            ExitCode::from(Exit::Failed as u8)
        }
    }
}

fn report(error: &anyhow::Error) {
    eprintln!("freehold-probe: {error:#}");
}

fn run(line: CommandLine) -> anyhow::Result<u8> {
    if let Some(cpu) = line.cpu {
        cpu::pin(cpu).with_context(|| format!("CPU {cpu}"))?;
    }
    if let Command::SystemRegister {
        access: RegisterCommand::List,
    } = line.command
    {
        system_registers::names().for_each(|name| println!("{name}"));
        return Ok(Exit::Done as u8);
    }
    let has_one_outcome = matches!(
        line.command,
        Command::El0 { .. }
            | Command::El1 { .. }
            | Command::Call { .. }
            | Command::Hvc(_)
            | Command::Smc(_)
            | Command::SystemRegister { .. }
    );
    ensure!(
        line.expect.is_none() || has_one_outcome,
        "--expect: this command does not end in one outcome"
    );
    let device = &Device::open()?;
    let expected = line.expect.as_ref();
    let exit = match line.command {
        Command::Info => in_child(expected, || info(device))?,
        Command::El0 { deed } => {
            let (place, deed) = deed.deed();
            reach(device, Way::El0, place, deed, expected)?
        }
        Command::El1 { bare, padded, deed } => {
            let (place, deed) = deed.deed();
            reach(device, cli::el1_way(bare, padded, deed), place, deed, expected)?
        }
        Command::Touch { page, all, limits } => touch(device, page, all, limits)?,
        Command::WithPages {
            order,
            count,
            command,
        } => {
            return pages::with_pages(device, order, count, &command);
        }
        Command::Call { call } => in_child(expected, || carry_out(device, call, expected))?,
        Command::Hvc(registers) => raw(device, Instruction::Hvc, &registers, expected)?,
        Command::Smc(registers) => raw(device, Instruction::Smc, &registers, expected)?,
        Command::Statistics => in_child(expected, || statistics(device))?,
        Command::Counters { of } => in_child(expected, || counters(device, of))?,
        Command::Map { frames } => in_child(expected, || map(device, frames))?,
        Command::SystemRegister { access } => register(device, access, expected)?,
    };
    Ok(exit as u8)
}

/// Prints the line that a command ends in.
fn tell(words: &str, outcome: &Outcome, expected: Option<&Expected>) -> Exit {
    let (line, exit) = conclude(outcome, expected);
    println!("{words} {line}");
    exit
}

/// Runs a command that prints its own lines in a child, which an instruction that is undefined here may kill.
fn in_child(
    expected: Option<&Expected>,
    work: impl FnOnce() -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let oops_before = kernel_log::last_oops();
    let work = || {
        let exit = work()?;
        stdout().flush()?;
        Ok(exit)
    };
    let ended = sacrifice::in_child(|| match work() {
        Ok(exit) => [exit as u64, 0],
        Err(error) => {
            report(&error);
            [Exit::Failed as u64, 0]
        }
    })?;
    Ok(match ended {
        Ended::Answered([exit, _]) => Exit::from_number(exit),
        Ended::Caught(fault) => tell("command", &Outcome::Signal(fault), expected),
        Ended::Killed(signal) => tell("command", &deed::died(signal, oops_before.as_deref()), expected),
    })
}

fn reach(
    device: &Device,
    way: Way,
    place: Place,
    deed: Deed,
    expected: Option<&Expected>,
) -> anyhow::Result<Exit> {
    let words = deed::describe(way, place.address, deed);
    let outcome = deed::perform(device, way, place, deed).with_context(|| words.clone())?;
    Ok(tell(&words, &outcome, expected))
}

fn touch(device: &Device, page: u64, all: Option<All>, limits: ways::Limits) -> anyhow::Result<Exit> {
    let tally = ways::touch(device, page, limits)?;
    println!("touched granted={} refused={}", tally.granted, tally.refused);
    let is_met = match all {
        None => true,
        Some(All::Granted) => tally.granted > 0 && tally.refused == 0,
        Some(All::Refused) => tally.refused > 0 && tally.granted == 0,
    };
    Ok(if is_met { Exit::Done } else { Exit::Failed })
}

fn info(device: &Device) -> anyhow::Result<Exit> {
    println!("module=loaded");
    let conduit = Conduit::connect(device, false)?;
    let (details, outcome) = calls::carry_out(&Hypervisor::new(&conduit), hyp_abi::HostCall::Version)?;
    Ok(tell(&format!("freehold=present{details}"), &outcome, None))
}

fn carry_out(device: &Device, call: CallCommand, expected: Option<&Expected>) -> anyhow::Result<Exit> {
    let conduit = Conduit::connect(device, true)?;
    let (details, outcome) = calls::carry_out(&Hypervisor::new(&conduit), call.into())?;
    conduit.ensure_preserved()?;
    Ok(tell(
        &format!("call={}{details}", call.name()),
        &outcome,
        expected,
    ))
}

fn raw(
    device: &Device,
    instruction: Instruction,
    registers: &Registers,
    expected: Option<&Expected>,
) -> anyhow::Result<Exit> {
    in_child(expected, || {
        let after = conduit::issue(device, instruction, &registers.x)?;
        let changed: Vec<_> = conduit::changed(&registers.x, &after)
            .iter()
            .map(|x| format!("x{x}"))
            .collect();
        let changed = if changed.is_empty() {
            "none".to_owned()
        } else {
            changed.join(",")
        };
        let [x0, x1, x2, x3, ..] = after;
        let words = format!("x0={x0:#x} x1={x1:#x} x2={x2:#x} x3={x3:#x} changed={changed}");
        // A raw call may mean anything, so its x0 is a value; expected may be a status as well.
        let outcome = match expected {
            Some(Expected::Status(_)) => Outcome::Returned(Answer::from(x0)),
            _ => Outcome::Value(x0),
        };
        Ok(tell(&words, &outcome, expected))
    })
}

fn statistics(device: &Device) -> anyhow::Result<Exit> {
    let conduit = Conduit::connect(device, false)?;
    let hypervisor = Hypervisor::new(&conduit);
    for statistic in calls::all_statistics() {
        println!(
            "statistic={statistic:?} value={}",
            hypervisor.statistic(statistic)?
        );
    }
    conduit.ensure_preserved()?;
    Ok(Exit::Done)
}

fn counters(device: &Device, of: Option<u64>) -> anyhow::Result<Exit> {
    let conduit = Conduit::connect(device, false)?;
    let hypervisor = Hypervisor::new(&conduit);
    let cpus = match of {
        Some(cpu) => cpu..cpu.saturating_add(1),
        None => 0..hypervisor.version()?.cpus,
    };
    for cpu in cpus {
        for counter in Counter::all() {
            println!(
                "cpu={cpu} counter={counter:?} value={}",
                hypervisor.counter(cpu, counter)?
            );
        }
    }
    conduit.ensure_preserved()?;
    Ok(Exit::Done)
}

fn map(device: &Device, frames: bool) -> anyhow::Result<Exit> {
    let conduit = Conduit::connect(device, false)?;
    let ram = memory::pieces(Path::new(memory::DEVICE_TREE))?;
    map::print(&Hypervisor::new(&conduit), &ram, frames)?;
    conduit.ensure_preserved()?;
    Ok(Exit::Done)
}

fn register(device: &Device, access: RegisterCommand, expected: Option<&Expected>) -> anyhow::Result<Exit> {
    let (words, outcome) = match access {
        RegisterCommand::Read { register } => {
            let outcome = deed::attempt(|| system_registers::read(device, register).map(Some))?;
            (format!("deed=read register={register}"), outcome)
        }
        RegisterCommand::Write { register, value } => {
            let write = || system_registers::write(device, register, value).map(|()| Some(value));
            let outcome = match deed::attempt(write)? {
                Outcome::Value(_) => Outcome::Written,
                other => other,
            };
            (format!("deed=write register={register}"), outcome)
        }
        RegisterCommand::List => return Ok(Exit::Done),
    };
    Ok(tell(&words, &outcome, expected))
}
