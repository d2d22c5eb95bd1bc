//! A kernel for tests: user memory in a vector, descriptors in a table, and the shim's own fake EL2.

use crate::linux::{Ear, Level, Make, MakeFile, Signals, Watcher};
use crate::{Descriptor, Errno, Linux};
use core::ffi::CStr;
use core::fmt;
use host_shim::fake::{FIRST, FRAMES, Fake};
use host_shim::memfd::Mappings;
use host_shim::provider::{Allocated, Buddy, Contents, Provider as _};
use host_shim::{Block, HostMemory, Hypercall, Kernel, NotReachable, Pfn};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use zerocopy::{FromBytes, Immutable, IntoBytes};

mod eventfd;
mod space;

pub(crate) use eventfd::{Eventfd, Listener};
use hyp_abi::FRAME_SIZE;
use space::Space;
pub(crate) use space::{Page, Watch};

/// Where user memory begins.
pub(crate) const USER: u64 = 0x10_0000;

/// The caller has as many descriptors as it may have.
pub(crate) const EMFILE: Errno = Errno::from_number(24);

/// Bytes of it.
const USER_BYTES: usize = 1 << 16;

#[derive(Debug)]
struct State {
    user: Vec<u8>,
    process: u32,
    descriptors: BTreeMap<i32, Held>,
    eventfds: BTreeMap<i32, Eventfd>,
    no_descriptors: bool,
    freehold: bool,
    /// How many more allocations succeed; `None`: all.
    allocations: Option<u64>,
    locked: u64,
    locked_limit: u64,
    log: Vec<(Level, String)>,
    counter: u64,
    signal: bool,
    /// The signals that a run has blocked.
    blocked: Option<u64>,
}

struct Held(Arc<dyn Descriptor>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// The kernel.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) el2: Fake,
    buddy: Arc<Buddy>,
    state: Arc<Mutex<State>>,
    space: Arc<Mutex<Space>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let buddy = Buddy::new();
        buddy.add(Pfn::new(FIRST).unwrap(), FRAMES);
        let state = State {
            user: vec![0; USER_BYTES],
            process: 1,
            descriptors: BTreeMap::new(),
            eventfds: BTreeMap::new(),
            no_descriptors: false,
            freehold: true,
            allocations: None,
            locked: 0,
            locked_limit: u64::MAX,
            log: Vec::new(),
            counter: 0,
            signal: false,
            blocked: None,
        };
        Self {
            el2: Fake::new(),
            buddy: Arc::new(buddy),
            state: Arc::new(Mutex::new(state)),
            space: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn without_freehold(self) -> Self {
        self.state().freehold = false;
        self
    }

    /// Another process calls from now on.
    pub(crate) fn become_process(&self, process: u32) {
        self.state().process = process;
    }

    /// A signal waits for everybody, or no more.
    pub(crate) fn set_signal(&self, signal: bool) {
        self.state().signal = signal;
    }

    /// Lets so many allocations of frames succeed, and then none; `None`: all.
    pub(crate) fn fail_after(&self, allocations: Option<u64>) {
        self.state().allocations = allocations;
    }

    /// The caller may have no more descriptors, or may again.
    pub(crate) fn refuse_descriptors(&self, refuse: bool) {
        self.state().no_descriptors = refuse;
    }

    pub(crate) fn object(&self, descriptor: u64) -> Arc<dyn Descriptor> {
        self.find(descriptor as i32).unwrap()
    }

    /// Closes a descriptor.
    pub(crate) fn close(&self, descriptor: u64) {
        let held = self.state().descriptors.remove(&(descriptor as i32));
        drop(held.unwrap());
    }

    pub(crate) fn log_lines(&self) -> Vec<(Level, String)> {
        self.state().log.clone()
    }

    /// Asks that everything is the kernel's again, once the module has stopped.
    pub(crate) fn assert_nothing_left(&self) {
        assert!(self.state().descriptors.is_empty());
        assert_eq!(self.el2.vms(), 0, "VMs");
        assert_eq!(self.el2.taken(), 0, "frames that are not the host's");
        assert_eq!(self.buddy.free_frames(), FRAMES, "free frames");
        assert_eq!(self.state().locked, 0, "frames that count as locked");
        assert_eq!(self.el2.trespasses(), 0, "the host touched what is not its own");
    }
}

impl Hypercall for Machine {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        self.el2.call(registers)
    }

    fn pause(&self) {
        may_sleep();
        self.el2.pause();
    }
}

impl HostMemory for Machine {
    fn read(&self, frame: Pfn, offset: usize, into: &mut [u8]) -> Result<(), NotReachable> {
        self.el2.read(frame, offset, into)
    }

