//! Where the distributor and the redistributors are in the guest's address space.

use super::Errno;
use crate::vgic::{Frame, VcpuSet};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::ops::Range;
use hyp_abi::vm::MAX_VCPUS;

/// Frames begin at multiples of this.
const ALIGNMENT: u64 = 0x1_0000;

/// A region of redistributors.
#[derive(Clone, Debug)]
pub(super) struct Region {
    base: u64,
    /// How many there can be; `None` for as many as there are vCPUs: the region is the only one.
    count: Option<u64>,
    /// Whose they are, in order.
    vcpus: ArrayVec<u8, MAX_VCPUS>,
}

impl Region {
    /// How many redistributors there are or can be.
    fn capacity(&self, vcpus: usize) -> u64 {
        self.count.unwrap_or(vcpus as u64)
    }

    fn range(&self, vcpus: usize) -> Range<u64> {
        self.base..self.base + self.capacity(vcpus) * Frame::REDISTRIBUTOR
    }

    fn has_room(&self) -> bool {
        self.count.is_none_or(|count| (self.vcpus.len() as u64) < count)
    }
}

/// What user space says of it, as far as it has.
#[derive(Debug)]
pub(super) struct Placement {
    ipa_bits: u32,
    distributor: Option<u64>,
    /// More than there are vCPUs have no use: there is room for these from the start, and it is never moved. It is on the
    /// heap, since it is larger than a kernel has room for on a stack.
    regions: Vec<Region>,
    /// In the order in which they came.
    vcpus: ArrayVec<u8, MAX_VCPUS>,
}

impl Placement {
    pub(super) fn new(ipa_bits: u32) -> Self {
        Self {
            ipa_bits,
            distributor: None,
            regions: Vec::with_capacity(MAX_VCPUS),
            vcpus: ArrayVec::new_const(),
        }
    }

    pub(super) fn vcpus(&self) -> VcpuSet {
        self.vcpus.iter().map(|vcpu| usize::from(*vcpu)).collect()
    }

    pub(super) const fn distributor(&self) -> Option<u64> {
        self.distributor
    }

    pub(super) fn first_base(&self) -> Option<u64> {
        self.regions.first().map(|region| region.base)
    }

    /// A region, as user space reads it: count (63:52), base (51:16), index (11:0).
    pub(super) fn region(&self, index: u64) -> Result<u64, Errno> {
        let index = index & 0xfff;
        let region = (self.regions.get(index as usize)).ok_or(Errno::NotFound)?;
        Ok(region.count.unwrap_or(0) << 52 | region.base | index)
    }

    pub(super) fn set_distributor(&mut self, base: u64) -> Result<(), Errno> {
        if self.distributor.is_some() {
            return Err(Errno::Exists);
        }
        self.check(base, Frame::DISTRIBUTOR)?;
        self.distributor = Some(base);
        Ok(())
    }

    /// One region for all redistributors.
    pub(super) fn set_all(&mut self, base: u64) -> Result<(), Errno> {
        match self.regions.first() {
            Some(Region { count: Some(_), .. }) => return Err(Errno::Invalid),
            Some(Region { count: None, .. }) => return Err(Errno::Exists),
            None => {}
        }
        let size = self.vcpus.len() as u64 * Frame::REDISTRIBUTOR;
        let end = base.checked_add(size).ok_or(Errno::Invalid)?;
        if (self.distributor_range()).is_some_and(|distributor| overlap(&distributor, &(base..end))) {
            return Err(Errno::Invalid);
        }
        self.add(base, None, size)
    }

    /// One of several regions: count (63:52), base (51:16), flags (15:12, zero), index (11:0, the next).
    pub(super) fn add_region(&mut self, value: u64) -> Result<(), Errno> {
        let (count, base) = (value >> 52, value & 0x000f_ffff_ffff_0000);
        let (flags, index) = (value >> 12 & 0xf, value & 0xfff);
        if count == 0 || flags != 0 {
            return Err(Errno::Invalid);
        }
        let size = count * Frame::REDISTRIBUTOR;
        let end = base.checked_add(size).ok_or(Errno::Invalid)?;
        let mixed = (self.regions.first()).is_some_and(|region| region.count.is_none());
        if mixed || index != self.regions.len() as u64 {
            return Err(Errno::Invalid);
        }
        if (self.regions.iter()).any(|region| overlap(&region.range(self.vcpus.len()), &(base..end))) {
            return Err(Errno::Invalid);
        }
        self.add(base, Some(count), size)
    }

