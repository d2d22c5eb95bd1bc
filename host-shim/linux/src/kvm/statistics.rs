//! What is told under `/sys/kernel/debug/freehold`, and of descriptors under `/proc/PROCESS/fdinfo`.

use super::{Memfd, Seen, System, Vm};
use crate::Linux;
use alloc::string::String;
use core::fmt::Write as _;
use host_shim::account::Purpose;
use hyp_abi::FRAME_SIZE;
use hyp_abi::host_call::Statistic;
use hyp_abi::vm::{VmFlags, VmStatistic};

/// A file there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `statistics`: frames of the module, and of the machine as Freehold has them. One figure a line.
    Statistics,
    /// `vms`: a line for each VM.
    Vms,
}

impl File {
    /// The file of that number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Statistics),
            1 => Some(Self::Vms),
            _ => None,
        }
    }
}

/// The figures of EL2 that are told, by name.
const MACHINE: [(&str, Statistic); 8] = [
    ("machine_frames", Statistic::Frames),
    ("machine_frames_host", Statistic::FramesHost),
    ("machine_frames_shared_with_el2", Statistic::FramesSharedHyp),
    ("machine_frames_el2", Statistic::FramesHyp),
    ("machine_frames_other", Statistic::FramesOther),
    ("el2_pool_free", Statistic::PoolFree),
    ("el2_pool_total", Statistic::PoolTotal),
    ("el2_reserved_bytes", Statistic::ReservedBytes),
];

const VM: [VmStatistic; 8] = [
    VmStatistic::FramesPrivate,
    VmStatistic::FramesShared,
    VmStatistic::FramesBorrowed,
    VmStatistic::ReservePages,
    VmStatistic::PagesTotal,
    VmStatistic::Vcpus,
    VmStatistic::Relinquished,
    VmStatistic::Lost,
];

/// The figures of a VM that are told of its descriptor, by name, in frames of as many bytes.
const DESCRIPTOR: [(&str, VmStatistic); 7] = [
    ("private", VmStatistic::FramesPrivate),
    ("shared", VmStatistic::FramesShared),
    ("borrowed", VmStatistic::FramesBorrowed),
    ("relinquished", VmStatistic::Relinquished),
    ("lost", VmStatistic::Lost),
    ("el2", VmStatistic::PagesTotal),
    ("el2-reserve", VmStatistic::ReservePages),
];

/// What a VM's descriptor says at the moment: figures in bytes.
pub fn of_vm<L: Linux>(vm: &Vm<L>) -> String {
    let mut text = String::new();
    let Seen { figures, ledger, .. } = &**vm.seen();
    // Writing to a string does not fail.
    let _ = writeln!(text, "freehold-vm:\t{}", figures.handle().slot);
    for (name, statistic) in DESCRIPTOR {
        if let Ok(frames) = figures.statistic(statistic) {
            bytes(&mut text, name, frames);
        }
    }
    let usage = ledger.usage();
    bytes(&mut text, "files", usage.of(Purpose::Guest));
    bytes(&mut text, "run-pages", usage.of(Purpose::RunPage));
    text
}

/// What the descriptor of a file of guest memory says: how much there is in it, in bytes.
pub fn of_file<L: Linux>(file: &Memfd<L>) -> String {
    let mut text = String::new();
    bytes(&mut text, "resident", file.file().resident_pages());
    text
}

fn bytes(text: &mut String, name: &str, frames: u64) {
    // As above.
    let _ = writeln!(text, "freehold-{name}:\t{}", frames * FRAME_SIZE);
}

/// What a file says at the moment.
pub fn show<L: Linux>(system: &System<L>, file: File) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match file {
        File::Statistics => statistics(system, &mut text),
        File::Vms => vms(system, &mut text),
    };
    text
}

fn statistics<L: Linux>(system: &System<L>, text: &mut String) -> core::fmt::Result {
    writeln!(text, "vms {}", system.vm_count())?;
    writeln!(text, "el2_pages_given {}", system.host().given_frames())?;
    for (name, purpose) in [
        ("frames_guest", Purpose::Guest),
        ("frames_el2", Purpose::Hypervisor),
        ("frames_run", Purpose::RunPage),
    ] {
        writeln!(text, "{name} {}", system.total().of(purpose))?;
    }
    for (name, statistic) in MACHINE {
        if let Ok(value) = system.host().hypervisor().statistic(statistic) {
            writeln!(text, "{name} {value}")?;
        }
    }
    Ok(())
}

fn vms<L: Linux>(system: &System<L>, text: &mut String) -> core::fmt::Result {
    writeln!(
        text,
        "vm kind private shared borrowed reserve el2_pages vcpus relinquished lost guest_frames"
    )?;
    for vm in system.seen() {
        let figures = &vm.figures;
        let kind = if figures.flags().contains(VmFlags::PROTECTED) {
            "protected"
        } else {
            "plain"
        };
        write!(text, "{} {kind}", figures.handle().slot)?;
        for statistic in VM {
            match figures.statistic(statistic) {
                Ok(value) => write!(text, " {value}")?,
                Err(_) => write!(text, " -")?,
            }
        }
        writeln!(text, " {}", vm.ledger.usage().of(Purpose::Guest))?;
    }
    Ok(())
}
