//! The figures as tables for a reader.

use super::{
    Report,
    boot::Boot,
    debian::BootRatio,
    guest_boot::GuestBoot,
    memory::Memory,
    operations::{Operation, Place},
    protected::Seen,
};
use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, Table, presets};
use std::fmt::Write as _;

/// How a row that is not below its anchor is marked.
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();

/// All tables, with escape sequences for a terminal.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for cpu in super::CPUS {
        let rows: Vec<_> = report.operations.iter().filter(|row| row.cpu == cpu).collect();
        section(
            &mut text,
            &format!("Instructions on {cpu}, one CPU; Linux: 7.2 with pKVM, at the place that is named"),
            operations(&rows),
        );
        section(
            &mut text,
            &format!(
                "What scrubbing takes of each operation that scrubs, on {cpu}, beside its floor (one instruction a line)"
            ),
            scrubbing(&rows),
        );
    }
    section(
        &mut text,
        "Instructions from reset to the host's first one, 1 GiB",
        boots(&report.boots),
    );
    section(
        &mut text,
        "Instructions that a protected guest sees, its host Debian 6.12: cortex-a72, one CPU, 1 GiB",
        protected(&report.protected),
    );
    section(
        &mut text,
        "Instructions from the VMM's start to a Debian guest's user space, its host Debian 6.12: cortex-a72, one CPU, 1 GiB",
        guest_boot(&report.guest_boot),
    );
    section(
        &mut text,
        "EL2's memory before the first guest, as the host sees it, in KiB",
        memory(&report.memory),
    );
    section(
        &mut text,
        "Instructions from reset to the first one of Debian's init: cortex-a72, one CPU, 1 GiB",
        debian(&report.debian),
    );
    for failure in report.failures() {
        let _ = writeln!(text, "{BAD}not good:{BAD:#} {failure}");
    }
    let _ = writeln!(text, "{}; Freehold at {}", report.qemu, report.commit);
    text
}

fn section(text: &mut String, title: &str, table: Table) {
    let _ = writeln!(text, "{TITLE}{title}{TITLE:#}");
    for line in table.to_string().lines() {
        let line = line.trim_end();
        let _ = if line.ends_with('!') {
            writeln!(text, "{BAD}{line}{BAD:#}")
        } else {
            writeln!(text, "{line}")
        };
    }
    text.push('\n');
}

/// A table whose columns but the first `left` ones hold numbers, and whose last one marks bad rows.
fn table(header: &[&str], left: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().chain(&[""]));
    for row in rows {
        table.add_row(row.into_iter().map(Cell::new));
    }
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn operations(rows: &[&Operation]) -> Table {
    let header = [
        "operation",
        "Linux's operation",
        "EL1",
        "EL2",
        "Linux",
        "at",
        "ratio",
        "exits",
        "TLBI",
        "DSB",
        "DC",
        "IC",
    ];
    let row = |row: &&Operation| {
        let anchor = row.anchor.as_ref();
        let place = |place| match place {
            Place::El1 => "EL1",
            Place::El2 => "EL2",
        };
        vec![
            row.title.clone(),
            anchor.map_or_else(String::new, |anchor| anchor.source.clone()),
            row.el1.map_or_else(|| "-".to_owned(), number),
            number(row.el2),
            anchor.map_or_else(|| "-".to_owned(), |anchor| number(anchor.value)),
            anchor.map_or("-", |anchor| place(anchor.place)).to_owned(),
            anchor.map_or_else(|| "-".to_owned(), |anchor| ratio(row.anchored(), anchor.value)),
            number(row.exits),
            number(row.tlbi),
            number(row.dsb),
            number(row.dc),
            number(row.ic),
            mark(anchor.is_none_or(|anchor| anchor.is_above(row.anchored()))),
        ]
    };
    table(&header, 2, rows.iter().map(row))
}

fn scrubbing(rows: &[&Operation]) -> Table {
    let header = [
        "operation",
        "EL2",
        "zeroing",
        "floor",
        "cleaning",
        "floor",
        "bookkeeping",
        "a 4 KiB page",
    ];
    let row = |row: &&Operation| {
        let scrubbing = row.scrubbing?;
        Some(vec![
            row.title.clone(),
            number(row.el2),
            number(scrubbing.zeroing),
            number(scrubbing.zeroing_floor),
            number(scrubbing.cleaning),
            number(scrubbing.cleaning_floor),
            number(row.bookkeeping()),
            format!(
                "{:.1}",
                row.bookkeeping() as f64 / (scrubbing.bytes / 4096) as f64
            ),
            mark(true),
        ])
    };
    table(&header, 1, rows.iter().filter_map(row))
}

