//! The calls of guests, as [`hyp_abi::guest_call`] has them.
//!
//! A call that can not be done now leaves everything as it was, PC at its `HVC`, and the guest makes it again once the
//! host has done its part. A call about several pages that ends early tells the guest how many are done.

use super::exit::Exit;
use super::launch::digest_half;
use super::run::{Flow, Running};
use super::state::Life;
use crate::addr::FRAME_SIZE;
use crate::hardware::Hardware;
use crate::ownership::guest::GuestOutcome;
use crate::psci::is_psci;
use crate::trap::syndrome::{FaultRegisters, exception_class};
use core::ops::ControlFlow;
use hyp_abi::guest_call::{
    GuestCallId, HOST_SERVICE_FIRST, HOST_SERVICE_LAST, INVALID_PARAMETER, KVM_UID, MEMINFO_HAS_RANGE,
    NOT_REQUIRED, NOT_SUPPORTED, SMCCC_VERSION, SUCCESS, feature_bit,
};
use hyp_abi::run_page::{AccessFlags, ExitReason};
use hyp_abi::{Counter, Features, GuestRange};

/// ESR_EL2.EC of an `HVC` from AArch64.
pub(super) const CLASS_HVC64: u8 = 0x16;

/// x0 of a vendor's features.
const VENDOR_FEATURES: u64 = GuestCallId::VendorFeatures as u64;
/// x0 of the question how memory is shared, and what it answers.
const MEMORY_INFO: u64 = GuestCallId::MemInfo as u64;
const MEMORY_INFO_RESULTS: [u64; 4] = [FRAME_SIZE, MEMINFO_HAS_RANGE, 0, 0];

/// The calls that only a protected VM has: the others' memory is the host's.
const PROTECTED_ONLY: &[GuestCallId] = &[
    GuestCallId::MemInfo,
    GuestCallId::MemShare,
    GuestCallId::MemUnshare,
    GuestCallId::MemRelinquish,
];

/// The other calls that have a bit in the feature bitmap.
const FOR_ALL: &[GuestCallId] = &[
    GuestCallId::VendorFeatures,
    GuestCallId::MmioGuardInfo,
    GuestCallId::MmioGuardEnroll,
    GuestCallId::MmioGuardMap,
    GuestCallId::MmioGuardUnmap,
    GuestCallId::MmioGuardRangeMap,
    GuestCallId::MmioGuardRangeUnmap,
];

/// The feature bits of some calls, of which none is above 31.
const fn bits_of(calls: &[GuestCallId]) -> u64 {
    let mut bits = 0;
    let mut number = 0;
    while number < calls.len() {
        if let Some(bit) = feature_bit(calls[number]) {
            assert!(bit < 32);
            bits |= 1 << bit;
        }
        number += 1;
    }
    bits
}

/// The first word of the feature bitmap of a VM that is not protected; the other three are zero.
const FEATURES_PLAIN: u64 = bits_of(FOR_ALL);
/// That of a protected VM.
const FEATURES_PROTECTED: u64 = FEATURES_PLAIN | bits_of(PROTECTED_ONLY);

/// A call about memory, and how it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MemoryCall {
    Share,
    Unshare,
    Relinquish,
    Guard,
    Unguard,
}

impl<H: Hardware> Running<'_, '_, H> {
    /// Answers the calls that say the same each time, if `esr` and x0 say that this is one of them.
    #[inline(always)]
    pub(super) fn short_call(&mut self, esr: u64) -> bool {
        let [x0, x1, x2, x3, ..] = self.vcpu.context.x;
        if exception_class(esr) != CLASS_HVC64 || esr & 0xffff != 0 {
            return false;
        }
        let results = match x0 {
            VENDOR_FEATURES => [self.vendor_features(), 0, 0, 0],
            MEMORY_INFO if self.regime.protected && x1 | x2 | x3 == 0 => MEMORY_INFO_RESULTS,
            _ => return false,
        };
        self.own.hardware().count(Counter::GuestCalls, 1);
        self.set_results(results);
        true
    }

    /// Answers an `HVC`. PC is past it.
    pub(super) fn guest_call(&mut self, trap: FaultRegisters) -> Flow {
        self.hw().count(Counter::GuestCalls, 1);
        self.answer_call(trap, None)
    }

    /// The first word of the vendor's feature bitmap.
    #[inline]
    const fn vendor_features(&self) -> u64 {
        if self.regime.protected {
            FEATURES_PROTECTED
        } else {
            FEATURES_PLAIN
        }
    }

    /// Makes a call once more that found the page `pinned`. PC is past its `HVC`.
    pub(super) fn repeat_call(&mut self, trap: FaultRegisters, pinned: u64) -> Flow {
        self.answer_call(trap, Some(pinned))
    }

