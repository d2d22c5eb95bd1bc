//! Prints the story as it happens, and judges it.

use super::{
    picture,
    plan::{Chapter, Deed, Expected, Source},
    script::{self, Event},
};
use anstyle::{AnsiColor, Style};
use std::{fmt::Arguments, io::Write};

const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Hears the console and tells the story.
#[derive(Debug)]
pub(super) struct Teller<'a, W> {
    out: W,
    plan: &'a [Chapter],
    deeds: Vec<(usize, &'a Deed)>,
    /// What became of each deed, when it has ended.
    ended: Vec<Option<bool>>,
    /// What the deed that is going on has printed.
    said: Vec<String>,
    /// The topics that Freehold has spoken of, each with its chapter.
    heard: Vec<(usize, &'a str)>,
    /// The chapter whose title was printed last.
    open: Option<usize>,
}

impl<'a, W: Write> Teller<'a, W> {
    /// A teller of that plan, who prints to `out` with colors.
    pub(super) fn new(plan: &'a [Chapter], out: W) -> Self {
        let deeds: Vec<_> = script::deeds(plan).collect();
        let ended = vec![None; deeds.len()];
        Self {
            out,
            plan,
            deeds,
            ended,
            said: Vec::new(),
            heard: Vec::new(),
            open: None,
        }
    }

    /// Hears a line of the console.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("freehold: ") {
            self.hear_freehold(words);
        } else if let Some(event) = script::read(line) {
            match event {
                Event::Begin(number) => self.begin(number),
                Event::Out(_, text) => self.said.push(text.to_owned()),
                Event::End(number, status) => self.end(number, status),
            }
        }
    }

    /// Sums up. Answers whether every step went as it must.
    pub(super) fn finish(&mut self) -> bool {
        let mut well = true;
        for (number, chapter) in self.plan.iter().enumerate() {
            for missing in self.missing(number, chapter) {
                self.enter(number);
                self.print(format_args!("  {BAD}✗{BAD:#} {missing}"));
                well = false;
            }
        }
        well &= self.ended.iter().all(|ended| *ended == Some(true));
        let (style, verdict) = match well {
            true => (GOOD, "Every step went as it must."),
            false => (BAD, "Not every step went as it must."),
        };
        self.print(format_args!("\n{style}{verdict}{style:#}"));
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
                .map(|((_, deed), _)| format!("did not happen: {}", deed.tells))
                .collect(),
        }
    }

    fn hear_freehold(&mut self, words: &str) {
        for (number, chapter) in self.plan.iter().enumerate() {
            let Source::Freehold(topics) = &chapter.teller else {
                continue;
            };
            if let Some(topic) = topics.iter().find(|topic| is_about(words, topic)) {
                self.heard.push((number, topic));
                self.enter(number);
            }
        }
        self.print(format_args!("  {QUIET}Freehold:{QUIET:#} {words}"));
    }

    fn begin(&mut self, number: usize) {
        self.said.clear();
        if let Some(&(chapter, _)) = self.deeds.get(number) {
            self.enter(chapter);
        }
    }

    fn end(&mut self, number: usize, status: i32) {
        let Some(&(_, deed)) = self.deeds.get(number) else {
            return;
        };
        let said = std::mem::take(&mut self.said);
        let (well, evidence) = judge(&deed.expected, &said, status);
        // Whatever happens twice was not planned so.
        let well = well && self.ended[number].is_none();
        self.ended[number] = Some(well);
        let (style, mark) = if well { (GOOD, '✓') } else { (BAD, '✗') };
        self.print(format_args!("  {style}{mark}{style:#} {}", deed.tells));
        for line in evidence {
            self.print(format_args!("      {QUIET}{line}{QUIET:#}"));
        }
        if !well && let Expected::Words(words) = &deed.expected {
            self.print(format_args!(
                "      {BAD}must be: {words}{BAD:#} ({} ended with {status})",
                deed.command
            ));
        }
        if let Expected::Map = deed.expected
            && let Some(picture) = picture::draw(said.iter().map(String::as_str))
        {
            for line in picture.lines() {
                self.print(format_args!("      {line}"));
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
            self.print(format_args!("\n{TITLE}{}. {title}{TITLE:#}", number + 1));
        }
    }
}

/// Whether what Freehold says is about a topic: it begins with it.
fn is_about(words: &str, topic: &str) -> bool {
    words
        .strip_prefix(topic)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// Whether a deed went as expected, and the lines that show it.
fn judge<'a>(expected: &Expected, said: &'a [String], status: i32) -> (bool, Vec<&'a str>) {
    let all = || said.iter().map(String::as_str).collect();
    match expected {
        Expected::Words(words) => match said.iter().find(|line| has_words(line, words)) {
            Some(line) => (true, vec![line.as_str()]),
            None => (false, all()),
        },
        Expected::Success => (status == 0, all()),
        Expected::Map => {
            let well = status == 0 && picture::draw(said.iter().map(String::as_str)).is_some();
            (well, if well { Vec::new() } else { all() })
        }
    }
}

fn has_words(line: &str, words: &str) -> bool {
    words
        .split_whitespace()
        .all(|word| line.split_whitespace().any(|of_line| of_line == word))
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
    fn words_are_whole_words_of_one_line() {
        assert!(has_words(
            "call share status=Success done=1",
            "status=Success done=1"
        ));
        assert!(!has_words("status=Success done=12", "status=Success done=1"));
        assert!(!has_words("state=HostSharedHyp", "state=Host"));
        let said = ["status=Success".to_owned(), "done=1".to_owned()];
        assert!(!judge(&Expected::Words("status=Success done=1".to_owned()), &said, 0).0);
        assert!(is_about("cpus: 4", "cpus") && is_about("host", "host") && !is_about("hosts: 4", "host"));
    }
}
