//! What a guest says of an order.

use num_enum::{IntoPrimitive, TryFromPrimitive};

/// A report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The vCPU has begun, and has carried out no order yet.
    Ready {
        /// What it found in x0.
        start: u64,
        /// The exception level that it began at, as CurrentEL has it.
        level: u64,
        /// SCTLR_EL1 as it found it.
        sctlr: u64,
    },
    /// The order is carried out; what it reports is the order's to say.
    Done([u64; 5]),
    /// It ran into an exception.
    Fault {
        /// ESR_EL1.
        esr: u64,
        /// FAR_EL1.
        far: u64,
        /// ELR_EL1.
        elr: u64,
        /// SPSR_EL1.
        spsr: u64,
    },
    /// The registers hold no order.
    Puzzled,
    /// The guest's own code went wrong: an exception that no order expected. The values are a fault's.
    Broken {
        /// ESR_EL1.
        esr: u64,
        /// FAR_EL1.
        far: u64,
        /// ELR_EL1.
        elr: u64,
    },
    /// What it keeps is not what it was: by now, some word of memory or some register holds something else.
    Spoiled {
        /// The page, or 0 for registers.
        address: u64,
        /// How many words of the page differ; or which general, vector and system registers do, a bit each.
        differences: [u64; 3],
    },
}

/// The kind of a report: x1.
#[derive(Clone, Copy, IntoPrimitive, TryFromPrimitive)]
#[repr(u64)]
enum Kind {
    Ready,
    Done,
    Fault,
    Puzzled,
    Broken,
    Spoiled,
}

impl Report {
    /// The registers x1 to x6 that hold the report.
    #[must_use]
    pub const fn encode(self) -> [u64; 6] {
        match self {
            Self::Ready { start, level, sctlr } => [Kind::Ready as u64, start, level, sctlr, 0, 0],
            Self::Done([a, b, c, d, e]) => [Kind::Done as u64, a, b, c, d, e],
            Self::Fault { esr, far, elr, spsr } => [Kind::Fault as u64, esr, far, elr, spsr, 0],
            Self::Puzzled => [Kind::Puzzled as u64, 0, 0, 0, 0, 0],
            Self::Broken { esr, far, elr } => [Kind::Broken as u64, esr, far, elr, 0, 0],
            Self::Spoiled {
                address,
                differences: [a, b, c],
            } => [Kind::Spoiled as u64, address, a, b, c, 0],
        }
    }

    /// The report that registers x1 to x6 hold, if they hold one.
    #[must_use]
    pub fn decode([kind, a, b, c, d, e]: [u64; 6]) -> Option<Self> {
        Some(match Kind::try_from(kind).ok()? {
            Kind::Ready => Self::Ready {
                start: a,
                level: b,
                sctlr: c,
            },
            Kind::Done => Self::Done([a, b, c, d, e]),
            Kind::Fault => Self::Fault {
                esr: a,
                far: b,
                elr: c,
                spsr: d,
            },
            Kind::Puzzled => Self::Puzzled,
            Kind::Broken => Self::Broken {
                esr: a,
                far: b,
                elr: c,
            },
            Kind::Spoiled => Self::Spoiled {
                address: a,
                differences: [b, c, d],
            },
        })
    }

    /// The exception class of a fault.
    #[must_use]
    pub const fn class(&self) -> Option<u64> {
        match self {
            Self::Fault { esr, .. } => Some(*esr >> 26 & 0x3f),
            _ => None,
        }
    }

    /// The fault status code of a fault.
    #[must_use]
    pub const fn status(&self) -> Option<u64> {
        match self {
            Self::Fault { esr, .. } => Some(*esr & 0x3f),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_survives_its_registers() {
        for report in [
            Report::Ready {
                start: 1,
                level: 4,
                sctlr: 3,
            },
            Report::Done([1, 2, 3, 4, 5]),
            Report::Fault {
                esr: 0x25 << 26 | 0x21,
                far: 2,
                elr: 3,
                spsr: 4,
            },
            Report::Puzzled,
            Report::Broken {
                esr: 1,
                far: 2,
                elr: 3,
            },
            Report::Spoiled {
                address: 1,
                differences: [2, 3, 4],
            },
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([6, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_fault_says_its_class_and_status() {
        let fault = Report::Fault {
            esr: 0x9600_0021,
            far: 0,
            elr: 0,
            spsr: 0,
        };
        assert_eq!((fault.class(), fault.status()), (Some(0x25), Some(0x21)));
        assert_eq!(Report::Puzzled.class(), None);
    }
}
