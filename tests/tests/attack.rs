//! A hostile host, with hostile guests, attacks Freehold on every CPU at once, with seeds that never change and with new
//! ones.

use anyhow::{Result, ensure};
use freehold_runner::attack::{Attack, random_seed};
use freehold_runner::setup;

/// Attacks with 10,000 calls and expects that nothing gives way.
fn attack(cpu: &str, smp: u32, seed: u64) -> Result<()> {
    setup::ensure_tools()?;
    let attack = Attack {
        cpu: cpu.to_owned(),
        smp,
        ..Attack::new(seed)
    };
    let report = attack.run(|_| ())?;
    ensure!(report.passed(), "seed {seed}, {smp} {cpu}:\n{}", report.table());
    Ok(())
}

#[test]
fn two_old_cpus_with_seed_1() -> Result<()> {
    attack("cortex-a72", 2, 1)
}

#[test]
fn two_old_cpus_with_a_new_seed() -> Result<()> {
    attack("cortex-a72", 2, random_seed())
}

#[test]
fn four_new_cpus_with_seed_3() -> Result<()> {
    attack("max", 4, 3)
}

#[test]
fn four_new_cpus_with_a_new_seed() -> Result<()> {
    attack("max", 4, random_seed())
}

#[test]
fn what_met_too_little_begins_again() -> Result<()> {
    setup::ensure_tools()?;
    let attack = Attack {
        calls: 50,
        ..Attack::new(1)
    };
    let mut begun = 0;
    let report = attack.run(|line| begun += u32::from(line.starts_with("A begin ")))?;
    ensure!(report.failures.is_empty(), "{}", report.table());
    ensure!(!report.missing.is_empty(), "200 calls met everything");
    ensure!(begun == 3, "{begun} attacks");
    Ok(())
}
