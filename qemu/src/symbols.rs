//! Names for the addresses in a panic of EL2.
//!
//! Freehold prints `freehold: backtrace <n> <hex>` for each frame, innermost first, as an offset from the first
//! byte of its image: it runs wherever it was loaded. Frame 0 is where it stopped; the others are where it called from.
//! [`table`] has the addresses behind the names.

pub mod table;

use addr2line::Loader;
use object::{Object as _, ObjectSegment as _};
use std::{fmt::Write as _, fs, path::Path};

/// What such a line begins with.
const MARK: &str = "freehold: backtrace ";

/// The backtrace that `console` holds, with function, file and line of each frame, from the ELF file of the image.
/// Nothing if there is no backtrace; what cannot be named is shown as it came.
#[must_use]
pub fn backtrace(elf: &Path, console: &[String]) -> Option<String> {
    let offsets: Vec<_> = console.iter().filter_map(|line| parse(line)).collect();
    if offsets.is_empty() {
        return None;
    }
    let names = Names::load(elf);
    let mut text = String::new();
    for (number, offset) in offsets {
        let _ = match &names {
            Some(names) => write!(text, "{number:>3} {}", names.describe(offset)),
            None => writeln!(text, "{number:>3} +{offset:#x} (no symbols in {})", elf.display()),
        };
    }
    Some(text)
}

fn parse(line: &str) -> Option<(u32, u64)> {
    let (number, offset) = line.strip_prefix(MARK)?.trim().split_once(' ')?;
    let offset = offset.strip_prefix("0x").unwrap_or(offset);
    Some((number.parse().ok()?, u64::from_str_radix(offset, 16).ok()?))
}

struct Names {
    loader: Loader,
    base: u64,
}

impl Names {
    fn load(elf: &Path) -> Option<Self> {
        let contents = fs::read(elf).ok()?;
        let file = object::File::parse(contents.as_slice()).ok()?;
        let base = file.segments().map(|segment| segment.address()).min()?;
        Some(Self {
            loader: Loader::new(elf).ok()?,
            base,
        })
    }

    /// The functions at an offset, one line each: what was inlined comes before where it was inlined to.
    fn describe(&self, offset: u64) -> String {
        let address = self.base.wrapping_add(offset);
        let mut lines = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|name| Some(name.demangle().ok()?.into_owned()));
                let place = frame
                    .location
                    .and_then(|place| Some(format!("{}:{}", place.file?, place.line?)));
                if name.is_some() || place.is_some() {
                    let known = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
                    lines.push(format!("{} at {}", known(name), known(place)));
                }
            }
        }
        if lines.is_empty() {
            lines.extend(
                self.loader
                    .find_symbol(address)
                    .map(|name| format!("{:#}", addr2line::demangle_auto(name.into(), None))),
            );
        }
        if lines.is_empty() {
            lines.push("?".to_owned());
        }
        let mut text = format!("+{offset:#x} ");
        text.push_str(&lines.join("\n      inlined into "));
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_landmark() -> u32 {
        std::process::id()
    }

    #[test]
    fn an_address_of_this_program_gets_its_name_and_place() {
        assert_ne!(a_landmark(), 0);
        let program = std::env::current_exe().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let first = maps
            .lines()
            .find(|line| line.ends_with(program.to_str().unwrap()))
            .unwrap();
        let base = u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
        let offset = a_landmark as fn() -> u32 as usize as u64 - base;
        let console = [
            "freehold: panic: test".to_owned(),
            format!("freehold: backtrace 0 {offset:#x}"),
        ];
        let text = backtrace(&program, &console).unwrap();
        assert!(
            text.contains("a_landmark") && text.contains("symbols.rs:"),
            "{text}"
        );
    }

    #[test]
    fn only_whole_lines_of_a_backtrace_are_taken() {
        assert_eq!(parse("freehold: backtrace 3 1a0"), Some((3, 0x1a0)));
        assert_eq!(parse("freehold: backtrace 0 0xff"), Some((0, 0xff)));
        for line in [
            "freehold: backtrace",
            "freehold: backtrace x 1",
            "backtrace 0 1",
            "freehold: backtrace 0 xyz",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(backtrace(Path::new("/nonexistent"), &[]), None);
    }
}
