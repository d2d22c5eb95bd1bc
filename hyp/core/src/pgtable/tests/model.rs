//! What a table ought to say: a function of the address that is constant in pieces.

use super::*;
use std::collections::BTreeMap;

/// What a page of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Not mapped.
    Invalid(Annotation),
    /// Mapped with these attribute bits, this many pages further on.
    Mapped { offset: i64, attributes: u64 },
}

/// The model: for each key, what the pages from there to the next key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pieces: BTreeMap<u64, Page>,
    end: u64,
}

impl Model {
    /// `end` pages of nothing.
    pub(super) fn new(end: u64) -> Self {
        Self {
            pieces: BTreeMap::from([(0, Page::Invalid(Annotation::NONE))]),
            end,
        }
    }

    /// What a table says.
    pub(super) fn of<F: Format, G: Geometry>(hw: &Machine<G>, table: &Table<F, G>) -> Self {
        let mut model = Self::new(table.span().pages());
        for entry in table.entries(hw, table.span()) {
            let first = entry.start.value() >> 12;
            let page = match entry.descriptor {
                Descriptor::Table(_) => continue,
                Descriptor::Invalid(annotation) => Page::Invalid(annotation),
                Descriptor::Leaf { pa, attributes } => Page::Mapped {
                    offset: (pa.value() >> 12).cast_signed() - first.cast_signed(),
                    attributes: attributes.to_bits(),
                },
            };
            model.set(first, entry.pages, |_| page);
        }
        model
    }

    /// What page `number` is.
    pub(super) fn at(&self, number: u64) -> Page {
        *self
            .pieces
            .range(..=number)
            .next_back()
            .expect("a piece begins at 0")
            .1
    }

    /// Changes every page of a range.
    pub(super) fn set(&mut self, first: u64, pages: u64, change: impl Fn(Page) -> Page) {
        let end = first + pages;
        for edge in [first, end] {
            if edge < self.end {
                let page = self.at(edge);
                self.pieces.insert(edge, page);
            }
        }
        for page in self.pieces.range_mut(first..end).map(|(_, page)| page) {
            *page = change(*page);
        }
        // Pieces that say the same are one.
        let mut last = None;
        self.pieces.retain(|_, page| {
            let keep = last != Some(*page);
            last = Some(*page);
            keep
        });
    }

    /// The first page of a range that is mapped.
    pub(super) fn first_mapped(&self, first: u64, pages: u64) -> Option<u64> {
        let mapped = |page: &Page| matches!(page, Page::Mapped { .. });
        if mapped(&self.at(first)) {
            return Some(first);
        }
        self.pieces
            .range(first..first + pages)
            .find(|(_, page)| mapped(page))
            .map(|(number, _)| *number)
    }
}
