//! For searches that come back to an earlier state: a reserve is copied, and forgotten, as no transition would.

use super::super::descriptor::linked_page;
use super::{PageList, Reserve};
use crate::hardware::{Hardware, TablePage};
use crate::sync::Ordering;
use std::vec::Vec;

impl Reserve {
    /// Another reserve that claims the same pages. Only one of the two may ever be used.
    pub(crate) const fn duplicate(&self) -> Self {
        Self {
            list: PageList {
                first: self.list.first,
                last: self.list.last,
                pages: self.list.pages,
            },
        }
    }

    /// Drops the reserve with the pages that it claims.
    pub(crate) fn forget(mut self) {
        self.list = PageList::new();
    }

    /// The pages, in the order in which they would be taken.
    #[must_use]
    pub fn list<H: Hardware>(&self, hw: &H) -> Vec<TablePage> {
        let mut pages = Vec::new();
        let mut next = self.list.first;
        while let Some(page) = next {
            pages.push(page);
            next = linked_page(hw.table(page)[0].load(Ordering::Relaxed));
        }
        pages
    }
}
