//! What the shim's own VMs and files need of this kernel: the way to EL2, and the contents of frames, by accesses that
//! survive a refusal.

use crate::frames::Frames;
use crate::hypercall::Hvc;
use crate::probe::{self, Access, Level};
use crate::sysreg;
use host_shim::sync::SpinLock;
use host_shim::{HostMemory, Hypercall, Kernel, NotReachable, Pfn};

/// This kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadKernel;

impl Hypercall for PayloadKernel {
    fn call(&self, registers: [u64; 7]) -> [u64; 4] {
        Hvc.call(registers)
    }
}

fn access(access: Access, address: u64, value: u64) -> Result<u64, NotReachable> {
    probe::access(Level::El1, access, address, value).map_err(|_| NotReachable)
}

impl HostMemory for PayloadKernel {
    fn read(&self, frame: Pfn, offset: usize, into: &mut [u8]) -> Result<(), NotReachable> {
        for (address, byte) in (frame.address() + offset as u64..).zip(into) {
            *byte = access(Access::Load1, address, 0)? as u8;
        }
        Ok(())
    }

    fn write(&self, frame: Pfn, offset: usize, from: &[u8]) -> Result<(), NotReachable> {
        for (address, byte) in (frame.address() + offset as u64..).zip(from) {
            access(Access::Store1, address, (*byte).into())?;
        }
        Ok(())
    }

    fn zero(&self, frame: Pfn, frames: u64) -> Result<(), NotReachable> {
        let all = Frames::adopt(frame.range(frames));
        for index in 0..frames {
            access(Access::Store8, all.frame(index), 0)?;
            all.part_of(index).zero();
        }
        Ok(())
    }

    fn load_word(&self, frame: Pfn, index: usize) -> u64 {
        // A run page is shared with EL2, and stays the host's to read; all ones are no exit that there is.
        access(Access::Load8, frame.address() + 8 * index as u64, 0).unwrap_or(u64::MAX)
    }

    fn store_word(&self, frame: Pfn, index: usize, value: u64) {
        // As above; and what could not be stored EL2 will not find.
        let _ = access(Access::Store8, frame.address() + 8 * index as u64, value);
    }
}

impl Kernel for PayloadKernel {
    type Lock = SpinLock;

    fn relax(&self) {
        sysreg::relax();
    }
}
