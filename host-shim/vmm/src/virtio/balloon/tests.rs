use super::*;
use crate::{
    layout::RAM,
    virtio::driver::{BUFFERS, Driver, Part},
};

fn tell(driver: &mut Driver, queue: usize, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.ram.write(BUFFERS, &bytes).unwrap();
    let length = bytes.len() as u32;
    assert_eq!(driver.ask(queue, &[Part::Reads(BUFFERS, length)]), Some(0));
}

#[test]
fn pages_that_are_given_read_zero() {
    let mut driver = Driver::started(Box::new(Balloon::new(8192)));
    let address = RAM + 0x8_0000;
    driver.ram.write(address, &[7; 3 * 4096]).unwrap();
    let page = (address / PAGE) as u32;
    tell(&mut driver, INFLATE, &[page, page + 2]);
    assert_eq!(driver.read::<1>(address), [0]);
    assert_eq!(driver.read::<1>(address + 4096), [7]);
    assert_eq!(driver.read::<1>(address + 8192), [0]);
    tell(&mut driver, DEFLATE, &[page]);
    let report = driver.transport.device().report();
    assert!(report.contains("given=2 taken=1 failures=0"), "{report}");
}

#[test]
fn pages_that_are_not_the_guests_are_not_taken() {
    let mut driver = Driver::started(Box::new(Balloon::new(0)));
    tell(&mut driver, INFLATE, &[0, u32::MAX]);
    tell(&mut driver, DEFLATE, &[0]);
    let report = driver.transport.device().report();
    assert!(report.contains("given=0 taken=0 failures=3"), "{report}");
}

#[test]
fn a_target_is_whole_pages_and_saturates() {
    assert_eq!(pages(8191), 1);
    assert_eq!(pages(u64::MAX), u32::MAX);
}
