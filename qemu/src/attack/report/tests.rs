use super::expected::{EXITS, KINDS, Sides, calls, guest_calls, statuses};
use super::*;

/// What a payload says when all is well.
fn well() -> Vec<String> {
    let mut lines = vec![
        "A begin 1 100 2".to_owned(),
        "A reservation 0x40200000 0x40400000".to_owned(),
    ];
    let both = |sides| match sides {
        Sides::Accepted => "9 0",
        Sides::Refused => "0 9",
        Sides::Both | Sides::Any => "4 5",
    };
    lines.extend(calls().map(|(name, sides)| format!("A call {name} {}", both(sides))));
    lines.extend(statuses().map(|status| format!("A status {status:?} 3")));
    lines.extend(
        KINDS
            .iter()
            .map(|(name, sides)| format!("A attack {name} {}", both(*sides))),
    );
    lines.push("A entropy 1".to_owned());
    lines.extend(guest_calls(true).map(|id| format!("A guest-call {id:?} 3 4")));
    lines.extend(EXITS.iter().map(|reason| format!("A exit {reason:?} 6")));
    lines.push("A deaths 30 20".to_owned());
    lines.push("A guest-audit 4096".to_owned());
    lines.push("A secret 7".to_owned());
    lines.push("A guest 7 0x49000000 2".to_owned());
    lines.push("A hyp 0x48000000 2".to_owned());
    lines.push("A pool 20 18".to_owned());
    lines.push("A audit 65536 0".to_owned());
    lines.push("A done 0".to_owned());
    lines
}

fn judged(lines: &[String]) -> Report {
    let mut report = read(lines).unwrap();
    report.note_canaries(
        Found {
            pages: 40,
            at_home: 7,
            cpus: 2,
            ..Found::default()
        },
        2,
    );
    let seeds = report.guests().seeds.iter();
    let secrets = seeds.map(|seed| secret::Found {
        seed: *seed,
        in_guest: 5,
        in_hyp: 6,
        ..secret::Found::default()
    });
    report.note_secrets(secrets.collect());
    report.judge(2, 100);
    report
}

/// The failures when the line that begins with `old` is replaced.
fn failures(old: &str, new: &str) -> Vec<String> {
    let mut lines = well();
    let line = lines.iter_mut().find(|line| line.starts_with(old)).unwrap();
    *line = new.to_owned();
    let report = judged(&lines);
    assert!(report.missing.is_empty(), "{:?}", report.missing);
    report.failures
}

/// What is missing when the line that begins with `old` is replaced. Nothing is wrong.
fn missing(old: &str, new: &str) -> Vec<String> {
    let mut lines = well();
    let line = lines.iter_mut().find(|line| line.starts_with(old)).unwrap();
    *line = new.to_owned();
    let report = judged(&lines);
    assert_eq!(report.is_too_short(), !report.missing.is_empty());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report.missing
}

#[test]
fn all_is_well_only_if_everything_was_seen() {
    let report = judged(&well());
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.missing, Vec::<String>::new());
    assert_eq!(report.hyp(), [0x4020_0000..0x4040_0000, 0x4800_0000..0x4800_2000]);
    assert_eq!(report.guests().memory, [(7, 0x4900_0000..0x4900_2000)]);
    for (index, line) in well().iter().enumerate() {
        let mut lines = well();
        lines.remove(index);
        let needed = [
            "A call ",
            "A status ",
            "A attack ",
            "A entropy",
            "A guest-call ",
            "A exit ",
            "A deaths",
            "A guest-audit",
            "A secret",
            "A audit",
            "A pool",
        ];
        if needed.iter().any(|kind| line.starts_with(kind)) {
            assert!(!judged(&lines).passed(), "`{line}` was not missed");
        }
    }
}

#[test]
fn a_call_that_was_never_accepted_fails_the_run() {
    let missing = missing("A call Audit", "A call Audit 0 100");
    assert_eq!(missing, ["Audit was accepted 0 and refused 100 times"]);
}

#[test]
fn a_call_that_was_never_refused_fails_the_run() {
    let missing = missing("A call VmDonate", "A call VmDonate 100 0");
    assert_eq!(missing, ["VmDonate was accepted 100 and refused 0 times"]);
}

