//! Mutations: errors that are put into the core one at a time, and the tests that must notice each.
//!
//! A test suite that passes says little until it is known what it would not let pass. So there is a [`list`] of errors
//! of the kind that hypervisors have had. [`run`] copies the workspace, puts one error in, builds, runs the layer of
//! tests that must catch it, and takes the error out again. The copy without an error must pass.
//!
//! A [`Mutation`] is data. One whose text is not in its file exactly once is *stale*: the code has moved on and the
//! list must follow. One that does not compile is an error of the list, too, and never counts as caught.

mod layer;
pub mod list;
mod report;
mod tree;

pub use layer::Layer;
pub use report::{Outcome, Report, Verdict};

use crate::{
    progress::Step,
    workspace::{self, Lock},
};
use anyhow::{Context as _, Result, bail, ensure};
use layer::{Built, Ending, Workshop};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tree::Tree;

/// Within this time, building included, a mutation must be caught.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Within this time the code without a mutation must pass a layer, which takes longer than to fail it.
const LIMIT_TO_PASS: Duration = Duration::from_secs(900);

/// An error that can be put into the code.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// A name for it, with no spaces.
    pub name: &'static str,
    /// The error of the published list that it corresponds to, if it does (see [`list::PUBLISHED`]).
    pub like: Option<&'static str>,
    /// The file, from the root of the workspace.
    pub file: &'static str,
    /// What is there. Once in the file, with no regard to how lines are indented.
    pub find: &'static str,
    /// What comes in its place.
    pub replace: &'static str,
    /// The layer of tests that must catch it, alone.
    pub caught_by: Layer,
}

impl Mutation {
    /// The file's text with the error in it.
    ///
    /// # Errors
    /// If the mutation is stale.
    pub fn apply(&self, text: &str) -> Result<String> {
        let places: Vec<_> = places(text, self.find).collect();
        match places.as_slice() {
            [(start, end)] => Ok(format!("{}{}{}", &text[..*start], self.replace, &text[*end..])),
            [] => bail!("{}: stale: its text is not in {}", self.name, self.file),
            more => bail!(
                "{}: stale: its text is in {} {} times",
                self.name,
                self.file,
                more.len()
            ),
        }
    }
}

/// Where `text` holds the lines of `wanted`, whatever white space lies before and after each line.
fn places<'t>(text: &'t str, wanted: &'t str) -> impl Iterator<Item = (usize, usize)> + 't {
    let mut lines = wanted.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let rest: Vec<_> = lines.collect();
    text.match_indices(first)
        .filter(move |_| !first.is_empty())
        .filter_map(move |(start, _)| {
            let mut end = start + first.len();
            for line in &rest {
                let after = text[end..].trim_start();
                if !after.starts_with(line) {
                    return None;
                }
                end = text.len() - after.len() + line.len();
            }
            Some((start, end))
        })
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Only mutations whose name contains this.
    pub filter: Option<&'a str>,
    /// Tries every layer on every mutation, and not only the one that must catch it.
    pub every_layer: bool,
}

/// Puts the wanted mutations in, one at a time, and sees which tests notice.
///
/// # Errors
/// If a mutation is stale, if the code fails its tests without any, or if something that is needed cannot be read,
/// written or run. A mutation that is not caught, or does not compile, is no error, but in the report.
pub fn run(wanted: Wanted<'_>) -> Result<Report> {
    let mutations: Vec<_> = list::all()
        .filter(|mutation| wanted.filter.is_none_or(|filter| mutation.name.contains(filter)))
        .collect();
    ensure!(!mutations.is_empty(), "no mutation has such a name");
    for mutation in &mutations {
        mutation.apply(&read(workspace::root(), mutation)?)?;
    }
    let directory = workspace::target_directory("mutants")?;
    let _lock = Lock::acquire(&directory.join("lock"))?;
    let tree = Tree::copy(workspace::root(), &directory.join("tree"))?;
    let workshop = Workshop::new(tree.root(), &directory);
    let layers: Vec<_> = Layer::ALL
        .into_iter()
        .filter(|layer| wanted.every_layer || mutations.iter().any(|one| one.caught_by == *layer))
        .collect();
    for layer in &layers {
        check_unmutated(&workshop, *layer)?;
    }
    let mut outcomes = Vec::new();
    for (number, mutation) in mutations.iter().enumerate() {
        let step = Step::announced(format!(
            "{} of {}: {}",
            number + 1,
            mutations.len(),
            mutation.name
        ));
        let tried = if wanted.every_layer {
            layers.as_slice()
        } else {
            &[mutation.caught_by]
        };
        outcomes.push(try_one(&workshop, &tree, mutation, tried, &step)?);
        step.done();
    }
    Ok(Report::new(outcomes))
}

fn read(root: &Path, mutation: &Mutation) -> Result<String> {
    let path = root.join(mutation.file);
    fs::read_to_string(&path)
        .with_context(|| format!("{}: stale: cannot read {}", mutation.name, path.display()))
}

/// The code as it is must pass, or nothing that fails means anything.
fn check_unmutated(workshop: &Workshop<'_>, layer: Layer) -> Result<()> {
    let step = Step::announced(format!("without a mutation: {layer}"));
    match workshop.build(layer, |line| step.detail(line))? {
        Built::Refused(said) => bail!("the code does not compile without a mutation:\n{said}"),
        Built::Programs(programs) => {
            let ending = workshop.run(layer, &programs, LIMIT_TO_PASS, |line| step.detail(line))?;
            ensure!(
                ending == Ending::Passed,
                "the code does not pass without a mutation: {layer}: {ending}"
            );
        }
    }
    step.done();
    Ok(())
}

fn try_one(
    workshop: &Workshop<'_>,
    tree: &Tree,
    mutation: &Mutation,
    layers: &[Layer],
    step: &Step,
) -> Result<Outcome> {
    let started = Instant::now();
    let _mutated = tree.change(mutation.file, &mutation.apply(&read(tree.root(), mutation)?)?)?;
    let mut verdicts = Vec::new();
    for layer in layers {
        let begun = if layers.len() == 1 {
            started
        } else {
            Instant::now()
        };
        let ending = match workshop.build(*layer, |line| step.detail(line))? {
            Built::Programs(programs) => {
                let left = LIMIT.saturating_sub(begun.elapsed());
                workshop.run(*layer, &programs, left, |line| step.detail(line))?
            }
            Built::Refused(said) => {
                eprintln!("{} does not compile:\n{said}", mutation.name);
                Ending::Refused
            }
        };
        verdicts.push(Verdict {
            layer: *layer,
            ending,
        });
    }
    Ok(Outcome {
        mutation: *mutation,
        verdicts,
        elapsed: started.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTATION: Mutation = Mutation {
        name: "test",
        like: None,
        file: "file",
        find: "one();
               two();",
        replace: "two();",
        caught_by: Layer::Unit,
    };

    #[test]
    fn a_mutation_finds_its_lines_at_any_depth() {
        let text = "fn f() {\n    zero();\n    one();\n    two();\n}\n";
        assert_eq!(
            MUTATION.apply(text).unwrap(),
            "fn f() {\n    zero();\n    two();\n}\n"
        );
    }

    #[test]
    fn a_mutation_that_fits_nowhere_or_twice_is_stale() {
        for text in ["one();\nthree();\ntwo();", "one();\ntwo();\none();\n  two();", ""] {
            let error = MUTATION.apply(text).unwrap_err().to_string();
            assert!(error.contains("stale"), "{error}");
        }
    }
}
