//! A machine whose EL2 is traced while the payload plays its acts, and what is judged of it.

use super::acts::Played;
use super::boot;
use super::code::Code;
use super::expect::{Cpu, Expected, Model, expected};
use super::refine::{Tables, refines};
use super::replay::Replay;
use super::trace::{Stores, Token, Told, Trace};
use anyhow::{Context as _, Result, ensure};
use freehold_runner::images::{self, Image};
use freehold_runner::machine::{Ending, Host, Machine, Memory, layout};
use freehold_runner::plugin::{Kind, Mode, Named, Options, Plugin, Report};
use freehold_runner::symbols::table::Table;
use freehold_runner::workspace::{self, Scratch};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// The marker before an act, and the one after it.
const BEGIN: u16 = 1;
const END: u16 = 2;

/// RAM of the machine: its ownership array is one page.
const MEMORY: Memory = Memory::gib(1);

/// CPUs of the machine: one that plays, and one that comes in.
const CPUS: usize = 2;

/// How long the payload may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The image that all machines run.
#[derive(Debug)]
pub struct Built {
    hypervisor: Image,
    payload: Image,
    plugin: Plugin,
    table: Table,
    stores: Stores,
}

impl Built {
    /// Builds it, and the payload and the plugin.
    ///
    /// # Errors
    /// If one does not build.
    pub fn new() -> Result<Self> {
        let hypervisor = images::hypervisor()?;
        let table = Table::load(&hypervisor.elf, layout::FREEHOLD)?;
        let code = Code::load(&hypervisor.elf, layout::FREEHOLD, workspace::root())?;
        let image = table.image().start..table.address("_image_end")?;
        let ram = layout::RAM..layout::RAM + MEMORY.bytes();
        Ok(Self {
            stores: Stores::new(&code, image, table.address("_text_end")?, ram),
            hypervisor,
            payload: images::payload_host()?,
            plugin: Plugin::build()?,
            table,
        })
    }

    /// The image's code.
    ///
    /// # Errors
    /// If the image cannot be read.
    pub fn code(&self) -> Result<Code> {
        Code::load(&self.hypervisor.elf, layout::FREEHOLD, workspace::root())
    }
}

/// An act, with what was seen of it, what had to be, and whether that is so.
#[derive(Debug)]
struct Visit {
    name: String,
    told: Vec<Told>,
    expected: Vec<Expected>,
    judged: Result<(), String>,
}

/// A machine that has run.
#[derive(Debug)]
pub struct Session {
    model: Model,
    trace: Trace,
    visits: Vec<Visit>,
    /// What was found about the writes of VTTBR_EL2, and of stores into the code, while the line tables were open.
    vttbr: Result<(), String>,
    code_is_as_it_was: Result<(), String>,
}

