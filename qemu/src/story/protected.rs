//! The story of a protected guest: Debian is the host, loads the module, and runs a Linux guest by the virtual machine
//! monitor.

use super::{
    Course, LIMIT,
    look::{self, Eye},
    picture,
    plan::{self, Chapter},
    script,
    teller::{Manner, Sum, Teller},
};
use crate::{
    debian::Suite,
    images::{self, guests},
    linux::{Linux, Prepared},
    machine::{Memory, qmp},
    workspace::Scratch,
};
use anyhow::Result;
use payload_protocol::story::LOOK;
use std::{io::Write, time::Instant};

/// RAM of the machine. All of it is searched for the secret.
const MEMORY: Memory = Memory::mib(768);

/// What fills the pages of the guest that are secret, as its script makes it.
const WORD: &[u8; 16] = b"2c99c24506d91a2\n";

/// The story, ready to be told.
#[derive(Debug)]
pub(super) struct Act {
    plan: Vec<Chapter>,
    machine: String,
    prepared: Prepared,
    eye: Eye,
    // Holds the monitor's socket.
    _scratch: Scratch,
}

/// Fetches and builds what the story needs.
///
/// # Errors
/// If something cannot be fetched or built.
pub(super) fn prepare(course: Course) -> Result<Act> {
    let suite = Suite::bookworm_backports();
    let packages = suite.fetch()?;
    let smp = 2;
    let plan = plan::protected(&packages.release, smp);
    let (name, guest) = match course {
        Course::Proper => ("story", script::GUEST.to_owned()),
        Course::Spoiled => ("story-spoiled", format!("SPOILED=1\n{}", script::GUEST)),
    };
    let linux = Linux {
        smp,
        memory: MEMORY,
        limit: LIMIT,
        initrd: Some(guests::archive(name, &packages, &guest)?),
        files: vec![
            ("freehold.ko".to_owned(), images::linux_module(&packages)?),
            ("payload-kvm".to_owned(), images::payload_kvm()?),
        ],
        ..Linux::new(suite, script::write(&plan, script::PROTECTED))
    };
    let scratch = Scratch::new()?;
    let eye = Eye::new(&scratch, MEMORY.bytes());
    let mut prepared = linux.prepare()?;
    prepared.machine.extra.extend(qmp::arguments(eye.socket()));
    Ok(Act {
        plan,
        machine: format!(
            "Debian's Linux {} on {smp} x {}, {} of RAM",
            packages.release,
            linux.cpu,
            picture::size(MEMORY.bytes())
        ),
        prepared,
        eye,
        _scratch: scratch,
    })
}

impl Act {
    /// Tells it to `out`. Answers how it went.
    ///
    /// # Errors
    /// If the machine did not come to the story's end.
    pub(super) fn tell(mut self, out: &mut impl Write, started: Instant) -> Result<Sum> {
        let manner = Manner {
            chapters_before: 0,
            all_of_freehold: true,
        };
        let mut teller = Teller::new(&self.plan, manner, started, out);
        teller.introduce("Debian has a guest that it cannot read", &self.machine);
        let outcome = self.prepared.run(LIMIT, |line| {
            if line == LOOK {
                look::show(&mut teller, &mut self.eye, &words_of);
            } else {
                teller.hear(line);
            }
        });
        // Even of a run that broke off, what was seen is judged and shown.
        let mut sum = teller.finish();
        sum.is_well &= outcome?.status == 0;
        Ok(sum)
    }
}

/// How many words of a frame are of the guest's secret.
fn words_of(frame: &[u8]) -> u64 {
    // Whoever has such a page has it from its first byte to its last.
    if !frame.starts_with(WORD) {
        return 0;
    }
    let (words, _) = frame.as_chunks::<16>();
    words.iter().filter(|word| *word == WORD).count() as u64
}
