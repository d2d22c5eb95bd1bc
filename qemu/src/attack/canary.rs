//! Canaries: a secret that EL2 keeps in its pages, and that must be nowhere else.
//!
//! The secret is new for each run and written into the image before it boots. EL2 (`hyp/src/canary.rs`) fills pages with
//! it: by turns of 16 bytes the secret as it is, and the secret mixed with the address. Both forms are looked for.

use crate::images::Image;
use crate::machine::frame::{self, FRAME};
use crate::workspace;
use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use std::{collections::HashSet, fs, ops::Range, path::Path};

/// The symbols of the image that hold the secret, and the addresses of the canary pages, as many as are not zero.
const SECRET: &str = "FREEHOLD_CANARY_SECRET";
const PAGES: &str = "FREEHOLD_CANARY_PAGES";

/// With fewer canaries than this the boot has planted none.
const FEWEST: usize = 32;

/// Leaks beyond these are only counted.
const SHOWN: usize = 20;

/// 128 bits that nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Secret([u64; 2]);

impl Secret {
    pub(super) fn new() -> Self {
        Self([workspace::unique_number(), workspace::unique_number()])
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0[0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.0[1].to_le_bytes());
        bytes
    }

    /// What a canary page holds at `address`.
    fn word(self, address: u64) -> u64 {
        let half = self.0[usize::from(address & 8 != 0)];
        if address & 16 == 0 { half } else { half ^ address }
    }
}

/// Where a part of the secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, at this physical address.
    Memory(u64),
    /// In a register: the line in which QEMU prints it.
    Register(String),
}

/// The secret where it must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Where.
    pub place: Place,
    /// The eight bytes that were found.
    pub value: u64,
}

/// What became of the canaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Canary pages.
    pub(super) pages: usize,
    /// Addresses in canary pages that hold something else.
    pub(super) changed: Vec<u64>,
    /// The secret where it must not be.
    pub(super) leaks: Vec<Leak>,
    /// How many more leaks there are.
    pub(super) more_leaks: usize,
    /// How often the secret was found where it belongs.
    pub(super) at_home: u64,
    /// Bytes of the host's memory that were searched.
    pub(super) searched: u64,
    /// CPUs whose registers were searched.
    pub(super) cpus: usize,
}

/// An image with a secret in it.
#[derive(Debug)]
pub(super) struct Canaries {
    secret: Secret,
    /// Offsets from the image's first byte, and the bytes of the list of pages.
    secret_at: u64,
    pages_at: Range<u64>,
}

/// Writes the secret into a copy of `image`, which becomes the file `copy`.
///
/// # Errors
/// If the image has no place for it, or a file cannot be read or written.
pub(super) fn plant(image: &Image, secret: Secret, copy: &Path) -> Result<Canaries> {
    let elf = fs::read(&image.elf).with_context(|| format!("cannot read {}", image.elf.display()))?;
    let mut flat = fs::read(&image.flat).with_context(|| format!("cannot read {}", image.flat.display()))?;
    let secret_at = symbol(&elf, SECRET)?;
    let pages_at = symbol(&elf, PAGES)?;
    let place = usize::try_from(secret_at.start)?;
    flat.get_mut(place..place + 16)
        .context("the secret's place is not in the flat image")?
        .copy_from_slice(&secret.bytes());
    fs::write(copy, flat).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(Canaries {
        secret,
        secret_at: secret_at.start,
        pages_at,
    })
}

/// Where a symbol is, from the image's first byte on.
fn symbol(elf: &[u8], name: &str) -> Result<Range<u64>> {
    let file = object::File::parse(elf).context("the image's ELF file is none")?;
    let base = file.segments().map(|segment| segment.address()).min();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    let (Some(base), Some(symbol)) = (base, symbol) else {
        bail!("the image has no symbol {name}");
    };
    let start = symbol.address() - base;
    Ok(start..start + symbol.size())
}

/// Memory of the machine.
struct Dump<'a> {
    base: u64,
    bytes: &'a [u8],
}

