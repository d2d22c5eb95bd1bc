//! Looking at a system: what the map says of each frame, and where the tables lead, descriptor by descriptor.

use super::{Holding, Memory, Rig};
use hyp_core::addr::{FRAME_SHIFT, Ipa};
use hyp_core::geometry::Geometry;
use hyp_core::hardware::Hardware;
use hyp_core::map::{Entry, Region};
use hyp_core::pgtable::{
    Descriptor, Execute, HypAccess, HypAttributes, IpaSpan, Shareability, Stage2Access, Stage2Memory,
};
use hyp_core::state::{HypUse, State, TransitReason};
use hyp_core::sync::Ordering;
use std::collections::BTreeSet;

/// A map word that leads to a node has bit 1 set, and the node's address in bits 47:12.
const NODE: u64 = 1 << 1;
const NODE_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What the map says of a frame, in the specification's words.
fn translate(entry: Entry) -> Option<Holding> {
    Some(match entry.state() {
        State::Host => Holding::Host,
        State::HostSharedHyp => Holding::SharedHyp { pins: entry.count() },
        State::HostSharedGuest => Holding::SharedGuest {
            borrowers: entry.count(),
        },
        State::HostSharedSecure => Holding::SharedSecure,
        State::HostLentSecure => Holding::LentSecure,
        State::Hyp => match entry.hyp_use()? {
            HypUse::Boot => Holding::Boot,
            HypUse::Pool => Holding::Pool,
            HypUse::Donated => Holding::Donated,
        },
        State::Guest => Holding::Guest {
            slot: entry.slot(),
            gfn: entry.gfn(),
        },
        State::GuestSharedHost => Holding::GuestShared {
            slot: entry.slot(),
            gfn: entry.gfn(),
            pins: entry.count(),
        },
        State::InTransit => {
            let transit = entry.transit()?;
            if transit.active || transit.reason != TransitReason::Reclaim {
                Holding::InWork
            } else {
                Holding::Parked {
                    zeroed: u64::from(transit.progress),
                }
            }
        }
        State::Relinquished => Holding::Relinquished,
        State::Poisoned => Holding::Poisoned,
        State::Device => Holding::Device,
        State::Reserved => Holding::Reserved,
    })
}

/// What the map says of the frame with `number`.
pub(super) fn holding<G: Geometry>(rig: &Rig<G>, number: u64) -> Result<Holding, String> {
    let frame = super::frame(number);
    let region = rig
        .system
        .map()
        .lock(rig.system.hardware(), frame)
        .ok_or_else(|| format!("the map has no {frame:?}"))?;
    let index = (number % G::REGION_FRAMES) as usize;
    translate(region.entry(index)).ok_or_else(|| format!("{frame:?} has an entry without a meaning"))
}

/// What the machine says that is true: the map's word for the frames, and how map and tables are split.
pub(super) fn memory<G: Geometry>(rig: &Rig<G>) -> Result<Memory, String> {
    let hw = rig.system.hardware();
    let mut memory = rig.memory.clone();
    for index in 0..memory.frames.len() {
        let number = rig.layout.number(index);
        memory.frames[index] = holding(rig, number)?;
    }
    memory.spare = rig.system.spare_pages();
    for (region, start) in rig.layout.regions.iter().enumerate() {
        let start = super::frame(*start);
        let locked = rig.system.map().lock(hw, start).ok_or("a region is RAM")?;
        memory.split_in_map[region] = locked.has_node();
        let entry = rig.system.host_table().walk(hw, start.address().host_ipa());
        memory.split_for_host[region] = entry.is_some_and(|entry| entry.level == 3);
    }
    for (cpu, ring) in memory.rings.iter_mut().enumerate() {
        *ring = hw.trace_ring(cpu).map(|frame| frame.number());
    }
    Ok(memory)
}

/// Whether a region has entries for each frame in the map, and in the host's table.
pub(super) fn splits<G: Geometry>(rig: &Rig<G>, region: usize) -> Result<(bool, bool), String> {
    let hw = rig.system.hardware();
    let start = super::frame(rig.layout.regions[region]);
    let locked = rig.system.map().lock(hw, start).ok_or("a region is RAM")?;
    let entry = rig.system.host_table().walk(hw, start.address().host_ipa());
    Ok((locked.has_node(), entry.is_some_and(|entry| entry.level == 3)))
}

