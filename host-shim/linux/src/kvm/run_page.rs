//! The page that a vCPU shares with user space: `struct kvm_run`.

use crate::{Errno, Linux};
use host_shim::account::Purpose;
use host_shim::provider::{Contents, Source};
use host_shim::{Block, Pfn};

/// Byte 1 of it: `KVM_RUN` is to return at once.
const IMMEDIATE_EXIT_SHIFT: u32 = 8;
/// The word that begins with `exit_reason`.
const REASON: usize = 1;
/// The first word of what an exit says.
const DATA: usize = 4;

/// What an exit says, by KVM's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserExit {
    /// `KVM_EXIT_MMIO`: a load, or a store and its value.
    Mmio {
        /// Where.
        address: u64,
        /// Bytes: 1, 2, 4 or 8.
        bytes: u64,
        /// What is stored.
        stored: Option<u64>,
    },
    /// `KVM_EXIT_INTR`: a signal.
    Signal,
    /// `KVM_EXIT_INTERNAL_ERROR`, with `KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON`: the guest did what nobody carries out.
    Unexpected {
        /// The class of the exception.
        class: u64,
    },
    /// `KVM_EXIT_SYSTEM_EVENT` of the type `KVM_SYSTEM_EVENT_SHUTDOWN`.
    Shutdown,
    /// The same, `KVM_SYSTEM_EVENT_RESET`.
    Reset,
    /// `KVM_EXIT_MEMORY_FAULT`, of one page.
    MemoryFault {
        /// Where.
        address: u64,
        /// The guest wanted it for itself.
        private: bool,
    },
}

/// `KVM_MEMORY_EXIT_FLAG_PRIVATE`.
const PRIVATE: u64 = 1 << 3;

impl UserExit {
    /// The reason, and the words of the data.
    fn words(self) -> (u64, [u64; 3]) {
        match self {
            Self::Mmio {
                address,
                bytes,
                stored,
            } => {
                let how = bytes | u64::from(stored.is_some()) << 32;
                (6, [address, stored.unwrap_or(0), how])
            }
            Self::Signal => (10, [0; 3]),
            // suberror and ndata.
            Self::Unexpected { class } => (17, [4 | 1 << 32, class, 0]),
            // type and ndata.
            Self::Shutdown => (24, [1, 0, 0]),
            Self::Reset => (24, [2, 0, 0]),
            Self::MemoryFault { address, private } => {
                let flags = if private { PRIVATE } else { 0 };
                (39, [flags, address, hyp_abi::FRAME_SIZE])
            }
        }
    }
}

/// The page. User space reads and writes it at any time.
#[derive(Debug)]
pub struct RunPage<L: Linux> {
    linux: L,
    source: Source,
    frame: Pfn,
}

impl<L: Linux> RunPage<L> {
    /// A page of zeroes.
    ///
    /// # Errors
    /// [`Errno::NOMEM`].
    pub fn new(linux: &L, source: Source) -> Result<Self, Errno> {
        let allocated = source.allocate(Purpose::RunPage, 0, Contents::Zeroed)?;
        let page = Self {
            linux: linux.clone(),
            source,
            frame: allocated.pfn,
        };
        if !allocated.zeroed {
            linux.zero(page.frame, 1)?;
        }
        Ok(page)
    }

    /// The frame.
    pub const fn frame(&self) -> Pfn {
        self.frame
    }

    /// Whether `KVM_RUN` is to return at once.
    pub fn is_exit_wanted(&self) -> bool {
        self.linux.load_word(self.frame, 0) >> IMMEDIATE_EXIT_SHIFT & 0xFF != 0
    }

    /// What user space has put where a load's value belongs.
    pub fn loaded(&self) -> u64 {
        self.linux.load_word(self.frame, DATA + 1)
    }

    /// Says why `KVM_RUN` returns.
    pub fn exit(&self, exit: UserExit) {
        let (reason, data) = exit.words();
        for (index, word) in (DATA..).zip(data) {
            self.linux.store_word(self.frame, index, word);
        }
        self.linux.store_word(self.frame, REASON, reason);
    }
}

impl<L: Linux> Drop for RunPage<L> {
    fn drop(&mut self) {
        self.source.free(Purpose::RunPage, Block::frame(self.frame));
    }
}
