//! What a VM is to be.

use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, GuestRange};
use payload_protocol::{Start, layout};

/// What a VM is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Its kind.
    pub(crate) flags: VmFlags,
    /// How many vCPUs it has.
    pub(crate) vcpus: u64,
    /// Bits of its IPAs.
    pub(crate) ipa_bits: u64,
    /// Frames of memory that it declares, from [`layout::MEMORY`] on.
    pub(crate) memory: u64,
    /// Frames that the host sets aside for it.
    pub(crate) backing: u64,
    /// Frames come from, and begin at, a multiple of so many bytes.
    pub(crate) alignment: u64,
    /// What vCPU 0 finds in x0.
    pub(crate) start: Start,
    /// Pages for its reserve.
    pub(crate) reserve: u64,
}

impl Plan {
    /// A protected VM of one vCPU with 16 MiB of memory, of which 64 pages can be backed.
    pub(crate) fn protected() -> Self {
        Self {
            flags: VmFlags::PROTECTED,
            vcpus: 1,
            ipa_bits: 32,
            memory: (16 << 20) / FRAME_SIZE,
            backing: 64,
            alignment: FRAME_SIZE,
            start: Start {
                tag: 0x5eed,
                ..Start::default()
            },
            reserve: 16,
        }
    }

    /// The same, not protected.
    pub(crate) fn open() -> Self {
        Self {
            flags: VmFlags::empty(),
            ..Self::protected()
        }
    }

    /// With so many vCPUs.
    pub(crate) fn vcpus(self, vcpus: u64) -> Self {
        Self {
            vcpus,
            backing: self.backing + 4 * vcpus,
            ..self
        }
    }

    /// With frames in one piece at a multiple of `alignment`, so many.
    pub(crate) fn backing(self, backing: u64, alignment: u64) -> Self {
        Self {
            backing,
            alignment,
            ..self
        }
    }

    /// Whether it is protected.
    pub(crate) fn is_protected(&self) -> bool {
        self.flags.contains(VmFlags::PROTECTED)
    }

    /// The memory that it declares.
    pub(crate) fn declared(&self) -> GuestRange {
        GuestRange::new(layout::MEMORY / FRAME_SIZE, self.memory)
    }
}
