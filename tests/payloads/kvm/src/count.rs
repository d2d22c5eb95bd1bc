//! What a protected guest sees of what its operations cost, in ticks of its own counter: instructions, on a machine whose
//! counter counts them.
//!
//! `B value NAME MARKER SAMPLES LEAST MEDIAN` for each, as the payload's benchmarks say it, `floor` first: the reads of the
//! counter alone, which the others hold too. The marker is 0: nothing tells these visits of EL2 from others. Then
//! `T end COUNT`. The host's interrupts may be in a figure: the median is what matters.

use crate::device::PROTECTED;
use crate::guest::{BASE, DATA, Do, Exit, Guest, P, REPORT, SHARE, UNSHARE, Vcpu, memfd, set_slot, slot};
use std::process::ExitCode;

/// A figure's samples: as many as there are pages to work with, less one.
const SAMPLES: u64 = 11;
/// Memory of which there is nothing yet when the guest begins.
const ABSENT: u64 = BASE + 0x10_0000;
/// What a store takes at most that reaches no further than the guest's own memory.
const UNNOTICED: u64 = 16;
/// A device of the VMM's.
const DEVICE: u64 = 0x0a00_0000;
/// The hypervisor's own calls that there are: answered at EL2.
const FEATURES: u64 = 0x8600_0000;
/// The first of the calls that the host answers: as not known, there is no such service.
const HOST_SERVICE: u64 = 0xc600_4680;

/// What is counted once.
type Operation = fn(u64) -> Do;

/// What is counted, each in a guest of its own, on one page after the other.
const OPERATIONS: [(&str, Operation); 7] = [
    ("floor", |_| Do::CountNothing),
    ("guest_call", |_| Do::CountCall(FEATURES, 0, 0, 0)),
    ("guest_host_call", |_| Do::CountCall(HOST_SERVICE, 0, 0, 0)),
    ("guest_share", |page| Do::CountCall(SHARE, page, 0, 0)),
    ("guest_unshare", |page| Do::CountCall(UNSHARE, page, 0, 0)),
    ("guest_mmio_store", |_| Do::CountStore(DEVICE, 1)),
    ("guest_fault_in", |page| Do::CountStore(page - DATA + ABSENT, 1)),
];

/// Counts all of it.
pub(crate) fn count() -> ExitCode {
    if let Err(why) = seed() {
        println!("B fail seed {why}");
        return ExitCode::FAILURE;
    }
    for (name, operation) in OPERATIONS {
        if let Err(why) = count_one(name, operation) {
            println!("B fail {name} {why}");
            return ExitCode::FAILURE;
        }
    }
    println!("T end {}", OPERATIONS.len() - 1);
    ExitCode::SUCCESS
}

/// Waits until the host's random number generator is seeded. Debian's kernel draws from it at each system call, to move its
/// stack, and until then each draw takes thousands of instructions. A host that is up has it seeded; one that has just been
/// booted, by a loader without seeds, has not.
fn seed() -> Result<(), String> {
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/random").map_err(|error| format!("/dev/random: {error}"))?,
        &mut [0],
    )
    .map_err(|error| format!("/dev/random: {error}"))
}

/// Counts one operation in a guest of its own.
fn count_one(name: &str, operation: Operation) -> Result<(), String> {
    let pages = || (0..SAMPLES).map(|index| DATA + index * P);
    let mut list = Vec::new();
    // What must have been: the page is there, and for an unshare it is shared.
    if matches!(operation(DATA), Do::CountCall(SHARE | UNSHARE, ..)) {
        list.extend(pages().map(|page| Do::Store(8, page, 1)));
    }
    if matches!(operation(DATA), Do::CountCall(UNSHARE, ..)) {
        list.extend(pages().map(|page| Do::Call(SHARE, page, 0, 0)));
    }
    list.extend(pages().map(operation));
    let guest = Guest::new(PROTECTED, &[&list])?;
    // They stay open: where a file is closed its slot has nothing more to give.
    let mut files = Vec::new();
    for index in 0..SAMPLES {
        // A file for each page: one larger would be filled by blocks of several pages, of which the first to be touched
        // brings the others.
        let given = memfd(&guest.vm, P, 0).and_then(|file| {
            let slot = slot(1 + index as u32, ABSENT + index * P, P, file.raw(), 0);
            set_slot(&guest.vm, slot).map(|()| file)
        });
        files.push(given.map_err(|error| format!("a slot: {error:?}"))?);
    }
    let vcpu = guest.vcpu();
    let mut ticks = Vec::new();
    for entry in list {
        match entry {
            Do::Call(..) => vcpu.reports("a call's answer", 0)?,
            Do::CountCall(function, ..) => {
                ticks.push(vcpu.reported()?);
                let answer = vcpu.reported()?;
                if matches!(function, SHARE | UNSHARE) && answer != 0 {
                    return Err(format!("the call answers {answer:#x}"));
                }
            }
            Do::CountStore(DEVICE, _) => {
                stored(vcpu)?;
                ticks.push(vcpu.reported()?);
            }
            Do::CountStore(ABSENT.., _) => {
                let taken = vcpu.reported()?;
                if taken <= UNNOTICED {
                    return Err(format!("the page was there: {taken} ticks"));
                }
                ticks.push(taken);
            }
            Do::CountStore(..) | Do::CountNothing => ticks.push(vcpu.reported()?),
            _ => {}
        }
    }
    vcpu.turns_off()?;
    ticks.sort_unstable();
    println!(
        "B value {name} 0 {} {} {}",
        ticks.len(),
        ticks[0],
        ticks[ticks.len() / 2]
    );
    Ok(())
}

/// Runs, and expects the store to the device.
fn stored(vcpu: &Vcpu) -> Result<(), String> {
    const { assert!(DEVICE != REPORT) };
    match vcpu.run() {
        Ok(Exit::Store(DEVICE, 8, 1)) => Ok(()),
        other => Err(format!("no store but {other:x?}")),
    }
}
