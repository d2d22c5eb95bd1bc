//! Each of the calls about VMs, with values at random and from the edges, on right and wrong handles.

use super::place::{Place, VCPUS};
use super::{destroy, judge, life, orders, state, vm};
use crate::attack::attacker::Attacker;
use crate::attack::ground::{boundary, boundary_count};
use crate::attack::tally;
use core::ops::Range;
use core::sync::atomic::Ordering;
use hyp_abi::vcpu_register::{SystemRegister, VcpuRegister};
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, GuestRange, Status, VmCall, VmCallId};
use payload_protocol::{Start, layout};

/// Guest frame numbers where frames go that all CPUs fight over.
pub(super) const CONTESTED_GFNS: Range<u64> = orders::WINDOW + 32..orders::WINDOW + 48;

impl Attacker<'_> {
    /// One call, or a few that belong together.
    pub(super) fn any_vm_call(&mut self, place: &Place) {
        let id = self.random.below(VmCallId::COUNT as u64) as u32;
        let Ok(id) = VmCallId::try_from(id) else { return };
        let place = self.place_for(place, id);
        if self.random.one_in(5) {
            return self.no_vm(place, id);
        }
        let handle = place.handle();
        match id {
            VmCallId::Create => self.create(),
            VmCallId::Destroy | VmCallId::Rename => self.with_book(place, id),
            VmCallId::Donate | VmCallId::Share => self.give_frames(place, handle, id),
            VmCallId::ForceReclaim | VmCallId::TakeBack => self.take_frames(place, id),
            VmCallId::PinShared | VmCallId::UnpinShared => self.pins(place, id),
            _ => self.named_call(place, handle, id),
        }
    }

    /// The place, or mostly another one if what the call does cannot be done to its VM.
    fn place_for<'p>(&mut self, place: &'p Place, id: VmCallId) -> &'p Place
    where
        Self: 'p,
    {
        let is_for_borrowers = matches!(
            id,
            VmCallId::Share
                | VmCallId::Unshare
                | VmCallId::SetPermissions
                | VmCallId::TestAge
                | VmCallId::ReadRegister
                | VmCallId::WriteRegister
        );
        if !is_for_borrowers || self.random.one_in(3) {
            return place;
        }
        let mut places = self.ground.places.iter();
        places.find(|place| !place.nature.is_protected()).unwrap_or(place)
    }

    /// A call that would be good but for its handle: forged, of a VM that is gone, or of one that has another by now.
    fn no_vm(&mut self, place: &Place, id: VmCallId) {
        if !judge::names_a_vm(id) {
            return;
        }
        let handle = place.handle();
        let wrong = match self.random.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => handle | 1 << (40 + self.random.below(24)),
            3 => handle & !0xff,
            4 => handle & 0xff,
            // A generation that is long gone, or far away.
            5 => handle ^ 1 << 38,
            _ => place.stale(),
        };
        let range = self.any_guest_range();
        let frames = FrameRange::new(self.scratch_frame(), 1);
        let arguments = match id {
            VmCallId::Donate | VmCallId::Share => [frames.base, 1, range.gfn, 7],
            VmCallId::AddMemory
            | VmCallId::Unshare
            | VmCallId::Reclaim
            | VmCallId::SetPermissions
            | VmCallId::TestAge
            | VmCallId::Audit => [range.gfn, 1, 7, 0],
            VmCallId::CreateVcpu => [0, place.any_seat(&mut self.random).1.page.address(), 0, 0],
            VmCallId::Launch => [layout::IMAGE, 0, 0, 0],
            VmCallId::TopUp => [1, 0, 0, 0],
            // The index of a vCPU, a half, a figure.
            _ => [0; 4],
        };
        let [a2, a3, a4, a5] = arguments;
        let call = VmCall::decode(id, [wrong, a2, a3, a4, a5, 0]);
        let answer = vm(call);
        if answer != Err(Status::NoSuchVm) {
            self.fail(format_args!(
                "{call:x?} of no VM ({handle:#x} is one) answered {answer:x?}"
            ));
        }
    }

    /// A guest frame number from anywhere.
    pub(super) fn any_gfn(&mut self) -> u64 {
        let random = &mut self.random;
        match random.below(10) {
            0 => random.pick(&[0, life::GFNS - 1, life::GFNS, 1 << 36, 1 << 52, u64::MAX]),
            1 => random.next(),
            2 => layout::IMAGE / FRAME_SIZE + random.below(32),
            3 => layout::KEPT / FRAME_SIZE + random.below(8),
            4 => layout::MEMORY / FRAME_SIZE + random.below(8192),
            5..8 => CONTESTED_GFNS.start + random.below(CONTESTED_GFNS.end - CONTESTED_GFNS.start),
            _ => orders::WINDOW + random.below(orders::WINDOW_PAGES),
        }
    }

    fn any_guest_range(&mut self) -> GuestRange {
        let frames = match self.random.below(6) {
            0 => boundary_count(&mut self.random),
            1 => 1 + self.random.below(600),
            _ => 1 + self.random.below(3),
        };
        GuestRange::new(self.any_gfn(), frames)
    }

    /// A small index, or one from the edges.
    fn any_index(&mut self) -> u64 {
        match self.random.below(6) {
            0 => self.random.pick(&[VCPUS, 63, 64, 1 << 32, u64::MAX]),
            _ => self.random.below(VCPUS),
        }
    }

    /// Creates a VM of any kind, which lives no longer than this.
    fn create(&mut self) {
        let random = &mut self.random;
        let flags = random.pick(&[0, 1, 2, 3, 4, 1 << 63, u64::MAX]);
        let vcpus = random.pick(&[0, 1, 2, 64, 65, 1 << 32, u64::MAX]);
        let ipa_bits = random.pick(&[0, 31, 32, 36, 40, 48, 49, 64, u64::MAX]);
        let call = VmCall::Create {
            flags,
            vcpus,
            ipa_bits,
        };
        match vm(call) {
            Ok([handle, ..]) => {
                let has_meaning = VmFlags::from_bits(flags).is_some()
                    && (1..=64).contains(&vcpus)
                    && hyp_abi::vm::IPA_BITS.contains(&ipa_bits);
                if !has_meaning {
                    self.fail(format_args!("{call:x?} was accepted"));
                }
                if let Err(status) = destroy(handle) {
                    self.fail(format_args!("an empty VM answered Destroy by {status:?}"));
                }
            }
            Err(Status::NoMemory) => self.supply_pool(),
            Err(_) => {}
        }
    }

    /// Calls that the place must know of: its VM gets another handle, or ends, whoever runs it at the time.
    fn with_book(&mut self, place: &Place, id: VmCallId) {
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        let handle = place.handle();
        if handle == 0 {
            return;
        }
        if id == VmCallId::Destroy {
            if self.random.one_in(3) {
                self.end(place, &mut book);
            }
            return;
        }
        if let Ok([handle, ..]) = vm(VmCall::Rename { vm: handle }) {
            place.set_handle(handle);
        }
    }

    /// Any other call that names a VM.
    fn named_call(&mut self, place: &Place, handle: u64, id: VmCallId) {
        let range = self.any_guest_range();
        let permissions = self.random.pick(&[0, 1, 3, 5, 7, 7, 7, 8, u64::MAX]);
        let call = match id {
            VmCallId::AddMemory => VmCall::AddMemory { vm: handle, range },
            VmCallId::CreateVcpu => VmCall::CreateVcpu {
                vm: handle,
                index: self.any_index(),
                run_page: match self.random.below(3) {
                    0 => boundary(self.ground, &mut self.random),
                    1 => self.scratch_frame(),
                    _ => place.any_seat(&mut self.random).1.page.address(),
                },
            },
            VmCallId::Launch => VmCall::Launch {
                vm: handle,
                entry: self
                    .random
                    .pick(&[0, layout::IMAGE, layout::IMAGE + 2, 1 << 32, u64::MAX]),
                argument: Start {
                    index: 0,
                    mmu_off: false,
                    tag: 1,
                }
                .to_register(),
            },
            VmCallId::Digest => VmCall::Digest {
                vm: handle,
                half: self.random.pick(&[0, 1, 2, u64::MAX]),
            },
            VmCallId::Run => return self.run_wrongly(place, handle),
            VmCallId::ReadRegister | VmCallId::WriteRegister => return self.vcpu_register(place, handle, id),
            VmCallId::TopUp => VmCall::TopUp {
                vm: handle,
                pages: self.random.pick(&[0, 1, 2, 4, 1 << 20, u64::MAX]),
            },
            VmCallId::Unshare => return self.unshare(place, handle, range),
            VmCallId::Reclaim => VmCall::Reclaim {
                vm: self.a_dying_vm(handle),
                range: if self.random.one_in(2) {
                    life::MEMORY
                } else {
                    range
                },
            },
            VmCallId::SetPermissions => VmCall::SetPermissions {
                vm: handle,
                range,
                permissions,
            },
            VmCallId::TestAge => VmCall::TestAge { vm: handle, range },
            VmCallId::Statistics => VmCall::Statistics {
                vm: handle,
                statistic: self.random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 32, u64::MAX]),
            },
            _ => VmCall::Audit {
                vm: handle,
                range: if self.random.one_in(4) {
                    GuestRange::new(0, life::GFNS)
                } else {
                    range
                },
            },
        };
        match vm(call) {
            Err(Status::NoMemory) if id != VmCallId::TopUp => self.supply_pool(),
            Err(Status::VmNeedsMemory) => self.supply_vm(handle),
            _ => {}
        }
    }

    /// A vCPU that does not exist, or runs elsewhere, or a VM that is none.
    fn run_wrongly(&mut self, place: &Place, handle: u64) {
        let index = self.any_index();
        if let Ok(values) = place.run(|| vm(VmCall::Run { vm: handle, index })) {
            self.left(place, index, values);
        }
    }

    /// A register of a vCPU: of a protected VM there is none to be had. One that is not is left to go on with its orders,
    /// so what is written there is one that it does not use, or a state of EL2's.
    fn vcpu_register(&mut self, place: &Place, handle: u64, id: VmCallId) {
        let index = self.any_index();
        let spare = VcpuRegister::System(SystemRegister::TpidrroEl0);
        let (mut register, mut value) = match self.random.below(4) {
            0 => (self.random.next(), self.random.next()),
            1 => (self.random.below(0xc00), self.random.next()),
            2 => (VcpuRegister::Pstate.to_register(), 0x3c8 | self.random.below(64)),
            _ => (spare.to_register(), self.random.next()),
        };
        let call = if id == VmCallId::ReadRegister {
            VmCall::ReadRegister {
                vm: handle,
                index,
                register,
            }
        } else {
            if !place.nature.is_protected() {
                if register == VcpuRegister::Pstate.to_register() {
                    // EL2h or EL3h.
                    value |= 0b1000;
                } else {
                    register = spare.to_register();
                }
            }
            VmCall::WriteRegister {
                vm: handle,
                index,
                register,
                value,
            }
        };
        if vm(call).is_ok()
            && (place.nature.is_protected()
                || register == VcpuRegister::Pstate.to_register() && id == VmCallId::WriteRegister)
        {
            self.fail(format_args!("{call:x?} was accepted"));
        }
    }

    /// The handle of a VM that another CPU is taking apart at the time, if there is one.
    fn a_dying_vm(&self, otherwise: u64) -> u64 {
        self.ground
            .places
            .iter()
            .find(|place| place.is_dying.load(Ordering::Relaxed))
            .map_or(otherwise, Place::handle)
    }

    /// Ends the sharing of a frame that the place knows, or of those that it does not.
    fn unshare(&mut self, place: &Place, handle: u64, range: GuestRange) {
        if !self.random.one_in(3) {
            let _ = vm(VmCall::Unshare { vm: handle, range });
            return;
        }
        let Some(mut book) = place.book.try_lock() else {
            return;
        };
        let Some((frame, gfn)) = book.any_given(&mut self.random) else {
            return;
        };
        if gfn < orders::WINDOW {
            return;
        }
        let range = GuestRange::new(gfn, 1);
        if vm(VmCall::Unshare { vm: handle, range }).is_ok() && place.handle() == handle {
            if state(frame).is_some_and(|(state, _)| state != FrameState::Host) {
                tally::fail(format_args!("{frame:#x} was unshared and is not back"));
            }
            book.note_back(frame);
        }
    }
}
