//! How each CPU comes in, and what holds at any time, between the acts and before them.

use super::code::Code;
use super::trace::{Token, Told};
use freehold_runner::plugin::{Kind, Operation};

/// What becomes of the instructions of the entry, in order. DC and TLBI that repeat are told once.
const MMU_ON: [&str; 7] = [
    "msr ttbr0_el2",
    "tlbi alle2",
    "ic iallu",
    "dsb nsh",
    "isb",
    "msr sctlr_el2",
    "isb",
];

/// The last steps before the host: its table, nothing left of any other, and only then its stage 2 in force.
const HOST_ON: [&str; 10] = [
    "msr vtcr_el2",
    "msr vttbr_el2",
    "isb",
    "tlbi alle2",
    "tlbi alle1",
    "ic iallu",
    "dsb nsh",
    "isb",
    "msr hcr_el2",
    "isb",
];

/// Checks how the first CPU comes from reset to the host.
///
/// # Errors
/// What is not as it must be.
pub fn first_cpu(told: &[Told]) -> Result<(), String> {
    let mut expected = vec!["msr hcr_el2", "isb", "msr sctlr_el2", "isb"];
    // The boot's tables were written with the caches off.
    expected.extend(["dsb sy", "dc ivac", "dsb sy", "msr mair_el2", "msr tcr_el2"]);
    expected.extend(MMU_ON);
    // To the final tables and back on, with nothing of the old ones left.
    expected.extend([
        "dsb ish",
        "msr sctlr_el2",
        "isb",
        "msr ttbr0_el2",
        "tlbi alle2",
        "dsb nsh",
        "isb",
    ]);
    expected.extend(["msr sctlr_el2", "isb"]);
    expected.extend(HOST_ON);
    come_in(told, &expected)
}

/// Checks how another CPU comes in.
///
/// # Errors
/// What is not as it must be.
pub fn other_cpu(told: &[Told]) -> Result<(), String> {
    let mut expected = vec![
        "msr hcr_el2",
        "isb",
        "msr sctlr_el2",
        "isb",
        "msr mair_el2",
        "msr tcr_el2",
    ];
    expected.extend(MMU_ON);
    expected.extend(HOST_ON);
    come_in(told, &expected)
}

/// All that concerns translation and caches, up to the first ERET, against what it must be. Between the groups of
/// `expected` other barriers may stand, but nothing else.
fn come_in(told: &[Told], expected: &[&str]) -> Result<(), String> {
    let mut left = expected.iter().copied().peekable();
    let mut seen = Vec::new();
    for step in told {
        let Token::Operation(operation) = &step.token else {
            continue;
        };
        if operation.kind == Kind::Eret {
            return match left.peek() {
                None => Ok(()),
                Some(missing) => Err(format!("{missing} is missing; seen: {}", seen.join(", "))),
            };
        }
        let text = format!("{:?} {}", operation.kind, operation.name).to_lowercase();
        let text = text.trim_end();
        if left.peek() == Some(&text) {
            left.next();
            seen.push(text.to_owned());
        } else if is_ruling(operation) {
            let wanted = left.peek().copied().unwrap_or("nothing more");
            return Err(format!(
                "{text} at {:#x}, where {wanted} was expected; seen: {}",
                step.pc,
                seen.join(", ")
            ));
        }
    }
    Err("the CPU never came to the host".to_owned())
}

/// Whether an operation must not be there unless it is expected.
fn is_ruling(operation: &Operation) -> bool {
    match operation.kind {
        Kind::Tlbi => operation.name.ends_with('1') || operation.name.ends_with('2'),
        Kind::Ic => true,
        Kind::Msr => matches!(
            operation.name.as_ref(),
            "ttbr0_el2" | "sctlr_el2" | "tcr_el2" | "mair_el2" | "vtcr_el2" | "vttbr_el2" | "hcr_el2"
        ),
        _ => false,
    }
}

