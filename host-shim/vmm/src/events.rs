//! What the main thread waits for: notifications of queues, and what comes from outside.

use crate::{bus::lock, serial::SerialPort, virtio::mmio::Transport};
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::{
    os::fd::{AsRawFd as _, RawFd},
    sync::{Arc, Mutex},
};
use vmm_sys_util::{epoll::EventSet, eventfd::EventFd};

/// How a device's source is told from its queues.
const SOURCE: u32 = u32::MAX;

/// Watches a source as long as there is one. Files are always readable and cannot be watched: what they hold is read
/// when the driver is ready for it.
fn watch_source(ops: &mut EventOps<'_>, source: Option<RawFd>) {
    if let Some(descriptor) = source {
        // Whoever has no room leaves bytes there, and must not be told again and again.
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let _ = ops.add(Events::with_data_raw(descriptor, SOURCE, events));
    }
}

/// A virtio device in the main thread.
#[derive(Debug)]
pub struct VirtioEvents {
    transport: Arc<Mutex<Transport>>,
    kicks: Vec<EventFd>,
    source: Option<RawFd>,
}

impl VirtioEvents {
    /// The events of this device.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn new(transport: Arc<Mutex<Transport>>) -> std::io::Result<Self> {
        let (kicks, source) = {
            let transport = lock(&transport);
            let kicks: std::io::Result<_> = transport.kicks().iter().map(EventFd::try_clone).collect();
            (kicks?, transport.device().source())
        };
        Ok(Self {
            transport,
            kicks,
            source,
        })
    }
}

impl MutEventSubscriber for VirtioEvents {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let mut transport = lock(&self.transport);
        match self.kicks.get(events.data() as usize) {
            Some(kick) => {
                // It has been written to; if not, there is one look too many.
                let _ = kick.read();
                transport.notified(events.data() as usize);
            }
            None => transport.ready(),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (index, kick) in self.kicks.iter().enumerate() {
            let events = Events::with_data_raw(kick.as_raw_fd(), index as u32, EventSet::IN);
            if let Err(error) = ops.add(events) {
                eprintln!("freehold-vmm: a queue cannot be watched: {error}");
            }
        }
        watch_source(ops, self.source);
    }
}

/// The serial port in the main thread.
#[derive(Debug)]
pub struct SerialEvents(pub Arc<Mutex<SerialPort>>);

impl MutEventSubscriber for SerialEvents {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        lock(&self.0).ready();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let source = lock(&self.0).source();
        watch_source(ops, source);
    }
}

/// Wakes the main thread when a CPU has ended.
#[derive(Debug)]
pub struct Wake(pub EventFd);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let _ = self.0.read();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.0, EventSet::IN)) {
            eprintln!("freehold-vmm: the CPUs cannot be watched: {error}");
        }
    }
}
