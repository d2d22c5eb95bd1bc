//! The plugin's options: read by the plugin, written by whoever starts QEMU.
//!
//! On QEMU's command line they are `-plugin file=SO,out=FILE,mode=…,…`; [`Options::argument`] makes that value and
//! [`Options::parse`] reads what QEMU hands over of it. Addresses are virtual unless said otherwise, and absolute:
//! who writes the options knows where the image was loaded.

use crate::report::Address;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Count instructions, by range and CPU.
    Count,
    /// Count what each visit of the image costs.
    Calls,
    /// Tell the interesting instructions in their order.
    Trace,
}

/// A range of addresses. Written `LO-HI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

impl Span {
    /// Whether `address` lies in the range.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

/// A thing with a name. Written `NAME:THING`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T> {
    /// The name; no colon in it.
    pub name: String,
    /// The thing.
    pub at: T,
}

/// All options. Which mode heeds which is said at each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `mode=`: what to do.
    pub mode: Mode,
    /// `out=`: the file to write, see [`crate::report`].
    pub out: PathBuf,
    /// `range=NAME:LO-HI`, any number. Count: ranges to tell apart, the first that fits counts. Calls, trace: the
    /// first is the image, at most 4 GiB; calls: any others are parts of it whose share of each visit is told.
    pub ranges: Vec<Named<Span>>,
    /// `mark=NAME:PC`, any number. Count: tell what was counted when a CPU comes here for the first time. Trace: tell
    /// when a CPU comes here.
    pub marks: Vec<Named<u64>>,
    /// `user=on`. Count: tell what was counted when a CPU comes to its first instruction in user space. The ranges
    /// should cover RAM, where the kernel lies as long as the MMU is off: what they cover is never user space.
    pub user: bool,
    /// `vectors=LO-HI`. Calls, trace: where the vector tables of the image lie, one or more of 2 KiB each.
    pub vectors: Option<Span>,
    /// `visits=on`. Calls: tell each visit, not only their sums.
    pub visits: bool,
    /// `stores=LO-HI`, any number. Trace: tell every store by an instruction in this range, which lies in the image:
    /// say, the function that writes descriptors.
    pub stores: Vec<Span>,
    /// `tables=LO-HI`, any number. Trace: tell every store by the image to these addresses.
    pub tables: Vec<Span>,
    /// `limit=N`. Calls, trace: write at most so many lines before the last one. None: no limit.
    pub limit: Option<u64>,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// Not of the form that the option has, or no option that there is.
    #[error("option {0:?} is not understood")]
    Malformed(String),
    /// An option that must be there is not, or not as often as the mode wants it.
    #[error("option {0} is missing, or is there too often")]
    Missing(&'static str),
    /// A range that is empty, too long, or not aligned as it must be.
    #[error("range {0} cannot be used")]
    Range(Span),
}

impl Options {
    /// The options of a mode that need no others.
    pub fn new(mode: Mode, out: impl Into<PathBuf>) -> Self {
        Self {
            mode,
            out: out.into(),
            ranges: Vec::new(),
            marks: Vec::new(),
            user: false,
            vectors: None,
            visits: false,
            stores: Vec::new(),
            tables: Vec::new(),
            limit: None,
        }
    }

