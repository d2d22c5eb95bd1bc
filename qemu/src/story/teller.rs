//! Prints the story as it happens, and judges it.

mod evidence;

use super::{
    picture::{self, Part},
    plan::{Chapter, Deed, Expected, Source},
    script::{self, Event},
};
use anstyle::{AnsiColor, Style};
use evidence::Evidence;
use std::{fmt::Arguments, io::Write, ops::Range, time::Instant};

const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Hears the console and tells the story.
#[derive(Debug)]
pub(super) struct Teller<'a, W> {
    out: W,
    started: Instant,
    plan: &'a [Chapter],
    deeds: Vec<(usize, &'a Deed)>,
    /// What became of each deed, when it has ended.
    ended: Vec<Option<bool>>,
    /// What is known of the deed that is going on.
    evidence: Evidence,
    /// The topics that Freehold has spoken of, each with its chapter.
    heard: Vec<(usize, &'a str)>,
    /// The chapter whose title was printed last.
    open: Option<usize>,
    /// EL2's own memory, and what is in it, as Freehold said.
    own: Option<Range<u64>>,
    parts: Vec<Part>,
}

impl<'a, W: Write> Teller<'a, W> {
    /// A teller of that plan, who prints to `out` with colors.
    pub(super) fn new(plan: &'a [Chapter], out: W) -> Self {
        let deeds: Vec<_> = script::deeds(plan).collect();
        let ended = vec![None; deeds.len()];
        Self {
            out,
            started: Instant::now(),
            plan,
            deeds,
            ended,
            evidence: Evidence::default(),
            heard: Vec::new(),
            open: None,
            own: None,
            parts: Vec::new(),
        }
    }

    /// Prints what the story is about.
    pub(super) fn introduce(&mut self, machine: &str) {
        self.print(format_args!(
            "{TITLE}Freehold{TITLE:#}, a hypervisor at EL2, and the host below it: {machine}"
        ));
        self.print(format_args!(
            "{QUIET}A deed is shown with who asked, the frames, their state before and after, and what came of it.{QUIET:#}"
        ));
    }

    /// Hears a line of the console.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("freehold: ") {
            self.hear_freehold(words);
        } else if let Some(event) = script::read(line) {
            match event {
                Event::Begin(number) => self.begin(number),
                Event::Fact(_, fact) => self.evidence.learn(fact),
                Event::Out(_, text) => self.evidence.hear(text),
                Event::End(number, status) => self.end(number, status),
            }
        }
    }

    /// Sums up. Answers whether every step went as it must.
    pub(super) fn finish(&mut self) -> bool {
        let mut well = true;
        for (number, chapter) in self.plan.iter().enumerate() {
            let missing = self.missing(number, chapter);
            if let Some(first) = missing.first() {
                well = false;
                self.enter(number);
                self.print(format_args!("  {BAD}✗{BAD:#} {first}"));
            }
            if missing.len() > 1 {
                self.print(format_args!("    and {} more", missing.len() - 1));
            }
        }
        let good = self.ended.iter().filter(|ended| **ended == Some(true)).count();
        well &= good == self.ended.len();
        let (style, verdict) = if well {
            (GOOD, "Every step went as it must")
        } else {
            (BAD, "Not every step went as it must")
        };
        self.print(format_args!(
            "\n{style}{verdict}{style:#}: {good} of {} deeds, in {:.1} s.",
            self.ended.len(),
            self.started.elapsed().as_secs_f64()
        ));
        well
    }

    /// What should have been told in a chapter and was not.
    fn missing(&self, number: usize, chapter: &Chapter) -> Vec<String> {
        match &chapter.teller {
            Source::Freehold(topics) => topics
                .iter()
                .filter(|topic| !self.heard.contains(&(number, topic.as_str())))
                .map(|topic| format!("Freehold said nothing of: {topic}"))
                .collect(),
            Source::Host(_) => self
                .deeds
                .iter()
                .zip(&self.ended)
                .filter(|((chapter, _), ended)| *chapter == number && ended.is_none())
                .map(|((_, deed), _)| format!("did not happen: {} {}", deed.who.name(), deed.tells))
                .collect(),
        }
    }

    fn hear_freehold(&mut self, words: &str) {
        let mut is_topic = false;
        for (number, chapter) in self.plan.iter().enumerate() {
            let Source::Freehold(topics) = &chapter.teller else {
                continue;
            };
            if let Some(topic) = topics.iter().find(|topic| is_about(words, topic)) {
                is_topic = true;
                self.heard.push((number, topic));
                self.enter(number);
            }
        }
        if let Some(rest) = words.strip_prefix("EL2: ") {
            for part in evidence::ranges(rest) {
                match part.name.as_str() {
                    "reserved" => self.own = Some(part.range),
                    _ => self.parts.push(part),
                }
            }
        }
        let (style, mark) = if is_topic { (GOOD, '✓') } else { (QUIET, '·') };
        // What is said of devices that are trusted has a long topic of its own.
        let (topic, rest) = words
            .split_once(": ")
            .filter(|(topic, _)| topic.len() <= 12)
            .unwrap_or(("", words));
        self.print(format_args!(
            "  {style}{mark}{style:#} {QUIET}{topic:<12}{QUIET:#} {rest}"
        ));
    }

    fn begin(&mut self, number: usize) {
        self.evidence = Evidence::default();
        if let Some(&(chapter, _)) = self.deeds.get(number) {
            self.enter(chapter);
        }
    }

    fn end(&mut self, number: usize, status: i32) {
        let Some(&(_, deed)) = self.deeds.get(number) else {
            return;
        };
        let evidence = std::mem::take(&mut self.evidence);
        let verdict = evidence.judge(deed, status);
        // Whatever happens twice was not planned so.
        let well = verdict.is_ok() && self.ended[number].is_none();
        self.ended[number] = Some(well);
        let (style, mark) = if well { (GOOD, '✓') } else { (BAD, '✗') };
        self.print(format_args!(
            "  {style}{mark}{style:#} {QUIET}{:<12}{QUIET:#} {}",
            deed.who.name(),
            deed.tells
        ));
        if let Some(told) = evidence.tell(deed) {
            self.print(format_args!("    {:<12} {QUIET}{told}{QUIET:#}", ""));
        }
        if let Err(why) = verdict {
            self.print(format_args!("      {BAD}{why}{BAD:#}"));
            self.print(format_args!(
                "      `{}` ended with {status} and printed:",
                deed.command
            ));
            for line in evidence.said() {
                self.print(format_args!("      | {line}"));
            }
        } else if let Expected::Map = deed.expected
            && let Some(picture) = picture::draw(evidence.said(), self.own.as_ref(), &self.parts)
        {
            self.print(format_args!(""));
            for line in picture.lines() {
                self.print(format_args!("    {line}"));
            }
        }
    }

    /// Prints a line. If nobody reads any more, the verdict still counts.
    fn print(&mut self, line: Arguments<'_>) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// Prints a chapter's title, if it is not the one that was printed last.
    fn enter(&mut self, number: usize) {
        if self.open != Some(number) {
            self.open = Some(number);
            let title = self.plan.get(number).map_or("", |chapter| chapter.title);
            let seconds = self.started.elapsed().as_secs_f64();
            self.print(format_args!(
                "\n{TITLE}{:>2}. {title}{TITLE:#} {QUIET}({seconds:.1} s){QUIET:#}",
                number + 1
            ));
        }
    }
}

