//! What an exception means, and what is done about it.
//!
//! The image crate takes exceptions, reads the syndrome registers and writes the answer back; everything it has
//! to decide in between is here, as functions of register values. Field positions follow the Arm ARM (DDI 0487);
//! layouts of EL2's control registers are those of `E2H` = 0.
//!
//! - [`syndrome`], [`abort`]: ESR_EL2, FAR_EL2 and HPFAR_EL2, decoded.
//! - [`inject`]: an exception entry into EL1, for an access or an instruction that is refused.
//! - [`access`]: a load or store carried out for the host, and the step past an instruction.
//! - [`redistributor`]: which accesses to a GICv3 redistributor's RD_base frame are let through.
//! - [`id`], [`host_traps`], [`fine_grained`]: what the host is trapped for on this CPU, and for nothing else.
//! - [`sysreg`]: the answers to the host's trapped system register accesses.
//! - [`smc`]: which SMCs of the host reach the firmware.
//! - [`guest_traps`], [`stage2`]: what EL2's control registers hold while a guest runs.
//! - [`guest_id`]: the feature ID registers that a guest sees.
//! - [`guest_sysreg`]: the answers to a guest's trapped system register accesses.
//! - [`pstate`]: what PSTATE the host may give a guest.

pub mod abort;
pub mod access;
pub mod fine_grained;
pub mod guest_id;
pub mod guest_sysreg;
pub mod guest_traps;
pub mod host_traps;
pub mod id;
pub mod inject;
pub mod pstate;
pub mod redistributor;
pub mod smc;
pub mod stage2;
pub mod syndrome;
pub mod sysreg;

pub use abort::{Abort, FaultAddress, FaultKind, FaultStatus};
pub use syndrome::Syndrome;
