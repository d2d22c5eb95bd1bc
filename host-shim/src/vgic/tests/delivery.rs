//! One interrupt, from its line to its end.

use super::*;

#[test]
fn an_edge_is_delivered_once() {
    let mut bench = Bench::new(1, 4);
    bench.set_edge(40, true);
    assert_eq!(bench.raise(40, 0), set(&[0]));
    assert_eq!(bench.lower(40, 0), VcpuSet::EMPTY);
    assert!(bench.vgic.is_pending(0));
    assert_eq!(bench.drain(0), [40]);
    assert!(!bench.vgic.is_pending(0));
    assert!(bench.drain(0).is_empty());
}

#[test]
fn a_level_is_delivered_as_long_as_it_is_high() {
    let mut bench = Bench::new(1, 4);
    assert_eq!(bench.raise(40, 0), set(&[0]));
    assert_eq!(bench.raise(40, 0), VcpuSet::EMPTY);
    for _ in 0..3 {
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(40));
        assert_eq!(bench.acknowledge(0), None);
        bench.end(0, 40);
        // Its end brings the vCPU out, where the line is looked at again.
        assert_eq!(bench.cpus[0].maintenance(), 1);
        assert_eq!(bench.leave(0).ended.as_slice(), [40]);
        assert!(bench.vgic.is_pending(0));
    }
    bench.lower(40, 0);
    assert!(!bench.vgic.is_pending(0));
    assert!(bench.drain(0).is_empty());
}

#[test]
fn a_line_that_falls_before_the_entry_is_not_delivered() {
    let mut bench = Bench::new(1, 4);
    bench.raise(40, 0);
    bench.lower(40, 0);
    assert!(bench.drain(0).is_empty());
    // And one that falls while it is listed, not after the exit.
    bench.raise(40, 0);
    bench.enter(0);
    bench.lower(40, 0);
    bench.leave(0);
    assert!(bench.drain(0).is_empty());
}

#[test]
fn a_level_that_software_made_pending_is_delivered_once() {
    for acknowledged_over_exit in [false, true] {
        let mut bench = Bench::new(1, 4);
        assert_eq!(bench.bit(ISPENDR, 40), set(&[0]));
        assert!(bench.has_bit(ISPENDR, 40));
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(40));
        if acknowledged_over_exit {
            bench.leave(0);
            assert!(!bench.has_bit(ISPENDR, 40));
            assert!(bench.has_bit(ISACTIVER, 40));
            bench.enter(0);
        }
        bench.end(0, 40);
        bench.leave(0);
        assert!(bench.drain(0).is_empty());
    }
}

#[test]
fn what_is_not_acknowledged_pends_again_after_the_exit() {
    let mut bench = Bench::new(1, 4);
    bench.set_edge(40, true);
    bench.raise(40, 0);
    bench.raise(27, 0);
    bench.cpus[0].timer_control = 0b101;
    for _ in 0..3 {
        bench.enter(0);
        assert_eq!(bench.cpus[0].list().len(), 2);
        bench.leave(0);
        assert!(bench.has_bit(ISPENDR, 40) && bench.has_bit(ISPENDR, 27));
    }
}

#[test]
fn the_timers_line_is_what_the_exit_says() {
    let mut bench = Bench::new(1, 4);
    bench.cpus[0].timer_control = 0b101;
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), None);
    bench.leave(0);
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(27));
    // In hand, it is masked by EL2.
    bench.cpus[0].timer_control = 0b111;
    bench.leave(0);
    bench.enter(0);
    bench.end(0, 27);
    bench.leave(0);
    assert!(!bench.vgic.is_pending(0));
    // Another PPI can be the timer's, but nothing else.
    for intid in [0, 15, 32] {
        assert!(bench.vgic.set_timer(intid).is_err());
    }
    bench.vgic.set_timer(20).unwrap();
    bench.cpus[0].timer_control = 0b101;
    bench.enter(0);
    bench.leave(0);
    assert!(bench.has_bit(ISPENDR, 20));
}

#[test]
fn an_edge_while_the_guest_is_at_work_on_it_is_delivered_after_that() {
    let mut bench = Bench::new(1, 4);
    bench.set_edge(40, true);
    bench.raise(40, 0);
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(40));
    assert_eq!(bench.raise(40, 0), set(&[0]));
    bench.leave(0);
    assert!(bench.has_bit(ISACTIVER, 40) && bench.has_bit(ISPENDR, 40));
    assert!(!bench.vgic.is_pending(0));
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), None);
    bench.end(0, 40);
    assert_eq!(bench.acknowledge(0), Some(40));
    bench.end(0, 40);
    bench.leave(0);
    assert!(bench.drain(0).is_empty());
}

#[test]
fn a_disabled_interrupt_and_one_behind_a_closed_distributor_wait() {
    let mut bench = Bench::new(1, 4);
    bench.bit(ICENABLER, 40);
    assert_eq!(bench.raise(40, 0), VcpuSet::EMPTY);
    assert!(bench.drain(0).is_empty());
    assert_eq!(bench.bit(ISENABLER, 40), set(&[0]));
    bench.write(CTLR, 0);
    assert!(!bench.vgic.is_pending(0));
    assert!(bench.drain(0).is_empty());
    assert_eq!(bench.write(CTLR, 2), set(&[0]));
    assert!(bench.vgic.is_pending(0));
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(40));
    // What is active stays so, and can be ended.
    bench.write(CTLR, 0);
    bench.leave(0);
    bench.enter(0);
    bench.end(0, 40);
    bench.leave(0);
    assert!(!bench.has_bit(ISACTIVER, 40));
}

