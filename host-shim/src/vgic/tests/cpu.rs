//! The virtual CPU interface in front of list registers, as hardware has it (IHI 0069, 4.8, 6.2 and 12.4).

use super::*;
use crate::vcpu::ListRegisters;
use crate::vgic::{ENDED_ELSEWHERE, NONE_PENDING, UNDERFLOW};

const ACTIVE: u64 = 1 << 63;
const PENDING: u64 = 1 << 62;
const GROUP1: u64 = 1 << 60;
const TELL_END: u64 = 1 << 41;
/// The lowest priority there is, which nothing has that can be taken.
pub(super) const IDLE: u8 = 0xff;

/// A CPU interface.
#[derive(Clone, Debug)]
pub(super) struct Cpu {
    room: usize,
    list: ListRegisters,
    control: u64,
    ended_elsewhere: u64,
    /// The priorities that are active, the last on top.
    running: Vec<u8>,
    /// What the priority must be above: numerically below.
    pub(super) mask: u8,
    /// Which groups are on.
    pub(super) groups: [bool; 2],
    /// EOImode: an end only drops the priority.
    pub(super) ends_apart: bool,
    /// What the timer is to say at an exit.
    pub(super) timer_control: u64,
}

fn priority(list: u64) -> u8 {
    (list >> 48) as u8
}

fn group(list: u64) -> usize {
    usize::from(list & GROUP1 != 0)
}

impl Cpu {
    pub(super) fn new(lists: u8) -> Self {
        Self {
            room: lists.into(),
            list: ListRegisters::new(),
            control: 0,
            ended_elsewhere: 0,
            running: Vec::new(),
            mask: IDLE,
            groups: [true; 2],
            ends_apart: false,
            timer_control: 0,
        }
    }

    pub(super) fn load(&mut self, load: &Load) {
        assert!(load.list.len() <= self.room);
        self.list = load.list.clone();
        self.control = load.control;
        self.ended_elsewhere = 0;
        let mut intids: Vec<_> = self.list.iter().map(|list| list & 0xffff_ffff).collect();
        intids.sort_unstable();
        intids.dedup();
        // IHI 0069, 12.4: no two list registers for the same interrupt, none with HW set.
        assert_eq!(intids.len(), self.list.len(), "{:x?}", self.list);
        assert!(self.list.iter().all(|list| list >> 61 & 1 == 0));
        assert_eq!(self.maintenance(), 0, "maintenance at once: {self:x?}");
    }

    pub(super) fn save(&self) -> Interrupts {
        Interrupts {
            list: self.list.clone(),
            maintenance: self.maintenance(),
            ended: self.told(),
            control: self.ended_elsewhere << 27,
            timer_control: self.timer_control,
            timer_compare: 0,
        }
    }

    pub(super) fn list(&self) -> &ListRegisters {
        &self.list
    }

    pub(super) const fn control(&self) -> u64 {
        self.control
    }

    /// The priority that runs.
    pub(super) fn running(&self) -> u8 {
        self.running.last().copied().unwrap_or(IDLE)
    }

    /// ICH_EISR_EL2.
    fn told(&self) -> u64 {
        (self.list.iter().enumerate())
            .filter(|(_, list)| **list & (ACTIVE | PENDING) == 0 && **list & TELL_END != 0)
            .fold(0, |told, (index, _)| told | 1 << index)
    }

    /// ICH_MISR_EL2, as far as it is used.
    pub(super) fn maintenance(&self) -> u64 {
        let in_use = |states| self.list.iter().filter(|list| *list & states != 0).count();
        let flag = |enable: u64, asserted: bool| if asserted { self.control & enable } else { 0 };
        u64::from(self.told() != 0)
            | flag(UNDERFLOW, in_use(ACTIVE | PENDING) <= 1)
            | flag(ENDED_ELSEWHERE, self.ended_elsewhere != 0)
            | flag(
                NONE_PENDING,
                !self.list.iter().any(|list| list & (ACTIVE | PENDING) == PENDING),
            )
    }

    /// What would be taken: the most urgent one that is pending, not active, and lets itself be taken.
    pub(super) fn signalled(&self) -> Option<usize> {
        let (index, list) = (self.list.iter().enumerate())
            .filter(|(_, list)| *list & (ACTIVE | PENDING) == PENDING && self.groups[group(**list)])
            .min_by_key(|(_, list)| priority(**list))?;
        let limit = self.mask.min(self.running());
        (priority(*list) < limit).then_some(index)
    }

    /// ICC_IAR.
    pub(super) fn acknowledge(&mut self) -> Option<u32> {
        let index = self.signalled()?;
        let list = &mut self.list[index];
        *list = *list & !PENDING | ACTIVE;
        self.running.push(priority(*list));
        Some(*list as u32)
    }

    /// ICC_EOIR.
    pub(super) fn end(&mut self, intid: u32) {
        self.running.pop().expect("an end without a beginning");
        if !self.ends_apart {
            self.deactivate(intid);
        }
    }

    /// ICC_DIR, or the second half of ICC_EOIR.
    pub(super) fn deactivate(&mut self, intid: u32) {
        let known = (self.list.iter_mut()).find(|list| **list as u32 == intid && **list & ACTIVE != 0);
        match known {
            Some(list) => *list &= !ACTIVE,
            None => self.ended_elsewhere += 1,
        }
    }
}
