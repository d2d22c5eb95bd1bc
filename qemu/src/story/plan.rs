//! What is done in the story, and what must come of it.
//!
//! A [`Chapter`] is told either by Freehold, by lines on the console that begin with one of its topics, or by the
//! host, which carries out [`Deed`]s one after the other.

/// A chapter of the story.
#[derive(Clone, Debug)]
pub(super) struct Chapter {
    /// What it is about.
    pub(super) title: &'static str,
    /// Who tells it.
    pub(super) teller: Source,
}

/// Who tells a chapter.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Freehold: for each of these topics there must be a line `freehold: <topic>…`; others may come between.
    Freehold(Vec<String>),
    /// The host.
    Host(Vec<Deed>),
}

/// Something that the host does.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    /// Who does what, in a sentence.
    pub(super) tells: String,
    /// The shell command. `$FREEHOLD` is the address of Freehold's own memory, `$PAGE` that of a block of 2 MiB
    /// that the host has to spare, `$probe` the probe.
    pub(super) command: String,
    /// What must come of it.
    pub(super) expected: Expected,
}

/// What must come of a deed.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// A line with all these words.
    Words(String),
    /// Just an exit status of 0.
    Success,
    /// The lines of an ownership map, and an exit status of 0; the map is drawn.
    Map,
}

fn deed(tells: impl Into<String>, command: impl Into<String>, words: impl Into<String>) -> Deed {
    Deed {
        tells: tells.into(),
        command: command.into(),
        expected: Expected::Words(words.into()),
    }
}

fn probe(tells: impl Into<String>, arguments: &str, words: impl Into<String>) -> Deed {
    deed(tells, format!("$probe {arguments}"), words)
}

fn state(of: &str, when: &str, expected: &str) -> Deed {
    probe(
        format!("Freehold's answer on the state of {of} {when}"),
        &format!(
            "call frame-state {}",
            if of == "Freehold's memory" {
                "$FREEHOLD"
            } else {
                "$PAGE"
            }
        ),
        format!("state={expected}"),
    )
}

fn map(tells: &str) -> Deed {
    Deed {
        tells: tells.to_owned(),
        command: "$probe map".to_owned(),
        expected: Expected::Map,
    }
}

/// The story with a kernel of that release on so many CPUs.
pub(super) fn plan(release: &str, cpus: u32) -> Vec<Chapter> {
    let host = |title, deeds| Chapter {
        title,
        teller: Source::Host(deeds),
    };
    let freehold = |title, topics: &[&str]| Chapter {
        title,
        teller: Source::Freehold(topics.iter().map(|&topic| topic.to_owned()).collect()),
    };
    let machine = format!("machine: {cpus} CPU(s)");
    vec![
        freehold(
            "The machine is found",
            &[&machine, "machine: RAM", "machine: GICv3"],
        ),
        freehold(
            "EL2 takes its own memory",
            &["EL2: reserved", "EL2: image", "EL2: pool", "EL2: keeps fw_cfg"],
        ),
        freehold(
            "The host is taken down to EL1",
            &["host: kernel", "host: enters EL1"],
        ),
        host("Debian reaches user space", arrival(release, cpus)),
        host("Every CPU came up through EL2", processors(cpus)),
        host("A page is shared with EL2, and taken back", sharing()),
        host("2 MiB are given to EL2, and gone from the host's sight", giving()),
        host("Debian attacks Freehold's own memory", attack()),
        host("Debian lives on", life(cpus)),
        host(
            "Who owns what, in the end",
            vec![map("the ownership map, region by region")],
        ),
    ]
}

fn arrival(release: &str, cpus: u32) -> Vec<Deed> {
    vec![
        deed("Debian's kernel says which one it is", "uname -r", release),
        deed(
            "Debian's kernel says where it runs",
            "dmesg | grep 'CPU(s) started'",
            "started at EL1",
        ),
        deed(
            "Debian counts its CPUs",
            "echo cpus=$(nproc)",
            format!("cpus={cpus}"),
        ),
        probe(
            "a program asks Freehold for its version",
            "call version",
            format!("status=Success cpus={cpus}"),
        ),
    ]
}

fn processors(cpus: u32) -> Vec<Deed> {
    let calls = (0..cpus).map(|cpu| {
        probe(
            format!("CPU {cpu} calls Freehold, which keeps count of its calls"),
            &format!("--cpu {cpu} call counter {cpu} Hypercalls | awk '{{ print; if (!/value=0 /) print \"nonzero\" }}'"),
            "nonzero",
        )
    });
    calls.collect()
}

