//! How a guest ends, and the exit status that stands for it.

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It powered off.
    Off,
    /// It asked for a reset, which is the caller's to give.
    Reset,
    /// The hypervisor could not go on with it.
    Stuck(String),
}

impl Ending {
    /// The exit status: 0, 3 or 4. Errors of the VMM itself are 1, wrong command lines 2.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Reset => 3,
            Self::Stuck(_) => 4,
        }
    }
}