/// Whether what Freehold says is about a topic: it begins with it.
fn is_about(words: &str, topic: &str) -> bool {
    words
        .strip_prefix(topic)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::plan;

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
            let out = match &deed.expected {
                Expected::Words(words) => words.clone(),
                Expected::Success => "something".to_owned(),
                Expected::Map => "map 0x40000000 512 Host".to_owned(),
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
            console.push(format!("story out {number} {out}"));
            console.push(format!("story end {number} 0"));
        }
        console
    }

    fn is_well(plan: &[Chapter], console: &[String]) -> bool {
        let mut teller = Teller::new(plan, std::io::sink());
        console.iter().for_each(|line| teller.hear(line));
        teller.finish()
    }

    #[test]
    fn a_story_is_good_only_if_nothing_of_it_is_missing_or_otherwise() {
        let plan = plan::plan("6.1.0", 2);
        let console = good(&plan);
        assert!(is_well(&plan, &console));
        for (index, line) in console.iter().enumerate() {
            // Without its beginning, a deed is told with what is known of the one before.
            let optional =
                line.starts_with('[') || line.starts_with("story begin") || line.ends_with("something");
            if !optional {
                let mut without = console.clone();
                without.remove(index);
                assert!(!is_well(&plan, &without), "well without `{line}`");
            }
        }
    }

    #[test]
    fn a_status_matters_where_it_is_all_there_is() {
        let plan = plan::plan("6.1.0", 2);
        let number = script::deeds(&plan)
            .position(|(_, deed)| matches!(deed.expected, Expected::Success))
            .unwrap();
        let mut console = good(&plan);
        let end = console
            .iter_mut()
            .find(|line| **line == format!("story end {number} 0"))
            .unwrap();
        *end = format!("story end {number} 1");
        assert!(!is_well(&plan, &console));
    }

    #[test]
    fn a_topic_is_whole_words() {
        assert!(is_about("cpus: 4", "cpus") && is_about("host", "host"));
        assert!(!is_about("hosts: 4", "host"));
    }
}
