//! What the host kernel may ask about VMs, and how it sits in registers: the second half of [`crate::HostCall`].
//!
//! The conventions are those of [`crate::host_call`]. Every call but [`VmCall::Create`], [`VmCall::ForceReclaim`],
//! [`VmCall::PinShared`], [`VmCall::UnpinShared`] and [`VmCall::TakeBack`] names a VM in x1, and answers
//! [`Status::NoSuchVm`](crate::Status::NoSuchVm) if there is none of that handle. Ranged calls answer in x1 how many
//! frames they finished, and are resumed.
//!
//! The life of a VM: created → launched → dying → gone. Before its launch what is donated keeps its contents, and is
//! counted into the launch digest; afterwards a frame is zeroed before the guest first sees it.

use crate::FrameRange;
use num_enum::{IntoPrimitive, TryFromPrimitive};

/// Function identifier of the first call about VMs.
pub const VM_CALL_BASE: u32 = 0xC600_4620;

/// The number of a call, relative to [`VM_CALL_BASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoPrimitive, TryFromPrimitive)]
#[repr(u32)]
#[expect(missing_docs, reason = "each is documented as a variant of VmCall")]
pub enum VmCallId {
    Create = 0,
    AddMemory = 1,
    CreateVcpu = 2,
    Launch = 3,
    Digest = 4,
    Run = 5,
    Destroy = 6,
    TopUp = 7,
    Rename = 8,
    Donate = 9,
    Share = 10,
    Unshare = 11,
    Reclaim = 12,
    ForceReclaim = 13,
    SetPermissions = 14,
    TestAge = 15,
    PinShared = 16,
    UnpinShared = 17,
    TakeBack = 18,
    Statistics = 19,
    Audit = 20,
    ReadRegister = 21,
    WriteRegister = 22,
}

impl VmCallId {
    /// How many calls there are.
    pub const COUNT: usize = 23;

    /// All calls, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u32).filter_map(|number| Self::try_from(number).ok())
    }

    /// The call that x0 names, if it names one.
    #[must_use]
    #[inline]
    pub fn from_register(function: u64) -> Option<Self> {
        let number = function.wrapping_sub(u64::from(VM_CALL_BASE));
        u32::try_from(number)
            .ok()
            .and_then(|number| Self::try_from(number).ok())
    }

    /// The function identifier that x0 holds.
    #[must_use]
    pub const fn function_id(self) -> u32 {
        VM_CALL_BASE + self as u32
    }
}

/// Frames of a guest, by their guest frame numbers, as a caller names them: an allegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// The first guest frame number: its IPA divided by 4096.
    pub gfn: u64,
    /// How many 4 KiB frames.
    pub frames: u64,
}

impl GuestRange {
    /// `frames` frames from guest frame number `gfn` on.
    #[must_use]
    pub const fn new(gfn: u64, frames: u64) -> Self {
        Self { gfn, frames }
    }

    /// What is left after the first `done` frames, or `None` if nothing is.
    #[must_use]
    pub const fn after(self, done: u64) -> Option<Self> {
        if done >= self.frames {
            return None;
        }
        let Some(gfn) = self.gfn.checked_add(done) else {
            return None;
        };
        Some(Self {
            gfn,
            frames: self.frames - done,
        })
    }
}

