//! The console of a running machine, as lines.

use std::{
    io::Read,
    sync::mpsc::{Receiver, channel},
    thread,
};

/// A line longer than this is cut: a machine that prints garbage must not fill our memory.
const LONGEST_LINE: usize = 16 * 1024;

/// Reads `stream` on a thread of its own and sends each line as it is complete, or when the stream ends. Line ends
/// are left out; what is not UTF-8 is marked.
pub(super) fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut splitter = Splitter::default();
        let mut stream = stream;
        let mut buffer = [0; 4096];
        loop {
            // A stream that cannot be read any more has ended: the program's exit status says why.
            let count = stream.read(&mut buffer).unwrap_or(0);
            let lines = if count == 0 {
                splitter.finish()
            } else {
                splitter.push(&buffer[..count])
            };
            for line in lines {
                if sender.send(line).is_err() {
                    return;
                }
            }
            if count == 0 {
                return;
            }
        }
    });
    receiver
}

#[derive(Default)]
struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || self.partial.len() == LONGEST_LINE {
                lines.push(self.take());
            }
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
        lines
    }

    fn finish(&mut self) -> Vec<String> {
        if self.partial.is_empty() {
            Vec::new()
        } else {
            vec![self.take()]
        }
    }

    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.partial);
        // Consoles send a carriage return with each line end, some of them two.
        String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_stream_is_cut() {
        let text = b"one\r\n\r\ntwo \xff\r\r\nhalf";
        for size in 1..text.len() {
            let mut splitter = Splitter::default();
            let mut lines: Vec<_> = text.chunks(size).flat_map(|chunk| splitter.push(chunk)).collect();
            lines.extend(splitter.finish());
            assert_eq!(lines, ["one", "", "two \u{fffd}", "half"]);
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut splitter = Splitter::default();
        let lines = splitter.push(&[b'x'; 2 * LONGEST_LINE + 1]);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [LONGEST_LINE; 2]
        );
    }

    #[test]
    fn a_thread_delivers_to_the_end() {
        let lines: Vec<_> = lines(&b"a\nb"[..]).iter().collect();
        assert_eq!(lines, ["a", "b"]);
    }
}
