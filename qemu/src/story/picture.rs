//! The ownership map as a picture in the terminal: a letter for each region, in rows of 64.

use anstyle::{AnsiColor, Color, Style};
use std::{collections::BTreeMap, fmt::Write as _};

/// Cells in a row: with 2 MiB each, 128 MiB.
const ROW: usize = 64;

/// More rows than this are not drawn: then a cell stands for more than one region.
const ROWS: u64 = 64;

/// Bytes in a region.
const REGION: u64 = 2 << 20;

/// A run of regions in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    base: u64,
    regions: u64,
    state: String,
}

/// Draws a map from the probe's lines `map <base> <regions> <state>`. Nothing if there is none among `lines`.
pub(super) fn draw<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    let runs: Vec<_> = lines.filter_map(parse).collect();
    let regions: u64 = runs.iter().map(|run| run.regions).sum();
    if regions == 0 {
        return None;
    }
    let scale = regions.div_ceil(ROW as u64 * ROWS).next_power_of_two();
    let mut text = String::new();
    for piece in pieces(&runs) {
        draw_piece(&mut text, piece, scale);
    }
    let mut totals = BTreeMap::<&str, u64>::new();
    for run in &runs {
        *totals.entry(&run.state).or_default() += run.regions;
    }
    for (state, regions) in totals {
        let (letter, style) = look(state);
        let _ = writeln!(
            text,
            "{style}{letter}{style:#} {state}: {} MiB",
            (regions * REGION) >> 20
        );
    }
    if scale > 1 {
        let _ = writeln!(
            text,
            "a letter is {} MiB; where states differ, the rarer one is shown",
            (scale * REGION) >> 20
        );
    }
    Some(text)
}

fn parse(line: &str) -> Option<Run> {
    let mut words = line.strip_prefix("map ")?.split_whitespace();
    let base = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let regions = words.next()?.parse().ok()?;
    let state = words.next()?.to_owned();
    words.next().is_none().then_some(Run { base, regions, state })
}

/// The runs, cut where memory has a hole.
fn pieces(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    runs.chunk_by(|run, next| run.base + run.regions * REGION == next.base)
}

fn draw_piece(text: &mut String, runs: &[Run], scale: u64) {
    let base = runs.first().map_or(0, |run| run.base);
    let regions: Vec<&str> = runs
        .iter()
        .flat_map(|run| {
            std::iter::repeat_n(
                run.state.as_str(),
                usize::try_from(run.regions).unwrap_or(usize::MAX),
            )
        })
        .collect();
    let cells: Vec<&str> = regions
        .chunks(usize::try_from(scale).unwrap_or(usize::MAX))
        .map(rarest)
        .collect();
    for (row, cells) in cells.chunks(ROW).enumerate() {
        let address = base + row as u64 * ROW as u64 * scale * REGION;
        let _ = write!(text, "{address:#014x} ");
        for same in cells.chunk_by(|cell, next| cell == next) {
            let (letter, style) = look(same[0]);
            let letters: String = std::iter::repeat_n(letter, same.len()).collect();
            let _ = write!(text, "{style}{letters}{style:#}");
        }
        text.push('\n');
    }
}

/// Of regions that share a cell, the state worth seeing: the host's own is everywhere.
fn rarest<'a>(regions: &[&'a str]) -> &'a str {
    regions
        .iter()
        .find(|&&state| state != "Host")
        .or(regions.first())
        .copied()
        .unwrap_or("Host")
}

/// The letter and colors of a state.
fn look(state: &str) -> (char, Style) {
    let colored = |color: AnsiColor| Style::new().fg_color(Some(Color::Ansi(color)));
    match state {
        "Host" => ('.', colored(AnsiColor::Green)),
        "HostSharedHyp" => ('s', colored(AnsiColor::Yellow)),
        "HostSharedGuest" => ('g', colored(AnsiColor::Yellow)),
        "GuestSharedHost" => ('h', colored(AnsiColor::Yellow)),
        "NotYours" => ('#', colored(AnsiColor::Red).bold()),
        "Mixed" => ('%', colored(AnsiColor::Magenta)),
        "Relinquished" => ('r', colored(AnsiColor::Blue)),
        _ => ('?', colored(AnsiColor::Cyan)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(lines: &[&str]) -> String {
        anstream::adapter::strip_str(&draw(lines.iter().copied()).unwrap()).to_string()
    }

    #[test]
    fn each_region_has_its_letter_at_its_place() {
        let picture = plain(&[
            "map 0x40000000 1 Host",
            "map 0x40200000 1 NotYours",
            "map 0x40400000 61 Host",
            "map 0x47e00000 2 Mixed",
            "total state=Host regions=62",
        ]);
        let rows: Vec<_> = picture.lines().collect();
        assert_eq!(rows[0], format!("0x000040000000 .#{}%", ".".repeat(61)));
        assert_eq!(rows[1], "0x000048000000 %");
        assert!(
            rows.contains(&". Host: 124 MiB") && rows.contains(&"# NotYours: 2 MiB"),
            "{picture}"
        );
    }

    #[test]
    fn a_hole_begins_a_new_row() {
        let picture = plain(&["map 0x40000000 2 Host", "map 0x80000000 3 Host"]);
        assert!(
            picture.starts_with("0x000040000000 ..\n0x000080000000 ...\n"),
            "{picture}"
        );
    }

    #[test]
    fn a_large_memory_is_drawn_small_and_loses_nothing_rare() {
        let picture = plain(&["map 0x40000000 1 NotYours", "map 0x40200000 32767 Host"]);
        assert!(picture.lines().count() < 70, "{picture}");
        assert!(picture.starts_with("0x000040000000 #."), "{picture}");
        assert!(picture.contains("a letter is 16 MiB"), "{picture}");
    }

    #[test]
    fn without_a_map_there_is_no_picture() {
        assert_eq!(
            draw(["map nonsense", "total state=Host regions=1"].into_iter()),
            None
        );
    }
}