/// A call of the host about VMs, with its arguments. `vm` is a [`crate::vm::VmHandle`] as its register has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmCall {
    /// Creates a VM. Arguments: [`crate::vm::VmFlags`], the most vCPUs that it may have (1 to 64), the bits of its
    /// IPAs ([`crate::vm::IPA_BITS`], and no more than the CPU has). Its state and the root of its table are pages
    /// of EL2's pool. Result: its handle.
    ///
    /// Errors: `InvalidParameter`; `NoVmSlot`; `NoMemory`.
    Create {
        /// What kind.
        flags: u64,
        /// The most vCPUs.
        vcpus: u64,
        /// Bits of an IPA.
        ipa_bits: u64,
    },
    /// Declares a range of the VM's memory, before its launch: an access inside is never one to a device, and is
    /// digested. Ranges do not overlap.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`; `InvalidParameter` if it overlaps one, or there are eight already;
    /// `WrongVmState`.
    AddMemory {
        /// The VM.
        vm: u64,
        /// The range.
        range: GuestRange,
    },
    /// Creates a vCPU, before the launch. Its state is a page of EL2's pool. Arguments: its index (below the number
    /// that the VM may have), the physical address of its run page ([`crate::run_page`]), which the host shares with
    /// EL2 and which stays pinned until the VM is gone.
    ///
    /// Errors: `NoSuchVcpu` for the index; `VcpuExists`; `WrongVmState`; those of a frame; `NotShared`;
    /// `CountOverflow`; and, if nothing else is wrong, `NoMemory`.
    CreateVcpu {
        /// The VM.
        vm: u64,
        /// The index.
        index: u64,
        /// Physical address of the run page.
        run_page: u64,
    },
    /// Launches the VM: vCPU 0 will begin at `entry` with `argument` in x0, at EL1 with its MMU off, and the digest
    /// is final. It is the SHA-256 of `"Freehold launch\0"`, then of these numbers, each in eight little-endian bytes: the
    /// flags, the most vCPUs, the bits of an IPA, `entry`, `argument`, the number of declared ranges and, of each in
    /// ascending order, the first guest frame number and the frames; and then of the SHA-256 of the donated frames:
    /// of each, in the order of donation, the guest frame number in eight bytes and the SHA-256 of its contents.
    ///
    /// Errors: `WrongVmState`; `NoSuchVcpu` if it has no vCPU 0; `InvalidParameter` for an entry that is not a
    /// multiple of 4; `GfnOutOfRange` for one that is no IPA of the VM; `Busy` while a call donates.
    Launch {
        /// The VM.
        vm: u64,
        /// The first instruction of vCPU 0.
        entry: u64,
        /// Its x0.
        argument: u64,
    },
    /// Asks for a half of the launch digest (SHA-256). Results: its bytes 16 `half` to 16 `half` + 15, in two
    /// registers, the first byte lowest.
    ///
    /// A VM that turned itself off has its digest still; one that is dying has none.
    ///
    /// Errors: `WrongVmState` before the launch, and once it is dying; `InvalidParameter` if `half` is neither 0 nor 1.
    Digest {
        /// The VM.
        vm: u64,
        /// Which half.
        half: u64,
    },
    /// Runs a vCPU on this CPU until it exits. Results: the [`crate::run_page::ExitReason`] and the first two
    /// of its values, as the run page has them.
    ///
    /// Errors: `WrongVmState`; `NoSuchVcpu`; `VcpuRunning` if it runs elsewhere; `VcpuOff`; `StreamingMode` if the
    /// host is in streaming SVE mode; `InvalidParameter` for an entry record that has no meaning; `Poisoned` if the run
    /// page answers with an external abort. Where that is met as the exit is written, the exit is kept: the next run
    /// enters nothing and tells it, and until then a vCPU that turned itself off counts as on.
    Run {
        /// The VM.
        vm: u64,
        /// The index of the vCPU.
        index: u64,
    },
    /// Ends the VM. The first call makes it dying: no vCPU runs any more. Until no frame is the VM's or borrowed by
    /// it, it answers `FramesLeft`; then the VM is gone, its pages are back in the pool, and its slot can be used
    /// again. A VM with many pages of EL2's is taken apart in steps: where an interrupt waits for the host between two of
    /// them, it answers `Busy`, and the next call goes on.
    ///
    /// Errors: `VcpuRunning`; `FramesLeft`, with their number as the first result; `Busy`, with the number of EL2's pages
    /// that the VM still has.
    Destroy {
        /// The VM.
        vm: u64,
    },
    /// Moves pages from EL2's pool to the VM's reserve, from which its tables are made, and what has to be split on
    /// the guest's behalf. Result: how many the reserve now holds. Where an interrupt waits, or another CPU took the last
    /// pages, it ends early, but never before it has moved [`crate::vm::TOP_UP_STEP`] of them.
    ///
    /// Errors: `EmptyRange`; `NoMemory`, and none was moved.
    TopUp {
        /// The VM.
        vm: u64,
        /// How many.
        pages: u64,
    },
    /// Gives the VM a new handle, under which it goes on as it is; the old one names nothing any more. Result: the
    /// new handle.
    ///
    /// Errors: `VcpuRunning`; `WrongVmState` if it is dying.
    Rename {
        /// The VM.
        vm: u64,
    },
    /// Donates frames to a protected VM: they are the guest's, and the host can no longer touch them. Ranged.
    /// Before the launch they keep their contents and are digested; afterwards they come zeroed. Arguments: the
    /// frames, and the guest frame number of the first.
    ///
    /// Errors: those of a range; `GfnOutOfRange` unless all of the range lies in the VM, before any of it is done;
    /// `WrongVmKind`; `WrongVmState` if the VM is dying; the ownership refusals; `GfnMapped`, also where the guest lets the
    /// host emulate a device; `GfnLost`; `NoMemory`; `VmNeedsMemory`.
    Donate {
        /// The VM.
        vm: u64,
        /// The frames.
        range: FrameRange,
        /// Where the first one goes.
        gfn: u64,
    },
    /// Shares frames of the host with a VM that is not protected. Ranged. A frame can be shared with several VMs, and
    /// several times with one. Arguments: as for `Donate`, and [`crate::vm::Permissions`].
    ///
    /// Errors: as for `Donate`; `InvalidParameter` for permissions without `READ`; `CountOverflow`.
    Share {
        /// The VM.
        vm: u64,
        /// The frames.
        range: FrameRange,
        /// Where the first one goes.
        gfn: u64,
        /// What the guest may do.
        permissions: u64,
    },
    /// Ends the sharing of frames with a VM that is not protected, by their guest frame numbers. Ranged.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`; `WrongVmKind`; `GfnNotMapped`; `NoMemory`; `VmNeedsMemory`.
    Unshare {
        /// The VM.
        vm: u64,
        /// The frames.
        range: GuestRange,
    },
    /// Takes frames back from a dying VM, by their guest frame numbers: private ones come zeroed, those that the
    /// guest shared keep their contents. Ranged. Guest frame numbers without a frame count as done.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`; `WrongVmKind`; `WrongVmState` unless it is dying; `Pinned`; `Busy`;
    /// `Poisoned`; `NoMemory`; `VmNeedsMemory`.
    Reclaim {
        /// The VM.
        vm: u64,
        /// The frames.
        range: GuestRange,
    },
    /// Takes one private frame from a guest that lives, zeroed. The guest's page is lost: a later access is an error
    /// to it, and nothing can be put in its place. Argument: physical address of the frame.
    ///
    /// Errors: those of a frame; `NotOwner` unless it is a private frame of a guest, so of a poisoned one, too, which
    /// is nobody's; `Poisoned` if it turns out to be broken; `Busy`; `NoMemory`; `VmNeedsMemory`.
    ForceReclaim {
        /// Physical address of the frame.
        frame: u64,
    },
    /// Changes what a VM that is not protected may do with the frames that it borrows at these guest frame numbers;
    /// those where it has none are passed over. Ranged.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`; `WrongVmKind`; `InvalidParameter` for permissions without `READ`;
    /// `VmNeedsMemory`.
    SetPermissions {
        /// The VM.
        vm: u64,
        /// The frames.
        range: GuestRange,
        /// What the guest may do.
        permissions: u64,
    },
    /// Asks which of the frames that a VM borrows were used since the last look, and begins anew. Ranged. Result 2:
    /// how many frames are mapped by a descriptor that was used.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`; `WrongVmKind`.
    TestAge {
        /// The VM.
        vm: u64,
        /// The frames.
        range: GuestRange,
    },
    /// Pins frames that a guest shares with the host, for I/O: until they are unpinned the guest cannot take them
    /// back. Ranged.
    ///
    /// Errors: those of a range; `NotShared` unless a guest shares it; `CountOverflow`; `NoMemory`.
    PinShared(FrameRange),
    /// Takes one pin off each frame. Ranged.
    ///
    /// Errors: those of a range; `NotPinned`; `NoMemory`.
    UnpinShared(FrameRange),
    /// Takes frames that a guest gave up. They are zero. Ranged.
    ///
    /// Errors: those of a range; `NotRelinquished`; `Poisoned` for one that was broken as the guest gave it up, which
    /// nobody gets; `NoMemory`.
    TakeBack(FrameRange),
    /// Asks for a figure of the VM. Argument: the number of the [`crate::vm::VmStatistic`]. Result: its value.
    ///
    /// Errors: `InvalidParameter`.
    Statistics {
        /// The VM.
        vm: u64,
        /// Which.
        statistic: u64,
    },
    /// Compares the VM's table with the ownership map. Ranged. Result 1: how many guest frame numbers were looked at;
    /// result 2: how many of them disagree, which is never anything but 0.
    ///
    /// Errors: `EmptyRange`; `GfnOutOfRange`.
    Audit {
        /// The VM.
        vm: u64,
        /// The guest frame numbers.
        range: GuestRange,
    },
    /// Asks for a register of a vCPU of a VM that is not protected, which is launched and has not turned itself off. A
    /// vCPU that was turned on and has not run since reads as it will begin, and so does one that never was on. Argument:
    /// the [`crate::VcpuRegister`]. Result: its value.
    ///
    /// Errors: `WrongVmKind`; `WrongVmState`; `NoSuchVcpu`; `VcpuRunning` if a CPU has the vCPU; `InvalidParameter` for a
    /// register that there is not.
    ReadRegister {
        /// The VM.
        vm: u64,
        /// The index of the vCPU.
        index: u64,
        /// Which register.
        register: u64,
    },
    /// Sets a register of a vCPU of a VM that is not protected, which is launched and has not turned itself off. The guest
    /// finds it as it was written. A vCPU that was turned on and has not run since has begun by that: what is written
    /// comes over what it begins with. What the vCPU's last exit waits for is still answered by the next entry; an answer
    /// that moves the vCPU on does so from what was written.
    ///
    /// Errors: those of `ReadRegister`; `VcpuRunning` also if the register is the VM's and any of its vCPUs runs;
    /// `InvalidParameter` also for a value that the register does not take ([`crate::vcpu_register`]).
    WriteRegister {
        /// The VM.
        vm: u64,
        /// The index of the vCPU.
        index: u64,
        /// Which register.
        register: u64,
        /// What it is to be.
        value: u64,
    },
}

