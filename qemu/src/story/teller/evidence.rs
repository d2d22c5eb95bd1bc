//! What is known of a deed, and whether it went as it must.

use crate::story::{
    picture::{self, Guest, Part},
    plan::{Deed, Expected},
    script::Fact,
};
use std::{collections::BTreeSet, fmt::Write as _};

/// What is known of a deed.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    frame: Option<String>,
    before: Option<String>,
    after: Option<String>,
    counted: Option<u64>,
    said: Vec<String>,
}

impl Evidence {
    /// Takes note of a fact.
    pub(super) fn learn(&mut self, fact: Fact<'_>) {
        match fact {
            Fact::Frame(frame) => self.frame = Some(frame.to_owned()),
            Fact::Before(state) => self.before = Some(state.to_owned()),
            Fact::After(state) => self.after = Some(state.to_owned()),
            Fact::Counted(number) => self.counted = Some(number),
        }
    }

    /// Takes note of a line that the command printed.
    pub(super) fn hear(&mut self, line: &str) {
        self.said.push(line.to_owned());
    }

    /// All that the command printed.
    pub(super) fn said(&self) -> impl Iterator<Item = &str> {
        self.said.iter().map(String::as_str)
    }

    /// Whether the deed, whose command ended with `status`, went as it must.
    ///
    /// # Errors
    /// What is otherwise.
    pub(super) fn judge(&self, deed: &Deed, status: i32) -> Result<(), String> {
        match &deed.expected {
            Expected::Words(words) if self.line_with(words).is_none() => {
                return Err(format!("must be: {words}"));
            }
            Expected::Success | Expected::Map if status != 0 => return Err("must succeed".to_owned()),
            Expected::Map if picture::draw(self.said(), None, &[]).is_none() => {
                return Err("there is no map".to_owned());
            }
            Expected::Finding | Expected::Digest(_) | Expected::Guests { .. } if status != 0 => {
                return Err("it says that it went wrong".to_owned());
            }
            Expected::Finding if self.said.is_empty() => return Err("nothing was found".to_owned()),
            Expected::Digest(digest) if self.said != [format!("digest {digest}")] => {
                return Err(format!("the runner makes it {digest}"));
            }
            Expected::Guests { secret } => self.judge_guests(*secret)?,
            _ => {}
        }
        if let Some(watched) = deed.watched {
            let (before, after) = (watched.before, watched.after);
            if self.before.as_deref() != Some(before) || self.after.as_deref() != Some(after) {
                return Err(format!(
                    "the state must be {before} before and {after} afterwards, not {} and {}",
                    self.before.as_deref().unwrap_or("unknown"),
                    self.after.as_deref().unwrap_or("unknown")
                ));
            }
        }
        match (deed.counter, self.counted) {
            (Some(counter), None | Some(0)) => Err(format!("Freehold's {counter} has not counted it")),
            _ => Ok(()),
        }
    }

    /// Whether the map that was seen from outside is the one that EL2 tells of, and the secret is where it must be.
    fn judge_guests(&self, secret: bool) -> Result<(), String> {
        let said: BTreeSet<_> = self
            .said()
            .filter(|line| line.starts_with("vm "))
            .map(str::to_owned)
            .collect();
        let Some(guests) = picture::guests(self.said()) else {
            return Err("there is no map".to_owned());
        };
        let seen: BTreeSet<_> = guests
            .iter()
            .map(|(slot, Guest { private, lent })| format!("vm {slot} private {private} lent {lent}"))
            .collect();
        if said != seen {
            return Err(format!("seen from outside: {seen:?}"));
        }
        let words = self.said().find_map(|line| {
            let (guests, host) = line.strip_prefix("secret guests ")?.split_once(" host ")?;
            Some((guests.parse::<u64>().ok()?, host.parse::<u64>().ok()?))
        });
        match words {
            Some((guests, 0)) if (guests > 0) == secret => Ok(()),
            Some((guests, host)) => Err(format!(
                "words of the secret: {guests} in guests' own frames, {host} where the host can read"
            )),
            None => Err("nobody looked for the secret".to_owned()),
        }
    }

    /// The frame, its states and what came of the deed, apart by `; `.
    pub(super) fn tell(&self, deed: &Deed) -> String {
        let mut parts = Vec::new();
        if let (Some(frame), Some(watched)) = (&self.frame, deed.watched) {
            let frames = match watched.frames {
                1 => frame.clone(),
                many => format!("{frame}, the first of {many},"),
            };
            parts.push(match (&self.before, &self.after) {
                (Some(before), Some(after)) if before == after => format!("{frames} stays {before}"),
                (before, after) => format!(
                    "{frames} {} → {}",
                    before.as_deref().unwrap_or("?"),
                    after.as_deref().unwrap_or("?")
                ),
            });
        }
        parts.extend(match &deed.expected {
            Expected::Words(words) => self.line_with(words).map(received),
            Expected::Finding => self.said().next().map(str::to_owned),
            Expected::Digest(_) => self.said().next().map(abbreviate),
            Expected::Guests { .. } => Some(self.tell_guests()),
            Expected::Success | Expected::Map => None,
        });
        if let (Some(_), Some(number)) = (deed.counter, self.counted) {
            parts.push(format!("EL2 counts {number}"));
        }
        parts.join("; ")
    }

