//! Which device answers an access that leaves the guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device that answers accesses to its registers.
pub trait Registers: Send {
    /// Answers a load of `data.len()` bytes (1, 2, 4 or 8) at `offset` bytes from the device's first register.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes a store.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device on the bus, which other threads use too.
pub type Shared = Arc<Mutex<dyn Registers>>;

/// The devices, by their addresses.
#[derive(Clone, Default)]
pub struct Bus {
    devices: Vec<(u64, u64, Shared)>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.devices.iter().map(|(start, size, _)| (start, size)))
            .finish()
    }
}

impl Bus {
    /// Adds a device with `size` bytes of registers at `start`. Devices do not overlap; the first one wins.
    pub fn add(&mut self, start: u64, size: u64, device: Shared) {
        self.devices.push((start, size, device));
    }

    /// Answers a guest's load. Where no device is, it reads zero.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((offset, device)) = self.find(address, data.len()) {
            lock(device).read(offset, data);
        }
    }

    /// Takes a guest's store. Where no device is, it has no effect.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address, data.len()) {
            lock(device).write(offset, data);
        }
    }

    fn find(&self, address: u64, length: usize) -> Option<(u64, &Mutex<dyn Registers>)> {
        self.devices.iter().find_map(|(start, size, device)| {
            let offset = address.checked_sub(*start)?;
            let end = offset.checked_add(length as u64)?;
            (end <= *size).then_some((offset, &**device))
        })
    }
}

/// Locks, also when a thread has panicked meanwhile: then the process is on its way out.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Last(u64, Vec<u8>);

    impl Registers for Last {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            *self = Self(offset, data.to_vec());
        }
    }

    #[test]
    fn an_access_reaches_the_device_that_has_all_of_it() {
        let mut bus = Bus::default();
        let (one, two) = (
            Arc::new(Mutex::new(Last::default())),
            Arc::new(Mutex::new(Last::default())),
        );
        bus.add(0x1000, 0x100, one.clone());
        bus.add(0x2000, 0x100, two.clone());
        bus.write(0x2004, &[1, 2]);
        bus.write(0x10ff, &[7]);
        assert_eq!(two.lock().unwrap().1, [1, 2]);
        assert_eq!((two.lock().unwrap().0, one.lock().unwrap().0), (4, 0xff));
        let mut data = [0xff; 4];
        bus.read(0x1008, &mut data);
        assert_eq!(data, [8; 4]);
        for (address, length) in [(0x10fd, 4), (0xfff, 1), (0x3000, 8), (u64::MAX, 8)] {
            let mut data = vec![0xff; length];
            bus.read(address, &mut data);
            assert_eq!(data, vec![0; length]);
        }
    }
}
