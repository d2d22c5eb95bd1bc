//! The ownership map as a picture in the terminal: a letter for each region, in rows of 64; below it, a letter for
//! each frame of the regions whose frames differ, and of EL2's own memory. Every VM has a letter of its own: a capital
//! for its private memory, a small one for what it lends to the host.

mod runs;

use anstyle::{AnsiColor, Color, Style};
use runs::{Run, Runs};
use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, ops::Range};

/// Cells in a row: 128 MiB of regions, 256 KiB of frames.
const ROW: usize = 64;

/// More cells than this are not drawn: then a cell stands for more than one region.
const CELLS: u64 = 64 * 64;

/// Regions that are drawn frame by frame.
const ZOOMED: usize = 3;

/// Bytes in a region.
const REGION: u64 = 2 << 20;

/// Bytes in a frame.
const FRAME: u64 = 4 << 10;

/// A part of EL2's own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What it is.
    pub(super) name: String,
    /// Its addresses.
    pub(super) range: Range<u64>,
}

/// Frames that a VM has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Guest {
    /// Frames of its own.
    pub(super) private: u64,
    /// Frames of its own that it lends to the host.
    pub(super) lent: u64,
}

/// The frames of each VM, by its slot, in such lines. Nothing if there is no map among them.
pub(super) fn guests<'a>(lines: impl Iterator<Item = &'a str>) -> Option<BTreeMap<u8, Guest>> {
    let runs = Runs::read(lines, None)?;
    let mut guests = BTreeMap::<u8, Guest>::new();
    for run in runs.pieces().flatten() {
        if let Some((slot, is_lent)) = guest(&run.state) {
            let guest = guests.entry(slot).or_default();
            let frames = if is_lent {
                &mut guest.lent
            } else {
                &mut guest.private
            };
            *frames += run.bytes() / FRAME;
        }
    }
    Some(guests)
}

/// The slot of the VM whose frames are in this state, and whether it lends them.
fn guest(state: &str) -> Option<(u8, bool)> {
    let (state, slot) = state.split_once('/')?;
    Some((slot.parse().ok()?, state == "GuestSharedHost"))
}

/// How a state looks.
struct Look {
    letter: char,
    style: Style,
    means: Cow<'static, str>,
}

/// Draws a map from the probe's lines `map <base> <regions> <state>` and `frames <base> <frames> <state>`. Nothing if
/// there are none among `lines`. `own` is EL2's own memory, `parts` what is in it.
pub(super) fn draw<'a>(
    lines: impl Iterator<Item = &'a str>,
    own: Option<&Range<u64>>,
    parts: &[Part],
) -> Option<String> {
    let runs = Runs::read(lines, own)?;
    let mut text = String::new();
    let bytes: u64 = runs.pieces().flatten().map(Run::bytes).sum();
    let cell = REGION * bytes.div_ceil(REGION * CELLS).next_power_of_two();
    let _ = writeln!(text, "each letter is {}:", size(cell));
    for piece in runs.pieces() {
        draw_rows(&mut text, piece, cell);
    }
    let mut totals = BTreeMap::<&str, u64>::new();
    for run in runs.pieces().flatten() {
        *totals.entry(&run.state).or_default() += run.bytes();
    }
    text.push('\n');
    for (state, bytes) in totals {
        legend(&mut text, &look(state), state, bytes);
    }
    for region in runs.mixed(REGION).take(ZOOMED) {
        let _ = writeln!(
            text,
            "\nthe region at {:#x}, each letter {}:",
            region.start,
            size(FRAME)
        );
        draw_rows(&mut text, &runs.within(&region), FRAME);
    }
    if let Some(own) = own
        && !parts.is_empty()
    {
        let _ = writeln!(text, "\nEL2's own memory, each letter {}:", size(FRAME));
        let layout = layout(own, parts);
        draw_rows(&mut text, &layout, FRAME);
        text.push('\n');
        let names: Vec<&str> = layout.iter().map(|part| part.state.as_str()).collect();
        for (place, name) in names.iter().enumerate() {
            if !names[..place].contains(name) {
                let parts = layout.iter().filter(|part| part.state == *name);
                legend(&mut text, &part_look(name), name, parts.map(Run::bytes).sum());
            }
        }
    }
    Some(text)
}

/// EL2's own memory as runs of its parts; what is none of them is its pool.
fn layout(own: &Range<u64>, parts: &[Part]) -> Vec<Run> {
    let mut parts: Vec<_> = parts
        .iter()
        .filter(|part| own.start <= part.range.start && part.range.end <= own.end)
        .collect();
    parts.sort_by_key(|part| part.range.start);
    let mut runs = Vec::new();
    let mut at = own.start;
    let pool = |range: Range<u64>| Run {
        range,
        state: "table pages and pool".to_owned(),
    };
    for part in parts {
        if at < part.range.start {
            runs.push(pool(at..part.range.start));
        }
        if at <= part.range.start {
            runs.push(Run {
                range: part.range.clone(),
                state: part.name.clone(),
            });
            at = part.range.end;
        }
    }
    if at < own.end {
        runs.push(pool(at..own.end));
    }
    runs
}

