//! The names of signals and of the reasons that come with them.

use std::fmt::{Display, Formatter, Result};

/// What the kernel said of a fault at EL0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Number of the signal.
    pub(crate) signal: i32,
    /// `si_code`: the reason, whose meaning depends on the signal.
    pub(crate) code: i32,
    /// `si_addr`: the virtual address.
    pub(crate) address: u64,
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "signal={} code={} at={:#x}",
            name(self.signal),
            code_name(self),
            self.address
        )
    }
}

/// The name of a signal, or its number.
pub(crate) fn name(signal: i32) -> String {
    match signal {
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        other => return other.to_string(),
    }
    .to_owned()
}

/// The name of the reason, as in Linux' `asm-generic/siginfo.h`, or its number.
fn code_name(fault: &Fault) -> String {
    match (fault.signal, fault.code) {
        (libc::SIGILL, 1) => "ILL_ILLOPC",
        (libc::SIGTRAP, 1) => "TRAP_BRKPT",
        (libc::SIGBUS, 1) => "BUS_ADRALN",
        (libc::SIGBUS, 2) => "BUS_ADRERR",
        (libc::SIGBUS, 3) => "BUS_OBJERR",
        (libc::SIGSEGV, 1) => "SEGV_MAPERR",
        (libc::SIGSEGV, 2) => "SEGV_ACCERR",
        (_, code) => return code.to_string(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_by_name() {
        let fault = Fault {
            signal: libc::SIGBUS,
            code: 1,
            address: 0x1ffc,
        };
        assert_eq!(fault.to_string(), "signal=SIGBUS code=BUS_ADRALN at=0x1ffc");
    }

    #[test]
    fn what_has_no_name_keeps_its_number() {
        let fault = Fault {
            signal: 40,
            code: -6,
            address: 0,
        };
        assert_eq!(fault.to_string(), "signal=40 code=-6 at=0x0");
    }
}
