//! What was tried, how often, and what came of it.

use crate::console::println;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::run_page::ExitReason;
use hyp_abi::{CallId, HostCallId, Status, VmCallId};

/// How often something was let through and how often it was refused.
#[derive(Debug)]
struct Count {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Count {
    const fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn add(&self, accepted: bool) {
        let side = if accepted { &self.accepted } else { &self.refused };
        side.fetch_add(1, Ordering::Relaxed);
    }

    fn both(&self) -> (u64, u64) {
        (
            self.accepted.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

/// A kind of attack other than a hypercall. The name is what the console shows.
macro_rules! kinds {
    ($($kind:ident = $name:literal,)*) => {
        /// A kind of attack other than a hypercall.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $(
            #[doc = $name]
            $kind,
        )* }

        impl Kind {
            const NAMES: &[&str] = &[$($name,)*];
        }
    };
}

kinds! {
    OwnMemory = "access.own",
    DonatedMemory = "access.donated",
    HypMemory = "access.hyp",
    ContestedMemory = "access.contested",
    AcrossEdge = "access.edge",
    Fetch = "access.fetch",
    Nothing = "access.unassigned",
    Alias = "stage1.alias",
    Walk = "stage1.walk",
    MmuOff = "stage1.mmu-off",
    FwCfg = "device.fw-cfg",
    FwCfgDma = "device.fw-cfg-dma",
    Its = "device.its",
    Lpi = "device.lpi",
    Smc = "smc.any",
    Psci = "smc.psci",
    CpuOn = "smc.cpu-on",
    CpuCycle = "smc.cpu-cycle",
    El0Call = "call.el0",
    Immediate = "call.immediate",
    ReadRegister = "register.read",
    WriteRegister = "register.write",
    Above = "register.el2-el3",
    PrivateMemory = "guest.private",
    LentMemory = "guest.lent",
    Scribble = "guest.run-page",
    Watch = "guest.registers",
    Birth = "guest.birth",
    Death = "guest.death",
    Order = "guest.order",
    Interrupt = "guest.interrupt",
    Maintenance = "maintenance.cache",
    Translation = "maintenance.tlb-at",
}

const STATUSES: usize = 64;

/// The host's calls, then those about VMs, then what is none.
const CALLS_COUNT: usize = HostCallId::COUNT + VmCallId::COUNT + 1;
static CALLS: [Count; CALLS_COUNT] = [const { Count::new() }; CALLS_COUNT];
static REFUSALS: [AtomicU64; STATUSES] = [const { AtomicU64::new(0) }; STATUSES];
static KINDS: [Count; Kind::NAMES.len()] = [const { Count::new() }; Kind::NAMES.len()];
static EXITS: [AtomicU64; ExitReason::Unhandled as usize + 1] =
    [const { AtomicU64::new(0) }; ExitReason::Unhandled as usize + 1];
static CAME_BACK: (AtomicU64, AtomicU64) = (AtomicU64::new(0), AtomicU64::new(0));

/// The calls of a guest, and what is none.
static GUEST_CALLS: [Count; GuestCallId::ALL.len() + 1] =
    [const { Count::new() }; GuestCallId::ALL.len() + 1];

static FAILURES: AtomicU64 = AtomicU64::new(0);

/// After so many failures the others are only counted.
const SHOWN: u64 = 20;

/// A hypercall (`None`: a number that is none) was answered.
pub(super) fn call(id: Option<CallId>, status: Status) {
    let index = match id {
        Some(CallId::Host(id)) => u32::from(id) as usize,
        Some(CallId::Vm(id)) => HostCallId::COUNT + u32::from(id) as usize,
        None => CALLS_COUNT - 1,
    };
    CALLS[index].add(status == Status::Success);
    if status != Status::Success {
        REFUSALS[refusal_index(status)].fetch_add(1, Ordering::Relaxed);
    }
}

/// An attack of another kind was answered.
pub(super) fn attack(kind: Kind, accepted: bool) {
    KINDS[kind as usize].add(accepted);
}

/// A vCPU left.
pub(super) fn exit(reason: ExitReason) {
    EXITS[reason as usize].fetch_add(1, Ordering::Relaxed);
}

/// A guest's call was answered.
pub(super) fn guest_call(function: u32, accepted: bool) {
    let index = GuestCallId::ALL
        .iter()
        .position(|id| u32::from(*id) == function)
        .unwrap_or(GuestCallId::ALL.len());
    GUEST_CALLS[index].add(accepted);
}

/// So many frames of a VM that is gone are the host's again; so many were the guest's own, and are zero.
pub(super) fn came_back(frames: u64, zeroes: u64) {
    CAME_BACK.0.fetch_add(frames, Ordering::Relaxed);
    CAME_BACK.1.fetch_add(zeroes, Ordering::Relaxed);
}

/// Says that Freehold did what it must not.
pub(super) fn fail(text: core::fmt::Arguments<'_>) {
    if FAILURES.fetch_add(1, Ordering::Relaxed) < SHOWN {
        println!("A fail {text}");
    }
}

/// How often it did.
pub(super) fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}

/// Prints everything, a line each.
pub(super) fn print() {
    for (index, count) in CALLS.iter().enumerate() {
        let (accepted, refused) = count.both();
        let about_vms = index
            .checked_sub(HostCallId::COUNT)
            .and_then(|index| VmCallId::try_from(index as u32).ok());
        match (HostCallId::try_from(index as u32), about_vms) {
            (Ok(id), _) => println!("A call {id:?} {accepted} {refused}"),
            // `Audit` is a call of either kind.
            (_, Some(id)) => println!("A call Vm{id:?} {accepted} {refused}"),
            _ => println!("A call Unknown {accepted} {refused}"),
        }
    }
    for (index, count) in REFUSALS.iter().enumerate() {
        let status = Status::try_from(-(index as i64)).ok();
        if let Some(status) = status.filter(|status| *status != Status::Success) {
            println!("A status {status:?} {}", count.load(Ordering::Relaxed));
        }
    }
    for (name, count) in Kind::NAMES.iter().zip(&KINDS) {
        let (accepted, refused) = count.both();
        println!("A attack {name} {accepted} {refused}");
    }
    for (id, count) in GuestCallId::ALL.iter().zip(&GUEST_CALLS) {
        let (accepted, refused) = count.both();
        println!("A guest-call {id:?} {accepted} {refused}");
    }
    let (accepted, refused) = GUEST_CALLS[GuestCallId::ALL.len()].both();
    println!("A guest-call Other {accepted} {refused}");
    for (index, count) in EXITS.iter().enumerate() {
        if let Ok(reason) = ExitReason::try_from(index as u64) {
            println!("A exit {reason:?} {}", count.load(Ordering::Relaxed));
        }
    }
    println!(
        "A deaths {} {}",
        CAME_BACK.0.load(Ordering::Relaxed),
        CAME_BACK.1.load(Ordering::Relaxed)
    );
}

/// Statuses are small negative numbers.
fn refusal_index(status: Status) -> usize {
    let number = i64::from(status).unsigned_abs() as usize;
    assert!(number < STATUSES, "make room for {status:?}");
    number
}
