//! The state of 32 interrupts, a bit for each in every word: what the registers of the distributor and of a
//! redistributor show.
//!
//! An interrupt that is in a list register of a running vCPU is *listed*. What the guest does with it is not seen until
//! the vCPU has left; what is done to it here meanwhile is noted, and applied then.

use super::list::ListRegister;
use super::register::Bits;

/// 32 interrupts.
#[derive(Debug)]
pub(super) struct Bank {
    /// Those that exist.
    valid: u32,
    pub(super) enabled: u32,
    /// Pending by an edge, by software, or by a message: until acknowledged.
    pub(super) latch: u32,
    /// The lines that are high.
    pub(super) level: u32,
    /// Edge-triggered; the others are level-sensitive.
    pub(super) edge: u32,
    /// Group 1; the others are of group 0.
    pub(super) group1: u32,
    /// Of those that are listed: as they were when they were listed.
    pub(super) active: u32,
    /// In a list register.
    pub(super) listed: u32,
    /// Listed as pending, whether or not the guest has acknowledged them since.
    offered: u32,
    /// Listed as pending because of the latch, which is clear since.
    by_latch: u32,
    /// No longer to be pending when they come back.
    recalled: u32,
    /// To be active when they come back.
    begun: u32,
    /// Not to be active when they come back.
    ended: u32,
    pub(super) priority: [u8; 32],
    /// Active ones that the guest has acknowledged: software made the others so.
    acknowledged: u32,
    /// The priority at which it did. It ends them in that order, whatever their priority is by now.
    running: [u8; 32],
}

/// What a list register held when its vCPU left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    /// A level-sensitive interrupt that the guest has ended.
    pub(super) level_ended: bool,
}

impl Bank {
    /// Those of a vCPU: 16 SGIs, which are edge-triggered and enabled, and 16 PPIs, which are level-sensitive. All are
    /// of group 1, as KVM has them.
    pub(super) const fn private() -> Self {
        Self {
            enabled: 0xffff,
            edge: 0xffff,
            ..Self::shared(u32::MAX)
        }
    }

    /// SPIs, of which those in `valid` exist: level-sensitive, of group 1.
    pub(super) const fn shared(valid: u32) -> Self {
        Self {
            valid,
            enabled: 0,
            latch: 0,
            level: 0,
            edge: 0,
            group1: valid,
            active: 0,
            listed: 0,
            offered: 0,
            by_latch: 0,
            recalled: 0,
            begun: 0,
            ended: 0,
            priority: [0; 32],
            acknowledged: 0,
            running: [0; 32],
        }
    }

    /// Whether the interrupt exists.
    pub(super) const fn has(&self, at: usize) -> bool {
        at < 32 && self.valid >> at & 1 != 0
    }

    /// Those that are pending, apart from what is in list registers.
    pub(super) const fn pending(&self) -> u32 {
        self.latch | self.level & !self.edge
    }

    /// Those that a vCPU should get into a list register.
    pub(super) const fn deliverable(&self) -> u32 {
        self.pending() & self.enabled & !self.listed
    }

    /// Reads one of the registers that have a bit for each interrupt.
    pub(super) const fn read(&self, register: Bits) -> u32 {
        match register {
            Bits::Group => self.group1,
            Bits::SetEnable | Bits::ClearEnable => self.enabled,
            Bits::SetPending | Bits::ClearPending => self.pending() | self.offered,
            Bits::SetActive | Bits::ClearActive => self.active,
        }
    }

    /// Writes one of them. Returns the interrupts that are touched.
    pub(super) const fn write(&mut self, register: Bits, value: u32) -> u32 {
        let value = value & self.valid;
        let listed = value & self.listed;
        match register {
            Bits::Group => {
                let touched = self.group1 ^ value;
                self.group1 = value;
                return touched;
            }
            Bits::SetEnable => self.enabled |= value,
            Bits::ClearEnable => self.enabled &= !value,
            Bits::SetPending => self.latch |= value,
            Bits::ClearPending => {
                self.latch &= !value;
                self.recalled |= listed;
            }
            Bits::SetActive => {
                self.active |= value;
                self.begun |= listed;
                self.ended &= !listed;
            }
            Bits::ClearActive => {
                // What is listed and was not active then may be by now: only the vCPU's leaving tells.
                self.ended |= listed & self.active;
                self.begun &= !listed;
                self.end(value);
            }
        }
        value
    }

    /// Makes interrupts inactive.
    pub(super) const fn end(&mut self, interrupts: u32) {
        self.active &= !interrupts;
        self.acknowledged &= !interrupts;
    }

    /// The priority that counts.
    pub(super) const fn urgency(&self, at: usize) -> u8 {
        if self.acknowledged >> at & 1 != 0 {
            self.running[at]
        } else {
            self.priority[at]
        }
    }

