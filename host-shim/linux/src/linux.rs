//! What the module needs of the kernel that it lives in.
//!
//! [`host_shim::Kernel`] is part of it: the way to EL2, the contents of frames, the lock, how to wait, and how not to be
//! interrupted. Unless a
//! method says otherwise it is called by a task, with interrupts on and no spin lock held, and may sleep.

use crate::Errno;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;
use core::ops::Range;
use host_shim::memfd::Mappings;
use host_shim::provider::Allocated;
use host_shim::vm::UserPage;
use host_shim::{Block, Kernel, Pfn};

/// The kernel.
pub trait Linux: Kernel + Clone {
    /// The address space of a process, for as long as somebody asks about it. It does not keep what is mapped there.
    type Space: fmt::Debug + Send + Sync + 'static;

    /// Where a task waits to be woken, and is found when it is to leave a guest. It lasts as long as somebody can look
    /// for the task there.
    type Seat: fmt::Debug + Send + Sync + 'static;

    /// An eventfd. It lasts as long as somebody has this, also if its last descriptor is closed.
    type Eventfd: fmt::Debug + PartialEq + Send + Sync + 'static;

    /// A page of a process: a reference, so that the frame is not another's meanwhile.
    type UserPage: UserPage + fmt::Debug;

    /// That somebody watches an address space. Dropping it waits until nothing is told any more. It is dropped by a task that
    /// has no part of the space locked.
    type Watch: fmt::Debug + Send + Sync + 'static;

    /// That somebody listens at an eventfd. Once it is dropped, nothing is heard any more. It is dropped by a task.
    type Listener: fmt::Debug + Send + Sync + 'static;

    /// Whether it is safe to call EL2, and Freehold is what is said to be there: the kernel runs at EL1 and the machine's
    /// description names Freehold. Elsewhere an HVC may be undefined, or be another's.
    fn has_freehold(&self) -> bool;

    /// How many CPUs are online.
    fn cpus(&self) -> u32;