    fn answer_call(&mut self, trap: FaultRegisters, pinned: Option<u64>) -> Flow {
        let [x0, x1, x2, x3, ..] = self.vcpu.context.x;
        // The convention has no other immediate, and a function identifier has 32 bits.
        let function = u32::try_from(x0).ok().filter(|_| trap.esr & 0xffff == 0);
        let Some(function) = function else {
            return self.unsupported();
        };
        if is_psci(function) {
            return self.psci(function, [x1, x2, x3]);
        }
        if (HOST_SERVICE_FIRST..=HOST_SERVICE_LAST).contains(&function) {
            return self.host_service(trap);
        }
        let Ok(call) = GuestCallId::try_from(function) else {
            return self.unsupported();
        };
        if !self.regime.protected && PROTECTED_ONLY.contains(&call) {
            return self.unsupported();
        }
        let memory = |call| (call, [x1, x2, x3]);
        let (memory_call, arguments) = match call {
            GuestCallId::SmcccVersion => return self.succeed([SMCCC_VERSION, 0, 0, 0]),
            GuestCallId::SmcccArchFeatures => return self.arch_features(x1 as u32),
            // EL2's vectors did it on the way in, if this CPU needs it at all.
            GuestCallId::SmcccWorkaround1 | GuestCallId::SmcccWorkaround2 | GuestCallId::SmcccWorkaround3 => {
                return self.succeed([0; 4]);
            }
            GuestCallId::VendorUid => return self.succeed(KVM_UID.map(u64::from)),
            GuestCallId::VendorFeatures => return self.succeed([self.vendor_features(), 0, 0, 0]),
            GuestCallId::TrngVersion
            | GuestCallId::TrngFeatures
            | GuestCallId::TrngGetUuid
            | GuestCallId::TrngRnd32
            | GuestCallId::TrngRnd64 => return self.trng(call, x1),
            GuestCallId::LaunchDigest => return self.own_digest(x1),
            GuestCallId::MemInfo | GuestCallId::MmioGuardInfo | GuestCallId::MmioGuardEnroll => {
                return if (x1, x2, x3) == (0, 0, 0) {
                    self.without_arguments(call)
                } else {
                    self.refuse_call();
                    ControlFlow::Continue(())
                };
            }
            GuestCallId::MemShare => memory(MemoryCall::Share),
            GuestCallId::MemUnshare => memory(MemoryCall::Unshare),
            GuestCallId::MemRelinquish => memory(MemoryCall::Relinquish),
            GuestCallId::MmioGuardRangeMap => memory(MemoryCall::Guard),
            GuestCallId::MmioGuardRangeUnmap => memory(MemoryCall::Unguard),
            GuestCallId::MmioGuardMap => (MemoryCall::Guard, [x1, 1, x2 | x3]),
            GuestCallId::MmioGuardUnmap => (MemoryCall::Unguard, [x1, 1, x2 | x3]),
        };
        let ranged = !matches!(call, GuestCallId::MmioGuardMap | GuestCallId::MmioGuardUnmap);
        self.memory_call(memory_call, arguments, ranged, trap, pinned)
    }

    /// A call about pages: `address` of the first, how many, and what must be 0.
    fn memory_call(
        &mut self,
        call: MemoryCall,
        [address, granules, zero]: [u64; 3],
        ranged: bool,
        trap: FaultRegisters,
        pinned: Option<u64>,
    ) -> Flow {
        let is_guard = matches!(call, MemoryCall::Guard | MemoryCall::Unguard);
        // The calls of KVM have no count: it is 0 there, and means one page.
        let granules = if granules == 0 && !is_guard { 1 } else { granules };
        if zero != 0 || granules == 0 || !address.is_multiple_of(FRAME_SIZE) {
            self.refuse_call();
            return ControlFlow::Continue(());
        }
        let gfn = address / FRAME_SIZE;
        let range = GuestRange::new(gfn, granules);
        let (own, slot) = (self.own, self.regime.slot);
        let outcome = match call {
            MemoryCall::Share => own.guest_lend(slot, range),
            MemoryCall::Unshare => own.guest_unlend(slot, range),
            MemoryCall::Relinquish => own.guest_relinquish(slot, range),
            MemoryCall::Guard => own.guest_guard_map(slot, range),
            MemoryCall::Unguard => own.guest_guard_unmap(slot, range),
        };
        match outcome {
            GuestOutcome::Done(done) => {
                self.set_results([0, if ranged { done } else { 0 }, 0, 0]);
                if call == MemoryCall::Relinquish {
                    return ControlFlow::Break(Exit::new(ExitReason::Relinquished, gfn, done, 0));
                }
                ControlFlow::Continue(())
            }
            // To lend what was never there is to want it there.
            GuestOutcome::Absent(gfn) if call == MemoryCall::Share => self.exit_and_restart(
                trap,
                Exit::new(ExitReason::MemoryFault, gfn, AccessFlags::CALL.bits(), 0),
            ),
            GuestOutcome::Pinned(gfn) if pinned != Some(gfn) => {
                self.exit_and_restart(trap, Exit::new(ExitReason::Pinned, gfn, 0, 0))
            }
            GuestOutcome::NeedsPages(pages) => {
                self.exit_and_restart(trap, Exit::new(ExitReason::MemoryNeeded, pages, 0, 0))
            }
            GuestOutcome::Busy => {
                self.restart_call();
                self.once_more()
            }
            GuestOutcome::Refused | GuestOutcome::Absent(_) | GuestOutcome::Pinned(_) => {
                self.refuse_call();
                ControlFlow::Continue(())
            }
        }
    }

