//! How the payload ends.

/// Exit statuses of the payload, as QEMU hands them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Exit {
    /// Every case that was asked for passed or had a reason to be skipped.
    Passed = 0,
    /// A case failed.
    Failed = 1,
    /// The command line has no command that the payload knows.
    UnknownCommand = 2,
    /// The device tree lacks what the payload needs.
    NoMachine = 3,
    /// The filter chose no case.
    NothingToRun = 4,
    /// The entry code found itself at the wrong exception level, or in an image that it cannot relocate.
    BootFailed = 100,
    /// A Rust panic, or an exception that no case expected.
    Panic = 101,
}

/// Ends the payload and QEMU with it (semihosting `SYS_EXIT_EXTENDED`).
pub(crate) fn leave(exit: Exit) -> ! {
    semihosting::process::exit(exit as i32)
}
