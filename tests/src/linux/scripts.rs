//! The shell scripts that a Linux host runs: cases, and the harness around them.

use std::fmt::Write as _;

/// What the cases have in common: the harness, the module, guests.
const COMMON: [&str; 3] = [
    include_str!("scripts/harness.sh"),
    include_str!("scripts/freehold.sh"),
    include_str!("scripts/guests.sh"),
];

/// How the name of a function begins that is a case.
const CASE: &str = "case_";

/// A file of cases.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static str);

impl Script {
    /// The machine is what was asked for, and works.
    pub const BOOT: Self = Self(include_str!("scripts/boot.sh"));
    /// Accesses of every kind.
    pub const ABORTS: Self = Self(include_str!("scripts/aborts.sh"));
    /// Calls that must not be answered as the host wishes.
    pub const REFUSALS: Self = Self(include_str!("scripts/refusals.sh"));
    /// Cases that must fail.
    pub const ILL: Self = Self(include_str!("scripts/ill.sh"));
    /// Linux guests, by the virtual machine monitor.
    pub const VMM: Self = Self(include_str!("scripts/vmm.sh"));
    /// Ordinary work for `LOAD_SECONDS`.
    pub const LIFE: Self = Self(include_str!("scripts/life.sh"));
    /// The module, and KVM's interface. Needs `freehold.ko` and `payload-kvm` in the host's root directory.
    pub const MODULE: Self = Self(include_str!("scripts/module.sh"));
    /// Protected guests, by the virtual machine monitor on the module. Clocks are compared for `CLOCK_SECONDS`, and a
    /// monitor is killed `KILLS` times. Needs what [`Script::MODULE`] does.
    pub const PROTECTED: Self = Self(include_str!("scripts/protected.sh"));

    /// The names of its cases.
    pub fn cases(self) -> impl Iterator<Item = &'static str> {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(CASE)?.strip_suffix("() {"))
    }
}

/// A script that defines the variables, what cases have in common and all cases, and runs none of them.
pub(super) fn write(variables: &[String], scripts: &[Script]) -> String {
    let mut text = String::new();
    for variable in variables {
        let _ = writeln!(text, "{variable}");
    }
    for part in COMMON.into_iter().chain(scripts.iter().map(|script| script.0)) {
        text.push_str(part);
    }
    text
}

/// What runs those cases, one after the other.
pub(super) fn run(cases: &[&str]) -> String {
    let mut text = String::new();
    for case in cases {
        let _ = writeln!(text, "run {case}");
    }
    text.push_str("exit 0\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, process::Command, process::Stdio};

    const ALL: [Script; 8] = [
        Script::BOOT,
        Script::ABORTS,
        Script::REFUSALS,
        Script::ILL,
        Script::LIFE,
        Script::MODULE,
        Script::VMM,
        Script::PROTECTED,
    ];

    #[test]
    fn every_file_has_cases() {
        for script in ALL {
            assert!(script.cases().count() > 0, "{}", script.0);
        }
        assert_eq!(Script::BOOT.cases().collect::<Vec<_>>(), ["boots"]);
    }

    #[test]
    fn a_shell_understands_them() {
        let text = write(&["A=1".to_owned()], &ALL) + &run(&["boots"]) + super::super::vmm::GUEST;
        let mut shell = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
}
