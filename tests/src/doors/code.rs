//! The instructions of the image, and where in its source each comes from.
//!
//! Functions are inlined into each other, so a symbol says little: the line tables say which function of which file
//! an instruction was written in. Assembly has no such tables; there it is the symbol before the instruction.

use addr2line::Loader;
use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SectionKind};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::Path,
    rc::Rc,
};

/// Where an instruction was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, from the root of the workspace or, for other people's code, as the compiler knew it. In assembly that
    /// is included, the symbol.
    pub file: String,
    /// The function, without its path and its parameters; empty in assembly.
    pub function: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.function.is_empty() {
            f.write_str(&self.file)
        } else {
            write!(f, "{} in {}", self.function, self.file)
        }
    }
}

/// An image's code.
pub struct Code {
    loader: Loader,
    /// Address and word of every instruction; addresses are those that the image is linked at.
    words: BTreeMap<u64, u32>,
    /// Names by address, mapping symbols not included.
    symbols: BTreeMap<u64, String>,
    /// Where the image is loaded, less where it is linked.
    offset: u64,
    root: String,
    places: RefCell<HashMap<u64, Rc<[Place]>>>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("words", &self.words.len())
            .finish_non_exhaustive()
    }
}

impl Code {
    /// Reads the ELF file of an image whose first byte is loaded at `address`, built in the workspace at `root`.
    ///
    /// # Errors
    /// If it cannot be read, or has no symbols or no code.
    pub fn load(elf: &Path, address: u64, root: &Path) -> Result<Self> {
        let contents = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let file = object::File::parse(contents.as_slice())?;
        let base = file.segments().map(|segment| segment.address()).min();
        let code: Vec<_> = file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .collect();
        let is_code = |section: Option<_>| code.iter().any(|text| Some(text.index()) == section);
        let mut data = BTreeMap::new();
        let mut symbols = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| is_code(symbol.section_index())) {
            let name = symbol.name()?;
            // Mapping symbols (ELF for the Arm 64-bit Architecture, 5.5.4) say where code ends and data begins.
            match name.get(..2) {
                Some("$x") => _ = data.insert(symbol.address(), false),
                Some("$d") => _ = data.insert(symbol.address(), true),
                _ if symbol.is_definition() && !name.is_empty() => {
                    symbols.insert(symbol.address(), name.to_owned());
                }
                _ => {}
            }
        }
        let mut words = BTreeMap::new();
        for section in &code {
            for (at, bytes) in (section.address()..)
                .step_by(4)
                .zip(section.data()?.as_chunks::<4>().0)
            {
                let is_data = data.range(..=at).next_back().is_some_and(|(_, is_data)| *is_data);
                if !is_data {
                    words.insert(at, u32::from_le_bytes(*bytes));
                }
            }
        }
        ensure!(!words.is_empty() && !symbols.is_empty(), "no code, or no symbols");
        Ok(Self {
            loader: Loader::new(elf)
                .ok()
                .with_context(|| format!("{} has no line tables", elf.display()))?,
            words,
            symbols,
            offset: address.wrapping_sub(base.context("nothing is loaded")?),
            root: format!("{}/", root.display()),
            places: RefCell::default(),
        })
    }

    /// Every instruction, with the address at which it is loaded, in ascending order.
    pub fn instructions(&self) -> impl Iterator<Item = (u64, u32)> {
        self.words
            .iter()
            .map(|(at, word)| (at.wrapping_add(self.offset), *word))
    }

    /// The instruction at a loaded address.
    #[must_use]
    pub fn word(&self, pc: u64) -> Option<u32> {
        self.words.get(&pc.wrapping_sub(self.offset)).copied()
    }

    /// The places that an instruction comes from, innermost first: its function, what that was inlined into, and so on.
    #[must_use]
    pub fn places(&self, pc: u64) -> Rc<[Place]> {
        let linked = pc.wrapping_sub(self.offset);
        if let Some(known) = self.places.borrow().get(&linked) {
            return Rc::clone(known);
        }
        let places: Rc<[Place]> = self.find_places(linked).into();
        self.places.borrow_mut().insert(linked, Rc::clone(&places));
        places
    }

    fn find_places(&self, linked: u64) -> Vec<Place> {
        let mut places = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(linked) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = &frame.function else { continue };
                let name = function.demangle().unwrap_or_else(|_| "?".into());
                let file = frame.location.and_then(|location| location.file).unwrap_or("?");
                places.push(Place {
                    file: file.strip_prefix(&self.root).unwrap_or(file).to_owned(),
                    function: bare(&name).to_owned(),
                });
            }
        }
        if places.is_empty() {
            let symbol = self.symbols.range(..=linked).next_back();
            places.push(Place {
                file: symbol.map_or_else(|| "?".to_owned(), |(_, name)| name.clone()),
                function: String::new(),
            });
        }
        places
    }

    /// The innermost place that is the image's own source, not that of a library.
    #[must_use]
    pub fn own_place(&self, pc: u64) -> Place {
        let places = self.places(pc);
        let own = places
            .iter()
            .find(|place| place.function.is_empty() || place.file.starts_with("hyp/"));
        own.or(places.first()).cloned().unwrap_or_else(|| Place {
            file: "?".to_owned(),
            function: String::new(),
        })
    }
}

/// `write` of `hyp_core::pgtable::store::write` and of `write<hyp::hardware::Machine>`.
fn bare(name: &str) -> &str {
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_path_and_parameters() {
        assert_eq!(bare("write<hyp::hardware::Machine>"), "write");
        assert_eq!(bare("hyp::tlb::invalidate"), "invalidate");
        assert_eq!(bare("main"), "main");
    }
}