fn draw_rows(text: &mut String, runs: &[Run], cell: u64) {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return;
    };
    let mut cells = Vec::new();
    let mut at = first.range.start;
    while at < last.range.end {
        cells.push(state_of(runs, &(at..at + cell)));
        at += cell;
    }
    let rows: Vec<_> = (0..).zip(cells.chunks(ROW)).collect();
    for alike in rows.chunk_by(|(_, row), (_, next)| row == next) {
        // A line that says how many there are is worth it from two on.
        let shown = if alike.len() > 2 { 1 } else { alike.len() };
        for (row, cells) in &alike[..shown] {
            let address = first.range.start + row * ROW as u64 * cell;
            let _ = write!(text, "{address:#010x} ");
            for same in cells.chunk_by(|cell, next| cell == next) {
                let Look { letter, style, .. } = look(same[0]);
                let letters: String = std::iter::repeat_n(letter, same.len()).collect();
                let _ = write!(text, "{style}{letters}{style:#}");
            }
            text.push('\n');
        }
        if shown < alike.len() {
            let _ = writeln!(text, "{:>10} {} more rows like it", '⋮', alike.len() - shown);
        }
    }
}

/// The state of all that lies in `cell`, or that it has several.
fn state_of<'a>(runs: &'a [Run], cell: &Range<u64>) -> &'a str {
    let mut states = runs
        .iter()
        .filter(|run| run.range.start < cell.end && cell.start < run.range.end)
        .map(|run| run.state.as_str());
    match states.next() {
        Some(first) if states.all(|state| state == first) => first,
        _ => runs::MIXED,
    }
}

fn legend(text: &mut String, look: &Look, state: &str, bytes: u64) {
    let Look { letter, style, means } = look;
    let _ = writeln!(
        text,
        "{style}{letter}{style:#} {state:<20} {:>11}  {means}",
        size(bytes)
    );
}

/// An amount of memory in words.
pub(super) fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else if bytes < 1 << 20 {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
    }
}

/// The letter, colors and meaning of a state, or of a part of EL2's memory.
fn look(state: &str) -> Look {
    let filled = |color: AnsiColor| AnsiColor::Black.on_default().bg_color(Some(Color::Ansi(color)));
    if let Some((slot, is_lent)) = guest(state) {
        return guest_look(slot, is_lent);
    }
    let (letter, style, means) = match state {
        "Host" => ('.', AnsiColor::Green.on_default(), "the host's alone"),
        "HostSharedHyp" => ('s', filled(AnsiColor::Yellow), "the host's, shared with EL2"),
        "HostSharedGuest" => ('g', filled(AnsiColor::Yellow), "the host's, lent to guests"),
        "GuestSharedHost" => ('h', filled(AnsiColor::Cyan), "a guest's, shared with the host"),
        runs::OWN => ('#', filled(AnsiColor::Red), "Freehold's since the boot"),
        "NotYours" | "Hyp" => ('d', filled(AnsiColor::Magenta), "given to EL2 by the host"),
        "Relinquished" => ('r', filled(AnsiColor::Blue), "given up by a guest"),
        runs::MIXED => ('%', filled(AnsiColor::White), "pages in several states"),
        _ => return part_look(state),
    };
    Look {
        letter,
        style,
        means: means.into(),
    }
}

/// As [`look`], for a VM's frames: letters and colors come round again after so many VMs.
fn guest_look(slot: u8, is_lent: bool) -> Look {
    const COLORS: [AnsiColor; 4] = [
        AnsiColor::Blue,
        AnsiColor::Magenta,
        AnsiColor::Cyan,
        AnsiColor::Yellow,
    ];
    let number = slot.wrapping_sub(1);
    let color = COLORS[usize::from(number) % COLORS.len()];
    let letter = char::from(b'A' + number % 26);
    match is_lent {
        false => Look {
            letter,
            style: AnsiColor::BrightWhite
                .on_default()
                .bg_color(Some(Color::Ansi(color))),
            means: format!("private to VM {slot}").into(),
        },
        true => Look {
            letter: letter.to_ascii_lowercase(),
            style: color.on_default().bold(),
            means: format!("VM {slot}'s, lent to the host").into(),
        },
    }
}

