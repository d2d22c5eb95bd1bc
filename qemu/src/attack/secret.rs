//! What guests keep from the host, and from each other: each in its own memory and in EL2's, and nowhere else.
//!
//! In the end of an attack some guests stand still with a secret in pages of theirs and in all registers of a vCPU, which
//! are then in EL2's memory. Every word of a secret carries the same 48 bits (see [`Secret`]).

use super::canary::Place;
use crate::machine::frame::{self, FRAME};
use payload_protocol::Secret;
use std::ops::Range;

/// Leaks beyond these are only counted.
const SHOWN: usize = 8;

/// What the payload says of its guests.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests {
    /// What each secret is made from.
    pub(super) seeds: Vec<u64>,
    /// Memory that is a guest's alone, with what that guest's secret is made from.
    pub(super) memory: Vec<(u64, Range<u64>)>,
}

/// Where a guest's secret is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What it is made from.
    pub(super) seed: u64,
    /// Words in the guest's own memory.
    pub(super) in_guest: u64,
    /// Words in EL2's.
    pub(super) in_hyp: u64,
    /// The first words where the host can read them, or another guest.
    pub(super) leaks: Vec<Place>,
    /// How many there are.
    pub(super) leaked: u64,
}

/// Looks for every secret in `memory`, which begins at physical address `base`, and in `registers`, as QEMU prints them.
pub(super) fn search(
    guests: &Guests,
    hyp: &[Range<u64>],
    base: u64,
    memory: &[u8],
    registers: &str,
) -> Vec<Found> {
    let secrets: Vec<Secret> = guests.seeds.iter().map(|seed| Secret::new(*seed)).collect();
    let mut found: Vec<Found> = guests
        .seeds
        .iter()
        .map(|seed| Found {
            seed: *seed,
            ..Found::default()
        })
        .collect();
    let which = |word| secrets.iter().position(|secret| secret.is_in(word));
    for (index, page) in memory.chunks(FRAME as usize).enumerate() {
        if frame::is_empty(page) {
            continue;
        }
        let address = base + index as u64 * FRAME;
        let is_hyp = hyp.iter().any(|range| range.contains(&address));
        let owner = guests
            .memory
            .iter()
            .find(|(_, range)| range.contains(&address))
            .map(|(seed, _)| *seed);
        // Half words, too: a record that is packed otherwise is as good to read.
        for offset in (0..page.len().saturating_sub(7)).step_by(4) {
            let Some(bytes) = page[offset..].first_chunk() else {
                break;
            };
            let Some(number) = which(u64::from_le_bytes(*bytes)) else {
                continue;
            };
            let found = &mut found[number];
            if is_hyp {
                found.in_hyp += 1;
            } else if owner == Some(found.seed) {
                found.in_guest += 1;
            } else {
                found.leak(Place::Memory(address + offset as u64));
            }
        }
    }
    for line in registers.lines() {
        for number in line.split(|c: char| !c.is_ascii_hexdigit()) {
            for part in number.as_bytes().chunks(16) {
                let value = str::from_utf8(part)
                    .ok()
                    .and_then(|part| u64::from_str_radix(part, 16).ok());
                if let Some(number) = value.and_then(which) {
                    found[number].leak(Place::Register(line.trim().to_owned()));
                }
            }
        }
    }
    found
}

impl Found {
    fn leak(&mut self, place: Place) {
        self.leaked += 1;
        if self.leaks.len() < SHOWN {
            self.leaks.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;
    const SEEDS: [u64; 2] = [7, 8];
    const HYP: u64 = BASE + 0x1000;
    const GUEST: u64 = BASE + 0x3000;
    const OTHER_GUEST: u64 = BASE + 0x4000;
    const ELSEWHERE: Range<u64> = BASE + 0x8000..BASE + 0x9000;

    /// The secret number 1 in EL2's page, in the guest's, and at `others`.
    fn search_with(others: &[u64], registers: &str) -> Found {
        let secret = Secret::new(SEEDS[1]);
        let mut memory = vec![0; 0x6000];
        for (number, address) in [HYP, HYP + 0xff8, GUEST].iter().chain(others).enumerate() {
            let offset = usize::try_from(address - BASE).unwrap();
            memory[offset..offset + 8].copy_from_slice(&secret.word(number as u16).to_le_bytes());
        }
        let guests = Guests {
            seeds: SEEDS.to_vec(),
            memory: vec![
                (SEEDS[0], OTHER_GUEST..OTHER_GUEST + FRAME),
                (SEEDS[1], GUEST..GUEST + FRAME),
                (SEEDS[1], ELSEWHERE),
            ],
        };
        let [first, second] = search(&guests, &[HYP..HYP + FRAME, ELSEWHERE], BASE, &memory, registers)
            .try_into()
            .unwrap();
        assert_eq!(
            (first.seed, first.in_hyp, first.in_guest, first.leaked),
            (7, 0, 0, 0)
        );
        assert_eq!((second.seed, second.in_hyp, second.in_guest), (8, 2, 1));
        second
    }

    #[test]
    fn what_guests_keep_is_theirs_and_el2s() {
        assert_eq!(search_with(&[], "X00=0000000000000000").leaked, 0);
    }

    #[test]
    fn a_word_that_the_host_can_read_is_found() {
        for address in [BASE, HYP - 8, HYP + FRAME, GUEST - 8, BASE + 0x5ff8, BASE + 0x44] {
            let found = search_with(&[address], "");
            assert_eq!(found.leaks, [Place::Memory(address)]);
        }
    }

    #[test]
    fn a_word_in_another_guests_memory_is_found() {
        for address in [OTHER_GUEST, OTHER_GUEST + FRAME - 8] {
            let found = search_with(&[address], "");
            assert_eq!((found.leaks, found.leaked), (vec![Place::Memory(address)], 1));
        }
    }

    #[test]
    fn a_register_that_holds_a_word_is_found() {
        let word = Secret::new(SEEDS[1]).word(9);
        for line in [
            format!("X07={word:016x} X08=0000000000000000"),
            format!("Q31=0000000000000000:{word:016x}"),
            format!("Z03=0000000000000000{word:016x}"),
        ] {
            assert_eq!(search_with(&[], &line).leaks, [Place::Register(line.clone())]);
        }
    }

    #[test]
    fn many_leaks_are_counted() {
        let many: Vec<u64> = (0..100).map(|index| BASE + 0x5000 + 8 * index).collect();
        let found = search_with(&many, "");
        assert_eq!((found.leaks.len(), found.leaked), (SHOWN, 100));
    }
}
