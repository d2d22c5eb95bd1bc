//! The end of EL2, asked for: in an image built for that, a hypercall breaks it on purpose.
//!
//! One CPU asks; the others print without end, so that whoever reads the console sees whether they were stopped.

use crate::console::println;
use crate::cpu;
use crate::exit::{Exit, leave};
use crate::hypercall::Hvc;
use crate::machine::machine;
use core::sync::atomic::{AtomicBool, Ordering};
use host_shim::Hypercall;

/// Another CPU has printed.
static ALIVE: AtomicBool = AtomicBool::new(false);

/// The call that breaks EL2, in an image that has it.
const BREAK: u64 = 0xC600_4FFF;

/// Has EL2 break in the way `number`: 0 is a panic, 1 a stack that is run over, 2 memory that EL2 does not map.
pub(crate) fn run(number: &str) -> ! {
    let Ok(way) = number.trim().parse::<u64>() else {
        println!("payload: {number:?} is no way to break EL2");
        leave(Exit::Failed)
    };
    let asking = cpu::number();
    // RAM's first byte is the host's: EL2 does not map it.
    let nowhere = machine().memory[0].start;
    cpu::run_everywhere(|this| {
        if this == asking {
            // Whoever reads the console must have seen the others run.
            while !ALIVE.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            println!("E break {way}");
            Hvc.call([BREAK, way, nowhere, 0, 0, 0, 0]);
            println!("E goes on");
        } else {
            loop {
                println!("E alive {this}");
                ALIVE.store(true, Ordering::Release);
            }
        }
    });
    leave(Exit::Failed)
}
