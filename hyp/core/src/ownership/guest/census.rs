//! For tests: all guests' tables, the whole map and the VMs' counts compared at once. It takes its time, and holds only
//! while nothing else goes on.

use crate::addr::{FRAME_SHIFT, Frame};
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::pgtable::Descriptor;
use crate::state::State;
use crate::vm::MemoryCounts;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// What the tables of all guests say.
#[derive(Debug, Default)]
struct Found {
    /// How often each frame is borrowed.
    borrows: BTreeMap<Frame, u64>,
    /// What the map says of each VM's frames, by slot.
    owned: BTreeMap<u8, MemoryCounts>,
    /// What is wrong.
    wrong: Vec<String>,
}

impl<H: Hardware> Ownership<'_, H> {
    /// Everything that is wrong with the guests' tables, counts and pages, or with the borrower counts of the map.
    pub fn guest_census(&self) -> Vec<String> {
        let mut found = Found::default();
        self.count_map(&mut found);
        for slot in 1..=u8::MAX {
            self.count_vm(slot, &mut found);
        }
        for (frame, borrowers) in found.borrows {
            if borrowers != 0 {
                let wrong =
                    std::format!("{frame:?} has {borrowers} borrowers more in tables than in the map");
                found.wrong.push(wrong);
            }
        }
        for (slot, counts) in found.owned {
            let wrong = std::format!("slot {slot} counts {counts:?} less than the map has");
            found.wrong.push(wrong);
        }
        found.wrong
    }

    fn count_map(&self, found: &mut Found) {
        for span in self.map.regions() {
            let Some(region) = self.map.lock(&self.hw, span.start()) else {
                continue;
            };
            for (index, frame) in span.iter().enumerate() {
                let entry = region.entry(index);
                match entry.state() {
                    State::HostSharedGuest => {
                        found
                            .borrows
                            .insert(frame, 0_u64.wrapping_sub(entry.count().into()));
                    }
                    State::Guest => found.owned.entry(entry.slot()).or_default().private += 1,
                    State::GuestSharedHost => found.owned.entry(entry.slot()).or_default().shared += 1,
                    _ => {}
                }
            }
        }
    }

    fn count_vm(&self, slot: u8, found: &mut Found) {
        let Some(vm) = self.lock_guest(slot) else {
            return;
        };
        let mut tables = 0;
        let mut mapped = 0;
        for entry in vm.table.entries(&self.hw, vm.table.span()) {
            match entry.descriptor {
                Descriptor::Table(_) => tables += 1,
                Descriptor::Invalid(_) => {}
                Descriptor::Leaf { pa, .. } => {
                    mapped += entry.pages;
                    if !vm.config.protected {
                        for frame in (0..entry.pages).filter_map(|page| pa.frame().checked_add(page)) {
                            let borrowers = found.borrows.entry(frame).or_default();
                            *borrowers = borrowers.wrapping_add(1);
                        }
                    }
                    let gfn = entry.start.value() >> FRAME_SHIFT;
                    let right = (0..entry.pages).filter(|page| {
                        pa.frame().checked_add(*page).is_some_and(|frame| {
                            let frames = crate::addr::FrameSpan::single(frame);
                            self.agreeing_frames(&vm, frames, gfn + page) == 1
                        })
                    });
                    if right.count() as u64 != entry.pages {
                        found.wrong.push(std::format!("slot {slot}: {entry:x?}"));
                    }
                }
            }
        }
        let counts = vm.counts;
        let owned = found.owned.remove(&slot).unwrap_or_default();
        if (owned.private, owned.shared) != (counts.private, counts.shared)
            || mapped != counts.private + counts.shared + counts.borrowed
            || tables != vm.table_pages
        {
            found.wrong.push(std::format!(
                "slot {slot}: {counts:?}, {} table pages; the map has {owned:?}, {mapped} are mapped by {tables} tables",
                vm.table_pages
            ));
        }
    }
}
