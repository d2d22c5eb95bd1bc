//! More interrupts than list registers.

use super::*;
use crate::vgic::{ENDED_ELSEWHERE, NONE_PENDING, UNDERFLOW};

/// A bench on which SPIs from 40 on have the priorities 0x10, 0x18, and so on, and are edge-triggered.
fn bench(lists: u8) -> Bench {
    let bench = Bench::new(1, lists);
    for index in 0..20_u8 {
        bench.set_edge(40 + u32::from(index), true);
        bench.set_priority(40 + u32::from(index), 0x10 + 8 * index);
    }
    bench
}

#[test]
fn what_fits_needs_no_maintenance() {
    for lists in [1, 4, 16] {
        let mut bench = bench(lists);
        for index in 0..u32::from(lists) {
            bench.raise(40 + index, 0);
        }
        bench.enter(0);
        assert_eq!(bench.cpus[0].control(), 0);
        assert_eq!(bench.cpus[0].list().len(), usize::from(lists));
    }
}

#[test]
fn the_most_urgent_are_listed_and_the_rest_follows_in_order() {
    for lists in [1, 2, 3, 4, 16] {
        let mut bench = bench(lists);
        // The least urgent first.
        for index in (0..20).rev() {
            bench.raise(40 + index, 0);
        }
        bench.enter(0);
        let underflow = if lists > 1 { UNDERFLOW } else { 0 };
        assert_eq!(bench.cpus[0].control(), NONE_PENDING | underflow);
        bench.leave(0);
        let all: Vec<_> = (40..60).collect();
        assert_eq!(bench.drain(0), all, "with {lists} list registers");
    }
}

#[test]
fn a_more_urgent_one_takes_a_list_register_from_active_ones() {
    for lists in [1, 2, 4] {
        let mut bench = bench(lists);
        // Each interrupts the one before: all are active at the end.
        for index in (0..8).rev() {
            bench.raise(40 + index, 0);
            bench.enter(0);
            assert_eq!(bench.acknowledge(0), Some(40 + index), "{lists}");
            bench.leave(0);
        }
        bench.enter(0);
        let missing = bench.cpus[0].control() & ENDED_ELSEWHERE;
        assert_eq!(missing, ENDED_ELSEWHERE);
        // They end in the reverse order, whether they are listed or not.
        for index in 0..8 {
            bench.end(0, 40 + index);
            if bench.cpus[0].maintenance() != 0 {
                bench.leave(0);
                bench.enter(0);
            }
            bench.leave(0);
            for other in 0..8 {
                assert_eq!(
                    bench.has_bit(ISACTIVER, 40 + other),
                    other > index,
                    "{lists} {index} {other}"
                );
            }
            bench.enter(0);
        }
    }
}

#[test]
fn several_ends_from_outside_are_counted() {
    let mut bench = bench(4);
    for index in (0..8).rev() {
        bench.raise(40 + index, 0);
        bench.enter(0);
        bench.acknowledge(0);
        bench.leave(0);
    }
    bench.enter(0);
    // No maintenance is taken in between.
    for index in 0..7 {
        bench.end(0, 40 + index);
    }
    bench.leave(0);
    for index in 0..8 {
        assert_eq!(bench.has_bit(ISACTIVER, 40 + index), index == 7);
    }
}

#[test]
fn private_and_shared_ones_end_from_outside_alike() {
    let mut bench = Bench::new(1, 1);
    for (intid, priority) in [(50, 0x80), (20, 0x60), (51, 0x40), (21, 0x20)] {
        bench.set_priority(intid, priority);
        bench.bit(ISPENDR, intid);
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(intid));
        bench.leave(0);
    }
    for intid in [21, 51, 20, 50] {
        bench.enter(0);
        bench.end(0, intid);
        bench.leave(0);
        assert!(!bench.has_bit(ISACTIVER, intid), "{intid}");
    }
}

#[test]
fn a_count_of_ends_that_nothing_was_left_out_for_changes_nothing() {
    let mut bench = bench(4);
    bench.raise(40, 0);
    bench.enter(0);
    bench.acknowledge(0);
    let mut interrupts = bench.cpus[0].save();
    interrupts.control = 0x1f << 27;
    // Active since the entry, and no list register's.
    bench.bit(ISACTIVER, 41);
    bench.vgic.sync(0, &interrupts);
    assert!(bench.has_bit(ISACTIVER, 40) && bench.has_bit(ISACTIVER, 41));
}

#[test]
fn one_that_ends_from_outside_is_none_that_is_listed() {
    let mut bench = bench(2);
    bench.cpus[0].ends_apart = true;
    for index in 0..3 {
        bench.raise(40 + index, 0);
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(40 + index));
        bench.end(0, 40 + index);
        bench.leave(0);
    }
    bench.enter(0);
    bench.cpus[0].deactivate(42);
    bench.leave(0);
    for index in 0..3 {
        assert_eq!(bench.has_bit(ISACTIVER, 40 + index), index != 2);
    }
}

