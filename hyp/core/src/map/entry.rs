//! One entry of the ownership map: 8 bytes.
//!
//! | bits | of a frame or a uniform region | of a region whose frames differ |
//! |---|---|---|
//! | 0 | lock (regions only) | lock |
//! | 1 | 0 | 1 |
//! | 5:2 | state | |
//! | 11:2 | | how many neighbours in the node differ |
//! | 7:6 | zero, room for more states | |
//! | 15:8 | VM slot | |
//! | 27:16 | count of pins or borrowers | |
//! | 63:28 | guest frame number (36 bits), or the state's own detail | |
//! | 47:12 | | address of the node |
//!
//! Two entries of neighbouring frames *agree* if the second is what a uniform region would have there: the same
//! entry, or, where frames are numbered, the next guest frame number. A node counts the neighbours that do not
//! agree; when it reaches zero the region is uniform, and nobody had to look through 512 entries to know.

use crate::addr::Frame;
use crate::hardware::TablePage;
use crate::state::{HypUse, State, Transit, TransitReason};
use crate::sync::{AtomicU64, Ordering};

const LOCK: u64 = 1;
const NODE: u64 = 1 << 1;
const STATE_SHIFT: u32 = 2;
const STATE_MASK: u64 = 0xf;
const SLOT_SHIFT: u32 = 8;
const SLOT_MASK: u64 = 0xff;
const COUNT_SHIFT: u32 = 16;
const COUNT_MASK: u64 = 0xfff;
const DETAIL_SHIFT: u32 = 28;
const BREAKS_SHIFT: u32 = 2;
const BREAKS_MASK: u64 = 0x3ff;
const ADDRESS_MASK: u64 = 0x0000_ffff_ffff_f000;

/// The bit of a region's word that is its lock.
pub(super) const LOCK_BIT: u64 = LOCK;

/// The most pins or borrowers that an entry can count.
pub const MAX_COUNT: u16 = COUNT_MASK as u16;

/// The state of one frame, or of every frame of a uniform region, with all that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry(u64);

impl Entry {
    /// The entry of a frame in `state` with nothing else to tell.
    #[must_use]
    #[inline]
    pub const fn plain(state: State) -> Self {
        Self((state as u64) << STATE_SHIFT)
    }

    /// A frame of EL2's own.
    #[must_use]
    #[inline]
    pub const fn hyp(used_for: HypUse) -> Self {
        Self::plain(State::Hyp).with_detail(used_for as u64)
    }

    /// A frame in transit.
    #[must_use]
    #[inline]
    pub const fn in_transit(transit: Transit) -> Self {
        let detail = transit.reason as u64 | (transit.active as u64) << 4 | (transit.progress as u64) << 8;
        Self::plain(State::InTransit).with_detail(detail)
    }

    /// A frame of a guest: private, or shared with the host.
    #[must_use]
    #[inline]
    pub const fn guest(shared: bool, slot: u8, gfn: u64) -> Self {
        let state = if shared {
            State::GuestSharedHost
        } else {
            State::Guest
        };
        let Self(word) = Self::plain(state).with_detail(gfn);
        Self(word | (slot as u64) << SLOT_SHIFT)
    }

    /// A frame of the host that `borrowers` guests borrow; `None` past [`MAX_COUNT`]. With no borrower it is plainly
    /// the host's.
    #[must_use]
    #[inline]
    pub const fn borrowed(borrowers: u16) -> Option<Self> {
        if borrowers == 0 {
            return Some(Self::plain(State::Host));
        }
        Self::plain(State::HostSharedGuest).with_count(borrowers)
    }

    /// The entry with another count of pins or borrowers; `None` past [`MAX_COUNT`].
    #[must_use]
    #[inline]
    pub const fn with_count(self, count: u16) -> Option<Self> {
        if count > MAX_COUNT {
            return None;
        }
        Some(Self(
            self.0 & !(COUNT_MASK << COUNT_SHIFT) | (count as u64) << COUNT_SHIFT,
        ))
    }

    const fn with_detail(self, detail: u64) -> Self {
        // Shifting out the bits above 36 keeps the fields apart whatever the caller gives.
        Self(self.0 & ((1 << DETAIL_SHIFT) - 1) | detail << DETAIL_SHIFT)
    }

    /// The state.
    #[must_use]
    #[inline]
    pub fn state(self) -> State {
        // Entries are only made from states; a number that is none would be memory corruption, and the safe
        // reading of that is a frame that nobody may touch.
        State::try_from(((self.0 >> STATE_SHIFT) & STATE_MASK) as u8).unwrap_or(State::Poisoned)
    }

