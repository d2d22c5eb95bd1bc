//! What came of a deed, how it is printed, what exit status it makes, and whether it was what a script expected.

use crate::number;
use crate::signals::{self, Fault};
use hyp_abi::Status;
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// What came of a deed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A load, a register or a function gave this value.
    Value(u64),
    /// A store or a register write was carried out.
    Written,
    /// The kernel took the fixup of its exception table.
    Refused,
    /// The process at EL0 was sent the signal of a fault.
    Signal(Fault),
    /// The process that did it was killed. At EL1 by an oops, whose headline this is.
    Died {
        /// Number of the signal that killed it.
        signal: i32,
        /// Headline of the oops, if the kernel's log has one.
        oops: Option<String>,
    },
    /// A hypercall answered.
    Returned(Answer),
}

/// What a hypercall answered in x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status of Freehold's.
    Known(Status),
    /// Something else.
    Unknown(u64),
}

impl From<u64> for Answer {
    fn from(register: u64) -> Self {
        Status::from_register(register).map_or(Self::Unknown(register), Self::Known)
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(status) => write!(f, "{status:?}"),
            Self::Unknown(register) => write!(f, "{register:#x}"),
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) => write!(f, "outcome=value value={value:#x}"),
            Self::Written => write!(f, "outcome=written"),
            Self::Refused => write!(f, "outcome=refused"),
            Self::Signal(fault) => write!(f, "outcome=signal {fault}"),
            Self::Died { signal, oops } => {
                write!(f, "outcome=died signal={}", signals::name(*signal))?;
                match oops {
                    Some(headline) => write!(f, " oops={headline:?}"),
                    None => Ok(()),
                }
            }
            Self::Returned(answer) => write!(f, "outcome=returned status={answer}"),
        }
    }
}

/// The exit status of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It was done, or what was expected came.
    Done = 0,
    /// Wrong usage, no module, no Freehold, or not what was expected.
    Failed = 1,
    /// It was refused.
    Refused = 3,
    /// It was answered by a signal or an oops.
    Died = 4,
}

impl Exit {
    /// The exit status of that number; any other number is a failure.
    pub(crate) fn from_number(number: u64) -> Self {
        [Self::Done, Self::Refused, Self::Died]
            .into_iter()
            .find(|exit| *exit as u64 == number)
            .unwrap_or(Self::Failed)
    }
}

impl Outcome {
    /// The exit status that this makes when nothing was expected.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Value(_) | Self::Written | Self::Returned(Answer::Known(Status::Success)) => Exit::Done,
            Self::Refused | Self::Returned(_) => Exit::Refused,
            Self::Signal(_) | Self::Died { .. } => Exit::Died,
        }
    }
}

/// What a script expects, as `--expect` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `value` or `value=NUMBER`.
    Value(Option<u64>),
    /// `written`.
    Written,
    /// `refused`.
    Refused,
    /// `signal` or `signal=NAME`.
    Signal(Option<String>),
    /// `died`.
    Died,
    /// `status=NAME`.
    Status(String),
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, detail) = text
            .split_once('=')
            .map_or((text, None), |(kind, detail)| (kind, Some(detail)));
        match (kind, detail) {
            ("value", detail) => Ok(Self::Value(detail.map(number::parse).transpose()?)),
            ("written", None) => Ok(Self::Written),
            ("refused", None) => Ok(Self::Refused),
            ("signal", detail) => Ok(Self::Signal(detail.map(str::to_owned))),
            ("died", None) => Ok(Self::Died),
            ("status", Some(name)) => Ok(Self::Status(name.to_owned())),
            _ => Err(
                "not one of value, value=N, written, refused, signal, signal=NAME, died, status=NAME".into(),
            ),
        }
    }
}

impl Display for Expected {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(None) => write!(f, "value"),
            Self::Value(Some(value)) => write!(f, "value={value:#x}"),
            Self::Written => write!(f, "written"),
            Self::Refused => write!(f, "refused"),
            Self::Signal(None) => write!(f, "signal"),
            Self::Signal(Some(name)) => write!(f, "signal={name}"),
            Self::Died => write!(f, "died"),
            Self::Status(name) => write!(f, "status={name}"),
        }
    }
}

