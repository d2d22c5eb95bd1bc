//! What came of an attack: counts, and what went wrong.

use super::canary::{Found, Place};
use anyhow::{Context as _, Result};
use hyp_abi::{FRAME_SIZE, HostCallId, Status};
use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

/// How often something was let through and how often it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Let through.
    pub accepted: u64,
    /// Refused: by a status, an error code or an exception.
    pub refused: u64,
}

/// What came of an attack.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each hypercall by its name; `Unknown` for numbers that are none.
    pub calls: BTreeMap<String, Count>,
    /// How often each reason to refuse was given, by its name.
    pub refusals: BTreeMap<String, u64>,
    /// Each other kind of attack by its name.
    pub attacks: BTreeMap<String, Count>,
    /// Frames that the audit at the end looked at, and how many disagree.
    pub audit: (u64, u64),
    /// Frames that went to EL2's pool, and that came back.
    pub pool: (u64, u64),
    /// What went wrong. Nothing, if Freehold is as it should be.
    pub failures: Vec<String>,
    /// EL2's own memory in the end: its reservation, then what its pool keeps.
    hyp: Vec<Range<u64>>,
    canaries: Found,
}

/// The reasons to refuse that an attack must meet. The others need a guest, a secure world, broken memory, or luck.
const EXPECTED: [Status; 13] = [
    Status::NotSupported,
    Status::InvalidParameter,
    Status::Misaligned,
    Status::EmptyRange,
    Status::RangeOverflow,
    Status::NotMemory,
    Status::NotOwner,
    Status::SharedWithHyp,
    Status::NotShared,
    Status::NotDonated,
    Status::Pinned,
    Status::NoMemory,
    Status::WrongTraceState,
];

/// Which sides of a kind of attack must have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
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
const KINDS: [(&str, Sides); 25] = [
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
    ("maintenance.cache", Sides::Both),
    ("maintenance.tlb-at", Sides::Any),
];

/// Reads what the payload said.
///
/// # Errors
/// The first line that makes no sense.
pub(super) fn read(console: &[String]) -> Result<Report> {
    let mut report = Report::default();
    for line in console {
        if let Some(text) = line.strip_prefix("A ") {
            report
                .line(text)
                .with_context(|| format!("this line makes no sense: `{line}`"))?;
        }
    }
    Ok(report)
}

