//! Pages on their way into tables and out of them.
//!
//! Such a page is in no table, so its first entry is free to name the next page: a list of any length takes no
//! memory. The link word has bit 0 clear; a table walk that still leads here would take it for an invalid
//! descriptor.

#[cfg(any(test, feature = "doubles"))]
mod copy;

use super::descriptor::{EMPTY, link_word, linked_page};
use crate::hardware::{Hardware, TablePage};
use crate::sync::Ordering;
use core::mem;

/// A list of pages, each linked through its first entry.
#[derive(Debug, Default)]
pub(crate) struct PageList {
    first: Option<TablePage>,
    last: Option<TablePage>,
    pages: u64,
}

impl PageList {
    /// No pages.
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            pages: 0,
        }
    }

    /// How many.
    pub(crate) const fn len(&self) -> u64 {
        self.pages
    }

    /// Puts `page` in front.
    #[inline]
    pub(crate) fn push<H: Hardware>(&mut self, hw: &H, page: TablePage) {
        set_link(hw, page, self.first);
        self.first = Some(page);
        if self.last.is_none() {
            self.last = Some(page);
        }
        self.pages += 1;
    }

    /// Takes the page in front; its first entry is zero again.
    #[inline]
    pub(crate) fn pop<H: Hardware>(&mut self, hw: &H) -> Option<TablePage> {
        let page = self.first?;
        self.first = linked_page(hw.table(page)[0].load(Ordering::Relaxed));
        if self.first.is_none() {
            self.last = None;
        }
        self.pages -= 1;
        set_link(hw, page, None);
        Some(page)
    }

    /// Appends all of `other`.
    pub(super) fn append<H: Hardware>(&mut self, hw: &H, other: &mut Self) {
        let other = mem::take(other);
        match self.last {
            Some(last) if other.first.is_some() => {
                set_link(hw, last, other.first);
                self.last = other.last;
                self.pages += other.pages;
            }
            Some(_) => {}
            None => *self = other,
        }
    }
}

/// The only store to a page that is in no table.
fn set_link<H: Hardware>(hw: &H, page: TablePage, next: Option<TablePage>) {
    hw.table(page)[0].store(link_word(next), Ordering::Relaxed);
}

/// Zeroed table pages, taken before the change that may need them, so that the change cannot run out of them.
///
/// Also what a VM's own table pages wait in. It must be emptied with [`Reserve::release`] before it is dropped.
#[derive(Debug, Default)]
#[must_use = "the pages in a reserve that is forgotten are lost"]
pub struct Reserve {
    list: PageList,
}

impl Reserve {
    /// A reserve without pages.
    pub const fn new() -> Self {
        Self {
            list: PageList::new(),
        }
    }

    /// A reserve of `pages` pages from the pool; `None`, and none taken, if the pool has fewer.
    pub fn take<H: Hardware>(hw: &H, pages: u64) -> Option<Self> {
        let mut reserve = Self::new();
        while reserve.pages() < pages {
            match hw.allocate_page() {
                Some(page) => reserve.list.push(hw, page),
                None => {
                    reserve.release(hw);
                    return None;
                }
            }
        }
        Some(reserve)
    }

    /// How many pages it holds.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.list.len()
    }

    /// Adds a page that is in no table, and that no TLB leads to. It is zeroed here.
    pub fn put<H: Hardware>(&mut self, hw: &H, page: TablePage) {
        for entry in hw.table(page) {
            entry.store(EMPTY, Ordering::Relaxed);
        }
        self.list.push(hw, page);
    }

    /// Moves `pages` pages out of this reserve; `None`, and none moved, if it has fewer.
    pub fn split<H: Hardware>(&mut self, hw: &H, pages: u64) -> Option<Self> {
        if self.pages() < pages {
            return None;
        }
        let mut part = Self::new();
        while part.pages() < pages {
            part.list.push(hw, self.list.pop(hw)?);
        }
        Some(part)
    }

    /// Takes one page, all zero.
    pub fn pop<H: Hardware>(&mut self, hw: &H) -> Option<TablePage> {
        self.list.pop(hw)
    }

    /// Adds all pages of `other`.
    pub fn append<H: Hardware>(&mut self, hw: &H, mut other: Self) {
        self.list.append(hw, &mut other.list);
    }

    /// Gives all pages back to the pool.
    pub fn release<H: Hardware>(mut self, hw: &H) {
        while let Some(page) = self.list.pop(hw) {
            hw.free_page(page);
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        super::assert_spent(self.pages() == 0, "a reserve was dropped with pages in it");
    }
}