impl VmCall {
    /// The call `id` with the arguments that x1 to x6 hold. They are not judged here.
    #[must_use]
    #[inline]
    pub const fn decode(id: VmCallId, arguments: [u64; 6]) -> Self {
        let [vm, a2, a3, a4, a5, _] = arguments;
        let frames = FrameRange::new(a2, a3);
        let guest = GuestRange::new(a2, a3);
        let range = FrameRange::new(vm, a2);
        match id {
            VmCallId::Create => Self::Create {
                flags: vm,
                vcpus: a2,
                ipa_bits: a3,
            },
            VmCallId::AddMemory => Self::AddMemory { vm, range: guest },
            VmCallId::CreateVcpu => Self::CreateVcpu {
                vm,
                index: a2,
                run_page: a3,
            },
            VmCallId::Launch => Self::Launch {
                vm,
                entry: a2,
                argument: a3,
            },
            VmCallId::Digest => Self::Digest { vm, half: a2 },
            VmCallId::Run => Self::Run { vm, index: a2 },
            VmCallId::Destroy => Self::Destroy { vm },
            VmCallId::TopUp => Self::TopUp { vm, pages: a2 },
            VmCallId::Rename => Self::Rename { vm },
            VmCallId::Donate => Self::Donate {
                vm,
                range: frames,
                gfn: a4,
            },
            VmCallId::Share => Self::Share {
                vm,
                range: frames,
                gfn: a4,
                permissions: a5,
            },
            VmCallId::Unshare => Self::Unshare { vm, range: guest },
            VmCallId::Reclaim => Self::Reclaim { vm, range: guest },
            VmCallId::ForceReclaim => Self::ForceReclaim { frame: vm },
            VmCallId::SetPermissions => Self::SetPermissions {
                vm,
                range: guest,
                permissions: a4,
            },
            VmCallId::TestAge => Self::TestAge { vm, range: guest },
            VmCallId::PinShared => Self::PinShared(range),
            VmCallId::UnpinShared => Self::UnpinShared(range),
            VmCallId::TakeBack => Self::TakeBack(range),
            VmCallId::Statistics => Self::Statistics { vm, statistic: a2 },
            VmCallId::Audit => Self::Audit { vm, range: guest },
            VmCallId::ReadRegister => Self::ReadRegister {
                vm,
                index: a2,
                register: a3,
            },
            VmCallId::WriteRegister => Self::WriteRegister {
                vm,
                index: a2,
                register: a3,
                value: a4,
            },
        }
    }

