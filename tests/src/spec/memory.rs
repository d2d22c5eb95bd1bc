//! All frames of a machine, as the specification has them.

use super::Holding;
use super::vm::Vms;
use std::collections::BTreeSet;

/// What a machine is like. Sizes are in frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// A region: what one entry of the map and one block of level 2 describe.
    pub region: u64,
    /// What one entry of level 1 describes.
    pub upper: u64,
    /// The most that is scrubbed between two looks at interrupts.
    pub step: u64,
    /// The numbers of the first frames of all regions, ascending.
    pub regions: Vec<u64>,
    /// Pages that EL2's pool had from boot, free and used.
    pub boot_pages: u64,
    /// Pages of these that roots and upper tables take for good.
    pub fixed_pages: u64,
    /// Pages that are to be kept back for topping up the pool.
    pub spare: u64,
    /// How many CPUs.
    pub cpus: usize,
    /// How many VMs there can be.
    pub places: usize,
    /// The fewest and the most bits that the IPAs of a guest may have on this machine.
    pub ipa_bits: (u64, u64),
}

/// The frames, and what goes with them. Equal memories behave alike, but for which page of the pool is which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// What each frame is, region by region.
    pub(in crate::spec) frames: Vec<Holding>,
    /// Which regions have an entry for each frame, which takes a page.
    pub(super) split_in_map: Vec<bool>,
    /// For which regions the host's table has entries for each frame, which take a page.
    pub(super) split_for_host: Vec<bool>,
    /// Pages that are kept back for topping up the pool.
    pub(super) spare: u64,
    /// The frame of each CPU's trace ring.
    pub(super) rings: Vec<Option<u64>>,
    /// Frames that answer with an error when they are scrubbed.
    pub(super) broken: BTreeSet<u64>,
    /// The VMs.
    pub(super) vms: Vms,
}

/// Frames of one region that a call names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The index of the region.
    pub(super) region: usize,
    /// The number of the first frame.
    pub(super) start: u64,
    /// The index of the first frame in [`Memory::frames`].
    pub(super) index: usize,
    /// How many.
    pub(super) frames: u64,
    /// Whether these are all frames of the region.
    pub(super) whole: bool,
}

impl Layout {
    /// The part of `start..end` that lies in the region of `start`; `None` if no RAM lies there.
    pub(super) fn piece(&self, start: u64, end: u64) -> Option<Piece> {
        let first = start - start % self.region;
        let region = self.regions.binary_search(&first).ok()?;
        let frames = end.min(first + self.region) - start;
        Some(Piece {
            region,
            start,
            index: region * self.region as usize + (start - first) as usize,
            frames,
            whole: frames == self.region,
        })
    }

    /// The index of a frame in [`Memory::frames`].
    pub(super) fn index(&self, frame: u64) -> Option<usize> {
        self.piece(frame, frame + 1).map(|piece| piece.index)
    }

    /// The number of the frame with an index.
    #[must_use]
    pub fn number(&self, index: usize) -> u64 {
        let region = self.region as usize;
        self.regions[index / region] + (index % region) as u64
    }
}

impl Memory {
    /// A machine in which everything is the host's.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let regions = layout.regions.len();
        Self {
            frames: vec![Holding::Host; regions * layout.region as usize],
            split_in_map: vec![false; regions],
            split_for_host: vec![false; regions],
            spare: layout.spare,
            rings: vec![None; layout.cpus],
            broken: BTreeSet::new(),
            vms: Vms::default(),
        }
    }

    /// What a frame is; `None` if it is no RAM.
    #[must_use]
    pub fn holding(&self, layout: &Layout, frame: u64) -> Option<Holding> {
        layout.index(frame).map(|index| self.frames[index])
    }

    /// All frames, region by region.
    #[must_use]
    pub fn frames(&self) -> &[Holding] {
        &self.frames
    }

    /// The frame breaks: whoever scrubs it gets an error.
    pub fn break_frame(&mut self, frame: u64) {
        self.broken.insert(frame);
    }

    /// What was done before the host ran, or by hand.
    ///
    /// # Panics
    /// If the frame is no RAM.
    pub fn put(&mut self, layout: &Layout, frame: u64, holding: Holding) {
        let index = layout.index(frame).expect("the frame is RAM");
        self.frames[index] = holding;
    }

    /// The frames of a region.
    pub(super) fn region(&self, layout: &Layout, region: usize) -> &[Holding] {
        let size = layout.region as usize;
        &self.frames[region * size..(region + 1) * size]
    }

    /// The one holding of all frames of a region.
    pub(super) fn uniform(&self, layout: &Layout, region: usize) -> Option<Holding> {
        let frames = self.region(layout, region);
        let first = frames[0];
        let agree = |(frame, offset): (&Holding, u64)| *frame == first.at(offset);
        frames.iter().zip(0..).all(agree).then_some(first)
    }

    pub(super) fn of(&self, piece: Piece) -> &[Holding] {
        &self.frames[piece.index..piece.index + piece.frames as usize]
    }

    /// Changes `count` frames of a piece from its frame `first` on.
    pub(super) fn set(&mut self, piece: Piece, first: u64, count: u64, holding: Holding) {
        let from = piece.index + first as usize;
        self.frames[from..from + count as usize].fill(holding);
        // A change of a part needs entries for each frame; a change of all of them needs one entry only.
        self.split_in_map[piece.region] = count < self.region_size();
    }

    fn region_size(&self) -> u64 {
        (self.frames.len() / self.split_in_map.len()) as u64
    }

    /// Makes whole again what agrees: at the end of a call that names several frames, and on `Collapse`.
    pub(super) fn fold(&mut self, layout: &Layout, region: usize) {
        let Some(holding) = self.uniform(layout, region) else {
            return;
        };
        if holding.may_be_whole() {
            self.split_in_map[region] = false;
        }
        if holding.host_reaches() {
            self.split_for_host[region] = false;
        }
    }

    /// The VMs.
    #[must_use]
    pub const fn vms(&self) -> &Vms {
        &self.vms
    }

    /// The same, without what only counts what has been: such memories behave alike.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut memory = self.clone();
        memory.vms.forget_the_past();
        memory
    }

    /// The region of `frame` was split before the host ran.
    pub fn split(&mut self, layout: &Layout, frame: u64) {
        if let Some(piece) = layout.piece(frame, frame + 1) {
            self.split_in_map[piece.region] = true;
            self.split_for_host[piece.region] = true;
        }
    }

    /// Splits a region, in the map and for the host, as it was found.
    pub(super) fn take_split(&mut self, region: usize, (map, host): (bool, bool)) {
        self.split_in_map[region] = map;
        self.split_for_host[region] = host;
    }

    /// Splits as another memory has them.
    pub(super) fn take_splits(&mut self, other: &Self) {
        self.split_in_map.clone_from(&other.split_in_map);
        self.split_for_host.clone_from(&other.split_for_host);
    }
}
