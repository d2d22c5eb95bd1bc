//! Interrupts that vCPUs send.

use super::*;

const INTID: u64 = 3 << 24;

#[test]
fn an_interrupt_goes_to_those_that_the_register_names() {
    let table: &[(u64, &[usize])] = &[
        (0b1, &[0]),
        (0b110, &[1, 2]),
        // Its own bit too.
        (0b1000, &[3]),
        // The second cluster has vCPUs 16 to 19; there are no more.
        (1 << 16 | 0xffff, &[16, 17, 18, 19]),
        (2 << 16 | 0xffff, &[]),
        // Aff2, Aff3.
        (1 << 32 | 1, &[]),
        (1 << 48 | 1, &[]),
        (0, &[]),
    ];
    for &(targets, vcpus) in table {
        let bench = Bench::new(20, 4);
        let kicks = bench.vgic.send(3, SgiRegister::Group1, INTID | targets);
        assert_eq!(kicks, set(vcpus), "{targets:#x}");
        for vcpu in 0..20 {
            assert_eq!(
                bench.vgic.is_pending(vcpu),
                vcpus.contains(&vcpu),
                "{targets:#x} {vcpu}"
            );
        }
    }
}

#[test]
fn with_the_mode_bit_it_goes_to_all_others() {
    let bench = Bench::new(3, 4);
    let kicks = bench.vgic.send(1, SgiRegister::Group1, 1 << 40 | INTID | 0xffff);
    assert_eq!(kicks, set(&[0, 2]));
    assert!(!bench.vgic.is_pending(1));
}

#[test]
fn group_1_is_sent_by_its_own_register_alone() {
    for (register, group1, sent) in [
        (SgiRegister::Group1, true, true),
        (SgiRegister::Group1, false, true),
        (SgiRegister::OtherGroup1, true, false),
        (SgiRegister::OtherGroup1, false, true),
        (SgiRegister::Group0, true, false),
        (SgiRegister::Group0, false, true),
    ] {
        let bench = Bench::new(1, 4);
        let groups = if group1 { u32::MAX } else { !8 };
        let frame = Frame::Redistributor(0);
        bench.vgic.write(frame, SGI_BASE + IGROUPR, 4, groups.into());
        let kicks = bench.vgic.send(0, register, INTID | 1);
        assert_eq!(!kicks.is_empty(), sent, "{register:?} {group1}");
    }
}

#[test]
fn a_disabled_one_waits() {
    let mut bench = Bench::new(2, 4);
    let frame = Frame::Redistributor(1);
    bench.vgic.write(frame, SGI_BASE + ICENABLER, 4, 8);
    let kicks = bench.vgic.send(0, SgiRegister::Group1, INTID | 0b10);
    assert_eq!(kicks, VcpuSet::EMPTY);
    assert!(bench.drain(1).is_empty());
    let kicks = bench.vgic.write(frame, SGI_BASE + ISENABLER, 4, 8);
    assert_eq!(kicks, set(&[1]));
    assert_eq!(bench.drain(1), [3]);
}

#[test]
fn sent_twice_before_it_is_taken_it_comes_once_and_after_that_again() {
    let mut bench = Bench::new(2, 4);
    let send = |bench: &Bench| bench.vgic.send(0, SgiRegister::Group1, INTID | 0b10);
    send(&bench);
    send(&bench);
    assert_eq!(bench.drain(1), [3]);
    send(&bench);
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(3));
    // The vCPU has it in hand: it must come out to get it once more.
    assert_eq!(send(&bench), set(&[1]));
    bench.leave(1);
    // It cannot be taken again before it is ended: no reason not to wait.
    assert!(!bench.vgic.is_pending(1));
    bench.enter(1);
    bench.end(1, 3);
    assert_eq!(bench.acknowledge(1), Some(3));
    bench.end(1, 3);
    bench.leave(1);
    assert!(!bench.vgic.is_pending(1));
}
