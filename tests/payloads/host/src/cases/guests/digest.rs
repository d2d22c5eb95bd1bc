//! The launch digest: what it is made of, and who can read it.

use super::support::{INVALID, PAGE, running};
use super::vectors::{needs_sme, needs_sve, streaming};
use crate::cases::support;
use crate::guest::{Plan, Vm, calls, image, registers, sve};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, VmCall};
use payload_protocol::{Secret, Start, layout};
use sha2::{Digest as _, Sha256};

/// The digest of a launched VM, as the host is told.
pub(super) fn of(vm: &Vm) -> Result<[u64; 4], Outcome> {
    let half = |half| {
        calls::call(VmCall::Digest {
            vm: vm.handle(),
            half,
        })
    };
    let ([a, b, _], [c, d, _]) = (succeed!(half(0)), succeed!(half(1)));
    Ok([a, b, c, d])
}

/// The digest as the guest is told.
fn as_the_guest_has_it(vm: &Vm) -> Result<[u64; 4], Outcome> {
    let half = |half| vm.hvc(GuestCallId::LaunchDigest.into(), [half, 0, 0]);
    let ([x0, a, b, _], [y0, c, d, _]) = (half(0)?, half(1)?);
    ensure_eq!((x0, y0), (0, 0), "LAUNCH_DIGEST");
    Ok([a, b, c, d])
}

/// The digest of a VM of this plan with the payload guest in it, worked out as [`VmCall::Launch`] documents it.
fn worked_out(plan: &Plan) -> Result<[u64; 4], Outcome> {
    let scratch = support::frames(1)?;
    let mut frames = Sha256::new();
    for page in 0..image::frames()? {
        image::copy_page(page, &scratch)?;
        let mut contents = Sha256::new();
        scratch
            .contents()
            .for_each(|word| contents.update(word.to_le_bytes()));
        frames.update((layout::IMAGE / FRAME_SIZE + page).to_le_bytes());
        frames.update(contents.finalize());
    }
    scratch.free();
    let mut digest = Sha256::new();
    digest.update(b"Freehold launch\0");
    let range = plan.declared();
    for number in [
        plan.flags.bits(),
        plan.vcpus,
        plan.ipa_bits,
        layout::IMAGE,
        plan.start.to_register(),
        1,
        range.gfn,
        range.frames,
    ] {
        digest.update(number.to_le_bytes());
    }
    digest.update(frames.finalize());
    let digest: [u8; 32] = digest.finalize().into();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(words)
}

case!(the_digest_is_what_it_is_documented_to_be, {
    let plan = Plan::protected();
    let vm = running(plan)?;
    ensure_eq!(of(&vm)?, worked_out(&plan)?, "digest");
    vm.end()
});

case!(host_and_guest_are_told_the_same_digest, {
    let vm = running(Plan::protected())?;
    ensure_eq!(as_the_guest_has_it(&vm)?, of(&vm)?, "digest");
    for half in [2, 3, u64::MAX] {
        let got = vm.hvc(GuestCallId::LaunchDigest.into(), [half, 0, 0])?;
        ensure_eq!(got, INVALID, "half {half:#x}");
    }
    vm.end()
});

case!(whatever_a_guest_is_launched_with_is_in_its_digest, {
    let plan = Plan::protected();
    let first = worked_out(&plan)?;
    let others = [
        Plan {
            flags: VmFlags::all(),
            ..plan
        },
        Plan { vcpus: 2, ..plan },
        Plan { ipa_bits: 33, ..plan },
        Plan {
            memory: plan.memory + 1,
            ..plan
        },
        Plan {
            start: Start {
                tag: plan.start.tag + 1,
                ..plan.start
            },
            ..plan
        },
    ];
    for other in others {
        let vm = running(other)?;
        let digest = of(&vm)?;
        ensure!(digest != first, "{other:?} has the digest of {plan:?}");
        ensure_eq!(digest, worked_out(&other)?, "digest of {other:?}");
        vm.end()?;
    }
    Ok(())
});

/// The digest of a guest that was given these pages, full of these values, before its launch.
fn with_pages(pages: &[(u64, u64)]) -> Result<[u64; 4], Outcome> {
    with_pages_by(pages, |donation| {
        succeed!(calls::call(donation));
        Ok(())
    })
}

