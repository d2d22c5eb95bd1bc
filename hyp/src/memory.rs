//! How values move in memory: `memcpy` and `memset`, to which the compiler leaves all but the smallest.

#![expect(unsafe_code, reason = "assembly that the compiler calls")]

use core::arch::global_asm;

global_asm!(include_str!("memory.S"));
