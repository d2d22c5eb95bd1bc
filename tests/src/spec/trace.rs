//! Trace rings, and with them the pins.

use super::memory::{Layout, Memory};
use super::{Demand, Expected, Holding, World, bad_range, refusal};
use hyp_abi::{FrameRange, Status};

impl Memory {
    pub(super) fn attach(&mut self, layout: &Layout, world: &World, cpu: u64, address: u64) -> Expected {
        if cpu >= layout.cpus as u64 {
            return Expected::refused(Status::InvalidParameter);
        }
        if let Some(status) = bad_range(FrameRange::new(address, 1)) {
            return Expected::refused(status);
        }
        let ring = cpu as usize;
        if self.rings[ring].is_some() {
            return Expected::refused(Status::WrongTraceState);
        }
        let (piece, holding) = match self.named(layout, address) {
            Ok(found) => found,
            Err(status) => return Expected::refused(status),
        };
        if let Some(status) = refusal(Demand::Shared, holding) {
            return Expected::refused(status);
        }
        let Holding::SharedHyp { pins } = holding else {
            return Expected::refused(Status::NotShared);
        };
        let el2 = if pins == 0 {
            self.pages_for_el2(layout, piece)
        } else {
            0
        };
        let pages = self.pages_for_entries(piece) + el2;
        let available = self.budget(layout, world).available();
        if available < pages {
            return Expected::no_memory(pages, available);
        }
        self.set(piece, 0, 1, Holding::SharedHyp { pins: pins + 1 });
        self.rings[ring] = Some(piece.start);
        Expected::success([0; 3])
    }

    pub(super) fn detach(&mut self, layout: &Layout, cpu: u64) -> Expected {
        if cpu >= layout.cpus as u64 {
            return Expected::refused(Status::InvalidParameter);
        }
        let ring = cpu as usize;
        let Some(frame) = self.rings[ring].take() else {
            return Expected::refused(Status::WrongTraceState);
        };
        let piece = layout.piece(frame, frame + 1).expect("a ring is RAM");
        let Holding::SharedHyp { pins } = self.frames[piece.index] else {
            panic!("a pinned frame stays shared");
        };
        self.set(piece, 0, 1, Holding::SharedHyp { pins: pins - 1 });
        Expected::success([0; 3])
    }
}
