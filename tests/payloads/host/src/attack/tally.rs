//! What was tried, how often, and what came of it.

use crate::console::println;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::{HostCallId, Status};

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
    Maintenance = "maintenance.cache",
    Translation = "maintenance.tlb-at",
}

const STATUSES: usize = 64;

static CALLS: [Count; HostCallId::COUNT + 1] = [const { Count::new() }; HostCallId::COUNT + 1];
static REFUSALS: [AtomicU64; STATUSES] = [const { AtomicU64::new(0) }; STATUSES];
static KINDS: [Count; Kind::NAMES.len()] = [const { Count::new() }; Kind::NAMES.len()];
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// After so many failures the others are only counted.
const SHOWN: u64 = 20;

/// A hypercall (`None`: a number that is none) was answered.
pub(super) fn call(id: Option<HostCallId>, status: Status) {
    let index = id.map_or(HostCallId::COUNT, |id| u32::from(id) as usize);
    CALLS[index].add(status == Status::Success);
    if status != Status::Success {
        REFUSALS[refusal_index(status)].fetch_add(1, Ordering::Relaxed);
    }
}

/// An attack of another kind was answered.
pub(super) fn attack(kind: Kind, accepted: bool) {
    KINDS[kind as usize].add(accepted);
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
        match HostCallId::try_from(index as u32) {
            Ok(id) => println!("A call {id:?} {accepted} {refused}"),
            Err(_) => println!("A call Unknown {accepted} {refused}"),
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
}

/// Statuses are small negative numbers.
fn refusal_index(status: Status) -> usize {
    let number = i64::from(status).unsigned_abs() as usize;
    assert!(number < STATUSES, "make room for {status:?}");
    number
}
