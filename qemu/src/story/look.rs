//! A look into the stopped machine from outside: the ownership map as EL2 has it, not as anybody is told, and the
//! guest's secret wherever it is.

use super::teller::Teller;
use crate::{
    machine::{
        frame::{self, FRAME},
        layout, qmp,
    },
    workspace::Scratch,
};
use anyhow::{Context as _, Result, ensure};
use hyp_core::map::{Entry, RegionWord};
use hyp_core::state::State;
use serde_json::json;
use std::{
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

const REGION_FRAMES: u64 = hyp_abi::REGION_SIZE / FRAME;

/// How many words of a frame are of the guest's secret. The frame is not empty.
pub(super) type WordsOf<'a> = &'a dyn Fn(&[u8]) -> u64;

/// Whoever looks into a machine.
#[derive(Debug)]
pub(super) struct Eye {
    socket: PathBuf,
    monitor: Option<qmp::Monitor>,
    dump: PathBuf,
    bytes: u64,
}

impl Eye {
    /// Looks into a machine with `bytes` of RAM, which has a monitor at [`Eye::socket`].
    pub(super) fn new(scratch: &Scratch, bytes: u64) -> Self {
        Self {
            socket: qmp::socket_path(scratch),
            monitor: None,
            dump: scratch.path().join("memory"),
            bytes,
        }
    }

    /// The monitor's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops the machine, looks, and presses its power button so that it goes on. `map` is the ownership map's array.
    /// Returns what was seen, a line each: see [`Memory::tell`].
    ///
    /// # Errors
    /// If the machine cannot be looked into, or what is there is no map.
    pub(super) fn look(&mut self, map: &Range<u64>, secret: WordsOf<'_>) -> Result<Vec<String>> {
        let monitor = match &mut self.monitor {
            Some(monitor) => monitor,
            none => none.insert(qmp::Monitor::connect(&self.socket)?),
        };
        monitor.execute("stop", &json!({}))?;
        let contents = monitor.memory(layout::RAM, self.bytes, &self.dump)?;
        monitor.execute("cont", &json!({}))?;
        let lines = Memory {
            base: layout::RAM,
            contents,
        }
        .tell(map, secret)?;
        monitor.execute("system_powerdown", &json!({}))?;
        Ok(lines)
    }

    /// Ends the machine, if it can be told to.
    pub(super) fn end_machine(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            // Whoever waits for the machine has a time limit.
            let _ = monitor.quit();
        }
    }
}

/// Looks into the machine for the deed that is going on and asks for it.
pub(super) fn show<W: Write>(teller: &mut Teller<'_, W>, eye: &mut Eye, secret: WordsOf<'_>) {
    let seen = teller
        .map()
        .context("Freehold has not said where its map is")
        .and_then(|map| eye.look(&map, secret));
    match seen {
        Ok(lines) => lines.iter().for_each(|line| teller.note(line)),
        // The machine would wait in vain.
        Err(error) => {
            teller.note(&format!("{error:#}"));
            eye.end_machine();
        }
    }
}

/// All of a machine's RAM.
struct Memory {
    base: u64,
    contents: Vec<u8>,
}

impl Memory {
    /// Tells the ownership map, `map <base> <regions> <state>` and `frames <base> <frames> <state>` as the probe does,
    /// where a state of a guest's frame ends with `/` and the VM's slot; and in how many words the secret was seen,
    /// `secret guests <words> host <words>`: in frames that are private to a guest, and in frames that the host can read.
    fn tell(&self, map: &Range<u64>, secret: WordsOf<'_>) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut runs: Vec<(u64, u64, String)> = Vec::new();
        let (mut at_home, mut at_hosts) = (0, 0);
        let regions = self.contents.len() as u64 / (FRAME * REGION_FRAMES);
        ensure!(regions * 8 <= map.end - map.start, "the map is too small");
        for region in 0..regions {
            let base = self.base + region * REGION_FRAMES * FRAME;
            let entries = self.entries(self.word(map.start + 8 * region)?)?;
            for (index, entry) in (0..).zip(&entries) {
                let contents = self.frame(base + index * FRAME)?;
                match entry.state() {
                    _ if frame::is_empty(contents) => {}
                    State::Guest => at_home += secret(contents),
                    state if is_the_hosts(state) => at_hosts += secret(contents),
                    _ => {}
                }
            }
            let states: Vec<_> = entries.iter().map(|entry| name(*entry)).collect();
            match states.iter().all(|state| *state == states[0]) {
                true => match runs.last_mut() {
                    Some((_, count, state)) if *state == states[0] => *count += 1,
                    _ => runs.push((base, 1, states[0].clone())),
                },
                false => {
                    flush(&mut runs, &mut lines);
                    lines.push(format!("map {base:#x} 1 Mixed"));
                    let mut at = base;
                    for same in states.chunk_by(|state, next| state == next) {
                        lines.push(format!("frames {at:#x} {} {}", same.len(), same[0]));
                        at += same.len() as u64 * FRAME;
                    }
                }
            }
        }
        flush(&mut runs, &mut lines);
        lines.push(format!("secret guests {at_home} host {at_hosts}"));
        Ok(lines)
    }

