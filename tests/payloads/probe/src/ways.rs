//! Touching one page in every way there is.

use crate::deed::{self, Deed, Map, Place, Way};
use crate::device::Device;
use crate::machine::Size;
use crate::outcome::Outcome;
use crate::signals::Fault;
use hyp_abi::FRAME_SIZE;
use std::io::Result;

/// How many ways were granted and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The page was reached.
    pub(crate) granted: u32,
    /// The page was not.
    pub(crate) refused: u32,
}

/// What is left out.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Limits {
    /// No stores, and no jumps where loads were granted (those plant their code first)
    #[arg(long)]
    no_writes: bool,
    /// No ways that end in an oops if they are refused
    #[arg(long)]
    no_oops: bool,
    /// Unaligned accesses across both edges of the page, which touch the neighbors too
    #[arg(long)]
    edges: bool,
}

/// Touches the page at a physical address from EL0 and EL1: loads and stores of every size, a jump, and across the
/// edges if asked. Prints a line for each way. What was stored is what had been read there, so that a page that
/// nobody else writes keeps its contents.
///
/// # Errors
/// If a way could not be tried.
pub(crate) fn touch(device: &Device, page: u64, limits: Limits) -> Result<Tally> {
    let mut tally = Tally::default();
    for way in [Way::El0, Way::El1, Way::El1Bare] {
        if way == Way::El1Bare && limits.no_oops {
            continue;
        }
        let sizes = if way == Way::El1Bare {
            &[Size::Double][..]
        } else {
            &Size::ALL
        };
        for &size in sizes {
            load_and_store(device, way, page, size, limits, &mut tally)?;
        }
        if limits.edges {
            let half = u64::from(Size::Double.bytes() / 2);
            for edge in [page.checked_sub(half), page.checked_add(FRAME_SIZE - half)]
                .into_iter()
                .flatten()
            {
                load_and_store(device, way, edge, Size::Double, limits, &mut tally)?;
            }
        }
        if way != Way::El1 {
            jump(device, way, page, limits, &mut tally)?;
        }
    }
    Ok(tally)
}

fn load_and_store(
    device: &Device,
    way: Way,
    address: u64,
    size: Size,
    limits: Limits,
    tally: &mut Tally,
) -> Result<()> {
    let loaded = one(device, way, address, Deed::Read(size), tally)?;
    if limits.no_writes {
        return Ok(());
    }
    let value = if let Outcome::Value(value) = loaded {
        value
    } else {
        0
    };
    one(device, way, address, Deed::Write(size, value), tally)?;
    Ok(())
}

/// Jumps to what is there only if it cannot be read, so that no unknown code runs: else to code of our own, and puts
/// back what was there.
fn jump(device: &Device, way: Way, page: u64, limits: Limits, tally: &mut Tally) -> Result<()> {
    let read = Deed::Read(Size::Double);
    let before = deed::perform(device, Way::El0, place(page), read)?;
    let Outcome::Value(before) = before else {
        one(device, way, page, Deed::Fetch { plant: false }, tally)?;
        return Ok(());
    };
    if limits.no_writes {
        return Ok(());
    }
    one(device, way, page, Deed::Fetch { plant: true }, tally)?;
    deed::perform(device, Way::El0, place(page), Deed::Write(Size::Double, before))?;
    Ok(())
}

const fn place(address: u64) -> Place {
    Place {
        address,
        map: Map::Auto,
    }
}

fn one(device: &Device, way: Way, address: u64, deed: Deed, tally: &mut Tally) -> Result<Outcome> {
    let outcome = deed::perform(device, way, place(address), deed)?;
    if is_granted(&outcome) {
        tally.granted += 1;
    } else {
        tally.refused += 1;
    }
    println!("{} {outcome}", deed::describe(way, address, deed));
    Ok(outcome)
}

/// Whether the page was reached. A jump that ends in an undefined instruction has reached it.
fn is_granted(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Value(_) | Outcome::Written => true,
        Outcome::Signal(Fault { signal, .. }) => *signal == libc::SIGILL,
        Outcome::Died {
            oops: Some(headline), ..
        } => headline.contains("ndefined instruction"),
        Outcome::Died { oops: None, .. } | Outcome::Refused | Outcome::Returned(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undefined_instruction_was_fetched() {
        let signal = |signal| {
            Outcome::Signal(Fault {
                signal,
                code: 1,
                address: 0,
            })
        };
        let oops = |oops: &str| Outcome::Died {
            signal: libc::SIGSEGV,
            oops: Some(oops.to_owned()),
        };
        assert!(is_granted(&signal(libc::SIGILL)));
        assert!(is_granted(&oops(
            "Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP"
        )));
        assert!(!is_granted(&signal(libc::SIGBUS)));
        assert!(!is_granted(&oops(
            "Internal error: Oops: 0000000096000021 [#1] SMP"
        )));
        assert!(!is_granted(&Outcome::Refused));
    }
}