impl Expected {
    /// Whether the outcome is the expected one.
    pub(crate) fn is_met_by(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Value(None), Outcome::Value(_))
            | (Self::Written, Outcome::Written)
            | (Self::Refused, Outcome::Refused)
            | (Self::Signal(None), Outcome::Signal(_))
            | (Self::Died, Outcome::Died { .. }) => true,
            (Self::Value(Some(expected)), Outcome::Value(value)) => expected == value,
            (Self::Signal(Some(name)), Outcome::Signal(fault)) => *name == signals::name(fault.signal),
            (Self::Status(name), Outcome::Returned(answer)) => *name == answer.to_string(),
            _ => false,
        }
    }
}

/// The line that tells the outcome, and the exit status.
pub(crate) fn conclude(outcome: &Outcome, expected: Option<&Expected>) -> (String, Exit) {
    match expected {
        None => (outcome.to_string(), outcome.exit()),
        Some(expected) if expected.is_met_by(outcome) => (outcome.to_string(), Exit::Done),
        Some(expected) => (format!("{outcome} expected=\"{expected}\""), Exit::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault = Fault {
        signal: libc::SIGBUS,
        code: 1,
        address: 0x1000,
    };

    fn all() -> [Outcome; 7] {
        [
            Outcome::Value(0x2a),
            Outcome::Written,
            Outcome::Refused,
            Outcome::Signal(FAULT),
            Outcome::Died {
                signal: libc::SIGSEGV,
                oops: Some("Internal error: x".into()),
            },
            Outcome::Returned(Answer::Known(Status::Success)),
            Outcome::Returned(Answer::Known(Status::NotOwner)),
        ]
    }

    #[test]
    fn lines_and_exit_statuses_are_stable() {
        let told: Vec<_> = all().iter().map(|outcome| conclude(outcome, None)).collect();
        let expected = [
            ("outcome=value value=0x2a", Exit::Done),
            ("outcome=written", Exit::Done),
            ("outcome=refused", Exit::Refused),
            (
                "outcome=signal signal=SIGBUS code=BUS_ADRALN at=0x1000",
                Exit::Died,
            ),
            (
                "outcome=died signal=SIGSEGV oops=\"Internal error: x\"",
                Exit::Died,
            ),
            ("outcome=returned status=Success", Exit::Done),
            ("outcome=returned status=NotOwner", Exit::Refused),
        ];
        assert_eq!(told, expected.map(|(line, exit)| (line.to_owned(), exit)));
    }

    #[test]
    fn each_expectation_is_met_by_its_outcome_alone() {
        let expectations = [
            "value=42",
            "written",
            "refused",
            "signal=SIGBUS",
            "died",
            "status=Success",
            "status=NotOwner",
        ];
        for (e, text) in expectations.into_iter().enumerate() {
            let expected: Expected = text.parse().unwrap();
            for (o, outcome) in all().iter().enumerate() {
                assert_eq!(expected.is_met_by(outcome), e == o, "{text} and {outcome}");
            }
        }
    }

    #[test]
    fn a_detail_that_differs_does_not_meet() {
        let fails = |text: &str, outcome| {
            let expected: Expected = text.parse().unwrap();
            let (line, exit) = conclude(&outcome, Some(&expected));
            assert!(line.ends_with(&format!(" expected=\"{expected}\"")), "{line}");
            assert_eq!(exit, Exit::Failed);
        };
        fails("value=0x2b", Outcome::Value(0x2a));
        fails("signal=SIGSEGV", Outcome::Signal(FAULT));
        fails("refused", Outcome::Written);
    }

    #[test]
    fn nonsense_is_no_expectation() {
        for text in [
            "",
            "values",
            "value=",
            "written=1",
            "refused=yes",
            "status",
            "died=SIGSEGV",
        ] {
            assert!(text.parse::<Expected>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_answer_keeps_its_number() {
        assert_eq!(Answer::from(0xbad_ca11).to_string(), "0xbadca11");
        assert_eq!(
            Answer::from((-21_i64).cast_unsigned()),
            Answer::Known(Status::NotOwner)
        );
    }
}
