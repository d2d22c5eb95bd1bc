//! What the payload says about its acts, from the console.

use anyhow::{Context as _, Result, bail, ensure};
use hyp_abi::vm_call::VmCallId;
use std::collections::BTreeMap;

/// Registers x0 to x6 of a call.
pub type Arguments = [u64; 7];

/// Registers x0 to x3 of an answer.
pub type Answer = [u64; 4];

/// One thing that the host did between two markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The CPU that did it.
    pub cpu: usize,
    /// The operation that it belongs to; several acts may have the same.
    pub name: String,
    /// What it was.
    pub deed: Deed,
}

impl Act {
    /// Whether it may have ended a VM.
    #[must_use]
    pub fn ends_a_vm(&self) -> bool {
        let destroy = u64::from(VmCallId::Destroy.function_id());
        matches!(self.deed, Deed::Call([function, ..], _) if function == destroy)
    }
}

/// What the host did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A hypercall, and its answer.
    Call(Arguments, Answer),
    /// A run of a vCPU.
    Run(Run),
    /// A read of this physical address, and whether it was let through.
    Load(u64, bool),
}

impl Deed {
    fn read(kind: &str, words: &[&str]) -> Result<Self> {
        match (kind, words) {
            ("call", [arguments @ .., "=", r0, r1, r2, r3]) => {
                Ok(Self::Call(hex(exactly(arguments)?)?, hex([r0, r1, r2, r3])?))
            }
            ("run", [rest @ .., "=", r0, r1, r2, r3]) => {
                Run::read(rest, hex([r0, r1, r2, r3])?).map(Self::Run)
            }
            ("load", [address, outcome @ ("done" | "refused")]) => {
                let [address] = hex([address])?;
                Ok(Self::Load(address, *outcome == "done"))
            }
            _ => bail!("the host does no {kind}"),
        }
    }
}

/// A run of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The handle of its VM.
    pub vm: u64,
    /// Its index.
    pub vcpu: u64,
    /// The physical address of its run page.
    pub page: u64,
    /// The words of the entry record: the flags, the answer and its values.
    pub entry: [u64; 6],
    /// What the guest did that brought it to EL2, in order.
    pub guest: Vec<GuestDeed>,
    /// The answer to the call.
    pub answer: Answer,
}

impl Run {
    fn read(words: &[&str], answer: Answer) -> Result<Self> {
        let (names, rest) = words.split_at_checked(3).context("a run has a vCPU and a page")?;
        let [vm, vcpu, page] = hex(exactly(names)?)?;
        let (entry, guest) = rest.split_at_checked(6).context("a run has an entry record")?;
        let guest = guest.iter().copied().map(GuestDeed::read);
        Ok(Self {
            vm,
            vcpu,
            page,
            entry: hex(exactly(entry)?)?,
            guest: guest.collect::<Result<_>>()?,
            answer,
        })
    }

    /// Whether the guest, before it came to EL2 with its deed number `index` of those that the core hears of, had the
    /// vector registers given.
    #[must_use]
    pub fn gets_vectors(&self, index: usize) -> bool {
        let heard = |deed: &&GuestDeed| **deed != GuestDeed::Vectors;
        self.guest
            .iter()
            .enumerate()
            .filter(|(_, deed)| **deed == GuestDeed::Vectors)
            .any(|(at, _)| self.guest[..at].iter().filter(heard).count() == index)
    }
}

/// What a guest did that brought it to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestDeed {
    /// `HVC #0`.
    Call(Arguments),
    /// It reached for a page that its table does not have.
    Fault {
        /// The guest frame number.
        gfn: u64,
        /// How: [`hyp_abi::run_page::AccessFlags`].
        access: u64,
    },
    /// It reached for a page that its table has, but not for this.
    Denied {
        /// The guest frame number.
        gfn: u64,
        /// How.
        access: u64,
    },
    /// It reached for a page that was not used since the host looked.
    Unused {
        /// The guest frame number.
        gfn: u64,
    },
    /// It was interrupted.
    Interrupt,
    /// It used the vector registers for the first time in the run. The core does not hear of that.
    Vectors,
}

impl GuestDeed {
    fn read(word: &str) -> Result<Self> {
        let (kind, numbers) = word.split_once(':').context("a deed has numbers")?;
        let numbers: Vec<&str> = numbers.split(',').collect();
        match (kind, &numbers[..]) {
            ("call", &[x0, x1, x2, x3, x4, x5, x6]) => Ok(Self::Call(hex([x0, x1, x2, x3, x4, x5, x6])?)),
            ("fault", &[gfn, access]) => {
                let [gfn, access] = hex([gfn, access])?;
                Ok(Self::Fault { gfn, access })
            }
            ("denied", &[gfn, access]) => {
                let [gfn, access] = hex([gfn, access])?;
                Ok(Self::Denied { gfn, access })
            }
            ("unused", &[gfn]) => {
                let [gfn] = hex([gfn])?;
                Ok(Self::Unused { gfn })
            }
            ("interrupt", [""]) => Ok(Self::Interrupt),
            ("vectors", [""]) => Ok(Self::Vectors),
            _ => bail!("a guest does no {word}"),
        }
    }
}