#[test]
fn a_guest_whose_calls_are_all_refused_fails_the_run() {
    for (old, new) in [
        ("A guest-call MemShare", "A guest-call MemShare 0 100"),
        ("A guest-call TrngRnd64", "A guest-call TrngRnd64 0 100"),
        ("A exit MmioRead", "A exit MmioRead 0"),
        ("A deaths", "A deaths 10 0"),
        ("A guest-audit", "A guest-audit 0"),
    ] {
        assert_eq!(missing(old, new).len(), 1, "{new}");
    }
}

// A guest that does not do what it was told to may have its answers taken for those to a call that there is not.
#[test]
fn without_entropy_no_call_about_it_is_missed() {
    let lines = well().into_iter().map(|line| match line.as_str() {
        "A entropy 1" => "A entropy 0".to_owned(),
        line if line.starts_with("A guest-call TrngVersion") => "A guest-call TrngVersion 257 18".to_owned(),
        line if line.starts_with("A guest-call Trng") => {
            format!("{} 0 9", line.rsplitn(3, ' ').last().unwrap())
        }
        _ => line,
    });
    assert!(judged(&lines.collect::<Vec<_>>()).passed());
}

#[test]
fn a_secret_that_the_host_can_read_fails_the_run() {
    let mut report = read(&well()).unwrap();
    report.note_secrets(vec![secret::Found {
        seed: 7,
        in_guest: 5,
        in_hyp: 6,
        leaks: vec![Place::Memory(0x4800_0000), Place::Register("X00=1".to_owned())],
        leaked: 9,
    }]);
    assert_eq!(report.failures.len(), 3, "{:?}", report.failures);
    assert!(report.table().contains("FAILED: memory at 0x48000000"));
}

#[test]
fn a_secret_that_is_not_found_where_it_belongs_fails_the_run() {
    for (in_guest, in_hyp) in [(0, 6), (5, 0)] {
        let mut report = judged(&well());
        report.note_secrets(vec![secret::Found {
            seed: 7,
            in_guest,
            in_hyp,
            ..secret::Found::default()
        }]);
        report.judge(2, 100);
        assert_eq!(report.missing.len(), 1, "{:?}", report.missing);
    }
}

#[test]
fn an_attack_that_went_through_fails_the_run() {
    assert_eq!(
        failures("A attack access.hyp", "A attack access.hyp 1 99").len(),
        1
    );
    assert_eq!(
        failures("A attack access.own", "A attack access.own 99 1").len(),
        1
    );
    assert_eq!(
        failures("A attack device.lpi", "A attack device.lpi 0 99").len(),
        0
    );
}

#[test]
fn a_disagreement_fails_the_run() {
    assert_eq!(failures("A audit", "A audit 65536 1").len(), 1);
}

#[test]
fn too_few_calls_fail_the_run() {
    let mut report = judged(&well());
    report.judge(2, 100_000);
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
}

#[test]
fn what_the_payload_calls_a_failure_is_one() {
    let mut lines = well();
    lines.insert(2, "A fail CPU 0 step 3: too bad".to_owned());
    *lines.last_mut().unwrap() = "A done 5".to_owned();
    assert_eq!(
        judged(&lines).failures,
        ["CPU 0 step 3: too bad", "and 4 more of the kind"]
    );
}

#[test]
fn a_line_that_makes_no_sense_is_an_error() {
    for line in [
        "A call Version 1",
        "A audit x 0",
        "A nonsense",
        "A hyp 0x1",
        "A guest 0x49000000 2",
    ] {
        assert!(read(&[line.to_owned()]).is_err(), "{line}");
    }
}

#[test]
fn canaries_speak_for_themselves() {
    let mut report = read(&well()).unwrap();
    report.note_canaries(
        Found {
            changed: vec![0x4030_0000],
            leaks: vec![super::super::canary::Leak {
                place: Place::Memory(0x4800_0000),
                value: 1,
            }],
            more_leaks: 3,
            cpus: 1,
            ..Found::default()
        },
        2,
    );
    assert_eq!(report.failures.len(), 4, "{:?}", report.failures);
    assert!(report.table().contains("FAILED: the host's memory at 0x48000000"));
}
