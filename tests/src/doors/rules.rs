//! What may be where in the image's code, whether it is ever executed or not.

use super::code::{Code, Place};
use freehold_runner::plugin::{Kind, Operation};
use std::collections::BTreeSet;

/// The functions of assembly in which a CPU begins.
const ENTRIES: [&str; 2] = ["entry_primary", "entry_secondary"];

/// The functions of assembly that use the vector registers: those that save and load them, and the one that computes with
/// them while they are saved.
const USES_VECTORS: [&str; 6] = [
    "digest_blocks",
    "simd_save",
    "simd_load",
    "simd_vector_bytes",
    "simd_sve_save",
    "simd_sve_load",
];

/// Instructions of a kind, and the only places for them: files of the image's source, or symbols of its assembly.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What the rule is called.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The instructions of that kind that are meant; all if there are none.
    pub names: &'static [&'static str],
    /// The places. None: there must be no such instruction at all.
    pub places: &'static [&'static str],
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "tlbi_is_at_its_door",
        kind: Kind::Tlbi,
        names: &[],
        places: &["hyp/src/tlb.rs", ENTRIES[0], ENTRIES[1], "switch_tables"],
    },
    Rule {
        name: "vttbr_is_written_at_its_door",
        kind: Kind::Msr,
        names: &["vttbr_el2"],
        places: &["hyp/src/vttbr.rs"],
    },
    Rule {
        name: "el2_changes_its_table_at_boot_only",
        kind: Kind::Msr,
        names: &["ttbr0_el2"],
        places: &[ENTRIES[0], ENTRIES[1], "switch_tables"],
    },
    Rule {
        name: "el2_changes_its_mmu_at_boot_only",
        kind: Kind::Msr,
        names: &["sctlr_el2"],
        places: &[ENTRIES[0], ENTRIES[1], "switch_tables"],
    },
    Rule {
        name: "the_way_of_translation_is_set_at_entry_only",
        kind: Kind::Msr,
        names: &["tcr_el2", "mair_el2"],
        places: &ENTRIES,
    },
    Rule {
        name: "traps_are_set_in_one_place",
        kind: Kind::Msr,
        names: &["hcr_el2"],
        places: &["hyp/src/registers.rs", ENTRIES[0], ENTRIES[1]],
    },
    Rule {
        name: "the_size_of_stage_2_is_set_in_one_place",
        kind: Kind::Msr,
        names: &["vtcr_el2"],
        places: &["hyp/src/registers.rs"],
    },
    Rule {
        name: "vectors_are_installed_in_one_place",
        kind: Kind::Msr,
        names: &["vbar_el2"],
        places: &["hyp/src/vectors.rs"],
    },
    Rule {
        name: "data_caches_are_maintained_at_their_door",
        kind: Kind::Dc,
        names: &[],
        places: &[
            "cache_clean",
            "cache_clean_invalidate",
            "cache_zero",
            "entry_discard_lines",
        ],
    },
    Rule {
        name: "instruction_caches_are_invalidated_at_their_door",
        kind: Kind::Ic,
        names: &[],
        places: &["hyp/src/tlb.rs", ENTRIES[0], ENTRIES[1]],
    },
    Rule {
        name: "host_and_guests_are_entered_by_the_vectors",
        kind: Kind::Eret,
        names: &[],
        places: &[
            "vectors_host_sync",
            "vectors_hyp",
            "vectors_boot_common",
            "vectors_enter_host",
            "vectors_enter_guest",
        ],
    },
    Rule {
        name: "the_firmware_is_called_where_it_is_known",
        kind: Kind::Smc,
        names: &[],
        places: &[
            "hyp/src/smc.rs",
            "hyp/src/hardening.rs",
            "hyp/src/panic.rs",
            "hyp/src/refuse.rs",
            "vectors_firmware_1",
            "vectors_firmware_3",
            "vectors_guest_firmware_1",
            "vectors_guest_firmware_3",
        ],
    },
    Rule {
        name: "addresses_are_translated_in_one_place",
        kind: Kind::At,
        names: &[],
        places: &["hyp/src/cpu.rs"],
    },
    Rule {
        // Where the machine has no EL2, that is how the power is turned off.
        name: "nobody_calls_el2_but_who_finds_itself_below",
        kind: Kind::Hvc,
        names: &[],
        places: &["hyp/src/refuse.rs"],
    },
    Rule {
        name: "el2_makes_no_supervisor_calls",
        kind: Kind::Svc,
        names: &[],
        places: &[],
    },
];

impl Rule {
    /// Checks the image. A place in which there is no such instruction is an error too: the rule would be about
    /// something else.
    ///
    /// # Errors
    /// What is where it must not be, or not where it should.
    pub fn check(&self, code: &Code) -> Result<(), String> {
        let mut found = BTreeSet::new();
        let mut wrong = Vec::new();
        for (pc, word) in code.instructions() {
            let Some(operation) = Operation::decode(word).filter(|operation| self.means(operation)) else {
                continue;
            };
            let place = code.own_place(pc);
            match self.places.iter().find(|allowed| **allowed == place.file) {
                Some(allowed) => _ = found.insert(*allowed),
                None => wrong.push(format!(
                    "{:?} {} at {pc:#x}: {place}",
                    operation.kind, operation.name
                )),
            }
        }
        for place in self.places {
            if !found.contains(place) {
                wrong.push(format!("{place} has none"));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }

    fn means(&self, operation: &Operation) -> bool {
        operation.kind == self.kind
            && (self.names.is_empty() || self.names.contains(&operation.name.as_ref()))
    }
}

/// Checks that no instruction uses a vector or floating-point register, but in the places for it: EL2 would lose the
/// host's.
///
/// # Errors
/// Those that do.
pub fn no_vectors(code: &Code) -> Result<(), String> {
    listed(code, |pc, word| {
        freehold_runner::plugin::uses_vectors(word)
            && !USES_VECTORS.contains(&code.own_place(pc).file.as_str())
    })
}

/// Checks that nothing is executed on speculation past an exception return: SB follows it, or DSB and ISB.
///
/// # Errors
/// The returns after which it could.
pub fn returns_are_guarded(code: &Code) -> Result<(), String> {
    // SSBB and PSSBB, which have a name, are no such barrier.
    let at = |pc: u64| {
        let operation = code.word(pc).and_then(Operation::decode)?;
        (operation.kind != Kind::Sb || operation.name.is_empty()).then_some(operation.kind)
    };
    listed(code, |pc, word| {
        let is_return = Operation::decode(word).is_some_and(|operation| operation.kind == Kind::Eret);
        let next = [at(pc + 4), at(pc + 8)];
        let guarded = matches!(next, [Some(Kind::Sb), _] | [Some(Kind::Dsb), Some(Kind::Isb)]);
        is_return && !guarded
    })
}

fn listed(code: &Code, is_wrong: impl Fn(u64, u32) -> bool) -> Result<(), String> {
    let wrong: Vec<String> = code
        .instructions()
        .filter(|(pc, word)| is_wrong(*pc, *word))
        .map(|(pc, word)| {
            let place: Place = code.own_place(pc);
            format!("{word:#010x} at {pc:#x}: {place}")
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}
