//! How other programs are run: quietly while all goes well, with everything they said when they fail.

use crate::progress::Step;
use anyhow::{Context as _, Result, bail};
use std::{
    io::{BufRead as _, BufReader, pipe},
    ops::ControlFlow,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Runs `command` to its end and shows its latest line under `step`.
///
/// # Errors
/// If it cannot be started or does not exit with 0; the error holds all that it printed.
pub fn run(step: &mut Step, command: Command) -> Result<()> {
    let line = command_line(&command);
    let mut said = String::new();
    let status = listen(command, |text| {
        if !is_idle_talk(text) {
            step.announce();
        }
        step.detail(text);
        said.push_str(text);
    })?;
    if !status.success() {
        bail!("`{line}` failed ({status}):\n{}", said.trim_end());
    }
    Ok(())
}

/// Runs `command` to its end and hands over each line that it prints, with its end, on either stream.
///
/// # Errors
/// If it cannot be started or listened to. However it ends is no error.
pub fn listen(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    let line = command_line(&command);
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // The command keeps the pipe's write end open for another start; without this the reader would never end.
    drop(command);
    let mut reader = BufReader::new(reader);
    let mut buffer = Vec::new();
    while reader
        .read_until(b'\n', &mut buffer)
        .with_context(|| format!("cannot read from `{line}`"))?
        > 0
    {
        on_line(&String::from_utf8_lossy(&buffer));
        buffer.clear();
    }
    child.wait().with_context(|| format!("cannot wait for `{line}`"))
}

/// Runs `command` until it ends, `limit` is over, or `on_line`, which is handed each line that it prints, breaks off;
/// then it is ended. `None` if its time was over.
///
/// What the command has started itself is not ended with it.
///
/// # Errors
/// If it cannot be started or watched. However it ends is no error.
pub fn watch(
    mut command: Command,
    limit: Duration,
    mut on_line: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Option<ExitStatus>> {
    let name = command_line(&command);
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer);
    let deadline = Instant::now() + limit;
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    drop(command);
    let (sender, lines) = mpsc::channel();
    // It ends with the last writer of the pipe, or when nobody listens any more.
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut buffer = Vec::new();
        while reader.read_until(b'\n', &mut buffer).is_ok_and(|bytes| bytes > 0) {
            if sender
                .send(String::from_utf8_lossy(&buffer).into_owned())
                .is_err()
            {
                break;
            }
            buffer.clear();
        }
    });
    let timed_out = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if on_line(&line).is_break() => break false,
            Ok(_) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait();
                return status
                    .map(Some)
                    .with_context(|| format!("cannot wait for `{name}`"));
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    child.kill().with_context(|| format!("cannot end `{name}`"))?;
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{name}`"))?;
    Ok((!timed_out).then_some(status))
}

/// Whether a line is one that cargo and make print even if there is nothing to do.
fn is_idle_talk(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("Finished") || line.starts_with("make: ") || line.starts_with("make[")
}

/// Runs `command` to its end and returns what it printed on its standard output.
///
/// # Errors
/// If it cannot be started, does not exit with 0, or prints what is not UTF-8.
pub fn output(mut command: Command) -> Result<String> {
    let line = command_line(&command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}):\n{}", output.status, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
}

/// Where the shell would find `program`, if anywhere.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// A command as one would type it.
#[must_use]
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a shell reads it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("qemu");
        command.args(["-append", "console=ttyAMA0 quiet", "it's", ""]);
        assert_eq!(
            command_line(&command),
            r"qemu -append 'console=ttyAMA0 quiet' 'it'\''s' ''"
        );
    }

    #[test]
    fn a_failure_carries_what_was_said_on_both_streams() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = run(&mut Step::begin("test"), command).unwrap_err().to_string();
        assert!(error.contains("one\ntwo") && error.contains('3'), "{error}");
    }

    fn script(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn a_program_is_watched_to_its_end_its_time_or_a_word() {
        let long = Duration::from_secs(60);
        let mut said = String::new();
        let status = watch(script("echo one; echo two >&2; exit 3"), long, |line| {
            said.push_str(line);
            ControlFlow::Continue(())
        });
        assert_eq!(status.unwrap().and_then(|status| status.code()), Some(3));
        assert_eq!(said, "one\ntwo\n");

        let started = Instant::now();
        let status = watch(script("echo stop; exec sleep 60"), long, |_| {
            ControlFlow::Break(())
        });
        assert!(!status.unwrap().unwrap().success());
        let status = watch(script("exec sleep 60"), Duration::from_millis(50), |_| {
            ControlFlow::Continue(())
        });
        assert!(status.unwrap().is_none());
        assert!(started.elapsed() < long);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(Command::new("no-such-program-at-all"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-program-at-all"), "{error}");
    }
}
