//! A copy of the workspace's sources, in which errors may be put.

use crate::workspace::write_whole;
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What is no source: it is neither copied nor removed from a copy.
const NO_SOURCE: [&str; 2] = ["target", ".git"];

/// The copy.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Makes `root` a copy of the sources at `original`. Files that are the same already stay as they are, so that
    /// nothing is built again for them.
    pub(super) fn copy(original: &Path, root: &Path) -> Result<Self> {
        copy_directory(original, root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where it lies.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Gives a file another text, until the value is dropped.
    pub(super) fn change(&self, file: &str, text: &str) -> Result<Changed> {
        let path = self.root.join(file);
        let before = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        write_whole(&path, text.as_bytes())?;
        Ok(Changed { path, before })
    }
}

/// A file that has another text for a while.
#[must_use = "the old text comes back when this is dropped"]
#[derive(Debug)]
pub(super) struct Changed {
    path: PathBuf,
    before: Vec<u8>,
}

impl Drop for Changed {
    fn drop(&mut self) {
        // If it fails, the next copy of the tree mends it.
        let _ = write_whole(&self.path, &self.before);
    }
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut names = BTreeSet::new();
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = entry.file_name();
        if NO_SOURCE.iter().any(|no_source| name == *no_source) {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if source.is_dir() {
            copy_directory(&source, &copy)?;
        } else if source.is_file() {
            let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
            write_whole(&copy, &text)?;
        }
        names.insert(name);
    }
    remove_others(to, &names)
}

/// Removes what the original does not have any more.
fn remove_others(directory: &Path, names: &BTreeSet<std::ffi::OsString>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if names.contains(&name) || NO_SOURCE.iter().any(|no_source| name == *no_source) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;

    #[test]
    fn a_copy_follows_its_original() {
        let scratch = Scratch::new().unwrap();
        let (original, copy) = (scratch.path().join("original"), scratch.path().join("copy"));
        fs::create_dir_all(original.join("inner/target")).unwrap();
        fs::write(original.join("inner/file"), "one").unwrap();
        fs::write(original.join("inner/target/made"), "made").unwrap();
        fs::write(original.join("old"), "old").unwrap();
        Tree::copy(&original, &copy).unwrap();
        assert!(!copy.join("inner/target").exists());
        fs::remove_file(original.join("old")).unwrap();
        let tree = Tree::copy(&original, &copy).unwrap();
        assert!(!copy.join("old").exists());
        assert_eq!(fs::read(copy.join("inner/file")).unwrap(), b"one");

        let changed = tree.change("inner/file", "two").unwrap();
        assert_eq!(fs::read(copy.join("inner/file")).unwrap(), b"two");
        drop(changed);
        assert_eq!(fs::read(copy.join("inner/file")).unwrap(), b"one");
    }
}
