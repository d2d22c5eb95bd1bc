//! QEMU's monitor for programs: a JSON object a line, over a socket (QEMU, `docs/interop/qmp-spec.txt`).

use crate::workspace::{Scratch, unique_number};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long an answer may take. Saving memory is what takes long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket's name has room for 108 bytes, with a zero at the end (unix(7)).
const LONGEST_NAME: usize = 107;

/// Where the socket of a run is: with its other files, if that is not too long a name for a socket.
pub(crate) fn socket_path(scratch: &Scratch) -> PathBuf {
    let path = scratch.path().join("monitor");
    if path.as_os_str().len() <= LONGEST_NAME {
        path
    } else {
        env::temp_dir().join(format!("freehold-{:016x}", unique_number()))
    }
}

/// QEMU's arguments for a monitor behind `socket`.
pub(crate) fn arguments(socket: &Path) -> [OsString; 2] {
    let mut server = OsString::from("unix:");
    server.push(socket);
    server.push(",server=on,wait=off");
    ["-qmp".into(), server]
}

/// A monitor that answers.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the monitor behind `socket`.
    ///
    /// # Errors
    /// If nobody listens there, or it does not speak QMP.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("no monitor at {}", socket.display()))?;
        // Whoever has it open can do without its name.
        let _ = fs::remove_file(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        let answers = BufReader::new(stream.try_clone()?);
        let mut monitor = Self { stream, answers };
        let greeting = monitor.read()?;
        if greeting.get("QMP").is_none() {
            bail!("the monitor's greeting is none: {greeting}");
        }
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Executes a command and returns what it answers.
    ///
    /// # Errors
    /// What QEMU says against it, or that it says nothing.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(command, arguments)?;
        loop {
            let mut answer = self.read().with_context(|| format!("no answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // What is neither is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Ends QEMU. It may be gone before it answers; how it went is for its exit status to say.
    ///
    /// # Errors
    /// If the command cannot be sent.
    pub(crate) fn quit(mut self) -> Result<()> {
        self.send("quit", &json!({}))?;
        let _ = self.read();
        Ok(())
    }

    /// Sends a command as one piece: QEMU acts on it at its last brace, and need not be there for what comes after.
    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot send {command}"))
    }

    /// Reads `size` bytes of physical memory from `address` on, by way of `file`, which is gone afterwards.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`]; that the file's name cannot be said, or that it cannot be read.
    pub(crate) fn memory(&mut self, address: u64, size: u64, file: &Path) -> Result<Vec<u8>> {
        let name = file
            .to_str()
            .with_context(|| format!("QEMU cannot be told to write {}", file.display()))?;
        self.execute(
            "pmemsave",
            &json!({ "val": address, "size": size, "filename": name }),
        )?;
        let memory = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        // It is as large as the memory, and has been read.
        let _ = fs::remove_file(file);
        Ok(memory)
    }

    /// The registers of all CPUs, as QEMU prints them.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub(crate) fn registers(&mut self) -> Result<String> {
        let command = json!({ "command-line": "info registers -a" });
        match self.execute("human-monitor-command", &command)? {
            Value::String(text) => Ok(text),
            other => bail!("QEMU prints no registers: {other}"),
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("QEMU has closed its monitor");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU says `{}`", line.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixListener, thread};

    /// A monitor that answers each line with the next of `answers`.
    fn monitor(answers: &'static [&'static str]) -> (Result<Monitor>, thread::JoinHandle<Vec<String>>) {
        let scratch = Scratch::new().unwrap();
        let path = socket_path(&scratch);
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut said = Vec::new();
            stream.write_all(br#"{"QMP": {"version": {}}}"#).unwrap();
            stream.write_all(b"\n").unwrap();
            for answer in answers {
                match lines.next() {
                    Some(Ok(line)) => said.push(line),
                    _ => break,
                }
                stream.write_all(answer.as_bytes()).unwrap();
                stream.write_all(b"\n").unwrap();
            }
            said
        });
        (Monitor::connect(&path), server)
    }

    #[test]
    fn events_do_not_answer_a_command() {
        let (monitor, server) = monitor(&[
            r#"{"return": {}}"#,
            "{\"event\": \"STOP\"}\n{\"return\": {\"a\": 1}}",
            r#"{"return": "X00=0"}"#,
        ]);
        let mut monitor = monitor.unwrap();
        assert_eq!(monitor.execute("stop", &json!({})).unwrap(), json!({ "a": 1 }));
        assert_eq!(monitor.registers().unwrap(), "X00=0");
        let said = server.join().unwrap();
        assert!(
            said[0].contains("qmp_capabilities") && said[1].contains("stop"),
            "{said:?}"
        );
    }

    #[test]
    fn a_refusal_is_an_error_in_qemus_words() {
        let (monitor, _) = monitor(&[r#"{"return": {}}"#, r#"{"error": {"desc": "no such file"}}"#]);
        let error = monitor
            .unwrap()
            .memory(0, 1, Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("pmemsave") && error.contains("no such file"),
            "{error}"
        );
    }

    #[test]
    fn silence_is_an_error() {
        let (monitor, _) = monitor(&[r#"{"return": {}}"#]);
        assert!(monitor.unwrap().execute("stop", &json!({})).is_err());
    }
}
