//! The beginning and the end of a VM.

use super::book::Book;
use super::place::{Place, VCPUS};
use super::{destroy, state, vm};
use crate::attack::attacker::Attacker;
use crate::attack::tally::{self, Kind};
use crate::frames::Frames;
use crate::guest::image;
use crate::sysreg;
use core::sync::atomic::Ordering;
use hyp_abi::vm::Permissions;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, HostCall, Status, VmCall};
use payload_protocol::{Start, layout};

/// Bits of an IPA of the VMs of places, and how many guest frame numbers that makes.
const IPA_BITS: u64 = 32;
pub(super) const GFNS: u64 = 1 << (IPA_BITS - 12);

/// Memory that they declare: 16 MiB.
pub(super) const MEMORY: GuestRange = GuestRange::new(layout::MEMORY / FRAME_SIZE, 4096);

/// How often a call that makes no progress is tried again. Others are in its way, on CPUs that may not be running.
pub(super) const PATIENCE: u32 = 20_000;

/// The call by which a VM of this kind gets frames.
pub(super) fn giving(vm: u64, is_protected: bool, range: FrameRange, gfn: u64) -> VmCall {
    if is_protected {
        VmCall::Donate { vm, range, gfn }
    } else {
        VmCall::Share {
            vm,
            range,
            gfn,
            permissions: Permissions::all().bits(),
        }
    }
}