/// The same; each page is given by `donate`.
fn with_pages_by(pages: &[(u64, u64)], donate: impl Fn(VmCall) -> TestResult) -> Result<[u64; 4], Outcome> {
    let vm = Vm::load(Plan::protected())?;
    // What a table of the guest's may take: no donation is refused for that.
    calls::top_up(vm.handle(), 4)?;
    for &(gfn, value) in pages {
        let frame = vm.set_aside(1)?;
        let view = crate::frames::Frames::adopt(frame);
        // The same wherever it lies.
        view.zero();
        view.write_code(0, &[value as u32]);
        donate(VmCall::Donate {
            vm: vm.handle(),
            range: frame,
            gfn,
        })?;
        vm.note(gfn, frame.base);
    }
    vm.launch_loaded()?;
    let digest = of(&vm)?;
    vm.end()?;
    Ok(digest)
}

case!(contents_places_and_order_are_in_the_digest, {
    let first = with_pages(&[(PAGE, 1), (PAGE + 1, 2)])?;
    ensure_eq!(
        with_pages(&[(PAGE, 1), (PAGE + 1, 2)])?,
        first,
        "the same once more"
    );
    for other in [
        &[(PAGE, 1), (PAGE + 1, 3)][..],
        &[(PAGE, 1), (PAGE + 2, 2)],
        &[(PAGE + 1, 2), (PAGE, 1)],
        &[(PAGE, 2), (PAGE + 1, 1)],
        &[(PAGE, 1)],
        &[(PAGE, 1), (PAGE + 1, 2), (PAGE + 2, 0)],
    ] {
        ensure!(with_pages(other)? != first, "{other:x?} makes no difference");
    }
    Ok(())
});

/// What is donated by the cases that look at the host's registers.
const SOME: &[(u64, u64)] = &[(PAGE, 0x1234), (PAGE + 1, 0)];

// EL2 computes with the vector registers where the CPU has SHA-256.
case!(the_hosts_registers_survive_a_digest, {
    let found = with_pages_by(SOME, |donation| {
        let after = registers::call(donation, Secret::new(1));
        ensure_eq!(after.results[0], 0, "status");
        ensure_eq!(
            (after.general, after.vectors, after.system),
            (0, 0, 0),
            "registers that changed"
        );
        Ok(())
    })?;
    ensure_eq!(found, with_pages(SOME)?, "digest");
    Ok(())
});

case!(the_hosts_sve_state_survives_a_digest_at_every_length, {
    needs_sve()?;
    let wanted = with_pages(SOME)?;
    for length in 1..=16 {
        let found = with_pages_by(SOME, |donation| {
            let bytes = sve::set_length(length);
            let registers = sve::Registers::numbered(bytes, length as u8);
            registers.load();
            let done = calls::call(donation);
            let after = sve::Registers::stored();
            succeed!(done);
            ensure!(
                after == registers,
                "the host's registers changed at {bytes} bytes"
            );
            Ok(())
        })?;
        ensure_eq!(found, wanted, "digest");
    }
    Ok(())
});

// There the CPU has no such instructions, and EL2 computes without them.
case!(a_digest_in_streaming_mode_is_the_same, {
    needs_sme()?;
    let found = with_pages_by(SOME, |donation| {
        succeed!(streaming(|| calls::call(donation))?);
        Ok(())
    })?;
    ensure_eq!(found, with_pages(SOME)?, "digest");
    Ok(())
});

case!(what_comes_after_the_launch_is_not_in_the_digest, {
    let plan = Plan::protected();
    let vm = running(plan)?;
    for gfn in PAGE..PAGE + 3 {
        vm.give(gfn)?;
    }
    ensure_eq!(of(&vm)?, worked_out(&plan)?, "digest");
    vm.end()
});

case!(a_refused_donation_is_not_in_the_digest, {
    let vm = Vm::load(Plan::protected())?;
    let frame = vm.set_aside(1)?;
    succeed!(crate::hypercall::HYPERVISOR.share(frame));
    let donate = VmCall::Donate {
        vm: vm.handle(),
        range: frame,
        gfn: PAGE,
    };
    super::support::ensure_refused_of(&vm, donate, hyp_abi::Status::SharedWithHyp, &[frame.base])?;
    succeed!(crate::hypercall::HYPERVISOR.unshare(frame));
    vm.launch_loaded()?;
    ensure_eq!(of(&vm)?, worked_out(&vm.plan)?, "digest");
    vm.end()
});

/// The digest can be asked for from the launch on, and no longer when the VM dies.
fn ensure_no_digest(vm: &Vm) -> TestResult {
    for half in [0, 1] {
        let call = VmCall::Digest {
            vm: vm.handle(),
            half,
        };
        super::support::ensure_refused_of(vm, call, hyp_abi::Status::WrongVmState, &[])?;
    }
    Ok(())
}

case!(there_is_a_digest_from_the_launch_on, {
    let vm = Vm::load(Plan::protected())?;
    ensure_no_digest(&vm)?;
    vm.launch_loaded()?;
    of(&vm)?;
    vm.end()
});