    /// Reads options, each `KEY=VALUE`.
    ///
    /// # Errors
    /// [`OptionError`] for the first one that is wrong, or for what the mode lacks.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut mode = None;
        let mut options = Self::new(Mode::Count, "");
        for argument in arguments {
            let wrong = || OptionError::Malformed(argument.to_owned());
            let (key, value) = argument.split_once('=').ok_or_else(wrong)?;
            let parsed = match key {
                "mode" => value.parse().ok().map(|value| mode = Some(value)),
                "out" => Some(PathBuf::from(value)).map(|out| options.out = out),
                "range" => named(value, span).map(|range| options.ranges.push(range)),
                "mark" => named(value, address).map(|mark| options.marks.push(mark)),
                "user" => switch(value).map(|on| options.user = on),
                "vectors" => span(value).map(|range| options.vectors = Some(range)),
                "visits" => switch(value).map(|on| options.visits = on),
                "stores" => span(value).map(|range| options.stores.push(range)),
                "tables" => span(value).map(|range| options.tables.push(range)),
                "limit" => value.parse().ok().map(|limit| options.limit = Some(limit)),
                _ => None,
            };
            parsed.ok_or_else(wrong)?;
        }
        options.mode = mode.ok_or(OptionError::Missing("mode="))?;
        options.check()?;
        Ok(options)
    }

    /// Whether the mode has what it needs.
    ///
    /// # Errors
    /// [`OptionError::Missing`] or [`OptionError::Range`].
    pub fn check(&self) -> Result<(), OptionError> {
        if self.out.as_os_str().is_empty() {
            return Err(OptionError::Missing("out="));
        }
        for range in &self.ranges {
            let long = range.at.end.saturating_sub(range.at.start) > 1 << 32;
            if range.at.start >= range.at.end || self.mode != Mode::Count && long {
                return Err(OptionError::Range(range.at));
            }
        }
        if self.mode == Mode::Count {
            return Ok(());
        }
        let image = self.image().ok_or(OptionError::Missing("range="))?;
        for Named { at: part, .. } in self.parts() {
            if self.mode != Mode::Calls || part.start < image.start || image.end < part.end {
                return Err(OptionError::Range(*part));
            }
        }
        let vectors = self.vectors.ok_or(OptionError::Missing("vectors="))?;
        // VBAR_EL2 bits 10:0 are zero (Arm ARM DDI 0487, D24.2).
        if vectors.start >= vectors.end || !vectors.start.is_multiple_of(0x800) {
            return Err(OptionError::Range(vectors));
        }
        Ok(())
    }

    /// The image, in the modes that have one.
    #[must_use]
    pub fn image(&self) -> Option<Span> {
        self.ranges.first().map(|range| range.at)
    }

    /// The parts of the image that are counted apart.
    #[must_use]
    pub fn parts(&self) -> &[Named<Span>] {
        self.ranges.get(1..).unwrap_or_default()
    }

    /// The offset of `pc` in its vector table, if an exception to the image can begin there.
    #[must_use]
    pub fn vector(&self, pc: u64) -> Option<u16> {
        let vectors = self.vectors.filter(|vectors| vectors.contains(pc))?;
        let offset = (pc - vectors.start) % 0x800;
        if offset.is_multiple_of(0x80) {
            u16::try_from(offset).ok()
        } else {
            None
        }
    }

    /// The value of QEMU's option `-plugin` that loads the plugin `file` with these options. `None` if a path is not
    /// UTF-8.
    #[must_use]
    pub fn argument(&self, file: &Path) -> Option<String> {
        let mut argument = format!("file={}", escaped(file)?);
        let mut push = |key: &str, value: &str| {
            argument.push(',');
            argument.push_str(key);
            argument.push('=');
            argument.push_str(value);
        };
        push("out", &escaped(&self.out)?);
        push("mode", self.mode.name());
        for Named { name, at } in &self.ranges {
            push("range", &format!("{name}:{at}"));
        }
        for Named { name, at } in &self.marks {
            push("mark", &format!("{name}:{at:#x}"));
        }
        if self.user {
            push("user", "on");
        }
        if let Some(vectors) = self.vectors {
            push("vectors", &vectors.to_string());
        }
        if self.visits {
            push("visits", "on");
        }
        for range in &self.stores {
            push("stores", &range.to_string());
        }
        for range in &self.tables {
            push("tables", &range.to_string());
        }
        if let Some(limit) = self.limit {
            push("limit", &limit.to_string());
        }
        Some(argument)
    }
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Calls => "calls",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for Mode {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        [Self::Count, Self::Calls, Self::Trace]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| OptionError::Malformed(text.to_owned()))
    }
}

/// QEMU takes two commas for one.
fn escaped(path: &Path) -> Option<String> {
    Some(path.to_str()?.replace(',', ",,"))
}

