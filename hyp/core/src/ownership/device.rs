//! Device registers are owned too.
//!
//! Addresses that are no RAM are the host's unless a range here says otherwise. There are few such ranges, so they
//! are a small sorted table. The host's are mapped when it first touches them.

use crate::addr::PhysAddr;
use arrayvec::ArrayVec;

/// The most ranges of device registers that are not the host's.
pub const MAX_DEVICE_RANGES: usize = 256;

/// Who owns a range of device registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceOwner {
    /// EL2 keeps it; an access of the host is refused.
    Hyp,
    /// The host uses it, but EL2 carries out each access and may refuse a part of what it does.
    Emulated,
}

/// A range of device registers, in whole 4 KiB pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    /// The first byte; page-aligned.
    pub start: PhysAddr,
    /// How many bytes; a multiple of 4 KiB, not 0.
    pub bytes: u64,
    /// Whose it is.
    pub owner: DeviceOwner,
}

impl DeviceRange {
    /// The address after the last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.value().saturating_add(self.bytes)
    }
}

/// Why a range cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It is not in whole pages, or empty, or runs past 48 bits.
    #[error("a device range must be whole pages below 2^48")]
    BadRange,
    /// It overlaps one that is there.
    #[error("two device ranges overlap")]
    Overlap,
    /// There are [`MAX_DEVICE_RANGES`] already.
    #[error("more than {MAX_DEVICE_RANGES} device ranges")]
    TooMany,
}

/// The device registers that are not simply the host's, in ascending order.
#[derive(Debug, Default)]
pub struct Devices {
    ranges: ArrayVec<DeviceRange, MAX_DEVICE_RANGES>,
}

impl Devices {
    /// No exceptions: all device registers are the host's.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ranges: ArrayVec::new_const(),
        }
    }

    /// Adds a range.
    ///
    /// # Errors
    /// See [`DeviceError`]; nothing is added.
    pub fn add(&mut self, range: DeviceRange) -> Result<(), DeviceError> {
        let page = crate::addr::FRAME_SIZE - 1;
        let whole = range.bytes != 0 && (range.start.value() | range.bytes) & page == 0;
        if !whole || range.start.checked_add(range.bytes - 1).is_none() {
            return Err(DeviceError::BadRange);
        }
        if self.overlapping(range.start.value(), range.end()).is_some() {
            return Err(DeviceError::Overlap);
        }
        let index = self.ranges.partition_point(|other| other.start < range.start);
        self.ranges
            .try_insert(index, range)
            .map_err(|_| DeviceError::TooMany)
    }

    /// The first range that has a byte in `start..end`.
    #[must_use]
    pub fn overlapping(&self, start: u64, end: u64) -> Option<DeviceRange> {
        let index = self.ranges.partition_point(|range| range.end() <= start);
        self.ranges
            .get(index)
            .copied()
            .filter(|range| range.start.value() < end)
    }

    /// The range that `address` lies in.
    #[must_use]
    pub fn find(&self, address: PhysAddr) -> Option<DeviceRange> {
        self.overlapping(address.value(), address.value().saturating_add(1))
    }

    /// All ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.ranges.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, bytes: u64) -> DeviceRange {
        DeviceRange {
            start: PhysAddr::new(start).unwrap(),
            bytes,
            owner: DeviceOwner::Hyp,
        }
    }

    #[test]
    fn finds_ranges_whatever_order_they_came_in() {
        let mut devices = Devices::new();
        devices.add(range(0x9000, 0x1000)).unwrap();
        devices.add(range(0x1000, 0x2000)).unwrap();
        devices.add(range(0x5000, 0x1000)).unwrap();
        let starts: std::vec::Vec<u64> = devices.iter().map(|range| range.start.value()).collect();
        assert_eq!(starts, [0x1000, 0x5000, 0x9000]);
        let found = |address| {
            devices
                .find(PhysAddr::new(address).unwrap())
                .map(|range| range.start.value())
        };
        assert_eq!(
            [0x0fff, 0x1000, 0x2fff, 0x3000].map(found),
            [None, Some(0x1000), Some(0x1000), None]
        );
        assert_eq!(devices.overlapping(0x3000, 0x5000), None);
        assert_eq!(
            devices
                .overlapping(0x3000, 0x5001)
                .map(|range| range.start.value()),
            Some(0x5000)
        );
    }

    #[test]
    fn refuses_overlaps_and_broken_ranges() {
        let mut devices = Devices::new();
        devices.add(range(0x1000, 0x2000)).unwrap();
        assert_eq!(devices.add(range(0x2000, 0x1000)), Err(DeviceError::Overlap));
        assert_eq!(devices.add(range(0x0, 0x2000)), Err(DeviceError::Overlap));
        assert_eq!(devices.add(range(0x4000, 0)), Err(DeviceError::BadRange));
        assert_eq!(devices.add(range(0x4000, 0x800)), Err(DeviceError::BadRange));
        assert_eq!(devices.add(range(0x4800, 0x1000)), Err(DeviceError::BadRange));
        assert_eq!(
            devices.add(range(0xffff_ffff_f000, 0x2000)),
            Err(DeviceError::BadRange)
        );
        assert_eq!(devices.iter().count(), 1);
    }
}
