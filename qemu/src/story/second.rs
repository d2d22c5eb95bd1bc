//! The second act: the payload host has a guest, and another.

use super::{
    Course, LIMIT, digest,
    look::{self, Eye},
    picture,
    plan::{self, Chapter},
    teller::{Manner, Sum, Teller},
};
use crate::{
    images,
    machine::{Ending, Host, Machine, Memory, Run, qmp},
    workspace::Scratch,
};
use anyhow::{Context as _, Result, bail, ensure};
use payload_protocol::{
    Secret,
    story::{LOOK, SEED, Step},
};
use std::{fs, io::Write, path::PathBuf, time::Instant};

/// The machine's CPU model, number of CPUs and RAM. All of it is searched for the secret.
const CPU: &str = "cortex-a72";
const SMP: u32 = 2;
const MEMORY: Memory = Memory::mib(256);

/// The act, ready to be told.
#[derive(Debug)]
pub(super) struct Act {
    plan: Vec<Chapter>,
    machine: Machine,
    eye: Eye,
    hypervisor: PathBuf,
    scratch: Scratch,
}

/// Builds what the act needs.
///
/// # Errors
/// If something cannot be built.
pub(super) fn prepare(course: Course) -> Result<Act> {
    let hypervisor = images::hypervisor()?;
    let payload = images::payload_host()?;
    let guest = images::payload_guest()?.flat;
    let image = fs::read(&guest).with_context(|| format!("cannot read {}", guest.display()))?;
    let frames = (image.len() as u64).div_ceil(hyp_abi::FRAME_SIZE);

    let scratch = Scratch::new()?;
    let eye = Eye::new(&scratch, MEMORY.bytes());
    let mut machine = Machine::new(hypervisor.flat);
    machine.cpu = CPU.to_owned();
    machine.smp = SMP;
    machine.memory = MEMORY;
    machine.semihosting = true;
    machine.host = Some(Host {
        image: payload.flat,
        initrd: Some(guest),
        arguments: match course {
            Course::Proper => "story".to_owned(),
            Course::Spoiled => "story spoiled".to_owned(),
        },
    });
    machine.extra = qmp::arguments(eye.socket()).into();
    Ok(Act {
        plan: plan::second_act(frames, digest::of(&image)),
        machine,
        eye,
        hypervisor: hypervisor.elf,
        scratch,
    })
}

impl Act {
    /// Tells it to `out`, after so many chapters. Answers how it went.
    ///
    /// # Errors
    /// If the machine did not come to the act's end.
    pub(super) fn tell(mut self, out: &mut impl Write, started: Instant, chapters: usize) -> Result<Sum> {
        let manner = Manner {
            chapters_before: chapters,
            all_of_freehold: false,
        };
        let mut teller = Teller::new(&self.plan, manner, started, out);
        teller.introduce(
            "Act two: the host has guests",
            &format!(
                "a host kernel of ours on {SMP} x {CPU}, {} of RAM",
                picture::size(MEMORY.bytes())
            ),
        );
        let run = self.machine.run(LIMIT, |line| {
            if line == LOOK {
                look::show(&mut teller, &mut self.eye, &words_of);
            } else {
                teller.hear(line);
            }
        })?;
        // Even of a run that broke off, what was seen is judged and shown.
        let mut sum = teller.finish();
        match judge(&run) {
            Ok(status) => sum.is_well &= status == 0,
            Err(why) => {
                self.scratch.keep();
                bail!("{why}\n{}", run.report(Some(&self.hypervisor)));
            }
        }
        Ok(sum)
    }
}

/// How many words of a frame are of the guest's secret.
fn words_of(frame: &[u8]) -> u64 {
    let (words, _) = frame.as_chunks::<8>();
    words
        .iter()
        .filter(|word| Secret::new(SEED).is_in(u64::from_le_bytes(**word)))
        .count() as u64
}

/// The exit status of the payload, if it can be believed: it came to its end and says once how many steps it played,
/// and 0 means that these are all.
fn judge(run: &Run) -> Result<i32> {
    let Ending::Exited(status) = run.ending else {
        bail!("the machine did not end by itself: {:?}", run.ending);
    };
    let totals: Vec<_> = run
        .console
        .iter()
        .filter_map(|line| line.strip_prefix("story total "))
        .collect();
    let [total] = totals.as_slice() else {
        bail!("the payload said {} times how many steps it played", totals.len());
    };
    let total: u64 = total.parse().context("the number of steps is none")?;
    ensure!(
        status != 0 || total == Step::COUNT,
        "the payload is content with {total} of {} steps",
        Step::COUNT
    );
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn status(ending: Ending, console: &[&str]) -> Option<i32> {
        judge(&Run {
            console: console.iter().map(|&line| line.to_owned()).collect(),
            complaints: String::new(),
            ending,
            elapsed: Duration::ZERO,
            command: String::new(),
        })
        .ok()
    }

    #[test]
    fn only_a_whole_run_has_a_status() {
        let all = format!("story total {}", Step::COUNT);
        assert_eq!(status(Ending::Exited(0), &["noise", &all]), Some(0));
        assert_eq!(status(Ending::Exited(1), &["story total 3"]), Some(1));
        for (ending, console) in [
            (Ending::TimedOut, vec![all.as_str()]),
            (Ending::Signaled(9), vec![&all]),
            (Ending::Exited(0), vec![]),
            (Ending::Exited(0), vec![&all, &all]),
            (Ending::Exited(0), vec!["story total 3"]),
            (Ending::Exited(0), vec!["story total many"]),
        ] {
            assert_eq!(status(ending, &console), None, "{ending:?} {console:?}");
        }
    }
}