    /// The registers x0 to x6 that hold the call.
    #[must_use]
    pub fn encode(self) -> [u64; 7] {
        let [a1, a2, a3, a4, a5] = match self {
            Self::Create {
                flags,
                vcpus,
                ipa_bits,
            } => [flags, vcpus, ipa_bits, 0, 0],
            Self::AddMemory { vm, range }
            | Self::Unshare { vm, range }
            | Self::Reclaim { vm, range }
            | Self::TestAge { vm, range }
            | Self::Audit { vm, range } => [vm, range.gfn, range.frames, 0, 0],
            Self::CreateVcpu { vm, index, run_page } => [vm, index, run_page, 0, 0],
            Self::Launch { vm, entry, argument } => [vm, entry, argument, 0, 0],
            Self::Digest { vm, half } => [vm, half, 0, 0, 0],
            Self::Run { vm, index } => [vm, index, 0, 0, 0],
            Self::Destroy { vm } | Self::Rename { vm } => [vm, 0, 0, 0, 0],
            Self::TopUp { vm, pages } => [vm, pages, 0, 0, 0],
            Self::Donate { vm, range, gfn } => [vm, range.base, range.frames, gfn, 0],
            Self::Share {
                vm,
                range,
                gfn,
                permissions,
            } => [vm, range.base, range.frames, gfn, permissions],
            Self::ForceReclaim { frame } => [frame, 0, 0, 0, 0],
            Self::SetPermissions {
                vm,
                range,
                permissions,
            } => [vm, range.gfn, range.frames, permissions, 0],
            Self::PinShared(range) | Self::UnpinShared(range) | Self::TakeBack(range) => {
                [range.base, range.frames, 0, 0, 0]
            }
            Self::Statistics { vm, statistic } => [vm, statistic, 0, 0, 0],
            Self::ReadRegister { vm, index, register } => [vm, index, register, 0, 0],
            Self::WriteRegister {
                vm,
                index,
                register,
                value,
            } => [vm, index, register, value, 0],
        };
        [u64::from(self.id().function_id()), a1, a2, a3, a4, a5, 0]
    }

