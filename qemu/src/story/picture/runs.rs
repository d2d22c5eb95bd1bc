//! The probe's lines as runs of memory in one state.

use super::{FRAME, REGION};
use std::ops::Range;

/// The state of what has several.
pub(super) const MIXED: &str = "Mixed";

/// The state of EL2's own memory. The host is only told that it is not the host's.
pub(super) const OWN: &str = "EL2's own";

/// What the host is told of memory that is not its own, and what the map has for EL2's.
const NOT_YOURS: [&str; 2] = ["NotYours", "Hyp"];

/// Memory in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its addresses.
    pub(super) range: Range<u64>,
    /// The state.
    pub(super) state: String,
}

impl Run {
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// All of memory, in ascending order.
#[derive(Debug)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// Reads the lines of the map. Where frames are told apart, they stand for their region. Nothing if there is no
    /// map.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>, own: Option<&Range<u64>>) -> Option<Self> {
        let mut runs: Vec<Run> = Vec::new();
        for mut run in lines.filter_map(parse) {
            // The region that these frames are of came just before them.
            if let Some(last) = runs.last_mut()
                && last.state == MIXED
                && last.range.end > run.range.start
            {
                last.range.end = run.range.start;
            }
            if NOT_YOURS.contains(&run.state.as_str())
                && own.is_some_and(|own| own.start <= run.range.start && run.range.end <= own.end)
            {
                OWN.clone_into(&mut run.state);
            }
            runs.retain(|run| run.range.start < run.range.end);
            runs.push(run);
        }
        (!runs.is_empty()).then_some(Self(runs))
    }

    /// The runs, cut where memory has a hole.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[Run]> {
        self.0.chunk_by(|run, next| run.range.end == next.range.start)
    }

    /// The regions that are told apart by frames and have several states.
    pub(super) fn mixed(&self, region: u64) -> impl Iterator<Item = Range<u64>> {
        let mut starts: Vec<_> = self
            .0
            .windows(2)
            .filter(|pair| pair[0].range.end == pair[1].range.start)
            .map(|pair| pair[1].range.start)
            .filter(|edge| !edge.is_multiple_of(region))
            .map(|edge| edge - edge % region)
            .collect();
        starts.dedup();
        starts.into_iter().map(move |start| start..start + region)
    }

    /// What lies in a range.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<Run> {
        self.0
            .iter()
            .map(|run| Run {
                range: run.range.start.max(range.start)..run.range.end.min(range.end),
                state: run.state.clone(),
            })
            .filter(|run| run.range.start < run.range.end)
            .collect()
    }
}

fn parse(line: &str) -> Option<Run> {
    let mut words = line.split_whitespace();
    let unit = match words.next()? {
        "map" => REGION,
        "frames" => FRAME,
        _ => return None,
    };
    let base = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let count: u64 = words.next()?.parse().ok()?;
    let state = words.next()?.to_owned();
    let end = base.checked_add(count.checked_mul(unit)?)?;
    (words.next().is_none() && base < end).then_some(Run {
        range: base..end,
        state,
    })
}
