//! Between host and guest: the registers that rule translation, in their order, with the barriers between them.
//!
//! EL2 does not use the translations of EL1 and EL0, so most of their registers may change one after the other and count
//! with the ERET, which synchronizes. What counts before is asked for:
//! - a TLB invalidation is about the VMID that VTTBR_EL2 holds, so an ISB stands between (Arm ARM DDI 0487, D8.16);
//! - on some CPUs a walk for a speculative AT fills the TLB from EL1's registers of one and the VMID of the other (Cortex-A72
//!   erratum 1319367 and its like). There the walks are turned off before stage 2 changes: TCR_EL1, then SCTLR_EL1, which
//!   must not let addresses translate to themselves; and begin again when all else is changed: SCTLR_EL1, then TCR_EL1;
//!   each in force before the next.

use super::{ALL_IS_COMPLETE, Judged, Reader, SYNCHRONOUS};
use crate::doors::trace::{EXCHANGED, Token};
use freehold_runner::plugin::Kind;

/// What barriers there are that complete what concerns this CPU alone.
const COMPLETE_HERE: &[&str] = &["nsh", ALL_IS_COMPLETE[0], ALL_IS_COMPLETE[1], ALL_IS_COMPLETE[2]];

impl Reader<'_> {
    /// A vCPU comes. If this CPU must `forget`, nothing is left of another one of the same VMID.
    pub(super) fn load_guest(&mut self, forget: bool) -> Judged {
        self.stop_walks()?;
        self.write("ttbr0_el1")?;
        self.write("ttbr1_el1")?;
        self.stage_2()?;
        if forget {
            for _ in 0..self.rounds() {
                self.repeated(Kind::Tlbi, "vmalle1", 1)?;
                self.operation(Kind::Dsb, COMPLETE_HERE)?;
            }
            self.operation(Kind::Ic, &["iallu"])?;
            self.operation(Kind::Dsb, COMPLETE_HERE)?;
            self.isb()?;
        }
        self.begin_walks()
    }

    /// The host comes back.
    pub(super) fn put_guest(&mut self) -> Judged {
        self.stop_walks()?;
        self.stage_2()?;
        self.write("ttbr0_el1")?;
        self.write("ttbr1_el1")?;
        self.begin_walks()
    }

    /// The guest is entered, and comes back through `vector`.
    pub(super) fn run_guest(&mut self, vector: u16) -> Judged {
        self.leave()?;
        self.one(&format!("the entry at {vector:#x}"), |token| {
            *token == Token::Vector(vector)
        })?;
        self.guard();
        Ok(())
    }

    /// The guest is entered, comes back because it wants the vector registers, and gets them: they are open to EL2, and
    /// then to the guest.
    pub(super) fn give_vectors(&mut self) -> Judged {
        self.run_guest(SYNCHRONOUS)?;
        self.peek();
        let written = std::mem::take(&mut self.exchanged);
        if written == ["cptr_el2", "cptr_el2"] {
            Ok(())
        } else {
            Err(format!(
                "for the vector registers these were written: {written:?}"
            ))
        }
    }

    /// The end of a visit. What was exchanged on it, was as a whole.
    pub(super) fn leave(&mut self) -> Judged {
        self.operation(Kind::Eret, &[""])?;
        let mut exchanged = std::mem::take(&mut self.exchanged);
        exchanged.sort_unstable();
        if exchanged.is_empty() != self.switched && (exchanged.is_empty() || exchanged == EXCHANGED) {
            self.switched = false;
            Ok(())
        } else {
            Err(format!("of {EXCHANGED:?}, these were written: {exchanged:?}"))
        }
    }

    /// Another VMID is in force than the one that is loaded, for an invalidation.
    pub(super) fn take_vmid(&mut self) -> Judged {
        self.stop_walks()?;
        self.write("vttbr_el2")?;
        self.isb()
    }

    /// The one that is loaded is in force again.
    pub(super) fn return_vmid(&mut self) -> Judged {
        self.write("vttbr_el2")?;
        self.isb()?;
        if self.model.speculates_at {
            self.begin_walks()?;
            self.isb()?;
        }
        Ok(())
    }

    /// The other stage 2, in force: its size and what it traps with it.
    fn stage_2(&mut self) -> Judged {
        self.switched = true;
        self.write("vtcr_el2")?;
        self.write("hcr_el2")?;
        self.write("vttbr_el2")?;
        self.isb()
    }

    fn stop_walks(&mut self) -> Judged {
        if self.model.speculates_at {
            self.write("tcr_el1")?;
            self.isb()?;
            self.write("sctlr_el1")?;
            self.isb()?;
        }
        Ok(())
    }

    fn begin_walks(&mut self) -> Judged {
        self.write("sctlr_el1")?;
        if self.model.speculates_at {
            self.isb()?;
        }
        self.write("tcr_el1")
    }

    /// How often an invalidation is done.
    const fn rounds(&self) -> u64 {
        if self.model.repeats_tlbi { 2 } else { 1 }
    }

    fn write(&mut self, register: &str) -> Judged {
        self.operation(Kind::Msr, &[register])
    }
}
