//! The end of EL2: every CPU stops, the report has registers, reason and a backtrace with names, and the machine resets.
//!
//! EL2 does not panic by itself; an image that is built for this has a hypercall that breaks it.

use freehold_runner::machine::{Ending, Host, Machine, Run};
use freehold_runner::{images, setup, symbols};
use std::time::Duration;

/// What the report of every panic begins with.
const PANIC: &str = "freehold: panic: ";

/// Breaks EL2 in this way on a machine of two CPUs, and checks what every end must have.
fn end(cpu: &str, way: u32, reason: &str, functions: &[&str]) {
    setup::ensure_tools().expect("QEMU is there or can be installed");
    let hypervisor = images::hypervisor_with("panic-test").expect("the image builds");
    let payload = images::payload_host().expect("the payload builds");
    let mut machine = Machine::new(hypervisor.flat);
    machine.cpu = cpu.to_owned();
    machine.smp = 2;
    machine.semihosting = true;
    machine.host = Some(Host {
        image: payload.flat,
        initrd: None,
        arguments: format!("break {way}"),
    });
    let run = machine.run(Duration::from_secs(60), |_| {}).expect("QEMU runs");
    let report = run.report(Some(&hypervisor.elf));
    // With -no-reboot a reset of the machine ends QEMU, and well.
    assert!(matches!(run.ending, Ending::Exited(0)), "no reset\n{report}");
    let panic =
        position(&run, |line| line.starts_with(PANIC)).unwrap_or_else(|| panic!("no panic\n{report}"));
    assert!(run.console[panic].contains(reason), "another reason\n{report}");
    assert!(
        run.console[..panic]
            .iter()
            .any(|line| line.starts_with("E alive 1")),
        "the other CPU never ran\n{report}"
    );
    for line in &run.console[panic..] {
        assert!(
            line.starts_with("freehold: "),
            "CPU 1 goes on: {line:?}\n{report}"
        );
    }
    for register in ["ELR ", "SPSR ", "ESR ", "FAR ", "HCR ", "SCTLR "] {
        assert!(
            run.console[panic..].iter().any(|line| line.contains(register)),
            "no {register}\n{report}"
        );
    }
    let names = symbols::backtrace(&hypervisor.elf, &run.console).expect("there is a backtrace");
    for function in functions {
        assert!(
            names.contains(function),
            "no {function} in the backtrace\n{names}\n{report}"
        );
    }
}

fn position(run: &Run, what: impl Fn(&str) -> bool) -> Option<usize> {
    run.console.iter().position(|line| what(line))
}

#[test]
fn a_panic_stops_every_cpu_tells_and_resets() {
    end(
        "cortex-a72",
        0,
        "asked for by the host",
        &["hear at ", "panic_test.rs"],
    );
    end("max", 0, "asked for by the host", &["hear at ", "panic_test.rs"]);
}

#[test]
fn a_stack_that_is_run_over_is_told_from_its_emergency_stack() {
    end("cortex-a72", 1, "", &["recurse at ", "panic_test.rs"]);
}

#[test]
fn memory_that_el2_does_not_map_is_out_of_its_reach() {
    end("cortex-a72", 2, "", &["hear at ", "panic_test.rs"]);
}