fn address(text: &str) -> Option<u64> {
    text.parse().ok().map(|Address(address)| address)
}

fn span(text: &str) -> Option<Span> {
    let (start, end) = text.split_once('-')?;
    Some(Span {
        start: address(start)?,
        end: address(end)?,
    })
}

fn named<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Named<T>> {
    let (name, at) = text.split_once(':')?;
    Some(Named {
        name: name.to_owned(),
        at: parse(at)?,
    })
}

/// QEMU itself writes `on` for a bare key.
fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Named, OptionError, Options, Span};
    use std::path::Path;

    fn full() -> Options {
        Options {
            ranges: vec![Named {
                name: "el2".into(),
                at: Span {
                    start: 0x4020_0000,
                    end: 0x4040_0000,
                },
            }],
            marks: vec![Named {
                name: "host".into(),
                at: 0xffff_8000_0800_0000,
            }],
            user: true,
            vectors: Some(Span {
                start: 0x4020_0800,
                end: 0x4020_1800,
            }),
            visits: true,
            stores: vec![Span {
                start: 0x4020_2000,
                end: 0x4020_2100,
            }],
            tables: vec![Span {
                start: 0x4030_0000,
                end: 0x4040_0000,
            }],
            limit: Some(1000),
            ..Options::new(Mode::Trace, "/tmp/a,b.json")
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let options = full();
        let argument = options.argument(Path::new("/x/lib.so")).unwrap();
        assert!(
            argument
                .starts_with("file=/x/lib.so,out=/tmp/a,,b.json,mode=trace,range=el2:0x40200000-0x40400000,")
        );
        // As QEMU does it: a lone comma ends an option, two are one.
        let handed = argument.replace(",,", "\0");
        let handed: Vec<String> = handed
            .split(',')
            .skip(1)
            .map(|part| part.replace('\0', ","))
            .collect();
        assert_eq!(Options::parse(handed.iter().map(String::as_str)), Ok(options));
    }

    #[test]
    fn wrong_options_are_refused() {
        let parse = |text: &str| Options::parse(text.split(','));
        assert_eq!(parse("out=f"), Err(OptionError::Missing("mode=")));
        assert_eq!(parse("mode=count"), Err(OptionError::Missing("out=")));
        assert_eq!(parse("mode=trace,out=f"), Err(OptionError::Missing("range=")));
        assert_eq!(
            parse("mode=calls,out=f,range=i:0-8"),
            Err(OptionError::Missing("vectors="))
        );
        for malformed in [
            "mode=all",
            "out=f,rang=i:0-8",
            "range=0-8",
            "range=i:8",
            "mark=i:zz",
            "user=1",
        ] {
            assert!(
                matches!(parse(malformed), Err(OptionError::Malformed(_))),
                "{malformed}"
            );
        }
        for range in ["range=i:8-8", "range=i:9-8", "range=i:0-0x200000000"] {
            let text = format!("mode=trace,out=f,vectors=0-0x800,{range}");
            assert!(matches!(parse(&text), Err(OptionError::Range(_))), "{range}");
        }
        assert!(matches!(
            parse("mode=trace,out=f,range=i:0-8,vectors=8-0x800"),
            Err(OptionError::Range(_))
        ));
        for (mode, part, fits) in [
            ("calls", "0x10-0x20", true),
            ("calls", "0x10-0x2000", false),
            ("trace", "0x10-0x20", false),
        ] {
            let text = format!("mode={mode},out=f,vectors=0-0x800,range=i:0-0x1000,range=p:{part}");
            assert_eq!(parse(&text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn vectors_are_the_slots_of_any_table() {
        let options = full();
        assert_eq!(options.vector(0x4020_0800), Some(0));
        assert_eq!(options.vector(0x4020_0c00), Some(0x400));
        assert_eq!(options.vector(0x4020_1480), Some(0x480));
        assert_eq!(options.vector(0x4020_0c04), None);
        assert_eq!(options.vector(0x4020_1800), None);
        assert_eq!(options.vector(0x4020_0000), None);
    }
}
