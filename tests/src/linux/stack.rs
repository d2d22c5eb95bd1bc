//! How much of a kernel's stack the functions of a module take. It has 16 KiB of it, for all that is under way.

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use std::fs;
use std::path::Path;

/// The most that one function may: what the kernel's own build warns at for C.
const MOST: u64 = 2048;

/// Bytes by which an instruction moves the stack's end down: SUB (immediate) of SP from SP, and STP of 64-bit registers
/// with pre-index (DDI 0487, C6.2).
const fn taken_by(instruction: u32) -> u64 {
    if instruction & 0xff80_03ff == 0xd100_03ff {
        let immediate = (instruction >> 10 & 0xfff) as u64;
        return immediate << (12 * (instruction >> 22 & 1));
    }
    if instruction & 0xffc0_03e0 == 0xa980_03e0 {
        // Seven bits, signed, times 8.
        let offset = (instruction >> 15 & 0x7f) as u64;
        return if offset >= 64 { (128 - offset) * 8 } else { 0 };
    }
    0
}

/// Sees that no function of a module takes too much.
///
/// # Errors
/// With the names of those that do.
pub fn check(module: &Path) -> Result<()> {
    let data = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let object = object::File::parse(&*data)?;
    let (mut functions, mut greedy) = (0, Vec::new());
    for symbol in object.symbols() {
        let (SymbolKind::Text, Some(section)) = (symbol.kind(), symbol.section_index()) else {
            continue;
        };
        let section = object.section_by_index(section)?;
        let Some(code) = section.data_range(section.address() + symbol.address(), symbol.size())? else {
            continue;
        };
        let words = code.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let taken: u64 = words.map(taken_by).sum();
        functions += 1;
        if taken > MOST {
            greedy.push(format!("{} takes {taken} bytes", symbol.name()?));
        }
    }
    if functions < 100 {
        bail!(
            "{functions} functions in {}: where are the others?",
            module.display()
        );
    }
    if !greedy.is_empty() {
        bail!("{}", greedy.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_of_a_prologue_are_counted() {
        // sub sp, sp, #0x50; sub sp, sp, #1, lsl #12; stp x29, x30, [sp, #-96]!
        assert_eq!(
            [0xd101_43ff, 0xd140_07ff, 0xa9ba_7bfd].map(taken_by),
            [80, 4096, 96]
        );
        // add sp, sp, #0x50; sub x0, sp, #0x50; stp x29, x30, [sp, #64]; ldp x29, x30, [sp], #96
        assert_eq!(
            [0x9101_43ff, 0xd101_43e0, 0xa904_7bfd, 0xa8c6_7bfd].map(taken_by),
            [0; 4]
        );
    }
}
