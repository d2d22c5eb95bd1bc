//! Access flags: what of a range was used since the last look.

use super::Table;
use super::cursor::Cursor;
use super::descriptor::{Descriptor, Format};
use super::entries::Entry;
use super::obligation::Obligation;
use super::span::IpaSpan;
use super::store::replace;
use crate::geometry::Geometry;
use crate::hardware::Hardware;

impl<F: Format, G: Geometry> Table<F, G> {
    /// Clears the access flag of every leaf that translates part of `span`, and shows `seen` each one that had it
    /// set, as it was. Blocks are not split: one that lies partly in the range is asked and cleared as a whole.
    ///
    /// The CPUs do not set the flag themselves (VTCR_EL2.HA is 0): the first access of a leaf without it faults,
    /// and [`Update::mark_accessed`](super::Update::mark_accessed) answers. The caller holds the range's lock.
    pub fn take_accessed<H: Hardware<Geometry = G>>(
        &self,
        hw: &H,
        span: IpaSpan,
        mut seen: impl FnMut(Entry<F>),
    ) -> Obligation {
        let mut obligation = Obligation::none(self.regime);
        let Some(span) = self.clip(span) else {
            return obligation;
        };
        let mut cursor = Cursor::new(hw, self, span);
        loop {
            let slot = cursor.slot();
            let raw = slot.load(hw);
            match Descriptor::<F>::decode(raw, slot.level) {
                Descriptor::Table(table) => {
                    cursor.descend(table);
                    continue;
                }
                Descriptor::Leaf { .. } if raw & F::ACCESSED != 0 => {
                    seen(Entry::new::<G>(slot.address(), slot.level, raw));
                    // Only an access flag goes, so that nothing is left to publish.
                    let _ = replace::<F, H>(hw, self.regime, slot, raw, raw & !F::ACCESSED, &mut obligation);
                }
                Descriptor::Leaf { .. } | Descriptor::Invalid(_) => {}
            }
            if !cursor.advance(hw) {
                return obligation;
            }
        }
    }
}
