//! How a VM begins and ends.

use super::Guest;
use super::program::Program;
use crate::bench::bracket::{Figure, Mark, NO_MARK, sample};
use crate::bench::calls::SOME;
use crate::cases::support::fill_pool;
use crate::guest::Plan;
use crate::guest::calls::{call, reclaim};
use crate::guest::run_page::RunPage;
use crate::guest::vcpu::Answer;
use crate::hypercall::Hvc;
use crate::registry::{Outcome, ensure_eq, fail, succeed};
use core::cell::{Cell, RefCell};
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

/// Ends a guest that has run, with tables and a reserve: one call says that it dies, and another that it is gone, when all
/// of its frames are back. Taking them back between the two is not marked.
pub(in crate::bench) fn destroy(mark: Mark) -> Result<Figure, Outcome> {
    let current = RefCell::new(None);
    let runs = Cell::new(0);
    let before = || {
        let guest = Guest::launch(Program::Wait, 0, mark, 1)?;
        guest.run(Answer::None)?;
        *current.borrow_mut() = Some(guest);
        runs.set(runs.get() + 1);
        Ok(())
    };
    let both = || {
        let current = current.borrow();
        let Some(guest) = current.as_ref() else {
            fail!("no guest was launched")
        };
        let destroy = VmCall::Destroy {
            vm: guest.vm.handle(),
        }
        .encode();
        let begun = Hvc.call(destroy);
        (NO_MARK.set)();
        reclaim(guest.vm.handle(), guest.vm.plan.declared())?;
        if runs.get() == SOME {
            (mark.set)();
        }
        Ok([begun, Hvc.call(destroy)].map(|[status, ..]| status))
    };
    sample(SOME, mark, before, both, |result| {
        let expected = [Status::FramesLeft, Status::Success].map(Status::to_register);
        ensure_eq!(result?, expected, "status of both calls");
        match current.borrow_mut().take() {
            Some(guest) => guest.forget(),
            None => Ok(()),
        }
    })
}
