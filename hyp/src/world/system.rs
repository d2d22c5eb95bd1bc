//! The system registers of EL1 and EL0 that host and guest both use.
//!
//! SCTLR_EL1 and TCR_EL1 are apart: where a CPU walks on speculation while the VMID in force is another's
//! ([`crate::vttbr`]), they come last and in that order, once stage 2 is the new one.

#![expect(unsafe_code, reason = "reads and writes system registers by number")]

use crate::barrier::isb;
use crate::cpu;
use hyp_core::machine::CpuFeatures;
use hyp_core::vm::context::{GicInterface, SystemRegisters, Timer};
use hyp_core::vm::timer::INTERRUPT;

/// Reads a system register.
macro_rules! read_register {
    ($register:expr) => {{
        let value: u64;
        // SAFETY: reads a register that this CPU has, as the caller has seen to; that changes nothing.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register.
macro_rules! write_register {
    ($register:expr, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a register of EL1, EL0 or the virtual interface, which this CPU has, as the caller has seen to. None
        // of them changes how EL2 itself runs.
        unsafe {
            core::arch::asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nomem, nostack, preserves_flags))
        };
    }};
}

pub(crate) use {read_register, write_register};

/// Defines saving and loading of those registers that need nothing but that.
macro_rules! plain_registers {
    ($($field:ident)*) => {
        #[inline(always)]
        fn save_plain(into: &mut SystemRegisters) {
            $(into.$field = read_register!(stringify!($field));)*
        }

        #[inline(always)]
        fn load_plain(from: &SystemRegisters) {
            $(write_register!(stringify!($field), from.$field);)*
        }
    };
}

// All of [`SystemRegisters`] but SCTLR_EL1 and TCR_EL1 (apart), MDSCR_EL1 (the host's alone), DISR_EL1 (below), and
// VMPIDR_EL2 (a guest cannot change it).
plain_registers! {
    sp_el0 sp_el1 elr_el1 spsr_el1 cpacr_el1 ttbr0_el1 ttbr1_el1 esr_el1 afsr0_el1 afsr1_el1 far_el1 mair_el1
    amair_el1 vbar_el1 contextidr_el1 tpidr_el0 tpidrro_el0 tpidr_el1 par_el1 cntkctl_el1 csselr_el1
}

/// The keys of pointer authentication.
type Keys = [u64; 10];

macro_rules! keys {
    ($($index:literal $register:literal)*) => {
        /// Saves the keys that are in the CPU. It has some.
        fn save_keys(keys: &mut Keys) {
            $(keys[$index] = read_register!($register);)*
        }

        /// Puts keys into the CPU. It has some.
        fn load_keys(keys: &Keys) {
            $(write_register!($register, keys[$index]);)*
        }
    };
}

keys! {
    0 "S3_0_C2_C1_0" 1 "S3_0_C2_C1_1"
    2 "S3_0_C2_C1_2" 3 "S3_0_C2_C1_3"
    4 "S3_0_C2_C2_0" 5 "S3_0_C2_C2_1"
    6 "S3_0_C2_C2_2" 7 "S3_0_C2_C2_3"
    8 "S3_0_C2_C3_0" 9 "S3_0_C2_C3_1"
}

/// What the host has in these registers.
#[derive(Debug, Default)]
pub(super) struct HostSystem {
    registers: SystemRegisters,
    keys: Keys,
    /// TPIDR2_EL0, where there is SME. Not every CPU with SME can trap it.
    tpidr2: u64,
}

impl HostSystem {
    /// Saves the host's registers, and those of them that a guest does not get are zero from now on.
    #[inline]
    pub(super) fn save(&mut self, features: &CpuFeatures) {
        cpu::with_par_fenced(|| save_plain(&mut self.registers));
        self.registers.sctlr_el1 = read_register!("sctlr_el1");
        self.registers.tcr_el1 = read_register!("tcr_el1");
        self.registers.vmpidr_el2 = read_register!("vmpidr_el2");
        // No breakpoint, watchpoint or step of the host's strikes in a guest.
        self.registers.mdscr_el1 = read_register!("mdscr_el1");
        write_register!("mdscr_el1", 0);
        if features.pointer_authentication {
            save_keys(&mut self.keys);
        }
        if features.sme {
            self.tpidr2 = read_register!("S3_3_C13_C0_5");
            write_register!("S3_3_C13_C0_5", 0);
        }
    }

    /// Loads the host's registers.
    #[inline]
    pub(super) fn load(&self, features: &CpuFeatures, stopped: bool) {
        write_register!("vmpidr_el2", self.registers.vmpidr_el2);
        load_plain(&self.registers);
        write_register!("mdscr_el1", self.registers.mdscr_el1);
        if features.pointer_authentication {
            load_keys(&self.keys);
        }
        if features.sme {
            write_register!("S3_3_C13_C0_5", self.tpidr2);
        }
        load_translation(&self.registers, stopped);
    }
}

/// Loads a guest's registers, but for SCTLR_EL1 and TCR_EL1.
#[inline]
pub(super) fn load(registers: &SystemRegisters, keys: &Keys, features: &CpuFeatures) {
    load_plain(registers);
    write_register!("vmpidr_el2", registers.vmpidr_el2);
    if features.pointer_authentication {
        load_keys(keys);
    }
    if features.ras {
        // With HCR_EL2.AMO set, the guest's DISR_EL1 is VDISR_EL2.
        write_register!("S3_4_C12_C1_1", registers.disr_el1);
    }
}

/// Saves a guest's registers.
#[inline]
pub(super) fn save(registers: &mut SystemRegisters, keys: &mut Keys, features: &CpuFeatures) {
    cpu::with_par_fenced(|| save_plain(registers));
    registers.sctlr_el1 = read_register!("sctlr_el1");
    registers.tcr_el1 = read_register!("tcr_el1");
    if features.pointer_authentication {
        save_keys(keys);
    }
    if features.ras {
        registers.disr_el1 = read_register!("S3_4_C12_C1_1");
    }
}

/// Loads SCTLR_EL1 and TCR_EL1. The stage 2 that goes with them is in force. `stopped`: walks were turned off, and
/// TCR_EL1 is what lets them begin again.
#[inline]
pub(super) fn load_translation(registers: &SystemRegisters, stopped: bool) {
    if stopped {
        isb();
    }
    write_register!("sctlr_el1", registers.sctlr_el1);
    if stopped {
        isb();
    }
    write_register!("tcr_el1", registers.tcr_el1);
}

/// Lets the guest's virtual timer run, with its counter behind the physical one.
#[inline]
pub(super) fn load_timer(timer: &mut Timer) {
    write_register!("cntv_cval_el0", timer.compare);
    // Read before the offset is written, which would take an ISB to show in it.
    let now = read_register!("cntvct_el0").wrapping_sub(timer.offset);
    write_register!("cntvoff_el2", timer.offset);
    write_register!("cntv_ctl_el0", timer.load(now));
}

/// Stops the guest's virtual timer and saves it; virtual time is physical time again. `gic` is saved already.
#[inline]
pub(super) fn put_timer(timer: &mut Timer, gic: &GicInterface) {
    let control = read_register!("cntv_ctl_el0");
    let compare = read_register!("cntv_cval_el0");
    write_register!("cntv_ctl_el0", 0);
    write_register!("cntvoff_el2", 0);
    timer.put(control, compare, gic.is_active(INTERRUPT));
}
