use super::*;
use crate::virtio::driver::{BUFFERS, Driver, PRIVATE, Part};
use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _, pipe},
    os::fd::OwnedFd,
};
use vmm_sys_util::tempfile::TempFile;

#[test]
fn text_goes_both_ways() {
    let mut output: File = TempFile::new().unwrap().into_file();
    let (reader, mut writer) = pipe().unwrap();
    let input = Input::new(OwnedFd::from(reader).into());
    let console = Console::new(Box::new(output.try_clone().unwrap()), input);
    let mut driver = Driver::started(Box::new(console));

    driver.ram.write(BUFFERS, b"hello").unwrap();
    driver.ask(TRANSMIT, &[Part::Reads(BUFFERS, 5)]);
    driver.ask(TRANSMIT, &[Part::Reads(PRIVATE, 5)]);
    let mut printed = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "hello");

    writer.write_all(b"typed").unwrap();
    driver.transport.ready();
    assert_eq!(driver.used(RECEIVE), 0, "it waits for a buffer");
    assert_eq!(driver.ask(RECEIVE, &[Part::Writes(BUFFERS, 3)]), Some(3));
    assert_eq!(driver.ask(RECEIVE, &[Part::Writes(BUFFERS + 3, 64)]), Some(2));
    assert_eq!(driver.read::<5>(BUFFERS), *b"typed");
    assert_eq!(driver.ask(RECEIVE, &[Part::Writes(BUFFERS, 64)]), None);
    writer.write_all(b"!").unwrap();
    driver.transport.ready();
    assert_eq!(driver.written(RECEIVE), 1);
    let report = driver.transport.device().report();
    assert!(report.contains("sent=5 received=6 failures=1"), "{report}");
}
