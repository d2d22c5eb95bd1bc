//! Booting a machine, watching it and stopping it.

use super::{Machine, arguments, console};
use crate::{process, symbols, workspace::Scratch};
use anyhow::{Context as _, Result};
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

/// How many of the console's last lines a report shows.
const TAIL: usize = 60;

/// How long QEMU may take to go once its console is closed.
const LINGER: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QEMU ended by itself with this status.
    Exited(i32),
    /// QEMU was ended by a signal that was not ours.
    Signaled(i32),
    /// The time limit was reached, and we ended it.
    TimedOut,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The console, line by line.
    pub console: Vec<String>,
    /// What QEMU itself said.
    pub complaints: String,
    /// How it ended.
    pub ending: Ending,
    /// How long it took on this machine.
    pub elapsed: Duration,
    /// The command line, to repeat it.
    pub command: String,
}

impl Machine {
    /// Boots the machine and waits until it ends or `limit` is over. Every console line is handed to `on_line` as
    /// it comes.
    ///
    /// # Errors
    /// If QEMU cannot be started or watched. However a machine that was started ends is no error, but in the
    /// [`Run`].
    pub fn run(&self, limit: Duration, mut on_line: impl FnMut(&str)) -> Result<Run> {
        let scratch = Scratch::new()?;
        let command = arguments::command(self, &scratch)?;
        let command_line = process::command_line(&command);
        let started = Instant::now();
        let mut child = Guard(start(command).with_context(|| format!("cannot start `{command_line}`"))?);
        let lines = console::lines(child.0.stdout.take().context("QEMU has no standard output")?);
        let complaints = console::lines(child.0.stderr.take().context("QEMU has no standard error")?);
        let mut console = Vec::new();
        let deadline = started + limit;
        let mut timed_out = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Asked first: a machine that never stops talking has a time limit too.
            if left.is_zero() && !timed_out {
                timed_out = true;
                child.0.kill().context("cannot end QEMU")?;
            }
            // What it printed last is still on its way when it has been ended.
            match lines.recv_timeout(if timed_out { LINGER } else { left }) {
                Ok(line) => {
                    on_line(&line);
                    console.push(line);
                }
                Err(RecvTimeoutError::Timeout) if !timed_out => {}
                Err(_) => break,
            }
        }
        let ending = child.end(timed_out)?;
        let complaints = complaints.iter().collect::<Vec<_>>().join("\n");
        Ok(Run {
            console,
            complaints,
            ending,
            elapsed: started.elapsed(),
            command: command_line,
        })
    }

    /// The device tree that QEMU makes for the machine, flattened, with the host's modules under `/chosen`.
    ///
    /// # Errors
    /// If QEMU does not write it.
    pub fn device_tree(&self) -> Result<Vec<u8>> {
        let scratch = Scratch::new()?;
        let file = scratch.path().join("tree.dtb");
        process::output(arguments::dump_command(self, &file)?)?;
        fs::read(&file).context("QEMU wrote no device tree")
    }
}

impl Run {
    /// What somebody needs to know about a run that went wrong: how it ended, the end of the console, the names
    /// behind a panic of EL2 (from `hypervisor`, its ELF file), QEMU's version and the command line.
    #[must_use]
    pub fn report(&self, hypervisor: Option<&Path>) -> String {
        let mut report = match self.ending {
            Ending::Exited(status) => format!("QEMU exited with {status}"),
            Ending::Signaled(signal) => format!("QEMU died of signal {signal}"),
            Ending::TimedOut => "the machine did not end in time and was stopped".to_owned(),
        };
        let skipped = self.console.len().saturating_sub(TAIL);
        let _ = writeln!(report, " after {:.1} s.", self.elapsed.as_secs_f64());
        let _ = writeln!(
            report,
            "--- console{}:",
            if skipped > 0 { ", its end" } else { "" }
        );
        for line in &self.console[skipped..] {
            let _ = writeln!(report, "{line}");
        }
        if let Some(named) = hypervisor.and_then(|elf| symbols::backtrace(elf, &self.console)) {
            let _ = writeln!(report, "--- backtrace of EL2:\n{}", named.trim_end());
        }
        if !self.complaints.is_empty() {
            let _ = writeln!(report, "--- QEMU said:\n{}", self.complaints);
        }
        let _ = write!(report, "--- {}:\n{}", version(), self.command);
        report
    }
}

/// QEMU's version, in its own words.
#[must_use]
pub fn version() -> String {
    let mut command = Command::new(arguments::QEMU);
    command.arg("--version");
    let text = process::output(command).unwrap_or_else(|error| format!("{error:#}"));
    text.lines().next().unwrap_or_default().to_owned()
}

fn start(qemu: Command) -> Result<Child> {
    // Should the runner be killed, its machines must not stay behind and run for ever: let the kernel end them
    // with the thread that waits for them.
    let mut command = match process::find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command
                .args(["--pdeathsig", "KILL"])
                .arg(qemu.get_program())
                .args(qemu.get_args());
            command
        }
        None => qemu,
    };
    Ok(command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

/// A child that does not outlive its owner.
struct Guard(Child);

impl Guard {
    fn end(&mut self, timed_out: bool) -> Result<Ending> {
        use std::os::unix::process::ExitStatusExt as _;
        let deadline = Instant::now() + LINGER;
        let mut stuck = timed_out;
        let status = loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for QEMU")? {
                break status;
            }
            if Instant::now() > deadline {
                // Its console is closed and still it runs.
                stuck = true;
                self.0.kill().context("cannot end QEMU")?;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ok(match (stuck, status.code(), status.signal()) {
            (true, ..) => Ending::TimedOut,
            (_, Some(code), _) => Ending::Exited(code),
            (_, _, signal) => Ending::Signaled(signal.unwrap_or_default()),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Only an error on the way leads here with a child that runs; it may also be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_the_end_of_the_console_and_how_to_repeat_it() {
        let console = (0..100).map(|number| format!("line {number}")).collect();
        let run = Run {
            console,
            complaints: "a complaint".to_owned(),
            ending: Ending::TimedOut,
            elapsed: Duration::from_secs(3),
            command: "qemu-system-aarch64 -m 1G".to_owned(),
        };
        let report = run.report(None);
        for part in [
            "did not end in time",
            "3.0 s",
            "line 99\n",
            "a complaint",
            "qemu-system-aarch64 -m 1G",
        ] {
            assert!(report.contains(part), "{part} is not in {report}");
        }
        assert!(!report.contains("line 39\n"));
    }
}
