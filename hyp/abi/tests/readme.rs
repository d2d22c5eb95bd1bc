//! The tables of the README say what this crate says.

use hyp_abi::guest_call::{self, GuestCallId};
use hyp_abi::run_page::ExitReason;
use hyp_abi::{HostCallId, VmCall, VmCallId};
use std::fs;
use std::path::{Path, PathBuf};

const README: &str = include_str!("../../../README.md");

/// The other READMEs, and the directories that their links begin at.
const MORE: [(&str, &str); 2] = [
    ("host-shim", include_str!("../../../host-shim/README.md")),
    (
        "host-shim/linux",
        include_str!("../../../host-shim/linux/README.md"),
    ),
];

/// The cells of all tables between two pieces of text, row by row, without their heads.
fn rows(from: &str, to: &str) -> Vec<Vec<&'static str>> {
    rows_of(README, from, to)
}

/// The same of another README.
fn rows_of(readme: &'static str, from: &str, to: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = readme.split_once(from).expect("the README has that place");
    let (part, _) = rest.split_once(to).expect("the README has that place");
    let cells = |line: &'static str| {
        let line = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(line.split('|').map(str::trim).collect::<Vec<_>>())
    };
    let rows: Vec<_> = part.lines().filter_map(cells).collect();
    let head = rows
        .iter()
        .position(|row| row.iter().all(|cell| cell.starts_with("---")))
        .expect("a table has a head");
    rows[head + 1..].to_vec()
}

/// Asserts that the rows' first two cells are the numbers from 0 on and these names.
fn assert_numbered(rows: &[Vec<&str>], names: impl Iterator<Item = String>) {
    let names: Vec<_> = names
        .enumerate()
        .map(|(number, name)| (number.to_string(), format!("`{name}`")))
        .collect();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row[0].to_owned(), row[1].to_owned()))
        .collect();
    assert_eq!(told, names);
}

#[test]
fn the_hosts_calls_have_their_numbers() {
    let rows = rows("About memory, 0xC6004600", "About VMs, 0xC6004620");
    assert_eq!(hyp_abi::host_call::HOST_CALL_BASE, 0xC600_4600);
    assert_numbered(&rows, HostCallId::all().map(|id| format!("{id:?}")));
}

#[test]
fn the_hosts_calls_about_vms_have_their_numbers_and_arguments() {
    let rows = rows("About VMs, 0xC6004620", "**To add a call:**");
    assert_eq!(hyp_abi::vm_call::VM_CALL_BASE, 0xC600_4620);
    assert_numbered(&rows, VmCallId::all().map(|id| format!("{id:?}")));
    for (id, row) in VmCallId::all().zip(rows) {
        let without = VmCall::decode(id, [0; 6]);
        let used = (0..6)
            .filter(|argument| {
                let mut arguments = [0; 6];
                arguments[*argument] = 1;
                VmCall::decode(id, arguments) != without
            })
            .count();
        assert_eq!(row[2].split(", ").count(), used, "{id:?}");
    }
}

#[test]
fn the_guests_calls_have_their_numbers_and_names() {
    let rows = rows("## The guest's calls", "## What the host learns");
    let (services, rows) = rows.split_last().expect("a table has rows");
    assert_eq!(
        services[0],
        format!(
            "{:#x} … {:#x}",
            guest_call::HOST_SERVICE_FIRST,
            guest_call::HOST_SERVICE_LAST
        )
    );
    let mut told = Vec::new();
    let (mut plain, mut protected) = (0_u64, 0_u64);
    for row in rows {
        let number = row[0].strip_prefix("0x").expect("a hexadecimal number");
        let id = GuestCallId::try_from(u32::from_str_radix(number, 16).expect("a number"))
            .expect("a call that there is");
        if let Some(name) = documented_name(id) {
            assert_eq!(row[1].split(' ').next(), Some(name), "{id:?}");
        }
        if let Some(bit) = guest_call::feature_bit(id) {
            protected |= 1 << bit;
            if !row[1].ends_with('†') {
                plain |= 1 << bit;
            }
        }
        told.push(u32::from(id));
    }
    told.sort_unstable();
    let mut all = GuestCallId::ALL.map(u32::from);
    all.sort_unstable();
    assert_eq!(told, all, "every call is told once");
    let variants = SOURCE
        .lines()
        .filter(|line| line.starts_with("    ") && line.contains(" = 0x"));
    assert_eq!(all.len(), variants.count(), "all are all");
    let features = format!("x0 = {protected:#x} to a protected guest, {plain:#x} to others");
    assert!(README.contains(&features), "{features}");
}

const SOURCE: &str = include_str!("../src/guest_call.rs");

/// The name by which a standard, or Linux, knows a call, from its documentation, if that begins with it.
fn documented_name(id: GuestCallId) -> Option<&'static str> {
    let variant = format!("    {id:?} = ");
    let line = SOURCE.lines().position(|line| line.starts_with(&variant))?;
    let mut documentation = SOURCE.lines().take(line).collect::<Vec<_>>();
    let first = documentation
        .iter()
        .rposition(|line| !line.trim_start().starts_with("///"))?;
    let text = documentation
        .split_off(first + 1)
        .first()?
        .trim_start()
        .strip_prefix("/// ")?;
    let end =
        text.find(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'))?;
    let (name, _) = text.split_at(end);
    name.contains('_').then_some(name)
}

#[test]
fn the_exits_have_their_numbers() {
    let rows = rows("## What the host learns", "## What a guest's CPU is");
    let reasons = (0..).map_while(|number: u64| ExitReason::try_from(number).ok());
    assert_numbered(&rows, reasons.map(|reason| format!("{reason:?}")));
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// How a page of the repository calls the place of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_place_that_is_linked_to_is_there() {
    for (directory, readme) in [("", README)].into_iter().chain(MORE) {
        let links = readme
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let file = match file {
                "" => root().join(directory).join("README.md"),
                file => root().join(directory).join(file),
            };
            assert!(file.exists(), "{link}");
            if !place.is_empty() {
                let text = fs::read_to_string(&file).expect("a README can be read");
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim_start()));
                assert!(anchors.any(|anchor| anchor == place), "{link}");
            }
        }
    }
}

/// All source below a directory, and the names of its files.
fn read_all(directory: &Path, text: &mut String) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            read_all(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&path.to_string_lossy());
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn every_case_that_is_named_is_there() {
    let mut source = String::new();
    read_all(&root().join("tests"), &mut source).expect("the tests can be read");
    let differences = rows("## Where it differs from pKVM", "## Try it");
    let [_, (_, linux)] = MORE;
    let cases = rows_of(linux, "## KVM's own cases", "## Beside Linux");
    for row in differences.into_iter().chain(cases) {
        let names = row.last().expect("a row has cells").split('`').skip(1).step_by(2);
        for name in names {
            let is_there = [
                format!("case!({name},"),
                format!("\"{name}\""),
                format!("/{name}.rs"),
                // Among the names of `cases!`.
                format!("\n    {name},\n"),
                format!("cases![{name}]"),
            ];
            assert!(is_there.iter().any(|form| source.contains(form)), "{name}");
        }
    }
}
