//! The one way from the host to EL2.

/// Carries registers to EL2 and back.
///
/// In a kernel this is one `HVC #0`; in a test it may be a function call. An implementation that executes an
/// instruction must treat memory as changed by it: a donation takes frames away, a reclaim brings zeroes.
pub trait Hypercall {
    /// Issues a call with `registers` in x0 to x6 and returns what x0 to x3 hold afterwards.
    fn call(&self, registers: [u64; 7]) -> [u64; 4];

    /// Called in what takes many calls, by whoever may sleep. A kernel that does not preempt its own tasks lets others have
    /// the CPU here.
    fn pause(&self) {}
}

impl<H: Hypercall + ?Sized> Hypercall for &H {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        (**self).call(registers)
    }

    fn pause(&self) {
        (**self).pause();
    }
}
