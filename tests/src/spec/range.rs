//! The transitions of a range: region by region, each of them wholly or not at all.

use super::memory::{Layout, Memory, Piece};
use super::pages::Budget;
use super::{Demand, Expected, Holding, World, bad_range, refusal};
use hyp_abi::{FRAME_SIZE, FrameRange, Status};

/// The transitions of a range, by what they make of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Share,
    Unshare,
    Donate,
    TopUp,
    Reclaim,
}

/// How a call goes on after one region.
enum Pace {
    /// All frames of the piece are done.
    Done,
    /// Only so many are; the call ends here.
    Stopped(u64),
    /// None is: the first one has turned out to be broken.
    Broken,
    /// The piece lacks pages: so many are needed.
    Lacking(u64),
}

/// A call on its way.
pub(super) struct Course<'a> {
    pub(super) layout: &'a Layout,
    pub(super) budget: Budget,
    pub(super) polls: Option<u64>,
    /// Whether the call names more than one frame, so that blocks are rebuilt.
    pub(super) ranged: bool,
    pub(super) returned: Vec<(u64, u64)>,
}

impl Course<'_> {
    /// Looks whether an interrupt waits.
    fn interrupted(&mut self) -> bool {
        match &mut self.polls {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

impl Memory {
    pub(super) fn ranged(&mut self, layout: &Layout, world: &World, act: Act, range: FrameRange) -> Expected {
        if let Some(status) = bad_range(range) {
            return Expected::refused(status);
        }
        let start = range.base / FRAME_SIZE;
        let end = start + range.frames;
        let mut course = Course {
            layout,
            budget: self.budget(layout, world),
            polls: world.interrupt_after,
            ranged: range.frames > 1,
            returned: Vec::new(),
        };
        // A donation of several regions invalidates once, for all of them: only then do table pages come back, and
        // only then are blocks rebuilt.
        let batch = act == Act::Donate
            && layout
                .piece(start, end)
                .is_some_and(|piece| piece.start + piece.frames < end);
        let mut touched = Vec::new();
        let mut done = 0;
        while start + done < end {
            let piece = layout.piece(start + done, end);
            let refused = match piece {
                None => Some(Status::NotMemory),
                Some(piece) => self.judge(act, piece),
            };
            if let Some(status) = refused {
                if done == 0 {
                    return Expected::refused(status);
                }
                break;
            }
            let Some(piece) = piece else { break };
            match self.carry_out(&mut course, act, piece, batch) {
                Pace::Done => {
                    touched.push(piece.region);
                    done += piece.frames;
                }
                Pace::Stopped(frames) => {
                    done += frames;
                    break;
                }
                Pace::Broken if done == 0 => return Expected::refused(Status::Poisoned),
                Pace::Broken => break,
                Pace::Lacking(pages) if done == 0 => {
                    return Expected::no_memory(pages, course.budget.available());
                }
                Pace::Lacking(_) => break,
            }
            if start + done < end && course.interrupted() {
                break;
            }
        }
        if batch {
            for region in touched {
                self.fold(layout, region);
            }
        }
        Expected {
            returned: course.returned,
            ..Expected::success([done, 0, 0])
        }
    }

    /// The first reason of a frame of the piece to refuse.
    fn judge(&self, act: Act, piece: Piece) -> Option<Status> {
        let demand = match act {
            Act::Share | Act::Donate | Act::TopUp => Demand::PlainHost,
            Act::Unshare => Demand::Idle,
            Act::Reclaim => Demand::Donated {
                whole_region: piece.whole,
            },
        };
        let mut frames = self.of(piece).iter();
        frames.find_map(|holding| refusal(demand, *holding))
    }

    fn carry_out(&mut self, course: &mut Course<'_>, act: Act, piece: Piece, batch: bool) -> Pace {
        let layout = course.layout;
        let host = match act {
            Act::Share | Act::Unshare => 0,
            Act::Donate | Act::Reclaim => self.pages_for_host(piece),
            // What proves good of a region may be a part of it.
            Act::TopUp if piece.whole => 2,
            Act::TopUp => self.pages_for_host(piece),
        };
        let el2 = match act {
            Act::TopUp => self.pages_for_el2(layout, piece),
            _ => 0,
        };
        let host = host + self.pages_for_entries(piece);
        let before = self.pool_used(layout);
        if act == Act::TopUp {
            if !self.draw(course.budget, [host, el2]) {
                return self.top_up_lacks(course, host, el2);
            }
        } else if course.budget.available() < host {
            return Pace::Lacking(host);
        }
        let was_split_for_host = self.split_for_host[piece.region];
        let mut pace = Pace::Done;
        match act {
            Act::Share => self.set(piece, 0, piece.frames, Holding::SharedHyp { pins: 0 }),
            Act::Unshare => self.set(piece, 0, piece.frames, Holding::Host),
            Act::Donate => {
                self.set(piece, 0, piece.frames, Holding::Donated);
                self.split_for_host[piece.region] = !piece.whole;
            }
            Act::TopUp => pace = self.bring(course, piece),
            Act::Reclaim => pace = self.take_back(course, piece),
        }
        let at_end = matches!(pace, Pace::Done) || act == Act::TopUp;
        if at_end && course.ranged && !batch {
            self.fold(layout, piece.region);
        }
        let mut after = self.pool_used(layout);
        if batch && was_split_for_host && !self.split_for_host[piece.region] {
            after += 1;
        }
        course.budget.settle(before, after);
        if act == Act::TopUp {
            let brought = match pace {
                Pace::Done => piece.frames,
                Pace::Stopped(frames) => frames,
                Pace::Broken | Pace::Lacking(_) => 0,
            };
            course.budget.add(brought);
            self.refill(layout, &mut course.budget);
        }
        pace
    }

    /// Proves frames of one region, in steps, until an interrupt waits or one is broken: those that are good are the pool's,
    /// the rest is the host's as before.
    fn bring(&mut self, course: &mut Course<'_>, piece: Piece) -> Pace {
        let (good, broken) = self.work_through(course, piece, 0);
        let first_is_broken = broken && good == 0;
        if good > 0 {
            self.set(piece, 0, good, Holding::Pool);
        }
        if first_is_broken {
            self.set(piece, 0, 1, Holding::Poisoned);
        }
        self.split_for_host[piece.region] = !piece.whole || good < piece.frames;
        // What went piece by piece needs no descriptors once all of it is gone.
        let whole = self.uniform(course.layout, piece.region);
        if course.ranged && whole.is_some_and(|holding| !holding.host_reaches()) {
            self.split_for_host[piece.region] = false;
        }
        if first_is_broken {
            Pace::Broken
        } else if good == piece.frames {
            Pace::Done
        } else {
            Pace::Stopped(good)
        }
    }

    /// A top-up that finds too few pages. What is kept back is made up for even so, if the pool can.
    fn top_up_lacks(&mut self, course: &mut Course<'_>, host: u64, el2: u64) -> Pace {
        let host_lacks = course.budget.available() < host && self.spare < host;
        if !host_lacks {
            self.refill(course.layout, &mut course.budget);
        }
        Pace::Lacking(host + el2)
    }

    /// Works through a piece from its frame `from` on, step by step: how many frames are done in all, and whether the next
    /// one is broken. If neither all are nor one is, an interrupt waits.
    fn work_through(&self, course: &mut Course<'_>, piece: Piece, from: u64) -> (u64, bool) {
        let mut done = from;
        while done < piece.frames {
            let step = course.layout.step.min(piece.frames - done);
            let bad = (done..done + step).find(|offset| self.broken.contains(&(piece.start + offset)));
            if let Some(offset) = bad {
                return (offset, true);
            }
            done += step;
            if done < piece.frames && course.interrupted() {
                break;
            }
        }
        (done, false)
    }

    /// Zeroes donated frames of one region and gives them back: in steps, until an interrupt waits or one is broken.
    fn take_back(&mut self, course: &mut Course<'_>, piece: Piece) -> Pace {
        let parked = match self.frames[piece.index] {
            Holding::Parked { zeroed } => zeroed,
            _ => 0,
        };
        let (zeroed, broken) = self.work_through(course, piece, parked);
        if zeroed == piece.frames {
            self.set(piece, 0, zeroed, Holding::Host);
            self.split_for_host[piece.region] |= !piece.whole;
            if piece.whole {
                self.split_for_host[piece.region] = false;
            }
            course.returned.push((piece.start, zeroed));
            return Pace::Done;
        }
        if !piece.whole {
            self.hand_over_part(course, piece, zeroed, broken);
            return Pace::Stopped(zeroed);
        }
        if !broken {
            self.set(piece, 0, piece.frames, Holding::Parked { zeroed });
        } else if course.budget.available() == 0 && !self.split_in_map[piece.region] {
            return Pace::Lacking(1);
        } else {
            self.set(piece, 0, piece.frames, Holding::Donated);
            self.set(piece, zeroed, 1, Holding::Poisoned);
        }
        Pace::Stopped(0)
    }

    /// The first frames go to the host, the one after them may be broken, the rest is as if donated.
    pub(super) fn hand_over_part(
        &mut self,
        course: &mut Course<'_>,
        piece: Piece,
        zeroed: u64,
        broken: bool,
    ) {
        if zeroed > 0 {
            self.set(piece, 0, zeroed, Holding::Host);
            self.split_for_host[piece.region] = true;
            course.returned.push((piece.start, zeroed));
        }
        let mut rest = zeroed;
        if broken {
            self.set(piece, zeroed, 1, Holding::Poisoned);
            rest += 1;
        }
        if rest < piece.frames {
            self.set(piece, rest, piece.frames - rest, Holding::Donated);
        }
    }
}
