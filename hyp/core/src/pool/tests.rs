//! The stock of pages, over blocks that count what is asked of them.

use super::*;
use crate::addr::FrameSpan;
use crate::double::Machine;
use crate::geometry::Tiny;
use core::cell::RefCell;
use std::collections::BTreeSet;
use std::vec::Vec;

/// Frames of the machine, and so of the blocks.
const FRAMES: u64 = 2 * JOINED;

/// Free frames, and how often a block was asked for or given.
#[derive(Default)]
struct Counting {
    free: BTreeSet<Frame>,
    asked: usize,
}

impl Blocks for Counting {
    fn take(&mut self, frames: u64) -> Option<Frame> {
        self.asked += 1;
        let fits = |first: &Frame| {
            let span = FrameSpan::new(*first, frames);
            first.number().is_multiple_of(frames)
                && span.is_some_and(|span| span.iter().all(|frame| self.free.contains(&frame)))
        };
        let first = self.free.iter().copied().find(fits)?;
        for frame in FrameSpan::new(first, frames)?.iter() {
            self.free.remove(&frame);
        }
        Some(first)
    }

    fn give(&mut self, first: Frame, frames: u64) {
        self.asked += 1;
        for frame in FrameSpan::new(first, frames).unwrap().iter() {
            assert!(self.free.insert(frame), "{frame:?} is free already");
        }
    }
}

/// A machine and a stock of all of its frames.
fn stock() -> (Machine<Tiny>, Stock<Counting>) {
    let hw = Machine::with_pool(FRAMES);
    let first = hw.allocate_root(FRAMES).frame();
    let free = FrameSpan::new(first, FRAMES).unwrap().iter().collect();
    (hw, Stock::new(Counting { free, asked: 0 }))
}

fn take_all(hw: &Machine<Tiny>, stock: &mut Stock<Counting>) -> Vec<TablePage> {
    core::iter::from_fn(|| stock.take_page(hw)).collect()
}

#[test]
fn a_page_that_came_back_is_taken_again_and_no_block_is_asked_for() {
    let (hw, mut stock) = stock();
    let taken: Vec<_> = (0..5).map(|_| stock.take_page(&hw).unwrap()).collect();
    let asked = stock.blocks().asked;
    for round in 0..100 {
        let returned = 1 + round % taken.len();
        taken[..returned]
            .iter()
            .for_each(|page| stock.give_page(&hw, *page));
        let again: BTreeSet<_> = (0..returned)
            .map(|_| stock.take_page(&hw).unwrap().frame())
            .collect();
        assert_eq!(again, taken[..returned].iter().map(|page| page.frame()).collect());
    }
    assert_eq!(stock.blocks().asked, asked);
}

#[test]
fn every_page_is_handed_out_once_wherever_it_waited() {
    let (hw, mut stock) = stock();
    let all = take_all(&hw, &mut stock);
    for page in all.iter().step_by(3) {
        stock.give_page(&hw, *page);
    }
    assert!(stock.join(&hw));
    for page in all.iter().skip(1).step_by(3) {
        stock.give_page(&hw, *page);
    }
    let again: BTreeSet<_> = take_all(&hw, &mut stock)
        .iter()
        .map(|page| page.frame())
        .collect();
    let given = all.iter().step_by(3).chain(all.iter().skip(1).step_by(3));
    assert_eq!(again, given.map(|page| page.frame()).collect());
}

#[test]
fn pages_that_wait_become_blocks_when_they_are_joined_a_bounded_number_at_once() {
    let (hw, mut stock) = stock();
    let all = take_all(&hw, &mut stock);
    all.iter().for_each(|page| stock.give_page(&hw, *page));
    assert_eq!(stock.blocks().take(1), None);
    let before = stock.blocks().asked;
    assert!(stock.join(&hw));
    assert_eq!(stock.blocks().asked - before, JOINED as usize);
    assert!(stock.blocks().take(16).is_some());
    assert!(stock.join(&hw));
    assert!(!stock.join(&hw), "no page waits any more");
    assert_eq!(stock.blocks().free.len() as u64, FRAMES - 16);
}

#[test]
fn a_frame_that_breaks_in_the_pool_is_never_handed_out_and_its_neighbors_are() {
    for frames in [1, 4, 16] {
        let (hw, stock) = stock();
        let all: Vec<_> = stock.blocks.free.iter().copied().collect();
        let broken: BTreeSet<_> = [0, 1, 5, 300].map(|index| all[index]).into();
        let stock = RefCell::new(stock);
        let aside = RefCell::new(BTreeSet::new());
        let block_of = |first| FrameSpan::new(first, frames).unwrap().iter();
        let take = || stock.borrow_mut().blocks().take(frames);
        let take_sound = || {
            sound_or_another(
                take()?,
                take,
                |first| match block_of(first).find(|frame| broken.contains(frame)) {
                    Some(frame) => Err(frame),
                    None => Ok(()),
                },
                |first, frame| {
                    assert!(aside.borrow_mut().insert(frame), "{frame:?} is aside already");
                    stock.borrow_mut().give_around(&hw, first, frames, frame);
                },
            )
        };
        let mut taken = BTreeSet::new();
        loop {
            match take_sound() {
                Some(first) => taken.extend(block_of(first)),
                None if stock.borrow_mut().join(&hw) => {}
                None => break,
            }
        }
        assert!(taken.is_disjoint(&broken));
        let left: BTreeSet<_> = take_all(&hw, &mut stock.borrow_mut())
            .iter()
            .map(|page| page.frame())
            .collect();
        let aside = aside.into_inner();
        assert!(aside.is_subset(&broken), "only what is broken is set aside");
        assert_eq!(taken.len() + left.len() + aside.len(), all.len());
        if frames == 1 {
            assert_eq!(aside, broken);
        }
    }
}
