//! What an attack must have met, or it proves nothing: every call accepted and refused, every kind of attack, every reason.

use super::{Count, Report};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::{HostCallId, Status, VmCallId};

/// The reasons to refuse that an attack need not meet.
const RARE: [Status; 8] = [
    // Another CPU at that moment, or many pins.
    Status::Busy,
    Status::VcpuRunning,
    Status::CountOverflow,
    // Memory of the firmware's, a secure world, broken memory, 255 VMs, streaming SVE mode.
    Status::Reserved,
    Status::SharedWithSecure,
    Status::Poisoned,
    Status::NoVmSlot,
    Status::StreamingMode,
];

/// The reasons to refuse that an attack must meet.
pub(super) fn statuses() -> impl Iterator<Item = Status> {
    Status::all().filter(|status| *status != Status::Success && !RARE.contains(status))
}

/// Which sides of something must have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sides {
    /// It works, always.
    Accepted,
    /// It is refused, always.
    Refused,
    /// Both happen.
    Both,
    /// Either happens.
    Any,
}

/// The kinds of attack other than hypercalls.
pub(super) const KINDS: [(&str, Sides); 33] = [
    ("access.own", Sides::Accepted),
    ("access.donated", Sides::Refused),
    ("access.hyp", Sides::Refused),
    ("access.contested", Sides::Both),
    ("access.edge", Sides::Refused),
    ("access.fetch", Sides::Both),
    ("access.unassigned", Sides::Any),
    ("stage1.alias", Sides::Both),
    ("stage1.walk", Sides::Refused),
    ("stage1.mmu-off", Sides::Both),
    ("device.fw-cfg", Sides::Refused),
    ("device.fw-cfg-dma", Sides::Refused),
    ("device.its", Sides::Refused),
    ("device.lpi", Sides::Any),
    ("smc.any", Sides::Any),
    ("smc.psci", Sides::Both),
    ("smc.cpu-on", Sides::Refused),
    ("smc.cpu-cycle", Sides::Accepted),
    ("call.el0", Sides::Refused),
    ("call.immediate", Sides::Refused),
    ("register.read", Sides::Both),
    ("register.write", Sides::Both),
    ("register.el2-el3", Sides::Refused),
    ("guest.private", Sides::Refused),
    ("guest.lent", Sides::Any),
    ("guest.run-page", Sides::Accepted),
    ("guest.registers", Sides::Accepted),
    ("guest.birth", Sides::Any),
    ("guest.death", Sides::Accepted),
    ("guest.order", Sides::Both),
    ("guest.interrupt", Sides::Accepted),
    ("maintenance.cache", Sides::Both),
    ("maintenance.tlb-at", Sides::Any),
];

/// Which sides of each hypercall must have been seen, by the name that the payload gives it.
pub(super) fn calls() -> impl Iterator<Item = (String, Sides)> {
    let of_the_host = HostCallId::all().map(|id| {
        let sides = match id {
            // They have no arguments.
            HostCallId::Version | HostCallId::GuestSupport => Sides::Accepted,
            _ => Sides::Both,
        };
        (format!("{id:?}"), sides)
    });
    // `Audit` is a call of either kind.
    let about_vms = VmCallId::all().map(|id| (format!("Vm{id:?}"), Sides::Both));
    of_the_host
        .chain(about_vms)
        .chain([("Unknown".to_owned(), Sides::Refused)])
}

/// The calls of guests that must have been accepted.
pub(super) fn guest_calls(has_entropy: bool) -> impl Iterator<Item = GuestCallId> {
    GuestCallId::ALL.into_iter().filter(move |id| match id {
        // They do not exist on every CPU.
        GuestCallId::SmcccWorkaround1 | GuestCallId::SmcccWorkaround2 | GuestCallId::SmcccWorkaround3 => {
            false
        }
        GuestCallId::TrngVersion
        | GuestCallId::TrngFeatures
        | GuestCallId::TrngGetUuid
        | GuestCallId::TrngRnd32
        | GuestCallId::TrngRnd64 => has_entropy,
        _ => true,
    })
}

/// Reasons for which vCPUs must have left. The others need luck.
pub(super) const EXITS: [ExitReason; 14] = [
    ExitReason::Interrupt,
    ExitReason::Wait,
    ExitReason::MemoryFault,
    ExitReason::MmioRead,
    ExitReason::MmioWrite,
    ExitReason::MemoryNeeded,
    ExitReason::Pinned,
    ExitReason::HostService,
    ExitReason::SendInterrupt,
    ExitReason::CpuOn,
    ExitReason::CpuOff,
    ExitReason::SystemOff,
    ExitReason::SystemReset,
    ExitReason::Relinquished,
];

