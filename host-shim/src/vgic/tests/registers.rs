//! Every register, at every width.

use super::*;

const DIST: Frame = Frame::Distributor;
const REDIST: Frame = Frame::Redistributor(1);

#[test]
fn what_is_fixed_reads_as_under_kvm_at_its_width_alone() {
    let vgic = vgic(2, 256, 4);
    vgic.set_last(set(&[1]));
    let table: &[(Frame, u64, u64, u64)] = &[
        // GICD_CTLR: DS, ARE; GICD_TYPER: 10 bits of number, 256 interrupts; GICD_IIDR; GICD_TYPER2; GICD_STATUSR.
        (DIST, 0x00, 4, 0x50),
        (DIST, 0x04, 4, 9 << 19 | 7),
        (DIST, 0x08, 4, 0x4b00_343b),
        (DIST, 0x0c, 4, 0),
        (DIST, 0x10, 4, 0xffff_ffff),
        (DIST, 0x00, 8, 0),
        (DIST, 0x04, 1, 0),
        (DIST, 0x04, 2, 0),
        (DIST, 0x05, 4, 0),
        // GICD_SETSPI_NSR: there is none. GICD_PIDR2.
        (DIST, 0x40, 4, 0),
        (DIST, 0xffe8, 4, 0x3b),
        (DIST, 0xffe8, 1, 0),
        (DIST, 0xffe0, 4, 0),
        // GICR_CTLR: CES, IR; GICR_IIDR; GICR_TYPER: affinity, number, Last.
        (REDIST, 0x00, 4, 0b110),
        (REDIST, 0x04, 4, 0x4b00_043b),
        (REDIST, 0x08, 8, 1 << 32 | 1 << 8 | 1 << 4),
        (REDIST, 0x08, 4, 1 << 8 | 1 << 4),
        (REDIST, 0x0c, 4, 1),
        (REDIST, 0x0a, 4, 0),
        (REDIST, 0x08, 2, 0),
        (Frame::Redistributor(0), 0x08, 8, 0),
        // GICR_STATUSR, GICR_WAKER, GICR_PROPBASER, GICR_PIDR2.
        (REDIST, 0x10, 4, 0),
        (REDIST, 0x14, 4, 0),
        (REDIST, 0x70, 8, 0),
        (REDIST, 0xffe8, 4, 0x3b),
        // SGIs are enabled, edge-triggered and of group 1; PPIs level-sensitive.
        (REDIST, SGI_BASE + IGROUPR, 4, 0xffff_ffff),
        (REDIST, SGI_BASE + ISENABLER, 4, 0xffff),
        (REDIST, SGI_BASE + ICENABLER, 4, 0xffff),
        (REDIST, SGI_BASE + ICFGR, 4, 0xaaaa_aaaa),
        (REDIST, SGI_BASE + ICFGR + 4, 4, 0),
        (DIST, IGROUPR + 4, 4, 0xffff_ffff),
        (DIST, IGROUPR, 4, 0),
        (DIST, ISENABLER + 4, 4, 0),
        // Outside of everything, and no vCPU.
        (DIST, 0x1_0000, 4, 0),
        (DIST, u64::MAX - 3, 4, 0),
        (REDIST, 0x2_0000, 4, 0),
        (Frame::Redistributor(2), 0x04, 4, 0),
        (Frame::Redistributor(64), 0x04, 4, 0),
    ];
    for &(frame, offset, bytes, value) in table {
        assert_eq!(
            vgic.read(frame, offset, bytes),
            value,
            "{frame:?} {offset:#x} {bytes}"
        );
        // None of it can be written.
        if (frame, offset) != (DIST, CTLR) && offset < SGI_BASE && !(0x80..0x800).contains(&offset) {
            vgic.write(frame, offset, bytes, u64::MAX);
            assert_eq!(
                vgic.read(frame, offset, bytes),
                value,
                "{frame:?} {offset:#x} {bytes}"
            );
        }
    }
}

#[test]
fn the_size_is_what_typer_says() {
    for (interrupts, lines) in [(64, 1), (96, 2), (1024, 31)] {
        assert_eq!(vgic(1, interrupts, 4).read(DIST, 4, 4) & 0x1f, lines);
    }
    for interrupts in [0, 32, 65, 1056] {
        let config = VgicConfig {
            vcpus: VcpuSet::first(1),
            interrupts,
            interface: InterfaceShape::new(4, 5),
        };
        assert_eq!(Vgic::new(&config).unwrap_err(), super::super::NoVgic::Config);
    }
}

