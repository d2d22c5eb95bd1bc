//! A plugin for QEMU that counts and traces what the machine executes.
//!
//! QEMU translates the guest's code block by block; a plugin sees each block before it runs and may ask to be called,
//! or to have a number added to, whenever one of its instructions executes. From that come three modes:
//! - `count`: instructions by range of addresses, between marks ([`options::Options::marks`]);
//! - `calls`: what each visit of the EL2 image costs, and which barriers and invalidations it makes;
//! - `trace`: the TLB, cache, barrier, register and store sequence of the EL2 image, to be held against what the
//!   order of the doors must be.
//!
//! What is counted is the *start* of an instruction. One that faults and is executed again counts twice, as a load
//! that the host's stage 2 has to map first; `-icount` does not count the first attempt. Nothing else differs: with
//! `-icount shift=0,sleep=off -cpu MODEL,cntfrq=1000000000` and no interrupt or wait in between, CNTVCT advances by
//! exactly this count (`tests/machine.rs` holds both against each other).
//!
//! Two boots of Linux under `-icount` on one CPU execute the same instructions, to the last one, if the tree holds no
//! seeds and the real-time clock begins at the same moment and follows the virtual one; with the computer's clock
//! they differ by some 0.01 %. Without `-icount` the count follows this computer's speed (Debian's 6.12 executes a
//! quarter more until init, and 1 % more or less from boot to boot): compare only boots under `-icount`.
//!
//! The library, without QEMU, gives [`options`] to write QEMU's command line, [`report`] to read the plugin's file,
//! and [`decode`], which names instruction words.

mod calls;
mod count;
pub mod decode;
mod entry;
pub mod options;
mod output;
pub mod report;
mod sys;
mod trace;

use options::{Mode, OptionError, Options};
use output::Output;
use report::{Line, Start};
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use sys::{Hooks, Info};
use thiserror::Error;

#[derive(Debug, Error)]
enum InstallError {
    #[error("this is not an arm64 machine")]
    Machine,
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error("cannot write {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("already loaded: one mode at a time")]
    Twice,
}

/// What every mode has.
#[derive(Debug)]
struct Plugin {
    options: Options,
    output: Output,
    /// CPUs that the machine starts with; more never come on this machine.
    cpus: usize,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

fn plugin() -> &'static Plugin {
    PLUGIN.get().expect("callbacks run only after `install`")
}

fn install(id: u64, info: &Info, arguments: Vec<&str>) -> Result<(), InstallError> {
    let cpus = info.cpus().ok_or(InstallError::Machine)?;
    let options = Options::parse(arguments)?;
    let output = Output::create(&options.out, options.limit)
        .map_err(|error| InstallError::File(options.out.clone(), error))?;
    output.always(&Line::Start(Start {
        api: info.version(),
        cpus,
    }));
    let hooks = match options.mode {
        Mode::Count => Hooks {
            translate: count::translate,
            end: count::end,
        },
        Mode::Calls => Hooks {
            translate: calls::translate,
            end: calls::end,
        },
        Mode::Trace => Hooks {
            translate: trace::translate,
            end: trace::end,
        },
    };
    PLUGIN
        .set(Plugin {
            options,
            output,
            cpus,
        })
        .map_err(|_| InstallError::Twice)?;
    sys::connect(id, info.version(), hooks);
    Ok(())
}