    /// The entries of a region's frames.
    fn entries(&self, word: u64) -> Result<Vec<Entry>> {
        match RegionWord::decode(word) {
            RegionWord::Uniform(entry) => {
                Ok((0..REGION_FRAMES as usize).map(|index| entry.at(index)).collect())
            }
            RegionWord::Node { page, .. } => {
                let node = page.frame().address().value();
                (0..REGION_FRAMES)
                    .map(|index| Ok(Entry::from_word(self.word(node + 8 * index)?)))
                    .collect()
            }
        }
    }

    fn bytes(&self, address: u64, length: u64) -> Result<&[u8]> {
        let start = address
            .checked_sub(self.base)
            .and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| self.contents.get(start..start.checked_add(length as usize)?))
            .with_context(|| format!("there is no RAM at {address:#x}"))
    }

    fn word(&self, address: u64) -> Result<u64> {
        let bytes = self.bytes(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    fn frame(&self, address: u64) -> Result<&[u8]> {
        self.bytes(address, FRAME)
    }
}

fn flush(runs: &mut Vec<(u64, u64, String)>, lines: &mut Vec<String>) {
    for (base, regions, state) in runs.drain(..) {
        lines.push(format!("map {base:#x} {regions} {state}"));
    }
}

/// The state, with the slot of the VM whose frame it is.
fn name(entry: Entry) -> String {
    let state = entry.state();
    match state {
        State::Guest | State::GuestSharedHost => format!("{state:?}/{}", entry.slot()),
        _ => format!("{state:?}"),
    }
}

/// Whether the host can read a frame in this state.
const fn is_the_hosts(state: State) -> bool {
    matches!(
        state,
        State::Host | State::HostSharedHyp | State::HostSharedGuest | State::GuestSharedHost
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use payload_protocol::Secret;

    const BASE: u64 = 0x4000_0000;
    const SECRET: Secret = Secret::new(1);

    fn words_of(frame: &[u8]) -> u64 {
        let (words, _) = frame.as_chunks::<8>();
        words
            .iter()
            .filter(|word| SECRET.is_in(u64::from_le_bytes(**word)))
            .count() as u64
    }

    /// Three regions: the map and a node in the first, whose frames differ; a uniform one of a guest; the host's.
    fn memory() -> Memory {
        let mut memory = Memory {
            base: BASE,
            contents: vec![0; 3 << 21],
        };
        let mut put = |address: u64, word: u64| {
            let at = (address - BASE) as usize;
            memory.contents[at..at + 8].copy_from_slice(&word.to_le_bytes());
        };
        let word = |state: State, slot: u64, gfn: u64| (state as u64) << 2 | slot << 8 | gfn << 28;
        put(BASE, (BASE + FRAME) | 2 << 2 | 1 << 1);
        put(BASE + 8, word(State::Guest, 3, 100) | 1);
        for frame in 0..2 {
            put(BASE + FRAME + 8 * frame, word(State::Hyp, 0, 1));
        }
        put(BASE + FRAME + 8 * 2, word(State::GuestSharedHost, 3, 7));
        put(BASE + (2 << 20) + 0x5008, SECRET.word(1));
        put(BASE + (2 << 20) + 0x5010, SECRET.word(2));
        memory
    }

    #[test]
    fn the_map_is_told_as_it_is_in_memory() {
        let lines = memory().tell(&(BASE..BASE + 24), &words_of).unwrap();
        assert_eq!(
            lines,
            [
                "map 0x40000000 1 Mixed",
                "frames 0x40000000 2 Hyp",
                "frames 0x40002000 1 GuestSharedHost/3",
                "frames 0x40003000 509 Host",
                "map 0x40200000 1 Guest/3",
                "map 0x40400000 1 Host",
                "secret guests 2 host 0",
            ]
        );
    }

    #[test]
    fn a_secret_that_the_host_can_read_is_seen() {
        for address in [BASE + 0x2000, BASE + (4 << 20) + 8] {
            let mut memory = memory();
            let at = (address - BASE) as usize;
            memory.contents[at..at + 8].copy_from_slice(&SECRET.word(9).to_le_bytes());
            let lines = memory.tell(&(BASE..BASE + 24), &words_of).unwrap();
            assert_eq!(lines.last().unwrap(), "secret guests 2 host 1");
        }
    }

    #[test]
    fn what_is_no_map_is_an_error() {
        let mut memory = memory();
        assert!(memory.tell(&(BASE..BASE + 16), &words_of).is_err());
        memory.contents[..8].copy_from_slice(&(0x1000_0000_u64 | 1 << 1).to_le_bytes());
        assert!(memory.tell(&(BASE..BASE + 24), &words_of).is_err());
    }
}