    fn add(&mut self, base: u64, count: Option<u64>, size: u64) -> Result<(), Errno> {
        self.check(base, size)?;
        let region = Region {
            base,
            count,
            vcpus: ArrayVec::new_const(),
        };
        if self.regions.len() >= MAX_VCPUS {
            return Err(Errno::NoMemory);
        }
        self.regions.push(region);
        let placed: VcpuSet = self.placed().map(|(vcpu, _)| vcpu).collect();
        let waiting: ArrayVec<u8, MAX_VCPUS> = (self.vcpus.iter().copied())
            .filter(|vcpu| !placed.contains((*vcpu).into()))
            .collect();
        for vcpu in waiting {
            if let Err(error) = self.place(vcpu) {
                self.regions.pop();
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn add_vcpu(&mut self, vcpu: usize) -> Result<(), Errno> {
        if self.vcpus().contains(vcpu) {
            return Err(Errno::Exists);
        }
        let vcpu = vcpu as u8;
        self.vcpus.try_push(vcpu).map_err(|_| Errno::Invalid)?;
        self.place(vcpu).inspect_err(|_| {
            self.vcpus.pop();
        })
    }

    /// Forgets the vCPU that was added last, and its place.
    pub(super) fn remove_vcpu(&mut self, vcpu: usize) {
        let is_it = |last: Option<&u8>| last.is_some_and(|last| usize::from(*last) == vcpu);
        if is_it(self.vcpus.last()) {
            self.vcpus.pop();
        }
        for region in &mut self.regions {
            if is_it(region.vcpus.last()) {
                region.vcpus.pop();
            }
        }
    }

    /// Gives a vCPU's redistributor the next place, if there is one yet.
    fn place(&mut self, vcpu: u8) -> Result<(), Errno> {
        let Some(index) = self.regions.iter().position(Region::has_room) else {
            return Ok(());
        };
        if !self.is_sound() {
            return Err(Errno::Invalid);
        }
        if let Some(region) = self.regions.get_mut(index) {
            region.vcpus.push(vcpu);
        }
        Ok(())
    }

    /// Whose redistributor is where.
    fn placed(&self) -> impl Iterator<Item = (usize, u64)> {
        self.regions.iter().flat_map(|region| {
            let bases = (0..).map(|place| region.base + place * Frame::REDISTRIBUTOR);
            (region.vcpus.iter()).map(|vcpu| usize::from(*vcpu)).zip(bases)
        })
    }

    /// The vCPUs after whose redistributor none follows: the last of each region, unless another region begins there.
    pub(super) fn last(&self) -> VcpuSet {
        let follows = |address| self.placed().any(|(_, base)| base == address);
        (self.placed())
            .filter(|(_, base)| !follows(base + Frame::REDISTRIBUTOR))
            .map(|(vcpu, _)| vcpu)
            .collect()
    }

    /// Everything in its place, if it is. `regions` is empty, and has room for [`MAX_VCPUS`].
    pub(super) fn layout(&self, mut regions: Vec<Region>) -> Result<Layout, Errno> {
        if self.placed().count() < self.vcpus.len() {
            return Err(Errno::NoSuchAddress);
        }
        let distributor = self.distributor.ok_or(Errno::NoSuchAddress)?;
        if !self.is_sound() {
            return Err(Errno::Invalid);
        }
        regions.extend(self.regions.iter().cloned());
        Ok(Layout { distributor, regions })
    }

    fn distributor_range(&self) -> Option<Range<u64>> {
        (self.distributor).map(|base| base..base + Frame::DISTRIBUTOR)
    }

    /// Whether what is set can be addressed, and the distributor is apart.
    fn is_sound(&self) -> bool {
        let distributor = self.distributor_range();
        self.regions.iter().all(|region| {
            let size = region.capacity(self.vcpus.len()) * Frame::REDISTRIBUTOR;
            self.check(region.base, size).is_ok()
                && (distributor.as_ref())
                    .is_none_or(|distributor| !overlap(distributor, &region.range(self.vcpus.len())))
        })
    }

    fn check(&self, base: u64, size: u64) -> Result<(), Errno> {
        if !base.is_multiple_of(ALIGNMENT) {
            return Err(Errno::Invalid);
        }
        let end = base.checked_add(size).ok_or(Errno::Invalid)?;
        let limit = 1 << self.ipa_bits;
        if base >= limit || end > limit {
            return Err(Errno::TooBig);
        }
        Ok(())
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// What is at an address of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The frame.
    pub frame: Frame,
    /// Bytes from its start.
    pub offset: u64,
}

/// Where the frames are.
#[derive(Debug)]
pub struct Layout {
    distributor: u64,
    regions: Vec<Region>,
}

impl Layout {
    /// The frame in which an access is as a whole.
    #[must_use]
    pub fn locate(&self, ipa: u64, bytes: u64) -> Option<Located> {
        let inside = |base: u64, size: u64| {
            let offset = ipa.checked_sub(base)?;
            (bytes <= size && offset <= size - bytes).then_some(offset)
        };
        if let Some(offset) = inside(self.distributor, Frame::DISTRIBUTOR) {
            let frame = Frame::Distributor;
            return Some(Located { frame, offset });
        }
        self.regions.iter().find_map(|region| {
            let size = region.vcpus.len() as u64 * Frame::REDISTRIBUTOR;
            let offset = inside(region.base, size)?;
            let vcpu = *region.vcpus.get((offset / Frame::REDISTRIBUTOR) as usize)?;
            Some(Located {
                frame: Frame::Redistributor(vcpu.into()),
                offset: offset % Frame::REDISTRIBUTOR,
            })
        })
    }
}
