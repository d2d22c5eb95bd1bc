//! Giving memory of a file up, whoever has it.

use super::extent::Page;
use super::hold::Hold;
use super::inode::Inode;
use super::{LivePunch, PartialPunch};
use crate::{Error, Kernel};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hyp_abi::{FRAME_SIZE, Status};

impl<K: Kernel> Inode<K> {
    /// Frees the frames of a range of pages, after every VM that reaches them was told. If there is a reason to refuse
    /// when it begins, nothing is changed. One that comes up later stops it: what was freed by then is free.
    pub(super) fn punch(self: &Arc<Self>, range: Range<u64>) -> Result<(), Error> {
        // Twice: once over all, so that a refusal changes nothing, and then extent by extent, when it counts.
        self.judge(&range)?;
        let mut at = range.start;
        loop {
            // Files that only live because of us are closed after the hold is gone.
            let mut files = Vec::new();
            let Some(hold) = self.hold_first(&(at..range.end)) else {
                return Ok(());
            };
            let whole = hold.range();
            let part = whole.start.max(at)..whole.end.min(range.end);
            self.judge_held(&hold, &part)?;
            files.extend(self.files());
            for file in &files {
                file.unmap(&part)?;
            }
            for (run, page) in hold.runs(part.clone()) {
                let Page::Private(vm) = page else {
                    continue;
                };
                let vm = files
                    .iter()
                    .map(|file| file.vm())
                    .find(|owner| owner.number() == vm);
                for page in run {
                    let frame = hold.frame(page).address();
                    self.host
                        .call(vm.map(|vm| vm.handle()), || {
                            self.host.hypervisor().force_reclaim(frame)
                        })
                        .map_err(|error| match error.status() {
                            // The guest shares it at the moment.
                            Some(Status::NotOwner) => in_use(page),
                            _ => error,
                        })?;
                    hold.set(page..page + 1, Page::Hole);
                }
            }
            at = part.end;
            self.discard(hold, part)?;
        }
    }

    /// Refuses what cannot be punched.
    fn judge(&self, range: &Range<u64>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end {
            let mut contents = self.contents.lock();
            if let Some(page) = contents.first_pinned(range.clone()) {
                return Err(pinned(page));
            }
            let Some(start) = contents.first_in(&(at..range.end)) else {
                return Ok(());
            };
            let Some((_, extent)) = contents.find(start) else {
                return Ok(());
            };
            let whole = start..start + extent.frames();
            let part = whole.start.max(range.start)..whole.end.min(range.end);
            at = part.end;
            let inside = part.start - start..part.end - start;
            for (run, page) in extent.runs(inside) {
                self.judge_page(start + run.start, page)?;
            }
            self.judge_part(&whole, &part)?;
        }
        Ok(())
    }

    fn judge_held(&self, hold: &Hold<K>, part: &Range<u64>) -> Result<(), Error> {
        if let Some(page) = self.contents.lock().first_pinned(part.clone()) {
            return Err(pinned(page));
        }
        for (run, page) in hold.runs(part.clone()) {
            self.judge_page(run.start, page)?;
        }
        self.judge_part(&hold.range(), part)
    }

    fn judge_page(&self, page: u64, state: Page) -> Result<(), Error> {
        match state {
            Page::Private(_) if self.config.live_punch == LivePunch::Refuse => Err(in_use(page)),
            _ => Ok(()),
        }
    }

    fn judge_part(&self, whole: &Range<u64>, part: &Range<u64>) -> Result<(), Error> {
        if part != whole && self.config.partial_punch == PartialPunch::Reject {
            return Err(Error::PartOfHugePage {
                offset: whole.start * FRAME_SIZE,
            });
        }
        Ok(())
    }

    /// Takes pages that the guest of the VM `vm` gave up, which are zero, and frees them as the policy says. Returns how
    /// many there were: those that it has, or that are taken already, do not count.
    pub(crate) fn take_relinquished(self: &Arc<Self>, vm: u64, range: Range<u64>) -> Result<u64, Error> {
        let (mut taken, mut at) = (0, range.start);
        // A range is refused for any of its pages: then they are asked for one by one.
        let mut at_once = u64::MAX;
        while let Some(hold) = self.hold_first(&(at..range.end)) {
            let whole = hold.range();
            let part = whole.start.max(at)..whole.end.min(range.end);
            let mine = |(_, page): &(Range<u64>, Page)| *page == Page::Private(vm);
            let Some((run, _)) = hold.runs(part.clone()).into_iter().find(mine) else {
                at = part.end;
                continue;
            };
            let run = run.start..run.end.min(run.start.saturating_add(at_once));
            let back = self.host.call_range(None, |done| {
                let left = hold.frame(run.start + done).range(run.end - run.start - done);
                self.host.hypervisor().take_back(left)
            });
            let done = back.map_or_else(|error| error.done, |()| run.end - run.start);
            at = run.start + done;
            taken += done;
            let left = run.end - at;
            let end = back.map_err(Error::from);
            if matches!(end, Err(Error::Poisoned)) && left == 1 {
                // It was broken when the guest gave it up. It stays where it is, and nobody gets it again.
                hold.set(at..at + 1, Page::Poisoned);
            }
            if done > 0 {
                hold.set(run.start..at, Page::Hole);
                self.discard(hold, run.start..at)?;
            }
            match end {
                Ok(()) => {}
                Err(error)
                    if left > 1
                        && (matches!(error, Error::Poisoned)
                            || error.status() == Some(Status::NotRelinquished)) =>
                {
                    at_once = 1;
                }
                Err(Error::Poisoned) => {
                    taken += 1;
                    at += 1;
                }
                Err(error) if error.status() == Some(Status::NotRelinquished) => at += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}

const fn in_use(page: u64) -> Error {
    Error::InUse {
        offset: page * FRAME_SIZE,
    }
}

const fn pinned(page: u64) -> Error {
    Error::Pinned {
        offset: page * FRAME_SIZE,
    }
}
