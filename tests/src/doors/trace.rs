//! A trace of the image, as far as the doors are concerned: which kind of store each store is, and what is left out.

use super::code::Code;
use freehold_runner::plugin::{Kind, Operation, Span, TraceStep, What, accesses_memory};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Bytes of the ownership array on a machine of 1 GiB. It is the first thing after the image.
const ARRAY: u64 = 4096;

/// Registers that host and guest exchange and that do not rule translation, in the order of their names: what is
/// trapped, EL2's vectors, and what the guest takes for its CPU.
pub const EXCHANGED: [&str; 4] = ["cptr_el2", "mdcr_el2", "vbar_el2", "vmpidr_el2"];

/// The functions of assembly that store vector registers.
const SAVE_VECTORS: [&str; 2] = ["simd_save", "simd_sve_save"];

/// A step of a CPU that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// EL2 was entered through the vector at this offset.
    Vector(u16),
    /// The payload executed this marker.
    Marker(u16),
    /// A descriptor of a table was stored, at this address.
    Descriptor(u64),
    /// An entry of a CPU's window was stored.
    Window(u64),
    /// An entry of a node of the ownership map was stored.
    Node(u64),
    /// The word of this region was stored, with its lock taken or given back.
    Region(u64),
    /// Vector registers were stored.
    Vectors,
    /// An instruction.
    Operation(Operation),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(offset) => write!(f, "entry at {offset:#x}"),
            Self::Marker(number) => write!(f, "marker {number}"),
            Self::Descriptor(to) => write!(f, "descriptor at {to:#x}"),
            Self::Window(to) => write!(f, "window entry at {to:#x}"),
            Self::Node(to) => write!(f, "map entry at {to:#x}"),
            Self::Region(number) => write!(f, "word of region {number}"),
            Self::Vectors => write!(f, "vector registers"),
            Self::Operation(operation) => write!(f, "{:?} {}", operation.kind, operation.name),
        }
    }
}

/// A token, and where it was seen. Cache maintenance, TLB invalidations and stores of vectors that repeat are told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What.
    pub token: Token,
    /// How many times in a row.
    pub times: u64,
    /// The address of the instruction, the first one's if there were several.
    pub pc: u64,
}

impl Told {
    /// Whether it is an instruction of this kind.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        matches!(&self.token, Token::Operation(operation) if operation.kind == kind)
    }

    /// Whether it is this instruction.
    #[must_use]
    pub fn is_named(&self, kind: Kind, name: &str) -> bool {
        matches!(&self.token, Token::Operation(operation) if operation.kind == kind && operation.name == name)
    }

    /// Whether its place is free: it only orders instructions or accesses of this CPU among themselves, writes a register
    /// that host and guest exchange and that does not rule translation, or saves vector registers.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let is_exchanged = |operation: &Operation| {
            operation.kind == Kind::Msr && EXCHANGED.contains(&operation.name.as_ref())
        };
        self.is(Kind::Isb)
            || self.is(Kind::Dmb)
            || self.token == Token::Vectors
            || matches!(&self.token, Token::Operation(operation) if is_exchanged(operation))
    }
}

/// The instructions of the image that store what matters, and the memory that it is stored to.
#[derive(Clone, Debug)]
pub struct Stores {
    /// What each instruction stores, by its address: a token for address 0.
    by: BTreeMap<u64, fn(u64) -> Token>,
    /// The image's code.
    text: Range<u64>,
    /// The words of the regions.
    array: Range<u64>,
    /// All RAM: what is stored elsewhere goes to a stack.
    ram: Range<u64>,
}

impl Stores {
    /// Finds them in the code of an image that is loaded at `image` and whose code ends at `text_end`.
    #[must_use]
    pub fn new(code: &Code, image: Range<u64>, text_end: u64, ram: Range<u64>) -> Self {
        let by = code
            .instructions()
            .filter(|(_, word)| accesses_memory(*word))
            .filter_map(|(pc, _)| {
                let place = code.own_place(pc);
                let token: fn(u64) -> Token = match (place.file.as_str(), place.function.as_str()) {
                    ("hyp/core/src/pgtable/store.rs", "write") => Token::Descriptor,
                    ("hyp/src/window.rs", "write_entry") => Token::Window,
                    // Of what a region stores, all but its own word goes to its node.
                    ("hyp/core/src/map/region.rs", _) => Token::Node,
                    (symbol, _) if SAVE_VECTORS.contains(&symbol) => |_| Token::Vectors,
                    _ => return None,
                };
                Some((pc, token))
            });
        Self {
            by: by.collect(),
            text: image.start..text_end,
            array: image.end..image.end + ARRAY,
            ram,
        }
    }

    /// The instructions whose stores must be traced, and the memory to which all stores must be.
    #[must_use]
    pub fn watched(&self) -> (Vec<Span>, Vec<Span>) {
        let span = |range: &Range<u64>| Span {
            start: range.start,
            end: range.end,
        };
        let instructions = self.by.keys().map(|pc| span(&(*pc..*pc + 4))).collect();
        (instructions, vec![span(&self.text), span(&self.array)])
    }

    /// What a store is: a compiler makes one of the several places that give a region's lock back, so that its word is
    /// known by its address, and all else by the instruction.
    fn token(&self, pc: u64, to: u64) -> Option<Token> {
        if self.array.contains(&to) {
            return Some(Token::Region((to - self.array.start) / 8));
        }
        let token = self.by.get(&pc)?;
        self.ram.contains(&to).then(|| token(to))
    }
}

/// What each CPU did, and the stores that nobody may make.
#[derive(Debug)]
pub struct Trace {
    /// By CPU.
    pub cpus: Vec<Vec<Told>>,
    /// Stores into the image's code: where to, and by which instruction.
    pub into_code: Vec<(u64, u64)>,
}

impl Trace {
    /// Sorts the steps of a trace on a machine with `cpus` CPUs.
    pub fn new<'a>(steps: impl Iterator<Item = &'a TraceStep>, stores: &Stores, cpus: usize) -> Self {
        let mut trace = Self {
            cpus: vec![Vec::new(); cpus],
            into_code: Vec::new(),
        };
        for step in steps {
            let pc = step.pc.0;
            let token = match &step.what {
                What::Vector(offset) => Some(Token::Vector(*offset)),
                What::Marker(number) => Some(Token::Marker(*number)),
                What::Operation(operation) => Some(Token::Operation(operation.clone())),
                What::Mark(_) => None,
                What::Store { to, .. } => {
                    if stores.text.contains(&to.0) {
                        trace.into_code.push((to.0, pc));
                    }
                    stores.token(pc, to.0)
                }
            };
            if let (Some(told), Some(token)) = (trace.cpus.get_mut(step.cpu), token) {
                push(told, token, pc);
            }
        }
        trace
    }
}

fn push(told: &mut Vec<Told>, token: Token, pc: u64) {
    let repeats = match &token {
        Token::Operation(operation) => matches!(operation.kind, Kind::Dc | Kind::Tlbi),
        token => *token == Token::Vectors,
    };
    match told.last_mut() {
        Some(last) if repeats && last.token == token => last.times += 1,
        _ => told.push(Told { token, times: 1, pc }),
    }
}