    /// Copies bytes from the caller's address space.
    ///
    /// # Errors
    /// [`Errno::FAULT`].
    fn copy_from_user(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies bytes to the caller's address space.
    ///
    /// # Errors
    /// [`Errno::FAULT`].
    fn copy_to_user(&self, address: u64, from: &[u8]) -> Result<(), Errno>;

    /// Allocates a block of 2^`order` frames, charged to the caller's memory control group. `None` if there is none to
    /// be had without much ado, or the group may have no more. Nobody is killed for it.
    fn allocate_frames(&self, order: u8, zeroed: bool) -> Option<Allocated>;

    /// Frees a block that [`Linux::allocate_frames`] gave, or an aligned part of one.
    fn free_frames(&self, block: Block);

    /// The caller's address space.
    fn space(&self) -> Self::Space;

    /// Whether that is the caller's address space.
    fn is_caller(&self, space: &Self::Space) -> bool;

    /// Counts frames as locked by an address space. Refused if that would be more than the caller's `RLIMIT_MEMLOCK`, unless
    /// it has `CAP_IPC_LOCK`. Does not sleep.
    fn lock_frames(&self, space: &Self::Space, frames: u64) -> bool;

    /// Takes that back. Does not sleep.
    fn unlock_frames(&self, space: &Self::Space, frames: u64);

    /// The page at an address of the caller's, put in if there is none: one to write to, or one that may be read and perhaps
    /// written. Pages that are only mapped by their number are not found.
    ///
    /// # Errors
    /// [`Errno::FAULT`] if the caller could not do that itself; [`Errno::HWPOISON`]; [`Errno::NOMEM`].
    fn user_page(&self, address: u64, write: bool) -> Result<Self::UserPage, Errno>;

    /// Has `watcher` told what becomes of the caller's address space.
    ///
    /// # Errors
    /// [`Errno::NOMEM`]; [`Errno::INTR`] for a signal.
    fn watch(&self, watcher: Arc<dyn Watcher>) -> Result<Self::Watch, Errno>;

    /// Makes a descriptor of the caller's, which keeps the object until its last duplicate and mapping are gone. The object
    /// is made by `make`, once nothing else can fail.
    ///
    /// # Errors
    /// [`Errno::NOMEM`], or that the caller may have no more descriptors; those of `make`.
    fn open(&self, name: &CStr, make: Make<'_>) -> Result<u64, Errno>;

    /// The object of one of the caller's descriptors, if it is one of ours.
    ///
    /// # Errors
    /// [`Errno::BADF`] if there is no such descriptor; [`Errno::INVAL`] if it is somebody else's.
    fn find(&self, descriptor: i32) -> Result<Arc<dyn Descriptor>, Errno>;

    /// Makes a file of so many bytes, and a descriptor of the caller's for it. What is behind the file is made by `make`,
    /// once nothing else can fail; it is told what user space has mapped of it.
    ///
    /// # Errors
    /// [`Errno::NOMEM`]; that the caller may have no more descriptors; those of `make`.
    fn open_file(&self, name: &CStr, bytes: u64, make: MakeFile<'_>) -> Result<u64, Errno>;

    /// A seat that nobody has.
    fn seat(&self) -> Self::Seat;

    /// The caller takes the seat, or leaves it. While it has it, [`Linux::interrupt`] finds it.
    fn occupy(&self, seat: &Self::Seat, occupied: bool);

    /// Waits at a seat until something is `ready`, the virtual counter has reached `deadline`, or a signal comes. `ready`
    /// is asked at first, each time that somebody wakes the seat, and perhaps in between. It must not sleep.
    ///
    /// # Errors
    /// [`Errno::INTR`] for a signal.
    fn wait(
        &self,
        seat: &Self::Seat,
        signals: Signals,
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<(), Errno>;

    /// Wakes all that wait at a seat. Called in any context.
    fn wake(&self, seat: &Self::Seat);

    /// Has the CPU of the task that has the seat take an interrupt, if it is at work and not the caller. Called in any
    /// context.
    fn interrupt(&self, seat: &Self::Seat);

    /// Has an interrupt wait for this CPU, whose interrupts are off: it comes, and is nothing, once they are on.
    fn interrupt_here(&self);

    /// Whether a signal waits for the caller. Does not sleep.
    fn has_signal(&self) -> bool;

    /// Has all signals wait that have a bit set, but those that always come, and the others come, until
    /// [`Linux::unblock_signals`]. What the caller had blocked before is not lost meanwhile. (Bit n is signal n + 1.)
    fn block_signals(&self, signals: u64);

    /// The caller's signals are blocked as they were.
    fn unblock_signals(&self);

    /// Does what the kernel wants done before the caller goes back to its program: others have the CPU that want it, and
    /// what others have left for the caller to do is done. A task that runs a guest goes back late, or never.
    ///
    /// # Errors
    /// [`Errno::INTR`] for a signal.
    fn do_due_work(&self) -> Result<(), Errno>;

    /// Whether there is such a thing, or a signal. Does not sleep.
    fn has_due_work(&self) -> bool;

    /// The virtual counter (CNTVCT_EL0). Called in any context.
    fn counter(&self) -> u64;

    /// The eventfd of one of the caller's descriptors.
    ///
    /// # Errors
    /// [`Errno::BADF`] if there is no such descriptor; [`Errno::INVAL`] if it is something else.
    fn eventfd(&self, descriptor: i32) -> Result<Self::Eventfd, Errno>;

    /// Adds one to an eventfd. Called in any context.
    fn signal(&self, eventfd: &Self::Eventfd);

    /// Has `ear` hear when somebody signals the eventfd of one of the caller's descriptors, and at once if somebody has.
    /// What it hears is taken from the eventfd.
    ///
    /// # Errors
    /// Those of [`Linux::eventfd`].
    fn listen(&self, descriptor: i32, ear: Arc<dyn Ear>) -> Result<(Self::Eventfd, Self::Listener), Errno>;

    /// Whether the last descriptor of what is listened at is closed: nothing is heard any more. Does not sleep. Each time
    /// that this comes true the kernel has [`crate::kvm::System::sweep`] called, by a task.
    fn is_closed(&self, listener: &Self::Listener) -> bool;

    /// Writes a line to the kernel's log. Does not sleep.
    fn log(&self, level: Level, message: fmt::Arguments<'_>);
}

/// Makes what is behind a descriptor.
pub type Make<'a> = &'a mut dyn FnMut() -> Result<Arc<dyn Descriptor>, Errno>;

/// Makes what is behind a file, and is told what user space has mapped of it.
pub type MakeFile<'a> = &'a mut dyn FnMut(Arc<dyn Mappings>) -> Result<Arc<dyn Descriptor>, Errno>;

/// Who watches an address space. Ranges are of addresses, and whole pages. But for [`Watcher::over`], it is called in any
/// context, with locks held that whoever allocates may want, and by several at once.
pub trait Watcher: fmt::Debug + Send + Sync {
    /// Pages of a range are about to be taken, or to be changed or write-protected: when this returns nobody uses them by way
    /// of the watcher, nor looks for them anew before [`Watcher::end`]. It does not wait; `pause` lets others have the CPU, if
    /// they can.
    fn begin(&self, range: Range<u64>, pause: &mut dyn FnMut());

    /// That is done.
    fn end(&self);

    /// Whether a page of a range was used by way of the watcher since somebody last asked with `forget`.
    fn is_used(&self, range: Range<u64>, forget: bool) -> bool;

    /// All of it is about to be taken, for good, or it is not watched any more. Called by a task, perhaps more than once.
    fn over(&self, pause: &mut dyn FnMut());
}

/// Who listens at an eventfd.
pub trait Ear: fmt::Debug + Send + Sync {
    /// Somebody has signalled it. Called in any context, with interrupts off, and with a lock of the eventfd's held.
    fn hear(&self);
}

/// Which signals end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// All that are not blocked.
    All,
    /// Those that kill.
    Fatal,
}

/// How much a line of the log matters: the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// What happens.
    Info = 6,
}

/// What is behind a descriptor: what user space can do with it. Called by whichever task has it.
pub trait Descriptor: Any + Send + Sync {
    /// Carries out a command.
    ///
    /// # Errors
    /// As the command is documented. If there is no such command, what KVM answers: [`Errno::INVAL`], or [`Errno::NOTTY`] if
    /// it is a device or a file.
    fn ioctl(self: Arc<Self>, command: u32, argument: u64) -> Result<u64, Errno>;

    /// What is told of it under `/proc/PROCESS/fdinfo`: lines.
    fn describe(&self) -> String {
        String::new()
    }

    /// How many pages can be mapped; `None` if it cannot be mapped at all.
    fn pages(&self) -> Option<u64> {
        None
    }

    /// Has a page of a mapping put in by `insert`, and sees that it stays what it is until that returns. The task has
    /// its address space locked.
    ///
    /// # Errors
    /// [`Errno::NOMEM`]; anything else sends the task a SIGBUS.
    fn fault(&self, _page: u64, _insert: &mut dyn FnMut(Pfn) -> Result<(), Errno>) -> Result<(), Errno> {
        Err(Errno::FAULT)
    }

    /// Allocates or frees a part of the file, as `fallocate` has it.
    ///
    /// # Errors
    /// [`Errno::OPNOTSUPP`] for a mode that there is not; as it is documented.
    fn fallocate(&self, _mode: u32, _offset: u64, _length: u64) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }
}

/// The object of a descriptor as what it is.
///
/// # Errors
/// [`Errno::INVAL`] if it is something else.
pub fn downcast<T: Descriptor>(object: Arc<dyn Descriptor>) -> Result<Arc<T>, Errno> {
    let any: Arc<dyn Any + Send + Sync> = object;
    any.downcast().map_err(|_| Errno::INVAL)
}