fn boots(boots: &[Boot]) -> Table {
    let row = |boot: &Boot| {
        vec![
            boot.cpu.clone(),
            number(boot.el2),
            number(boot.all),
            number(boot.anchor.value),
            ratio(boot.el2, boot.anchor.value),
            mark(boot.anchor.is_above(boot.el2)),
        ]
    };
    table(
        &["CPU", "EL2", "all", "Linux, EL2", "ratio"],
        1,
        boots.iter().map(row),
    )
}

fn protected(rows: &[Seen]) -> Table {
    let row = |row: &Seen| {
        vec![
            row.title.clone(),
            number(row.samples),
            number(row.least),
            number(row.median),
            number(row.anchor.value),
            ratio(row.median, row.anchor.value),
            mark(row.is_good()),
        ]
    };
    table(
        &["operation", "samples", "least", "median", "Linux", "ratio"],
        1,
        rows.iter().map(row),
    )
}

fn guest_boot(boot: &GuestBoot) -> Table {
    table(
        &[
            "protected",
            "launch digest",
            "not protected",
            "ratio",
            "without digest",
            "Linux (no digest)",
        ],
        0,
        [vec![
            number(boot.protected),
            number(boot.digest),
            number(boot.open),
            format!("{:.3}", boot.ratio()),
            format!("{:.3}", boot.ratio_without_digest()),
            format!("{:.3}", GuestBoot::linux()),
            mark(true),
        ]],
    )
}

fn memory(rows: &[Memory]) -> Table {
    let header = [
        "machine",
        "reserved",
        "EL2's",
        "free of it",
        "promise",
        "Linux",
        "ratio",
    ];
    let kib = |bytes: u64| number(bytes >> 10);
    let row = |row: &Memory| {
        vec![
            row.machine.clone(),
            kib(row.reserved),
            kib(row.owned),
            kib(row.free),
            kib(row.limit),
            row.linux.map_or_else(|| "-".to_owned(), kib),
            row.linux
                .map_or_else(|| "-".to_owned(), |linux| ratio(row.taken(), linux)),
            mark(row.is_good()),
        ]
    };
    table(&header, 1, rows.iter().map(row))
}

fn debian(boot: &BootRatio) -> Table {
    table(
        &["with Freehold", "EL2's share", "without", "ratio", "limit"],
        0,
        [vec![
            number(boot.freehold),
            format!("{:.3} %", 100.0 * boot.el2_share()),
            number(boot.bare),
            format!("{:.4}", boot.ratio()),
            "1.02".to_owned(),
            mark(boot.is_good()),
        ]],
    )
}

fn mark(good: bool) -> String {
    if good { String::new() } else { "!".to_owned() }
}

fn ratio(ours: u64, theirs: u64) -> String {
    format!("{:.3}", ours as f64 / theirs as f64)
}

/// A number with its thousands apart.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::linux::Anchor;

    fn operation(el1: u64, anchor: Option<Anchor>) -> Operation {
        Operation {
            cpu: "max".to_owned(),
            name: "call".to_owned(),
            title: "a call".to_owned(),
            el1: Some(el1),
            el2: el1 - 6,
            exits: 1,
            tlbi: 2,
            dsb: 3,
            isb: 4,
            dc: 5,
            ic: 6,
            smc: 0,
            scrubbing: None,
            anchor,
        }
    }

    #[test]
    fn thousands_are_apart() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_row_that_is_not_below_its_anchor_is_marked() {
        let marked = |operation: Operation| {
            let mut text = String::new();
            section(&mut text, "title", operations(&[&operation]));
            text.lines()
                .any(|line| line.contains("a call") && line.contains('!'))
        };
        assert!(!marked(operation(87, Some(Anchor::at_el1(88, "x")))));
        assert!(marked(operation(88, Some(Anchor::at_el1(88, "x")))));
        assert!(!marked(operation(88, Some(Anchor::at_el2(88, "x")))));
        assert!(!marked(operation(1_000_000, None)));
    }
}