/// Nobody is at work: no frame is in transit, and every pin is a ring's.
pub(super) fn at_rest(memory: &Memory) -> Result<(), String> {
    if memory.frames.contains(&Holding::InWork) {
        return Err("a frame is left in transit".to_owned());
    }
    let pinned: u64 = memory
        .frames
        .iter()
        .map(|holding| match holding {
            Holding::SharedHyp { pins } => u64::from(*pins),
            _ => 0,
        })
        .sum();
    if pinned != memory.rings.iter().flatten().count() as u64 {
        return Err(format!("{pinned} pins, and the rings are {:x?}", memory.rings));
    }
    Ok(())
}

/// Compares one region.
pub(super) fn region<G: Geometry>(rig: &Rig<G>, region: usize) -> Result<(), String> {
    let start = super::frame(rig.layout.regions[region]);
    let wanted = rig.memory.region(&rig.layout, region);
    let hw = rig.system.hardware();
    {
        let locked: Region<'_, _> = rig
            .system
            .map()
            .lock(hw, start)
            .ok_or_else(|| format!("the map has no {start:?}"))?;
        for (index, holding) in wanted.iter().enumerate() {
            let found = translate(locked.entry(index));
            if found != Some(*holding) {
                return Err(format!(
                    "frame {index} of the region at {start:?} is {found:?}, should be {holding:?}"
                ));
            }
        }
        let (counted, kept) = locked.audit_breaks();
        if counted != kept {
            return Err(format!(
                "{counted} frames differ in the region at {start:?}, and {kept} are kept"
            ));
        }
        if locked.has_node() != rig.memory.split_in_map[region] {
            return Err(format!(
                "the region at {start:?} has entries for each frame: {}",
                locked.has_node()
            ));
        }
    }
    let first = start.address().host_ipa();
    let span = IpaSpan::new(first, G::REGION_FRAMES).ok_or("a region lies below 2^48")?;
    host_region(rig, region, span)?;
    hyp_region(rig, region, span)
}

/// Where the addresses of a leaf lie in a region: the first one, and how many.
fn part(span: IpaSpan, start: Ipa, pages: u64) -> (usize, usize) {
    let from = start.value().max(span.start().value());
    let to = (start.value() + (pages << FRAME_SHIFT)).min(span.end());
    let offset = from - span.start().value();
    (
        (offset >> FRAME_SHIFT) as usize,
        ((to - from) >> FRAME_SHIFT) as usize,
    )
}

fn host_region<G: Geometry>(rig: &Rig<G>, region: usize, span: IpaSpan) -> Result<(), String> {
    let wanted = rig.memory.region(&rig.layout, region);
    let mut split = false;
    for entry in rig.system.host_table().entries(rig.system.hardware(), span) {
        let (first, count) = part(span, entry.start, entry.pages);
        let frames = &wanted[first..first + count];
        match entry.descriptor {
            Descriptor::Table(_) => split |= entry.level == 2,
            Descriptor::Invalid(annotation) => {
                if annotation.value() != 0 {
                    return Err(format!("{:?} carries {annotation:?}", entry.start));
                }
                if let Some(holding) = frames.iter().find(|holding| holding.host_reaches()) {
                    return Err(format!(
                        "a frame at {:?} is {holding:?}, and not mapped",
                        entry.start
                    ));
                }
            }
            Descriptor::Leaf { pa, attributes } => {
                if pa.value() != entry.start.value() || (entry.level != 3 && entry.level != 2) {
                    return Err(format!(
                        "{:?} is mapped to {pa:?} at level {}",
                        entry.start, entry.level
                    ));
                }
                let memory = attributes.memory() == Stage2Memory::WriteBack
                    && attributes.access() == Stage2Access::all()
                    && attributes.execute() == Execute::All
                    && attributes.shareability() == Shareability::Inner
                    && attributes.accessed()
                    && attributes.software() == 0;
                let device = attributes.memory() == Stage2Memory::DeviceNGnRE
                    && attributes.access() == Stage2Access::all()
                    && attributes.execute() == Execute::Never;
                for holding in frames {
                    let fits = match holding {
                        Holding::Device => device,
                        other => other.host_reaches() && memory,
                    };
                    if !fits {
                        return Err(format!(
                            "a frame at {:?} is {holding:?}, and mapped {attributes:?}",
                            entry.start
                        ));
                    }
                }
            }
        }
    }
    if split != rig.memory.split_for_host[region] {
        return Err(format!(
            "the host's table is split at {:?}: {split}",
            span.start()
        ));
    }
    Ok(())
}

