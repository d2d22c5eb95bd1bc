//! A guest kernel that knows it may be protected: Debian's sources, as small as they come, with a fragment of ours.
//!
//! Debian's own kernels can neither lend memory to their host nor keep devices to a pool that they lend
//! (`ARM_PKVM_GUEST`, `DMA_RESTRICTED_POOL`). This one can, and is otherwise the same release. It takes some minutes to
//! build, once: the Image stays until fragment or edits change; the sources go.

use crate::{
    debian::Suite,
    process,
    progress::Step,
    workspace::{self, Lock},
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// What is asked for on top of the smallest configuration.
const FRAGMENT: &str = include_str!("guest_kernel/fragment");

/// The header that [`EDITS`] include.
const HEADER: &str = include_str!("guest_kernel/freehold_balloon.h");

const BALLOON: &str = "drivers/virtio/virtio_balloon.c";

/// A line of the sources, which must be there once, and what comes in its place.
struct Edit {
    line: &'static str,
    instead: &'static str,
}

/// The balloon's driver goes round the platform's way to memory, and so its rings would be private; and it only tells
/// the host of pages, which a protected guest must give up itself.
const EDITS: [Edit; 3] = [
    Edit {
        line: "__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);",
        instead: "",
    },
    Edit {
        line: "#include <linux/virtio_balloon.h>",
        instead: "#include <linux/virtio_balloon.h>\n#include \"freehold_balloon.h\"",
    },
    Edit {
        line: "balloon_page_enqueue(&vb->vb_dev_info, page);",
        instead: "freehold_relinquish(page);\nballoon_page_enqueue(&vb->vb_dev_info, page);",
    },
];

/// Parts of the sources that are large and not needed for arm64.
const LEFT_OUT: [&str; 4] = [
    "*/drivers/gpu/drm/amd/include",
    "*/Documentation/*/*",
    "*/tools/testing",
    "*/tools/perf",
];

/// Builds the kernel, or finds it built; returns its Image.
pub(super) fn build() -> Result<PathBuf> {
    let directory = workspace::target_directory("images/guest-kernel")?;
    let _lock = Lock::acquire(&directory.with_added_extension("lock"))?;
    let (image, recipe) = (directory.join("Image"), directory.join("recipe"));
    if image.is_file() && fs::read_to_string(&recipe).is_ok_and(|old| old == self::recipe()) {
        return Ok(image);
    }
    let work = directory.join("work");
    remove(&work)?;
    let mut step = Step::announced("Building a guest kernel (some minutes, once)");
    let source = unpack(&mut step, &work)?;
    edit(&source)?;
    let output = work.join("build");
    configure(&mut step, &source, &output)?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut command = make(&source, &output);
    command.arg(format!("-j{jobs}")).arg("Image");
    process::run(&mut step, command)?;
    fs::rename(output.join("arch/arm64/boot/Image"), &image).context("kbuild left no Image")?;
    // Last: an Image without it is not taken for a whole one.
    workspace::write_whole(&recipe, self::recipe().as_bytes())?;
    remove(&work)?;
    step.done();
    Ok(image)
}

/// All that decides what is built, but for the version of the sources, which is Debian's to choose.
fn recipe() -> String {
    let edits = EDITS.map(|edit| format!("{}\n{}\n", edit.line, edit.instead));
    [FRAGMENT, HEADER, &edits.concat()].concat()
}

fn unpack(step: &mut Step, work: &Path) -> Result<PathBuf> {
    let archive = Suite::bookworm_backports().kernel_source(step, &work.join("debian"))?;
    step.detail("unpacking the sources");
    let source = work.join("source");
    fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    let mut command = Command::new("tar");
    command
        .args(["--extract", "--strip-components=1", "--file"])
        .arg(archive);
    command.arg("--directory").arg(&source);
    command.args(LEFT_OUT.map(|part| format!("--exclude={part}")));
    process::run(step, command)?;
    Ok(source)
}

fn edit(source: &Path) -> Result<()> {
    let file = source.join(BALLOON);
    let mut text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    for edit in EDITS {
        if text.matches(edit.line).count() != 1 {
            bail!(
                "{BALLOON} has not one `{}`: this kernel needs other edits",
                edit.line
            );
        }
        text = text.replace(edit.line, edit.instead);
    }
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let header = file.with_file_name("freehold_balloon.h");
    fs::write(&header, HEADER).with_context(|| format!("cannot write {}", header.display()))
}

fn configure(step: &mut Step, source: &Path, output: &Path) -> Result<()> {
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    let fragment = output.join("fragment");
    fs::write(&fragment, FRAGMENT).with_context(|| format!("cannot write {}", fragment.display()))?;
    let mut tiny = make(source, output);
    tiny.arg("tinyconfig");
    process::run(step, tiny)?;
    // The configuration and the fragment behind it: of two lines about an option the last one counts.
    let config = output.join(".config");
    let mut text = fs::read_to_string(&config).context("kbuild left no .config")?;
    text.push_str(FRAGMENT);
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut settle = make(source, output);
    settle.arg("olddefconfig");
    process::run(step, settle)?;
    let text = fs::read_to_string(&config).context("kbuild left no .config")?;
    let lost = not_in(&text);
    if !lost.is_empty() {
        bail!("the kernel's configuration did not take: {}", lost.join(", "));
    }
    Ok(())
}

/// The lines of the fragment that `config` does not have.
fn not_in(config: &str) -> Vec<&'static str> {
    let has = |line: &str| config.lines().any(|other| other == line);
    FRAGMENT
        .lines()
        .filter(|line| line.contains("CONFIG_") && !has(line))
        .filter(|line| {
            // An option that others hide is as good as one that is off.
            let option = line
                .strip_prefix("# ")
                .and_then(|rest| rest.strip_suffix(" is not set"));
            option.is_none_or(|option| {
                config
                    .lines()
                    .any(|other| other.starts_with(&format!("{option}=")))
            })
        })
        .collect()
}

fn make(source: &Path, output: &Path) -> Command {
    // Nobody should notice that it goes on.
    let mut command = Command::new("nice");
    command.args(["-n", "10", "make", "-C"]).arg(source);
    command
        .arg(format!("O={}", output.display()))
        .args(["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"])
        // What a make or cargo further up says to its own children is not for this one.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("ARCH");
    command
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_did_not_come_true_is_seen() {
        assert_eq!(not_in(FRAGMENT), Vec::<&str>::new());
        let config = FRAGMENT.replace("CONFIG_ARM_PKVM_GUEST=y", "# CONFIG_ARM_PKVM_GUEST is not set");
        assert_eq!(not_in(&config), ["CONFIG_ARM_PKVM_GUEST=y"]);
        let config = FRAGMENT.replace("# CONFIG_IPV6 is not set", "CONFIG_IPV6=y");
        assert_eq!(not_in(&config), ["# CONFIG_IPV6 is not set"]);
        assert!(not_in(&FRAGMENT.replace("# CONFIG_IPV6 is not set", "")).is_empty());
    }
}