impl Session {
    /// Boots the machine, traces it, and plays its acts again in this process. The sizes of the caches in `model` are
    /// filled in.
    ///
    /// # Errors
    /// If the machine does not run as it should, or answers otherwise than hyp-core.
    pub fn run(built: &Built, model: Model) -> Result<Self> {
        let scratch = Scratch::new()?;
        let file = scratch.path().join("steps.json");
        let mut machine = Machine::new(built.hypervisor.flat.clone());
        model.cpu.clone_into(&mut machine.cpu);
        machine.smp = u32::try_from(CPUS)?;
        machine.memory = MEMORY;
        machine.semihosting = true;
        machine.host = Some(Host {
            image: built.payload.flat.clone(),
            initrd: None,
            arguments: "doors".to_owned(),
        });
        let tree = machine.device_tree()?;
        built.plugin.attach(&mut machine, &options(&file, built)?)?;
        let run = machine.run(LIMIT, |_| ())?;
        let report = || run.report(Some(&built.hypervisor.elf));
        ensure!(
            run.ending == Ending::Exited(0),
            "the payload failed\n{}",
            report()
        );
        let played = Played::read(&run.console).with_context(report)?;
        let model = Model {
            cache_line: played.fact("cache_line")?,
            zero_block: played.fact("zero_block")?,
            ..model
        };
        let code = built.code()?;
        let steps = Report::read(&file)?;
        let trace = Trace::new(steps.steps(), &built.stores, CPUS);
        let replay = Replay::new(&tree, model.pa_bits, layout::FREEHOLD, played.fact("reserved")?)?;
        let seen = trace.cpus.iter().map(|told| between_markers(told));
        let mut seen: Vec<_> = seen
            .map(|visits| visits.map(Vec::into_iter))
            .collect::<Result<_>>()?;
        let mut tables = Tables::default();
        let mut cpus = [const { Cpu::new() }; CPUS];
        let visits = played.acts.iter().map(|act| {
            let told = seen.get_mut(act.cpu).and_then(Iterator::next);
            let told = told.with_context(|| format!("{} was not seen", act.name))?;
            let expected = expected(&replay.play(act)?, act, &model, &mut cpus[act.cpu]);
            let judged = refines(&expected, told, &model, &tables).map(|found| tables = found);
            if act.ends_a_vm() {
                tables.forget_guests();
            }
            Ok(Visit {
                name: act.name.clone(),
                told: told.to_vec(),
                expected,
                judged,
            })
        });
        let visits = visits.collect::<Result<_>>()?;
        let left: usize = seen.iter().map(ExactSizeIterator::len).sum();
        ensure!(left == 0, "{left} more acts were seen than played");
        Ok(Self {
            model,
            visits,
            vttbr: each_cpu(&trace, |told| boot::vttbr(told, &code)),
            code_is_as_it_was: code_is_as_it_was(&trace, &code),
            trace,
        })
    }

    /// The operations that were played, each once.
    #[must_use]
    pub fn operations(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.visits.iter().map(|visit| visit.name.as_str()).collect();
        names.into_iter().collect()
    }

    /// Checks every visit of an operation.
    ///
    /// # Errors
    /// The first step that is not what the core's step stands for.
    pub fn check(&self, operation: &str) -> Result<(), String> {
        let mut visits = self
            .visits
            .iter()
            .filter(|visit| visit.name == operation)
            .peekable();
        if visits.peek().is_none() {
            return Err("the payload has not played it".to_owned());
        }
        visits.try_for_each(|visit| visit.judged.clone())
    }

    /// Checks that no step of any visit could have been left out, or come before the one before it, unnoticed: the
    /// check itself is checked, on what the machine really does.
    ///
    /// # Errors
    /// What would not have been noticed.
    pub fn every_step_counts(&self) -> Result<(), String> {
        let mut tried = 0;
        for visit in &self.visits {
            let passes =
                |told: &[Told]| refines(&visit.expected, told, &self.model, &Tables::default()).is_ok();
            if let Err(error) = refines(&visit.expected, &visit.told, &self.model, &Tables::default()) {
                return Err(format!("{} is wrong as it is: {error}", visit.name));
            }
            for at in 0..visit.told.len() {
                let step = &visit.told[at];
                if !matches!(step.token, Token::Operation(_)) || step.is_free() {
                    continue;
                }
                // The guard of the vectors may be there or not.
                let enters = matches!(visit.told[at.saturating_sub(1)].token, Token::Vector(_));
                if enters && step.is_named(Kind::Dsb, "nsh") {
                    continue;
                }
                tried += 2;
                let mut fewer = visit.told.clone();
                match fewer[at].times {
                    1 => _ = fewer.remove(at),
                    times => fewer[at].times = times - 1,
                }
                if passes(&fewer) {
                    return Err(format!(
                        "{}: {} at {:#x} is not missed",
                        visit.name, step.token, step.pc
                    ));
                }
                let mut swapped = visit.told.clone();
                let earlier = (0..at).rev().find(|&before| !swapped[before].is_free());
                if let Some(earlier) = earlier.filter(|&earlier| swapped[earlier].token != step.token) {
                    swapped.swap(earlier, at);
                    if passes(&swapped) {
                        return Err(format!(
                            "{}: {} at {:#x} may come early",
                            visit.name, step.token, step.pc
                        ));
                    }
                }
            }
        }
        if tried < 100 {
            return Err(format!("only {tried} steps were tried"));
        }
        Ok(())
    }

