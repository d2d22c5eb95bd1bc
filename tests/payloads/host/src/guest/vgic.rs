//! Interrupts on their way to a vCPU: what is wanted, and the list registers that it becomes.

use crate::sysreg;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::run_page::MAX_LIST_REGISTERS;

/// The virtual timer's interrupt.
pub(crate) const TIMER: u32 = 27;

/// CNTV_CTL_EL0: enabled, and not masked (Arm ARM DDI 0487, D24.10.16).
const ENABLE: u64 = 1 << 0;
const MASK: u64 = 1 << 1;

/// When a guest's virtual timer is due, if the guest has armed it: what its control and compare value say.
pub(crate) fn alarm(control: u64, compare: u64) -> Option<u64> {
    (control & (ENABLE | MASK) == ENABLE).then_some(compare)
}

/// Whether that time has come.
pub(crate) fn is_due(alarm: Option<u64>) -> bool {
    alarm.is_some_and(|due| sysreg::counter() >= due)
}

/// Fields of a list register (Arm IHI 0069, ICH_LR<n>_EL2): state, group 1, priority.
const STATE: u64 = 0b11 << 62;
const PENDING: u64 = 0b01 << 62;
const GROUP_1: u64 = 1 << 60;
const PRIORITY: u64 = 0x80 << 48;

/// A list register that makes interrupt `number` pending.
pub(crate) fn pending(number: u32) -> u64 {
    PENDING | GROUP_1 | PRIORITY | u64::from(number)
}

/// Interrupts below 64 that a vCPU is to take, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Wanted(AtomicU64);

impl Wanted {
    /// Wants one more.
    pub(crate) fn add(&self, number: u32) {
        self.0.fetch_or(1 << number, Ordering::SeqCst);
    }

    /// Whether any is wanted.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// Moves what is wanted to list registers, and interrupts of `level`, a bit each, whose line is up. `room` is how
    /// many list registers the CPU has; what finds no place stays wanted. Returns whether the list has changed.
    pub(crate) fn place(
        &self,
        list: &mut ArrayVec<u64, MAX_LIST_REGISTERS>,
        room: usize,
        level: u64,
    ) -> bool {
        let mut is_new = false;
        let wanted = self.0.load(Ordering::SeqCst);
        for number in (0..64).filter(|number| (wanted | level) & 1 << number != 0) {
            let is_listed = |entry: &&mut u64| **entry & STATE != 0 && **entry as u32 == number;
            match list.iter_mut().find(is_listed) {
                // Pending already: one more is the same. A line that is still up when the guest is through with the
                // interrupt is looked at again then.
                Some(entry) if *entry & PENDING != 0 || level & 1 << number != 0 => {}
                Some(entry) => {
                    *entry |= PENDING;
                    is_new = true;
                }
                None => {
                    match list.iter().position(|entry| entry & STATE == 0) {
                        Some(place) => list[place] = pending(number),
                        None if list.len() < room.min(MAX_LIST_REGISTERS) => list.push(pending(number)),
                        None => break,
                    }
                    is_new = true;
                }
            }
            self.0.fetch_and(!(1 << number), Ordering::SeqCst);
        }
        is_new
    }
}

/// The vCPUs that a write of `value` to ICC_SGI1R_EL1 by vCPU `from` means, out of `count`, and the interrupt.
pub(crate) fn targets(value: u64, from: usize, count: usize) -> (impl Iterator<Item = usize>, u32) {
    // Arm IHI 0069, ICC_SGI1R_EL1. A vCPU's MPIDR has its index in Aff0 (four bits) and Aff1.
    let to_others = value & 1 << 40 != 0;
    let cluster = (value >> 16 & 0xff) as usize;
    let higher = value >> 32 & 0xff | value >> 48 & 0xff;
    let list = value & 0xffff;
    let is_meant = move |index: &usize| {
        if to_others {
            *index != from
        } else {
            higher == 0 && index / 16 == cluster && list & 1 << (index % 16) != 0
        }
    };
    ((0..count).filter(is_meant), (value >> 24 & 0xf) as u32)
}

/// What a guest reads as MPIDR_EL1 on a vCPU, without the bit that is always 1.
pub(crate) fn affinity(index: u64) -> u64 {
    let (cluster, place) = (index / 16, index % 16);
    cluster << 8 | place
}
