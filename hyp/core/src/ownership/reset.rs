//! Before the machine is reset or turned off at the host's wish: what was hidden from the host must not be readable to
//! whatever kernel comes next.
//!
//! RAM keeps its contents over a reset, and the map does not. So every frame that the host may not reach is zeroed,
//! but for EL2's own image, tables and pools, in which the machine still runs.

use super::Ownership;
use crate::addr::{Frame, FrameSpan};
use crate::hardware::Hardware;
use crate::map::{Entry, OwnershipMap};
use crate::state::{HypUse, State};
use crate::vm::{LockedSlot, VcpuSlot};
use core::mem;

impl<H: Hardware> Ownership<'_, H> {
    /// Ends every vCPU that no CPU has, and zeroes the page in which its registers were. Answers whether none is left
    /// that a CPU has: the caller waits for those, and asks again.
    pub fn forget_vcpus(&self) -> bool {
        let mut all = true;
        for slot in 1..=u8::MAX {
            let Some(mut vm) = self.vms.lock_slot(&self.hw, slot).and_then(LockedSlot::into_vm) else {
                continue;
            };
            for place in &mut vm.vcpus {
                match mem::replace(place, VcpuSlot::Absent) {
                    VcpuSlot::Resting { home, .. } => {
                        let _ = self.forget_vcpu(home);
                    }
                    VcpuSlot::Running => {
                        *place = VcpuSlot::Running;
                        all = false;
                    }
                    VcpuSlot::Absent => {}
                }
            }
        }
        all
    }

    /// Zeroes the frames of guests, those in transit, and those that the host has donated. Answers how many.
    ///
    /// No other CPU may run the host or a guest any more: what it wrote would come after the zeros. The map stays as it
    /// is; nothing may be made of it but the end. A frame that answers with an abort is passed over.
    pub fn scrub_before_reset(&self) -> u64 {
        self.map
            .regions()
            .filter(|region| !self.is_plainly_open(*region))
            .flat_map(FrameSpan::iter)
            .filter(|frame| self.is_hidden(*frame))
            .filter(|frame| self.hw.scrub(FrameSpan::single(*frame)).is_ok())
            .count() as u64
    }

    /// Whether all frames of a region are of a kind that the host may see, as one look at it tells.
    fn is_plainly_open(&self, region: FrameSpan) -> bool {
        self.map
            .lock(&self.hw, region.start())
            .and_then(|region| region.uniform())
            .is_some_and(|entry| !hides_contents(entry))
    }

    fn is_hidden(&self, frame: Frame) -> bool {
        let index = OwnershipMap::<H::Geometry>::index_of(frame);
        self.map
            .lock(&self.hw, frame)
            .is_some_and(|region| hides_contents(region.entry(index)))
    }
}

/// Whether a frame holds what the host may not see, and is not one in which EL2 itself runs.
fn hides_contents(entry: Entry) -> bool {
    match entry.state() {
        State::Guest | State::InTransit => true,
        State::Hyp => entry.hyp_use() == Some(HypUse::Donated),
        State::Host
        | State::HostSharedHyp
        | State::HostSharedGuest
        | State::HostSharedSecure
        | State::HostLentSecure
        | State::GuestSharedHost
        // Zero already.
        | State::Relinquished
        | State::Poisoned
        | State::Device
        | State::Reserved => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::FRAME_SIZE;
    use crate::double::{Contents, Step, system};
    use crate::geometry::Tiny;
    use crate::hypercall::host_call;
    use crate::ownership::Devices;
    use crate::state::{Transit, TransitReason};
    use hyp_abi::{HostCall, Status, VmCall};
    use std::vec::Vec;

    fn span(start: u64, frames: u64) -> FrameSpan {
        FrameSpan::new(Frame::new(start).unwrap(), frames).unwrap()
    }

    #[test]
    fn what_the_host_may_not_see_is_zero_before_a_reset_and_all_else_is_as_it_was() {
        let system = system::<Tiny>(&[span(0, 64)], span(0, 16), Devices::new());
        let parked = Transit {
            reason: TransitReason::Reclaim,
            active: false,
            progress: 1,
        };
        let hidden = [
            (20, Entry::guest(false, 1, 7)),
            (21, Entry::guest(false, 2, 9)),
            (25, Entry::hyp(HypUse::Donated)),
            (30, Entry::in_transit(parked)),
        ];
        let seen = [
            (22, Entry::guest(true, 1, 8)),
            (27, Entry::plain(State::HostSharedHyp)),
            (28, Entry::plain(State::HostSharedGuest)),
        ];
        for number in 16..64 {
            system.hardware().write(Frame::new(number).unwrap(), number);
        }
        for (number, entry) in hidden.iter().chain(&seen) {
            system.force(span(*number, 1), *entry);
        }
        assert_eq!(system.scrub_before_reset(), hidden.len() as u64);
        for number in 16..64 {
            let contents = system.hardware().contents(Frame::new(number).unwrap());
            if hidden.iter().any(|(hidden, _)| *hidden == number) {
                assert_eq!(contents, Contents::Zero, "{number}");
            } else if !seen.iter().any(|(seen, _)| *seen == number) && number < 32 {
                assert_ne!(contents, Contents::Zero, "{number}");
            }
        }
        for (number, _) in seen {
            let contents = system.hardware().contents(Frame::new(number).unwrap());
            assert_eq!(contents, Contents::Written(number), "{number}");
        }
    }

    #[test]
    fn the_registers_of_a_guest_are_zero_before_a_reset_once_no_cpu_has_them() {
        let system = system::<Tiny>(&[span(0, 64)], span(0, 32), Devices::new());
        let call = |call: VmCall| host_call(&system, HostCall::Vm(call).encode());
        let created = call(VmCall::Create {
            flags: 1,
            vcpus: 2,
            ipa_bits: u64::from(system.hardware().guest_support().max_ipa_bits),
        });
        assert_eq!(created.status, Status::Success);
        let [vm, ..] = created.values;
        for index in 0..2 {
            system.share_hyp(span(40 + index, 1)).unwrap();
            let run_page = (40 + index) * FRAME_SIZE;
            let status = call(VmCall::CreateVcpu { vm, index, run_page }).status;
            assert_eq!(status, Status::Success);
        }
        let running = {
            let mut vm = system.vms.lock(&system.hw, vm).unwrap();
            mem::replace(&mut vm.vcpus[1], VcpuSlot::Running)
        };
        let _ = system.hardware().take_log();
        assert!(!system.forget_vcpus(), "a CPU has one");
        let scrubs = |log: Vec<Step>| {
            let scrubs = log.into_iter().filter(|step| matches!(step, Step::Scrub(_)));
            scrubs.count()
        };
        assert_eq!(scrubs(system.hardware().take_log()), 1);
        system.vms.lock(&system.hw, vm).unwrap().vcpus[1] = running;
        assert!(system.forget_vcpus());
        assert_eq!(scrubs(system.hardware().take_log()), 1);
    }

    #[test]
    fn a_broken_frame_does_not_keep_the_machine_from_a_reset() {
        let system = system::<Tiny>(&[span(0, 64)], span(0, 16), Devices::new());
        system.donate_hyp(span(32, 8)).unwrap();
        system.hardware().poison(Frame::new(33).unwrap());
        assert_eq!(system.scrub_before_reset(), 7);
        for number in (32..40).filter(|number| *number != 33) {
            let frame = Frame::new(number).unwrap();
            assert_eq!(system.hardware().contents(frame), Contents::Zero);
        }
    }
}
