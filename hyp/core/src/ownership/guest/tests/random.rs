//! Long random lives of two VMs: after every few calls map, tables, counts and TLBs agree, and in the end every page is
//! back.

use super::*;
use crate::ownership::guest::GuestAccess;

/// Frames and guest frame numbers are few, so that calls meet.
const FRAMES: u64 = 2 * 512;

/// A small generator (xorshift64), so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// A run below [`FRAMES`]: mostly a few, at times a region.
    fn run(&mut self) -> (u64, u64) {
        if self.below(8) == 0 {
            return (self.below(2) * 512, 512);
        }
        let first = self.below(FRAMES);
        let longest = [1, 1, 4, 40][self.below(4) as usize];
        (first, (self.below(longest) + 1).min(FRAMES - first))
    }
}

fn one_call(system: &System, random: &mut Random, vms: [u64; 2]) {
    let hw = system.hardware();
    let [vm, open] = vms;
    let (first, frames) = random.run();
    let (to, _) = random.run();
    let frames_span = span(HOST_REGION + first, frames);
    let pages = range(MEMORY + first, frames);
    // Often where a block can come of it.
    let gfn = MEMORY + if random.below(2) == 0 { first } else { to };
    if random.below(6) == 0 {
        hw.interrupt_after(Some(random.below(40)));
    }
    if random.below(6) == 0 {
        hw.limit_pool(Some(random.below(4)));
    }
    match random.below(15) {
        0..=2 => {
            let _ = system.guest_donate(vm, frames_span, gfn);
        }
        3..=4 => {
            let _ = system.guest_lend(1, pages);
        }
        5 => {
            let _ = system.guest_unlend(1, pages);
        }
        6 => {
            let _ = system.guest_relinquish(1, pages);
        }
        7 => {
            let _ = system.take_back(frames_span);
        }
        8 => {
            let _ = system.pin_shared(frames_span);
        }
        9 => {
            let _ = system.unpin_shared(frames_span);
        }
        10 => {
            let _ = system.guest_share(open, frames_span, gfn, 1 + random.below(4) * 2);
        }
        11 => {
            let _ = system.guest_unshare(open, pages);
        }
        12 => {
            let _ = system.guest_set_permissions(open, pages, 1 + random.below(4) * 2);
            let _ = system.guest_test_age(open, pages);
        }
        13 => {
            for slot in [1, 2] {
                system.judge_guest_abort(slot, ipa(gfn), GuestAccess::Write);
            }
            if random.below(30) == 0 {
                let _ = system.force_reclaim(frames_span.start());
            }
        }
        _ => {
            let _ = system.collapse(span(HOST_REGION, FRAMES));
        }
    }
    hw.interrupt_after(None);
    hw.limit_pool(None);
}

/// Ends both VMs and everything that they have, and answers how many pages are in use then.
fn end(system: &System, vms: [u64; 2]) -> u64 {
    let hw = system.hardware();
    let all = span(HOST_REGION, FRAMES);
    for frame in all.iter().map(FrameSpan::single) {
        while system.unpin_shared(frame).is_ok() {}
        let _ = system.take_back(frame);
    }
    for slot in [1, 2] {
        of_vm(system, slot, |vm| vm.life = Life::Dying);
    }
    let table = range(MEMORY, FRAMES + 512);
    assert_eq!(system.guest_reclaim(vms[0], table), Ok(table.frames));
    for gfn in MEMORY..MEMORY + table.frames {
        let _ = system.guest_unshare(vms[1], range(gfn, 1));
    }
    assert_sound(system);
    for vm in vms {
        let mut locked = system.vms().lock(hw, vm).unwrap();
        assert_eq!(locked.counts.left(), 0);
        assert!(system.dismantle_guest_table(&mut locked));
        let home = locked.remove();
        hw.give_root(home.table.root(), 2);
        hw.free_page(hw.vacate(home));
    }
    system.collapse(all).unwrap();
    assert_eq!(system.donate_hyp(all), Ok(FRAMES), "every frame is the host's");
    system.reclaim_hyp(all).unwrap();
    hw.pages_in_use()
}

#[test]
fn random_lives_leave_nothing_behind() {
    for seed in 1..=12 {
        let system = machine();
        let used = system.hardware().pages_in_use();
        let reserve = 12;
        let vms = [
            create(&system, 1, Kind { reserve, ..PROTECTED }),
            create(&system, 2, Kind { reserve, ..OPEN }),
        ];
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        watch(&system, span(HOST_REGION, FRAMES), MEMORY);
        let open = of_vm(&system, 2, |vm| vm.table);
        system
            .hardware()
            .watch(&open, [0, 5, 512].map(|page| ipa(MEMORY + page)));
        for step in 0..240 {
            one_call(&system, &mut random, vms);
            if step % 12 == 0 {
                assert_sound(&system);
            }
            // What the VMs paid for the host's tables is in the pool now; the host tops them up.
            for slot in [1, 2] {
                of_vm(&system, slot, |vm| {
                    let lacking = reserve.saturating_sub(vm.reserve.pages());
                    let more = Reserve::take(system.hardware(), lacking.min(random.below(3))).unwrap();
                    vm.reserve.append(system.hardware(), more);
                });
            }
        }
        assert_sound(&system);
        assert_eq!(end(&system, vms), used, "seed {seed}");
    }
}