    /// Which call this is.
    #[must_use]
    pub const fn id(self) -> VmCallId {
        match self {
            Self::Create { .. } => VmCallId::Create,
            Self::AddMemory { .. } => VmCallId::AddMemory,
            Self::CreateVcpu { .. } => VmCallId::CreateVcpu,
            Self::Launch { .. } => VmCallId::Launch,
            Self::Digest { .. } => VmCallId::Digest,
            Self::Run { .. } => VmCallId::Run,
            Self::Destroy { .. } => VmCallId::Destroy,
            Self::TopUp { .. } => VmCallId::TopUp,
            Self::Rename { .. } => VmCallId::Rename,
            Self::Donate { .. } => VmCallId::Donate,
            Self::Share { .. } => VmCallId::Share,
            Self::Unshare { .. } => VmCallId::Unshare,
            Self::Reclaim { .. } => VmCallId::Reclaim,
            Self::ForceReclaim { .. } => VmCallId::ForceReclaim,
            Self::SetPermissions { .. } => VmCallId::SetPermissions,
            Self::TestAge { .. } => VmCallId::TestAge,
            Self::PinShared(_) => VmCallId::PinShared,
            Self::UnpinShared(_) => VmCallId::UnpinShared,
            Self::TakeBack(_) => VmCallId::TakeBack,
            Self::Statistics { .. } => VmCallId::Statistics,
            Self::Audit { .. } => VmCallId::Audit,
            Self::ReadRegister { .. } => VmCallId::ReadRegister,
            Self::WriteRegister { .. } => VmCallId::WriteRegister,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostCall;

    #[test]
    fn every_call_survives_its_registers() {
        for (number, id) in VmCallId::all().enumerate() {
            assert_eq!(u32::from(id) as usize, number);
            let call = VmCall::decode(id, [0x101, 0x4000_0000, 7, 0x80000, 3, 0]);
            assert_eq!(call.id(), id);
            assert_eq!(HostCall::decode(call.encode()), Ok(HostCall::Vm(call)), "{id:?}");
        }
        assert_eq!(VmCallId::all().count(), VmCallId::COUNT);
    }

    #[test]
    fn no_argument_is_lost() {
        for id in VmCallId::all() {
            let base = VmCall::decode(id, [0; 6]);
            let registers = base.encode();
            let used = (1..6)
                .filter(|argument| {
                    let mut arguments = [0; 6];
                    arguments[argument - 1] = 0x55;
                    let call = VmCall::decode(id, arguments);
                    assert_eq!(call == base, call.encode() == registers, "{id:?}");
                    call != base
                })
                .count();
            assert!(used > 0, "{id:?}");
        }
    }
}
