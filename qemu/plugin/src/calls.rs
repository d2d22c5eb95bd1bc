//! `mode=calls`: what each visit of the EL2 image costs.
//!
//! A visit begins with the first instruction of a vector slot (or, at boot and after a CPU_ON, with the first of the
//! image) and ends with the ERET that leaves it. An exception from EL2 to EL2, through a slot below 0x400, is part of
//! the visit that it interrupts. The numbers of a visit are those of [`Census`]; those of all visits with the same
//! entry and marker come out as smallest, median and largest; so do the instructions in each named part of the image.

use crate::decode::{Kind, Operation, marker};
use crate::plugin;
use crate::report::{Census, Entry, Line, Spread, Visit, Visits};
use crate::sys::{self, Block, Token};
use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The first slot for exceptions from a lower level (Arm ARM DDI 0487, D1.3).
const FROM_LOWER: u16 = 0x400;

/// A visit under way.
#[derive(Debug)]
struct Open {
    entry: Entry,
    census: Census,
    /// Instructions in each part of the image, in the order of the options.
    parts: Vec<u64>,
    /// Exceptions from EL2 to EL2 that have not returned.
    depth: u64,
    /// If the last instruction was an SMC: where it comes back to. A CPU_OFF does not, the CPU's next instruction is
    /// that of a CPU_ON.
    smc_returns_to: Option<u64>,
}

/// What one CPU has done.
#[derive(Debug, Default)]
struct Cpu {
    open: Option<Open>,
    marker: u16,
    /// For each entry and marker, and each number of the census: how often it had which value.
    seen: BTreeMap<(Entry, u16), Values>,
}

type Values = BTreeMap<&'static str, BTreeMap<u64, u64>>;

static CPUS: LazyLock<Vec<Mutex<Cpu>>> =
    LazyLock::new(|| (0..plugin().cpus).map(|_| Mutex::default()).collect());

fn cpu_state(cpu: c_uint) -> Option<(usize, MutexGuard<'static, Cpu>)> {
    let number = usize::try_from(cpu).ok()?;
    let state = CPUS.get(number)?;
    Some((number, state.lock().unwrap_or_else(PoisonError::into_inner)))
}

impl Cpu {
    /// An instruction of the image is about to execute.
    fn step(&mut self, cpu: usize, pc: u64, word: u32) {
        let vector = plugin().options.vector(pc);
        match (&mut self.open, vector) {
            (Some(open), Some(offset)) if offset < FROM_LOWER => {
                open.census.nested += 1;
                open.depth += 1;
            }
            (_, Some(offset)) => self.enter(cpu, Entry::Vector(offset)),
            (Some(open), None) if open.smc_returns_to.is_some_and(|back| back != pc) => {
                self.enter(cpu, Entry::Boot);
            }
            (None, None) => self.enter(cpu, Entry::Boot),
            (Some(_), None) => {}
        }
        let Some(open) = &mut self.open else { return };
        open.smc_returns_to = None;
        open.census.instructions += 1;
        for (part, count) in plugin().options.parts().iter().zip(&mut open.parts) {
            *count += u64::from(part.at.contains(pc));
        }
        match Operation::decode(word).map(|operation| operation.kind) {
            Some(Kind::Tlbi) => open.census.tlbi += 1,
            Some(Kind::Dsb) => open.census.dsb += 1,
            Some(Kind::Isb) => open.census.isb += 1,
            Some(Kind::Dc) => open.census.dc += 1,
            Some(Kind::Ic) => open.census.ic += 1,
            Some(Kind::Hvc) => open.census.calls += 1,
            Some(Kind::Smc) => {
                open.census.calls += 1;
                open.smc_returns_to = Some(pc.wrapping_add(4));
            }
            Some(Kind::Eret) if open.depth > 0 => open.depth -= 1,
            Some(Kind::Eret) => self.leave(cpu, true),
            _ => {}
        }
    }

    fn enter(&mut self, cpu: usize, entry: Entry) {
        self.leave(cpu, false);
        self.open = Some(Open {
            entry,
            census: Census::default(),
            parts: vec![0; plugin().options.parts().len()],
            depth: 0,
            smc_returns_to: None,
        });
    }

    fn leave(&mut self, cpu: usize, returned: bool) {
        let Some(Open {
            entry, census, parts, ..
        }) = self.open.take()
        else {
            return;
        };
        let marker = self.marker;
        let names = plugin().options.parts().iter().map(|part| part.name.as_str());
        let parts = names.zip(parts);
        if returned {
            let values = self.seen.entry((entry, marker)).or_default();
            for (name, value) in numbers(&census).into_iter().chain(parts.clone()) {
                *values.entry(name).or_default().entry(value).or_default() += 1;
            }
        }
        if plugin().options.visits || !returned {
            plugin().output.line(&Line::Visit(Visit {
                cpu,
                entry,
                marker,
                returned,
                census,
                parts: parts.map(|(name, count)| (name.to_owned(), count)).collect(),
            }));
        }
    }
}

