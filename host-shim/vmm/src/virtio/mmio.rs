//! The registers of a virtio device: the MMIO transport, version 2 (section 4.2 of the specification).

use super::{
    Device, feature,
    queue::{Broken, Interrupt, Queues},
};
use crate::{bus::Registers, memory::Ram};
use anyhow::{Context as _, Result};
use std::sync::Arc;
use virtio_queue::{Queue, QueueT as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The magic value, "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "FRHD": whoever looks at it knows where the device comes from.
const VENDOR: u32 = 0x4448_5246;

/// Offsets of the registers (section 4.2.2).
pub mod register {
    #![expect(missing_docs, reason = "they have the specification's names")]
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the device status (section 2.1).
pub mod status {
    /// The driver knows how to drive the device.
    pub const DRIVER_OK: u32 = 4;
    /// Both sides agree on the features.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on.
    pub const NEEDS_RESET: u32 = 64;
}

/// A device behind its registers.
#[derive(Debug)]
pub struct Transport {
    device: Box<dyn Device>,
    ram: Arc<Ram>,
    queues: Vec<Queue>,
    kicks: Vec<EventFd>,
    interrupt: Interrupt,
    /// Whether the driver must use bounce memory.
    bounces: bool,
    status: u32,
    features_page: u32,
    driver_features_page: u32,
    driver_features: u64,
    queue: usize,
    generation: u32,
}

impl Transport {
    /// A device whose driver must use bounce memory if `bounces`.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn new(device: Box<dyn Device>, ram: Arc<Ram>, bounces: bool) -> Result<Self> {
        let event = || EventFd::new(EFD_NONBLOCK).context("cannot make an event");
        let queues = device.queue_sizes().iter().map(|&size| Queue::new(size));
        Ok(Self {
            queues: queues
                .collect::<Result<_, _>>()
                .context("a queue has no such size")?,
            kicks: device
                .queue_sizes()
                .iter()
                .map(|_| event())
                .collect::<Result<_>>()?,
            interrupt: Interrupt::new(event()?),
            device,
            ram,
            bounces,
            status: 0,
            features_page: 0,
            driver_features_page: 0,
            driver_features: 0,
            queue: 0,
            generation: 0,
        })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// What raises its interrupt.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The events that stand for notifications of its queues.
    #[must_use]
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// The driver has made buffers available in queue `index`.
    pub fn notified(&mut self, index: usize) {
        self.work(|device, queues| device.notified(index, queues));
    }

    /// The device's source has become readable.
    pub fn ready(&mut self) {
        self.work(|device, queues| device.ready(queues));
    }

    fn work(&mut self, work: impl FnOnce(&mut dyn Device, &mut Queues<'_>) -> Result<(), Broken>) {
        if self.status & (status::DRIVER_OK | status::NEEDS_RESET) != status::DRIVER_OK {
            return;
        }
        let mut queues = Queues {
            ram: &self.ram,
            queues: &mut self.queues,
            interrupt: &self.interrupt,
        };
        if let Err(why) = work(&mut *self.device, &mut queues) {
            eprintln!("freehold-vmm: device {} needs a reset: {why}", self.device.id());
            self.status |= status::NEEDS_RESET;
            self.interrupt.raise(Interrupt::CONFIGURATION);
        }
    }

    fn features(&self) -> u64 {
        let platform = if self.bounces { feature::ACCESS_PLATFORM } else { 0 };
        self.device.features() | feature::VERSION_1 | feature::INDIRECT_DESCRIPTORS | platform
    }

    /// Whether the device can work with what the driver has chosen.
    fn agrees(&self) -> bool {
        let mut needed = feature::VERSION_1;
        if self.bounces {
            needed |= feature::ACCESS_PLATFORM;
        }
        self.driver_features & !self.features() == 0 && self.driver_features & needed == needed
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut new = value | self.status & status::NEEDS_RESET;
        if new & status::FEATURES_OK != 0 && !self.agrees() {
            new &= !status::FEATURES_OK;
        }
        self.status = new;
        if new & status::DRIVER_OK != 0 {
            // What came before the driver was there.
            self.ready();
        }
    }

    fn reset(&mut self) {
        self.status = 0;
        self.driver_features = 0;
        self.queue = 0;
        for queue in &mut self.queues {
            queue.reset();
        }
        self.interrupt.acknowledge(u32::MAX);
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue);
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => match self.features_page {
                0 => self.features() as u32,
                1 => (self.features() >> 32) as u32,
                _ => 0,
            },
            register::QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            register::QUEUE_READY => queue.is_some_and(|queue| queue.ready()).into(),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS => self.status,
            // There is no shared memory: its length reads as all ones.
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.generation,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.features_page = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_page = value,
            // Once agreed upon they stay.
            register::DRIVER_FEATURES if self.status & status::FEATURES_OK == 0 => {
                let (shift, value) = match self.driver_features_page {
                    0 => (0, u64::from(value)),
                    1 => (32, u64::from(value)),
                    // A feature that cannot have been offered.
                    _ => return,
                };
                self.driver_features &= !(u64::from(u32::MAX) << shift);
                self.driver_features |= value << shift;
            }
            register::QUEUE_SEL => self.queue = value as usize,
            register::QUEUE_NOTIFY => self.notified(value as usize),
            register::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register::STATUS => self.set_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    fn write_queue_register(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.queue) else {
            return;
        };
        match offset {
            register::QUEUE_READY => {
                queue.set_ready(value == 1);
                // Its addresses are checked here once; where its memory then is, each access sees.
                if value == 1 && !queue.is_valid(self.ram.memory()) {
                    queue.set_ready(false);
                }
            }
            // What is set while the queue works has no effect.
            _ if queue.ready() => {}
            register::QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }
}

impl Registers for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            let config = self.device.config();
            for (number, byte) in data.iter_mut().enumerate() {
                *byte = config.get(offset as usize + number).copied().unwrap_or(0);
            }
        } else if data.len() == 4 {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            self.device.config_written(offset as usize, data);
        } else if let Ok(bytes) = data.try_into() {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
    }
}

#[cfg(test)]
mod tests;