/// What a run of the payload said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// The acts, in the order in which they were played.
    pub acts: Vec<Act>,
    /// Facts about the machine, by name.
    pub facts: BTreeMap<String, u64>,
}

impl Played {
    /// Reads the console.
    ///
    /// # Errors
    /// If the payload says that a scene went wrong, or what it says is not of the form that it has.
    pub fn read(console: &[String]) -> Result<Self> {
        let mut played = Self::default();
        let mut ended = false;
        for line in console {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["D", "fail", ..] => bail!("a scene went wrong: {line}"),
                ["D", cpu, kind, name, ref rest @ ..] => played.acts.push(Act {
                    cpu: cpu.parse()?,
                    name: name.to_owned(),
                    deed: Deed::read(kind, rest).with_context(|| format!("not understood: {line}"))?,
                }),
                ["F", name, value] => _ = played.facts.insert(name.to_owned(), value.parse()?),
                ["T", "end", _] => ended = true,
                _ => {}
            }
        }
        ensure!(ended, "the payload did not come to its end");
        Ok(played)
    }

    /// A fact about the machine.
    ///
    /// # Errors
    /// If the payload did not tell it.
    pub fn fact(&self, name: &str) -> Result<u64> {
        let fact = self.facts.get(name).copied();
        fact.with_context(|| format!("the payload did not tell its {name}"))
    }
}

fn exactly<'a, const N: usize>(words: &[&'a str]) -> Result<[&'a str; N]> {
    let found = words.len();
    <[&str; N]>::try_from(words).map_err(|_| anyhow::anyhow!("{found} numbers, and not {N}"))
}

fn hex<const N: usize>(words: [&str; N]) -> Result<[u64; N]> {
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u64::from_str_radix(word, 16).with_context(|| format!("{word} is no number"))?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Played> {
        Played::read(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn acts_are_read_in_their_order() {
        let played = read(
            "F cache_line 64\nD 0 call a 1 2f 3 0 0 0 4 = 0 5 6 7\nnoise\nD 1 load b 40 refused\nT end 2",
        )
        .unwrap();
        let acts: Vec<_> = played
            .acts
            .iter()
            .map(|act| (act.cpu, act.name.as_str(), act.deed.clone()))
            .collect();
        assert_eq!(
            acts,
            [
                (0, "a", Deed::Call([1, 0x2f, 3, 0, 0, 0, 4], [0, 5, 6, 7])),
                (1, "b", Deed::Load(0x40, false))
            ]
        );
        assert_eq!(played.fact("cache_line").unwrap(), 64);
        assert!(played.fact("zero_block").is_err());
    }

    #[test]
    fn a_run_says_what_the_guest_did() {
        let played = read(
            "D 0 run a 101 0 9000 1 2 3 4 5 6 fault:40600,1 unused:40601 vectors: call:c,1,2,3,4,5,6 = 0 7 c 1\nT end 1",
        )
        .unwrap();
        let run = Run {
            vm: 0x101,
            vcpu: 0,
            page: 0x9000,
            entry: [1, 2, 3, 4, 5, 6],
            guest: vec![
                GuestDeed::Fault {
                    gfn: 0x40600,
                    access: 1,
                },
                GuestDeed::Unused { gfn: 0x40601 },
                GuestDeed::Vectors,
                GuestDeed::Call([0xc, 1, 2, 3, 4, 5, 6]),
            ],
            answer: [0, 7, 0xc, 1],
        };
        let vectors: Vec<bool> = (0..4).map(|index| run.gets_vectors(index)).collect();
        assert_eq!(vectors, [false, false, true, false]);
        assert_eq!(played.acts[0].deed, Deed::Run(run));
    }

    #[test]
    fn a_run_that_went_wrong_is_none() {
        for text in [
            "D 0 call a 1 2 3 0 0 0 0 = 0 5 6 7",
            "D call a 1 2 3 0 0 0 0 = 0 5 6 7\nT end 1",
            "D fail a.rs:3 text\nT end 1",
            "D 0 call a 1 2 3 0 0 0 0 = 0 5 6\nT end 1",
            "D 0 call a 1 2 3 0 0 0 = 0 5 6 7\nT end 1",
            "D 0 call a 1 2 g 0 0 0 0 = 0 5 6 7\nT end 1",
            "D 0 run a 1 2 3 4 5 6 7 8 = 0 5 6 7\nT end 1",
            "D 0 run a 1 2 3 4 5 6 7 8 9 call:1 = 0 5 6 7\nT end 1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