    /// The slot of the VM that owns the frame; meaningful for a guest's frames only.
    #[must_use]
    #[inline]
    pub const fn slot(self) -> u8 {
        ((self.0 >> SLOT_SHIFT) & SLOT_MASK) as u8
    }

    /// The count of pins or borrowers.
    #[must_use]
    #[inline]
    pub const fn count(self) -> u16 {
        ((self.0 >> COUNT_SHIFT) & COUNT_MASK) as u16
    }

    /// The guest frame number; meaningful for a guest's frames only.
    #[must_use]
    #[inline]
    pub const fn gfn(self) -> u64 {
        self.0 >> DETAIL_SHIFT
    }

    /// What EL2 uses the frame for, if it is EL2's.
    #[must_use]
    #[inline]
    pub fn hyp_use(self) -> Option<HypUse> {
        if self.state() != State::Hyp {
            return None;
        }
        HypUse::try_from(self.0 >> DETAIL_SHIFT).ok()
    }

    /// How far the transit of the frame has come, if it is in transit.
    #[must_use]
    pub fn transit(self) -> Option<Transit> {
        if self.state() != State::InTransit {
            return None;
        }
        let detail = self.0 >> DETAIL_SHIFT;
        let reason = TransitReason::try_from((detail & 0xf) as u8).ok()?;
        Some(Transit {
            reason,
            active: detail & 1 << 4 != 0,
            progress: (detail >> 8) as u16,
        })
    }

    /// [`State::is_numbered`] of its state: states 6 and 7, and no others, which a test holds it to.
    #[inline(always)]
    const fn is_numbered(self) -> bool {
        (self.0 >> (STATE_SHIFT + 1)) & (STATE_MASK >> 1) == 3
    }

    /// What the entry of the frame `index` further on is, if this one's region is uniform.
    #[must_use]
    #[inline]
    pub fn at(self, index: usize) -> Self {
        if self.is_numbered() {
            // A region's guest frame numbers were checked to fit when the region was given.
            Self(self.0.wrapping_add((index as u64) << DETAIL_SHIFT))
        } else {
            self
        }
    }

    /// Writes what the frames from this one on have, if their region is uniform.
    pub(super) fn fill(self, words: &[AtomicU64]) {
        let step = self.at(1).0.wrapping_sub(self.0);
        let mut next = self.0;
        let mut store = |word: &AtomicU64| {
            word.store(next, Ordering::Relaxed);
            next = next.wrapping_add(step);
        };
        // Eight at once: the first change in a region pays for all of its frames.
        let (eights, rest) = words.as_chunks::<8>();
        eights.iter().for_each(|eight| eight.iter().for_each(&mut store));
        rest.iter().for_each(store);
    }

    /// Whether the entry of the next frame is what a uniform region would have there.
    #[must_use]
    #[inline]
    pub fn agrees_with_next(self, next: Self) -> bool {
        self.at(1).0 == next.0
    }

    /// The entry as it is stored in a node.
    #[must_use]
    #[inline]
    pub(super) const fn to_word(self) -> u64 {
        self.0
    }

    /// The entry that a node stores.
    #[must_use]
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self(word & !(LOCK | NODE))
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut out = f.debug_struct("Entry");
        out.field("state", &self.state());
        if self.state().is_numbered() {
            out.field("slot", &self.slot()).field("gfn", &self.gfn());
        }
        if let Some(used_for) = self.hyp_use() {
            out.field("use", &used_for);
        }
        if let Some(transit) = self.transit() {
            out.field("transit", &transit);
        }
        out.field("count", &self.count()).finish()
    }
}

/// What a region's word says, also to whoever looks at a machine's memory from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionWord {
    /// Every frame agrees with the one before it; this is the first one's entry.
    Uniform(Entry),
    /// Frames differ.
    Node {
        /// The node of entries, one a frame.
        page: TablePage,
        /// How many neighbours in it do not agree.
        breaks: u16,
    },
}

impl RegionWord {
    /// What `word` says; its lock bit is not looked at.
    #[must_use]
    #[inline]
    pub const fn decode(word: u64) -> Self {
        if word & NODE == 0 {
            return Self::Uniform(Entry::from_word(word));
        }
        let address = word & ADDRESS_MASK;
        let breaks = ((word >> BREAKS_SHIFT) & BREAKS_MASK) as u16;
        match Frame::new(address >> crate::addr::FRAME_SHIFT) {
            Some(frame) => Self::Node {
                page: TablePage::new(frame),
                breaks,
            },
            // Not reached: 48 bits of address always make a frame.
            None => Self::Uniform(Entry::plain(State::Poisoned)),
        }
    }

