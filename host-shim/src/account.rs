//! Who pays for frames: charged before they are allocated, uncharged when they are free again.

use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// What frames are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Memory of guests: a guest_memfd.
    Guest,
    /// Pages given to EL2's pool: tables, VMs, vCPUs.
    Hypervisor,
    /// Run pages.
    RunPage,
}

/// The owner may not have that many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the frames would exceed the owner's limit")]
pub struct OverLimit;

/// An owner's account: a control group, a limit on locked memory, a statistics line. Called with no lock held that
/// an allocation would take.
pub trait Account: Send + Sync + Debug {
    /// Charges frames that are about to be allocated.
    ///
    /// # Errors
    /// [`OverLimit`], and nothing is charged.
    fn charge(&self, purpose: Purpose, frames: u64) -> Result<(), OverLimit>;

    /// Takes a charge back, in the same pieces or in others.
    fn uncharge(&self, purpose: Purpose, frames: u64);
}

/// An account without limits that remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Account for Unlimited {
    fn charge(&self, _: Purpose, _: u64) -> Result<(), OverLimit> {
        Ok(())
    }

    fn uncharge(&self, _: Purpose, _: u64) {}
}

/// An account that counts, with one limit over all purposes.
#[derive(Debug)]
pub struct Counted {
    limit: u64,
    total: AtomicU64,
    guest: AtomicU64,
    hypervisor: AtomicU64,
    run_pages: AtomicU64,
}

impl Counted {
    /// An account of at most `limit` frames.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            total: AtomicU64::new(0),
            guest: AtomicU64::new(0),
            hypervisor: AtomicU64::new(0),
            run_pages: AtomicU64::new(0),
        }
    }

    /// How many frames are charged for a purpose.
    #[must_use]
    pub fn charged(&self, purpose: Purpose) -> u64 {
        self.of(purpose).load(Ordering::Relaxed)
    }

    /// How many frames are charged in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    const fn of(&self, purpose: Purpose) -> &AtomicU64 {
        match purpose {
            Purpose::Guest => &self.guest,
            Purpose::Hypervisor => &self.hypervisor,
            Purpose::RunPage => &self.run_pages,
        }
    }
}

impl Account for Counted {
    fn charge(&self, purpose: Purpose, frames: u64) -> Result<(), OverLimit> {
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
                total.checked_add(frames).filter(|sum| *sum <= self.limit)
            })
            .map_err(|_| OverLimit)?;
        self.of(purpose).fetch_add(frames, Ordering::Relaxed);
        Ok(())
    }

    fn uncharge(&self, purpose: Purpose, frames: u64) {
        self.of(purpose).fetch_sub(frames, Ordering::Relaxed);
        self.total.fetch_sub(frames, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_over_the_limit_charges_nothing() {
        let account = Counted::new(10);
        account.charge(Purpose::Guest, 8).unwrap();
        assert_eq!(account.charge(Purpose::RunPage, 3), Err(OverLimit));
        assert_eq!(account.charge(Purpose::Guest, u64::MAX), Err(OverLimit));
        assert_eq!((account.charged(Purpose::RunPage), account.total()), (0, 8));
        account.uncharge(Purpose::Guest, 5);
        account.charge(Purpose::RunPage, 7).unwrap();
        assert_eq!(account.total(), 10);
        assert_eq!(account.charged(Purpose::Guest), 3);
    }
}