impl Dump<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let bytes = self.bytes.get(offset..offset.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl Canaries {
    /// Looks for the canaries in `memory`, which begins at physical address `base`, and in `registers`, as QEMU prints
    /// them. `hyp` are the ranges of EL2's own memory, the first of which begins with the image.
    ///
    /// # Errors
    /// If the machine has not what it must have: the secret in EL2's data, enough canaries, all in EL2's memory.
    pub(super) fn check(
        &self,
        base: u64,
        memory: &[u8],
        hyp: &[Range<u64>],
        registers: &str,
    ) -> Result<Found> {
        let dump = Dump { base, bytes: memory };
        let image = hyp.first().context("nothing is EL2's")?.start;
        for half in 0..2 {
            let address = image + self.secret_at + 8 * half as u64;
            ensure!(
                dump.word(address) == Some(self.secret.0[half]),
                "the secret is not in EL2's data at {address:#x}: this is not the memory of that machine"
            );
        }
        let pages: Vec<u64> = (image + self.pages_at.start..image + self.pages_at.end)
            .step_by(8)
            .map_while(|address| dump.word(address).filter(|page| *page != 0))
            .collect();
        ensure!(pages.len() >= FEWEST, "EL2 has planted {} canaries", pages.len());
        if let Some(page) = pages
            .iter()
            .find(|page| !hyp.iter().any(|range| range.contains(page)))
        {
            bail!("the canary at {page:#x} is not in EL2's memory any more");
        }
        let mut found = Found {
            pages: pages.len(),
            ..Found::default()
        };
        for &page in &pages {
            let changed = (page..page + FRAME)
                .step_by(8)
                .filter(|address| dump.word(*address) != Some(self.secret.word(*address)));
            found.changed.extend(changed);
        }
        let needles = Needles::new(self.secret, hyp);
        needles.search_memory(&dump, hyp, &mut found);
        needles.search_registers(registers, &mut found);
        ensure!(
            found.at_home > 0,
            "the secret was not found even where it belongs: the search is broken"
        );
        Ok(found)
    }
}

/// What is looked for: every eight bytes in a row of the secret repeated, so that an unaligned copy is found as an aligned
/// word, and every word that is the secret mixed with an address of EL2's.
struct Needles {
    words: HashSet<u64>,
    /// A bit for each value of the low 20 bits that some word has: most of memory has none of them.
    sieve: Vec<u64>,
}

const SIEVE_BITS: u32 = 20;

impl Needles {
    fn new(secret: Secret, hyp: &[Range<u64>]) -> Self {
        let mut twice = [0; 32];
        twice[..16].copy_from_slice(&secret.bytes());
        twice[16..].copy_from_slice(&secret.bytes());
        let rotated = (0..16).map(|start| {
            let mut word = [0; 8];
            word.copy_from_slice(&twice[start..start + 8]);
            u64::from_le_bytes(word)
        });
        let mixed = hyp
            .iter()
            .flat_map(|range| range.clone().step_by(8))
            .filter(|address| address & 16 != 0)
            .map(|address| secret.word(address));
        let words: HashSet<u64> = rotated.chain(mixed).collect();
        let mut sieve = vec![0; (1 << SIEVE_BITS) / 64];
        for word in &words {
            let low = sieve_index(*word);
            sieve[low / 64] |= 1 << (low % 64);
        }
        Self { words, sieve }
    }

    fn contains(&self, word: u64) -> bool {
        let low = sieve_index(word);
        self.sieve[low / 64] >> (low % 64) & 1 != 0 && self.words.contains(&word)
    }

    fn search_memory(&self, dump: &Dump<'_>, hyp: &[Range<u64>], found: &mut Found) {
        for (index, page) in dump.bytes.chunks(FRAME as usize).enumerate() {
            let address = dump.base + index as u64 * FRAME;
            let is_hyp = hyp.iter().any(|range| range.contains(&address));
            if !is_hyp {
                found.searched += page.len() as u64;
            }
            // Most pages of a machine were never touched.
            if frame::is_empty(page) {
                continue;
            }
            for (offset, bytes) in page.as_chunks::<8>().0.iter().enumerate() {
                let value = u64::from_le_bytes(*bytes);
                if !self.contains(value) {
                    continue;
                }
                if is_hyp {
                    found.at_home += 1;
                } else {
                    let place = Place::Memory(address + offset as u64 * 8);
                    found.leak(Leak { place, value });
                }
            }
        }
    }

    /// Numbers of 16 digits or more, by parts of 16: general registers have one part, vector registers several.
    fn search_registers(&self, text: &str, found: &mut Found) {
        found.cpus = text.matches("X00=").count();
        for line in text.lines() {
            for number in line.split(|c: char| !c.is_ascii_hexdigit()) {
                for part in number.as_bytes().chunks(16) {
                    let value = str::from_utf8(part)
                        .ok()
                        .and_then(|part| u64::from_str_radix(part, 16).ok());
                    if let Some(value) = value.filter(|value| self.contains(*value)) {
                        let place = Place::Register(line.trim().to_owned());
                        found.leak(Leak { place, value });
                    }
                }
            }
        }
    }
}

impl Found {
    fn leak(&mut self, leak: Leak) {
        if self.leaks.len() < SHOWN {
            self.leaks.push(leak);
        } else {
            self.more_leaks += 1;
        }
    }
}

fn sieve_index(word: u64) -> usize {
    (word & ((1 << SIEVE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests;
