//! The pool's way back to the host.

use super::memory::{Layout, Memory};
use super::range::Course;
use super::{Expected, World};
use hyp_abi::{FRAME_SIZE, Status};

/// Pages that splitting a region can take: they are set aside before a frame leaves the pool.
const SET_ASIDE: u64 = 2;

impl Memory {
    pub(super) fn drain(
        &mut self,
        layout: &Layout,
        world: &World,
        frames: u64,
        drained: &[u64],
        free_frames: u64,
    ) -> Result<Expected, String> {
        if frames == 0 {
            return Ok(Expected::refused(Status::EmptyRange));
        }
        let budget = self.budget(layout, world);
        if budget.available() < SET_ASIDE {
            return Ok(Expected::no_memory(SET_ASIDE, budget.available()));
        }
        let [first, ..] = drained else {
            return if free_frames <= SET_ASIDE {
                Ok(Expected::success([0; 3]))
            } else {
                Err(format!(
                    "nothing was drained, though {free_frames} frames are free"
                ))
            };
        };
        let count = drained.len() as u64;
        let in_one_block = drained.iter().enumerate().all(|(offset, frame)| {
            *frame == first + offset as u64 && frame / layout.step == first / layout.step
        });
        let piece = layout.piece(*first, first + count);
        let Some(piece) = piece.filter(|_| in_one_block && count <= frames) else {
            return Err(format!("{drained:x?} were drained where {frames} were asked for"));
        };
        let mut course = Course {
            layout,
            budget,
            polls: None,
            ranged: true,
            returned: Vec::new(),
        };
        let broken = drained.iter().position(|frame| self.broken.contains(frame));
        let zeroed = broken.map_or(count, |offset| offset as u64);
        self.hand_over_part(&mut course, piece, zeroed, broken.is_some());
        if broken.is_none() {
            self.fold(layout, piece.region);
        }
        let start = if zeroed > 0 { first * FRAME_SIZE } else { 0 };
        Ok(Expected {
            returned: course.returned,
            ..Expected::success([start, zeroed, 0])
        })
    }
}
