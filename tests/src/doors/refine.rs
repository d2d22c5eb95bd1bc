//! Whether what EL2 did is what the recorded steps stand for.
//!
//! Every token must be accounted for, in order; only ISB and DMB may be there without being asked for. Where the
//! architecture asks for a barrier, a stronger one is as good. What host and guest exchange of the registers that do not
//! rule translation is counted: its order does not matter.
//!
//! - [`world`]: between host and guest.

mod world;

use super::expect::{Expected, Invalidation, Model, Work};
use super::trace::{Token, Told};
use freehold_runner::plugin::Kind;
use hyp_core::geometry::{Arm4K, Geometry as _};
use hyp_core::hardware::Regime;
use std::collections::BTreeMap;

/// Where tables were seen: whose, of which level, for which addresses.
#[derive(Clone, Debug, Default)]
pub struct Tables(BTreeMap<(Whose, u8, u64), u64>);

/// Whose a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Hyp,
    Host,
    Guest(u16),
}

impl Tables {
    /// A VM is gone, and its tables with it: the next one of its slot has others.
    pub fn forget_guests(&mut self) {
        self.0.retain(|(whose, ..), _| !matches!(whose, Whose::Guest(_)));
    }
}

/// What barriers there are that do what one is wanted for.
const STORES_ARE_SEEN: &[&str] = &["ishst", "ish", "oshst", "osh", "st", "sy"];
const ALL_IS_COMPLETE: &[&str] = &["ish", "osh", "sy"];

/// Entries of a page, and bytes of an entry.
const ENTRIES: u64 = Arm4K::ENTRIES as u64;
const ENTRY: u64 = 8;
const PAGE_MASK: u64 = ENTRIES * ENTRY - 1;

/// The vector of a synchronous exception of the host.
const SYNCHRONOUS: u16 = 0x400;

/// Checks one visit of EL2, from its vector to its ERET.
///
/// # Errors
/// What was expected, what came instead, and what came before it.
pub fn refines(
    expected: &[Expected],
    told: &[Told],
    model: &Model,
    tables: &Tables,
) -> Result<Tables, String> {
    let mut reader = Reader {
        told,
        at: 0,
        used: 0,
        model,
        tables: tables.clone(),
        exchanged: Vec::new(),
        switched: false,
    };
    let judged = reader.visit(expected);
    // Level-3 tables come and go; those above stay.
    reader.tables.0.retain(|(_, level, _), _| *level < 3);
    judged.map(|()| reader.tables)
}

struct Reader<'a> {
    told: &'a [Told],
    /// The next token.
    at: usize,
    /// How many of its repetitions have been accounted for.
    used: u64,
    model: &'a Model,
    tables: Tables,
    /// Registers that do not rule translation and that were written since EL2 was last entered or left.
    exchanged: Vec<&'a str>,
    /// Whether host and guest changed places since.
    switched: bool,
}

type Judged = Result<(), String>;

