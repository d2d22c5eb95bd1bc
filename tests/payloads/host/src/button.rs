//! The power button of QEMU's virt machine, by which whoever runs the machine says something to it: pin 3 of a PL061
//! (QEMU, `hw/arm/virt.c`, `create_gpio_keys`; Arm DDI 0190).
#![expect(unsafe_code, reason = "takes the GPIO's registers")]

use crate::machine::machine;
use crate::sysreg;
use core::ptr::with_exposed_provenance_mut;

/// The button's pin.
const PIN: u32 = 1 << 3;

/// GPIODATA, of the button's pin alone: bits 9:2 of the address say which pins are read.
const LEVEL: u64 = (PIN as u64) << 2;
/// GPIOIEV: which edge counts, a bit for each pin; 1 is the rising one.
const EVENT: u64 = 0x40c;
/// GPIORIS: the edges that came.
const RAW_STATUS: u64 = 0x414;
/// GPIOIC: forgets them.
const CLEAR: u64 = 0x41c;

/// A button that is watched.
#[derive(Debug)]
pub(crate) struct Button {
    registers: u64,
}

impl Button {
    /// Watches the button from now on; `None` if the machine has none.
    ///
    /// QEMU keeps it down for 100 ms (`hw/gpio/gpio_key.c`), and whoever presses it meanwhile does nothing that could be seen.
    /// So this waits until it is up.
    pub(crate) fn watch() -> Option<Self> {
        let registers = machine().devices.gpio?;
        let button = Self { registers };
        while button.read(LEVEL) != 0 {
            sysreg::relax();
        }
        button.write(EVENT, PIN);
        button.write(CLEAR, PIN);
        Some(button)
    }

    /// Waits until it was pressed.
    pub(crate) fn wait(self) {
        while self.read(RAW_STATUS) & PIN == 0 {
            sysreg::relax();
        }
        self.write(CLEAR, PIN);
    }

    fn read(&self, register: u64) -> u32 {
        let at = with_exposed_provenance_mut::<u32>((self.registers + register) as usize);
        // SAFETY: the device tree says that a PL061 is there; it is mapped as a device, and nobody else uses it.
        unsafe { at.read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        let at = with_exposed_provenance_mut::<u32>((self.registers + register) as usize);
        // SAFETY: as in `read`.
        unsafe { at.write_volatile(value) };
    }
}