impl Attacker<'_> {
    /// Makes a call until it is through, with pages for EL2 or the VM if it needs some. `None` if it is refused
    /// otherwise: somebody was quicker.
    pub(super) fn supplied(&mut self, handle: u64, call: VmCall) -> Option<[u64; 3]> {
        for _ in 0..64 {
            match vm(call) {
                Ok(values) => return Some(values),
                Err(Status::NoMemory) => self.supply_pool(),
                Err(Status::VmNeedsMemory) => self.supply_vm(handle),
                Err(Status::Busy) => sysreg::relax(),
                Err(_) => return None,
            }
        }
        None
    }

    /// Gives a VM pages, because it needs some.
    pub(super) fn supply_vm(&mut self, handle: u64) {
        let call = VmCall::TopUp {
            vm: handle,
            pages: 1 + self.random.below(8),
        };
        if vm(call) == Err(Status::NoMemory) {
            self.supply_pool();
        }
    }

    /// Gives frames to a VM, as its kind demands. Returns how many went.
    pub(super) fn hand_over(&mut self, handle: u64, is_protected: bool, range: FrameRange, gfn: u64) -> u64 {
        let mut done = 0;
        // A call may come back with nothing done, because an interrupt waits.
        for _ in 0..PATIENCE {
            let rest = FrameRange::new(range.base + done * FRAME_SIZE, range.frames - done);
            let Some([finished, ..]) = self.supplied(handle, giving(handle, is_protected, rest, gfn + done))
            else {
                break;
            };
            done += finished;
            if done >= range.frames {
                break;
            }
        }
        done
    }

    /// Has a new VM begin at a place that has none. Others find it there before it is ready.
    pub(super) fn begin(&mut self, place: &Place, book: &mut Book) -> bool {
        book.lives += 1;
        place.is_doomed.store(false, Ordering::Relaxed);
        let begun = self.begin_with(place, book).is_some();
        tally::attack(Kind::Birth, begun);
        if !begun {
            place.doom();
        }
        begun
    }

    fn begin_with(&mut self, place: &Place, book: &mut Book) -> Option<()> {
        let vcpus = 1 + self.random.below(VCPUS);
        let create = VmCall::Create {
            flags: place.nature.flags.bits(),
            vcpus,
            ipa_bits: IPA_BITS,
        };
        let [handle, ..] = self.supplied(0, create)?;
        for seat in &place.seats {
            seat.page.write(hyp_abi::run_page::ENTRY_FLAGS, 0);
            seat.reason.store(0, Ordering::Relaxed);
            seat.asked.store(0, Ordering::Relaxed);
        }
        place.set_handle(handle);
        let vm = handle;
        self.supplied(handle, VmCall::AddMemory { vm, range: MEMORY })?;
        // Mostly enough. If not, the guest's own calls are short of pages.
        let pages = self.random.pick(&[1, 2, 16, 16]);
        self.supplied(handle, VmCall::TopUp { vm, pages })?;
        for index in 0..vcpus {
            let call = VmCall::CreateVcpu {
                vm,
                index,
                run_page: place.seats[index as usize].page.address(),
            };
            self.supplied(handle, call)?;
            if self.random.one_in(4) && super::vm(call).is_ok() {
                self.fail(format_args!("vCPU {index} of VM {handle:#x} was created twice"));
            }
        }
        let frames = image::frames().ok()?;
        let gfn = layout::IMAGE / FRAME_SIZE;
        let range = book.give_first(frames, gfn);
        for page in 0..frames {
            image::copy_page(page, &Frames::adopt(range).part_of(page)).ok()?;
        }
        if self.hand_over(handle, place.nature.is_protected(), range, gfn) < frames {
            return None;
        }
        let start = Start {
            index: 0,
            mmu_off: false,
            tag: place.number,
        };
        let launch = VmCall::Launch {
            vm,
            entry: layout::IMAGE,
            argument: start.to_register(),
        };
        self.supplied(handle, launch)?;
        Some(())
    }

    /// Ends the VM of a place, if nobody is at it, and if it must or chance will have it.
    pub(super) fn end_vm(&mut self, place: &Place) {
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        if place.handle() == 0 {
            self.begin(place, &mut book);
        } else if place.is_doomed.load(Ordering::Relaxed) || self.random.one_in(4) {
            self.end(place, &mut book);
        }
    }

    /// Ends the VM of a place: every frame must come back, the private ones zeroed. Returns whether it is gone; if not,
    /// then because another CPU is at work on it.
    pub(super) fn end(&mut self, place: &Place, book: &mut Book) -> bool {
        place.doom();
        place.is_dying.store(true, Ordering::Relaxed);
        let gone = self.take_apart(place, book);
        place.is_dying.store(false, Ordering::Relaxed);
        gone
    }

    fn take_apart(&mut self, place: &Place, book: &mut Book) -> bool {
        let handle = place.handle();
        if handle == 0 {
            return true;
        }
        match destroy(handle) {
            Err(Status::VcpuRunning) => return false,
            // As another one found out, it had no frames.
            Ok(()) | Err(Status::FramesLeft | Status::NoSuchVm) => {}
            Err(status) => {
                self.fail(format_args!("destroying {handle:#x} answered {status:?}"));
                return false;
            }
        }
        // The guest does nothing any more, so what it lent is what it lent.
        let mut private = [0_u64; 2];
        for (number, (frame, _)) in book.all_given().enumerate() {
            if matches!(state(frame), Some((FrameState::NotYours, _))) {
                private[number / 64] |= 1 << (number % 64);
            }
        }
        if !self.empty(place, book, handle) {
            return false;
        }
        self.look_at_all(place, book, private);
        book.note_all_back();
        place.set_handle(0);
        true
    }

    /// Takes everything from a dying VM, until it is gone.
    fn empty(&mut self, place: &Place, book: &mut Book, handle: u64) -> bool {
        for _ in 0..PATIENCE {
            match destroy(handle) {
                Ok(()) | Err(Status::NoSuchVm) => return true,
                Err(Status::FramesLeft) => {}
                Err(status) => {
                    self.fail(format_args!("a dying VM answered Destroy by {status:?}"));
                    return false;
                }
            }
            if place.nature.is_protected() {
                self.reclaim_all(book, handle);
            } else {
                self.unshare_all(place, book, handle);
            }
        }
        self.fail(format_args!("VM {handle:#x} does not die"));
        false
    }

    fn reclaim_all(&mut self, book: &mut Book, handle: u64) {
        let mut done = 0;
        for _ in 0..PATIENCE {
            let range = GuestRange::new(done, GFNS - done);
            match vm(VmCall::Reclaim { vm: handle, range }) {
                Ok([finished, ..]) => done += finished,
                Err(Status::Pinned) => self.unpin_all(book),
                Err(Status::NoMemory) => self.supply_pool(),
                Err(Status::VmNeedsMemory) => self.supply_vm(handle),
                Err(Status::Busy) => sysreg::relax(),
                // Another CPU has just done the rest.
                Err(Status::NoSuchVm) => return,
                Err(status) => return self.fail(format_args!("reclaiming {range:x?} answered {status:?}")),
            }
            if done >= GFNS {
                return;
            }
        }
    }

    /// Takes off the pins that keep frames from coming back: the place's, and those that all CPUs fight over.
    fn unpin_all(&mut self, book: &mut Book) {
        for index in 0..book.range().frames {
            let frame = book.range().base + index * FRAME_SIZE;
            self.unpin(book, frame);
        }
        let contested = self.ground.contested;
        for index in 0..contested.frames {
            self.unpin(book, contested.base + index * FRAME_SIZE);
        }
    }

    /// Takes all pins off a frame, if a guest lent it.
    pub(super) fn unpin(&mut self, book: &mut Book, frame: u64) {
        while matches!(state(frame), Some((FrameState::GuestSharedHost, 1..))) {
            match vm(VmCall::UnpinShared(FrameRange::new(frame, 1))) {
                Ok([done, ..]) => book.note_unpinned(frame, done),
                Err(Status::Busy | Status::NotPinned) => {}
                Err(Status::NoMemory) => self.supply_pool(),
                Err(_) => return,
            }
        }
    }

    fn unshare_all(&mut self, place: &Place, book: &Book, handle: u64) {
        let known = book.all_given().map(|(_, gfn)| gfn);
        for gfn in known.chain(super::every_call::CONTESTED_GFNS) {
            let range = GuestRange::new(gfn, 1);
            match vm(VmCall::Unshare { vm: handle, range }) {
                Ok(_) | Err(Status::GfnNotMapped | Status::NoSuchVm | Status::Busy) => {}
                Err(Status::NoMemory) => self.supply_pool(),
                Err(Status::VmNeedsMemory) => self.supply_vm(handle),
                Err(status) => {
                    let number = place.number;
                    return self.fail(format_args!(
                        "unsharing {gfn:#x} of VM {number} answered {status:?}"
                    ));
                }
            }
        }
    }

    /// Looks at every frame that a VM which is gone had.
    fn look_at_all(&mut self, place: &Place, book: &Book, private: [u64; 2]) {
        let (mut frames, mut zeroes) = (0, 0);
        for (number, (frame, gfn)) in book.all_given().enumerate() {
            let mut zeroed = private[number / 64] >> (number % 64) & 1 != 0;
            if let Some((FrameState::Relinquished, _)) = state(frame) {
                self.take_back(frame);
                zeroed = true;
            }
            let now = state(frame);
            if now != Some((FrameState::Host, 0)) {
                self.fail(format_args!("after VM {}, {frame:#x} is {now:?}", place.number));
                continue;
            }
            frames += 1;
            if zeroed {
                zeroes += 1;
                self.ensure_zero(frame, gfn);
            }
        }
        tally::attack(Kind::Death, true);
        tally::came_back(frames, zeroes);
    }

    /// Takes a frame that a guest gave up.
    pub(super) fn take_back(&mut self, frame: u64) -> bool {
        let call = VmCall::TakeBack(FrameRange::new(frame, 1));
        self.supplied(0, call).is_some()
    }

    /// A frame that was a guest's own must be zero.
    pub(super) fn ensure_zero(&self, frame: u64, gfn: u64) {
        let frame = Frames::adopt(FrameRange::new(frame, 1));
        if let Some((address, value)) = frame.find_wrong(|_| 0) {
            self.fail(format_args!(
                "of a guest's page {gfn:#x}, {address:#x} holds {value:#x}"
            ));
        }
    }

    /// Compares the VM's table with the map, step by step. Returns how many guest frame numbers were compared: fewer than
    /// `range` has only if it makes no progress.
    pub(super) fn audit_vm(&mut self, handle: u64, range: GuestRange) -> Result<u64, Status> {
        let mut done = 0;
        for _ in 0..PATIENCE {
            let rest = GuestRange::new(range.gfn + done, range.frames - done);
            let call = VmCall::Audit {
                vm: handle,
                range: rest,
            };
            let [frames, wrong, _] = super::checked(HostCall::Vm(call))?;
            if wrong != 0 {
                self.fail(format_args!("{wrong} of {frames} disagree in {rest:x?}"));
            }
            done += frames;
            if done >= range.frames {
                break;
            }
        }
        Ok(done)
    }
}
