//! Kernel modules for a Debian kernel, by the kernel's own build system.

use crate::{
    debian::Packages,
    process,
    progress::Step,
    workspace::{self, Lock},
};
use anyhow::{Context as _, Result, bail};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds the module `name` from `source`, with a library beside it if it needs one, for the kernel of `packages`;
/// returns the `.ko` file.
pub(super) fn build(
    source: &Path,
    name: &str,
    library: Option<&Path>,
    packages: &Packages,
) -> Result<PathBuf> {
    let directory =
        workspace::target_directory("images/modules")?.join(format!("{name}-{}", packages.release));
    let _lock = Lock::acquire(&directory.with_added_extension("lock"))?;
    mirror(source, &directory)?;
    if let Some(library) = library {
        let name = library.file_name().context("a library without a name")?;
        let contents = fs::read(library).with_context(|| format!("cannot read {}", library.display()))?;
        workspace::write_whole(&directory.join(name), &contents)?;
    }
    let mut step = Step::begin(format!(
        "Building the module {name} for Linux {}",
        packages.release
    ));
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(&packages.headers)
        .arg(format!("M={}", directory.display()))
        // Without type information, whose tools and `vmlinux` are not here.
        .args([
            "ARCH=arm64",
            "CROSS_COMPILE=aarch64-linux-gnu-",
            "CONFIG_DEBUG_INFO_BTF_MODULES=",
            "modules",
        ])
        // What a make or cargo further up says to its own children is not for this one.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("ARCH");
    process::run(&mut step, command)?;
    step.done();
    let module = directory.join(name).with_extension("ko");
    if !module.is_file() {
        bail!("kbuild left no {}", module.display());
    }
    Ok(module)
}

/// Makes the files of `to` those of `from`; what has not changed keeps its age, so that make has nothing to do.
/// kbuild writes beside the sources, so it gets a copy of them.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let sources = files(from).with_context(|| format!("cannot read {}", from.display()))?;
    for name in &sources {
        let file = from.join(name);
        let contents = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        workspace::write_whole(&to.join(name), &contents)?;
    }
    // A source that is gone must not be built again.
    let is_source = |name: &OsString| {
        let extension = Path::new(name)
            .extension()
            .and_then(|extension| extension.to_str());
        // kbuild makes a `.mod.c` of its own.
        matches!(extension, Some("c" | "h" | "S")) && !name.to_string_lossy().ends_with(".mod.c")
    };
    for name in files(to)?.difference(&sources).filter(|name| is_source(name)) {
        fs::remove_file(to.join(name))?;
    }
    Ok(())
}

fn files(directory: &Path) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.insert(entry.file_name());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;

    #[test]
    fn a_mirror_follows_its_source_and_keeps_what_was_built() {
        let scratch = Scratch::new().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("Kbuild"), "obj-m := a.o").unwrap();
        fs::write(from.join("gone.c"), "1").unwrap();
        mirror(&from, &to).unwrap();
        fs::write(to.join("a.o"), "built").unwrap();
        fs::write(to.join("a.mod.c"), "built").unwrap();
        fs::remove_file(from.join("gone.c")).unwrap();
        mirror(&from, &to).unwrap();
        let names = files(&to).unwrap();
        let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["Kbuild", "a.mod.c", "a.o"]);
    }
}
