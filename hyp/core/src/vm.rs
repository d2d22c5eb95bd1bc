//! VMs and vCPUs: what each of them is, where they live, and who may touch them when.
//!
//! A VM lives in a page of EL2's pool, and so does each vCPU. [`Vms`] is the table of slots; locking a slot gives the
//! VM that lives there. A vCPU belongs to its VM while it rests; to run it, its owner is taken out of the VM and given
//! to the CPU that runs it, so that no two CPUs ever have the same one, and no lock is held while a guest runs.
//!
//! - [`table`]: slots, handles, the lock of a VM.
//! - [`state`]: what a VM is: configuration, life, table, reserve, counts, digest.
//! - [`vcpu`]: a vCPU at rest and in power.
//! - [`context`]: its registers, what a trap says, and the regime in which it runs.
//! - [`interface`]: what the virtual CPU interfaces of the GIC are.
//! - [`timer`]: what of a guest's virtual timer the CPU gets.
//! - [`annotation`]: what the invalid descriptors of a guest's table say.
//! - `create`, [`launch`], `keep`, [`destroy`]: the life of a VM, call by call; [`mod@reset`]: how a vCPU begins.
//! - `register`: the registers of a vCPU, for the host of a VM that is not protected.
//! - `run`: a run of a vCPU, from the `entry` record to the [`exit`] record.
//! - `trap`: what brought EL2 back from a guest: an `abort`, a `guest_call` (of which `psci` and `trng` are kinds), a
//!   `sysreg`.

mod abort;
pub mod annotation;
pub mod context;
mod create;
pub mod destroy;
mod entry;
pub mod exit;
mod guest_call;
pub mod interface;
mod keep;
pub mod launch;
mod psci;
mod register;
pub mod reset;
mod run;
pub mod state;
mod sysreg;
pub mod table;
pub mod timer;
mod trap;
mod trng;
pub mod vcpu;

#[cfg(test)]
mod tests;

pub use annotation::GuestAnnotation;
pub use context::{GuestRegime, Trap, TrapKind, VcpuContext};
pub use create::possible_ipa_bits;
pub use destroy::Ended;
pub use exit::Exit;
pub use state::{Life, MemoryCounts, Vm, VmConfig};
#[cfg(any(test, feature = "doubles"))]
pub use table::SavedVms;
pub use table::{LockedSlot, LockedVm, VmSlot, Vms};
pub use vcpu::{Pending, Power, Start, Vcpu, VcpuSlot};