/// Checks, over all that a CPU did, that every invalidation of translations comes after the stores that it is about, and
/// that every one, of instructions too, is complete before another table entry is stored, a lock is given back, or host or
/// guest go on.
///
/// # Errors
/// The first that is not.
pub fn invalidations_are_complete(told: &[Told]) -> Result<(), String> {
    let mut unseen = None;
    let mut pending: Option<&Told> = None;
    let mut unsynchronized = None;
    for step in told {
        let late = |what: &str, since: &Told| {
            Err(format!(
                "{} at {:#x}: {what} {:#x}",
                step.token, step.pc, since.pc
            ))
        };
        match &step.token {
            Token::Descriptor(_) | Token::Window(_) | Token::Region(_) => {
                if let Some(tlbi) = pending {
                    return late("nobody waited for the invalidation at", tlbi);
                }
                if !matches!(step.token, Token::Region(_)) {
                    unseen = Some(step);
                }
            }
            Token::Operation(operation) => match operation.kind {
                Kind::Tlbi => {
                    if let Some(store) = unseen {
                        return late("no barrier since the store at", store);
                    }
                    pending = Some(wider(pending, step));
                }
                Kind::Ic => pending = Some(wider(pending, step)),
                Kind::Dsb => {
                    unseen = None;
                    if let Some(tlbi) = pending.filter(|tlbi| completes(&operation.name, tlbi)) {
                        unsynchronized = Some(tlbi);
                        pending = None;
                    }
                }
                Kind::Isb => unsynchronized = None,
                Kind::Eret => {
                    if let Some(tlbi) = pending.or(unsynchronized) {
                        return late("no DSB and ISB since the invalidation at", tlbi);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

/// Whether a DSB of this domain waits for the invalidation on all CPUs that it is for.
fn completes(domain: &str, invalidation: &Told) -> bool {
    matches!(domain, "ish" | "osh" | "sy") || domain == "nsh" && !is_broadcast(invalidation)
}

fn is_broadcast(invalidation: &Told) -> bool {
    matches!(&invalidation.token, Token::Operation(operation) if operation.name.ends_with("is"))
}

/// Of two invalidations that nobody has waited for, the one that a DSB has more to do for.
fn wider<'a>(pending: Option<&'a Told>, new: &'a Told) -> &'a Told {
    pending.filter(|pending| is_broadcast(pending)).unwrap_or(new)
}

/// Checks that a CPU loads the host's table once before it enters the host, and that each write of VTTBR_EL2 is at the
/// door, and synchronized.
///
/// # Errors
/// What it did otherwise.
pub fn vttbr(told: &[Told], code: &Code) -> Result<(), String> {
    let is_write = |step: &Told| step.is_named(Kind::Msr, "vttbr_el2");
    let entry = told
        .iter()
        .position(|step| step.is(Kind::Eret))
        .unwrap_or(told.len());
    let before = told[..entry].iter().filter(|step| is_write(step)).count();
    if before != 1 {
        return Err(format!("{before} writes of VTTBR_EL2 before the host"));
    }
    for (write, next) in told.iter().zip(&told[1..]).filter(|(step, _)| is_write(step)) {
        let place = code.own_place(write.pc);
        if place.file != "hyp/src/vttbr.rs" {
            return Err(format!("written by {place}"));
        }
        if !next.is(Kind::Isb) {
            return Err(format!("no ISB after the write at {:#x}", write.pc));
        }
    }
    Ok(())
}

/// Checks that each time the vector registers are stored CPTR_EL2 as it is then is in force, so that they do not trap at
/// EL2 itself.
///
/// # Errors
/// The first store that may trap.
pub fn vectors_are_open(told: &[Told]) -> Result<(), String> {
    let mut written = None;
    for step in told {
        if step.is_named(Kind::Msr, "cptr_el2") {
            written = Some(step);
        } else if step.is(Kind::Isb) || step.is(Kind::Eret) {
            written = None;
        } else if step.token == Token::Vectors
            && let Some(write) = written
        {
            return Err(format!(
                "{} at {:#x}: no ISB since the write of CPTR_EL2 at {:#x}",
                step.token, step.pc, write.pc
            ));
        }
    }
    Ok(())
}

/// Checks that what each of `cpus` CPUs reads with its caches off, a page of its own, was cleaned to the point of
/// coherency before the firmware was asked to start any.
///
/// # Errors
/// If it was not.
pub fn start_arguments_are_clean(told: &[Told], cpus: usize, cache_line: u64) -> Result<(), String> {
    let before = told
        .iter()
        .position(|step| step.is(Kind::Smc))
        .unwrap_or(told.len());
    let cleaned = told[..before].windows(2).filter(|pair| {
        pair[0].is_named(Kind::Dc, "civac")
            && pair[0].times == 4096 / cache_line
            && pair[1].is_named(Kind::Dsb, "sy")
    });
    match cleaned.count() {
        count if count == cpus => Ok(()),
        count => Err(format!("{count} pages were cleaned for {cpus} CPUs")),
    }
}