    /// Reads the priorities of `count` interrupts from `at` on, lowest first.
    pub(super) fn read_priorities(&self, at: usize, count: usize) -> u32 {
        (self.priority.iter().skip(at).take(count))
            .rev()
            .fold(0, |value, priority| value << 8 | u32::from(*priority))
    }

    /// Writes them, as far as there are bits (`mask`). Returns the interrupts that are touched.
    pub(super) fn write_priorities(&mut self, at: usize, count: usize, value: u32, mask: u8) -> u32 {
        let mut touched = 0;
        for ((at, priority), byte) in (self.priority.iter_mut().enumerate().skip(at))
            .take(count)
            .zip(value.to_le_bytes())
        {
            if self.valid >> at & 1 != 0 && *priority != byte & mask {
                *priority = byte & mask;
                touched |= 1 << at;
            }
        }
        touched
    }

    /// Reads the configuration of the lower or the upper 16: two bits each, of which the upper one says edge.
    pub(super) fn read_config(&self, upper: bool) -> u32 {
        let edge = if upper {
            self.edge >> 16
        } else {
            self.edge & 0xffff
        };
        (0..16).fold(0, |value, at| value | (edge >> at & 1) << (2 * at + 1))
    }

    /// Writes it. Returns the interrupts that are touched.
    pub(super) fn write_config(&mut self, upper: bool, value: u32) -> u32 {
        let edge = (0..16).fold(0, |edge, at| edge | (value >> (2 * at + 1) & 1) << at);
        let (half, edge) = if upper {
            (0xffff_0000, edge << 16)
        } else {
            (0xffff, edge)
        };
        let touched = (self.edge ^ edge) & half & self.valid;
        self.edge ^= touched;
        touched
    }

    /// The line of an interrupt is high or low. An edge-triggered one becomes pending each time it is said to be high.
    /// Returns the interrupts that are touched.
    pub(super) const fn drive(&mut self, at: usize, high: bool) -> u32 {
        let bit = 1 << at & self.valid;
        let touched;
        if self.edge & bit != 0 {
            touched = if high { bit } else { 0 };
            self.latch |= touched;
        } else {
            let level = if high { bit } else { 0 };
            touched = (self.level ^ level) & bit;
            self.level ^= touched;
        }
        touched
    }

    /// Sets the latches that are shown to user space: all of them. Returns the interrupts that are touched.
    pub(super) const fn set_latches(&mut self, value: u32) -> u32 {
        self.latch = value & self.valid;
        self.valid
    }

    /// The lines that user space sees high.
    pub(super) const fn lines(&self) -> u32 {
        self.level & !self.edge
    }

    /// Sets lines, whatever the interrupts' configuration is to be. Returns the interrupts that are touched.
    pub(super) const fn set_lines(&mut self, mask: u32, value: u32) -> u32 {
        let mask = mask & self.valid;
        self.level = self.level & !mask | value & mask;
        mask
    }

    /// Takes an interrupt to a list register: active, pending if it is to be offered, or both. A level-sensitive one
    /// that is active is not offered again before it is ended, since only then its line counts; its end is told.
    pub(super) const fn list(&mut self, at: usize, offer: bool) -> ListRegister {
        let bit = 1 << at;
        let level = self.edge & bit == 0;
        let active = self.active & bit != 0;
        let pending = offer && self.pending() & bit != 0 && !(level && active);
        self.listed |= bit;
        if pending {
            self.offered |= bit;
            self.by_latch |= self.latch & bit;
            self.latch &= !bit;
        }
        ListRegister {
            pending,
            active,
            group1: self.group1 & bit != 0,
            priority: self.priority[at],
            tell_end: level,
        }
    }

    /// Takes an interrupt back from a list register.
    pub(super) const fn fold(&mut self, at: usize, now: ListRegister) -> Folded {
        let bit = 1 << at;
        if self.offered & bit != 0 && !now.pending && now.active {
            self.acknowledged |= bit;
            self.running[at] = now.priority;
        }
        // What was not acknowledged is pending still; that of a line is, as long as the line is high.
        if now.pending && self.by_latch & bit != 0 && self.recalled & bit == 0 {
            self.latch |= bit;
        }
        let active = (now.active || self.begun & bit != 0) && self.ended & bit == 0;
        if active {
            self.active |= bit;
        } else {
            self.end(bit);
        }
        self.listed &= !bit;
        self.offered &= !bit;
        self.by_latch &= !bit;
        self.recalled &= !bit;
        self.begun &= !bit;
        self.ended &= !bit;
        Folded {
            level_ended: now.tell_end && !now.pending && !now.active && self.edge & bit == 0,
        }
    }
}
