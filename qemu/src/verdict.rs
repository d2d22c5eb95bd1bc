//! What a run proved.
//!
//! A machine may hang, die early or lose a line, so nothing is believed on one sign alone: a payload's verdict
//! needs the end line with the right count and the exit status ([`suite`]), a Linux host's the signed status line
//! and a machine that ended well ([`init`]).

pub mod init;
pub mod suite;
