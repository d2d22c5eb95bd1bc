//! What user space saves and restores.

use super::*;

#[test]
fn the_latch_is_shown_and_set_apart_from_the_line() {
    let bench = Bench::new(1, 4);
    let vgic = &bench.vgic;
    for (frame, base, bank, intid) in [
        (Frame::Distributor, 4_u32, 1, 40),
        (Frame::Redistributor(0), 0x1_0000, 0, 24),
    ] {
        let at = |register: u64| base + register as u32;
        let bit = 1_u32 << (intid % 32);
        bench.raise(intid, 0);
        assert!(bench.has_bit(ISPENDR, intid));
        assert_eq!(vgic.user_read(frame, at(ISPENDR)), 0);
        assert_eq!(vgic.lines(0, bank), bit);
        let kicks = vgic.user_write(frame, at(ISPENDR), bit | 0x80_0000).unwrap();
        assert_eq!(kicks, set(&[0]));
        assert_eq!(vgic.user_read(frame, at(ISPENDR)), bit | 0x80_0000);
        // Zeros clear, and the line stays.
        vgic.user_write(frame, at(ISPENDR), 0).unwrap();
        assert_eq!(vgic.user_read(frame, at(ISPENDR)), 0);
        assert!(bench.has_bit(ISPENDR, intid));
        // ICPENDR reads zero and does nothing.
        vgic.user_write(frame, at(ISPENDR), bit).unwrap();
        vgic.user_write(frame, at(ICPENDR), u32::MAX).unwrap();
        assert_eq!(vgic.user_read(frame, at(ICPENDR)), 0);
        assert_eq!(vgic.user_read(frame, at(ISPENDR)), bit);
    }
}

#[test]
fn lines_are_set_whatever_the_configuration_and_shown_of_levels() {
    let bench = Bench::new(1, 4);
    bench.set_edge(40, true);
    assert_eq!(bench.vgic.set_lines(0, 1, 0x300), set(&[0]));
    assert_eq!(bench.vgic.lines(0, 1), 0x200);
    bench.set_edge(40, false);
    assert_eq!(bench.vgic.lines(0, 1), 0x300);
    bench.vgic.set_lines(0, 1, 0x100);
    assert_eq!(bench.vgic.lines(0, 1), 0x100);
    // SGIs have none, and what does not exist has none.
    bench.vgic.set_lines(0, 0, u32::MAX);
    assert_eq!(bench.vgic.lines(0, 0), 0xffff_0000);
    assert_eq!(bench.vgic.set_lines(0, 3, u32::MAX), VcpuSet::EMPTY);
    assert_eq!(bench.vgic.lines(0, 3), 0);
}

#[test]
fn the_revision_alone_is_written_of_what_identifies() {
    let vgic = vgic(1, 96, 4);
    let dist = Frame::Distributor;
    for bad in [0x4b00_143b, 0x4b00_443b, 0x4b00_043b, 0x4b01_343b, 0, 0x4b00_343a] {
        assert!(vgic.user_write(dist, 8, bad).is_err(), "{bad:#x}");
    }
    vgic.user_write(dist, 8, 0x4b00_243b).unwrap();
    assert_eq!(vgic.user_read(dist, 8), 0x4b00_243b);
    // Such a one said nothing in GICR_CTLR.
    assert_eq!(vgic.read(Frame::Redistributor(0), 0, 4), 0);
    vgic.user_write(dist, 8, 0x4b00_343b).unwrap();
    assert_eq!(vgic.read(Frame::Redistributor(0), 0, 4), 6);
    assert!(vgic.user_write(dist, 0xc, 1).is_err());
    assert!(vgic.user_write(dist, 0xc, 0).is_ok());
    // The rest is ignored.
    vgic.user_write(dist, 4, u32::MAX).unwrap();
    assert_eq!(vgic.user_read(dist, 4), 9 << 19 | 2);
}

/// All registers that a saved state has, in the order in which they are put back.
fn registers() -> impl Iterator<Item = (Frame, u32)> {
    let banks = |frame: Frame, base: u64, first: u64, last: u64| {
        let words = [IGROUPR, ISENABLER, ISACTIVER, ISPENDR]
            .into_iter()
            .flat_map(move |register| (first..last).map(move |bank| register + bank * 4));
        let priorities = (first * 8..last * 8).map(|word| IPRIORITYR + word * 4);
        let configs = (first * 2..last * 2).map(|word| ICFGR + word * 4);
        (configs.chain(priorities).chain(words)).map(move |offset| (frame, (base + offset) as u32))
    };
    let routes = (32..96)
        .flat_map(|intid| [IROUTER + intid * 8, IROUTER + intid * 8 + 4])
        .map(|offset| (Frame::Distributor, offset as u32));
    [(Frame::Distributor, CTLR as u32)]
        .into_iter()
        .chain(routes)
        .chain(banks(Frame::Distributor, 0, 1, 3))
        .chain((0..2).flat_map(move |vcpu| banks(Frame::Redistributor(vcpu), SGI_BASE, 0, 1)))
}

#[test]
fn a_saved_state_goes_on_elsewhere() {
    let mut bench = Bench::new(2, 4);
    bench.set_edge(41, true);
    bench.route(40, 1);
    bench.set_priority(40, 0x20);
    for (intid, vcpu) in [(40, 1), (41, 0), (42, 0), (24, 1)] {
        bench.raise(intid, vcpu);
    }
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(40));
    bench.leave(1);
    let mut other = Bench::new(2, 4);
    for (frame, offset) in registers() {
        let value = bench.vgic.user_read(frame, offset);
        other.vgic.user_write(frame, offset, value).unwrap();
    }
    for (vcpu, bank) in [(0, 0), (1, 0), (0, 1), (0, 2)] {
        other.vgic.set_lines(vcpu, bank, bench.vgic.lines(vcpu, bank));
    }
    for (frame, offset) in registers() {
        let offset = offset.into();
        assert_eq!(
            other.vgic.read(frame, offset, 4),
            bench.vgic.read(frame, offset, 4)
        );
    }
    other.cpus = bench.cpus.clone();
    other.enter(1);
    other.end(1, 40);
    assert_eq!(other.leave(1).ended.as_slice(), [40]);
    other.lower(40, 1);
    other.lower(24, 1);
    assert!(!other.vgic.is_pending(1));
    other.enter(0);
    assert_eq!(other.acknowledge(0), Some(41));
    other.end(0, 41);
    assert_eq!(other.acknowledge(0), Some(42));
}
