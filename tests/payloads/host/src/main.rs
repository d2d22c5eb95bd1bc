//! A host kernel for the conformance suite.
//!
//! It is a flat arm64 Image that Freehold, or any other loader, starts at EL1. It brings up every CPU of the
//! device tree, maps memory one to one, and runs the cases that its command line names; each reports itself on
//! the UART, and the exit status goes out by semihosting.
//!
//! - [`boot`], [`paging`], [`exception`], [`cpu`], [`frames`], [`interrupts`], [`timer`]: the small kernel.
//! - [`heap`]: for the books of those that run guests.
//! - [`guest`]: VMs, vCPUs, and what a host does for them.
//! - [`probe`]: accesses that may fault, at EL1 and EL0, and what came of them.
//! - [`firmware`], [`hypercall`]: SMCs and HVCs.
//! - [`registry`], [`run`]: what a case is, and how cases are chosen, run and reported.
//! - [`bench`]: counted instructions.
//! - [`attack`]: a hostile host.
//! - [`doors`]: operations for an instruction trace.
//! - [`reset`]: what the kernel after a reset can find.
//! - [`story`], [`button`]: a guest's life, for whoever watches it.
//! - [`cases`]: the cases.
#![no_std]
#![no_main]
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its text, and there is no heap to put it on"
)]

extern crate alloc;

mod attack;
mod barrier;
mod bench;
mod boot;
mod button;
mod cases;
mod command_line;
mod console;
mod cpu;
mod doors;
mod end;
mod exception;
mod exit;
mod firmware;
mod frames;
mod guest;
mod heap;
mod hypercall;
mod interrupts;
mod machine;
mod paging;
mod probe;
mod registry;
mod reset;
mod run;
mod story;
mod sysreg;
mod timer;

use command_line::Command;
use exit::Exit;
use machine::Machine;

/// The payload's life on the boot CPU, from the first Rust to the exit. `tree` is the address of the device tree.
extern "C" fn payload_main(tree: u64) -> ! {
    let machine = match Machine::read(tree) {
        Ok(machine) => machine,
        Err(_) => exit::leave(Exit::NoMachine),
    };
    console::init(machine.uart);
    paging::map(machine);
    frames::init(machine);
    heap::init();
    interrupts::init(machine);
    interrupts::init_cpu(machine);
    match command_line::parse(&machine.command_line) {
        Ok(Command::List(filter)) => run::list(filter),
        Ok(Command::Run(filter)) => {
            cpu::start_all(machine);
            run::run(machine, filter)
        }
        Ok(Command::Bench(filter)) => {
            cpu::start_all(machine);
            run::bench(filter)
        }
        Ok(Command::Attack(settings)) => {
            cpu::start_all(machine);
            attack::run(settings)
        }
        Ok(Command::Kill(settings)) => {
            cpu::start_all(machine);
            run::kill(settings)
        }
        Ok(Command::Break(way)) => {
            cpu::start_all(machine);
            end::run(way)
        }
        Ok(Command::Reset) => {
            cpu::start_all(machine);
            reset::run()
        }
        Ok(Command::Doors) => {
            cpu::start_all(machine);
            run::doors()
        }
        Ok(Command::Story(words)) => {
            cpu::start_all(machine);
            story::run(words)
        }
        Err(word) => {
            console::println!("payload: unknown command: {word}");
            exit::leave(Exit::UnknownCommand)
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::panicked(info);
    exit::leave(Exit::Panic)
}
