use super::*;
use crate::virtio::{
    balloon::Balloon,
    driver::{BUFFERS, Driver, PRIVATE, Part},
};

fn driver(bounces: bool) -> Driver {
    Driver::new(Box::new(Balloon::new(4 << 20)), bounces)
}

#[test]
fn a_device_is_found() {
    let mut driver = driver(false);
    assert_eq!(driver.get(register::MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!(driver.get(register::VERSION), 2);
    assert_eq!(driver.get(register::DEVICE_ID), 5);
    assert_eq!(driver.get(register::CONFIG), 1024);
    assert_eq!(driver.get(register::CONFIG + 0x100), 0);
    assert_eq!(driver.get(register::SHM_LEN_LOW), u32::MAX);
    driver.set(register::QUEUE_SEL, 9);
    assert_eq!(driver.get(register::QUEUE_NUM_MAX), 0);
}

#[test]
fn features_are_agreed_upon() {
    let mut driver = driver(false);
    assert_eq!(driver.offered() & feature::ACCESS_PLATFORM, 0);
    assert!(driver.negotiate(feature::VERSION_1));
    assert!(!driver.negotiate(0), "a legacy driver");
    assert!(
        !driver.negotiate(feature::VERSION_1 | 1 << 20),
        "what was not offered"
    );
}

#[test]
fn with_bounce_memory_a_driver_must_use_it() {
    let mut driver = driver(true);
    assert_ne!(driver.offered() & feature::ACCESS_PLATFORM, 0);
    assert!(!driver.negotiate(feature::VERSION_1));
    assert!(driver.negotiate(feature::VERSION_1 | feature::ACCESS_PLATFORM));
}

#[test]
fn a_queue_outside_memory_is_not_ready() {
    let mut driver = driver(false);
    assert!(driver.negotiate(feature::VERSION_1));
    driver.set(register::QUEUE_SEL, 0);
    driver.set(register::QUEUE_NUM, 16);
    driver.set(register::QUEUE_DESC_LOW, 0x1000);
    driver.set(register::QUEUE_READY, 1);
    assert_eq!(driver.get(register::QUEUE_READY), 0);
}

#[test]
fn nothing_happens_before_the_driver_is_ready() {
    let mut driver = driver(false);
    driver.set(register::QUEUE_NOTIFY, 0);
    driver.set(register::QUEUE_NOTIFY, u32::MAX);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 0);
}

#[test]
fn a_request_that_is_done_interrupts() {
    let mut driver = Driver::started(Box::new(Balloon::new(0)));
    assert_eq!(driver.ask(0, &[Part::Reads(BUFFERS, 0)]), Some(0));
    assert_eq!(driver.get(register::INTERRUPT_STATUS), Interrupt::USED);
    driver.set(register::INTERRUPT_ACK, Interrupt::USED);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 0);
    assert_eq!(driver.transport.interrupt().event().read().unwrap(), 1);
}

#[test]
fn rings_that_become_private_stop_the_device_until_a_reset() {
    let mut driver = Driver::started(Box::new(Balloon::new(0)));
    driver.offer(0, &[Part::Reads(BUFFERS, 4)]);
    driver.take_all_memory();
    driver.set(register::QUEUE_NOTIFY, 0);
    assert_ne!(driver.get(register::STATUS) & status::NEEDS_RESET, 0);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), Interrupt::CONFIGURATION);
    let refused = driver.ram.refused();
    assert!(refused > 0);
    driver.set(register::QUEUE_NOTIFY, 0);
    assert_eq!(driver.ram.refused(), refused, "a stopped device touches nothing");
    driver.set(register::STATUS, 0);
    assert_eq!(driver.get(register::STATUS), 0);
}

#[test]
fn chains_that_make_no_sense_stop_the_device() {
    let good = Part::Reads(BUFFERS, 4);
    for parts in [
        // A loop, since the last descriptor names itself by way of the ring's size.
        vec![good; 16],
        vec![Part::Writes(BUFFERS, 4), good],
        vec![Part::Reads(BUFFERS, u32::MAX), good],
    ] {
        let mut driver = Driver::started(Box::new(Balloon::new(0)));
        let looped = parts.len() == 16;
        driver.offer(0, &parts);
        if looped {
            // The last one goes on with the first.
            let flags = [1u16.to_le_bytes(), 0u16.to_le_bytes()].concat();
            driver
                .ram
                .write(crate::layout::RAM + 15 * 16 + 12, &flags)
                .unwrap();
        }
        driver.set(register::QUEUE_NOTIFY, 0);
        let stopped = driver.get(register::STATUS) & status::NEEDS_RESET != 0;
        // A loop ends with the ring's size, and what is left is a chain like any other.
        assert_eq!(stopped, !looped, "{parts:?}");
    }
}

#[test]
fn a_buffer_that_is_private_fails_its_request_only() {
    let mut driver = Driver::started(Box::new(Balloon::new(0)));
    assert_eq!(driver.ask(0, &[Part::Reads(PRIVATE, 4)]), Some(0));
    assert_eq!(driver.get(register::STATUS) & status::NEEDS_RESET, 0);
    assert!(driver.transport.device().report().contains("failures=1"));
    driver.ram.write(BUFFERS, &[0; 4]).unwrap();
    assert_eq!(driver.ask(0, &[Part::Reads(BUFFERS, 4)]), Some(0));
}