#[test]
fn registers_of_a_bit_each_are_set_and_cleared_by_ones() {
    let vgic = vgic(2, 96, 4);
    for (set_at, clear_at) in [(ISENABLER, ICENABLER), (ISPENDR, ICPENDR), (ISACTIVER, ICACTIVER)] {
        // SPIs 32 to 63, 64 to 95; private ones of vCPU 1.
        for (frame, base) in [(DIST, 4), (DIST, 8), (REDIST, SGI_BASE)] {
            let read = |offset| vgic.read(frame, base + offset, 4);
            vgic.write(frame, base + clear_at, 4, 0xffff_ffff);
            assert_eq!(read(set_at), 0);
            vgic.write(frame, base + set_at, 4, 0x8000_0101);
            vgic.write(frame, base + set_at, 4, 0x2);
            assert_eq!((read(set_at), read(clear_at)), (0x8000_0103, 0x8000_0103));
            vgic.write(frame, base + clear_at, 4, 0x101);
            assert_eq!((read(set_at), read(clear_at)), (0x8000_0002, 0x8000_0002));
            for bytes in [1, 2, 8] {
                vgic.write(frame, base + clear_at, bytes, u64::MAX);
                assert_eq!(vgic.read(frame, base + set_at, bytes), 0);
                assert_eq!(read(set_at), 0x8000_0002);
            }
            vgic.write(frame, base + clear_at, 4, 0xffff_ffff);
        }
        // What is private is not the distributor's, and what is beyond is nobody's.
        for offset in [0, 12] {
            vgic.write(DIST, offset + set_at, 4, 0xffff_ffff);
            assert_eq!(vgic.read(DIST, offset + set_at, 4), 0);
        }
        assert_eq!(
            vgic.read(Frame::Redistributor(0), SGI_BASE + set_at, 4) & 0xffff_0000,
            0
        );
    }
}

#[test]
fn a_group_is_written_as_it_is() {
    let vgic = vgic(2, 96, 4);
    for (frame, base) in [(DIST, 4), (REDIST, SGI_BASE)] {
        vgic.write(frame, base + IGROUPR, 4, 0x1234_5678);
        assert_eq!(vgic.read(frame, base + IGROUPR, 4), 0x1234_5678);
    }
    assert_eq!(vgic.read(DIST, 8 + IGROUPR, 4), 0xffff_ffff);
}

#[test]
fn a_priority_is_a_byte_or_four_and_has_the_bits_that_there_are() {
    for (bits, mask) in [(4, 0xf0), (5, 0xf8), (7, 0xfe), (8, 0xff_u64)] {
        let vgic = Vgic::new(&VgicConfig {
            vcpus: VcpuSet::first(2),
            interrupts: 96,
            interface: InterfaceShape::new(4, bits),
        })
        .unwrap();
        for (frame, base) in [(DIST, 40), (REDIST, SGI_BASE + 28)] {
            let at = base + IPRIORITYR;
            vgic.write(frame, at, 4, 0x1122_33ff);
            vgic.write(frame, at + 1, 1, 0xffab);
            vgic.write(frame, at, 2, 0);
            vgic.write(frame, at, 8, 0);
            vgic.write(frame, at + 2, 4, 0);
            assert_eq!(vgic.read(frame, at, 4), 0x1122_abff & (mask * 0x0101_0101));
            assert_eq!(vgic.read(frame, at + 1, 1), 0xab & mask);
            assert_eq!((vgic.read(frame, at, 2), vgic.read(frame, at, 8)), (0, 0));
        }
        assert_eq!(vgic.read(DIST, IPRIORITYR + 28, 4), 0);
    }
}

#[test]
fn spis_alone_are_configured() {
    let vgic = vgic(2, 96, 4);
    vgic.write(DIST, ICFGR + 8, 4, 0xffff_ffff);
    vgic.write(DIST, ICFGR + 12, 4, 0x0000_0009);
    assert_eq!(vgic.read(DIST, ICFGR + 8, 4), 0xaaaa_aaaa);
    assert_eq!(vgic.read(DIST, ICFGR + 12, 4), 8);
    vgic.write(DIST, ICFGR + 8, 4, 0);
    assert_eq!(vgic.read(DIST, ICFGR + 8, 4), 0);
    assert_eq!(vgic.read(DIST, ICFGR + 12, 4), 8);
    for offset in [0, 4] {
        let before = vgic.read(REDIST, SGI_BASE + ICFGR + offset, 4);
        vgic.write(REDIST, SGI_BASE + ICFGR + offset, 4, !before);
        assert_eq!(vgic.read(REDIST, SGI_BASE + ICFGR + offset, 4), before);
    }
}

