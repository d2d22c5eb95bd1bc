//! The payload guest without a host: it gives itself orders, and knows what must come of them.
//!
//! What a guest reports under Freehold means something only if its own probes, handler and registers show what happens.

use freehold_runner::machine::{Boot, Ending, Machine, Memory};
use freehold_runner::{images, setup};
use std::time::Duration;

fn agrees_with_itself(cpu: &str) {
    setup::ensure_tools().expect("QEMU is there or can be installed");
    let guest = images::payload_guest().expect("the guest builds");
    let mut machine = Machine::new(guest.flat.clone());
    machine.cpu = cpu.to_owned();
    machine.memory = Memory::mib(256);
    machine.virtualization = false;
    machine.semihosting = true;
    machine.boot = Boot::Kernel {
        image: guest.flat,
        initrd: None,
        arguments: None,
    };
    let run = machine.run(Duration::from_secs(60), |_| {}).expect("QEMU runs");
    // Another status is the number of the check that failed, from 1 on.
    assert!(
        matches!(run.ending, Ending::Exited(0)),
        "{}",
        run.report(Some(&guest.elf))
    );
}

#[test]
fn it_does_what_it_orders_itself_on_a_cpu_without_extensions() {
    agrees_with_itself("cortex-a53");
}

#[test]
fn it_does_what_it_orders_itself_on_a_cpu_with_all_of_them() {
    agrees_with_itself("max");
}