/// The numbers of a census by their names.
fn numbers(census: &Census) -> [(&'static str, u64); 8] {
    let &Census {
        instructions,
        tlbi,
        dsb,
        isb,
        dc,
        ic,
        calls,
        nested,
    } = census;
    [
        ("instructions", instructions),
        ("tlbi", tlbi),
        ("dsb", dsb),
        ("isb", isb),
        ("dc", dc),
        ("ic", ic),
        ("calls", calls),
        ("nested", nested),
    ]
}

extern "C" fn in_image(cpu: c_uint, token: Token) {
    let (Some(image), Some((number, mut state))) = (plugin().options.image(), cpu_state(cpu)) else {
        return;
    };
    let (offset, word) = unpack(token);
    state.step(number, image.start + offset, word);
}

extern "C" fn at_marker(cpu: c_uint, token: Token) {
    if let Some((_, mut state)) = cpu_state(cpu) {
        let (_, word) = unpack(token);
        state.marker = marker(word).unwrap_or_default();
    }
}

/// A token of an instruction's offset in the image and its word. The image has at most 4 GiB.
pub(crate) fn pack(offset: u64, word: u32) -> Token {
    sys::token(offset << 32 | u64::from(word))
}

/// The offset and the word.
pub(crate) fn unpack(token: Token) -> (u64, u32) {
    let number = sys::number(token);
    (number >> 32, number as u32)
}

pub(crate) fn translate(block: &Block<'_>) {
    let Some(image) = plugin().options.image() else {
        return;
    };
    for instruction in block.instructions() {
        let (address, word) = (instruction.address(), instruction.word());
        if image.contains(address) {
            instruction.on_execute(in_image, pack(address - image.start, word));
        } else if marker(word).is_some() {
            instruction.on_execute(at_marker, pack(0, word));
        }
    }
}

pub(crate) fn end() {
    let mut all: BTreeMap<(Entry, u16), Values> = BTreeMap::new();
    for number in 0..CPUS.len() {
        let Some((number, mut state)) = c_uint::try_from(number).ok().and_then(cpu_state) else {
            continue;
        };
        state.leave(number, false);
        for (key, values) in std::mem::take(&mut state.seen) {
            let merged = all.entry(key).or_default();
            for (name, histogram) in values {
                let merged = merged.entry(name).or_default();
                for (value, times) in histogram {
                    *merged.entry(value).or_default() += times;
                }
            }
        }
    }
    for ((entry, marker), values) in all {
        let visits = values
            .get("instructions")
            .map_or(0, |histogram| histogram.values().sum());
        let spread = values
            .iter()
            .filter_map(|(name, histogram)| Some(((*name).to_owned(), spread(histogram)?)))
            .collect();
        plugin().output.always(&Line::Visits(Visits {
            entry,
            marker,
            visits,
            spread,
        }));
    }
    plugin().output.end();
}

/// Smallest, lower median and largest of values that are given with how often each was seen.
fn spread(histogram: &BTreeMap<u64, u64>) -> Option<Spread> {
    let total: u64 = histogram.values().sum();
    let mut below = 0;
    let median = histogram.iter().find_map(|(&value, &times)| {
        below += times;
        (2 * below >= total).then_some(value)
    });
    Some(Spread {
        min: *histogram.first_key_value()?.0,
        median: median?,
        max: *histogram.last_key_value()?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::spread;
    use crate::report::Spread;
    use std::collections::BTreeMap;

    #[test]
    fn spread_of_values() {
        assert_eq!(spread(&BTreeMap::new()), None);
        assert_eq!(
            spread(&BTreeMap::from([(7, 1)])),
            Some(Spread {
                min: 7,
                median: 7,
                max: 7
            })
        );
        // 1 1 2 9: the lower median is 1; 1 2 2 9: it is 2.
        assert_eq!(
            spread(&BTreeMap::from([(1, 2), (2, 1), (9, 1)])),
            Some(Spread {
                min: 1,
                median: 1,
                max: 9
            })
        );
        assert_eq!(
            spread(&BTreeMap::from([(1, 1), (2, 2), (9, 1)])),
            Some(Spread {
                min: 1,
                median: 2,
                max: 9
            })
        );
    }
}
