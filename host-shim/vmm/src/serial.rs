//! The serial port: a 16550A, by which a kernel speaks before it has any other device.

use crate::{bus::Registers, input::Input};
use anyhow::{Context as _, Result};
use std::{
    io::{self, Write},
    os::fd::RawFd,
};
use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Where a device's output goes.
pub type Output = Box<dyn Write + Send>;

/// The port's interrupt.
#[derive(Debug)]
pub struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The serial port.
pub struct SerialPort {
    port: Serial<Line, NoEvents, Output>,
    input: Input,
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

impl SerialPort {
    /// A port whose output goes to `output`, and which gets what is typed in `input`.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn new(output: Output, input: Input) -> Result<Self> {
        let line = Line(EventFd::new(EFD_NONBLOCK).context("cannot make an event")?);
        Ok(Self {
            port: Serial::new(line, output),
            input,
        })
    }

    /// What raises its interrupt.
    #[must_use]
    pub fn interrupt(&self) -> &EventFd {
        &self.port.interrupt_evt().0
    }

    /// The descriptor that becomes readable when something is typed.
    #[must_use]
    pub fn source(&self) -> Option<RawFd> {
        self.input.descriptor()
    }

    /// Hands over what has been typed, as far as there is room.
    pub fn ready(&mut self) {
        let typed = self.input.take(self.port.fifo_capacity());
        // The port has room for them; in loop-back mode it takes nothing, as a real one.
        let _ = self.port.enqueue_raw_bytes(&typed);
    }
}

impl Registers for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The registers are bytes, one after the other.
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.port.read(offset);
            self.ready();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            // Output that goes nowhere is lost, as on a real line.
            let _ = self.port.write(offset, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::pipe,
        os::fd::OwnedFd,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(data)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_comes_out_and_what_is_typed_goes_in() {
        let sink = Sink::default();
        let (reader, mut writer) = pipe().unwrap();
        let input = Input::new(OwnedFd::from(reader).into());
        let mut port = SerialPort::new(Box::new(sink.clone()), input).unwrap();
        for byte in *b"hello" {
            port.write(0, &[byte]);
        }
        assert_eq!(*sink.0.lock().unwrap(), b"hello");

        // Interrupts for received data.
        port.write(1, &[1]);
        let typed = [b'x'; 100];
        writer.write_all(&typed).unwrap();
        port.ready();
        assert_eq!(port.interrupt().read().unwrap(), 1);
        let mut seen = 0;
        let mut byte = [0];
        loop {
            port.read(5, &mut byte);
            if byte[0] & 1 == 0 {
                break;
            }
            port.read(0, &mut byte);
            assert_eq!(byte, [b'x']);
            seen += 1;
        }
        assert_eq!(seen, typed.len(), "more than its buffer holds must not be lost");
    }

    #[test]
    fn wide_accesses_have_no_effect() {
        let sink = Sink::default();
        let mut port = SerialPort::new(Box::new(sink.clone()), Input::none()).unwrap();
        port.write(0, b"four");
        let mut data = [7; 4];
        port.read(0, &mut data);
        assert!(sink.0.lock().unwrap().is_empty());
        assert_eq!(data, [7; 4]);
    }
}
