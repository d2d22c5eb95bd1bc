//! The console: a PL011, and the `log` crate in front of it.
//!
//! Until the host is entered EL2 tells its story here, in lines that begin `freehold: `. Then the UART is the
//! host's; EL2 takes it back only to panic.

#![expect(unsafe_code, reason = "claims the registers of the UART")]

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};
use hyp_core::addr::PhysAddr;
use log::{LevelFilter, Log, Metadata, Record};
use spin::Mutex;

/// What every line of EL2's begins with.
const PREFIX: &str = "freehold: ";

static CONSOLE: Console = Console {
    uart: Mutex::new(None),
};

struct Console {
    uart: Mutex<Option<Port>>,
}

/// How often the UART is asked, at most, whether it can take one more character: far longer than the slowest line
/// needs for one. A host that switched the transmitter off must not keep a panic from its reset.
const PATIENCE: u32 = 10_000_000;

/// The UART's transmitter, as the firmware, the emulator or the host set it up.
pub(crate) struct Port {
    uart: Uart<'static>,
    /// It has stopped taking characters, and is asked no more.
    stuck: bool,
}

impl Port {
    /// The PL011 at `address`.
    ///
    /// # Safety
    /// A PL011 is there, it is mapped as Device memory (or the MMU is off), and nobody else drives it meanwhile.
    pub(crate) unsafe fn new(address: PhysAddr) -> Option<Self> {
        let registers: *mut PL011Registers = ptr::with_exposed_provenance_mut(address.value() as usize);
        // SAFETY: the caller vouches for the registers and for their being ours alone.
        let registers = unsafe { UniqueMmioPointer::new(NonNull::new(registers)?) };
        Some(Self {
            uart: Uart::new(registers),
            stuck: false,
        })
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

impl Port {
    fn put(&mut self, byte: u8) {
        if self.wait(|uart| !uart.is_tx_fifo_full()) {
            self.uart.write_word(byte);
        }
    }

    /// Waits until everything is on the wire: after this the power may go.
    pub(crate) fn flush(&mut self) {
        self.wait(|uart| !uart.is_busy());
    }

    /// Waits until the UART is `ready`, and answers whether it is.
    fn wait(&mut self, ready: impl Fn(&Uart<'static>) -> bool) -> bool {
        if !self.stuck {
            self.stuck = !(0..PATIENCE).any(|_| {
                core::hint::spin_loop();
                ready(&self.uart)
            });
        }
        !self.stuck
    }
}

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(port) = self.uart.lock().as_mut() {
            // The port takes everything; only formatting could fail, and then the line ends early.
            let _ = writeln!(port, "{PREFIX}{}", record.args());
        }
    }

    fn flush(&self) {
        if let Some(port) = self.uart.lock().as_mut() {
            port.flush();
        }
    }
}

/// Sends the lines of the `log` crate to `port` from now on.
pub(crate) fn open(port: Port) {
    *CONSOLE.uart.lock() = Some(port);
    // Fails only if it was done before, and then it is as it should be.
    let _ = log::set_logger(&CONSOLE);
    log::set_max_level(LevelFilter::Info);
}

/// Sends no more lines: the UART is the host's now.
pub(crate) fn close() {
    Log::flush(&CONSOLE);
    log::set_max_level(LevelFilter::Off);
    *CONSOLE.uart.lock() = None;
}