impl<'a> Reader<'a> {
    fn visit(&mut self, expected: &[Expected]) -> Judged {
        self.one("the entry of a synchronous exception", |token| {
            *token == Token::Vector(SYNCHRONOUS)
        })?;
        self.guard();
        for item in expected {
            self.item(item)
                .map_err(|error| format!("for {item:x?}: {error}"))?;
        }
        self.leave()?;
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.instead("the end")),
        }
    }

    /// What the vector may begin with against predictors that the host trained: a loop with its barriers.
    fn guard(&mut self) {
        if self.peek().is_some_and(|told| told.is_named(Kind::Dsb, "nsh")) {
            self.advance();
        }
    }

    fn item(&mut self, item: &Expected) -> Judged {
        match item {
            Expected::Region(number) => self.one("the word of that region", |token| {
                *token == Token::Region(*number)
            }),
            Expected::Node { first, count } => self.node(*first, *count),
            Expected::Descriptor {
                regime,
                address,
                level,
            } => self.descriptor(*regime, *address, *level),
            Expected::Publish { own } => {
                self.barrier(STORES_ARE_SEEN)?;
                // EL2's own walks come after the barrier only if its instructions do.
                if *own { self.isb() } else { Ok(()) }
            }
            Expected::Invalidate(invalidation) => self.invalidation(invalidation),
            Expected::Show { frames, work } => self.show(*frames, *work),
            Expected::Prove { frames } => self.prove(*frames),
            Expected::InvalidateCode => self.invalidate_code(),
            Expected::ZeroPage => self.repeated(Kind::Dc, "zva", ENTRIES * ENTRY / self.model.zero_block),
            Expected::LoadGuest { forget } => self.load_guest(*forget),
            Expected::RunGuest { vector, vectors } => {
                if *vectors {
                    self.give_vectors()?;
                }
                self.run_guest(*vector)
            }
            // What it found is read from a register, so it must have been done.
            Expected::TranslateGuest => {
                self.operation(Kind::At, &["s1e1r"])?;
                self.isb()
            }
            Expected::PutGuest => self.put_guest(),
        }
    }

    fn descriptor(&mut self, regime: Regime, address: u64, level: u8) -> Judged {
        let shift = Arm4K::level_shift(level);
        let offset = (address >> shift & (ENTRIES - 1)) * ENTRY;
        let mut to = 0;
        self.one("a descriptor at this place in a table", |token| match token {
            Token::Descriptor(at) if at & PAGE_MASK == offset => {
                to = *at;
                true
            }
            _ => false,
        })?;
        let whose = match regime {
            Regime::Hyp => Whose::Hyp,
            Regime::Host => Whose::Host,
            Regime::Guest(vmid) => Whose::Guest(vmid),
        };
        let whose = (whose, level, address >> (shift + Arm4K::BITS_PER_LEVEL));
        let page = to & !PAGE_MASK;
        let known = *self.tables.0.entry(whose).or_insert(page);
        if known == page {
            Ok(())
        } else {
            Err(format!(
                "{to:#x} is in another table than {known:#x}, where its neighbors are"
            ))
        }
    }

    fn node(&mut self, first: u64, count: u64) -> Judged {
        let mut seen = Vec::new();
        while let Some(Told {
            token: Token::Node(to),
            ..
        }) = self.peek()
        {
            seen.push(*to);
            self.advance();
        }
        let run = |first: u64, count: u64| (first..first + count).map(|index| index * ENTRY);
        let offsets = seen.iter().map(|to| to & PAGE_MASK);
        let one_page = seen
            .windows(2)
            .all(|pair| pair[0] & !PAGE_MASK == pair[1] & !PAGE_MASK);
        let as_it_is = offsets.clone().eq(run(first, count));
        let filled = offsets.eq(run(0, ENTRIES).chain(run(first, count)));
        if one_page && (as_it_is || filled) {
            Ok(())
        } else {
            Err(format!("{} other map entries were stored: {seen:x?}", seen.len()))
        }
    }

    fn invalidation(&mut self, invalidation: &Invalidation) -> Judged {
        self.barrier(STORES_ARE_SEEN)?;
        if invalidation.elsewhere {
            self.take_vmid()?;
        }
        for _ in 0..invalidation.rounds {
            for (name, times) in &invalidation.by_address {
                self.repeated(Kind::Tlbi, name, *times)?;
            }
            self.barrier(ALL_IS_COMPLETE)?;
        }
        if let Some(name) = invalidation.then {
            for _ in 0..invalidation.rounds {
                self.repeated(Kind::Tlbi, name, 1)?;
                self.barrier(ALL_IS_COMPLETE)?;
            }
        }
        if invalidation.elsewhere {
            self.return_vmid()
        } else {
            self.isb()
        }
    }

    fn invalidate_code(&mut self) -> Judged {
        self.operation(Kind::Ic, &["ialluis"])?;
        self.barrier(ALL_IS_COMPLETE)?;
        self.isb()
    }

    fn prove(&mut self, frames: u64) -> Judged {
        let bytes = ENTRIES * ENTRY;
        for _ in 0..frames {
            self.repeated(Kind::Dc, "zva", bytes / self.model.zero_block)?;
            self.repeated(Kind::Dc, "civac", bytes / self.model.cache_line)?;
            self.barrier(ALL_IS_COMPLETE)?;
        }
        Ok(())
    }

    fn show(&mut self, frames: u64, work: Work) -> Judged {
        let bytes = frames * ENTRIES * ENTRY;
        self.window(frames)?;
        self.barrier(STORES_ARE_SEEN)?;
        self.isb()?;
        if work == Work::Scrub {
            self.repeated(Kind::Dc, "zva", bytes / self.model.zero_block)?;
        }
        if work != Work::Read {
            self.repeated(Kind::Dc, "civac", bytes / self.model.cache_line)?;
            self.barrier(ALL_IS_COMPLETE)?;
        }
        self.window(frames)?;
        let start = hyp_core::addr::Ipa::default();
        let extent = hyp_core::hardware::Extent::Range {
            start,
            pages: frames,
            level: Some(3),
        };
        self.invalidation(&Invalidation::of(Regime::Hyp, extent, self.model))
    }

    /// The first entries of the window, in their order.
    fn window(&mut self, frames: u64) -> Judged {
        let mut first = None;
        for index in 0..frames {
            self.one("the next entry of the window", |token| match token {
                Token::Window(to) => *first.get_or_insert(*to) + index * ENTRY == *to,
                _ => false,
            })?;
        }
        Ok(())
    }

    fn barrier(&mut self, names: &[&str]) -> Judged {
        self.operation(Kind::Dsb, names)
    }

    fn operation(&mut self, kind: Kind, names: &[&str]) -> Judged {
        self.one(&format!("{kind:?} {}", names[0]), |token| match token {
            Token::Operation(operation) => operation.kind == kind && names.contains(&operation.name.as_ref()),
            _ => false,
        })
    }

    /// An ISB, before anything else but a DMB.
    fn isb(&mut self) -> Judged {
        while let Some(told) = self.told.get(self.at) {
            if told.is(Kind::Isb) {
                self.at += 1;
                return Ok(());
            }
            if !told.is(Kind::Dmb) {
                break;
            }
            self.at += 1;
        }
        Err(self.instead("ISB"))
    }

    /// An instruction so many times. More of the same may be somebody else's.
    fn repeated(&mut self, kind: Kind, name: &str, times: u64) -> Judged {
        let used = self.used + times;
        match self.peek() {
            Some(told) if told.is_named(kind, name) && told.times >= used => {
                if told.times == used {
                    self.advance();
                } else {
                    self.used = used;
                }
                Ok(())
            }
            _ => Err(self.instead(&format!("{kind:?} {name}, {times} times"))),
        }
    }

    fn one(&mut self, what: &str, mut is_it: impl FnMut(&Token) -> bool) -> Judged {
        let whole = self.used == 0;
        match self.peek() {
            Some(told) if whole && is_it(&told.token) => {
                self.advance();
                Ok(())
            }
            _ => Err(self.instead(what)),
        }
    }

    fn advance(&mut self) {
        self.at += 1;
        self.used = 0;
    }

    /// The next token that matters.
    fn peek(&mut self) -> Option<&'a Told> {
        while let Some(told) = self.told.get(self.at).filter(|told| told.is_free()) {
            if let Token::Operation(operation) = &told.token
                && operation.kind == Kind::Msr
            {
                self.exchanged.push(&operation.name);
            }
            self.at += 1;
        }
        self.told.get(self.at)
    }

    fn instead(&self, what: &str) -> String {
        let describe = |told: &Told| match told.times {
            1 => format!("{} by {:#x}", told.token, told.pc),
            times => format!("{times} x {} by {:#x}", told.token, told.pc),
        };
        let got = self
            .told
            .get(self.at)
            .map_or_else(|| "nothing".to_owned(), describe);
        let before = self.told[self.at.saturating_sub(8)..self.at].iter().map(describe);
        let before = before.collect::<Vec<_>>().join("; ");
        let used = match self.used {
            0 => String::new(),
            used => format!(" ({used} of them are accounted for)"),
        };
        format!("expected {what}, got {got}{used}\n  after {before}")
    }
}

#[cfg(test)]
mod tests;
