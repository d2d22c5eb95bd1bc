//! What is done in the story, and what must come of it.
//!
//! A [`Chapter`] is told either by Freehold, by lines on the console that begin with one of its topics, or by the
//! host, which carries out [`Deed`]s one after the other. The deeds themselves are in [`protected`] for the story of
//! Debian and its guest, in [`host`] for the first act of the other and in [`guest`] for its second.

mod guest;
mod host;
mod protected;

pub(super) use guest::plan as second_act;
pub(super) use host::plan as first_act;
pub(super) use protected::plan as protected;

/// What Freehold counts when it refuses an access.
const ABORT: &str = "HostAbortsInjected";

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
    /// Who asks, and how.
    pub(super) who: Who,
    /// What, in a few words.
    pub(super) tells: String,
    /// Where Debian is the host the shell command: `$FREEHOLD` is the address of Freehold's own memory; `$PAGE` and `$BLOCK`
    /// are those of blocks of 2 MiB that the host has to spare; `$probe` is the probe; `script/preamble.sh` has
    /// more, and `script/protected.sh` what concerns a guest. In the second act the name of the payload's step.
    pub(super) command: String,
    /// What must come of it.
    pub(super) expected: Expected,
    /// The frames that it is about.
    pub(super) watched: Option<Watched>,
    /// The counter of Freehold's that must grow meanwhile, by name.
    pub(super) counter: Option<&'static str>,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A program, at EL0.
    Program,
    /// The kernel, by an access at EL1.
    Kernel,
    /// The kernel, by a hypercall.
    Call,
    /// The kernel, by a call to the firmware.
    Smc,
    /// The kernel, by a system register.
    Register,
    /// A device, on the kernel's behalf.
    Device,
    /// The host's kernel and its programs.
    Everybody,
    /// The guest's kernel, by an access.
    Guest,
    /// The guest's kernel, by a hypercall.
    GuestCall,
    /// Another guest.
    OtherGuest,
    /// This program, from outside the machine.
    Runner,
}

impl Who {
    /// A word or two for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Kernel => "host kernel",
            Self::Call => "host call",
            Self::Smc => "host SMC",
            Self::Register => "host MRS",
            Self::Device => "fw_cfg DMA",
            Self::Everybody => "whole host",
            Self::Guest => "guest",
            Self::GuestCall => "guest call",
            Self::OtherGuest => "other guest",
            Self::Runner => "runner",
        }
    }
}

/// Frames whose state is asked for before a deed and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    /// The first of them, as the shell computes it; the payload's steps know theirs themselves.
    pub(super) frame: &'static str,
    /// How many there are.
    pub(super) frames: u64,
    /// The state that the first one must be in before.
    pub(super) before: &'static str,
    /// And afterwards.
    pub(super) after: &'static str,
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
    /// An exit status of 0 and something that was found, whose words do not matter.
    Finding,
    /// This launch digest, and an exit status of 0.
    Digest(String),
    /// An ownership map, looked at from outside, in which every VM has as many frames as EL2 says and no other VM has
    /// any, and an exit status of 0. The host can read no word of the guest's secret.
    Guests {
        /// Whether a guest's own frames hold the secret.
        secret: bool,
    },
}

impl Deed {
    fn new(who: Who, tells: impl Into<String>, command: impl Into<String>, words: impl Into<String>) -> Self {
        Self {
            who,
            tells: tells.into(),
            command: command.into(),
            expected: Expected::Words(words.into()),
            watched: None,
            counter: None,
        }
    }

    /// About `frames` frames from `frame`, whose state changes.
    fn moving(self, frame: &'static str, frames: u64, before: &'static str, after: &'static str) -> Self {
        Self {
            watched: Some(Watched {
                frame,
                frames,
                before,
                after,
            }),
            ..self
        }
    }

    /// About a frame, whose state stays.
    fn on(self, frame: &'static str, state: &'static str) -> Self {
        self.moving(frame, 1, state, state)
    }

    /// Freehold must count it.
    fn counted(self, counter: &'static str) -> Self {
        Self {
            counter: Some(counter),
            ..self
        }
    }
}

/// A chapter that the host tells.
fn host(title: &'static str, deeds: Vec<Deed>) -> Chapter {
    Chapter {
        title,
        teller: Source::Host(deeds),
    }
}

/// A chapter that Freehold tells.
fn freehold(title: &'static str, topics: &[&str]) -> Chapter {
    Chapter {
        title,
        teller: Source::Freehold(topics.iter().map(|&topic| topic.to_owned()).collect()),
    }
}

/// The chapters of a boot on so many CPUs.
fn boot(cpus: u32) -> Vec<Chapter> {
    let machine = format!("machine: {cpus} CPU(s)");
    vec![
        freehold(
            "Freehold finds the machine",
            &[&machine, "machine: RAM", "machine: GICv3"],
        ),
        freehold(
            "EL2 takes its own memory, and the devices that could get around it",
            &[
                "EL2: reserved",
                "EL2: image",
                "EL2: CPUs",
                "EL2: pool",
                "EL2: keeps fw_cfg",
            ],
        ),
        freehold(
            "The host is taken down to EL1",
            &["host: kernel", "host: ramdisk", "host: enters EL1"],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chapters() -> Vec<Chapter> {
        [
            protected("6.12.0", 2),
            first_act("6.1.0", 2),
            second_act(12, "00".to_owned()),
        ]
        .concat()
    }

    #[test]
    fn every_chapter_has_something_to_tell() {
        for chapter in chapters() {
            let empty = match &chapter.teller {
                Source::Freehold(topics) => topics.is_empty(),
                Source::Host(deeds) => deeds.is_empty(),
            };
            assert!(!empty, "{}", chapter.title);
        }
    }

    #[test]
    fn every_deed_expects_something() {
        for chapter in chapters() {
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
