//! The page that a vCPU has in common with whoever runs it: of all that can be written there, only the answer to a load
//! reaches the guest.

use super::super::{bus_error, cases, ends, same, succeed};
use super::{OFFSET, SECRET, core_register};
use crate::Outcome;
use crate::device::{Errno, Mapping, RUN};
use crate::guest::{DATA, Do, Exit, Guest, KINDS, P, Vcpu};
use crate::process::Ended;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

cases![
    isolation_from_the_run_page,
    isolation_from_a_run_page_that_changes_all_the_time,
];

/// Words of the page.
const WORDS: usize = (P / 8) as usize;
/// `immediate_exit`, in the first.
const IMMEDIATE_EXIT: u64 = 0xff00;
/// Where a load's answer is: `mmio.data`.
const ANSWER: usize = 5;

const DEVICE: u64 = 0x0a00_0000;
/// With which number the guest's registers begin.
const SEED: u64 = 0x7654_0000;

/// What is written all over the page: nothing; all that can be, so that whatever is an offer of the host's is made; and
/// exits that there were not, such as stores to where the secret is.
fn forgeries() -> Vec<[u64; WORDS]> {
    let exit = |reason, data: [u64; 3]| {
        let mut words = [0; WORDS];
        words[1] = reason;
        words[4..7].copy_from_slice(&data);
        words
    };
    vec![
        [0; WORDS],
        [u64::MAX; WORDS],
        [DATA; WORDS],
        // Stores and loads of eight bytes, and of far too many.
        exit(6, [DATA, !SECRET, 8 | 1 << 32]),
        exit(6, [DATA, !SECRET, 8]),
        exit(6, [DATA, !SECRET, 0xffff_ffff]),
        // A hypercall, an event, a fault.
        exit(3, [DATA; 3]),
        exit(24, [2, 1, DATA]),
        exit(39, [8, DATA, P]),
    ]
}

fn write_all(page: &Mapping, words: &[u64; WORDS]) {
    for (offset, word) in (0..).step_by(8).zip(words) {
        page.write(offset, *word);
    }
}

/// The same, and a run is to last until there is an exit.
fn forge(vcpu: &Vcpu, words: &[u64; WORDS]) {
    let mut words = *words;
    words[0] &= !IMMEDIATE_EXIT;
    write_all(&vcpu.page, &words);
}

/// A guest that has its secret in memory, and its registers filled; that stores to a device and loads from it so many
/// times, and then finds both as they were.
fn guest(kind: u64, times: u64) -> Result<Guest, String> {
    let before = [Do::Fill(DATA, P, SECRET), Do::FillRegisters(SEED), Do::Report(1)];
    let devices = (0..times).flat_map(|time| [Do::Store(8, DEVICE, time), Do::Load(4, DEVICE)]);
    let after = [
        Do::CheckRegisters(SEED),
        Do::Check(DATA, P, SECRET),
        Do::Report(2),
    ];
    let list: Vec<_> = before.into_iter().chain(devices).chain(after).collect();
    let guest = Guest::new(kind, &[&list])?;
    guest.vcpu().reports("the guest", 1)?;
    Ok(guest)
}

fn intact(vcpu: &Vcpu) -> Outcome {
    vcpu.reports("registers that are otherwise", 0)?;
    vcpu.reports("words of the secret that are otherwise", 0)?;
    vcpu.reports("the guest", 2)?;
    vcpu.turns_off()
}

/// Whoever may change registers and memory does, and the guest finds it: one register and one word.
fn changes_are_found() -> Outcome {
    let guest = guest(0, 0)?;
    let vcpu = guest.vcpu();
    succeed("settling it", vcpu.settle())?;
    succeed("a register", vcpu.set(core_register(21), !SEED))?;
    guest.memory.write(OFFSET, !SECRET);
    vcpu.reports("registers that are otherwise", 1)?;
    vcpu.reports("words of the secret that are otherwise", 1)
}

fn isolation_from_the_run_page() -> Outcome {
    changes_are_found()?;
    let forgeries = forgeries();
    for kind in KINDS {
        let guest = guest(kind, forgeries.len() as u64)?;
        let vcpu = guest.vcpu();
        for (time, words) in (0..).zip(&forgeries) {
            forge(vcpu, words);
            same("the exit", vcpu.run(), Ok(Exit::Store(DEVICE, 8, time)))?;
            forge(vcpu, words);
            same("the exit", vcpu.run(), Ok(Exit::Load(DEVICE, 4)))?;
            forge(vcpu, words);
            // That is what the page is for. As many bytes as the guest has asked for, whatever is said of them there.
            vcpu.reports("what it loads", words[ANSWER] & 0xffff_ffff)?;
        }
        forge(vcpu, &[u64::MAX; WORDS]);
        intact(vcpu)?;
        // There is the page, and nothing behind it.
        let two = succeed("a mapping of two pages", Mapping::of(&vcpu.fd, 0, 2 * P))?;
        ends("a load of the page", Ended::Exited(0), || _ = two.read::<u8>(0))?;
        bus_error("a load behind the page", || _ = two.read::<u8>(P))?;
    }
    Ok(())
}

/// Runs until there is an exit: each run that does not fail has one. Until then it may be ended by what the page says.
fn exits(vcpu: &Vcpu) -> Outcome {
    loop {
        match vcpu.fd.ioctl(RUN, 0) {
            Ok(_) => return Ok(()),
            Err(Errno(libc::EINTR)) => std::thread::yield_now(),
            Err(error) => return Err(format!("the run: {error:?}")),
        }
    }
}

fn isolation_from_a_run_page_that_changes_all_the_time() -> Outcome {
    const TIMES: u64 = 24;
    let forgeries = forgeries();
    for kind in KINDS {
        let guest = guest(kind, TIMES)?;
        let vcpu = guest.vcpu();
        let (turns, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                for words in forgeries.iter().cycle() {
                    write_all(&vcpu.page, words);
                    turns.fetch_add(1, Ordering::SeqCst);
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            // For each time a store, a load, and the report of what was loaded.
            let done = (0..3 * TIMES).try_for_each(|_| {
                let turn = turns.load(Ordering::SeqCst);
                while turns.load(Ordering::SeqCst) < turn + 2 {
                    std::thread::yield_now();
                }
                exits(vcpu)
            });
            over.store(true, Ordering::SeqCst);
            done
        });
        done?;
        write_all(&vcpu.page, &[0; WORDS]);
        intact(vcpu)?;
    }
    Ok(())
}
