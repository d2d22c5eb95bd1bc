//! The demonstration that `cargo run` gives: Freehold boots with Debian as its host, which runs a protected Linux guest.
//! Another, in two acts, needs no KVM: Debian is the host, and then a host of ours runs guests. Each step is shown with
//! its evidence as it happens.
//!
//! [`plan`] says what is done and what must come of it; [`protected`], [`first`] and [`second`] run the machines; [`script`] has the
//! host do it and reads what came; [`teller`] prints and judges; [`picture`] draws the ownership map. [`look`] and
//! [`digest`] find out, without the hypervisor or its hosts, what these say of themselves.

mod digest;
mod first;
mod fold;
mod look;
mod picture;
mod plan;
mod protected;
mod script;
mod second;
mod teller;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use fold::{COLUMNS, fold};
use std::{
    io::Write,
    time::{Duration, Instant},
};
use teller::Sum;

/// After this time a machine that still runs is stopped. Where nothing else runs, an act takes some 20 seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// What a reader must know who has not seen it before.
const HOW_TO_READ: &str = "A step is who acts and what they do; below it the frame that it is about, the frame's \
    state as Freehold tells it to the host, and what came of it. A call is an HVC to Freehold. NotYours is all that \
    the host is told of what is not its own. ✓ is for a step of which all this is as it must be, ✗ for one of which \
    it is not, · for what is said besides.";

/// How the story goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// As it must.
    Proper,
    /// The guest under Debian writes its secret to its disk, or the host of the second act forgets to pin a page, and the
    /// story is no good.
    Spoiled,
}

/// Who has guests in the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// Debian, by the module and the virtual machine monitor.
    Linux,
    /// A host of ours, after an act in which Debian has none.
    Bare,
}

/// Tells the story with that host to `out`, with colors. Answers whether every step went as it must.
///
/// # Errors
/// If something cannot be fetched or built, or a machine did not come to its act's end: then the error holds
/// the report of the run.
pub fn tell(out: impl Write, host: Host) -> Result<bool> {
    match host {
        Host::Linux => tell_protected(out, Course::Proper),
        Host::Bare => tell_bare(out),
    }
}

/// Tells of Debian and its guest.
///
/// # Errors
/// As for [`tell`].
pub fn tell_protected(mut out: impl Write, course: Course) -> Result<bool> {
    let act = protected::prepare(course)?;
    let started = Instant::now();
    how_to_read(&mut out, "Freehold, a hypervisor at EL2.");
    let sum = act.tell(&mut out, started)?;
    Ok(conclude(&mut out, started, &[sum]))
}

/// Tells both acts of the other story.
fn tell_bare(mut out: impl Write) -> Result<bool> {
    let first = first::prepare()?;
    let second = second::prepare(Course::Proper)?;
    let started = Instant::now();
    how_to_read(&mut out, "Freehold, a hypervisor at EL2, in two acts.");
    let chapters = first.chapters();
    let first = first.tell(&mut out, started)?;
    let second = second.tell(&mut out, started, chapters)?;
    Ok(conclude(&mut out, started, &[first, second]))
}

/// Tells the second act alone.
///
/// # Errors
/// As for [`tell`].
pub fn tell_second(mut out: impl Write, course: Course) -> Result<bool> {
    let act = second::prepare(course)?;
    let started = Instant::now();
    let sum = act.tell(&mut out, started, 0)?;
    Ok(conclude(&mut out, started, &[sum]))
}

/// Prints the title, and what a reader must know.
fn how_to_read(out: &mut impl Write, title: &str) {
    let quiet = Style::new().dimmed();
    // If nobody reads any more, the verdict still counts.
    let _ = writeln!(out, "{title}");
    for line in fold(HOW_TO_READ, " ", COLUMNS) {
        let _ = writeln!(out, "{quiet}{line}{quiet:#}");
    }
}

/// Prints the verdict.
fn conclude(out: &mut impl Write, started: Instant, sums: &[Sum]) -> bool {
    let is_well = sums.iter().all(|sum| sum.is_well);
    let (style, verdict) = if is_well {
        (AnsiColor::Green.on_default(), "Every step went as it must")
    } else {
        (
            AnsiColor::Red.on_default().bold(),
            "Not every step went as it must",
        )
    };
    let _ = writeln!(
        out,
        "\n{style}{verdict}{style:#}: {} of {} deeds, in {:.1} s.",
        sums.iter().map(|sum| sum.good).sum::<usize>(),
        sums.iter().map(|sum| sum.all).sum::<usize>(),
        started.elapsed().as_secs_f64()
    );
    is_well
}
