//! Where the frames are.

use super::*;

fn region(count: u64, base: u64, flags: u64, index: u64) -> u64 {
    count << 52 | base | flags << 12 | index
}

#[test]
fn the_distributors_address_is_set_once() {
    let mut user = User::new(1);
    assert_eq!(user.get(ADDR, DIST), Ok(u64::MAX));
    for (base, error) in [
        (0x1000, Errno::Invalid),
        (LIMIT, Errno::TooBig),
        (LIMIT - 0x1000, Errno::Invalid),
        (0xffff_ffff_ffff_0000, Errno::Invalid),
        (0xffff_ffff_fffe_0000, Errno::TooBig),
    ] {
        assert_eq!(user.set(ADDR, DIST, base), Err(error), "{base:#x}");
    }
    user.set(ADDR, DIST, LIMIT - 0x1_0000).unwrap();
    assert_eq!(user.set(ADDR, DIST, 0), Err(Errno::Exists));
    assert_eq!(user.get(ADDR, DIST), Ok(LIMIT - 0x1_0000));
}

#[test]
fn one_region_has_all_redistributors() {
    let mut user = User::new(2);
    assert_eq!(user.get(ADDR, REDIST), Ok(u64::MAX));
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    for (base, error) in [
        (0x1000, Errno::Invalid),
        (LIMIT, Errno::TooBig),
        (LIMIT - 0x2_0000, Errno::TooBig),
        (u64::MAX - 0xffff, Errno::Invalid),
        // On the distributor.
        (0x0800_0000, Errno::Invalid),
        (0x07fd_0000, Errno::Invalid),
    ] {
        assert_eq!(user.set(ADDR, REDIST, base), Err(error), "{base:#x}");
    }
    user.set(ADDR, REDIST, 0x080a_0000).unwrap();
    assert_eq!(user.set(ADDR, REDIST, 0x0900_0000), Err(Errno::Exists));
    assert_eq!(user.get(ADDR, REDIST), Ok(0x080a_0000));
    // Not together with several regions.
    for index in 0..2 {
        let several = region(1, 0x0900_0000, 0, index);
        assert_eq!(user.set(ADDR, REGION, several), Err(Errno::Invalid));
    }
    // It grows with the vCPUs that are added later.
    user.device.add_vcpu(2).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    let (_, layout) = user.device.start().unwrap();
    let third = layout.locate(0x080a_0000 + 2 * 0x2_0000 + 0x1_0100, 4);
    let frame = Frame::Redistributor(2);
    assert_eq!(
        third,
        Some(Located {
            frame,
            offset: 0x1_0100
        })
    );
}

#[test]
fn regions_are_added_in_order_and_apart() {
    let mut user = User::new(4);
    assert_eq!(user.get_at(ADDR, REGION, 0), Err(Errno::NotFound));
    for (value, error) in [
        (region(0, 0x0900_0000, 0, 0), Errno::Invalid),
        (region(1, 0x0900_0000, 1, 0), Errno::Invalid),
        (region(1, 0x0900_0000, 0, 1), Errno::Invalid),
        (region(1, LIMIT, 0, 0), Errno::TooBig),
        (region(2, LIMIT - 0x2_0000, 0, 0), Errno::TooBig),
    ] {
        assert_eq!(user.set(ADDR, REGION, value), Err(error), "{value:#x}");
    }
    user.set(ADDR, REGION, region(2, 0x0900_0000, 0, 0)).unwrap();
    for (value, error) in [
        (region(1, 0x0a00_0000, 0, 0), Errno::Invalid),
        (region(1, 0x0a00_0000, 0, 2), Errno::Invalid),
        (region(1, 0x0902_0000, 0, 1), Errno::Invalid),
        (region(9, 0x08ff_0000, 0, 1), Errno::Invalid),
    ] {
        assert_eq!(user.set(ADDR, REGION, value), Err(error), "{value:#x}");
    }
    assert_eq!(user.set(ADDR, REDIST, 0x0a00_0000), Err(Errno::Invalid));
    user.set(CTRL, INIT, 0).unwrap();
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    // Two vCPUs have no redistributor yet.
    assert_eq!(user.device.start().unwrap_err(), Errno::NoSuchAddress);
    user.set(ADDR, REGION, region(5, 0x0904_0000, 0, 1)).unwrap();
    assert_eq!(user.get_at(ADDR, REGION, 1), Ok(region(5, 0x0904_0000, 0, 1)));
    assert_eq!(user.get_at(ADDR, REGION, 0), Ok(region(2, 0x0900_0000, 0, 0)));
    assert_eq!(user.get_at(ADDR, REGION, 2), Err(Errno::NotFound));
    // The second region follows upon the first, so the last of that is not the last.
    let is_last = |user: &mut User, vcpu: u64| user.get(REDIST_REGS, vcpu << 32 | 8).unwrap() >> 4 & 1;
    let last: Vec<_> = (0..4).map(|vcpu| is_last(&mut user, vcpu)).collect();
    assert_eq!(last, [0, 0, 0, 1]);
    let (_, layout) = user.device.start().unwrap();
    for (vcpu, base) in [
        (0, 0x0900_0000),
        (1, 0x0902_0000),
        (2, 0x0904_0000),
        (3, 0x0906_0000),
    ] {
        let frame = Frame::Redistributor(vcpu);
        assert_eq!(layout.locate(base + 8, 8), Some(Located { frame, offset: 8 }));
    }
    assert_eq!(layout.locate(0x0908_0000, 4), None);
    assert_eq!(layout.locate(0x0907_fffc, 8), None);
    let frame = Frame::Distributor;
    assert_eq!(
        layout.locate(0x0800_fffc, 4),
        Some(Located {
            frame,
            offset: 0xfffc
        })
    );
    assert_eq!(layout.locate(0x0800_fffc, 8), None);
    assert_eq!(layout.locate(0x07ff_ffff, 4), None);
}

