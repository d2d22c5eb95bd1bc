//! The file of lines.

use crate::report::{End, Line};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Writes lines, from several CPUs' threads, until [`Output::end`].
#[derive(Debug)]
pub(crate) struct Output(Mutex<State>);

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    /// Lines that may still be written; `None` is no limit.
    left: Option<u64>,
    dropped: u64,
    ended: bool,
}

impl Output {
    /// Makes the file, empty. At most `limit` lines go into it, not counting those of [`Output::always`].
    pub(crate) fn create(path: &Path, limit: Option<u64>) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Self(Mutex::new(State {
            file,
            left: limit,
            dropped: 0,
            ended: false,
        })))
    }

    /// Writes a line, unless the limit is reached.
    pub(crate) fn line(&self, line: &Line) {
        let mut state = self.lock();
        match &mut state.left {
            Some(0) => state.dropped += 1,
            Some(left) => {
                *left -= 1;
                state.write(line);
            }
            None => state.write(line),
        }
    }

    /// Writes a line, limit or not, and sees that it reaches the file now: a reader may wait for it.
    pub(crate) fn always(&self, line: &Line) {
        let mut state = self.lock();
        state.write(line);
        state.flush();
    }

    /// Writes the last line. Whatever a CPU tells after it is lost: QEMU ends while they still run.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        let end = Line::End(End {
            dropped: state.dropped,
        });
        state.write(&end);
        state.flush();
        state.ended = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, line: &Line) {
        if self.ended {
            return;
        }
        let written = serde_json::to_writer(&mut self.file, line)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        self.judge(written);
    }

    fn flush(&mut self) {
        let flushed = self.file.flush();
        self.judge(flushed);
    }

    /// A file that cannot be written ends without its last line, so that nobody believes it.
    fn judge(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            eprintln!("freehold-plugin: {error}");
            self.ended = true;
        }
    }
}
