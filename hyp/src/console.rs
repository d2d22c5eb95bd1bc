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

/// The UART's transmitter, as the firmware or the emulator set it up.
pub(crate) struct Port(Uart<'static>);

impl Port {
    /// The PL011 at `address`.
    ///
    /// # Safety
    /// A PL011 is there, it is mapped as Device memory (or the MMU is off), and nobody else drives it meanwhile.
    pub(crate) unsafe fn new(address: PhysAddr) -> Option<Self> {
        let registers: *mut PL011Registers = ptr::with_exposed_provenance_mut(address.value() as usize);
        // SAFETY: the caller vouches for the registers and for their being ours alone.
        let registers = unsafe { UniqueMmioPointer::new(NonNull::new(registers)?) };
        Some(Self(Uart::new(registers)))
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
        while self.0.is_tx_fifo_full() {
            core::hint::spin_loop();
        }
        self.0.write_word(byte);
    }

    /// Waits until everything is on the wire: after this the power may go.
    pub(crate) fn flush(&mut self) {
        while self.0.is_busy() {
            core::hint::spin_loop();
        }
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