#[test]
fn regions_that_do_not_touch_have_a_last_redistributor_each() {
    let mut user = User::new(3);
    user.set(ADDR, REGION, region(2, 0x0900_0000, 0, 0)).unwrap();
    user.set(ADDR, REGION, region(2, 0x0a00_0000, 0, 1)).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    let last: Vec<_> = (0..3)
        .map(|vcpu| user.get(REDIST_REGS, vcpu << 32 | 8).unwrap() >> 4 & 1)
        .collect();
    assert_eq!(last, [0, 1, 1]);
}

#[test]
fn the_order_of_vcpus_is_that_of_redistributors() {
    let mut user = User::new(0);
    user.set(ADDR, REDIST, 0x080a_0000).unwrap();
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    for vcpu in [2, 0] {
        user.device.add_vcpu(vcpu).unwrap();
    }
    assert_eq!(user.device.add_vcpu(2), Err(Errno::Exists));
    assert_eq!(user.device.add_vcpu(64), Err(Errno::Invalid));
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.device.add_vcpu(1), Err(Errno::Busy));
    let (vgic, layout) = user.device.start().unwrap();
    assert_eq!(vgic.vcpus(), set(&[0, 2]));
    let first = layout.locate(0x080a_0008, 8).unwrap();
    assert_eq!(first.frame, Frame::Redistributor(2));
    assert_eq!(vgic.read(first.frame, first.offset, 8), 2 << 32 | 2 << 8);
}

#[test]
fn a_vcpu_that_is_removed_leaves_its_place() {
    let mut user = User::new(0);
    user.set(ADDR, REGION, region(1, 0x0900_0000, 0, 0)).unwrap();
    user.set(ADDR, REGION, region(1, 0x0a00_0000, 0, 1)).unwrap();
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    for vcpu in [0, 1] {
        user.device.add_vcpu(vcpu).unwrap();
    }
    user.device.remove_vcpu(1);
    // One that is not the last stays.
    user.device.remove_vcpu(7);
    user.device.add_vcpu(2).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    let (vgic, layout) = user.device.start().unwrap();
    assert_eq!(vgic.vcpus(), set(&[0, 2]));
    let frames = [0x0900_0008, 0x0a00_0008].map(|place| layout.locate(place, 8).unwrap().frame);
    assert_eq!(frames, [Frame::Redistributor(0), Frame::Redistributor(2)]);
}

#[test]
fn a_vcpu_for_whom_there_is_no_room_in_the_address_space_is_refused() {
    let user = {
        let mut user = User::new(1);
        user.set(ADDR, REDIST, LIMIT - 0x2_0000).unwrap();
        user
    };
    assert_eq!(user.device.add_vcpu(1), Err(Errno::Invalid));
}

#[test]
fn it_starts_when_everything_is_in_its_place() {
    let mut user = User::new(1);
    assert_eq!(user.device.start().unwrap_err(), Errno::NoSuchAddress);
    user.set(ADDR, REDIST, 0x080a_0000).unwrap();
    assert_eq!(user.device.start().unwrap_err(), Errno::NoSuchAddress);
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    assert_eq!(user.device.start().unwrap_err(), Errno::Busy);
    user.set(CTRL, INIT, 0).unwrap();
    assert!(user.device.start().is_ok());
    let mut user = User::new(1);
    user.set(ADDR, REDIST, 0x080a_0000).unwrap();
    user.set(ADDR, DIST, 0x080b_0000).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.device.start().unwrap_err(), Errno::Invalid);
}

#[test]
fn a_region_on_the_distributor_is_refused_and_forgotten() {
    let mut user = User::new(1);
    user.set(ADDR, DIST, 0x0800_0000).unwrap();
    let on_it = region(2, 0x07fe_0000, 0, 0);
    assert_eq!(user.set(ADDR, REGION, on_it), Err(Errno::Invalid));
    assert_eq!(user.get_at(ADDR, REGION, 0), Err(Errno::NotFound));
    user.set(ADDR, REGION, region(1, 0x07fe_0000, 0, 0)).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    assert!(user.device.start().is_ok());
}