    /// What each VM has, and where the secret is.
    fn tell_guests(&self) -> String {
        let mut parts = Vec::new();
        for line in self.said() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["vm", slot, "private", private, "lent", lent] => {
                    parts.push(format!("VM {slot}: {private} frames private, {lent} lent"));
                }
                ["secret", "guests", guests, "host", host] => {
                    parts.push(format!("words of the secret: {guests} in private frames"));
                    parts.push(format!("{host} in what the host can read"));
                }
                ["map" | "frames", ..] => {}
                // Why nothing was seen.
                _ => parts.push(line.to_owned()),
            }
        }
        parts.join("; ")
    }

    fn line_with(&self, words: &str) -> Option<&str> {
        self.said().find(|line| has_words(line, words))
    }
}

fn has_words(line: &str, words: &str) -> bool {
    words
        .split_whitespace()
        .all(|word| line.split_whitespace().any(|of_line| of_line == word))
}

/// What came of a deed, of the probe's line only what says something; other lines as they are.
fn received(line: &str) -> String {
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    match field("outcome") {
        Some("refused") => "refused (−EFAULT)".to_owned(),
        Some("written") => "written".to_owned(),
        Some("signal") => format!(
            "{} ({})",
            field("signal").unwrap_or("a signal"),
            field("code").unwrap_or("no code")
        ),
        Some("died") => match line.split_once("Internal error: ") {
            Some((_, oops)) => format!("\"{}\"", oops.trim_end_matches('"')),
            None => "the task died".to_owned(),
        },
        Some("value") => format!("value {}", field("value").unwrap_or("?")),
        Some("returned") => returned(&field),
        // A ranged call that is refused says so in a step of its own.
        None if line.starts_with("step ") => returned(&field),
        _ => line.to_owned(),
    }
}

/// A digest by its first and last digits: all of them have been compared.
fn abbreviate(line: &str) -> String {
    match line.split_once(' ') {
        Some((name, digits)) if digits.len() == 64 && digits.is_ascii() => {
            format!("{name} {}…{}", &digits[..24], &digits[56..])
        }
        _ => line.to_owned(),
    }
}

fn returned<'a>(field: &impl Fn(&str) -> Option<&'a str>) -> String {
    let mut text = field("status").unwrap_or("no status").to_owned();
    if let Some(version) = field("version") {
        let _ = write!(text, ", version {version}");
    }
    for (name, words) in [("done", "done"), ("cpus", "CPUs")] {
        if let Some(value) = field(name) {
            let _ = write!(text, ", {value} {words}");
        }
    }
    text
}

/// The ranges in what Freehold says of its memory: `name 0x1000..0x2000, name 0x2000..0x3000 of 5 things`.
pub(super) fn ranges(words: &str) -> Vec<Part> {
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    words
        .split(", ")
        .filter_map(|part| {
            let (name, rest) = part.split_once(" 0x")?;
            let range = rest.split_whitespace().next()?;
            let (start, end) = range.split_once("..")?;
            let range = number(&format!("0x{start}"))?..number(end)?;
            Some(Part {
                name: name.to_owned(),
                range,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_words_of_one_line() {
        assert!(has_words(
            "call share status=Success done=1",
            "status=Success done=1"
        ));
        assert!(!has_words("status=Success done=12", "status=Success done=1"));
        assert!(!has_words("state=HostSharedHyp", "state=Host"));
        let mut evidence = Evidence::default();
        evidence.hear("status=Success");
        evidence.hear("done=1");
        assert_eq!(evidence.line_with("status=Success done=1"), None);
    }

    #[test]
    fn what_came_is_told_in_short() {
        let told = [
            (
                "way=el0 deed=read size=8 address=0x1 outcome=signal signal=SIGBUS code=BUS_ADRALN at=0x1",
                "SIGBUS (BUS_ADRALN)",
            ),
            (
                "way=el1-bare address=0x1 outcome=died signal=SIGSEGV oops=\"Internal error: Oops: 96000021 [#1] SMP\"",
                "\"Oops: 96000021 [#1] SMP\"",
            ),
            ("way=el1 outcome=value value=0x5", "value 0x5"),
            (
                "call=share done=1 outcome=returned status=Success",
                "Success, 1 done",
            ),
            ("step base=0x1 frames=1 x1=0 status=NotOwner", "NotOwner"),
            ("6.1.0-arm64", "6.1.0-arm64"),
        ];
        for (line, expected) in told {
            assert_eq!(received(line), expected);
        }
    }

    #[test]
    fn ranges_have_names() {
        let parts =
            ranges("image 0x40200000..0x40259000, ownership map 0x40259000..0x4025a000 of 512 regions");
        let told: Vec<_> = parts
            .iter()
            .map(|part| (part.name.as_str(), part.range.start, part.range.end))
            .collect();
        assert_eq!(
            told,
            [
                ("image", 0x4020_0000, 0x4025_9000),
                ("ownership map", 0x4025_9000, 0x4025_a000)
            ]
        );
        assert!(ranges("pool of 408 pages, 397 free").is_empty());
    }
}
