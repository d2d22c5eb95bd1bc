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
    use std::{env, fs, io::Write as _, process::Command, process::Stdio};

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

    /// Whether the case of clocks passes where the guest says the time every quarter of a second for so many seconds:
    /// its clock goes at that rate, and a line is so late.
    fn clocks_agree(seconds: u32, rate: f64, late: impl Fn(u32) -> f64) -> bool {
        let mut lines = String::new();
        for n in 0..=4 * seconds {
            let now = f64::from(n) / 4.0;
            let _ = writeln!(lines, "{:.2} {:.2}", 100.0 + now + late(n), 7.0 + now * rate);
        }
        let path = env::temp_dir().join(format!("freehold-clocks-{}", std::process::id()));
        fs::write(&path, lines).unwrap();
        let script = format!("{}clocks_agree {} >&2", Script::PROTECTED.0, path.display());
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        fs::remove_file(&path).unwrap();
        status.success()
    }

    #[test]
    fn clocks_are_judged_by_the_soonest_lines() {
        // At most a quarter of a second.
        let jitter = |n: u32| f64::from(n * 7919 % 13) / 50.0;
        for seconds in [20, 60] {
            let lines = 4 * seconds;
            let agree = |rate, late: &dyn Fn(u32) -> f64| clocks_agree(seconds, rate, late);
            for rate in [1.0, 1.01, 0.99] {
                assert!(agree(rate, &|_| 0.0), "{rate}");
                assert!(agree(rate, &jitter), "{rate}");
            }
            for rate in [1.03, 0.97] {
                assert!(!agree(rate, &|_| 0.0), "{rate}");
                assert!(!agree(rate, &jitter), "{rate}");
            }
            // Any line may be late, and so may all but one of each part.
            for late in [0, 1, lines / 2, lines - 1, lines] {
                assert!(agree(1.0, &|n| if n == late { 2.97 } else { 0.0 }), "{late}");
                assert!(!agree(1.03, &|n| if n == late { 2.97 } else { 0.0 }), "{late}");
            }
            assert!(agree(1.0, &|n| if n % (lines / 5) == 3 { 0.0 } else { 2.97 }));
            // The clock stands still for a second, or leaps.
            assert!(!agree(1.0, &|n| f64::from(n > lines / 2)));
            assert!(!agree(1.0, &|n| f64::from(n < lines / 2)));
        }
        assert!(!clocks_agree(0, 1.0, |_| 0.0), "nothing is said of time");
    }
}
