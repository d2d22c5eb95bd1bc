//! The launch of a VM, and the digest of what it was launched with.
//!
//! The digest is the SHA-256 of these numbers, each as eight little-endian bytes, and of one more digest:
//!
//! | what | bytes |
//! |---|---|
//! | `"Freehold launch\0"` | 16 |
//! | the VM's flags, its most vCPUs, the bits of its IPAs | 8 each |
//! | where vCPU 0 begins, its x0 | 8 each |
//! | how many ranges of memory; of each, in ascending order, its first gfn and its frames | 8, 16 each |
//! | the SHA-256 of the donated frames: of each, in the order of their donation, its gfn and the SHA-256 of its contents | 32 |

use super::state::{Life, Vm};
use super::vcpu::{Power, Start, VcpuSlot};
use crate::addr::FRAME_SHIFT;
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use core::mem;
use hyp_abi::Status;
use hyp_abi::vm::VmFlags;
use sha2::{Digest, Sha256};

/// What every launch digest begins with, so that no other digest is one.
const TAG: &[u8; 16] = b"Freehold launch\0";

/// Half of a digest.
const HALF: usize = 16;

impl<H: Hardware> Vm<H> {
    /// Ends the digest: of what was donated, and of what it will be launched with.
    fn launch_digest(&mut self, start: Start) -> [u8; 32] {
        let config = self.config;
        let mut flags = VmFlags::empty();
        flags.set(VmFlags::PROTECTED, config.protected);
        flags.set(VmFlags::GUARD_REQUIRED, config.guard_required);
        let frames = mem::take(&mut self.digest).finalize();
        let mut sha = Sha256::new();
        sha.update(TAG);
        for number in [
            flags.bits(),
            u64::from(config.max_vcpus),
            u64::from(config.ipa_bits),
            start.entry,
            start.argument,
            self.ranges.len() as u64,
        ] {
            sha.update(number.to_le_bytes());
        }
        for range in &self.ranges {
            sha.update((range.start().value() >> FRAME_SHIFT).to_le_bytes());
            sha.update(range.pages().to_le_bytes());
        }
        sha.update(frames);
        sha.finalize().into()
    }
}

/// Half `half` of a digest in two registers, the first byte lowest; `None` if it has no such half.
#[must_use]
pub fn digest_half(digest: &[u8; 32], half: u64) -> Option<[u64; 2]> {
    let half = usize::try_from(half).ok().filter(|half| *half < 2)?;
    let (bytes, _) = digest.get(half * HALF..)?.split_first_chunk::<HALF>()?;
    let both = u128::from_le_bytes(*bytes);
    Some([both as u64, (both >> 64) as u64])
}

impl<H: Hardware> Ownership<'_, H> {
    /// Launches a VM; see [`hyp_abi::VmCall::Launch`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmState`], [`Status::NoSuchVcpu`], [`Status::InvalidParameter`],
    /// [`Status::GfnOutOfRange`]; [`Status::Busy`] while another call gives it memory, which could not be digested any
    /// more.
    #[inline(never)]
    pub fn launch_vm(&self, vm: u64, entry: u64, argument: u64) -> Result<(), Status> {
        let mut vm = self.vms().lock(self.hardware(), vm)?;
        if vm.life != Life::Created {
            return Err(Status::WrongVmState);
        }
        let start = Start { entry, argument };
        if !matches!(vm.vcpus.first(), Some(VcpuSlot::Resting { .. })) {
            return Err(Status::NoSuchVcpu);
        }
        if !entry.is_multiple_of(4) {
            return Err(Status::InvalidParameter);
        }
        if entry >> vm.config.ipa_bits != 0 {
            return Err(Status::GfnOutOfRange);
        }
        if vm.counts.in_transit != 0 {
            return Err(Status::Busy);
        }
        if let Some(VcpuSlot::Resting { home, power }) = vm.vcpus.first_mut() {
            home.start = Some(start);
            *power = Power::Pending;
        }
        vm.life = Life::Launched {
            digest: vm.launch_digest(start),
            off: false,
        };
        Ok(())
    }

    /// Half of a VM's launch digest; see [`hyp_abi::VmCall::Digest`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmState`], [`Status::InvalidParameter`].
    pub fn vm_digest(&self, vm: u64, half: u64) -> Result<[u64; 2], Status> {
        let vm = self.vms().lock(self.hardware(), vm)?;
        match &vm.life {
            Life::Launched { digest, .. } => digest_half(digest, half).ok_or(Status::InvalidParameter),
            Life::Created | Life::Dying => Err(Status::WrongVmState),
        }
    }
}
