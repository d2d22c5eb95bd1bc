use super::*;
use vmm_sys_util::tempfile::TempFile;

const SIZE: u64 = 2 << 20;

/// RAM whose file is `backed` bytes long: behind that, an access raises SIGBUS, as on a private page.
fn ram(backed: u64) -> (Ram, File) {
    let file = TempFile::new().unwrap().into_file();
    file.set_len(backed).unwrap();
    let ram = Ram::of_file(file.try_clone().unwrap(), SIZE).unwrap();
    (ram, file)
}

#[test]
fn what_is_written_is_read() {
    let ram = Ram::anonymous(SIZE).unwrap();
    let data: Vec<u8> = (0..10_000).map(|n| n as u8).collect();
    ram.write(layout::RAM + 4000, &data).unwrap();
    let mut back = vec![0; data.len()];
    ram.read(layout::RAM + 4000, &mut back).unwrap();
    assert_eq!(back, data);
}

#[test]
fn a_private_page_is_an_error_and_the_rest_goes_on() {
    let (ram, _file) = ram(SIZE / 2);
    let private = layout::RAM + SIZE / 2;
    let mut data = [1; 16];
    for _ in 0..100 {
        assert_eq!(ram.read(private + 8, &mut data), Err(Fault::Private(private)));
        assert_eq!(ram.write(private, &data), Err(Fault::Private(private)));
    }
    assert_eq!(ram.write(private - 8, &data), Err(Fault::Private(private)));
    assert_eq!(ram.refused(), 201);
    ram.write(private - 16, &data).unwrap();
    ram.read(private - 16, &mut data).unwrap();
}

#[test]
fn a_page_that_is_lent_later_is_reached() {
    let (ram, file) = ram(SIZE / 2);
    let address = layout::RAM + SIZE / 2 + 4096;
    assert!(ram.write(address, b"nothing").is_err());
    file.set_len(SIZE).unwrap();
    let mut data = [1; 7];
    ram.read(address, &mut data).unwrap();
    assert_eq!(data, [0; 7], "what was written in vain must not be there");
    ram.write(address, b"lent").unwrap();
    file.set_len(SIZE / 2).unwrap();
    assert!(ram.read(address, &mut data).is_err());
}

#[test]
fn threads_do_not_see_what_lies_over_a_private_page() {
    let (ram, _file) = ram(SIZE / 2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for page in 0..64 {
                    let address = layout::RAM + SIZE / 2 + page * layout::PAGE;
                    assert!(ram.read(address, &mut [0; 64]).is_err());
                    assert!(ram.read(address - SIZE / 2, &mut [0; 64]).is_ok());
                }
            });
        }
    });
}

#[test]
fn where_no_memory_is_nothing_is_reached() {
    let ram = Ram::anonymous(SIZE).unwrap();
    let end = layout::RAM + SIZE;
    assert_eq!(ram.read(end, &mut [0]), Err(Fault::Outside(end)));
    assert_eq!(ram.read(end - 1, &mut [0; 2]), Err(Fault::Outside(end)));
    for address in [0, layout::RAM - 1, u64::MAX, u64::MAX - 4094] {
        assert!(ram.write(address, &[0; 8]).is_err());
    }
    assert!(!ram.contains(end - 1, 2) && ram.contains(end - 1, 1));
}

#[test]
fn released_memory_reads_zero() {
    for ram in [Ram::anonymous(SIZE).unwrap(), ram(SIZE).0] {
        ram.write(layout::RAM + 4096, &[7; 8192]).unwrap();
        let page = |start| Range {
            start,
            size: layout::PAGE,
        };
        ram.release(page(layout::RAM + 4096)).unwrap();
        let mut data = [1; 8192];
        ram.read(layout::RAM + 4096, &mut data).unwrap();
        assert!(data[..4096].iter().all(|&byte| byte == 0) && data[4096..].iter().all(|&byte| byte == 7));
        assert!(ram.release(page(layout::RAM + SIZE)).is_err());
        assert!(ram.release(page(0)).is_err());
    }
}

#[test]
fn a_protected_guest_keeps_what_it_has_not_given_up() {
    let ram = ram(SIZE).0.protected();
    ram.write(layout::RAM, &[7; 8]).unwrap();
    ram.release(Range {
        start: layout::RAM,
        size: layout::PAGE,
    })
    .unwrap();
    let mut data = [0; 8];
    ram.read(layout::RAM, &mut data).unwrap();
    assert_eq!(data, [7; 8]);
}