impl Sides {
    /// Whether a side was seen that there must not be.
    const fn contradict(self, Count { accepted, refused }: Count) -> bool {
        match self {
            Self::Accepted => refused > 0,
            Self::Refused => accepted > 0,
            Self::Both | Self::Any => false,
        }
    }

    /// Whether a side was not seen that there must be.
    const fn lack(self, Count { accepted, refused }: Count) -> bool {
        match self {
            Self::Accepted => accepted == 0,
            Self::Refused => refused == 0,
            Self::Both => accepted == 0 || refused == 0,
            Self::Any => accepted + refused == 0,
        }
    }
}

impl Report {
    /// Adds what went wrong, and what is missing: calls that were never accepted or never refused, refusals that were never
    /// met.
    pub(in super::super) fn judge(&mut self, smp: u32, calls: u64) {
        self.judge_counts(smp);
        let issued: u64 = self
            .calls
            .values()
            .map(|count| count.accepted + count.refused)
            .sum();
        if issued < calls {
            self.failures
                .push(format!("{issued} calls were issued, of {calls}"));
        }
        if self.audit.0 == 0 || self.audit.1 != 0 {
            self.failures.push(format!(
                "the audit saw {} frames, and {} disagree",
                self.audit.0, self.audit.1
            ));
        }
        // There is no entropy without the instruction for it, and no call either. The calls themselves do not tell: a guest
        // does not always do what it was told to, and its answers are then taken for those to other calls.
        if self.entropy.is_none() {
            self.failures
                .push("nobody said whether there is entropy".to_owned());
        }
        let mut missing = self.unseen();
        self.miss_of_guests(&mut missing);
        if self.pool.0 == 0 || self.pool.1 == 0 {
            missing.push("nothing went to EL2's pool and came back".to_owned());
        }
        self.missing.append(&mut missing);
    }

    fn judge_counts(&mut self, smp: u32) {
        let calls = calls().map(|(name, sides)| {
            let count = self.calls.get(&name).copied().unwrap_or_default();
            (name, sides, count)
        });
        // One CPU alone cannot go off, and has nobody to quarrel with.
        let is_alone = |name| smp == 1 && matches!(name, "smc.cpu-cycle" | "access.contested");
        let kinds = KINDS.into_iter().filter(|(name, _)| !is_alone(*name));
        let kinds = kinds.map(|(name, sides)| {
            let count = self.attacks.get(name).copied().unwrap_or_default();
            (name.to_owned(), sides, count)
        });
        let (mut failures, mut missing) = (Vec::new(), Vec::new());
        for (name, sides, count) in calls.chain(kinds) {
            let Count { accepted, refused } = count;
            let what = format!("{name} was accepted {accepted} and refused {refused} times");
            if sides.contradict(count) {
                failures.push(what);
            } else if sides.lack(count) {
                missing.push(what);
            }
        }
        self.failures.append(&mut failures);
        self.missing.append(&mut missing);
    }

    /// The refusals that were never met.
    fn unseen(&self) -> Vec<String> {
        let is_unseen = |status: &Status| {
            let times = self.refusals.get(&format!("{status:?}"));
            times.is_none_or(|times| *times == 0)
        };
        let unseen = statuses().filter(is_unseen);
        unseen
            .map(|status| format!("{status:?} was never answered"))
            .collect()
    }

    fn miss_of_guests(&self, missing: &mut Vec<String>) {
        for id in guest_calls(self.entropy.unwrap_or_default()) {
            let name = format!("{id:?}");
            if self
                .guest_calls
                .get(&name)
                .is_none_or(|count| count.accepted == 0)
            {
                missing.push(format!("no guest's {name} was ever accepted"));
            }
        }
        for reason in EXITS {
            let name = format!("{reason:?}");
            if self.exits.get(&name).is_none_or(|times| *times == 0) {
                missing.push(format!("no vCPU ever left for {name}"));
            }
        }
        let (frames, zeroes) = self.returned;
        if zeroes == 0 || frames <= zeroes {
            missing.push(format!(
                "{frames} frames came back from VMs, {zeroes} of them zeroed"
            ));
        }
        if self.guest_audit == 0 {
            missing.push("no live VM was compared with the map in the end".to_owned());
        }
        if self.secrets.is_empty() {
            missing.push("no guest kept a secret to the end".to_owned());
        }
        // The search must find what is there, or it finds nothing else either.
        for found in &self.secrets {
            if found.in_guest == 0 || found.in_hyp == 0 {
                missing.push(format!(
                    "the secret of guest {:#x} is in {} words of its own memory and {} of EL2's",
                    found.seed, found.in_guest, found.in_hyp
                ));
            }
        }
    }
}
