//! Counting what is between two reads of the counter.
//!
//! IRQs are masked, but a bracket may still hold what does not belong to it (a first touch, say): a figure is the
//! least or the median of many, never a mean.
#![expect(unsafe_code, reason = "marker instructions")]

use crate::registry::{Outcome, TestResult};
use crate::sysreg;
use arrayvec::ArrayVec;
use core::hint::black_box;

/// The most samples of one figure.
pub(super) const MOST_SAMPLES: usize = 101;

/// What was measured, in ticks, floor included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// How often it was measured.
    pub(crate) samples: usize,
    /// The least.
    pub(crate) least: u64,
    /// The median.
    pub(crate) median: u64,
}

impl Figure {
    /// Of these, at least one.
    pub(super) fn of(mut ticks: ArrayVec<u64, MOST_SAMPLES>) -> Self {
        ticks.sort_unstable();
        Self {
            samples: ticks.len(),
            least: ticks[0],
            median: ticks[ticks.len() / 2],
        }
    }
}

/// The marker of a benchmark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Its number.
    pub(super) number: u16,
    /// Executes it: [`mark`] with that number.
    pub(super) set: fn(),
}

/// What belongs to no benchmark.
pub(super) const NO_MARK: Mark = Mark {
    number: 0,
    set: mark::<0>,
};

/// Says by a marker instruction, which does nothing, what follows: benchmark `NUMBER`, or what else the number stands
/// for in the command at work.
pub(crate) fn mark<const NUMBER: u16>() {
    // SAFETY: MOVZ to the zero register changes nothing.
    unsafe {
        core::arch::asm!(
            "movz xzr, #{number}", number = const NUMBER,
            options(nomem, nostack, preserves_flags)
        )
    };
}

/// Ticks that `body` takes, floor included, and its result.
///
/// Never inlined: what surrounds it must not be scheduled into the bracket.
#[inline(never)]
fn counted<T>(body: &mut impl FnMut() -> T) -> (u64, T) {
    let before = sysreg::counter();
    let result = body();
    let after = sysreg::counter();
    (after.wrapping_sub(before), black_box(result))
}

/// Counts `body` `samples` times, at most [`MOST_SAMPLES`], each between an uncounted `before` and an uncounted
/// `after` that judges the result. `mark` is set right before the last one.
///
/// # Errors
/// The first of `before` and `after`: what was counted then is not what was meant.
pub(super) fn sample<T>(
    samples: usize,
    mark: Mark,
    mut before: impl FnMut() -> TestResult,
    mut body: impl FnMut() -> T,
    mut after: impl FnMut(T) -> TestResult,
) -> Result<Figure, Outcome> {
    let mut ticks = ArrayVec::new();
    sysreg::without_irqs(|| -> TestResult {
        for sample in 1..=samples {
            before()?;
            if sample == samples {
                (mark.set)();
            }
            let (count, result) = counted(&mut body);
            (NO_MARK.set)();
            ticks.push(count);
            after(result)?;
        }
        Ok(())
    })?;
    Ok(Figure::of(ticks))
}

/// Least and median of what `body` takes, alone.
pub(crate) fn ticks_of<T>(mut body: impl FnMut() -> T) -> Figure {
    let ticks = sysreg::without_irqs(|| (0..MOST_SAMPLES).map(|_| counted(&mut body).0).collect());
    Figure::of(ticks)
}

/// What an empty bracket costs.
pub(crate) fn floor() -> Figure {
    ticks_of(|| ())
}
