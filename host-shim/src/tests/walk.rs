//! Random walks: whatever is done in whatever order, record and ownership agree, and in the end nothing is left.

use super::support::*;
use crate::fake::{Act, Fake, Owner};
use crate::memfd::{Attribute, LivePunch, MemfdFlags, PartialPunch, Pin};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Error, Exit, GuestMemfd, MemfdConfig, Vcpu, Vm};
use alloc::vec::Vec;
use hyp_abi::GuestRange;
use hyp_abi::vm::VmFlags;

const PAGES: u64 = 24;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

struct Walker {
    vm: Option<Vm<Fake>>,
    vcpus: Vec<Vcpu<Fake>>,
    file: Option<GuestMemfd<Fake>>,
}

impl Walker {
    fn new(machine: &Machine, dice: &mut Dice) -> Option<Self> {
        let kind = [VmFlags::PROTECTED, VmFlags::empty()][dice.below(2) as usize];
        let vm = machine.try_vm(kind).ok()?;
        let config = MemfdConfig {
            size: PAGES * P,
            flags: MemfdFlags::all(),
            order: [0, 2, 3][dice.below(3) as usize],
            partial_punch: [PartialPunch::Reject, PartialPunch::ZeroOnly, PartialPunch::Split]
                [dice.below(3) as usize],
            live_punch: [LivePunch::Refuse, LivePunch::Force][dice.below(2) as usize],
        };
        let file = GuestMemfd::create(&vm, config, machine.source()).ok()?;
        let half = PAGES / 2 * P;
        vm.add_slot(slot(0, IPA, half, &file, half)).ok()?;
        vm.add_slot(slot(1, IPA + half, half, &file, 0)).ok()?;
        let vcpus = (0..2).filter_map(|index| vm.create_vcpu(index).ok()).collect();
        let _ = vm.load(IPA + dice.below(PAGES) * P, &[3; 100]);
        let _ = vm.launch(IPA, 0);
        Some(Self {
            vm: Some(vm),
            vcpus,
            file: Some(file),
        })
    }

    /// What the file says of a page is what EL2 says of its frame.
    fn check(&self, machine: &Machine) {
        let (Some(vm), Some(file)) = (&self.vm, &self.file) else {
            return;
        };
        for page in 0..PAGES {
            let gfn = GFN + (page + PAGES / 2) % PAGES;
            let mapped = machine.fake.mapped(vm.handle(), gfn);
            let attribute = file.attribute(page * P).unwrap();
            let owner = mapped.map(|frame| machine.fake.owner(frame));
            match attribute {
                Attribute::Private => assert!(
                    matches!(owner, Some(Owner::Guest { .. }) | None),
                    "{page} {owner:?}"
                ),
                Attribute::Shared => {
                    assert!(
                        matches!(owner, Some(Owner::GuestShared { .. })),
                        "{page} {owner:?}"
                    );
                }
                Attribute::Host => {
                    assert!(
                        matches!(owner, Some(Owner::Borrowed { .. }) | None),
                        "{page} {owner:?}"
                    );
                }
                Attribute::Absent => assert_eq!(owner, None, "{page}"),
                Attribute::Poisoned => panic!("no frame breaks here"),
            }
        }
    }
}

fn step(machine: &Machine, walker: &mut Walker, pins: &mut Vec<Pin<Fake>>, dice: &mut Dice) {
    let page = dice.below(PAGES);
    let pages = 1 + dice.below((PAGES - page).min(6));
    let (gfn, range) = (GFN + page, GuestRange::new(GFN + page, pages));
    match dice.below(14) {
        0..=4 => {
            let (Some(vm), true) = (&walker.vm, !walker.vcpus.is_empty()) else {
                return;
            };
            if vm.is_gone() {
                return;
            }
            let index = dice.below(walker.vcpus.len() as u64) as usize;
            let vcpu = &mut walker.vcpus[index];
            let act = match dice.below(5) {
                0 => Act::Share(gfn),
                1 => Act::Unshare(gfn),
                2 if vm.flags().contains(VmFlags::PROTECTED) => Act::Relinquish(gfn, pages),
                _ => Act::Write(gfn, page as u8),
            };
            if vm.flags().contains(VmFlags::PROTECTED) || matches!(act, Act::Write(..)) {
                machine.fake.program(vm.handle(), vcpu.index(), [act]);
            }
            let mut result = vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
            // What cannot be had is refused, so that the guest goes on.
            for _ in 0..8 {
                match result {
                    Ok(Exit::Lost { .. }) | Err(_) => {
                        result = vcpu.run_on(&Entry::new().refuse(), PinnedPolicy::Refuse);
                    }
                    _ => break,
                }
            }
        }
        5 | 6 => {
            if let Some(file) = &walker.file {
                let result = file.punch(page * P, pages * P);
                assert!(
                    matches!(
                        result,
                        Ok(())
                            | Err(Error::InUse { .. }
                                | Error::Pinned { .. }
                                | Error::PartOfHugePage { .. }
                                | Error::NoMemory)
                    ),
                    "{result:?}"
                );
            }
        }
        7 | 8 => {
            if let Some(pin) = walker
                .file
                .as_ref()
                .and_then(|file| file.pin(page * P, pages * P).ok())
            {
                pin.write(0, &[7]).unwrap();
                pins.push(pin);
            }
        }
        9 | 10 if !pins.is_empty() => {
            let index = dice.below(pins.len() as u64) as usize;
            drop(pins.swap_remove(index));
        }
        11 => {
            if let Some(vm) = &walker.vm {
                let _ = vm.populate(range);
            }
        }
        12 => machine.fail_after([-1, -1, 0, 1, 2][dice.below(5) as usize]),
        13 => match dice.below(24) {
            0 => walker.file = None,
            1 => walker.vm = None,
            2 => {
                if let Some(vm) = &walker.vm {
                    let _ = vm.destroy();
                }
            }
            3 => walker.vcpus.clear(),
            4 => {
                if let Some(vm) = &walker.vm {
                    let _ = vm.delete_slot(dice.below(2) as u32);
                }
            }
            5 => {
                if let Some(vm) = walker.vm.as_ref().filter(|vm| !vm.is_gone()) {
                    let _ = vm.rename();
                }
            }
            _ => {
                let _ = walker
                    .file
                    .as_ref()
                    .map(|file| file.allocate(page * P, pages * P));
            }
        },
        _ => {}
    }
}

#[test]
fn whatever_is_done_in_whatever_order_nothing_is_left() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let machine = Machine::new();
        let mut pins = Vec::new();
        let mut walkers: Vec<Walker> = (0..2).filter_map(|_| Walker::new(&machine, &mut dice)).collect();
        for _ in 0..120 {
            let index = dice.below(walkers.len() as u64) as usize;
            step(&machine, &mut walkers[index], &mut pins, &mut dice);
            walkers.iter().for_each(|walker| walker.check(&machine));
        }
        machine.never_fail();
        // The order in which things go is as random as the rest.
        match dice.below(3) {
            0 => {
                drop(pins);
                drop(walkers);
            }
            1 => {
                drop(walkers);
                drop(pins);
            }
            _ => {
                for walker in &mut walkers {
                    walker.vm = None;
                }
                drop(pins);
                drop(walkers);
            }
        }
        machine.assert_nothing_left();
    }
}
