//! What the user sees while something long happens.
//!
//! A [`Step`] is a spinner with its latest detail on a terminal, and two plain lines elsewhere. A step that turns
//! out to have nothing to do leaves no trace.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

/// Something long that is going on.
#[derive(Debug)]
pub struct Step {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    announced: bool,
}

impl Step {
    /// Begins a step that may turn out to have nothing to do: off a terminal it stays silent until
    /// [`Step::announce`].
    #[must_use]
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_prefix(name.clone());
            bar.set_style(style());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            name,
            bar,
            started: Instant::now(),
            announced: false,
        }
    }

    /// Begins a step that certainly has something to do.
    #[must_use]
    pub fn announced(name: impl Into<String>) -> Self {
        let mut step = Self::begin(name);
        step.announce();
        step
    }

    /// Says that there is something to do.
    pub fn announce(&mut self) {
        if !self.announced && self.bar.is_none() {
            eprintln!("{} ...", self.name);
        }
        self.announced = true;
    }

    /// Shows what the step is at.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    /// Ends the step.
    pub fn done(self) {
        let line = format!(
            "{}: done in {:.1} s",
            self.name,
            self.started.elapsed().as_secs_f64()
        );
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.announced {
            eprintln!("{line}");
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    // The template is a constant: should it not parse, a plain spinner does.
    ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
