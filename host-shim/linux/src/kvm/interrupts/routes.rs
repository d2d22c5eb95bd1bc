//! `KVM_SET_GSI_ROUTING`: where the lines of devices end.
//!
//! A line has a number, its GSI. There is one interrupt controller, whose pin n is SPI 32 + n, and messages have nowhere to
//! go, as there is no ITS.

use crate::kvm::abi::devices::{IrqRouting, IrqRoutingEntry, MSI_VALID_DEVID, ROUTING_IRQCHIP, ROUTING_MSI};
use crate::kvm::read_user;
use crate::{Errno, Linux};
use alloc::vec::Vec;

/// How many lines there can be: their numbers are below.
pub const MAX_LINES: u32 = 4096;

/// How many pins the interrupt controller has.
const PINS: u32 = 1020 - FIRST_SPI;

/// The interrupt at pin 0.
pub const FIRST_SPI: u32 = 32;

/// Where a line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Nowhere.
    #[default]
    None,
    /// At a pin.
    Pin(u16),
    /// In a message.
    Message,
}

/// Where each line ends, by its number.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// Line n ends at pin n, for as many as there are SPIs.
    pub fn straight(spis: u32) -> Self {
        let pins = (0..spis.min(PINS)).filter_map(|pin| u16::try_from(pin).ok());
        Self(pins.map(Route::Pin).collect())
    }

    /// What user space asks for.
    ///
    /// # Errors
    /// [`Errno::FAULT`]; [`Errno::INVAL`] if there is no such line or end, or a line has two.
    pub fn read(linux: &impl Linux, argument: u64) -> Result<Self, Errno> {
        let head: IrqRouting = read_user(linux, argument)?;
        if head.nr > MAX_LINES || head.flags != 0 {
            return Err(Errno::INVAL);
        }
        let size = size_of::<IrqRoutingEntry>() as u64;
        let first = argument + size_of::<IrqRouting>() as u64;
        let mut routes = Self::default();
        for number in 0..u64::from(head.nr) {
            let address = first.checked_add(number * size).ok_or(Errno::FAULT)?;
            routes.add(&read_user(linux, address)?)?;
        }
        Ok(routes)
    }

    fn add(&mut self, entry: &IrqRoutingEntry) -> Result<(), Errno> {
        let [first, second, ..] = entry.target;
        let (route, flags) = match entry.kind {
            ROUTING_IRQCHIP if first == 0 && second < PINS => (Route::Pin(second as u16), 0),
            ROUTING_MSI => (Route::Message, MSI_VALID_DEVID),
            _ => return Err(Errno::INVAL),
        };
        if entry.gsi >= MAX_LINES || entry.flags & !flags != 0 {
            return Err(Errno::INVAL);
        }
        let index = entry.gsi as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Route::None);
        }
        match self.0.get_mut(index) {
            Some(place @ Route::None) => *place = route,
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// Where a line ends.
    pub fn of(&self, gsi: u32) -> Route {
        self.0.get(gsi as usize).copied().unwrap_or_default()
    }

    /// The SPI that a line is.
    pub fn spi(&self, gsi: u32) -> Option<u32> {
        match self.of(gsi) {
            Route::Pin(pin) => Some(FIRST_SPI + u32::from(pin)),
            Route::None | Route::Message => None,
        }
    }
}
