//! As many as there can be: VMs, vCPUs, bits of an IPA.

use super::support::{ensure_refused, running};
use crate::cases::support::{REGION_FRAMES, frames_aligned, needs_cpus};
use crate::guest::exit::Exit;
use crate::guest::{Plan, Vm, schedule};
use crate::hypercall::HYPERVISOR;
use crate::probe::{self, Level};
use crate::registry::{Outcome, case, ensure, ensure_eq, fail, succeed};
use crate::sysreg;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use hyp_abi::vm::{MAX_VCPUS, MAX_VMS};
use hyp_abi::{REGION_SIZE, Status, VmCall, VmHandle};
use payload_protocol::{Order, Report};

/// The fewest bits that a guest's IPAs can have.
pub(super) const SMALLEST_IPA_BITS: u64 = 32;

/// The most bits that a guest's IPAs can have on this CPU (ID_AA64MMFR0_EL1.PARange).
pub(super) fn largest_ipa_bits() -> Result<u64, Outcome> {
    let [features, _] = succeed!(probe::execute(Level::El1, 0xd538_0700, [0; 2]));
    Ok(match features & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    })
}

case!(an_ipa_has_no_more_bits_than_the_cpu, {
    let largest = largest_ipa_bits()?;
    for ipa_bits in largest + 1..=50 {
        ensure_refused(
            VmCall::Create {
                flags: 1,
                vcpus: 1,
                ipa_bits,
            },
            Status::InvalidParameter,
            &[],
        )?;
    }
    Ok(())
});

case!(there_are_255_vms_and_not_one_more, {
    // Pages for all of them, in one region that stays EL2's.
    for _ in 0..2 {
        let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        succeed!(HYPERVISOR.pool_top_up(region.range()));
    }
    let small = Plan {
        backing: 1,
        reserve: 0,
        ..Plan::protected()
    };
    let vms: Vec<Vm> = (0..MAX_VMS)
        .map(|_| Vm::create(small))
        .collect::<Result<_, Outcome>>()?;
    let slots: BTreeSet<u8> = vms
        .iter()
        .filter_map(|vm| VmHandle::from_register(vm.handle()))
        .map(|handle| handle.slot)
        .collect();
    ensure_eq!(slots.len(), MAX_VMS, "slots");
    let create = VmCall::Create {
        flags: small.flags.bits(),
        vcpus: 1,
        ipa_bits: 32,
    };
    ensure_refused(create, Status::NoVmSlot, &[])?;
    // One goes, and its slot is the next one's.
    let mut vms = vms;
    let gone = vms.swap_remove(100);
    let slot = gone.handle() & 0xff;
    gone.end()?;
    let next = Vm::create(small)?;
    ensure_eq!(next.handle() & 0xff, slot, "slot of the next VM");
    next.end()?;
    schedule::end_all(vms)
});

case!(the_last_of_255_vms_runs, {
    for _ in 0..2 {
        let region = frames_aligned(REGION_FRAMES, REGION_SIZE)?;
        succeed!(HYPERVISOR.pool_top_up(region.range()));
    }
    let small = Plan {
        backing: 1,
        reserve: 0,
        ..Plan::protected()
    };
    let others: Vec<Vm> = (0..MAX_VMS - 2)
        .map(|_| Vm::create(small))
        .collect::<Result<_, Outcome>>()?;
    // Two with the highest VMIDs, whose memory must not be mistaken for each other's.
    let (first, second) = (running(Plan::protected())?, running(Plan::protected())?);
    ensure_eq!(second.handle() & 0xff, MAX_VMS as u64, "the last slot");
    let address = payload_protocol::layout::FREE;
    for round in 0..10 {
        first.store8(address, round)?;
        second.store8(address, !round)?;
        ensure_eq!(first.load8(address)?, round, "memory of the first");
        ensure_eq!(second.load8(address)?, !round, "memory of the second");
    }
    first.end()?;
    second.end()?;
    schedule::end_all(others)
});

case!(a_vm_has_64_vcpus, {
    let vm = running(Plan {
        backing: 400,
        ..Plan::protected().vcpus(MAX_VCPUS as u64)
    })?;
    for index in 1..MAX_VCPUS as u8 {
        super::power::start(&vm, index)?;
    }
    for index in 0..MAX_VCPUS {
        let [count, ..] = vm.done(index, Order::Spin { rounds: 10 })?;
        ensure_eq!(count, 10, "vCPU {index}");
    }
    vm.end()
});

case!(sixty_four_vcpus_take_turns_on_two_cpus, {
    needs_cpus(2)?;
    let plan = Plan {
        backing: 400,
        ..Plan::protected().vcpus(MAX_VCPUS as u64)
    };
    let vms = alloc::vec![Vm::launch(plan)?];
    let through = core::sync::atomic::AtomicUsize::new(0);
    schedule::run(&vms, 2, sysreg::counter_frequency() / 200, &|turn| {
        if let Report::Fault { .. } = turn.report {
            fail!("vCPU {}: {:x?}", turn.vcpu, turn.report);
        }
        // vCPU 0 turns the others on, one with each order.
        if turn.vcpu == 0 && (turn.step as usize) < MAX_VCPUS - 1 {
            let index = turn.step + 1;
            return Ok(Some(Order::Start {
                target: crate::guest::vgic::affinity(index),
                start: payload_protocol::Start {
                    index: index as u8,
                    ..Default::default()
                }
                .to_register(),
            }));
        }
        let rest = if turn.vcpu == 0 { MAX_VCPUS as u64 - 1 } else { 0 };
        if turn.step < rest + 5 {
            return Ok(Some(Order::Spin { rounds: 500 }));
        }
        through.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        Ok(None)
    })?;
    ensure_eq!(through.into_inner(), MAX_VCPUS, "vCPUs that came to their end");
    schedule::end_all(vms)
});

case!(the_highest_page_of_a_guest_is_memory_like_any_other, {
    let ipa_bits = largest_ipa_bits()?;
    let vm = Vm::load(Plan {
        ipa_bits,
        ..Plan::protected()
    })?;
    let last = (1 << (ipa_bits - 12)) - 1;
    succeed!(crate::guest::calls::call(VmCall::AddMemory {
        vm: vm.handle(),
        range: hyp_abi::GuestRange::new(last, 1)
    }));
    vm.give(last)?;
    vm.launch_loaded()?;
    // The payload guest's own tables reach 128 GiB, or the end of a smaller space.
    vm.ready()?;
    if ipa_bits <= 36 {
        vm.store8(last << 12, 5)?;
        ensure_eq!(vm.load8(last << 12)?, 5, "memory");
    }
    ensure!(vm.has(last), "the page is the guest's");
    let exit = vm.begin_order(0, Order::Nothing)?;
    ensure!(matches!(exit, Exit::Service { .. }), "exit {exit:x?}");
    let pages = vm.pages();
    ensure_eq!(vm.kill()?, pages, "frames left");
    crate::guest::calls::reclaim(vm.handle(), hyp_abi::GuestRange::new(last, 1))?;
    vm.bury()
});
