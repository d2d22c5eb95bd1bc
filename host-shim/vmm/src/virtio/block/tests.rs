use super::*;
use crate::virtio::{
    driver::{BUFFERS, Driver, PRIVATE, Part},
    mmio::{register, status},
};
use vmm_sys_util::tempfile::TempFile;

const HEADER_AT: u64 = BUFFERS;
const STATUS_AT: u64 = BUFFERS + 0x1000;
const DATA_AT: u64 = BUFFERS + 0x2000;

struct Disk {
    driver: Driver,
    file: File,
}

impl Disk {
    fn new(read_only: bool) -> Self {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(8 * SECTOR).unwrap();
        let device = Block::new(file.try_clone().unwrap(), read_only).unwrap();
        Self {
            driver: Driver::started(Box::new(device)),
            file,
        }
    }

    fn ask(&mut self, kind: u32, sector: u64, data: &[Part]) -> u8 {
        self.ask_at(kind, sector, data, STATUS_AT)
    }

    fn ask_at(&mut self, kind: u32, sector: u64, data: &[Part], status_at: u64) -> u8 {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.ram.write(HEADER_AT, &header).unwrap();
        self.driver.ram.write(STATUS_AT, &[0xff]).unwrap();
        let mut parts = vec![Part::Reads(HEADER_AT, 16)];
        parts.extend(data);
        parts.push(Part::Writes(status_at, 1));
        self.driver.ask(0, &parts);
        self.driver.read::<1>(STATUS_AT)[0]
    }
}

#[test]
fn what_is_written_is_in_the_file_and_read_back() {
    let mut disk = Disk::new(false);
    disk.driver.ram.write(DATA_AT, &[7; 1024]).unwrap();
    let halves = [Part::Reads(DATA_AT, 600), Part::Reads(DATA_AT + 600, 424)];
    assert_eq!(disk.ask(request::OUT, 2, &halves), Status::Ok as u8);
    assert_eq!(disk.ask(request::FLUSH, 0, &[]), Status::Ok as u8);
    let mut held = [0; 3 * 512];
    disk.file.read_exact_at(&mut held, 512).unwrap();
    assert!(held[..512].iter().all(|&byte| byte == 0) && held[512..].iter().all(|&byte| byte == 7));
    let back = [Part::Writes(DATA_AT + 0x1000, 512)];
    assert_eq!(disk.ask(request::IN, 3, &back), Status::Ok as u8);
    assert_eq!(disk.driver.written(0), 513);
    assert_eq!(disk.driver.read::<512>(DATA_AT + 0x1000), [7; 512]);
}

#[test]
fn requests_beyond_the_disk_or_in_no_sectors_fail() {
    let mut disk = Disk::new(false);
    let error = Status::IoError as u8;
    for (sector, length) in [(8, 512), (7, 1024), (u64::MAX, 512), (1 << 55, 512), (0, 511)] {
        assert_eq!(
            disk.ask(request::IN, sector, &[Part::Writes(DATA_AT, length)]),
            error
        );
        assert_eq!(
            disk.ask(request::OUT, sector, &[Part::Reads(DATA_AT, length)]),
            error
        );
    }
    assert_eq!(disk.ask(77, 0, &[]), Status::Unsupported as u8);
    assert_eq!(disk.file.metadata().unwrap().len(), 8 * SECTOR);
}

#[test]
fn a_disk_that_must_stay_as_it_is_does() {
    let mut disk = Disk::new(true);
    disk.driver.ram.write(DATA_AT, &[7; 512]).unwrap();
    assert_eq!(
        disk.ask(request::OUT, 0, &[Part::Reads(DATA_AT, 512)]),
        Status::IoError as u8
    );
    let mut held = [1; 512];
    disk.file.read_exact_at(&mut held, 0).unwrap();
    assert_eq!(held, [0; 512]);
}

#[test]
fn it_has_a_name() {
    let mut disk = Disk::new(false);
    assert_eq!(
        disk.ask(request::GET_ID, 0, &[Part::Writes(DATA_AT, 20)]),
        Status::Ok as u8
    );
    assert_eq!(disk.driver.read::<8>(DATA_AT), *b"freehold");
}

#[test]
fn private_data_is_an_error_of_the_request() {
    let mut disk = Disk::new(false);
    let error = Status::IoError as u8;
    assert_eq!(disk.ask(request::OUT, 0, &[Part::Reads(PRIVATE, 512)]), error);
    assert_eq!(disk.ask(request::IN, 0, &[Part::Writes(PRIVATE, 512)]), error);
    let straddling = [Part::Reads(PRIVATE - 256, 512)];
    assert_eq!(disk.ask(request::OUT, 0, &straddling), error);
    let mut held = [1; 512];
    disk.file.read_exact_at(&mut held, 0).unwrap();
    assert_eq!(held, [0; 512], "nothing may be written of what could not be read");
    assert_eq!(
        disk.ask(request::IN, 0, &[Part::Writes(DATA_AT, 512)]),
        Status::Ok as u8
    );
}

#[test]
fn without_a_place_for_its_status_a_request_stops_the_device() {
    let mut disk = Disk::new(false);
    disk.ask_at(request::FLUSH, 0, &[], PRIVATE);
    assert_ne!(disk.driver.get(register::STATUS) & status::NEEDS_RESET, 0);
}
