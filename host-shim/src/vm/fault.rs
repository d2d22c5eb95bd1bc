//! Putting memory behind a guest's pages.

use super::record::Mark;
use super::{Identity, Slot};
use crate::memfd::{Hold, Page};
use crate::{Error, Kernel, PartError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hyp_abi::vm::Permissions;
use hyp_abi::{FrameRange, GuestRange, Status};

impl<K: Kernel> Identity<K> {
    /// Puts the memory of its slot behind a guest frame number, and as much of the block around it as there is within
    /// `limit`, guest frame numbers. Returns the one up to which, from `gfn` on, there is something now.
    ///
    /// The hold is kept until EL2 has answered: a punch comes before, and finds nothing, or after, and takes it away
    /// again.
    pub(super) fn fault(&self, gfn: u64, limit: Range<u64>) -> Result<u64, Error> {
        loop {
            let slot = self.slot_at(gfn).ok_or(Error::NoBacking)?;
            let file = slot.file().ok_or(Error::NoBacking)?;
            let page = slot.page_of(gfn);
            let hold = file.inode().hold_or_fill(page)?;
            if !slot.is_alive() {
                drop(hold);
                self.host().go_on()?;
                self.host().kernel().relax();
                continue;
            }
            let extent = hold.range();
            let gfns = slot.gfns();
            let window = slot.page_of(gfns.start.max(limit.start))
                ..slot.page_of(gfns.start.max(limit.end.min(gfns.end)));
            let part = extent.start.max(window.start)..extent.end.min(window.end);
            let end = slot.gfn_of(part.end);
            if self.is_protected() {
                self.donate(&hold, &slot, part, page)?;
            } else {
                self.share(&hold, &slot, part, page)?;
            }
            return Ok(end);
        }
    }

    /// Donates what of a part of an extent the guest does not have yet. It succeeds if the guest then has `wanted`: the
    /// rest is a bonus.
    fn donate(
        &self,
        hold: &Hold<K>,
        slot: &Arc<Slot<K>>,
        part: Range<u64>,
        wanted: u64,
    ) -> Result<(), Error> {
        let is_wanted = |page: u64| page == wanted;
        if hold.first_pinned(wanted..wanted + 1).is_some()
            && hold.page(wanted) != Page::Private(self.number())
        {
            return Err(Error::Pinned {
                offset: wanted * hyp_abi::FRAME_SIZE,
            });
        }
        for (run, page) in hold.runs(part.clone()) {
            if run.contains(&wanted) {
                match page {
                    Page::Private(vm) if vm == self.number() => return Ok(()),
                    Page::Private(_) => return Err(in_use(wanted)),
                    Page::Poisoned => return Err(Error::Poisoned),
                    Page::Fresh | Page::Ready | Page::Hole => {}
                }
            }
        }
        if !self.is_launched() {
            // Until the launch EL2 keeps what is in the frames. Afterwards it zeroes them itself.
            hold.prepare(part.clone())?;
        }
        for run in givable(hold, part) {
            hold.zap(run.clone());
            let mut at = run.start;
            while at < run.end {
                let result = self.call_range(|vm, done| {
                    let range = hold.frame(at + done).range(run.end - at - done);
                    self.host()
                        .hypervisor()
                        .donate_guest(vm, range, slot.gfn_of(at) + done)
                });
                let PartError { done, error } = match result {
                    Ok(()) => {
                        hold.set(at..run.end, Page::Private(self.number()));
                        break;
                    }
                    Err(stopped) => stopped,
                };
                hold.set(at..at + done, Page::Private(self.number()));
                let stopped_at = at + done;
                match (error, error.status()) {
                    // The guest has something there already: of a file that was closed, or of another one.
                    (_, Some(Status::GfnMapped)) => {}
                    (Error::Lost, _) if !is_wanted(stopped_at) => {}
                    (Error::Poisoned, _) => {
                        hold.set(stopped_at..stopped_at + 1, Page::Poisoned);
                        if is_wanted(stopped_at) {
                            return Err(error);
                        }
                    }
                    _ if stopped_at > wanted => return Ok(()),
                    _ => return Err(error),
                }
                at = stopped_at + 1;
            }
        }
        Ok(())
    }

    /// Shares what of a part of an extent the guest does not borrow yet.
    fn share(&self, hold: &Hold<K>, slot: &Arc<Slot<K>>, part: Range<u64>, wanted: u64) -> Result<(), Error> {
        match hold.page(wanted) {
            Page::Poisoned => return Err(Error::Poisoned),
            Page::Private(_) => return Err(in_use(wanted)),
            Page::Fresh | Page::Ready | Page::Hole => {}
        }
        let first = slot.window().start;
        if slot.record.has(Mark::Borrowed, wanted - first) {
            // It has the page, but may do less with it than it wants: the host took a permission away to see this.
            return self
                .call_range(|vm, _| {
                    let range = GuestRange::new(slot.gfn_of(wanted), 1);
                    self.host()
                        .hypervisor()
                        .set_permissions(vm, range, Permissions::all())
                })
                .map_err(Error::from);
        }
        hold.prepare(part.clone())?;
        for run in ready(hold, part) {
            self.host()
                .kernel()
                .clean(hold.frame(run.start), run.end - run.start);
            while let Some(new) = slot.claim(run.start - first..run.end - first) {
                let pages = new.start + first..new.end + first;
                let frames = hold.frame(pages.start).range(new.end - new.start);
                let result = self.call_range(|vm, done| {
                    let left = if done == 0 {
                        Some(frames)
                    } else {
                        frames.after(done)
                    };
                    let left = left.unwrap_or(FrameRange::new(frames.base, 0));
                    self.host().hypervisor().share_guest(
                        vm,
                        left,
                        slot.gfn_of(pages.start) + done,
                        Permissions::all(),
                    )
                });
                if let Err(PartError { done, error }) = result {
                    slot.disclaim(new.start + done..new.end);
                    if slot.record.has(Mark::Borrowed, wanted - first) && wanted < pages.start + done {
                        return Ok(());
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

const fn in_use(page: u64) -> Error {
    Error::InUse {
        offset: page * hyp_abi::FRAME_SIZE,
    }
}

/// Runs of pages that the host can give, as long as they can be: a block that is given in one piece is mapped as one.
/// What the host has pinned it cannot give.
fn givable<K: Kernel>(hold: &Hold<K>, part: Range<u64>) -> Vec<Range<u64>> {
    let runs = join(hold, part, |page| {
        matches!(page, Page::Fresh | Page::Ready | Page::Hole)
    });
    let mut givable = Vec::new();
    for mut run in runs {
        while let Some(pinned) = hold.first_pinned(run.clone()) {
            givable.push(run.start..pinned);
            run.start = pinned + 1;
        }
        givable.push(run);
    }
    givable.retain(|run| !run.is_empty());
    givable
}

/// Runs of pages whose contents the guest may see.
fn ready<K: Kernel>(hold: &Hold<K>, part: Range<u64>) -> Vec<Range<u64>> {
    join(hold, part, |page| page == Page::Ready)
}

fn join<K: Kernel>(hold: &Hold<K>, part: Range<u64>, wanted: impl Fn(Page) -> bool) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for (run, page) in hold.runs(part) {
        if !wanted(page) {
            continue;
        }
        match joined.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => joined.push(run),
        }
    }
    joined
}
