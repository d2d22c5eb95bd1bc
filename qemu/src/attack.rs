//! A hostile host, with hostile guests, attacks Freehold at random, and nothing of EL2's or of another guest's may come
//! out or be changed.
//!
//! An [`Attack`] boots Freehold, built with canaries, with the payload host in its attack mode, and waits until the
//! payload stands still. Then it looks for the canaries ([`canary`]) and for what guests keep from the host ([`secret`])
//! in the stopped machine's memory and registers, reads what the payload counted ([`report`]), and judges it all.

mod canary;
mod report;
mod secret;

pub use canary::{Leak, Place};
pub use report::{Count, Report};

use crate::images;
use crate::machine::{Ending, Host, Machine, Memory, Run, layout, qmp};
use crate::workspace::{self, Scratch};
use anyhow::{Context as _, Result, anyhow, bail};
use canary::{Canaries, Secret};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How many times as many calls an attack may have in the end as it was to have.
const LONGEST: u64 = 4;

/// The line that says that the payload stands still.
const DONE: &str = "A done ";

/// An attack.
#[derive(Clone, Debug)]
pub struct Attack {
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// The number of CPUs, all of which attack.
    pub smp: u32,
    /// RAM.
    pub memory: Memory,
    /// What each CPU's stream of attacks begins with.
    pub seed: u64,
    /// How many hypercalls are issued, at least, by all CPUs together; other attacks come in addition.
    pub calls: u64,
    /// How long the machine may run.
    pub limit: Duration,
}

impl Attack {
    /// An attack of 10,000 calls on two `cortex-a72` with 256 MiB.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            cpu: "cortex-a72".to_owned(),
            smp: 2,
            memory: Memory::mib(256),
            seed,
            calls: 10_000,
            limit: Duration::from_secs(300),
        }
    }

    /// Attacks. Each console line is handed to `on_line` as it comes. The report may hold failures.
    ///
    /// Some of what an attack must have met comes a few times in 10,000 calls, and now and then not at all. An attack in
    /// which something is missing, and nothing is wrong, begins again with twice the calls, twice at most.
    ///
    /// # Errors
    /// If something cannot be built or run, or the run proves nothing: EL2 panicked, the machine hung, the payload did
    /// not come to its end. The error then holds the run's report.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<Report> {
        let mut attack = self.clone();
        loop {
            let report = attack.once(&mut on_line)?;
            if !report.is_too_short() || attack.calls / self.calls.max(1) >= LONGEST {
                return Ok(report);
            }
            for missing in &report.missing {
                on_line(&format!("{missing}: again, with twice the calls"));
            }
            attack.calls = attack.calls.saturating_mul(2);
            attack.limit = attack.limit.saturating_mul(2);
        }
    }

    /// Attacks once.
    fn once(&self, on_line: &mut dyn FnMut(&str)) -> Result<Report> {
        let scratch = Scratch::new()?;
        let secret = Secret::new();
        let hypervisor = images::hypervisor_with("canary")?;
        let image = scratch.path().join("freehold.img");
        let canaries = canary::plant(&hypervisor, secret, &image)?;
        let socket = qmp::socket_path(&scratch);
        let machine = self.machine(
            image,
            &images::payload_host()?.flat,
            &images::payload_guest()?.flat,
            &socket,
        );

        let mut console = Vec::new();
        let mut look = None;
        let run = machine.run(self.limit, |line| {
            on_line(line);
            console.push(line.to_owned());
            if line.starts_with(DONE) {
                look = Some(self.look(&canaries, &console, &socket, &scratch));
            }
        })?;
        let result = self.conclude(&run, look);
        if result.is_err() {
            scratch.keep();
        }
        result.with_context(|| format!("seed {}\n{}", self.seed, run.report(Some(&hypervisor.elf))))
    }

    fn machine(&self, image: PathBuf, payload: &Path, guest: &Path, socket: &Path) -> Machine {
        let mut machine = Machine::new(image);
        machine.cpu.clone_from(&self.cpu);
        machine.smp = self.smp;
        machine.memory = self.memory;
        machine.semihosting = true;
        machine.host = Some(Host {
            image: payload.to_owned(),
            initrd: Some(guest.to_owned()),
            arguments: format!("attack seed={} calls={}", self.seed, self.calls),
        });
        machine.extra = qmp::arguments(socket).into();
        machine
    }

    /// Looks into the machine, which stands still, and ends it.
    fn look(
        &self,
        canaries: &Canaries,
        console: &[String],
        socket: &Path,
        scratch: &Scratch,
    ) -> Result<Report> {
        let mut report = report::read(console)?;
        let dump = scratch.path().join("memory");
        let mut monitor = qmp::Monitor::connect(socket)?;
        monitor.execute("stop", &serde_json::json!({}))?;
        let memory = monitor.memory(layout::RAM, self.memory.bytes(), &dump)?;
        let registers = monitor.registers()?;
        monitor.quit()?;

        let found = canaries.check(layout::RAM, &memory, report.hyp(), &registers)?;
        report.note_canaries(found, self.smp);
        let found = secret::search(report.guests(), report.hyp(), layout::RAM, &memory, &registers);
        report.note_secrets(found);
        report.judge(self.smp, self.calls);
        Ok(report)
    }

    /// What the run as a whole says.
    fn conclude(&self, run: &Run, look: Option<Result<Report>>) -> Result<Report> {
        if let Some(line) = run.console.iter().find(|line| line.contains("freehold: panic")) {
            bail!("EL2 panicked: {line}");
        }
        match (look, run.ending) {
            (Some(Ok(report)), Ending::Exited(0)) => Ok(report),
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(_)), ending) => Err(anyhow!("QEMU did not end as it was told to: {ending:?}")),
            (None, Ending::TimedOut) => Err(anyhow!("the machine hung")),
            (None, ending) => Err(anyhow!("the payload did not come to its end: {ending:?}")),
        }
    }
}

/// A seed that another run is not expected to have.
#[must_use]
pub fn random_seed() -> u64 {
    workspace::unique_number() >> 16
}
