//! Linux's error numbers.

use core::fmt;
use host_shim::account::OverLimit;
use host_shim::{NotReachable, PartError};
use hyp_abi::Status;

/// An error, as a system call answers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! numbers {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(concat!("E", stringify!($name))),)*
                    Self(number) => write!(f, "errno {number}"),
                }
            }
        }
    };
}

numbers! {
    PERM = 1, "The caller may not; here: it is a protected guest's.";
    NOENT = 2, "There is nothing of that name.";
    SRCH = 3, "There is no such process; here: the VM is gone.";
    INTR = 4, "A signal came first.";
    IO = 5, "The device failed; here: the caller is not the process whose VM it is, or EL2 refused.";
    NXIO = 6, "There is no such device or address.";
    TOOBIG = 7, "What is asked for does not fit where it is to go.";
    NOEXEC = 8, "The vCPU was not initialized.";
    BADF = 9, "That is no open descriptor.";
    AGAIN = 11, "Not now.";
    NOMEM = 12, "There is no memory.";
    FAULT = 14, "The address is not the caller's.";
    BUSY = 16, "It is in use.";
    EXIST = 17, "There is one already.";
    NODEV = 19, "There is no such device, or it does not do that.";
    INVAL = 22, "The argument has no meaning.";
    NOTTY = 25, "The descriptor has no such command.";
    NOSPC = 28, "There is no space left.";
    OPNOTSUPP = 95, "The operation is not supported.";
    HWPOISON = 133, "The page has a hardware memory error.";
}

impl Errno {
    /// The error of that number, positive.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// What a function of the kernel returned: a negative number is an error.
    ///
    /// # Errors
    /// The error that the number is.
    pub const fn check(returned: i64) -> Result<u64, Self> {
        if returned < 0 {
            Err(Self(-returned as i32))
        } else {
            Ok(returned as u64)
        }
    }

    /// The number, positive.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// What a function of the kernel returns for a result.
#[must_use]
pub fn returned(result: Result<u64, Errno>) -> i64 {
    match result {
        Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
        Err(error) => -i64::from(error.0),
    }
}

impl From<host_shim::Error> for Errno {
    fn from(error: host_shim::Error) -> Self {
        match error.status() {
            // As many VMs as there can be; KVM knows no such limit, and answers this if it runs out of anything.
            Some(Status::NoVmSlot) => Self::NOMEM,
            Some(Status::InvalidParameter | Status::GfnOutOfRange) => Self::INVAL,
            _ => Self(error.errno()),
        }
    }
}

impl From<PartError> for Errno {
    fn from(error: PartError) -> Self {
        error.error.into()
    }
}

impl From<NotReachable> for Errno {
    fn from(_: NotReachable) -> Self {
        Self::FAULT
    }
}

impl From<OverLimit> for Errno {
    fn from(_: OverLimit) -> Self {
        Self::NOMEM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_the_kernel() {
        for errno in [Errno::NOTTY, Errno::HWPOISON, Errno::from_number(99)] {
            assert_eq!(Errno::check(returned(Err(errno))), Err(errno));
        }
        assert_eq!(Errno::check(returned(Ok(7))), Ok(7));
        assert_eq!(
            format!("{:?} {:?}", Errno::NOTTY, Errno::from_number(99)),
            "ENOTTY errno 99"
        );
    }
}