impl Report {
    /// One line of the payload's. `None` if it makes no sense.
    fn line(&mut self, text: &str) -> Option<()> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        match (kind, words.as_slice()) {
            ("begin", [..]) => {}
            ("reservation", [start, end]) => self.hyp.insert(0, number(start)?..number(end)?),
            ("hyp", [base, frames]) => {
                let base = number(base)?;
                self.hyp.push(base..base + number(frames)? * FRAME_SIZE);
            }
            ("call", [name, accepted, refused]) => {
                self.calls.insert((*name).to_owned(), count(accepted, refused)?);
            }
            ("attack", [name, accepted, refused]) => {
                self.attacks.insert((*name).to_owned(), count(accepted, refused)?);
            }
            ("status", [name, times]) => {
                self.refusals.insert((*name).to_owned(), number(times)?);
            }
            ("audit", [frames, disagreements]) => self.audit = (number(frames)?, number(disagreements)?),
            ("pool", [given, returned]) => self.pool = (number(given)?, number(returned)?),
            ("fail", _) => self.failures.push(rest.to_owned()),
            ("done", [failures]) => {
                let hidden = number(failures)?.checked_sub(self.failures.len() as u64)?;
                if hidden > 0 {
                    self.failures.push(format!("and {hidden} more of the kind"));
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// EL2's own memory.
    pub(super) fn hyp(&self) -> &[Range<u64>] {
        &self.hyp
    }

    /// Adds what became of the canaries.
    pub(super) fn note_canaries(&mut self, found: Found, smp: u32) {
        if let Some(first) = found.changed.first() {
            self.failures.push(format!(
                "{} words of canary pages were changed, the first at {first:#x}",
                found.changed.len()
            ));
        }
        for leak in &found.leaks {
            self.failures.push(match &leak.place {
                Place::Memory(address) => {
                    format!(
                        "the host's memory at {address:#x} holds EL2's secret, {:#x}",
                        leak.value
                    )
                }
                Place::Register(line) => format!("a register holds EL2's secret, {:#x}: {line}", leak.value),
            });
        }
        if found.more_leaks > 0 {
            self.failures
                .push(format!("EL2's secret is in {} more places", found.more_leaks));
        }
        if found.cpus != smp as usize {
            self.failures
                .push(format!("registers of {} CPUs were seen, of {smp}", found.cpus));
        }
        self.canaries = found;
    }

    /// Adds what is missing: calls that were never accepted, refusals that were never met.
    pub(super) fn judge(&mut self, smp: u32, calls: u64) {
        let mut missing = Vec::new();
        for id in HostCallId::all() {
            let name = format!("{id:?}");
            if self.calls.get(&name).is_none_or(|count| count.accepted == 0) {
                missing.push(format!("{name} was never accepted"));
            }
        }
        let issued: u64 = self
            .calls
            .values()
            .map(|count| count.accepted + count.refused)
            .sum();
        if issued < calls {
            missing.push(format!("{issued} calls were issued, of {calls}"));
        }
        for status in EXPECTED {
            if self
                .refusals
                .get(&format!("{status:?}"))
                .is_none_or(|times| *times == 0)
            {
                missing.push(format!("{status:?} was never answered"));
            }
        }
        for (name, sides) in KINDS {
            let Count { accepted, refused } = self.attacks.get(name).copied().unwrap_or_default();
            let right = match sides {
                Sides::Accepted => accepted > 0 && refused == 0,
                Sides::Refused => accepted == 0 && refused > 0,
                Sides::Both => accepted > 0 && refused > 0,
                Sides::Any => accepted + refused > 0,
            };
            // One CPU alone cannot go off, and has nobody to quarrel with.
            let alone = smp == 1 && matches!(name, "smc.cpu-cycle" | "access.contested");
            if !right && !alone {
                missing.push(format!("{name}: {accepted} accepted, {refused} refused"));
            }
        }
        if self.pool.0 == 0 || self.pool.1 == 0 {
            missing.push("nothing went to EL2's pool and came back".to_owned());
        }
        if self.audit.0 == 0 || self.audit.1 != 0 {
            missing.push(format!(
                "the audit saw {} frames, and {} disagree",
                self.audit.0, self.audit.1
            ));
        }
        self.failures.append(&mut missing);
    }

    /// Whether Freehold is as it should be.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Everything, to be read.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut section = |title: &str, rows: &BTreeMap<String, Count>| {
            let _ = writeln!(text, "{title:<22}{:>10}{:>10}", "accepted", "refused");
            for (name, Count { accepted, refused }) in rows {
                let _ = writeln!(text, "  {name:<20}{accepted:>10}{refused:>10}");
            }
        };
        section("Hypercall", &self.calls);
        section("Attack", &self.attacks);
        let _ = writeln!(text, "{:<22}{:>20}", "Reason to refuse", "times");
        for (name, times) in self.refusals.iter().filter(|(_, times)| **times > 0) {
            let _ = writeln!(text, "  {name:<20}{times:>20}");
        }
        let _ = writeln!(
            text,
            "Audit: {} frames, {} disagree. EL2's pool: {} frames given, {} came back.",
            self.audit.0, self.audit.1, self.pool.0, self.pool.1
        );
        let Found {
            pages,
            changed,
            leaks,
            more_leaks,
            at_home,
            searched,
            cpus,
        } = &self.canaries;
        let _ = writeln!(
            text,
            "Canaries: {pages} pages, {} words changed. The secret: {} times in {} MiB of the host's memory and \
             the registers of {cpus} CPUs, {at_home} times in EL2's.",
            changed.len(),
            leaks.len() + more_leaks,
            searched >> 20
        );
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        text
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn count(accepted: &str, refused: &str) -> Option<Count> {
    Some(Count {
        accepted: number(accepted)?,
        refused: number(refused)?,
    })
}

#[cfg(test)]
mod tests;