    /// An exit in the middle of a call, which is made again.
    fn exit_and_restart(&mut self, trap: FaultRegisters, exit: Exit) -> Flow {
        self.restart_call();
        self.wait_for(trap, exit)
    }

    /// A service of the host's: it gets x0 to x6, and answers with x0 to x3.
    fn host_service(&mut self, trap: FaultRegisters) -> Flow {
        let [x0, x1, x2, x3, x4, x5, x6, ..] = self.vcpu.context.x;
        let exit = Exit {
            reason: ExitReason::HostService,
            values: [x0, x1, x2, x3, x4, x5, x6],
        };
        self.exit_and_restart(trap, exit)
    }

    /// The calls whose arguments must all be 0.
    fn without_arguments(&mut self, call: GuestCallId) -> Flow {
        match call {
            GuestCallId::MemInfo => self.succeed(MEMORY_INFO_RESULTS),
            GuestCallId::MmioGuardInfo => self.succeed([FRAME_SIZE, 0, 0, 0]),
            _ => {
                self.lock_vm().guard = true;
                self.succeed([0; 4])
            }
        }
    }

    /// SMCCC_ARCH_FEATURES (DEN0028, 7.3).
    fn arch_features(&mut self, function: u32) -> Flow {
        match GuestCallId::try_from(function) {
            Ok(
                GuestCallId::SmcccVersion
                | GuestCallId::SmcccArchFeatures
                | GuestCallId::SmcccWorkaround1
                | GuestCallId::SmcccWorkaround3,
            ) => self.succeed([0; 4]),
            // The mitigation that it would turn on and off is always on.
            Ok(GuestCallId::SmcccWorkaround2) => self.succeed([NOT_REQUIRED.cast_unsigned(), 0, 0, 0]),
            _ => self.unsupported(),
        }
    }

    /// The VM's own launch digest.
    fn own_digest(&mut self, half: u64) -> Flow {
        let words = match &self.lock_vm().life {
            Life::Launched { digest, .. } => digest_half(digest, half),
            Life::Created | Life::Dying => None,
        };
        match words {
            Some([low, high]) => self.succeed([0, low, high, 0]),
            None => {
                self.refuse_call();
                ControlFlow::Continue(())
            }
        }
    }

    /// Whether guests are given entropy.
    pub(super) fn has_entropy(&self) -> bool {
        self.hw().features().contains(Features::ENTROPY)
    }

    /// x0 to x3. The others are the guest's own (DEN0028, 1.1: x4 to x17 are preserved).
    #[inline]
    pub(super) fn set_results(&mut self, results: [u64; 4]) {
        let [x0, x1, x2, x3, ..] = &mut self.vcpu.context.x;
        [*x0, *x1, *x2, *x3] = results;
    }

    /// The call is done.
    pub(super) fn succeed(&mut self, results: [u64; 4]) -> Flow {
        self.set_results(results);
        ControlFlow::Continue(())
    }

    /// The call has an error as its answer.
    pub(super) fn fail(&mut self, error: i64) -> Flow {
        debug_assert!(error != SUCCESS);
        self.hw().count(Counter::GuestCallsRefused, 1);
        self.set_results([error.cast_unsigned(), 0, 0, 0]);
        ControlFlow::Continue(())
    }

    /// There is no such call.
    pub(super) fn unsupported(&mut self) -> Flow {
        self.fail(NOT_SUPPORTED)
    }

    /// The call is refused.
    pub(super) fn refuse_call(&mut self) {
        let _ = self.fail(INVALID_PARAMETER);
    }
}
