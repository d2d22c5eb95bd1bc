//! Counted instructions.
//!
//! Under QEMU with `-icount shift=0,sleep=off` and a counter of 1 GHz, one tick of CNTVCT is one instruction. Each
//! benchmark is an operation that is done many times between two reads of the counter, and tells the least and the
//! median of them; what an empty bracket costs is subtracted.
//!
//! Before the last time, and only then, a marker instruction says which benchmark it is, so that who counts from
//! outside (QEMU's plugin) sees each operation once, as the steady state has it.
//!
//! - [`bracket`]: counting what is between two reads.
//! - [`calls`], [`donation`], [`aborts`]: the operations of a host alone.
//! - [`guests`]: the operations that guests are for.
//! - [`facts`]: what else the runner wants to know of the machine and of Freehold.

mod aborts;
mod bracket;
mod calls;
mod donation;
mod facts;
mod guests;

use crate::command_line::Filter;
use crate::console::println;
use crate::registry::{Failure, Outcome};
use crate::sysreg;
pub(crate) use bracket::{Figure, Mark, floor, mark, ticks_of};
pub(crate) use facts::tell as tell_facts;

/// The frequency at which a tick of the counter is an instruction.
const ONE_TICK_PER_INSTRUCTION: u64 = 1_000_000_000;

/// An operation to count.
#[derive(Debug)]
struct Bench {
    name: &'static str,
    run: fn(mark: Mark) -> Result<Figure, Outcome>,
    mark: Mark,
}

macro_rules! benches {
    ($($number:literal $name:ident = $run:path;)*) => {
        &[$(Bench {
            name: stringify!($name),
            run: $run,
            mark: Mark { number: $number, set: mark::<$number> },
        }),*]
    };
}

/// Every benchmark, in the order in which they run: later ones find the tables as earlier ones left them.
const BENCHES: &[Bench] = benches! {
    1 empty_call = calls::empty;
    2 firmware_call = calls::firmware;
    3 share_page_of_block = calls::share_page_of_block;
    4 share_page = calls::share_page;
    5 unshare_page = calls::unshare_page;
    6 share_refused = calls::share_refused;
    7 share_512_pages = calls::share_unaligned;
    8 unshare_512_pages = calls::unshare_unaligned;
    9 share_2m = calls::share_region;
    10 unshare_2m = calls::unshare_region;
    11 donate_page_of_block = donation::donate_page_of_block;
    12 donate_4k = donation::donate_page;
    13 give_back_4k = donation::give_back_page;
    14 donate_2m = donation::donate_region;
    15 give_back_2m = donation::give_back_region;
    16 donate_1g = donation::donate_gigabyte;
    17 give_back_1g = donation::give_back_gigabyte;
    18 refused_load = aborts::load;
    19 refused_store = aborts::store;
    20 refused_fetch = aborts::fetch;
    21 guest_donate_4k = guests::memory::donate_page;
    22 guest_donate_2m = guests::memory::donate_region;
    23 guest_donate_64m = guests::memory::donate_64m;
    24 guest_fault_in = guests::memory::fault_in;
    25 guest_reclaim_4k = guests::memory::reclaim_page;
    26 guest_reclaim_2m = guests::memory::reclaim_region;
    27 guest_reclaim_64m = guests::memory::reclaim_64m;
    28 guest_share_page = guests::calls::share_page;
    29 guest_unshare_page = guests::calls::unshare_page;
    30 guest_share_page_of_block = guests::calls::share_page_of_block;
    31 guest_unshare_page_of_block = guests::calls::unshare_page_of_block;
    32 guest_share_64m = guests::calls::share_64m;
    33 guest_unshare_64m = guests::calls::unshare_64m;
    34 guest_features = guests::calls::features;
    35 guest_memory_info = guests::calls::memory_info;
    36 guest_answered_by_host = guests::calls::answered_by_host;
    37 guest_run_at_once = guests::calls::run_at_once;
    38 guest_entry = guests::calls::entry;
    39 guest_exit = guests::calls::exit;
    40 vm_create = guests::life::create;
    41 vm_destroy = guests::life::destroy;
};

/// How a run of benchmarks went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// How many were chosen.
    pub(crate) chosen: usize,
    /// How many of them failed.
    pub(crate) failed: usize,
}

/// Runs the benchmarks that `filter` chooses. Prints `B value <name> <marker> <samples> <least> <median>` for each,
/// floor subtracted, or `B skip` or `B fail` with its name and the reason; before them the floor, with marker 0, and
/// the facts, as `F <name> <value>`.
pub(crate) fn run(filter: Filter<'_>) -> Tally {
    if sysreg::counter_frequency() != ONE_TICK_PER_INSTRUCTION {
        println!(
            "payload: a tick is no instruction here: the counter runs at {} Hz",
            sysreg::counter_frequency()
        );
    }
    tell_facts();
    let floor = floor();
    println!(
        "B value floor 0 {} {} {}",
        floor.samples, floor.least, floor.median
    );
    let mut tally = Tally::default();
    for bench in BENCHES.iter().filter(|bench| filter.matches(bench.name)) {
        tally.chosen += 1;
        let name = bench.name;
        match (bench.run)(bench.mark) {
            Ok(figure) => {
                let net = |ticks: u64| ticks.saturating_sub(floor.least);
                let (least, median) = (net(figure.least), net(figure.median));
                println!(
                    "B value {name} {} {} {least} {median}",
                    bench.mark.number, figure.samples
                );
            }
            Err(Outcome::Skipped(why)) => println!("B skip {name} {why}"),
            Err(Outcome::Failed(Failure { file, line, text })) => {
                tally.failed += 1;
                println!("B fail {name} {file}:{line} {text}");
            }
        }
    }
    tally
}
