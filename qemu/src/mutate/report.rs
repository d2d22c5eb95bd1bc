//! What came of each mutation, as a table for a reader.

use super::{LIMIT, Layer, Mutation, layer::Ending};
use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, Table, presets};
use std::{fmt::Write as _, time::Duration};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// What a layer made of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The layer.
    pub layer: Layer,
    /// How its tests ended.
    pub ending: Ending,
}

impl Verdict {
    /// Whether the layer noticed. Tests that do not end notice nothing.
    #[must_use]
    pub const fn caught(&self) -> bool {
        matches!(self.ending, Ending::Failed(_) | Ending::Died(_))
    }
}

/// What came of a mutation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mutation.
    pub mutation: Mutation,
    /// What each layer that was tried made of it.
    pub verdicts: Vec<Verdict>,
    /// How long it took, building included.
    pub elapsed: Duration,
}

impl Outcome {
    /// Whether the layer that must catch it has, and, if only that one was tried, in time.
    #[must_use]
    pub fn caught(&self) -> bool {
        let caught = self
            .verdicts
            .iter()
            .any(|verdict| verdict.layer == self.mutation.caught_by && verdict.caught());
        caught && (self.verdicts.len() > 1 || self.elapsed <= LIMIT)
    }
}

/// What came of all of them.
#[derive(Clone, Debug)]
pub struct Report(Vec<Outcome>);

impl Report {
    pub(super) const fn new(outcomes: Vec<Outcome>) -> Self {
        Self(outcomes)
    }

    /// Whether every mutation was caught.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.0.iter().all(Outcome::caught)
    }

    /// A line for each mutation, and for each layer that was tried, with colors, and one for all.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["", "mutation", "published as", "layer", "caught by", "seconds"]);
        for outcome in &self.0 {
            for (number, verdict) in outcome.verdicts.iter().enumerate() {
                let row = if number == 0 {
                    [
                        if outcome.caught() { "✓" } else { "✗" }.to_owned(),
                        outcome.mutation.name.to_owned(),
                        outcome.mutation.like.unwrap_or_default().to_owned(),
                        verdict.layer.to_string(),
                        caught_by(verdict),
                        format!("{:.1}", outcome.elapsed.as_secs_f64()),
                    ]
                } else {
                    let layer = verdict.layer.to_string();
                    [
                        String::new(),
                        String::new(),
                        String::new(),
                        layer,
                        caught_by(verdict),
                        String::new(),
                    ]
                };
                table.add_row(row.map(Cell::new));
            }
        }
        if let Some(seconds) = table.column_mut(5) {
            seconds.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = String::new();
        for line in table.to_string().lines() {
            let style = if line.trim_start().starts_with('✗') {
                BAD
            } else {
                Style::new()
            };
            let _ = writeln!(text, "{style}{}{style:#}", line.trim_end());
        }
        let caught = self.0.iter().filter(|outcome| outcome.caught()).count();
        let elapsed: Duration = self.0.iter().map(|outcome| outcome.elapsed).sum();
        let (style, mark) = if self.passed() {
            (GOOD, '✓')
        } else {
            (BAD, '✗')
        };
        let _ = writeln!(
            text,
            "{style}{mark} {caught} of {} mutations caught in {:.1} min{style:#}",
            self.0.len(),
            elapsed.as_secs_f64() / 60.0
        );
        text
    }
}

fn caught_by(verdict: &Verdict) -> String {
    match &verdict.ending {
        Ending::Passed => "nothing".to_owned(),
        ending => ending.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending, seconds: u64) -> Outcome {
        Outcome {
            mutation: Mutation {
                name: "mutation",
                like: Some("like"),
                file: "",
                find: "",
                replace: "",
                caught_by: Layer::Unit,
            },
            verdicts: vec![Verdict {
                layer: Layer::Unit,
                ending,
            }],
            elapsed: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn what_is_not_noticed_in_time_is_not_caught() {
        assert!(outcome(Ending::Failed("test".to_owned()), 1).caught());
        assert!(outcome(Ending::Died("signal".to_owned()), 1).caught());
        assert!(!outcome(Ending::Passed, 1).caught());
        assert!(!outcome(Ending::TimedOut, 1).caught());
        assert!(!outcome(Ending::Refused, 1).caught());
        assert!(!outcome(Ending::Failed("test".to_owned()), 121).caught());
    }

    #[test]
    fn the_table_says_what_caught_what() {
        let report = Report::new(vec![
            outcome(Ending::Failed("a::test".to_owned()), 3),
            outcome(Ending::Passed, 1),
        ]);
        assert!(!report.passed());
        let table = anstream::adapter::strip_str(&report.table()).to_string();
        let lines: Vec<_> = table.lines().map(str::trim).collect();
        assert!(
            lines[1].starts_with('✓') && lines[1].contains("a::test") && lines[1].contains("3.0"),
            "{table}"
        );
        assert!(
            lines[2].starts_with('✗') && lines[2].contains("nothing"),
            "{table}"
        );
        assert!(lines[3].contains("1 of 2 mutations"), "{table}");
    }
}
