//! Prints the story as it happens, and judges it.

mod evidence;

use super::{
    fold::{COLUMNS, fold},
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

/// Columns before what is said: a mark, and who it is about.
const MARGIN: usize = 16;

/// How an act is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// The number of the chapter before its first.
    pub(super) chapters_before: usize,
    /// Whether all that Freehold says is shown, and its own memory drawn; otherwise only what the plan has of it.
    pub(super) all_of_freehold: bool,
}

/// How many deeds went as they must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// So many.
    pub(super) good: usize,
    /// Of so many.
    pub(super) all: usize,
    /// Whether nothing else was amiss either.
    pub(super) is_well: bool,
}

/// Hears the console and tells an act of the story.
#[derive(Debug)]
pub(super) struct Teller<'a, W> {
    out: W,
    started: Instant,
    manner: Manner,
    plan: &'a [Chapter],
    deeds: Vec<(usize, &'a Deed)>,
    /// What became of each deed, when it has ended.
    ended: Vec<Option<bool>>,
    /// The deed that is going on, and what is known of it.
    begun: Option<usize>,
    evidence: Evidence,
    /// Whether a deed was told that was not planned, or not so.
    is_astray: bool,
    /// The topics that Freehold has spoken of, each with its chapter.
    heard: Vec<(usize, &'a str)>,
    /// The chapter whose title was printed last.
    open: Option<usize>,
    /// EL2's own memory, and what is in it, as Freehold said.
    own: Option<Range<u64>>,
    parts: Vec<Part>,
}

impl<'a, W: Write> Teller<'a, W> {
    /// A teller of that plan, who prints to `out` with colors. The story began at `started`.
    pub(super) fn new(plan: &'a [Chapter], manner: Manner, started: Instant, out: W) -> Self {
        let deeds: Vec<_> = script::deeds(plan).collect();
        let ended = vec![None; deeds.len()];
        Self {
            out,
            started,
            manner,
            plan,
            deeds,
            ended,
            begun: None,
            evidence: Evidence::default(),
            is_astray: false,
            heard: Vec::new(),
            open: None,
            own: None,
            parts: Vec::new(),
        }
    }

    /// Prints what the act is about.
    pub(super) fn introduce(&mut self, act: &str, machine: &str) {
        let rest = COLUMNS.saturating_sub(act.chars().count() + 5);
        self.print(format_args!(
            "\n{QUIET}━━━{QUIET:#} {TITLE}{act}{TITLE:#} {QUIET}{}\n{machine}{QUIET:#}",
            "━".repeat(rest)
        ));
    }

    /// Where Freehold said that its ownership map is.
    pub(super) fn map(&self) -> Option<Range<u64>> {
        let part = self.parts.iter().find(|part| part.name == "ownership map")?;
        Some(part.range.clone())
    }

    /// Takes note of what somebody else than the machine has found out about the deed that is going on.
    pub(super) fn note(&mut self, line: &str) {
        self.evidence.hear(line);
    }

    /// Hears a line of the console.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("freehold: ") {
            self.hear_freehold(words);
        } else if let Some(event) = script::read(line) {
            match event {
                Event::Begin(number) => self.begin(number),
                Event::Fact(number, fact) if self.begun == Some(number) => self.evidence.learn(fact),
                Event::Out(number, text) if self.begun == Some(number) => self.evidence.hear(text),
                Event::Fact(..) | Event::Out(..) => self.is_astray = true,
                Event::End(number, status) => self.end(number, status),
            }
        }
    }

    /// Sums up, after what is missing was printed.
    pub(super) fn finish(&mut self) -> Sum {
        let mut is_well = !self.is_astray;
        if self.is_astray {
            self.print(format_args!(
                "  {BAD}✗{BAD:#} something was told that was not planned, or not there"
            ));
        }
        for (number, chapter) in self.plan.iter().enumerate() {
            let missing = self.missing(number, chapter);
            if let Some(first) = missing.first() {
                is_well = false;
                self.enter(number);
                self.print(format_args!("  {BAD}✗{BAD:#} {first}"));
            }
            if missing.len() > 1 {
                self.print(format_args!("    and {} more", missing.len() - 1));
            }
        }
        let good = self.ended.iter().filter(|ended| **ended == Some(true)).count();
        let all = self.ended.len();
        Sum {
            good,
            all,
            is_well: is_well && good == all,
        }
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
        if !is_topic && !self.manner.all_of_freehold {
            return;
        }
        let (style, mark) = if is_topic { (GOOD, '✓') } else { (QUIET, '·') };
        // What is said of devices that are trusted has a long topic of its own.
        let (topic, rest) = words
            .split_once(": ")
            .filter(|(topic, _)| topic.len() < MARGIN - 4)
            .unwrap_or(("", words));
        self.print_item(style, mark, topic, &fold(rest, ", ", COLUMNS - MARGIN));
    }

    fn begin(&mut self, number: usize) {
        self.evidence = Evidence::default();
        self.begun = Some(number);
        match self.deeds.get(number) {
            Some(&(chapter, _)) => self.enter(chapter),
            None => self.is_astray = true,
        }
    }

    fn end(&mut self, number: usize, status: i32) {
        let begun = self.begun.take();
        let Some(&(_, deed)) = self.deeds.get(number) else {
            self.is_astray = true;
            return;
        };
        let evidence = std::mem::take(&mut self.evidence);
        let verdict = evidence.judge(deed, status);
        // Whatever happens twice, or without a beginning, was not planned so.
        let well = verdict.is_ok() && begun == Some(number) && self.ended[number].is_none();
        self.ended[number] = Some(well);
        let (style, mark) = if well { (GOOD, '✓') } else { (BAD, '✗') };
        let tells = fold(&deed.tells, ", ", COLUMNS - MARGIN);
        self.print_item(style, mark, deed.who.name(), &tells);
        for line in fold(&evidence.tell(deed), "; ", COLUMNS - MARGIN) {
            self.print(format_args!("{:MARGIN$}{QUIET}{line}{QUIET:#}", ""));
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
        } else if let Expected::Map | Expected::Guests { .. } = deed.expected
            && let Some(picture) = self.draw(&evidence)
        {
            self.print(format_args!(""));
            for line in picture.lines() {
                let indent = if line.is_empty() { 0 } else { 4 };
                self.print(format_args!("{:indent$}{line}", ""));
            }
        }
    }

    fn draw(&self, evidence: &Evidence) -> Option<String> {
        let parts = match self.manner.all_of_freehold {
            true => self.parts.as_slice(),
            false => &[],
        };
        picture::draw(evidence.said(), self.own.as_ref(), parts)
    }

    /// Prints a mark, who it is about, and what is said.
    fn print_item(&mut self, style: Style, mark: char, who: &str, said: &[String]) {
        let mut said = said.iter();
        let first = said.next().map_or("", String::as_str);
        let width = MARGIN - 5;
        self.print(format_args!(
            "  {style}{mark}{style:#} {QUIET}{who:<width$}{QUIET:#} {first}"
        ));
        for line in said {
            self.print(format_args!("{:MARGIN$}{line}", ""));
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
                self.manner.chapters_before + number + 1
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
mod tests;