/// As [`look`], for a part of EL2's memory: the first letter of its name.
fn part_look(name: &str) -> Look {
    let color = match name {
        "image" => AnsiColor::Red,
        "ownership map" => AnsiColor::Yellow,
        "CPUs" => AnsiColor::Cyan,
        "host's root" => AnsiColor::Magenta,
        _ => AnsiColor::BrightBlack,
    };
    Look {
        letter: name.chars().next().unwrap_or('?'),
        style: color.on_default(),
        means: match name {
            "image" => "code and data",
            "ownership map" => "8 bytes for each 2 MiB of RAM",
            "CPUs" => "stacks and data, guard pages between",
            "host's root" => "the top of the host's stage-2 table",
            "table pages and pool" => "stage 1, map nodes, the host's tables",
            _ => "",
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(lines: &[&str], own: Option<&Range<u64>>, parts: &[Part]) -> String {
        let picture = draw(lines.iter().copied(), own, parts).unwrap();
        anstream::adapter::strip_str(&picture).to_string()
    }

    fn has_row(picture: &str, row: &str) -> bool {
        picture.lines().any(|line| line == row)
    }

    #[test]
    fn each_region_has_its_letter_at_its_place() {
        let picture = plain(
            &[
                "map 0x40000000 1 Host",
                "map 0x40200000 1 NotYours",
                "map 0x40400000 61 Host",
                "map 0x47e00000 2 HostSharedHyp",
                "total state=Host regions=62",
            ],
            None,
            &[],
        );
        assert!(
            has_row(&picture, &format!("0x40000000 .d{}s", ".".repeat(61))),
            "{picture}"
        );
        assert!(has_row(&picture, "0x48000000 s"), "{picture}");
        let total = picture.lines().find(|line| line.starts_with(". Host")).unwrap();
        assert!(total.contains("124 MiB"), "{picture}");
    }

    #[test]
    fn a_region_whose_frames_differ_is_drawn_frame_by_frame() {
        let picture = plain(
            &[
                "map 0x40000000 1 Mixed",
                "frames 0x40000000 511 Host",
                "frames 0x401ff000 1 HostSharedHyp",
                "map 0x40200000 1 Mixed",
                "frames 0x40200000 512 NotYours",
            ],
            Some(&(0x4020_0000..0x4040_0000)),
            &[],
        );
        assert!(has_row(&picture, "0x40000000 %#"), "{picture}");
        assert!(
            has_row(&picture, &format!("0x401c0000 {}s", ".".repeat(63))),
            "{picture}"
        );
        let total = picture.lines().find(|line| line.starts_with("s Host")).unwrap();
        assert!(total.contains(" 4 KiB"), "{picture}");
    }

    #[test]
    fn parts_of_el2s_memory_lie_where_they_are() {
        let part = |name: &str, range| Part {
            name: name.to_owned(),
            range,
        };
        let parts = [
            part("CPUs", 0x4020_3000..0x4020_5000),
            part("image", 0x4020_0000..0x4020_2000),
            part("elsewhere", 0x5020_0000..0x5020_2000),
        ];
        let own = 0x4020_0000..0x4040_0000;
        let picture = plain(&["map 0x40000000 512 Host"], Some(&own), &parts);
        let row = picture.lines().find(|line| line.contains("iitCC")).unwrap();
        assert_eq!(row, format!("0x40200000 iitCC{}", "t".repeat(59)));
        assert!(!picture.contains("elsewhere"));
    }

    #[test]
    fn vms_are_told_apart_and_their_frames_counted() {
        let lines = [
            "map 0x40000000 1 Mixed",
            "frames 0x40000000 3 Guest/1",
            "frames 0x40003000 2 GuestSharedHost/1",
            "frames 0x40005000 507 Host",
            "map 0x40200000 2 Guest/2",
        ];
        let picture = plain(&lines, None, &[]);
        assert!(has_row(&picture, "0x40000000 %BB"), "{picture}");
        assert!(picture.contains("0x40000000 AAAaa..."), "{picture}");
        assert!(picture.contains("private to VM 2"), "{picture}");
        let guests = guests(lines.into_iter()).unwrap();
        let [one, two] = [1, 2].map(|slot| guests[&slot]);
        assert_eq!((one.private, one.lent, two.private, two.lent), (3, 2, 1024, 0));
    }

    #[test]
    fn a_hole_begins_a_new_row() {
        let picture = plain(&["map 0x40000000 2 Host", "map 0x80000000 3 Host"], None, &[]);
        assert!(picture.contains("0x40000000 ..\n0x80000000 ...\n"), "{picture}");
    }

    #[test]
    fn a_large_memory_is_drawn_small_and_loses_nothing_rare() {
        let picture = plain(
            &["map 0x40000000 1 NotYours", "map 0x40200000 32767 Host"],
            None,
            &[],
        );
        assert!(picture.lines().count() < 80, "{picture}");
        assert!(
            picture.contains("each letter is 16 MiB:\n0x40000000 %."),
            "{picture}"
        );
    }

    #[test]
    fn without_a_map_there_is_no_picture() {
        assert_eq!(
            draw(
                ["map nonsense", "total state=Host regions=1"].into_iter(),
                None,
                &[]
            ),
            None
        );
    }
}