    /// The word, with the lock bit clear.
    #[inline]
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Uniform(entry) => entry.to_word(),
            Self::Node { page, breaks } => {
                page.frame().address().value() | (breaks as u64) << BREAKS_SHIFT | NODE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_filled_as_its_frames_are_numbered() {
        for entry in every_entry() {
            for frames in [1, 7, 8, 9, 512] {
                let words: std::vec::Vec<_> = (0..frames).map(|_| AtomicU64::new(0)).collect();
                entry.fill(&words);
                for (index, word) in words.iter().enumerate() {
                    assert_eq!(Entry::from_word(word.load(Ordering::Relaxed)), entry.at(index));
                }
            }
        }
    }

    fn every_entry() -> std::vec::Vec<Entry> {
        let mut entries: std::vec::Vec<Entry> = State::all().map(Entry::plain).collect();
        for used_for in [HypUse::Boot, HypUse::Pool, HypUse::Donated] {
            entries.push(Entry::hyp(used_for));
        }
        for reason in [
            TransitReason::Donate,
            TransitReason::Reclaim,
            TransitReason::Drain,
            TransitReason::GuestDonate,
            TransitReason::GuestReclaim,
            TransitReason::GuestForce,
            TransitReason::GuestRelinquish,
            TransitReason::TopUp,
        ] {
            for active in [false, true] {
                entries.push(Entry::in_transit(Transit {
                    reason,
                    active,
                    progress: 511,
                }));
            }
        }
        for gfn in [0, 1, (1 << 36) - 1] {
            entries.push(Entry::guest(false, 0, gfn));
            entries.push(Entry::guest(true, 254, gfn).with_count(7).unwrap());
        }
        entries
    }

    #[test]
    fn an_entry_survives_its_word() {
        for entry in every_entry() {
            assert_eq!(Entry::from_word(entry.to_word()), entry);
            assert_eq!(
                RegionWord::decode(RegionWord::Uniform(entry).encode()),
                RegionWord::Uniform(entry)
            );
            assert_eq!(
                RegionWord::decode(entry.to_word() | LOCK),
                RegionWord::Uniform(entry)
            );
        }
    }

    #[test]
    fn the_same_states_are_numbered_by_both_tests() {
        for entry in every_entry() {
            assert_eq!(entry.is_numbered(), entry.state().is_numbered(), "{entry:?}");
        }
    }

    #[test]
    fn a_node_survives_its_word() {
        for number in [0, 1, 0x40000, (1 << 36) - 1] {
            for breaks in [0, 1, 511] {
                let node = RegionWord::Node {
                    page: TablePage::new(Frame::new(number).unwrap()),
                    breaks,
                };
                assert_eq!(RegionWord::decode(node.encode()), node);
                assert_eq!(RegionWord::decode(node.encode() | LOCK), node);
            }
        }
    }

    #[test]
    fn fields_do_not_touch_each_other() {
        let entry = Entry::guest(true, 0xff, (1 << 36) - 1)
            .with_count(MAX_COUNT)
            .unwrap();
        assert_eq!((entry.state(), entry.slot()), (State::GuestSharedHost, 0xff));
        assert_eq!((entry.gfn(), entry.count()), ((1 << 36) - 1, MAX_COUNT));
        assert_eq!(entry.with_count(0).unwrap().gfn(), (1 << 36) - 1);
        assert!(entry.with_count(MAX_COUNT + 1).is_none());
        let transit = Transit {
            reason: TransitReason::Drain,
            active: true,
            progress: 512,
        };
        assert_eq!(Entry::in_transit(transit).transit(), Some(transit));
    }

    #[test]
    fn neighbours_agree_when_a_uniform_region_would_hold_them() {
        let host = Entry::plain(State::Host);
        assert!(host.agrees_with_next(host));
        assert!(!host.agrees_with_next(Entry::plain(State::HostSharedHyp)));
        let guest = Entry::guest(false, 3, 100);
        assert!(guest.agrees_with_next(guest.at(1)));
        assert!(
            !guest.agrees_with_next(guest),
            "two frames cannot be the same guest frame"
        );
        assert!(!guest.agrees_with_next(guest.at(2)));
    }
}
