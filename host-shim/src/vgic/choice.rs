//! Which interrupts get a list register.

use super::bank::Bank;
use super::list::{ENDED_ELSEWHERE, NONE_PENDING, UNDERFLOW};
use arrayvec::ArrayVec;
use hyp_abi::run_page::MAX_LIST_REGISTERS;

/// An interrupt that should be in a list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) intid: u32,
    /// Offered as pending, if it is. Otherwise it is only active.
    pub(super) offer: bool,
    priority: u8,
    group1: bool,
}

impl Candidate {
    /// The more urgent is the lesser: of two with the same priority, the one with the lower number.
    const fn urgency(self) -> (u8, u32) {
        (self.priority, self.intid)
    }
}

/// Interrupts, the most urgent first; of more than there is room for, only the most urgent.
#[derive(Debug, Default)]
struct Ranking {
    best: ArrayVec<Candidate, MAX_LIST_REGISTERS>,
    /// How many there were, with those that are left out.
    seen: usize,
}

impl Ranking {
    fn insert(&mut self, new: Candidate, room: usize) {
        self.seen += 1;
        let place = (self.best)
            .iter()
            .take_while(|known| known.urgency() <= new.urgency())
            .count();
        if place >= room {
            return;
        }
        self.best.truncate(room - 1);
        self.best.insert(place, new);
    }
}

/// What a vCPU has pending and active, as far as it can matter.
#[derive(Debug)]
pub(super) struct Choice {
    room: usize,
    pending: Ranking,
    active: Ranking,
    /// The most urgent pending one of each group. The CPU interface can have a group off, so that the one of the other
    /// group is all that the guest will take.
    heads: [Option<Candidate>; 2],
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) list: ArrayVec<Candidate, MAX_LIST_REGISTERS>,
    /// ICH_HCR_EL2.
    pub(super) control: u64,
    /// How many active ones are not in it.
    pub(super) active_left_out: usize,
    /// The end of each interrupt in it should bring the vCPU back.
    pub(super) tell_ends: bool,
}

impl Choice {
    /// A choice for `room` list registers.
    pub(super) fn new(room: u8) -> Self {
        Self {
            room: usize::from(room).clamp(1, MAX_LIST_REGISTERS),
            pending: Ranking::default(),
            active: Ranking::default(),
            heads: [None; 2],
        }
    }

    /// An interrupt is active, or pending and enabled. `deliver` says whether the distributor lets pending ones through.
    pub(super) fn consider(&mut self, bank: &Bank, at: usize, first: u32, deliver: bool) {
        let bit = 1 << at;
        let group1 = bank.group1 & bit != 0;
        let candidate = Candidate {
            intid: first + at as u32,
            offer: deliver && bank.deliverable() & bit != 0,
            priority: bank.urgency(at),
            group1,
        };
        if bank.active & bit != 0 {
            self.active.insert(candidate, self.room);
        } else if candidate.offer {
            self.pending.insert(candidate, self.room);
            let head = &mut self.heads[usize::from(group1)];
            if head.is_none_or(|head| candidate.urgency() < head.urgency()) {
                *head = Some(candidate);
            }
        }
    }

    /// Whether nothing is to be listed.
    pub(super) const fn is_empty(&self) -> bool {
        self.pending.seen + self.active.seen == 0
    }

    /// Decides.
    pub(super) fn choose(self) -> Chosen {
        let mut list = ArrayVec::new();
        if self.pending.seen + self.active.seen <= self.room {
            list.extend(self.active.best);
            list.extend(self.pending.best);
            return Chosen {
                list,
                control: 0,
                active_left_out: 0,
                tell_ends: false,
            };
        }
        // Of the heads the more urgent comes first, should there be room for one.
        let mut heads: ArrayVec<Candidate, 2> = self.heads.into_iter().flatten().collect();
        heads.sort_unstable_by_key(|head| head.urgency());
        let mixed = heads.len() == 2;
        let is_head = |candidate: &Candidate| heads.iter().any(|head| head.intid == candidate.intid);
        let rest = self.pending.best.iter().filter(|candidate| !is_head(candidate));
        list.extend(
            (heads.iter())
                .chain(&self.active.best)
                .chain(rest)
                .copied()
                .take(self.room),
        );
        let listed_active = (self.active.best.iter())
            .filter(|active| list.contains(active))
            .count();
        let active_left_out = self.active.seen - listed_active;
        let pending_left_out = list.len() - listed_active < self.pending.seen;
        let mut control = 0;
        if active_left_out > 0 {
            control |= ENDED_ELSEWHERE;
        }
        if pending_left_out {
            control |= NONE_PENDING;
            // With one list register alone it would bring the vCPU back at once, for ever.
            if list.len() > 1 {
                control |= UNDERFLOW;
            }
        }
        Chosen {
            list,
            control,
            active_left_out,
            // A group that is off keeps its list registers pending, so that they never run dry.
            tell_ends: mixed && pending_left_out,
        }
    }
}