    /// Checks how the CPUs come in.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn cpus_come_in(&self) -> Result<(), String> {
        boot::first_cpu(&self.trace.cpus[0]).map_err(|error| format!("CPU 0: {error}"))?;
        boot::other_cpu(&self.trace.cpus[1]).map_err(|error| format!("CPU 1: {error}"))
    }

    /// Checks that what a CPU that starts reads was cleaned before.
    ///
    /// # Errors
    /// If it was not.
    pub fn start_arguments_are_clean(&self) -> Result<(), String> {
        boot::start_arguments_are_clean(&self.trace.cpus[0], CPUS, self.model.cache_line)
    }

    /// Checks that every invalidation was completed, whenever it was.
    ///
    /// # Errors
    /// The first that was not.
    pub fn invalidations_are_complete(&self) -> Result<(), String> {
        each_cpu(&self.trace, boot::invalidations_are_complete)
    }

    /// Checks that VTTBR_EL2 was written at its door, once before the host on each CPU, and synchronized.
    ///
    /// # Errors
    /// What was otherwise.
    pub fn vttbr_is_synchronized(&self) -> Result<(), String> {
        self.vttbr.clone()
    }

    /// Checks that EL2 has the vector registers open whenever it saves them, which it does.
    ///
    /// # Errors
    /// The first time that it has not.
    pub fn vectors_are_open(&self) -> Result<(), String> {
        let saves = |step: &Told| step.token == Token::Vectors;
        if !self.trace.cpus.iter().flatten().any(saves) {
            return Err("no vector register was ever saved".to_owned());
        }
        each_cpu(&self.trace, boot::vectors_are_open)
    }

    /// Checks that EL2 stored nothing into its own code.
    ///
    /// # Errors
    /// The first store.
    pub fn code_is_never_written(&self) -> Result<(), String> {
        self.code_is_as_it_was.clone()
    }
}

fn each_cpu(trace: &Trace, check: impl Fn(&[Told]) -> Result<(), String>) -> Result<(), String> {
    for (cpu, told) in trace.cpus.iter().enumerate() {
        check(told).map_err(|error| format!("CPU {cpu}: {error}"))?;
    }
    Ok(())
}

fn code_is_as_it_was(trace: &Trace, code: &Code) -> Result<(), String> {
    match trace.into_code.first() {
        None => Ok(()),
        Some((to, pc)) => Err(format!("{to:#x} is written by {}", code.own_place(*pc))),
    }
}

/// What the plugin is asked for.
fn options(file: &Path, built: &Built) -> Result<Options> {
    let mut options = Options::new(Mode::Trace, file);
    options.ranges.push(Named {
        name: "image".to_owned(),
        at: built.table.image(),
    });
    options.vectors = Some(built.table.vectors_with_guests()?);
    (options.stores, options.tables) = built.stores.watched();
    Ok(options)
}

/// What was told between each pair of markers.
fn between_markers(told: &[Told]) -> Result<Vec<&[Told]>> {
    let mut visits = Vec::new();
    let mut begun = None;
    for (index, step) in told.iter().enumerate() {
        match (&step.token, begun) {
            (Token::Marker(BEGIN), None) => begun = Some(index + 1),
            (Token::Marker(END), Some(start)) => {
                visits.push(&told[start..index]);
                begun = None;
            }
            (Token::Marker(BEGIN | END), _) => anyhow::bail!("markers out of turn"),
            _ => {}
        }
    }
    ensure!(begun.is_none(), "an act did not end");
    Ok(visits)
}