#[test]
fn a_route_has_aff2_to_aff0_and_the_mode() {
    let vgic = vgic(2, 96, 4);
    let at = IROUTER + 40 * 8;
    vgic.write(DIST, at, 8, 0xff_8f0f_0201_u64);
    assert_eq!(vgic.read(DIST, at, 8), 0x800f_0201);
    vgic.write(DIST, at, 4, 0x0001);
    vgic.write(DIST, at + 4, 4, 0xffff_ffff);
    assert_eq!((vgic.read(DIST, at, 8), vgic.read(DIST, at + 4, 4)), (1, 0));
    for bytes in [1, 2] {
        vgic.write(DIST, at, bytes, 0);
        assert_eq!(vgic.read(DIST, at, bytes), 0);
    }
    assert_eq!(vgic.read(DIST, at, 4), 1);
    // Private ones have no route, and there is none beyond.
    for intid in [0, 31, 96, 1019] {
        vgic.write(DIST, IROUTER + intid * 8, 8, 1);
        assert_eq!(vgic.read(DIST, IROUTER + intid * 8, 8), 0);
    }
}

#[test]
fn numbers_from_1020_on_are_no_interrupts() {
    let vgic = vgic(1, 1024, 4);
    let last = 31 * 4;
    for offset in [ISENABLER, ISPENDR, ISACTIVER, IGROUPR] {
        vgic.write(DIST, offset + last, 4, 0xffff_ffff);
        assert_eq!(vgic.read(DIST, offset + last, 4), 0x0fff_ffff);
    }
    vgic.write(DIST, IPRIORITYR + 1020, 4, 0xffff_ffff);
    assert_eq!(vgic.read(DIST, IPRIORITYR + 1020, 4), 0);
    vgic.write(DIST, IROUTER + 1020 * 8, 8, 5);
    assert_eq!(vgic.read(DIST, IROUTER + 1020 * 8, 8), 0);
    assert!(vgic.set_level(1019, 0, true).is_ok());
    assert!(vgic.set_level(1020, 0, true).is_err());
}

#[test]
fn the_distributor_is_turned_on_by_one_bit() {
    let vgic = vgic(2, 96, 4);
    assert_eq!(vgic.write(DIST, CTLR, 4, 0xffff_fffd), VcpuSet::EMPTY);
    assert_eq!(vgic.read(DIST, CTLR, 4), 0x50);
    assert_eq!(vgic.write(DIST, CTLR, 4, 2), set(&[0, 1]));
    assert_eq!(vgic.read(DIST, CTLR, 4), 0x52);
    assert_eq!(vgic.write(DIST, CTLR, 4, 2), VcpuSet::EMPTY);
    assert_eq!(vgic.write(DIST, CTLR, 4, 0), set(&[0, 1]));
}

#[test]
fn accesses_about_the_active_state_are_told_apart() {
    for (frame, offset, about) in [
        (DIST, ISACTIVER + 4, true),
        (DIST, ICACTIVER + 0x7c, true),
        (DIST, ISPENDR, false),
        (DIST, IPRIORITYR, false),
        (REDIST, SGI_BASE + ISACTIVER, true),
        (REDIST, ISACTIVER, false),
    ] {
        assert_eq!(
            Vgic::is_about_active(frame, offset),
            about,
            "{frame:?} {offset:#x}"
        );
    }
}

#[test]
fn no_access_anywhere_panics() {
    let vgic = vgic(2, 1024, 4);
    for frame in [DIST, REDIST, Frame::Redistributor(usize::MAX)] {
        for offset in 0..0x2_1000 {
            for bytes in [0, 1, 2, 3, 4, 8, 16] {
                vgic.write(frame, offset, bytes, u64::MAX);
                let _ = vgic.read(frame, offset, bytes);
            }
        }
    }
}

#[test]
fn a_shape_is_read_from_vtr() {
    // Four list registers, 5 bits of priority, 16-bit numbers; QEMU's cortex-a57.
    let shape = InterfaceShape::from_vtr(4 << 29 | 4 << 26 | 1 << 21 | 3);
    assert_eq!((shape.list_registers, shape.priority_bits), (4, 5));
    assert!(shape.affinity3 && !shape.serrors);
    assert_eq!(InterfaceShape::from_vtr(0x1f).list_registers, 16);
}
