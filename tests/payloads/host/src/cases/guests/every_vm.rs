//! Every call that names a VM, with a VM at every point of its life and of each kind: the exact answer, and that a refusal
//! changed nothing.

use super::support::{BEHIND, PAGE, VmSeen, ensure_refused, ensure_refused_of, running};
use crate::cases::support::{self, ensure_state, frames};
use crate::frames::Frames;
use crate::guest::{Plan, Vm, calls};
use crate::hypercall::HYPERVISOR;
use crate::registry::{Outcome, TestResult, case, ensure_eq, succeed};
use hyp_abi::vm::Permissions;
use hyp_abi::{FrameState, GuestRange, HostCall, Status, VcpuRegister, VmCall, VmCallId};
use payload_protocol::layout;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Created, with its first vCPU.
    Created,
    /// Launched.
    Launched,
    /// Dying: a page of it is left.
    Dying,
}

/// The calls that name a VM, each with arguments that it would carry out in the right kind and life.
fn calls_on(vm: u64, frames: &Frames) -> [VmCall; 18] {
    let register = VcpuRegister::Power.to_register();
    let page = GuestRange::new(PAGE, 1);
    [
        VmCall::AddMemory {
            vm,
            range: GuestRange::new(BEHIND, 16),
        },
        VmCall::CreateVcpu {
            vm,
            index: 1,
            run_page: frames.frame(0),
        },
        VmCall::Launch {
            vm,
            entry: layout::IMAGE,
            argument: 0,
        },
        VmCall::Digest { vm, half: 0 },
        VmCall::Run { vm, index: 0 },
        VmCall::Destroy { vm },
        VmCall::TopUp { vm, pages: 1 },
        VmCall::Rename { vm },
        VmCall::Donate {
            vm,
            range: frames.one(1),
            gfn: PAGE + 1,
        },
        VmCall::Share {
            vm,
            range: frames.one(1),
            gfn: PAGE + 1,
            permissions: Permissions::all().bits(),
        },
        VmCall::Unshare { vm, range: page },
        VmCall::Reclaim { vm, range: page },
        VmCall::SetPermissions {
            vm,
            range: page,
            permissions: Permissions::READ.bits(),
        },
        VmCall::TestAge { vm, range: page },
        VmCall::Statistics { vm, statistic: 0 },
        VmCall::Audit { vm, range: page },
        VmCall::ReadRegister {
            vm,
            index: 0,
            register,
        },
        VmCall::WriteRegister {
            vm,
            index: 0,
            register,
            value: 1,
        },
    ]
}

/// Two frames, of which the first is shared with EL2.
fn arguments() -> Result<Frames, Outcome> {
    let frames = frames(2)?;
    frames.fill(0x4242);
    succeed!(HYPERVISOR.share(frames.one(0)));
    Ok(frames)
}

fn give_up(frames: Frames) -> TestResult {
    ensure_state(frames.frame(1), FrameState::Host, 0)?;
    ensure_state(frames.frame(0), FrameState::HostSharedHyp, 0)?;
    succeed!(HYPERVISOR.unshare(frames.one(0)));
    frames.free();
    Ok(())
}

/// Every call that names a VM must be refused with this status for this handle.
pub(super) fn ensure_all_refused(vm: u64, status: Status) -> TestResult {
    let frames = arguments()?;
    let around = [frames.frame(0), frames.frame(1)];
    for call in calls_on(vm, &frames) {
        ensure_refused(call, status, &around)?;
    }
    give_up(frames)
}

/// What a call answers to a VM of this kind at this point of its life: `None` for success.
fn refusal(call: VmCallId, life: Life, is_protected: bool) -> Option<Status> {
    let only = |right: bool| (!right).then_some(Status::WrongVmState);
    match call {
        VmCallId::AddMemory | VmCallId::CreateVcpu | VmCallId::Launch => only(life == Life::Created),
        VmCallId::Digest => only(life == Life::Launched),
        VmCallId::Run => only(life == Life::Launched),
        VmCallId::Rename => only(life != Life::Dying),
        VmCallId::Donate if !is_protected => Some(Status::WrongVmKind),
        VmCallId::Share | VmCallId::Unshare | VmCallId::SetPermissions | VmCallId::TestAge
            if is_protected =>
        {
            Some(Status::WrongVmKind)
        }
        VmCallId::ReadRegister | VmCallId::WriteRegister if is_protected => Some(Status::WrongVmKind),
        VmCallId::ReadRegister | VmCallId::WriteRegister => only(life == Life::Launched),
        VmCallId::Donate | VmCallId::Share => only(life != Life::Dying),
        VmCallId::Reclaim if !is_protected => Some(Status::WrongVmKind),
        VmCallId::Reclaim => only(life == Life::Dying),
        // These have no state in which they mean nothing; what they do is other cases' affair.
        _ => None,
    }
}

