//! Linux 7.2's figures: the ones to be below.
//!
//! Measured with Debian's Linux 7.2.13 (`cloud` flavour) as a pKVM host (`kvm-arm.mode=protected`), one `cortex-a72`,
//! 1 GiB, under the same `-icount`; identical in three boots.

use super::operations::Place;
use serde::Serialize;

/// A figure of Linux 7.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// Where it was counted.
    pub place: Place,
    /// How much it is: instructions, or bytes.
    pub value: u64,
    /// What it is.
    pub source: String,
}

/// What `max` adds to every visit, seen from EL1: pointer-authentication keys are changed at entry and exit.
const ADDED_ON_MAX: u64 = 53;

/// A run of a guest: from the host to the guest, and back (the least of what was counted). Loading and putting a vCPU, two
/// HVCs each, comes on top and is left out.
const ENTRY: u64 = 1_482;
const EXIT: u64 = 1_386;

/// Frames in 2 MiB, 64 MiB and 1 GiB. Linux 7.2 has no ranged calls: a range costs a call for each page.
const PAGES_2M: u64 = 512;
const PAGES_64M: u64 = 1 << 14;
const PAGES_1G: u64 = 1 << 18;

impl Anchor {
    /// Counted from EL1 on `cortex-a72`.
    #[must_use]
    pub fn at_el1(value: u64, source: &str) -> Self {
        Self {
            place: Place::El1,
            value,
            source: source.to_owned(),
        }
    }

    /// Counted at EL2 alone.
    #[must_use]
    pub fn at_el2(value: u64, source: &str) -> Self {
        Self {
            place: Place::El2,
            value,
            source: source.to_owned(),
        }
    }

    /// Whether a figure of ours is below it.
    #[must_use]
    pub const fn is_above(&self, ours: u64) -> bool {
        ours < self.value
    }

    fn on(mut self, cpu: &str) -> Self {
        if cpu == "max" && self.place == Place::El1 {
            self.value += ADDED_ON_MAX;
        }
        self
    }

    fn times(self, pages: u64) -> Self {
        Self {
            value: self.value * pages,
            source: format!("{pages} x {}", self.source),
            ..self
        }
    }
}

/// The figure for a benchmark of the payload on `cpu`, if there is one.
#[must_use]
pub fn anchor(benchmark: &str, cpu: &str) -> Option<Anchor> {
    let share = || Anchor::at_el1(236, "share_hyp").on(cpu);
    let unshare = || Anchor::at_el1(241, "unshare_hyp").on(cpu);
    // Nothing of Linux's gives memory to EL2 and back while the host runs; to a guest and back is what is nearest.
    let donate = || Anchor::at_el2(3_836, "donate_guest, median").on(cpu);
    let give_back = || Anchor::at_el2(4_267, "reclaim_dying_guest_page").on(cpu);
    let lend = || Anchor::at_el2(3_190, "MEM_SHARE");
    let unlend = || Anchor::at_el2(3_175, "MEM_UNSHARE");
    Some(match benchmark {
        "empty_call" => Anchor::at_el1(88, "HVC, invalid id").on(cpu),
        "firmware_call" => Anchor::at_el1(147, "SMC PSCI_VERSION").on(cpu),
        "share_page" => share(),
        "unshare_page" => unshare(),
        "share_refused" => Anchor::at_el1(204, "share_hyp, refused").on(cpu),
        "share_512_pages" | "share_2m" => share().times(PAGES_2M),
        "unshare_512_pages" | "unshare_2m" => unshare().times(PAGES_2M),
        "donate_4k" => donate(),
        "donate_2m" => donate().times(PAGES_2M),
        "donate_1g" => donate().times(PAGES_1G),
        "give_back_4k" => give_back(),
        "give_back_2m" => give_back().times(PAGES_2M),
        "give_back_1g" => give_back().times(PAGES_1G),
        "guest_donate_4k" => donate(),
        "guest_donate_2m" => donate().times(PAGES_2M),
        "guest_donate_64m" => donate().times(PAGES_64M),
        "guest_reclaim_4k" => give_back(),
        "guest_reclaim_2m" => give_back().times(PAGES_2M),
        "guest_reclaim_64m" => give_back().times(PAGES_64M),
        "guest_share_page" | "guest_share_page_of_block" => lend(),
        "guest_unshare_page" | "guest_unshare_page_of_block" => unlend(),
        "guest_share_64m" => lend().times(PAGES_64M),
        "guest_unshare_64m" => unlend().times(PAGES_64M),
        "guest_features" => Anchor::at_el2(184, "FEATURES"),
        "guest_memory_info" => Anchor::at_el2(195, "MEMINFO"),
        "guest_fault_in" => Anchor::at_el2(EXIT + 3_836 + ENTRY, "exit, donate_guest, entry"),
        "guest_answered_by_host" | "guest_run_at_once" => Anchor::at_el2(ENTRY + EXIT, "both halves"),
        "guest_entry" => Anchor::at_el2(ENTRY, "run: host to guest"),
        "guest_exit" => Anchor::at_el2(EXIT, "run: guest to host"),
        "vm_create" => Anchor::at_el2(9_012 + 9_687, "init_vm, init_vcpu"),
        "vm_destroy" => Anchor::at_el2(150 + 37_242, "start and finalize teardown"),
        "refused_load" | "refused_store" | "refused_fetch" => {
            Anchor::at_el2(802, "host stage-2 abort, refused").on(cpu)
        }
        _ => return None,
    })
}

/// EL2's work at boot with 1 GiB.
#[must_use]
pub fn boot() -> Anchor {
    Anchor::at_el2(8_810_000, "EL2 at boot, 1 GiB")
}

/// What is reserved at boot on a machine with so many GiB, if it was measured.
#[must_use]
pub const fn reserved(gib: u64) -> Option<u64> {
    const MIB: u64 = 1 << 20;
    match gib {
        1 => Some(12 * MIB),
        4 => Some(30 * MIB),
        8 => Some(54 * MIB),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_adds_to_what_is_seen_from_el1_only() {
        let value = |benchmark, cpu| anchor(benchmark, cpu).unwrap().value;
        assert_eq!(value("empty_call", "cortex-a72"), 88);
        assert_eq!(value("empty_call", "max"), 141);
        assert_eq!(value("share_2m", "max"), 512 * 289);
        assert_eq!(value("refused_load", "max"), 802);
        assert_eq!(anchor("share_page_of_block", "max"), None);
    }
}
