//! What the host may ask about VMs: from the typed call to what carries it out.

use super::{checked_frame, ranged, refused};
use crate::addr::FrameSpan;
use crate::hardware::Hardware;
use crate::ownership::{Ownership, Refusal};
use crate::vm::{Ended, Exit};
use hyp_abi::{FrameRange, GuestRange, HostReturn, Status, VmCall, VmHandle};

/// Carries out a call about VMs.
pub(super) fn dispatch<H: Hardware>(ownership: &Ownership<'_, H>, call: VmCall) -> HostReturn {
    match call {
        VmCall::Run { vm, index } => ran(ownership.run_vcpu(vm, index)),
        VmCall::Donate { vm, range, gfn } => ranged(range, |span| ownership.guest_donate(vm, span, gfn)),
        VmCall::Share {
            vm,
            range,
            gfn,
            permissions,
        } => ranged(range, |span| ownership.guest_share(vm, span, gfn, permissions)),
        VmCall::Unshare { vm, range } => value(ownership.guest_unshare(vm, range)),
        VmCall::Reclaim { vm, range } => value(ownership.guest_reclaim(vm, range)),
        VmCall::SetPermissions {
            vm,
            range,
            permissions,
        } => value(ownership.guest_set_permissions(vm, range, permissions)),
        VmCall::ForceReclaim { frame } => force_reclaim(ownership, frame),
        VmCall::PinShared(range) => ranged(range, |span| ownership.pin_shared(span)),
        VmCall::UnpinShared(range) => ranged(range, |span| ownership.unpin_shared(span)),
        VmCall::TakeBack(range) => ranged(range, |span| ownership.take_back(span)),
        VmCall::TestAge { vm, range } => test_age(ownership, vm, range),
        VmCall::Audit { vm, range } => audit(ownership, vm, range),
        VmCall::Create {
            flags,
            vcpus,
            ipa_bits,
        } => value(
            ownership
                .create_vm(flags, vcpus, ipa_bits)
                .map(VmHandle::to_register),
        ),
        VmCall::AddMemory { vm, range } => done(ownership.add_vm_memory(vm, range)),
        VmCall::CreateVcpu { vm, index, run_page } => create_vcpu(ownership, vm, index, run_page),
        VmCall::Launch { vm, entry, argument } => done(ownership.launch_vm(vm, entry, argument)),
        VmCall::Digest { vm, half } => match ownership.vm_digest(vm, half) {
            Ok([low, high]) => HostReturn::success([low, high, 0]),
            Err(status) => HostReturn::refused(status),
        },
        VmCall::Destroy { vm } => destroyed(ownership.destroy_vm(vm)),
        VmCall::TopUp { vm, pages } => value(ownership.top_up_vm(vm, pages)),
        VmCall::Rename { vm } => value(ownership.rename_vm(vm).map(VmHandle::to_register)),
        VmCall::Statistics { vm, statistic } => value(ownership.vm_statistic(vm, statistic)),
        VmCall::ReadRegister { vm, index, register } => {
            value(ownership.read_vcpu_register(vm, index, register))
        }
        VmCall::WriteRegister {
            vm,
            index,
            register,
            value,
        } => done(ownership.write_vcpu_register(vm, index, register, value)),
    }
}

/// Success with one result, or the refusal.
fn value<E: Into<Refusal>>(result: Result<u64, E>) -> HostReturn {
    match result {
        Ok(value) => HostReturn::success([value, 0, 0]),
        Err(refusal) => refused(refusal.into()),
    }
}

/// Success without results, or the refusal.
fn done<E: Into<Refusal>>(result: Result<(), E>) -> HostReturn {
    value(result.map(|()| 0))
}

#[inline]
fn ran(result: Result<Exit, Status>) -> HostReturn {
    match result {
        Ok(exit) => {
            let [v0, v1, ..] = exit.values;
            HostReturn::success([exit.reason.into(), v0, v1])
        }
        Err(status) => HostReturn::refused(status),
    }
}

fn destroyed(result: Result<Ended, Status>) -> HostReturn {
    match result {
        Ok(Ended::Gone) => HostReturn::success([0; 3]),
        Ok(Ended::FramesLeft(frames)) => HostReturn {
            status: Status::FramesLeft,
            values: [frames, 0, 0],
        },
        Ok(Ended::PagesLeft(pages)) => HostReturn {
            status: Status::Busy,
            values: [pages, 0, 0],
        },
        Err(status) => HostReturn::refused(status),
    }
}

fn create_vcpu<H: Hardware>(ownership: &Ownership<'_, H>, vm: u64, index: u64, run_page: u64) -> HostReturn {
    match checked_frame(run_page) {
        Ok(frame) => done(ownership.create_vcpu(vm, index, frame)),
        Err(status) => HostReturn::refused(status),
    }
}

fn force_reclaim<H: Hardware>(ownership: &Ownership<'_, H>, frame: u64) -> HostReturn {
    ranged(FrameRange::new(frame, 1), |span: FrameSpan| {
        ownership.force_reclaim(span.start()).map(|()| 0)
    })
}

fn test_age<H: Hardware>(ownership: &Ownership<'_, H>, vm: u64, range: GuestRange) -> HostReturn {
    match ownership.guest_test_age(vm, range) {
        Ok(aged) => HostReturn::success([aged.frames, aged.used, 0]),
        Err(refusal) => refused(refusal),
    }
}

fn audit<H: Hardware>(ownership: &Ownership<'_, H>, vm: u64, range: GuestRange) -> HostReturn {
    match ownership.guest_audit(vm, range) {
        Ok(report) => HostReturn::success([report.frames, report.disagreements, 0]),
        Err(refusal) => refused(refusal),
    }
}