/// Every call that is refused for a VM of this kind at this point of its life is, and changes nothing.
fn check(life: Life, plan: Plan) -> TestResult {
    let plan = Plan { vcpus: 2, ..plan };
    let vm = match life {
        Life::Launched => running(plan)?,
        _ => {
            let mut vm = Vm::create(plan)?;
            vm.add_vcpu()?;
            vm
        }
    };
    vm.give(PAGE)?;
    if life == Life::Dying {
        vm.kill()?;
    }
    let frames = arguments()?;
    let around = [frames.frame(0), frames.frame(1), vm.frame(PAGE)?];
    let mut refused = 0;
    for call in calls_on(vm.handle(), &frames) {
        let exists = life == Life::Launched && call.id() == VmCallId::CreateVcpu;
        if let Some(status) = refusal(call.id(), life, plan.is_protected()) {
            ensure_refused_of(&vm, call, status, &around)?;
            refused += 1;
        } else if exists {
            return super::support::went_through("a vCPU of a launched VM");
        }
    }
    let expected = VmCallId::all()
        .filter(|id| refusal(*id, life, plan.is_protected()).is_some())
        .count();
    ensure_eq!(refused, expected, "calls that were refused");
    give_up(frames)?;
    if life == Life::Dying {
        return vm.bury();
    }
    vm.end()
}

case!(of_a_vm_that_is_not_launched, {
    check(Life::Created, Plan::protected())
});
case!(of_a_launched_vm, { check(Life::Launched, Plan::protected()) });
case!(of_a_dying_vm, { check(Life::Dying, Plan::protected()) });
case!(of_an_open_vm_that_is_not_launched, {
    check(Life::Created, Plan::open())
});
case!(of_an_open_launched_vm, { check(Life::Launched, Plan::open()) });
case!(of_an_open_dying_vm, { check(Life::Dying, Plan::open()) });

case!(a_vcpu_is_created_once_and_below_the_most, {
    let mut vm = Vm::create(Plan {
        vcpus: 2,
        ..Plan::protected()
    })?;
    vm.add_vcpu()?;
    let page = frames(1)?;
    succeed!(HYPERVISOR.share(page.range()));
    for (index, status) in [
        (0, Status::VcpuExists),
        (2, Status::NoSuchVcpu),
        (64, Status::NoSuchVcpu),
        (u64::MAX, Status::NoSuchVcpu),
    ] {
        let call = VmCall::CreateVcpu {
            vm: vm.handle(),
            index,
            run_page: page.frame(0),
        };
        ensure_refused_of(&vm, call, status, &[page.frame(0)])?;
    }
    for (run_page, status) in [
        (page.frame(0) + 8, Status::Misaligned),
        (!0xfff, Status::RangeOverflow),
    ] {
        let call = VmCall::CreateVcpu {
            vm: vm.handle(),
            index: 1,
            run_page,
        };
        ensure_refused_of(&vm, call, status, &[page.frame(0)])?;
    }
    succeed!(HYPERVISOR.unshare(page.range()));
    page.free();
    vm.end()
});

case!(a_vm_is_created_with_arguments_that_mean_something, {
    for (flags, vcpus, ipa_bits) in [
        (1 << 2, 1, 32),
        (1 << 63, 1, 32),
        (u64::MAX, 1, 32),
        (1, 0, 32),
        (1, 65, 32),
        (1, u64::MAX, 32),
        (1, 1, 0),
        (1, 1, 31),
        (1, 1, 49),
        (1, 1, 64),
        (1, 1, u64::MAX),
    ] {
        ensure_refused(
            VmCall::Create {
                flags,
                vcpus,
                ipa_bits,
            },
            Status::InvalidParameter,
            &[],
        )?;
    }
    Ok(())
});