fn hyp_region<G: Geometry>(rig: &Rig<G>, region: usize, span: IpaSpan) -> Result<(), String> {
    let wanted = rig.memory.region(&rig.layout, region);
    for entry in rig.hyp.entries(rig.system.hardware(), span) {
        let (first, count) = part(span, entry.start, entry.pages);
        let frames = &wanted[first..first + count];
        let mapped = match entry.descriptor {
            Descriptor::Table(_) => continue,
            Descriptor::Invalid(_) => false,
            Descriptor::Leaf { pa, attributes } => {
                if pa.value() != entry.start.value()
                    || entry.level != 3
                    || attributes != HypAttributes::memory(HypAccess::ReadWrite)
                {
                    return Err(format!("EL2 maps {:?} to {pa:?} as {attributes:?}", entry.start));
                }
                true
            }
        };
        for holding in frames {
            if holding.el2_reaches().is_some_and(|wanted| wanted != mapped) {
                return Err(format!(
                    "a frame at {:?} is {holding:?}, and EL2 maps it: {mapped}",
                    entry.start
                ));
            }
        }
    }
    Ok(())
}

/// The pool has as many pages, free and used, as the frames say.
pub(super) fn pool<G: Geometry>(rig: &Rig<G>) -> Result<(), String> {
    let hw = rig.system.hardware();
    let total = rig.memory.pool_total(&rig.layout);
    let used = rig.memory.pool_used(&rig.layout);
    if (hw.pool_pages(), hw.pages_in_use()) != ((total - used, total), used) {
        return Err(format!(
            "the pool has {:?} pages, {} in use; should be {:?}, {used}",
            hw.pool_pages(),
            hw.pages_in_use(),
            (total - used, total)
        ));
    }
    Ok(())
}

/// The frames of all tables and nodes: those of the map's words, the host's table and EL2's, and the spare ones.
pub(super) fn tables<G: Geometry>(rig: &Rig<G>) -> Result<BTreeSet<u64>, String> {
    let hw = rig.system.hardware();
    let host = rig.system.host_table();
    let mut found: Vec<u64> = vec![host.root().frame().number(), rig.hyp.root().frame().number()];
    for word in rig.system.map().words() {
        let word = word.load(Ordering::Relaxed);
        if word & NODE != 0 {
            found.push((word & NODE_ADDRESS) >> FRAME_SHIFT);
        }
    }
    for entry in host.entries(hw, host.span()) {
        if let Descriptor::Table(page) = entry.descriptor {
            found.push(page.frame().number());
        }
    }
    for entry in rig.hyp.entries(hw, rig.hyp.span()) {
        if let Descriptor::Table(page) = entry.descriptor {
            found.push(page.frame().number());
        }
    }
    found.extend(rig.system.spare_frames().iter().map(|frame| frame.number()));
    found.extend(super::look_guest::pages(rig));
    let count = found.len();
    let set: BTreeSet<u64> = found.into_iter().collect();
    if set.len() != count {
        return Err("one page is two tables".to_owned());
    }
    Ok(set)
}

/// What is true of the machine as a whole.
pub(super) fn everything<G: Geometry>(rig: &Rig<G>) -> Result<(), String> {
    let hw = rig.system.hardware();
    let tables = tables(rig)?;
    if tables.len() as u64 != hw.pages_in_use() {
        return Err(format!(
            "{} pages are in use, and {} are tables",
            hw.pages_in_use(),
            tables.len()
        ));
    }
    for number in tables {
        let holding = rig.memory.holding(&rig.layout, number);
        if !matches!(holding, Some(Holding::Boot | Holding::Pool)) {
            return Err(format!("a table lies in {number:#x}, which is {holding:?}"));
        }
    }
    let host = rig.system.host_table();
    for entry in host.entries(hw, host.span()) {
        let start = entry.start.value() >> FRAME_SHIFT;
        if matches!(entry.descriptor, Descriptor::Leaf { .. })
            && rig.memory.holding(&rig.layout, start).is_none()
        {
            return Err(format!("{:?} is mapped, and no RAM is there", entry.start));
        }
    }
    for span in &rig.ram {
        let report = rig
            .system
            .audit(*span)
            .map_err(|refusal| format!("{refusal:?}"))?;
        if (report.frames, report.disagreements) != (span.frames(), 0) {
            return Err(format!("the audit of {span:?} says {report:?}"));
        }
    }
    let rings: Vec<Option<u64>> = (0..rig.layout.cpus)
        .map(|cpu| hw.trace_ring(cpu).map(|frame| frame.number()))
        .collect();
    if rings != rig.memory.rings {
        return Err(format!(
            "the rings are {rings:x?}, should be {:x?}",
            rig.memory.rings
        ));
    }
    Ok(())
}
