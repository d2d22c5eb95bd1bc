//! The transitions of memory between the host and its guests.
//!
//! Each begins with the lock of one VM, under which its table stands still, and takes the region's lock inside it. What
//! scrubs or reads contents is two commits: the guest frame number is [`GuestAnnotation::Busy`](crate::vm::GuestAnnotation)
//! and the frame in transit meanwhile, no lock is held, and the frames in transit keep the VM from going away.
//!
//! - the host's calls: `donate`, `reclaim`, `force_reclaim` for protected VMs, `share`, `permissions` for the others, and
//!   `pin` for frames that a guest lends to the host or gave up;
//! - a guest's calls: `lend`, `relinquish`, `guard`. Whatever pages these take come from the VM's reserve;
//! - `abort`: what becomes of an access that faulted in a guest's stage 2;
//! - `audit`, `dismantle`: tables and map compared; the end of a table.
//!
//! The pieces that they are made of: `table` (a VM's table and the pages for it), `transit` (the second commit),
//! `contents` (what happens to a frame between the two).

mod abort;
mod age;
mod audit;
#[cfg(any(test, feature = "doubles"))]
mod census;
mod contents;
mod dismantle;
mod donate;
mod force_reclaim;
mod guard;
mod lend;
mod permissions;
mod pin;
mod range;
mod reclaim;
mod relinquish;
mod share;
mod table;
#[cfg(test)]
mod tests;
mod transit;

pub use age::Aged;

/// What came of a guest's call about its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOutcome {
    /// This many of the pages are done, at least one; a call that ends early is resumed with what is left.
    Done(u64),
    /// The first page is not in the state that the call wants. Nothing has changed.
    Refused,
    /// There is no page at this guest frame number of the VM's memory. Nothing has changed.
    Absent(u64),
    /// The host has pinned the page at this guest frame number. Nothing has changed.
    Pinned(u64),
    /// The VM's reserve lacks this many pages. Nothing has changed.
    NeedsPages(u64),
    /// Another CPU is at work on the first page. Nothing has changed; the call is to be tried again.
    Busy,
}

/// How a guest reached for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestAccess {
    /// A load, or a walk of the guest's own tables.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// What becomes of a guest's access that faulted in stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestVerdict {
    /// It is allowed by now: the guest goes back to the same instruction.
    Retry,
    /// A page is on its way there, or from there: the guest goes back, and the vCPU exits if an interrupt waits.
    Busy,
    /// The VM's memory has no page there, or the host has not given the right to do that with it.
    Missing {
        /// The guest frame number.
        gfn: u64,
    },
    /// The page that was there was taken by force.
    Lost {
        /// The guest frame number.
        gfn: u64,
    },
    /// A device that the host emulates.
    Mmio,
    /// Neither: the guest gets an exception.
    Inject,
}