case!(memory_is_declared_in_ranges_apart, {
    let vm = Vm::create(Plan::protected())?;
    let declared = vm.plan.declared();
    let end = declared.gfn + declared.frames;
    let add = |gfn, frames| VmCall::AddMemory {
        vm: vm.handle(),
        range: GuestRange::new(gfn, frames),
    };
    for (gfn, frames, status) in [
        (declared.gfn, declared.frames, Status::InvalidParameter),
        (declared.gfn - 1, 2, Status::InvalidParameter),
        (end - 1, 2, Status::InvalidParameter),
        (declared.gfn + 5, 1, Status::InvalidParameter),
        (declared.gfn - 1, declared.frames + 2, Status::InvalidParameter),
        (end, 0, Status::EmptyRange),
        (1 << 20, 1, Status::GfnOutOfRange),
        ((1 << 20) - 1, 2, Status::GfnOutOfRange),
        (0, u64::MAX, Status::GfnOutOfRange),
        (u64::MAX, 1, Status::GfnOutOfRange),
        (u64::MAX, u64::MAX, Status::GfnOutOfRange),
    ] {
        ensure_refused_of(&vm, add(gfn, frames), status, &[])?;
    }
    // Seven more fit, neighbours among them; an eighth does not.
    succeed!(calls::call(add(declared.gfn - 4, 4)));
    for number in 0..6 {
        succeed!(calls::call(add(end + 2 * number, 1)));
    }
    ensure_refused_of(&vm, add(end + 100, 1), Status::InvalidParameter, &[])?;
    vm.end()
});

case!(figures_and_halves_that_are_none_are_invalid, {
    let vm = running(Plan::protected())?;
    for statistic in [8, 9, u64::MAX] {
        let call = VmCall::Statistics {
            vm: vm.handle(),
            statistic,
        };
        ensure_refused_of(&vm, call, Status::InvalidParameter, &[])?;
    }
    for half in [2, 3, u64::MAX] {
        let call = VmCall::Digest {
            vm: vm.handle(),
            half,
        };
        ensure_refused_of(&vm, call, Status::InvalidParameter, &[])?;
    }
    vm.end()
});

case!(a_reserve_is_filled_and_given_back, {
    let vm = Vm::create(Plan {
        reserve: 0,
        ..Plan::protected()
    })?;
    let top_up = |pages| VmCall::TopUp {
        vm: vm.handle(),
        pages,
    };
    ensure_refused_of(&vm, top_up(0), Status::EmptyRange, &[])?;
    let [held, ..] = succeed!(calls::call(top_up(3)));
    ensure_eq!(held, 3, "pages of the reserve");
    let [held, ..] = succeed!(calls::call(top_up(2)));
    ensure_eq!(held, 5, "pages of the reserve");
    for pages in [1 << 40, u64::MAX] {
        ensure_refused_of(&vm, top_up(pages), Status::NoMemory, &[])?;
    }
    let before = super::support::pool_free()?;
    let handle = vm.handle();
    let total = calls::statistic(handle, hyp_abi::vm::VmStatistic::PagesTotal)?;
    vm.end()?;
    ensure_eq!(super::support::pool_free()?, before + total, "pages of the pool");
    Ok(())
});

case!(a_donation_without_a_reserve_says_what_it_needs, {
    let vm = Vm::create(Plan {
        reserve: 0,
        ..Plan::protected()
    })?;
    let range = vm.set_aside(1)?;
    let call = VmCall::Donate {
        vm: vm.handle(),
        range,
        gfn: PAGE,
    };
    let before = VmSeen::look(&vm)?;
    support::ensure_refused(HostCall::Vm(call), Status::VmNeedsMemory, &[range.base])?;
    before.ensure_unchanged(&vm)?;
    let Err(host_shim::CallError::Refused { detail, .. }) = calls::call(call) else {
        return super::support::went_through("a donation without tables");
    };
    succeed!(calls::call(VmCall::TopUp {
        vm: vm.handle(),
        pages: detail
    }));
    succeed!(calls::call(call));
    vm.note(PAGE, range.base);
    vm.end()
});
