//! The symbols of an image, for whoever watches it from outside.

use crate::plugin::Span;
use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use std::{collections::BTreeMap, fs, path::Path};

/// Bytes of a vector table (Arm ARM DDI 0487, D1.3.1.3).
const VECTOR_TABLE: u64 = 0x800;

/// The first of the tables that Freehold uses while the host runs; the others follow it without a gap.
const FIRST_TABLE: &str = "vectors_plain";

/// How the names of tables begin, and those of the ones that it uses while a guest runs.
const TABLES: &str = "vectors_";
const GUEST_TABLES: &str = "vectors_guest_";

/// Where the symbols of an image are once it is loaded.
#[derive(Clone, Debug)]
pub struct Table {
    /// Address and size.
    symbols: BTreeMap<String, (u64, u64)>,
    image: Span,
}

impl Table {
    /// Reads the symbols of the file `elf`, whose first byte is loaded at `address`.
    ///
    /// # Errors
    /// If it cannot be read, is no ELF file, or has no segments.
    pub fn load(elf: &Path, address: u64) -> Result<Self> {
        let contents = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let file = object::File::parse(contents.as_slice())
            .with_context(|| format!("{} is no ELF file", elf.display()))?;
        let segments = || file.segments().filter(|segment| segment.size() > 0);
        let base = segments().map(|segment| segment.address()).min();
        let end = segments().map(|segment| segment.address() + segment.size()).max();
        let (Some(base), Some(end)) = (base, end) else {
            bail!("nothing of {} is loaded", elf.display());
        };
        let loaded = |linked: u64| address.wrapping_add(linked.wrapping_sub(base));
        let symbols = file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok()?;
            Some((name.to_owned(), (loaded(symbol.address()), symbol.size())))
        });
        Ok(Self {
            symbols: symbols.collect(),
            image: Span {
                start: address,
                end: loaded(end),
            },
        })
    }

    /// All that the image occupies.
    #[must_use]
    pub const fn image(&self) -> Span {
        self.image
    }

    /// Where `name` is.
    ///
    /// # Errors
    /// If there is no such symbol.
    pub fn address(&self, name: &str) -> Result<u64> {
        let (address, _) = self.symbol(name)?;
        Ok(address)
    }

    /// What the function or object `name` occupies.
    ///
    /// # Errors
    /// If there is no such symbol, or it has no size.
    pub fn span(&self, name: &str) -> Result<Span> {
        let (start, size) = self.symbol(name)?;
        ensure!(size > 0, "the symbol {name} has no size");
        Ok(Span {
            start,
            end: start + size,
        })
    }

    /// What the only function occupies whose name, as the compiler has it, has `part` in it.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn span_of_only(&self, part: &str) -> Result<Span> {
        let mut names = self.symbols.keys().filter(|name| name.contains(part));
        let name = names
            .next()
            .with_context(|| format!("the image has no symbol like {part}"))?;
        ensure!(
            names.next().is_none(),
            "the image has several symbols like {part}"
        );
        self.span(name)
    }

    /// The vector tables that Freehold uses while the host runs.
    ///
    /// # Errors
    /// If the image has no such tables.
    pub fn vectors(&self) -> Result<Span> {
        self.tables(|name| name.starts_with(TABLES) && !name.starts_with(GUEST_TABLES))
    }

    /// The same, and the ones that it uses while a guest is loaded, which follow.
    ///
    /// # Errors
    /// If the image has no such tables.
    pub fn vectors_with_guests(&self) -> Result<Span> {
        self.tables(|name| name.starts_with(TABLES))
    }

    fn tables(&self, is_meant: impl Fn(&str) -> bool) -> Result<Span> {
        let start = self.address(FIRST_TABLE)?;
        let is_table = |at: u64| {
            self.symbols
                .iter()
                .filter(|(name, _)| is_meant(name))
                .any(|(_, (address, _))| *address == at)
        };
        let mut end = start + VECTOR_TABLE;
        while is_table(end) {
            end += VECTOR_TABLE;
        }
        Ok(Span { start, end })
    }

    fn symbol(&self, name: &str) -> Result<(u64, u64)> {
        self.symbols
            .get(name)
            .copied()
            .with_context(|| format!("the image has no symbol {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(&str, u64, u64)]) -> Table {
        Table {
            symbols: symbols
                .iter()
                .map(|&(name, address, size)| (name.to_owned(), (address, size)))
                .collect(),
            image: Span {
                start: 0,
                end: 0x8000,
            },
        }
    }

    #[test]
    fn the_vectors_end_where_the_next_table_is_missing() {
        let table = table(&[
            ("vectors_plain", 0x800, 0),
            ("vectors_loop", 0x1000, 0),
            ("vectors_host_sync", 0x17c0, 0),
            ("vectors_boot", 0x2000, 0),
        ]);
        assert_eq!(
            table.vectors().unwrap(),
            Span {
                start: 0x800,
                end: 0x1800
            }
        );
    }

    #[test]
    fn the_vectors_of_guests_are_not_the_hosts() {
        let table = table(&[("vectors_plain", 0x800, 0), ("vectors_guest_plain", 0x1000, 0)]);
        let vectors = table.vectors().unwrap();
        assert_eq!(vectors.end, 0x1000);
    }

    #[test]
    fn the_only_symbol_of_its_kind_is_found_by_a_part_of_its_name() {
        let table = table(&[("_ZN3sha4workE", 8, 16), ("_ZN3sha4restE", 32, 4)]);
        assert_eq!(table.span_of_only("work").unwrap(), Span { start: 8, end: 24 });
        assert!(table.span_of_only("sha").is_err());
        assert!(table.span_of_only("none").is_err());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let table = table(&[("sized", 0x10, 4), ("bare", 0x20, 0)]);
        assert_eq!(
            table.span("sized").unwrap(),
            Span {
                start: 0x10,
                end: 0x14
            }
        );
        assert_eq!(table.address("bare").unwrap(), 0x20);
        assert!(table.span("bare").is_err());
        assert!(
            table
                .address("absent")
                .unwrap_err()
                .to_string()
                .contains("absent")
        );
        assert!(table.vectors().is_err());
    }

    #[test]
    fn this_program_has_symbols_where_it_says() {
        let program = std::env::current_exe().unwrap();
        let at_zero = Table::load(&program, 0).unwrap();
        let moved = Table::load(&program, 0x1000).unwrap();
        assert_eq!(
            moved.address("main").unwrap(),
            at_zero.address("main").unwrap() + 0x1000
        );
        assert!(at_zero.image().contains(at_zero.address("main").unwrap()));
    }
}
