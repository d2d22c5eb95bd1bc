//! Check, then commit: a change that has been looked through, and one that can no longer fail.

use super::change::{Change, Verdict};
use super::cursor::{Cursor, Slot};
use super::descriptor::{Format, table_descriptor};
use super::obligation::Obligation;
use super::reserve::Reserve;
use super::span::IpaSpan;
use super::store::{break_leaf, fill, replace, store};
use super::{EngineError, Table};
use crate::geometry::Geometry;
use crate::hardware::Hardware;

/// A change that was checked against the table as it is, and how many table pages it takes.
///
/// Whoever planned it holds the locks of the range until the commit.
#[derive(Clone, Copy, Debug)]
#[must_use = "a planned change does nothing until it is committed"]
pub struct Plan<'t, F: Format, G: Geometry> {
    table: &'t Table<F, G>,
    change: Change<F>,
    span: IpaSpan,
    /// Where the first entry is that changes; `None` if none does.
    first: Option<Cursor<G>>,
    tables: u64,
}

impl<'t, F: Format, G: Geometry> Plan<'t, F, G> {
    /// Looks the range through.
    #[inline]
    pub(super) fn new<H: Hardware<Geometry = G>>(
        table: &'t Table<F, G>,
        hw: &H,
        span: IpaSpan,
        change: Change<F>,
    ) -> Result<Self, EngineError> {
        change.check(table, span)?;
        let mut cursor = Cursor::new(hw, table, span);
        let mut first = None;
        let mut tables = 0;
        loop {
            let raw = cursor.settle(hw);
            let slot = cursor.slot();
            match change.judge::<G, H>(hw, span, slot, raw)? {
                Verdict::Descend(child) => {
                    cursor.descend(child);
                    continue;
                }
                Verdict::Keep => {}
                Verdict::Write(_) => {
                    first.get_or_insert(cursor);
                }
                Verdict::Split => {
                    first.get_or_insert(cursor);
                    tables += change.tables_below::<G>(span, slot);
                }
            }
            if !cursor.advance(hw) {
                break;
            }
        }
        Ok(Self {
            table,
            change,
            span,
            first,
            tables,
        })
    }

    /// How many table pages the change takes.
    #[must_use]
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// Whether the table is already as the change would make it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Takes the table pages from the pool.
    ///
    /// # Errors
    /// [`EngineError::OutOfPages`] if the pool has too few; then none is taken.
    #[inline]
    pub fn reserve<H: Hardware<Geometry = G>>(self, hw: &H) -> Result<Permit<'t, F, G>, EngineError> {
        let reserve =
            Reserve::take(hw, self.tables).ok_or(EngineError::OutOfPages { needed: self.tables })?;
        Ok(Permit { plan: self, reserve })
    }

    /// Takes the table pages from `reserve`.
    ///
    /// # Errors
    /// [`EngineError::OutOfPages`] if it has too few; then none is taken.
    pub fn reserve_from<H: Hardware<Geometry = G>>(
        self,
        hw: &H,
        reserve: &mut Reserve,
    ) -> Result<Permit<'t, F, G>, EngineError> {
        let reserve = reserve
            .split(hw, self.tables)
            .ok_or(EngineError::OutOfPages { needed: self.tables })?;
        Ok(Permit { plan: self, reserve })
    }
}

/// A change that cannot fail any more: it was checked, and its table pages are in hand.
#[derive(Debug)]
#[must_use = "a permitted change does nothing until it is committed"]
pub struct Permit<'t, F: Format, G: Geometry> {
    plan: Plan<'t, F, G>,
    reserve: Reserve,
}

/// A table that is being filled, and the entry that will lead to it.
#[derive(Clone, Copy)]
struct Unlinked {
    slot: Slot,
    /// What the entry says meanwhile.
    now: u64,
    /// What it will say.
    table: u64,
}

impl<F: Format, G: Geometry> Permit<'_, F, G> {
    /// Gives the pages back to the pool, and the change up.
    pub fn abandon<H: Hardware<Geometry = G>>(self, hw: &H) {
        self.reserve.release(hw);
    }

    /// Gives the pages back to where [`Plan::reserve_from`] had them from, and the change up.
    pub fn abandon_into<H: Hardware<Geometry = G>>(self, hw: &H, reserve: &mut Reserve) {
        reserve.append(hw, self.reserve);
    }

    /// Carries the change out. What is new is visible to table walks when this returns; what is gone may still be
    /// in TLBs until the obligation is completed.
    ///
    /// A block of which the range covers a part is broken first: its entry is emptied and its translations are
    /// invalidated. Then a table is filled that has the range's part in its final form, and is linked. So what was
    /// split is owed no further invalidation.
    ///
    /// # Panics
    /// If the table has changed since the plan was made: the caller did not hold the range's lock.
    #[inline]
    pub fn commit<H: Hardware<Geometry = G>>(self, hw: &H) -> Obligation {
        let Self { plan, mut reserve } = self;
        let regime = plan.table.regime;
        let mut obligation = Obligation::none(regime);
        let mut unlinked: Option<Unlinked> = None;
        let mut unpublished = false;
        let Some(mut cursor) = plan.first else {
            return obligation;
        };
        loop {
            let raw = cursor.settle(hw);
            let slot = cursor.slot();
            let verdict = plan
                .change
                .judge::<G, H>(hw, plan.span, slot, raw)
                .expect("nothing was mapped here when the change was planned");
            match verdict {
                Verdict::Keep => {}
                Verdict::Descend(child) => {
                    cursor.descend(child);
                    continue;
                }
                Verdict::Write(new) if unlinked.is_some() => store(hw, regime, slot, raw, new),
                Verdict::Write(new) => {
                    unpublished |= replace::<F, H>(hw, regime, slot, raw, new, &mut obligation);
                }
                Verdict::Split => {
                    let page = reserve
                        .pop(hw)
                        .expect("the plan has counted the tables that this change takes");
                    let table = table_descriptor(page);
                    if unlinked.is_some() {
                        // The table around it is not in use yet, so that there is nothing to break.
                        fill::<F, G, H>(hw, regime, slot, raw, page);
                        store(hw, regime, slot, raw, table);
                    } else {
                        let now = break_leaf::<F, H>(hw, regime, slot, raw);
                        fill::<F, G, H>(hw, regime, slot, raw, page);
                        unlinked = Some(Unlinked { slot, now, table });
                    }
                    cursor.descend(page);
                    continue;
                }
            }
            let more = cursor.advance(hw);
            if let Some(Unlinked { slot, now, table }) = unlinked
                && (!more || cursor.level() <= slot.level)
            {
                hw.publish();
                store(hw, regime, slot, now, table);
                unlinked = None;
                unpublished = true;
            }
            if !more {
                break;
            }
        }
        if unpublished {
            hw.publish();
        }
        reserve.release(hw);
        obligation
    }
}
