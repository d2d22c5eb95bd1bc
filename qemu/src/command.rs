//! The subcommands of `freehold`. Each takes its arguments and returns the exit status.

pub(crate) mod attack;
pub(crate) mod bench;
pub(crate) mod linux;
pub(crate) mod mutate;
pub(crate) mod setup;
pub(crate) mod soak;
pub(crate) mod story;

use anstyle::{AnsiColor, Style};

/// How the word "error" looks on a terminal.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
