//! A host that resets the machine leaves nothing of others for the kernel that comes next.

use freehold_runner::machine::{Ending, Host, Machine, Memory, layout};
use freehold_runner::workspace::Scratch;
use freehold_runner::{images, setup};
use payload_protocol::Secret;
use payload_protocol::reset::{SEED, SEED_OF_THE_DEAD};
use std::fs;
use std::time::Duration;

/// Runs the payload that resets its machine, one of two CPUs that `change` changes, and expects it to say `words`.
fn run(cpu: &str, change: impl FnOnce(&mut Machine), words: &[&str]) {
    setup::ensure_tools().expect("QEMU is there or can be installed");
    let hypervisor = images::hypervisor().expect("the image builds");
    let payload = images::payload_host().expect("the payload builds");
    let guest = images::payload_guest().expect("the guest builds");
    let mut machine = Machine::new(hypervisor.flat);
    machine.cpu = cpu.to_owned();
    machine.smp = 2;
    machine.memory = Memory::mib(256);
    machine.semihosting = true;
    machine.host = Some(Host {
        image: payload.flat,
        initrd: Some(guest.flat),
        arguments: "reset".to_owned(),
    });
    change(&mut machine);
    let run = machine.run(Duration::from_secs(120), |_| {}).expect("QEMU runs");
    let report = run.report(Some(&hypervisor.elf));
    assert!(matches!(run.ending, Ending::Exited(0)), "{report}");
    let said: Vec<_> = run.console.iter().filter(|line| line.starts_with("R ")).collect();
    assert_eq!(said, words, "{report}");
}

/// Lets the payload live twice; it judges in its second life.
fn two_lives(cpu: &str) {
    let words = ["R life 1", "R reset", "R life 2", "R end"];
    run(cpu, |machine| machine.reboots = true, &words);
}

/// Looks for the secrets in all of RAM, EL2's own memory too, as the reset has left it. Whatever boots next may be no
/// Freehold, and then that memory is not reserved.
fn one_life(cpu: &str) {
    let scratch = Scratch::new().expect("there is room for files");
    let file = scratch.path().join("ram");
    let keep = |machine: &mut Machine| machine.memory_file = Some(file.clone());
    run(cpu, keep, &["R life 1", "R reset"]);
    let ram = fs::read(&file).expect("QEMU has kept the RAM");
    let (words, _) = ram.as_chunks::<8>();
    assert!(words.iter().any(|word| u64::from_le_bytes(*word) != 0));
    for seed in [SEED, SEED_OF_THE_DEAD] {
        let secret = Secret::new(seed);
        let found: Vec<_> = (0_u64..)
            .zip(words)
            .filter(|(_, word)| secret.is_in(u64::from_le_bytes(**word)))
            .map(|(number, _)| format!("{:#x}", layout::RAM + number * 8))
            .collect();
        assert!(found.is_empty(), "words of {seed:#x}: {found:?}");
    }
}

#[test]
fn a_reset_leaves_no_register_of_a_guest_in_el2s_own_memory() {
    one_life("cortex-a72");
}

#[test]
fn a_reset_leaves_no_register_of_a_guest_in_el2s_own_memory_where_there_are_more() {
    one_life("max");
}

#[test]
fn a_reset_leaves_nothing_of_guests_behind() {
    two_lives("cortex-a72");
}

#[test]
fn a_reset_leaves_nothing_of_guests_behind_where_there_are_more_registers() {
    two_lives("max");
}
