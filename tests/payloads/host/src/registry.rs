//! What a case is, and how it says what went wrong.

use arrayvec::ArrayString;
use core::fmt::{self, Write};
use linkme::distributed_slice;

/// Every case of the image, in the linker's order.
#[distributed_slice]
pub(crate) static CASES: [Case];

/// One behavior, and the code that looks for it.
#[derive(Debug)]
pub(crate) struct Case {
    /// Module path and name; see [`Case::name`].
    pub(crate) path: &'static str,
    /// Looks.
    pub(crate) run: fn() -> TestResult,
}

impl Case {
    /// `module::behavior`.
    pub(crate) fn name(&self) -> &'static str {
        let prefix = "payload_host::cases::";
        self.path.strip_prefix(prefix).unwrap_or(self.path)
    }
}

/// What a case returns: nothing, if the machine behaved.
pub(crate) type TestResult = Result<(), Outcome>;

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The machine did not behave.
    Failed(Failure),
    /// This machine cannot show the behavior: it has too few CPUs, or too little memory.
    Skipped(Text),
}

/// One line of text, cut off where it grows too long.
pub(crate) type Text = ArrayString<240>;

/// What went wrong, and where.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Source file.
    pub(crate) file: &'static str,
    /// Line in it.
    pub(crate) line: u32,
    /// What was expected and what came.
    pub(crate) text: Text,
}

/// Formats `arguments` as one line.
pub(crate) fn text(arguments: fmt::Arguments<'_>) -> Text {
    /// Takes what fits.
    struct Cut(Text);
    impl Write for Cut {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            for character in part.chars() {
                let character = if character.is_control() { ' ' } else { character };
                self.0.try_push(character).map_err(|_| fmt::Error)?;
            }
            Ok(())
        }
    }
    let mut cut = Cut(Text::new());
    // An error says that the text was cut, which is what it is for.
    let _ = cut.write_fmt(arguments);
    cut.0
}

/// Registers a case: `case!(name_of_the_behavior, { …; Ok(()) })`.
macro_rules! case {
    ($name:ident, $body:block) => {
        #[expect(unsafe_code, reason = "the registration sets a link section")]
        mod $name {
            #[linkme::distributed_slice($crate::registry::CASES)]
            static CASE: $crate::registry::Case = $crate::registry::Case {
                path: module_path!(),
                run: super::$name,
            };
        }

        fn $name() -> $crate::registry::TestResult {
            $body
        }
    };
}

/// Ends the case as failed, with a formatted text.
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::registry::Outcome::Failed($crate::registry::Failure {
            file: file!(),
            line: line!(),
            text: $crate::registry::text(format_args!($($argument)*)),
        }))
    };
}

/// Ends the case as skipped, with a formatted reason.
macro_rules! skip {
    ($($argument:tt)*) => {
        return Err($crate::registry::Outcome::Skipped($crate::registry::text(format_args!($($argument)*))))
    };
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr) => {
        $crate::registry::ensure!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            $crate::registry::fail!($($argument)*);
        }
    };
}

/// Fails the case unless both are equal. What is left out of the message is what was tried.
macro_rules! ensure_eq {
    ($left:expr, $right:expr) => {
        $crate::registry::ensure_eq!($left, $right, "{}", stringify!($left))
    };
    ($left:expr, $right:expr, $($argument:tt)*) => {
        match (&$left, &$right) {
            (left, right) => if *left != *right {
                $crate::registry::fail!("{}: got {:x?}, expected {:x?}", format_args!($($argument)*), left, right);
            },
        }
    };
}

/// The value of a call that must succeed; fails the case otherwise.
macro_rules! succeed {
    ($call:expr) => {
        match $call {
            Ok(value) => value,
            Err(error) => $crate::registry::fail!("{}: {:x?}", stringify!($call), error),
        }
    };
}

pub(crate) use {case, ensure, ensure_eq, fail, skip, succeed};
