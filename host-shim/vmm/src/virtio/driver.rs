//! A driver, for the tests of devices: it speaks to the registers and lays rings and buffers in the guest's memory.

use super::{
    Device, feature,
    mmio::{Transport, register, status},
};
use crate::{bus::Registers as _, layout, memory::Ram};
use std::{fs::File, sync::Arc};
use vmm_sys_util::tempfile::TempFile;

const SIZE: u64 = 4 << 20;

/// The size of every queue.
const QUEUE: u16 = 16;

/// From here on memory is private.
pub(super) const PRIVATE: u64 = layout::RAM + SIZE / 2;

/// Where tests put their buffers.
pub(super) const BUFFERS: u64 = layout::RAM + 0x10_0000;

/// A part of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// The device reads so many bytes here.
    Reads(u64, u32),
    /// The device writes so many bytes here.
    Writes(u64, u32),
}

pub(super) struct Driver {
    pub(super) ram: Arc<Ram>,
    pub(super) transport: Transport,
    rings: Vec<u64>,
    file: File,
}

impl Driver {
    /// A driver that has not spoken to its device yet.
    pub(super) fn new(device: Box<dyn Device>, bounces: bool) -> Self {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(SIZE / 2).unwrap();
        let ram = Arc::new(Ram::of_file(file.try_clone().unwrap(), SIZE).unwrap());
        let queues = device.queue_sizes().len() as u64;
        Self {
            transport: Transport::new(device, ram.clone(), bounces).unwrap(),
            ram,
            rings: (0..queues).map(|queue| layout::RAM + queue * 0x4000).collect(),
            file,
        }
    }

    /// A driver whose device works.
    pub(super) fn started(device: Box<dyn Device>) -> Self {
        let mut driver = Self::new(device, false);
        assert!(driver.negotiate(feature::VERSION_1));
        driver.start();
        driver
    }

    /// Has all memory private, the rings too.
    pub(super) fn take_all_memory(&self) {
        self.file.set_len(0).unwrap();
    }

    pub(super) fn get(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn set(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    pub(super) fn offered(&mut self) -> u64 {
        self.set(register::DEVICE_FEATURES_SEL, 0);
        let low = self.get(register::DEVICE_FEATURES);
        self.set(register::DEVICE_FEATURES_SEL, 1);
        u64::from(self.get(register::DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    /// Asks for features; whether the device agrees.
    pub(super) fn negotiate(&mut self, features: u64) -> bool {
        self.set(register::STATUS, 0);
        self.set(register::STATUS, 3);
        for page in 0..2 {
            self.set(register::DRIVER_FEATURES_SEL, page);
            self.set(register::DRIVER_FEATURES, (features >> (32 * page)) as u32);
        }
        self.set(register::STATUS, 3 | status::FEATURES_OK);
        self.get(register::STATUS) & status::FEATURES_OK != 0
    }

    pub(super) fn start(&mut self) {
        for (index, ring) in self.rings.clone().into_iter().enumerate() {
            self.ram.write(ring, &[0; 0x4000]).unwrap();
            self.set(register::QUEUE_SEL, index as u32);
            self.set(register::QUEUE_NUM, QUEUE.into());
            self.set(register::QUEUE_DESC_LOW, ring as u32);
            self.set(register::QUEUE_DRIVER_LOW, ring as u32 + 0x1000);
            self.set(register::QUEUE_DEVICE_LOW, ring as u32 + 0x2000);
            self.set(register::QUEUE_READY, 1);
            assert_eq!(self.get(register::QUEUE_READY), 1);
        }
        self.set(register::STATUS, 3 | status::FEATURES_OK | status::DRIVER_OK);
    }

    pub(super) fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.ram.read(address, &mut data).unwrap();
        data
    }

    fn word(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address))
    }

    /// Makes one request available, from descriptor 0 on.
    pub(super) fn offer(&mut self, queue: usize, parts: &[Part]) {
        let ring = self.rings[queue];
        for (index, part) in (0u16..).zip(parts) {
            let is_last = usize::from(index) + 1 == parts.len();
            let (address, length, write) = match *part {
                Part::Reads(address, length) => (address, length, 0),
                Part::Writes(address, length) => (address, length, 2),
            };
            let flags: u16 = write | u16::from(!is_last);
            let mut descriptor = address.to_le_bytes().to_vec();
            descriptor.extend(length.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((index + 1).to_le_bytes());
            self.ram.write(ring + u64::from(index) * 16, &descriptor).unwrap();
        }
        let available = ring + 0x1000;
        let next = self.word(available + 2);
        let place = available + 4 + u64::from(next % QUEUE) * 2;
        self.ram.write(place, &0u16.to_le_bytes()).unwrap();
        self.ram
            .write(available + 2, &next.wrapping_add(1).to_le_bytes())
            .unwrap();
    }

    /// Makes a request and notifies the device; how many bytes it says it has written, if it is done.
    pub(super) fn ask(&mut self, queue: usize, parts: &[Part]) -> Option<u32> {
        let used = self.used(queue);
        self.offer(queue, parts);
        self.set(register::QUEUE_NOTIFY, queue as u32);
        (self.used(queue) != used).then(|| self.written(queue))
    }

    /// How many requests the device has done.
    pub(super) fn used(&self, queue: usize) -> u16 {
        self.word(self.rings[queue] + 0x2002)
    }

    /// How many bytes it wrote in the last of them.
    pub(super) fn written(&self, queue: usize) -> u32 {
        let last = self.used(queue).wrapping_sub(1) % QUEUE;
        u32::from_le_bytes(self.read(self.rings[queue] + 0x2004 + u64::from(last) * 8 + 4))
    }
}
