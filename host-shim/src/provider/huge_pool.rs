//! Huge blocks that were set aside, without a fallback.

use super::{Allocated, Contents, Provider};
use crate::sync::SpinMutex;
use crate::{Block, Error, MAX_ORDER, Pfn};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Blocks of one order, reserved when the pool is made, so that a guest that has been promised huge pages gets them.
/// When there is none left there is none: nothing smaller takes its place. A block comes back whole.
#[derive(Debug)]
pub struct HugePool {
    order: u8,
    from: Arc<dyn Provider>,
    free: SpinMutex<Vec<Pfn>>,
}

impl HugePool {
    /// Reserves `blocks` blocks of `order` from another provider: 9 for 2 MiB, 18 for 1 GiB.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that provider has no such order; [`Error::NoMemory`], and nothing is reserved.
    pub fn reserve(from: Arc<dyn Provider>, order: u8, blocks: usize) -> Result<Self, Error> {
        if order > MAX_ORDER || !from.orders().contains(&order) {
            return Err(Error::InvalidArgument);
        }
        let pool = Self {
            order,
            from,
            free: SpinMutex::new(Vec::new()),
        };
        for _ in 0..blocks {
            // A pool that is dropped gives back what it has.
            let block = pool.from.allocate(order, Contents::Any).ok_or(Error::NoMemory)?;
            pool.free.lock().push(block.pfn);
        }
        Ok(pool)
    }

    /// How many blocks are free.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.free.lock().len()
    }
}

impl Provider for HugePool {
    fn orders(&self) -> RangeInclusive<u8> {
        self.order..=self.order
    }

    fn allocate(&self, order: u8, _: Contents) -> Option<Allocated> {
        if order != self.order {
            return None;
        }
        let pfn = self.free.lock().pop()?;
        Some(Allocated { pfn, zeroed: false })
    }

    fn free(&self, block: Block) {
        debug_assert_eq!(block.order, self.order, "a reserved block comes back whole");
        self.free.lock().push(block.pfn);
    }
}

impl Drop for HugePool {
    fn drop(&mut self) {
        for pfn in self.free.get_mut().drain(..) {
            self.from.free(Block::new(pfn, self.order));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Buddy;

    fn buddy(regions: u64) -> Arc<Buddy> {
        let buddy = Buddy::new();
        buddy.add(Pfn::new(0x4_0000).unwrap(), regions * 512);
        Arc::new(buddy)
    }

    #[test]
    fn what_is_reserved_is_there_when_all_else_is_gone() {
        let from = buddy(4);
        let pool = HugePool::reserve(from.clone(), 9, 2).unwrap();
        while from.allocate(0, Contents::Any).is_some() {}
        let first = pool.allocate(9, Contents::Any).unwrap();
        assert!(pool.allocate(9, Contents::Any).is_some());
        assert_eq!(pool.allocate(9, Contents::Any), None);
        assert_eq!(pool.allocate(0, Contents::Any), None);
        pool.free(Block::new(first.pfn, 9));
        assert_eq!(pool.free_blocks(), 1);
    }

    #[test]
    fn a_pool_that_cannot_be_made_leaves_nothing_behind() {
        let from = buddy(3);
        assert_eq!(HugePool::reserve(from.clone(), 9, 4).err(), Some(Error::NoMemory));
        assert_eq!(from.free_frames(), 3 * 512);
        assert_eq!(
            HugePool::reserve(from.clone(), 19, 1).err(),
            Some(Error::InvalidArgument)
        );
        drop(HugePool::reserve(from.clone(), 9, 3).unwrap());
        assert_eq!(from.free_frames(), 3 * 512);
    }
}
