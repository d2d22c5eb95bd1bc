//! How a VM begins and ends.

use super::Guest;
use super::program::Program;
use crate::bench::bracket::{Figure, Mark, sample};
use crate::bench::calls::SOME;
use crate::cases::support::fill_pool;
use crate::guest::Plan;
use crate::guest::calls::{call, reclaim};
use crate::guest::run_page::RunPage;
use crate::guest::vcpu::Answer;
use crate::hypercall::Hvc;
use crate::registry::{Outcome, ensure_eq, succeed};
use core::cell::RefCell;
use core::hint::black_box;
use host_shim::Hypercall;
use hyp_abi::{Status, VmCall};

/// Creates a VM and its vCPU.
pub(in crate::bench) fn create(mark: Mark) -> Result<Figure, Outcome> {
    let page = RunPage::new()?;
    let plan = Plan::protected();
    let create = black_box(VmCall::Create {
        flags: plan.flags.bits(),
        vcpus: plan.vcpus,
        ipa_bits: plan.ipa_bits,
    })
    .encode();
    let both = || {
        let created = Hvc.call(create);
        let [_, vm, ..] = created;
        let vcpu = VmCall::CreateVcpu {
            vm,
            index: 0,
            run_page: page.address(),
        };
        (created, Hvc.call(vcpu.encode()))
    };
    let figure = sample(SOME, mark, fill_pool, both, |(created, vcpu)| {
        let [status, vm, ..] = created;
        ensure_eq!(
            [status, vcpu[0]],
            [Status::Success.to_register(); 2],
            "status of both calls"
        );
        succeed!(call(VmCall::Destroy { vm }));
        Ok(())
    })?;
    page.end()?;
    Ok(figure)
}

/// The first half of an end: the VM has frames left.
pub(in crate::bench) fn start_teardown(mark: Mark) -> Result<Figure, Outcome> {
    destroy(mark, |_| Ok(()), Status::FramesLeft)
}

/// The second half: a guest that has run, with tables and a reserve, whose frames are all back.
pub(in crate::bench) fn finish_teardown(mark: Mark) -> Result<Figure, Outcome> {
    let take_frames = |guest: &Guest| {
        guest.kill()?;
        reclaim(guest.vm.handle(), guest.vm.plan.declared())
    };
    destroy(mark, take_frames, Status::Success)
}

fn destroy(
    mark: Mark,
    mut prepare: impl FnMut(&Guest) -> Result<(), Outcome>,
    expected: Status,
) -> Result<Figure, Outcome> {
    let current = RefCell::new(None);
    let before = || {
        let guest = Guest::launch(Program::Wait, 0, mark, 1)?;
        guest.run(Answer::None)?;
        prepare(&guest)?;
        *current.borrow_mut() = Some(guest);
        Ok(())
    };
    let registers = || {
        let vm = current
            .borrow()
            .as_ref()
            .map_or(0, |guest: &Guest| guest.vm.handle());
        VmCall::Destroy { vm }.encode()
    };
    sample(
        SOME,
        mark,
        before,
        || Hvc.call(registers()),
        |[status, ..]| {
            ensure_eq!(status, expected.to_register(), "status of the call");
            match (current.borrow_mut().take(), expected) {
                (Some(guest), Status::Success) => guest.forget(),
                (Some(guest), _) => guest.bury(),
                (None, _) => Ok(()),
            }
        },
    )
}
