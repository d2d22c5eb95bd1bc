//! What a call is expected to answer.

use hyp_abi::{HostReturn, Status};

/// The answer that the specification expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Status and results. Of [`Status::NoMemory`] the first result is how many pages the call takes in all.
    pub answer: HostReturn,
    /// How many pages it could have had.
    pub available: u64,
    /// Runs of frames (first, count) that came back to the host, and must be zero.
    pub returned: Vec<(u64, u64)>,
}

impl Expected {
    pub(super) fn success(values: [u64; 3]) -> Self {
        Self::from(HostReturn::success(values))
    }

    pub(super) fn refused(status: Status) -> Self {
        Self::from(HostReturn::refused(status))
    }

    pub(super) fn no_memory(pages: u64, available: u64) -> Self {
        Self {
            available,
            ..Self::from(HostReturn {
                status: Status::NoMemory,
                values: [pages, 0, 0],
            })
        }
    }

    /// Whether `answer` is what is expected. Of missing pages a caller is told enough to help, and never more than the
    /// call could take.
    #[must_use]
    pub fn admits(&self, answer: &HostReturn) -> bool {
        if self.answer.status == Status::NoMemory {
            let [pages, rest @ ..] = answer.values;
            return answer.status == Status::NoMemory
                && rest == [0, 0]
                && self.available < pages
                && pages <= self.answer.values[0];
        }
        *answer == self.answer
    }
}

impl From<HostReturn> for Expected {
    fn from(answer: HostReturn) -> Self {
        Self {
            answer,
            available: 0,
            returned: Vec::new(),
        }
    }
}