fn sharing() -> Vec<Deed> {
    vec![
        state("the page", "before", "Host"),
        probe(
            "Debian writes a word to the page",
            "el1 write $PAGE 0x5ec4e7",
            "outcome=written",
        ),
        probe(
            "Debian shares the page",
            "call share $PAGE 1",
            "status=Success done=1",
        ),
        state("the page", "meanwhile", "HostSharedHyp"),
        probe(
            "Debian reads its word: shared is not lost",
            "el1 read $PAGE",
            "value=0x5ec4e7",
        ),
        probe(
            "Debian shares it a second time",
            "call share $PAGE 1",
            "status=SharedWithHyp",
        ),
        probe(
            "Debian ends the sharing",
            "call unshare $PAGE 1",
            "status=Success done=1",
        ),
        state("the page", "afterwards", "Host"),
        probe("Debian reads its word again", "el1 read $PAGE", "value=0x5ec4e7"),
    ]
}

fn giving() -> Vec<Deed> {
    vec![
        probe(
            "Debian gives a block of 512 pages",
            "call donate $PAGE 512",
            "status=Success done=512",
        ),
        state("the block", "meanwhile", "NotYours"),
        probe(
            "Debian's kernel reads it: refused, the kernel takes its fixup",
            "el1 read $PAGE",
            "outcome=refused",
        ),
        probe(
            "a program writes to it: a bus error",
            "el0 write $PAGE 1",
            "outcome=signal signal=SIGBUS",
        ),
        map("the ownership map, with the block given away"),
        probe(
            "Debian takes the block back",
            "call reclaim $PAGE 512",
            "status=Success done=512",
        ),
        state("the block", "afterwards", "Host"),
        probe(
            "Debian looks for its word: scrubbed",
            "el1 read $PAGE",
            "value=0x0",
        ),
    ]
}

fn attack() -> Vec<Deed> {
    vec![
        state("Freehold's memory", "for anybody who asks", "NotYours"),
        probe(
            "a program reads it",
            "el0 read $FREEHOLD",
            "outcome=signal signal=SIGBUS",
        ),
        probe(
            "a program writes to it",
            "el0 write $FREEHOLD 1",
            "outcome=signal signal=SIGBUS",
        ),
        probe(
            "a program jumps to it",
            "el0 fetch $FREEHOLD",
            "outcome=signal signal=SIGBUS",
        ),
        probe(
            "a program reads across its edge",
            "el0 read $((FREEHOLD - 4))",
            "outcome=signal signal=SIGBUS",
        ),
        probe(
            "Debian's kernel reads it",
            "el1 read $FREEHOLD",
            "outcome=refused",
        ),
        probe(
            "Debian's kernel writes to it",
            "el1 write $FREEHOLD 1",
            "outcome=refused",
        ),
        probe(
            "Debian's kernel reads it with no fixup: an oops of that task alone",
            "el1 read --bare $FREEHOLD",
            "outcome=died",
        ),
        probe(
            "Debian claims it as its own, to share",
            "call share $FREEHOLD 1",
            "status=NotOwner",
        ),
        probe(
            "Debian claims it as its own, to give",
            "call donate $FREEHOLD 1",
            "status=NotOwner",
        ),
        probe(
            "Debian asks for it back, which it never gave",
            "call reclaim $FREEHOLD 1",
            "status=NotDonated",
        ),
        probe(
            "Debian gives it to the pool it belongs to",
            "call pool-top-up $FREEHOLD 1",
            "status=NotOwner",
        ),
    ]
}

fn life(cpus: u32) -> Vec<Deed> {
    vec![
        Deed {
            tells: format!("{cpus} CPUs copy and compare 8 MiB each, and 100 processes come and go"),
            command: format!(
                "for n in $(seq {cpus}); do (dd if=/dev/urandom of=/tmp/a$n bs=1M count=8 2>/dev/null; \
                 cp /tmp/a$n /tmp/b$n; cmp /tmp/a$n /tmp/b$n || echo differ > /tmp/bad) & done; \
                 for n in $(seq 100); do /bin/true || echo lost > /tmp/bad; done; wait; [ ! -e /tmp/bad ]"
            ),
            expected: Expected::Success,
        },
        probe(
            "Freehold compares its map with its tables for all RAM",
            "call audit $RAM $FRAMES",
            "status=Success",
        ),
        Deed {
            tells: "Freehold's statistics".to_owned(),
            command: "$probe statistics".to_owned(),
            expected: Expected::Success,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chapter_has_something_to_tell() {
        for chapter in plan("6.1.0", 2) {
            let empty = match &chapter.teller {
                Source::Freehold(topics) => topics.is_empty(),
                Source::Host(deeds) => deeds.is_empty(),
            };
            assert!(!empty, "{}", chapter.title);
        }
    }

    #[test]
    fn every_deed_expects_something() {
        for chapter in plan("6.1.0", 2) {
            let Source::Host(deeds) = chapter.teller else {
                continue;
            };
            for deed in deeds {
                if let Expected::Words(words) = deed.expected {
                    assert!(words.split_whitespace().next().is_some(), "{}", deed.tells);
                }
            }
        }
    }
}
