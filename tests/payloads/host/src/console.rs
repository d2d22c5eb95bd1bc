//! The UART, a line at a time.
#![expect(unsafe_code, reason = "takes the UART's registers")]

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::TicketMutex;

static CONSOLE: TicketMutex<Option<Console>> = TicketMutex::new(None);
/// Where the UART is, for a panic that must not wait for the lock. 0 before [`init`].
static BASE: AtomicU64 = AtomicU64::new(0);

struct Console(Uart<'static>);

impl Console {
    /// # Safety
    /// `base` must be the address of a PL011 that is mapped as a device, and nobody else may use it meanwhile.
    unsafe fn new(base: u64) -> Option<Self> {
        let registers = NonNull::new(with_exposed_provenance_mut::<PL011Registers>(base as usize))?;
        // SAFETY: the caller promises that the registers are there and nobody else's.
        Some(Self(Uart::new(unsafe { UniqueMmioPointer::new(registers) })))
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while self.0.is_tx_fifo_full() {
                core::hint::spin_loop();
            }
            self.0.write_word(byte);
        }
        Ok(())
    }
}

/// Begins to use the PL011 at physical address `base` as the firmware has set it up.
pub(crate) fn init(base: u64) {
    BASE.store(base, Ordering::Relaxed);
    // SAFETY: the device tree says that a PL011 is there; the first GiB is mapped as a device; this runs once.
    *CONSOLE.lock() = unsafe { Console::new(base) };
}

/// Prints one line, which no other CPU's line is mixed into.
pub(crate) fn print_line(arguments: fmt::Arguments<'_>) {
    crate::sysreg::without_irqs(|| {
        if let Some(console) = CONSOLE.lock().as_mut() {
            // A console that never fails: see `write_str`. A Display that fails is not ours to report.
            let _ = writeln!(console, "{arguments}");
        }
    });
}

/// Prints what a panic says, whoever holds the lock: the payload ends right after.
pub(crate) fn panicked(info: &PanicInfo<'_>) {
    let base = BASE.load(Ordering::Relaxed);
    if base == 0 {
        return;
    }
    // SAFETY: the registers are there since `init`. Another CPU may print at the same time; the payload is about
    // to end, and a garbled line is better than none.
    if let Some(mut console) = unsafe { Console::new(base) } {
        let _ = writeln!(console, "\npayload: CPU {}: {info}", crate::sysreg::cpu_number());
    }
}

/// Prints one line.
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}
pub(crate) use println;
