//! Has the host carry out the deeds of a plan, and reads what came of them.
//!
//! The host's script runs one deed after the other and tells the runner, a line each:
//! `story begin <number>`, `story fact <number> <name> <value>` for what it asked Freehold before and after,
//! `story out <number> <line>` for what the command printed, `story end <number> <status>`. It judges nothing.

use super::plan::{Chapter, Deed, Source};
use crate::process::quote;
use std::fmt::Write as _;

/// What stands before the deeds: finds the addresses that they name.
const PREAMBLE: &str = include_str!("script/preamble.sh");

/// What comes after it where the host has a protected guest.
pub(super) const PROTECTED: &str = include_str!("script/protected.sh");

/// The guest's script there.
pub(super) const GUEST: &str = include_str!("script/guest.sh");

/// The host's script for a plan, whose deeds need the functions in `more` besides the common ones.
pub(super) fn write(plan: &[Chapter], more: &str) -> String {
    let mut script = [PREAMBLE, more].concat();
    for (number, (_, deed)) in deeds(plan).enumerate() {
        let frame = deed.watched.map_or("", |watched| watched.frame);
        let counter = deed.counter.unwrap_or_default();
        let _ = writeln!(
            script,
            "deed {number} {} {} {}",
            quote(frame),
            quote(counter),
            quote(&deed.command)
        );
    }
    script.push_str("touch /tmp/done\n");
    script
}

/// All deeds of a plan with the number of their chapter. Their place here is their number in the script.
pub(super) fn deeds(plan: &[Chapter]) -> impl Iterator<Item = (usize, &Deed)> {
    plan.iter().enumerate().flat_map(|(chapter, told)| {
        let deeds = match &told.teller {
            Source::Host(deeds) => deeds.as_slice(),
            Source::Freehold(_) => &[],
        };
        deeds.iter().map(move |deed| (chapter, deed))
    })
}

/// A line of the script's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A deed begins.
    Begin(usize),
    /// Something was found out about it.
    Fact(usize, Fact<'a>),
    /// Its command printed a line.
    Out(usize, &'a str),
    /// Its command ended with a status.
    End(usize, i32),
}

/// What is found out about a deed, beside what its command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact<'a> {
    /// The address of the frame it is about.
    Frame(&'a str),
    /// The frame's state before.
    Before(&'a str),
    /// The frame's state afterwards.
    After(&'a str),
    /// By how much Freehold's counter has grown.
    Counted(u64),
}

/// The event that a console line tells, if it tells one.
pub(super) fn read(line: &str) -> Option<Event<'_>> {
    let (kind, rest) = line.strip_prefix("story ")?.split_once(' ')?;
    let (number, detail) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    match kind {
        "begin" if detail.is_empty() => Some(Event::Begin(number)),
        "fact" => {
            let (name, value) = detail.split_once(' ')?;
            let fact = match name {
                "frame" => Fact::Frame(value),
                "before" => Fact::Before(value),
                "after" => Fact::After(value),
                "counted" => Fact::Counted(value.parse().ok()?),
                _ => return None,
            };
            Some(Event::Fact(number, fact))
        }
        "out" => Some(Event::Out(number, detail)),
        "end" => Some(Event::End(number, detail.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{story::plan, workspace::Scratch};
    use std::process::{Child, Command, Stdio};
    use std::{fs, fs::OpenOptions, io::Write as _, path::PathBuf};

    #[test]
    fn a_line_is_an_event_only_if_it_is_whole() {
        assert_eq!(read("story begin 3"), Some(Event::Begin(3)));
        assert_eq!(read("story out 3 a line"), Some(Event::Out(3, "a line")));
        assert_eq!(read("story out 3 "), Some(Event::Out(3, "")));
        assert_eq!(read("story end 3 4"), Some(Event::End(3, 4)));
        assert_eq!(
            read("story fact 3 before Host"),
            Some(Event::Fact(3, Fact::Before("Host")))
        );
        assert_eq!(
            read("story fact 3 counted 2"),
            Some(Event::Fact(3, Fact::Counted(2)))
        );
        for line in [
            "story",
            "story end 3",
            "story end x 1",
            "story begin",
            "story fact 3 before",
            "story fact 3 counted x",
            "story fact 3 else 1",
            "a story begin 3",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn the_script_is_one_that_a_shell_understands() {
        for script in [
            write(&plan::first_act("6.1.0", 4), ""),
            write(&plan::protected("6.12.0", 4), PROTECTED),
            GUEST.to_owned(),
        ] {
            is_understood(&script);
        }
    }

    fn is_understood(script: &str) {
        let mut shell = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }

    /// A host that looked when two of the number's four digits were there took "pages=20" for what the guest had said.
    #[test]
    fn what_a_guest_says_is_heard_when_the_line_is_whole() {
        let ground = Ground::new("guest secret=kept pages=20");
        let mut shell = ground.hear("secret=kept");
        // The next look comes at what it has not, until there is the rest.
        while fs::read_to_string(ground.path("looks")).unwrap_or_default().len() < 3 {
            assert!(shell.try_wait().unwrap().is_none(), "it heard what was not whole");
        }
        ground.say("48\r\n");
        assert_eq!(told(shell), (true, "guest secret=kept pages=2048\n".into()));
    }

    /// What a guest said last may be there only when its VMM has ended.
    #[test]
    fn what_a_guest_said_last_is_heard() {
        let ground = Ground::new("guest secret=intact\r\n");
        fs::write(ground.path("status"), "0\n").unwrap();
        assert_eq!(
            told(ground.hear("secret=intact")),
            (true, "guest secret=intact\n".into())
        );
    }

    #[test]
    fn a_guest_that_has_ended_is_not_waited_for() {
        let ground = Ground::new("guest failed: there is no pool to lend\r\n");
        fs::write(ground.path("report"), "freehold-vmm: over\n").unwrap();
        fs::write(ground.path("status"), "1\n").unwrap();
        assert_eq!(
            told(ground.hear("secret")),
            (
                false,
                "guest failed: there is no pool to lend\r\nfreehold-vmm: over\n".into()
            )
        );
    }

    /// Where the script has its files, instead of in `/tmp`.
    struct Ground(Scratch);

    impl Ground {
        /// With a console that says this.
        fn new(said: &str) -> Self {
            let ground = Self(Scratch::new().unwrap());
            ground.say(said);
            ground
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn say(&self, words: &str) {
            let mut console = OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path("console"))
                .unwrap();
            console.write_all(words.as_bytes()).unwrap();
        }

        /// A shell that waits for the guest's words. Each time that it has to wait, it leaves a mark.
        fn hear(&self, words: &str) -> Child {
            let here = format!("{}/", self.0.path().display());
            let wait = format!("usleep() {{ printf . >>{here}looks; sleep 0.1; }}\n");
            let script = [&wait, &PROTECTED.replace("/tmp/", &here), "hear ", words].concat();
            Command::new("sh")
                .args(["-c", &script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        }
    }

    fn told(shell: Child) -> (bool, String) {
        let output = shell.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }
}
