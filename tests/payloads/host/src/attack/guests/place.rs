//! Where a VM lives until it is killed, and then the next one.

use super::book::Book;
use crate::attack::ground::TooSmall;
use crate::attack::random::Random;
use crate::guest::run_page::RunPage;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hyp_abi::FRAME_SIZE;
use hyp_abi::vm::VmFlags;
use payload_protocol::layout;
use spin::mutex::TicketMutex;

/// The most vCPUs of a VM here.
pub(in crate::attack) const VCPUS: u64 = 4;

/// What kind of VM a place has.
#[derive(Clone, Copy, Debug)]
pub(in crate::attack) struct Nature {
    /// How it is created.
    pub(super) flags: VmFlags,
    /// Whether the guest keeps a secret, and so does nothing that gives it away.
    pub(super) keeps: bool,
}

impl Nature {
    /// Whether a guest of this nature lends no page at `gfn` to the host, whatever it is told.
    pub(super) fn never_lends(&self, gfn: u64) -> bool {
        self.keeps && gfn < layout::FREE / FRAME_SIZE
    }

    /// Whether its memory is donated.
    pub(super) fn is_protected(&self) -> bool {
        self.flags.contains(VmFlags::PROTECTED)
    }
}

/// The places.
pub(in crate::attack) const NATURES: [Nature; 5] = [
    Nature {
        flags: VmFlags::PROTECTED,
        keeps: true,
    },
    Nature {
        flags: VmFlags::PROTECTED,
        keeps: false,
    },
    Nature {
        flags: VmFlags::empty(),
        keeps: false,
    },
    Nature {
        flags: VmFlags::PROTECTED.union(VmFlags::GUARD_REQUIRED),
        keeps: true,
    },
    Nature {
        flags: VmFlags::PROTECTED.union(VmFlags::GUARD_REQUIRED),
        keeps: false,
    },
];

/// A place of a vCPU.
#[derive(Debug)]
pub(in crate::attack) struct Seat {
    /// Its run page, which stays shared with EL2 from VM to VM.
    pub(super) page: RunPage,
    /// The reason of the last exit, and its first value, as far as CPUs agree about what was last.
    pub(super) reason: AtomicU64,
    pub(super) value: AtomicU64,
    /// The function that the guest was last told to call; 0 for another order.
    pub(super) asked: AtomicU64,
    /// Interrupts that others of its vCPUs sent it, a bit each.
    pub(super) wanted: AtomicU64,
}

/// A place.
#[derive(Debug)]
pub(in crate::attack) struct Place {
    /// Its number.
    pub(super) number: u64,
    /// What kind of VM it has.
    pub(super) nature: Nature,
    /// What the secrets of its guests are made from.
    pub(super) seed: u64,
    /// Its vCPUs.
    pub(super) seats: [Seat; VCPUS as usize],
    /// What is sure; held by who gives frames away or brings them back, and who ends the VM or renames it.
    pub(super) book: TicketMutex<Book>,
    /// Whether the VM has come to its end.
    pub(super) is_doomed: AtomicBool,
    /// Whether the VM is being taken apart.
    pub(super) is_dying: AtomicBool,
    /// The handle, and the one before; 0 for none.
    handle: AtomicU64,
    stale: AtomicU64,
    /// CPUs that run a vCPU of it, and how often one was run.
    running: AtomicUsize,
    runs: AtomicU64,
}

impl Place {
    /// A place with nothing in it.
    ///
    /// # Errors
    /// If there are too few frames.
    pub(in crate::attack) fn new(number: u64, nature: Nature) -> Result<Self, TooSmall> {
        let seat = || -> Result<Seat, TooSmall> {
            Ok(Seat {
                page: RunPage::new().map_err(|_| TooSmall)?,
                reason: AtomicU64::new(0),
                value: AtomicU64::new(0),
                asked: AtomicU64::new(0),
                wanted: AtomicU64::new(0),
            })
        };
        Ok(Self {
            number,
            nature,
            // Any number that is not 0 does, as long as it comes again with the place.
            seed: 0x5ec2_e700 + number,
            seats: [seat()?, seat()?, seat()?, seat()?],
            book: TicketMutex::new(Book::new()?),
            is_doomed: AtomicBool::new(false),
            is_dying: AtomicBool::new(false),
            handle: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            runs: AtomicU64::new(0),
        })
    }

    /// The handle of the VM, or 0.
    pub(super) fn handle(&self) -> u64 {
        self.handle.load(Ordering::Acquire)
    }

    /// The handle that it had before this one, or 0.
    pub(super) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    /// The VM has another handle, or there is none any more. For who holds the book.
    pub(super) fn set_handle(&self, handle: u64) {
        let before = self.handle.swap(handle, Ordering::AcqRel);
        if before != 0 {
            self.stale.store(before, Ordering::Relaxed);
        }
    }

    /// Somebody should end the VM.
    pub(super) fn doom(&self) {
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    /// Does what runs a vCPU.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.runs.fetch_add(1, Ordering::SeqCst);
        let result = work();
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// How often a vCPU was run, if none is running.
    pub(super) fn entries(&self) -> Option<u64> {
        (self.running.load(Ordering::SeqCst) == 0).then(|| self.runs.load(Ordering::SeqCst))
    }

    /// Any of the seats.
    pub(super) fn any_seat(&self, random: &mut Random) -> (u64, &Seat) {
        let index = random.below(VCPUS);
        (index, &self.seats[index as usize])
    }
}