    fn write(&self, frame: Pfn, offset: usize, from: &[u8]) -> Result<(), NotReachable> {
        self.el2.write(frame, offset, from)
    }

    fn zero(&self, frame: Pfn, frames: u64) -> Result<(), NotReachable> {
        self.el2.zero(frame, frames)
    }

    fn load_word(&self, frame: Pfn, index: usize) -> u64 {
        self.el2.load_word(frame, index)
    }

    fn store_word(&self, frame: Pfn, index: usize, value: u64) {
        self.el2.store_word(frame, index, value);
    }
}

impl Kernel for Machine {
    type Lock = parking_lot::RawMutex;

    fn relax(&self) {
        may_sleep();
        self.el2.relax();
    }

    fn is_killed(&self) -> bool {
        self.el2.is_killed()
    }

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        let before = UNINTERRUPTED.replace(true);
        work();
        UNINTERRUPTED.set(before);
    }
}

std::thread_local! {
    /// Whether interrupts are off for this thread.
    static UNINTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

/// What sleeps on a real kernel must not be called where it cannot.
fn may_sleep() {
    assert!(!UNINTERRUPTED.get(), "something sleeps with interrupts off");
}

impl Machine {
    /// Makes an eventfd.
    pub(crate) fn make_eventfd(&self) -> i32 {
        let mut state = self.state();
        let descriptor = 100 + state.eventfds.keys().len() as i32;
        state.eventfds.insert(descriptor, Eventfd::default());
        descriptor
    }

    /// Signals one, as user space does.
    pub(crate) fn write_eventfd(&self, descriptor: i32) {
        self.eventfd(descriptor).unwrap().signal();
    }

    /// What user space reads, 0 if it would have to wait.
    pub(crate) fn read_eventfd(&self, descriptor: i32) -> u64 {
        self.eventfd(descriptor).unwrap().take()
    }

    /// Its last descriptor is closed.
    pub(crate) fn close_eventfd(&self, descriptor: i32) {
        self.state().eventfds.remove(&descriptor).unwrap().close();
    }

    /// Does something when it is next asked whether one is closed.
    pub(crate) fn meanwhile(&self, descriptor: i32, work: impl FnOnce() + Send + 'static) {
        self.eventfd(descriptor).unwrap().set_meanwhile(Box::new(work));
    }

    /// How many listen at one.
    pub(crate) fn listeners(&self, descriptor: i32) -> usize {
        self.eventfd(descriptor).unwrap().ears()
    }

    pub(crate) fn set_user<T: IntoBytes + Immutable>(&self, offset: u64, value: &T) -> u64 {
        self.copy_to_user(USER + offset, value.as_bytes()).unwrap();
        USER + offset
    }

    pub(crate) fn user<T: FromBytes>(&self, offset: u64) -> T {
        let mut bytes = vec![0; size_of::<T>()];
        self.copy_from_user(USER + offset, &mut bytes).unwrap();
        T::read_from_bytes(&bytes).unwrap()
    }
}

/// The range of the vector that an access of user memory means.
fn user(address: u64, length: usize) -> Result<core::ops::Range<usize>, Errno> {
    let start = usize::try_from(address.checked_sub(USER).ok_or(Errno::FAULT)?).map_err(|_| Errno::FAULT)?;
    let end = start.checked_add(length).filter(|end| *end <= USER_BYTES);
    Ok(start..end.ok_or(Errno::FAULT)?)
}

/// A wait queue, and whether somebody has the seat.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    turn: Mutex<u64>,
    woken: Condvar,
    occupied: AtomicBool,
}

/// Nothing is mapped.
#[derive(Debug)]
struct NoMappings;

impl Mappings for NoMappings {
    fn zap(&self, _: core::ops::Range<u64>) {}
}

impl Linux for Machine {
    type Space = u32;
    type Seat = Seat;
    type Eventfd = Eventfd;
    type Listener = Listener;
    type UserPage = Page;
    type Watch = Watch;

    fn has_freehold(&self) -> bool {
        self.state().freehold
    }

    fn cpus(&self) -> u32 {
        2
    }

    fn copy_from_user(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        may_sleep();
        into.copy_from_slice(&self.state().user[user(address, into.len())?]);
        Ok(())
    }

    fn copy_to_user(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        may_sleep();
        self.state().user[user(address, from.len())?].copy_from_slice(from);
        Ok(())
    }

    fn allocate_frames(&self, order: u8, zeroed: bool) -> Option<Allocated> {
        may_sleep();
        {
            let mut state = self.state();
            if let Some(left) = &mut state.allocations {
                *left = left.checked_sub(1)?;
            }
        }
        let mut allocated = self.buddy.allocate(order, Contents::Any)?;
        if zeroed {
            self.zero(allocated.pfn, 1 << order).unwrap();
            allocated.zeroed = true;
        }
        Some(allocated)
    }

