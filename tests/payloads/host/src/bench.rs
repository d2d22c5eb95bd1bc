//! Counted instructions.
//!
//! Under QEMU with `-icount shift=0,sleep=off` and a counter of 1 GHz, one tick of CNTVCT is one instruction. A
//! bracket of two reads costs something itself; [`floor`] measures that and [`counted`] leaves it in, so whoever
//! reports subtracts it. A timer tick lands in a bracket now and then, so a figure is the least or the median of
//! many, never a mean.

use crate::command_line::Filter;
use crate::console::println;
use crate::sysreg;
use core::hint::black_box;
use linkme::distributed_slice;

/// The frequency at which a tick of the counter is an instruction.
const ONE_TICK_PER_INSTRUCTION: u64 = 1_000_000_000;

/// Samples of one figure.
const SAMPLES: usize = 101;

/// Every benchmark of the image.
#[distributed_slice]
pub(crate) static BENCHES: [Bench];

/// A figure to measure.
#[derive(Debug)]
pub(crate) struct Bench {
    /// What it measures.
    pub(crate) name: &'static str,
    /// Measures it.
    pub(crate) run: fn() -> Figure,
}

/// What was measured, in ticks, floor included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// The least.
    pub(crate) least: u64,
    /// The median.
    pub(crate) median: u64,
}

/// Ticks that `body` takes, with IRQs masked, floor included.
///
/// Never inlined: what surrounds it must not be scheduled into the bracket.
#[inline(never)]
pub(crate) fn counted<T>(body: impl FnOnce() -> T) -> u64 {
    let before = sysreg::counter();
    let result = body();
    let after = sysreg::counter();
    black_box(result);
    after.wrapping_sub(before)
}

/// Least and median of [`SAMPLES`] samples, each between an untimed `before` and an untimed `after`.
pub(crate) fn sample(mut before: impl FnMut(), mut body: impl FnMut(), mut after: impl FnMut()) -> Figure {
    let mut ticks = [0; SAMPLES];
    sysreg::without_irqs(|| {
        for tick in &mut ticks {
            before();
            *tick = counted(&mut body);
            after();
        }
    });
    ticks.sort_unstable();
    Figure {
        least: ticks[0],
        median: ticks[SAMPLES / 2],
    }
}

/// What an empty bracket costs.
pub(crate) fn floor() -> Figure {
    sample(|| (), || (), || ())
}

/// Runs the benchmarks that `filter` chooses and prints `B <name> <least> <median>` for each, floor subtracted.
/// Returns how many there were.
pub(crate) fn run(filter: Filter<'_>) -> usize {
    if sysreg::counter_frequency() != ONE_TICK_PER_INSTRUCTION {
        println!(
            "payload: a tick is no instruction here: the counter runs at {} Hz",
            sysreg::counter_frequency()
        );
    }
    let floor = floor();
    println!("B floor {} {}", floor.least, floor.median);
    let chosen = BENCHES.iter().filter(|bench| filter.matches(bench.name));
    chosen
        .map(|bench| {
            let figure = (bench.run)();
            let net = |ticks: u64| ticks.saturating_sub(floor.least);
            println!("B {} {} {}", bench.name, net(figure.least), net(figure.median));
        })
        .count()
}
