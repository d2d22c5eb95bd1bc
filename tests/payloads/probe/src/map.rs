//! The ownership map as the host may see it: the state of every 2 MiB region of RAM.

use crate::memory::Piece;
use host_shim::{CallError, Hypercall, Hypervisor};
use hyp_abi::{FRAME_SIZE, REGION_SIZE};
use std::collections::BTreeMap;

/// The state of a region whose frames differ, or may.
const MIXED: &str = "Mixed";

/// Prints the map: a line `map BASE COUNT STATE` for each run of 2 MiB regions of one state, then the totals. With
/// `frames`, each region whose frames differ is told apart by lines `frames BASE COUNT STATE` of 4 KiB frames.
///
/// # Errors
/// If EL2's answers make no sense.
pub(crate) fn print<H: Hypercall>(
    hypervisor: &Hypervisor<H>,
    ram: &[Piece],
    frames: bool,
) -> Result<(), CallError> {
    let mut totals = BTreeMap::<String, u64>::new();
    for piece in ram {
        let mut runs = Runs::new("map", REGION_SIZE);
        let first = piece.start - piece.start % REGION_SIZE;
        for region in (first..piece.end).step_by(REGION_SIZE as usize) {
            let in_ram = region.max(piece.start);
            let (state, extent) = state_at(hypervisor, in_ram)?;
            let state = if extent < REGION_SIZE {
                MIXED.to_owned()
            } else {
                state
            };
            *totals.entry(state.clone()).or_default() += 1;
            runs.add(region, &state);
            if frames && extent < REGION_SIZE {
                runs.end();
                let end = piece.end.min(region.saturating_add(REGION_SIZE));
                print_frames(hypervisor, in_ram, end)?;
            }
        }
        runs.end();
    }
    for (state, regions) in totals {
        println!("total state={state} regions={regions}");
    }
    Ok(())
}

fn print_frames<H: Hypercall>(hypervisor: &Hypervisor<H>, start: u64, end: u64) -> Result<(), CallError> {
    let mut runs = Runs::new("frames", FRAME_SIZE);
    for frame in (start..end).step_by(FRAME_SIZE as usize) {
        runs.add(frame, &state_at(hypervisor, frame)?.0);
    }
    runs.end();
    Ok(())
}

/// The name of a frame's state and how many bytes agree; the name of the refusal where there is no state.
fn state_at<H: Hypercall>(hypervisor: &Hypervisor<H>, frame: u64) -> Result<(String, u64), CallError> {
    match hypervisor.frame_state(frame) {
        Ok(info) => Ok((format!("{:?}", info.state), info.extent)),
        Err(CallError::Refused { status, .. }) => Ok((format!("{status:?}"), REGION_SIZE)),
        Err(error) => Err(error),
    }
}

/// Joins neighbours of the same state to one line.
struct Runs {
    word: &'static str,
    unit: u64,
    run: Option<(u64, u64, String)>,
    sink: fn(String),
}

impl Runs {
    fn new(word: &'static str, unit: u64) -> Self {
        Self {
            word,
            unit,
            run: None,
            sink: |line| println!("{line}"),
        }
    }

    fn add(&mut self, base: u64, state: &str) {
        if let Some((start, count, same)) = &mut self.run
            && same == state
            && base == *start + *count * self.unit
        {
            *count += 1;
            return;
        }
        self.end();
        self.run = Some((base, 1, state.to_owned()));
    }

    fn end(&mut self) {
        if let Some((base, count, state)) = self.run.take() {
            (self.sink)(format!("{} {base:#x} {count} {state}", self.word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn neighbours_of_one_state_are_one_line() {
        let mut runs = Runs::new("map", REGION_SIZE);
        runs.sink = |line| LINES.with_borrow_mut(|lines| lines.push(line));
        runs.add(0x4000_0000, "NotYours");
        runs.add(0x4020_0000, "Host");
        runs.add(0x4040_0000, "Host");
        runs.add(0x8000_0000, "Host");
        runs.end();
        runs.end();
        let lines = LINES.take();
        assert_eq!(
            lines,
            [
                "map 0x40000000 1 NotYours",
                "map 0x40200000 2 Host",
                "map 0x80000000 1 Host"
            ]
        );
    }
}
