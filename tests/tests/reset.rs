//! A host that resets the machine leaves nothing of others for the kernel that comes next.

use freehold_runner::machine::{Ending, Host, Machine, Memory};
use freehold_runner::{images, setup};
use std::time::Duration;

/// Lets the payload live twice on a machine of two CPUs; it judges in its second life.
fn two_lives(cpu: &str) {
    setup::ensure_tools().expect("QEMU is there or can be installed");
    let hypervisor = images::hypervisor().expect("the image builds");
    let payload = images::payload_host().expect("the payload builds");
    let guest = images::payload_guest().expect("the guest builds");
    let mut machine = Machine::new(hypervisor.flat);
    machine.cpu = cpu.to_owned();
    machine.smp = 2;
    machine.memory = Memory::mib(256);
    machine.semihosting = true;
    machine.reboots = true;
    machine.host = Some(Host {
        image: payload.flat,
        initrd: Some(guest.flat),
        arguments: "reset".to_owned(),
    });
    let run = machine.run(Duration::from_secs(120), |_| {}).expect("QEMU runs");
    let report = run.report(Some(&hypervisor.elf));
    assert!(matches!(run.ending, Ending::Exited(0)), "{report}");
    let said: Vec<_> = run.console.iter().filter(|line| line.starts_with("R ")).collect();
    assert_eq!(said, ["R life 1", "R reset", "R life 2", "R end"], "{report}");
}

#[test]
fn a_reset_leaves_nothing_of_guests_behind() {
    two_lives("cortex-a72");
}

#[test]
fn a_reset_leaves_nothing_of_guests_behind_where_there_are_more_registers() {
    two_lives("max");
}