    fn free_frames(&self, block: Block) {
        self.buddy.free(block);
    }

    fn space(&self) -> u32 {
        self.state().process
    }

    fn is_caller(&self, space: &u32) -> bool {
        self.state().process == *space
    }

    fn lock_frames(&self, _: &u32, frames: u64) -> bool {
        let mut state = self.state();
        let fits = state.locked + frames <= state.locked_limit;
        if fits {
            state.locked += frames;
        }
        fits
    }

    fn unlock_frames(&self, _: &u32, frames: u64) {
        self.state().locked -= frames;
    }

    fn user_page(&self, address: u64, write: bool) -> Result<Page, Errno> {
        self.look_up(address, write)
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) -> Result<Watch, Errno> {
        Ok(self.add_watcher(watcher))
    }

    fn open(&self, _: &CStr, make: Make<'_>) -> Result<u64, Errno> {
        if self.state().no_descriptors {
            return Err(EMFILE);
        }
        let object = make()?;
        let mut state = self.state();
        let free = (3..)
            .find(|number| !state.descriptors.contains_key(number))
            .unwrap();
        state.descriptors.insert(free, Held(object));
        Ok(free as u64)
    }

    fn find(&self, descriptor: i32) -> Result<Arc<dyn Descriptor>, Errno> {
        let state = self.state();
        let held = state.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        Ok(Arc::clone(&held.0))
    }

    fn open_file(&self, name: &CStr, _: u64, make: MakeFile<'_>) -> Result<u64, Errno> {
        self.open(name, &mut || make(Arc::new(NoMappings)))
    }

    fn seat(&self) -> Seat {
        Seat::default()
    }

    fn occupy(&self, seat: &Seat, occupied: bool) {
        seat.occupied.store(occupied, Ordering::SeqCst);
    }

    fn wait(
        &self,
        seat: &Seat,
        signals: Signals,
        deadline: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<(), Errno> {
        let mut turn = seat.turn.lock().unwrap();
        loop {
            if ready() {
                return Ok(());
            }
            if self.is_killed() || signals == Signals::All && self.has_signal() {
                return Err(Errno::INTR);
            }
            // Time passes for those who wait for it.
            if let Some(deadline) = deadline {
                let counter = &mut self.state().counter;
                *counter = deadline.max(*counter);
                return Ok(());
            }
            turn = seat.woken.wait(turn).unwrap();
        }
    }

    fn wake(&self, seat: &Seat) {
        *seat.turn.lock().unwrap() += 1;
        seat.woken.notify_all();
    }

    fn interrupt(&self, _: &Seat) {}

    fn interrupt_here(&self) {
        self.el2.interrupt();
    }

    fn has_signal(&self) -> bool {
        let state = self.state();
        // The signal that there is, is the first.
        state.signal && state.blocked.unwrap_or(0) & 1 == 0
    }

    fn block_signals(&self, signals: u64) {
        let before = self.state().blocked.replace(signals);
        assert_eq!(before, None, "signals are blocked twice");
    }

    fn unblock_signals(&self) {
        let before = self.state().blocked.take();
        assert!(before.is_some(), "signals were not blocked");
    }

    fn do_due_work(&self) -> Result<(), Errno> {
        self.pause();
        if self.has_signal() {
            return Err(Errno::INTR);
        }
        Ok(())
    }

    fn has_due_work(&self) -> bool {
        self.has_signal()
    }

    fn counter(&self) -> u64 {
        self.state().counter
    }

    fn eventfd(&self, descriptor: i32) -> Result<Eventfd, Errno> {
        let state = self.state();
        let other = state.descriptors.contains_key(&descriptor);
        let none = if other { Errno::INVAL } else { Errno::BADF };
        state.eventfds.get(&descriptor).cloned().ok_or(none)
    }

    fn signal(&self, eventfd: &Eventfd) {
        eventfd.signal();
    }

    fn listen(&self, descriptor: i32, ear: Arc<dyn Ear>) -> Result<(Eventfd, Listener), Errno> {
        let eventfd = self.eventfd(descriptor)?;
        if eventfd.add(&ear) > 0 {
            ear.hear();
        }
        let listener = Listener {
            eventfd: eventfd.clone(),
            ear,
        };
        Ok((eventfd, listener))
    }

    fn is_closed(&self, listener: &Listener) -> bool {
        listener.eventfd.is_closed()
    }

    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self.state().log.push((level, message.to_string()));
    }
}