#[test]
fn the_most_urgent_comes_first_and_interrupts_the_others() {
    let mut bench = Bench::new(1, 4);
    bench.cpus[0].timer_control = 0;
    for (intid, priority) in [(40, 0x80), (41, 0x40), (42, 0xc0), (3, 0x60)] {
        bench.set_priority(intid, priority);
    }
    for intid in [40, 42] {
        bench.raise(intid, 0);
    }
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(40));
    bench.raise(41, 0);
    bench.vgic.send(0, SgiRegister::Group1, 3 << 24 | 1);
    bench.leave(0);
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(41));
    assert_eq!(bench.acknowledge(0), None);
    for (intid, next) in [(41, Some(3)), (3, None), (40, Some(42)), (42, None)] {
        bench.lower(intid.max(16), 0);
        bench.end(0, intid);
        assert_eq!(bench.acknowledge(0), next, "after {intid}");
    }
}

#[test]
fn an_entry_that_did_not_happen_loses_nothing() {
    let mut bench = Bench::new(2, 4);
    bench.set_edge(40, true);
    bench.raise(40, 0);
    bench.enter(0);
    // Flushed again without a word.
    bench.enter(0);
    assert_eq!(bench.cpus[0].list().len(), 1);
    bench.vgic.cancel(0);
    assert!(bench.has_bit(ISPENDR, 40));
    bench.enter(0);
    bench.route(40, 1);
    bench.enter(0);
    assert!(bench.cpus[0].list().is_empty());
    // Whom that concerns is told at the next occasion.
    assert_eq!(bench.leave(0).kicks, set(&[1]));
    assert_eq!(bench.drain(1), [40]);
}

#[test]
fn empty_list_registers_are_written_once() {
    let bench = Bench::new(1, 4);
    let sync = || bench.vgic.sync(0, &Interrupts::default());
    assert_eq!(bench.vgic.flush(0), Some(Load::default()));
    sync();
    assert_eq!(bench.vgic.flush(0), None);
    sync();
    assert_eq!(bench.vgic.flush(0), None);
    bench.vgic.cancel(0);
    bench.raise(40, 0);
    let load = bench.vgic.flush(0).unwrap();
    assert_eq!(
        load.list.as_slice(),
        [1 << 62 | 1 << 60 | 0xa0 << 48 | 1 << 41 | 40]
    );
    let ended = Interrupts {
        list: [1 << 60 | 0xa0 << 48 | 1 << 41 | 40].into_iter().collect(),
        ..Interrupts::default()
    };
    bench.lower(40, 0);
    bench.vgic.sync(0, &ended);
    // The one that ended signals as long as it is there.
    assert_eq!(bench.vgic.flush(0), Some(Load::default()));
    // An entry that did not happen has written nothing.
    bench.vgic.cancel(0);
    sync();
    assert_eq!(bench.vgic.flush(0), Some(Load::default()));
    sync();
    assert_eq!(bench.vgic.flush(0), None);
}

#[test]
fn what_is_withdrawn_while_it_is_listed_does_not_come_back() {
    let mut bench = Bench::new(1, 4);
    bench.set_edge(40, true);
    bench.raise(40, 0);
    bench.enter(0);
    assert!(bench.has_bit(ISPENDR, 40));
    assert_eq!(bench.bit(ICPENDR, 40), set(&[0]));
    bench.leave(0);
    assert!(!bench.has_bit(ISPENDR, 40));
    // A new edge counts, though.
    bench.raise(40, 0);
    bench.enter(0);
    bench.bit(ICPENDR, 40);
    bench.raise(40, 0);
    bench.leave(0);
    assert!(bench.has_bit(ISPENDR, 40));
}

#[test]
fn the_active_state_can_be_written_while_it_is_listed() {
    let mut bench = Bench::new(1, 4);
    bench.raise(40, 0);
    bench.enter(0);
    bench.acknowledge(0);
    bench.leave(0);
    bench.enter(0);
    assert_eq!(bench.bit(ICACTIVER, 40), set(&[0]));
    bench.leave(0);
    assert!(!bench.has_bit(ISACTIVER, 40));
    bench.enter(0);
    bench.bit(ISACTIVER, 40);
    bench.lower(40, 0);
    bench.leave(0);
    assert!(bench.has_bit(ISACTIVER, 40));
}

#[test]
fn what_software_makes_active_is_not_delivered_before_it_is_ended() {
    let mut bench = Bench::new(2, 4);
    bench.route(40, 1);
    bench.bit(ISACTIVER, 40);
    bench.raise(40, 0);
    assert!(!bench.vgic.is_pending(1));
    assert!(bench.drain(1).is_empty());
    assert_eq!(bench.bit(ICACTIVER, 40), set(&[1]));
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(40));
}

#[test]
fn lines_that_do_not_exist_are_refused() {
    let vgic = vgic(2, 96, 4);
    for (intid, vcpu) in [
        (0, 0),
        (15, 0),
        (96, 0),
        (1020, 0),
        (u32::MAX, 0),
        (27, 2),
        (27, 64),
    ] {
        assert!(vgic.set_level(intid, vcpu, true).is_err(), "{intid} {vcpu}");
    }
    for (intid, vcpu) in [(16, 1), (31, 0), (32, 7), (95, 0)] {
        assert!(vgic.set_level(intid, vcpu, true).is_ok(), "{intid} {vcpu}");
    }
}

#[test]
fn a_vcpu_that_is_not_there_has_nothing() {
    let vgic = vgic(2, 96, 4);
    for vcpu in [2, 63, 64, usize::MAX] {
        assert_eq!(vgic.flush(vcpu), None);
        assert_eq!(vgic.sync(vcpu, &Interrupts::default()), Synced::default());
        assert_eq!(vgic.cancel(vcpu), VcpuSet::EMPTY);
        assert!(!vgic.is_pending(vcpu));
    }
}
