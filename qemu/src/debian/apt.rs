//! An apt root of our own: the system's package state is neither read nor changed.
//!
//! Every path that apt writes to lies in one directory, its list of installed packages is empty, and its sources
//! are those that [`super::sources`] derives from the system's. Signatures and hashes are checked as always.

use super::{Suite, sources};
use crate::{process, progress::Step};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The architecture of the packages that run in the machine.
const ARCHITECTURE: &str = "arm64";

/// An apt root.
#[derive(Debug)]
pub(super) struct Root {
    configuration: PathBuf,
}

impl Root {
    /// Makes an apt root in `directory` that knows the packages of `suite`.
    pub(super) fn new(suite: &Suite, directory: &Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial", "no-parts"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        write("status", "")?;
        write("sources.list", &sources::for_suite(suite)?)?;
        let configuration = write("apt.conf", &configuration(suite, directory)?)?;
        Ok(Self { configuration })
    }

    /// Downloads the lists of packages.
    pub(super) fn update(&self, step: &mut Step) -> Result<()> {
        // A list that cannot be had is only a warning to apt by default; to us it is a failure.
        process::run(
            step,
            self.command("apt-get", &["-q", "-o", "APT::Update::Error-Mode=any", "update"]),
        )
    }

    /// The one dependency of `package` whose name begins with `prefix`.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let record = process::output(self.command("apt-cache", &["show", "--no-all-versions", package]))?;
        let field = record
            .lines()
            .find_map(|line| line.strip_prefix("Depends:"))
            .with_context(|| format!("package {package} depends on nothing"))?;
        first_dependency(field, prefix)
            .with_context(|| format!("package {package} depends on no {prefix}*, but on: {field}"))
    }

    /// Downloads `packages` into `directory`; returns the files.
    pub(super) fn download(
        &self,
        step: &mut Step,
        packages: &[String],
        directory: &Path,
    ) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut command = self.command("apt-get", &["-q", "download"]);
        command.args(packages).current_dir(directory);
        process::run(step, command)?;
        let files = fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        if files.len() != packages.len() {
            bail!("apt was asked for {packages:?} and left {files:?}");
        }
        Ok(files)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.configuration)
            .env("LC_ALL", "C.UTF-8")
            .args(arguments);
        command
    }
}

/// The architecture of the programs that run here, in Debian's words.
pub(super) fn native_architecture() -> Result<String> {
    let mut command = Command::new("dpkg");
    command.arg("--print-architecture");
    Ok(process::output(command)?.trim().to_owned())
}

fn configuration(suite: &Suite, directory: &Path) -> Result<String> {
    let directory = directory
        .to_str()
        .context("the target directory's name is not UTF-8")?;
    let native = native_architecture()?;
    let mut text = format!(
        r#"Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{directory}/no-parts";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "{directory}/no-parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{directory}/no-parts";
APT::Architecture "{ARCHITECTURE}";
APT::Architectures {{ "{ARCHITECTURE}"; "{native}"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "3";
"#
    );
    // Backports rank below the release unless they are asked for. The release itself must not be asked for: it
    // would then win over its own security updates.
    if suite.is_backports() {
        text.push_str(&format!("APT::Default-Release \"{suite}\";\n"));
    }
    text.push_str(&system_transport()?);
    Ok(text)
}

/// What the system's apt knows about reaching a mirror: proxies, certificates.
fn system_transport() -> Result<String> {
    let mut command = Command::new("apt-config");
    command.args(["dump", "Acquire"]);
    let all = process::output(command)?;
    let ours = |line: &&str| {
        ["Acquire::http", "Acquire::https", "Acquire::ftp"]
            .iter()
            .any(|kind| {
                line.strip_prefix(kind)
                    .is_some_and(|rest| rest.starts_with([':', ' ']))
            })
    };
    Ok(all.lines().filter(ours).map(|line| format!("{line}\n")).collect())
}

/// The first package of a `Depends` field whose name begins with `prefix`. Versions and alternatives are left out.
fn first_dependency(field: &str, prefix: &str) -> Option<String> {
    field
        .split(',')
        .filter_map(|clause| clause.split('|').next()?.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_found_by_the_beginning_of_its_name() {
        let field = " linux-base (>= 4.12~), linux-headers-6-common (= 6.1-1), linux-image-6 (= 6.1-1) | \
                     linux-image-6-unsigned, linux-kbuild-6:any, gcc-12";
        let find = |prefix| first_dependency(field, prefix);
        assert_eq!(find("linux-headers-").as_deref(), Some("linux-headers-6-common"));
        assert_eq!(find("linux-image-").as_deref(), Some("linux-image-6"));
        assert_eq!(find("linux-kbuild-").as_deref(), Some("linux-kbuild-6"));
        assert_eq!(find("linux-doc-"), None);
    }
}
