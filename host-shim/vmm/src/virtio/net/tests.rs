use super::*;
use crate::virtio::driver::{BUFFERS, Driver, PRIVATE, Part};
use std::sync::{Arc, Mutex};

type Frames = Vec<Vec<u8>>;

/// A wire whose other end a test holds: the frames that came out of it, and those that will go in.
#[derive(Clone, Debug, Default)]
struct Loose(Arc<Mutex<(Frames, Frames)>>);

impl Wire for Loose {
    fn send(&mut self, frame: &[u8]) {
        self.0.lock().unwrap().0.push(frame.to_vec());
    }
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut ends = self.0.lock().unwrap();
        (!ends.1.is_empty()).then(|| ends.1.remove(0))
    }
}

fn driver() -> (Driver, Loose) {
    let wire = Loose::default();
    let driver = Driver::started(Box::new(Net::new(Box::new(wire.clone()))));
    (driver, wire)
}

#[test]
fn a_frame_goes_out_without_its_header() {
    let (mut driver, wire) = driver();
    driver.ram.write(BUFFERS, &[0; HEADER]).unwrap();
    driver.ram.write(BUFFERS + HEADER as u64, b"frame").unwrap();
    let length = HEADER as u32 + 5;
    driver.ask(TRANSMIT, &[Part::Reads(BUFFERS, length)]);
    driver.ask(TRANSMIT, &[Part::Reads(BUFFERS, HEADER as u32)]);
    driver.ask(TRANSMIT, &[Part::Reads(PRIVATE, length)]);
    driver.ask(TRANSMIT, &[Part::Reads(BUFFERS, 2000)]);
    assert_eq!(wire.0.lock().unwrap().0, [b"frame"]);
    assert!(
        driver
            .transport
            .device()
            .report()
            .contains("sent=1 received=0 failures=3")
    );
    assert_eq!(driver.used(TRANSMIT), 4);
}

#[test]
fn a_frame_waits_for_a_buffer() {
    let (mut driver, wire) = driver();
    wire.0.lock().unwrap().1 = vec![b"one".to_vec(), b"two".to_vec()];
    driver.transport.ready();
    assert_eq!(driver.used(RECEIVE), 0);
    let buffer = [Part::Writes(BUFFERS, 64)];
    assert_eq!(driver.ask(RECEIVE, &buffer), Some(HEADER as u32 + 3));
    assert_eq!(driver.read::<3>(BUFFERS + HEADER as u64), *b"one");
    assert_eq!(driver.read::<2>(BUFFERS + HEADER as u64 - 2), [1, 0]);
    driver.ask(RECEIVE, &buffer);
    assert_eq!(driver.read::<3>(BUFFERS + HEADER as u64), *b"two");
}

#[test]
fn a_frame_for_a_private_or_small_buffer_is_lost() {
    let (mut driver, wire) = driver();
    wire.0.lock().unwrap().1 = vec![b"one".to_vec(), b"two".to_vec()];
    assert_eq!(driver.ask(RECEIVE, &[Part::Writes(PRIVATE, 64)]), Some(0));
    assert_eq!(driver.ask(RECEIVE, &[Part::Writes(BUFFERS, 4)]), Some(0));
    assert!(driver.transport.device().report().contains("failures=2"));
}
