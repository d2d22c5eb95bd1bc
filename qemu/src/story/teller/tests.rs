use super::*;
use crate::story::plan;

/// All that is told.
fn acts() -> [Vec<Chapter>; 3] {
    [
        plan::protected("6.12.0", 2),
        plan::first_act("6.1.0", 2),
        plan::second_act(12, "00ff".to_owned()),
    ]
}

/// What a machine prints on which all goes well.
fn good(plan: &[Chapter]) -> Vec<String> {
    let mut console = Vec::new();
    for chapter in plan {
        if let Source::Freehold(topics) = &chapter.teller {
            console.extend(
                topics
                    .iter()
                    .map(|topic| format!("freehold: {topic}: as it must be")),
            );
        }
    }
    for (number, (_, deed)) in script::deeds(plan).enumerate() {
        let out: &[&str] = match &deed.expected {
            Expected::Words(words) => &[words],
            Expected::Success => &["something"],
            Expected::Map => &["map 0x40000000 512 Host"],
            Expected::Finding => &["a finding"],
            Expected::Digest(_) => &["digest 00ff"],
            Expected::Guests { secret: true } => &[
                "vm 1 private 511 lent 1",
                "map 0x40000000 1 Mixed",
                "frames 0x40000000 511 Guest/1",
                "frames 0x401ff000 1 GuestSharedHost/1",
                "secret guests 9 host 0",
            ],
            Expected::Guests { secret: false } => &["map 0x40000000 512 Host", "secret guests 0 host 0"],
        };
        console.push(format!("story begin {number}"));
        if let Some(watched) = deed.watched {
            console.push(format!("story fact {number} before {}", watched.before));
            console.push(format!("story fact {number} after {}", watched.after));
        }
        if deed.counter.is_some() {
            console.push(format!("story fact {number} counted 1"));
        }
        console.push("[    1.0] the kernel says something in between".to_owned());
        console.extend(out.iter().map(|out| format!("story out {number} {out}")));
        console.push(format!("story end {number} 0"));
    }
    console
}

fn is_well(plan: &[Chapter], console: &[String]) -> bool {
    let manner = Manner {
        chapters_before: 0,
        all_of_freehold: true,
    };
    let mut teller = Teller::new(plan, manner, Instant::now(), std::io::sink());
    console.iter().for_each(|line| teller.hear(line));
    teller.finish().is_well
}

#[test]
fn a_story_is_good_only_if_nothing_of_it_is_missing_or_otherwise() {
    for plan in acts() {
        let console = good(&plan);
        assert!(is_well(&plan, &console));
        for (index, line) in console.iter().enumerate() {
            // What is drawn and not counted, and what stands for a region whose frames are told apart.
            let optional = line.starts_with('[') || line.ends_with("something") || line.ends_with("Mixed");
            let is_all_there_is = line.ends_with(" Host") && line.contains("map");
            if !optional || is_all_there_is {
                let mut without = console.clone();
                without.remove(index);
                assert!(!is_well(&plan, &without), "well without `{line}`");
            }
        }
    }
}

#[test]
fn a_story_with_anything_twice_or_besides_is_not_good() {
    for plan in acts() {
        let console = good(&plan);
        let deeds = script::deeds(&plan).count();
        let extra = [
            vec![format!("story begin {deeds}")],
            vec![format!("story end {deeds} 0")],
            vec!["story begin 0".to_owned(), "story end 0 0".to_owned()],
            vec!["story out 0 more".to_owned()],
        ];
        for lines in extra {
            assert!(
                !is_well(&plan, &[console.clone(), lines.clone()].concat()),
                "{lines:?}"
            );
        }
    }
}

#[test]
fn a_status_matters_where_a_deed_judges_itself() {
    for plan in acts() {
        let judged = script::deeds(&plan)
            .enumerate()
            .filter(|(_, (_, deed))| !matches!(deed.expected, Expected::Words(_)));
        for (number, _) in judged {
            let mut console = good(&plan);
            let end = console
                .iter_mut()
                .find(|line| **line == format!("story end {number} 0"))
                .unwrap();
            *end = format!("story end {number} 1");
            assert!(!is_well(&plan, &console), "deed {number}");
        }
    }
}

#[test]
fn what_is_seen_from_outside_must_be_what_was_said() {
    let [.., plan] = acts();
    for (line, other) in [
        ("digest 00ff", "digest 00fe"),
        ("vm 1 private 511 lent 1", "vm 1 private 510 lent 1"),
        (
            "frames 0x401ff000 1 GuestSharedHost/1",
            "frames 0x401ff000 1 Guest/2",
        ),
        ("secret guests 9 host 0", "secret guests 9 host 1"),
        ("secret guests 9 host 0", "secret guests 0 host 0"),
        ("secret guests 0 host 0", "secret guests 1 host 0"),
    ] {
        let console: Vec<_> = good(&plan).iter().map(|said| said.replace(line, other)).collect();
        assert!(!is_well(&plan, &console), "{other}");
    }
}

#[test]
fn a_topic_is_whole_words() {
    assert!(is_about("cpus: 4", "cpus") && is_about("host", "host"));
    assert!(!is_about("hosts: 4", "host"));
}

#[test]
fn no_line_is_wider_than_a_terminal() {
    for plan in acts() {
        let mut told = Vec::new();
        let manner = Manner {
            chapters_before: 10,
            all_of_freehold: true,
        };
        let mut teller = Teller::new(&plan, manner, Instant::now(), &mut told);
        teller.introduce("An act: of some words", "a machine");
        teller.hear("freehold: EL2: reserved 0x40000000..0x40200000, 2048 KiB");
        teller.hear("freehold: EL2: image 0x40000000..0x40100000, ownership map 0x40100000..0x40101000 of 512 regions");
        good(&plan).iter().for_each(|line| teller.hear(line));
        teller.finish();
        let told = String::from_utf8(told).unwrap();
        for line in anstream::adapter::strip_str(&told).to_string().lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}
