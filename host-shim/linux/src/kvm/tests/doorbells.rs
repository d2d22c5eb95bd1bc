//! Places where a guest's store is a signal.

use super::devices::Ground;
use crate::Errno;
use crate::kvm::abi::devices::{
    IOEVENTFD, IOEVENTFD_DATAMATCH, IOEVENTFD_DEASSIGN, IOEVENTFD_PIO, IOEVENTFD_VIRTIO_CCW, Ioeventfd,
};
use std::sync::Arc;

const PLACE: u64 = 0xa00_0050;

fn at(fd: i32, len: u32, flags: u32, datamatch: u64) -> Ioeventfd {
    Ioeventfd {
        datamatch,
        addr: PLACE,
        len,
        fd,
        flags,
        pad: [0; 36],
    }
}

/// A VM with these doorbells, one eventfd each.
fn with(bells: &[(u32, u32, u64)]) -> (Ground, Vec<i32>) {
    let ground = Ground::new();
    let fds = bells
        .iter()
        .map(|(len, flags, value)| {
            let fd = ground.machine.make_eventfd();
            ground.command(IOEVENTFD, &at(fd, *len, *flags, *value)).unwrap();
            fd
        })
        .collect();
    (ground, fds)
}

#[test]
fn a_store_of_the_right_length_is_a_signal() {
    for length in [1, 2, 4, 8] {
        let (ground, fds) = with(&[(length, 0, 0)]);
        for stored in [1, 2, 4, 8] {
            let rings = stored == u64::from(length);
            assert_eq!(ground.vm.doorbells().ring(PLACE, stored, 77), rings);
            assert_eq!(ground.machine.read_eventfd(fds[0]), u64::from(rings));
        }
        for elsewhere in [PLACE - 1, PLACE + 1, PLACE + 8, 0] {
            assert!(!ground.vm.doorbells().ring(elsewhere, length.into(), 77));
        }
    }
    let (ground, fds) = with(&[(0, 0, 0)]);
    for stored in [1, 2, 4, 8] {
        assert!(ground.vm.doorbells().ring(PLACE, stored, 77));
    }
    assert_eq!(ground.machine.read_eventfd(fds[0]), 4);
}

#[test]
fn the_value_tells_doorbells_apart() {
    let (ground, fds) = with(&[
        (2, IOEVENTFD_DATAMATCH, 0),
        (2, IOEVENTFD_DATAMATCH, 1),
        (4, IOEVENTFD_DATAMATCH, 1),
        // More than two bytes can say.
        (2, IOEVENTFD_DATAMATCH, 0x1_0002),
    ]);
    let ring = |bytes, value| {
        let rung = ground.vm.doorbells().ring(PLACE, bytes, value);
        let heard: Vec<_> = fds.iter().map(|fd| ground.machine.read_eventfd(*fd)).collect();
        assert_eq!(rung, heard.iter().sum::<u64>() == 1);
        heard
    };
    assert_eq!(ring(2, 0), [1, 0, 0, 0]);
    assert_eq!(ring(2, 1), [0, 1, 0, 0]);
    assert_eq!(ring(4, 1), [0, 0, 1, 0]);
    assert_eq!(ring(2, 2), [0; 4]);
    assert_eq!(ring(4, 0), [0; 4]);
    // What is above the bytes that are stored is not stored.
    assert_eq!(ring(2, 0xffff_0001), [0, 1, 0, 0]);
}

#[test]
fn what_has_no_meaning_is_refused() {
    let ground = Ground::new();
    let fd = ground.machine.make_eventfd();
    let invalid = [
        at(fd, 3, 0, 0),
        at(fd, 16, 0, 0),
        at(fd, 4, 16, 0),
        at(fd, 0, IOEVENTFD_DATAMATCH, 0),
        Ioeventfd {
            addr: u64::MAX - 3,
            ..at(fd, 8, 0, 0)
        },
    ];
    for asked in invalid {
        assert_eq!(ground.command(IOEVENTFD, &asked), Err(Errno::INVAL), "{asked:?}");
    }
    assert_eq!(ground.command(IOEVENTFD, &at(7, 4, 0, 0)), Err(Errno::BADF));
    assert_eq!(
        crate::Descriptor::ioctl(Arc::clone(&ground.vm), IOEVENTFD, 0x10),
        Err(Errno::FAULT)
    );
    // There is nothing that could ring these, and they are in nobody's way.
    for flags in [0, IOEVENTFD_PIO, IOEVENTFD_VIRTIO_CCW] {
        assert_eq!(ground.command(IOEVENTFD, &at(fd, 4, flags, 0)), Ok(0));
    }
    ground.vm.doorbells().ring(PLACE, 4, 0);
    assert_eq!(ground.machine.read_eventfd(fd), 1);
}

#[test]
fn a_store_is_a_signal_to_one() {
    let any = (4, 0, 0);
    let one = (4, IOEVENTFD_DATAMATCH, 1);
    let two = (4, IOEVENTFD_DATAMATCH, 2);
    let short = (2, 0, 0);
    let all = (0, 0, 0);
    for (first, second, goes) in [
        (any, any, false),
        (any, one, false),
        (one, any, false),
        (one, one, false),
        (one, two, true),
        (any, short, true),
        (all, short, false),
        (one, all, false),
        (all, all, false),
    ] {
        let (ground, _) = with(&[first]);
        let fd = ground.machine.make_eventfd();
        let (len, flags, value) = second;
        let done = ground.command(IOEVENTFD, &at(fd, len, flags, value));
        let expected = if goes { Ok(0) } else { Err(Errno::EXIST) };
        assert_eq!(done, expected, "{first:?} {second:?}");
    }
}

#[test]
fn a_doorbell_goes_by_all_that_it_is() {
    let (ground, fds) = with(&[(4, IOEVENTFD_DATAMATCH, 1)]);
    let off = IOEVENTFD_DEASSIGN;
    let other = ground.machine.make_eventfd();
    for not_it in [
        at(other, 4, off | IOEVENTFD_DATAMATCH, 1),
        at(fds[0], 2, off | IOEVENTFD_DATAMATCH, 1),
        at(fds[0], 4, off | IOEVENTFD_DATAMATCH, 2),
        at(fds[0], 4, off, 1),
        at(fds[0], 4, off | IOEVENTFD_PIO | IOEVENTFD_DATAMATCH, 1),
    ] {
        assert_eq!(ground.command(IOEVENTFD, &not_it), Err(Errno::NOENT));
    }
    let it = at(fds[0], 4, off | IOEVENTFD_DATAMATCH, 1);
    assert_eq!(ground.command(IOEVENTFD, &it), Ok(0));
    assert_eq!(ground.command(IOEVENTFD, &it), Err(Errno::NOENT));
    assert!(!ground.vm.doorbells().ring(PLACE, 4, 1));
}

#[test]
fn there_are_no_more_doorbells_than_kvm_has() {
    let ground = Ground::new();
    let fd = ground.machine.make_eventfd();
    for number in 0..1000 {
        let asked = at(fd, 4, IOEVENTFD_DATAMATCH, number);
        assert_eq!(ground.command(IOEVENTFD, &asked), Ok(0));
    }
    let one_more = at(fd, 4, IOEVENTFD_DATAMATCH, 1000);
    assert_eq!(ground.command(IOEVENTFD, &one_more), Err(Errno::NOSPC));
}