#[test]
fn what_is_active_ends_in_the_order_of_the_priorities_at_which_it_was_taken() {
    let mut bench = bench(1);
    for intid in [42, 41] {
        bench.raise(intid, 0);
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(intid));
        bench.leave(0);
    }
    // The one that was interrupted is the more urgent by now.
    bench.set_priority(42, 0);
    bench.raise(40, 0);
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(40));
    for (intid, left) in [(40, [true, true]), (41, [false, true]), (42, [false, false])] {
        bench.end(0, intid);
        bench.leave(0);
        assert_eq!(
            [bench.has_bit(ISACTIVER, 41), bench.has_bit(ISACTIVER, 42)],
            left,
            "{intid}"
        );
        bench.enter(0);
    }
}

#[test]
fn one_list_register_has_the_most_urgent_of_both_groups() {
    let mut bench = bench(1);
    bench.write(IGROUPR + 4, !(1 << 9));
    for intid in [40, 41, 42] {
        bench.raise(intid, 0);
    }
    assert_eq!(bench.drain(0), [40, 41, 42]);
}

#[test]
fn a_group_that_is_off_does_not_starve_the_other() {
    for (off, lists) in [(0, 2), (0, 4), (1, 4), (0, 16)] {
        let mut bench = bench(lists);
        bench.cpus[0].groups[off] = false;
        // SPIs 40 to 59 are of the group that is off, 60 to 79 of the other.
        let groups = |first: u32| {
            (0..32).fold(0, |value, at| {
                let is_off = (40..60).contains(&(first + at));
                value | u64::from(is_off == (off == 1)) << at
            })
        };
        bench.write(IGROUPR + 4, groups(32));
        bench.write(IGROUPR + 8, groups(64));
        for intid in 60..80 {
            bench.set_edge(intid, true);
        }
        for intid in 40..80 {
            bench.raise(intid, 0);
        }
        let others: Vec<_> = (60..80).collect();
        assert_eq!(bench.drain(0), others, "group {off} off, {lists} list registers");
        bench.cpus[0].groups[off] = true;
        let rest: Vec<_> = (40..60).collect();
        assert_eq!(bench.drain(0), rest);
    }
}

#[test]
fn one_left_out_of_the_list_registers_pends() {
    let mut bench = bench(2);
    for index in 0..3 {
        bench.raise(40 + index, 0);
    }
    bench.enter(0);
    assert!(bench.vgic.is_pending(0));
    assert_eq!(bench.acknowledge(0), Some(40));
    bench.end(0, 40);
    // One list register is in use: there is room.
    assert_eq!(bench.cpus[0].maintenance(), UNDERFLOW);
    bench.leave(0);
    bench.enter(0);
    assert!(!bench.vgic.is_pending(0));
}

#[test]
fn a_guest_that_deactivates_apart_gets_everything_too() {
    for lists in [2, 4] {
        let mut bench = bench(lists);
        bench.cpus[0].ends_apart = true;
        for index in 0..12 {
            bench.raise(40 + index, 0);
        }
        let mut taken = Vec::new();
        bench.enter(0);
        loop {
            if bench.cpus[0].maintenance() != 0 {
                bench.leave(0);
                bench.enter(0);
            }
            let Some(intid) = bench.acknowledge(0) else { break };
            bench.end(0, intid);
            taken.push(intid);
        }
        let all: Vec<_> = (40..52).collect();
        assert_eq!(taken, all);
        for intid in taken {
            bench.cpus[0].deactivate(intid);
            if bench.cpus[0].maintenance() != 0 {
                bench.leave(0);
                bench.enter(0);
            }
        }
        bench.leave(0);
        for intid in 40..52 {
            assert!(!bench.has_bit(ISACTIVER, intid), "{lists} {intid}");
        }
    }
}

#[test]
fn one_that_is_ended_from_outside_and_goes_elsewhere_by_now_is_told_there() {
    let mut bench = Bench::new(2, 1);
    // Level-sensitive: the more urgent takes the only list register from the other, which is active.
    for (intid, priority) in [(50, 0x80), (51, 0x40)] {
        bench.set_priority(intid, priority);
        bench.raise(intid, 0);
        bench.enter(0);
        assert_eq!(bench.acknowledge(0), Some(intid));
        bench.leave(0);
    }
    bench.route(50, 1);
    bench.enter(0);
    bench.end(0, 51);
    bench.lower(51, 0);
    bench.end(0, 50);
    let synced = bench.leave(0);
    assert!(!bench.has_bit(ISACTIVER, 50));
    // Its line is high still, and vCPU 1 may be waiting.
    assert_eq!(synced.kicks, set(&[1]));
    assert_eq!(synced.ended.as_slice(), [51, 50]);
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(50));
}

#[test]
fn all_that_can_end_in_one_run_is_told() {
    let mut bench = Bench::new(1, 16);
    let all: Vec<u32> = (32..32 + 16 + 31).collect();
    for intid in &all {
        bench.raise(*intid, 0);
        bench.bit(ISACTIVER, *intid);
    }
    bench.enter(0);
    let mut interrupts = bench.cpus[0].save();
    for register in &mut interrupts.list {
        // Neither active nor pending.
        *register &= !(0b11 << 62);
    }
    interrupts.control = 31 << 27;
    let mut ended = bench.vgic.sync(0, &interrupts).ended;
    ended.sort_unstable();
    assert_eq!(ended.as_slice(), all);
}
