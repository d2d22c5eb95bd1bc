//! What came of an attack: counts, and what went wrong. What has to be among the counts is in [`expected`].

mod expected;

use super::canary::{Found, Place};
use super::secret::{self, Guests};
use anyhow::{Context as _, Result};
use hyp_abi::FRAME_SIZE;
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
    /// Each hypercall by its name, those about VMs with `Vm` before it; `Unknown` for numbers that are none.
    pub calls: BTreeMap<String, Count>,
    /// Whether EL2 has entropy for guests, if it said so.
    pub entropy: Option<bool>,
    /// Each call of a guest by its name; `Other` for functions that EL2 does not answer itself.
    pub guest_calls: BTreeMap<String, Count>,
    /// How often a vCPU left, by the reason's name.
    pub exits: BTreeMap<String, u64>,
    /// How often each reason to refuse was given, by its name.
    pub refusals: BTreeMap<String, u64>,
    /// Each other kind of attack by its name.
    pub attacks: BTreeMap<String, Count>,
    /// Frames that came back from VMs that had ended, and how many of them had been a guest's own and were zero.
    pub returned: (u64, u64),
    /// Guest frame numbers of live VMs that the last audits compared with the map.
    pub guest_audit: u64,
    /// Frames that the audit at the end looked at, and how many disagree.
    pub audit: (u64, u64),
    /// Frames that went to EL2's pool, and that came back.
    pub pool: (u64, u64),
    /// What went wrong. Nothing, if Freehold is as it should be.
    pub failures: Vec<String>,
    /// What was not met, and would have to be: by chance, or because it cannot be any more.
    pub missing: Vec<String>,
    /// EL2's own memory in the end: its reservation, then what its pool keeps.
    hyp: Vec<Range<u64>>,
    guests: Guests,
    canaries: Found,
    secrets: Vec<secret::Found>,
}

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
            ("guest", [seed, base, frames]) => {
                let base = number(base)?;
                let range = base..base + number(frames)? * FRAME_SIZE;
                self.guests.memory.push((number(seed)?, range));
            }
            ("entropy", [there]) => self.entropy = Some(number(there)? != 0),
            ("secret", [seed]) => self.guests.seeds.push(number(seed)?),
            ("guest-audit", [frames]) => self.guest_audit = number(frames)?,
            ("deaths", [frames, zeroes]) => self.returned = (number(frames)?, number(zeroes)?),
            ("guest-call", [name, accepted, refused]) => {
                self.guest_calls
                    .insert((*name).to_owned(), count(accepted, refused)?);
            }
            ("exit", [name, times]) => {
                self.exits.insert((*name).to_owned(), number(times)?);
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

    /// What the payload says of its guests.
    pub(super) fn guests(&self) -> &Guests {
        &self.guests
    }

    /// Adds what became of the guests' secrets.
    pub(super) fn note_secrets(&mut self, found: Vec<secret::Found>) {
        for found in &found {
            for place in &found.leaks {
                self.failures.push(match place {
                    Place::Memory(address) => {
                        format!(
                            "memory at {address:#x}, which is neither EL2's nor its own, holds the secret of guest {:#x}",
                            found.seed
                        )
                    }
                    Place::Register(line) => {
                        format!("a register holds the secret of guest {:#x}: {line}", found.seed)
                    }
                });
            }
            let more = found.leaked - found.leaks.len() as u64;
            if more > 0 {
                self.failures.push(format!(
                    "the secret of guest {:#x} is in {more} more places",
                    found.seed
                ));
            }
        }
        self.secrets = found;
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

    /// Whether Freehold is as it should be, as far as can be said.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.missing.is_empty()
    }

    /// Whether nothing went wrong, and too little was met.
    pub(super) fn is_too_short(&self) -> bool {
        self.failures.is_empty() && !self.missing.is_empty()
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
        section("Guest's call", &self.guest_calls);
        section("Attack", &self.attacks);
        for (title, rows) in [
            ("Reason to refuse", &self.refusals),
            ("Reason to leave a guest", &self.exits),
        ] {
            let _ = writeln!(text, "{title:<24}{:>18}", "times");
            for (name, times) in rows.iter().filter(|(_, times)| **times > 0) {
                let _ = writeln!(text, "  {name:<20}{times:>20}");
            }
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
        let _ = writeln!(
            text,
            "VMs that ended: {} frames came back, {} of them zeroed. Last audits of VMs: {} guest frames.",
            self.returned.0, self.returned.1, self.guest_audit
        );
        for found in &self.secrets {
            let _ = writeln!(
                text,
                "Secret of guest {:#x}: {} words in its own memory, {} in EL2's, {} elsewhere.",
                found.seed, found.in_guest, found.in_hyp, found.leaked
            );
        }
        for failure in self.failures.iter().chain(&self.missing) {
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
