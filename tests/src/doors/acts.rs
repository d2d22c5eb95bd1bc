//! What the payload says about its acts, from the console.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;

/// One thing that the host did between two markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The operation that it belongs to; several acts may have the same.
    pub name: String,
    /// What it was.
    pub deed: Deed,
}

/// What the host did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A hypercall: x0 to x2 before, the others being 0, and x0 to x2 after it.
    Call([u64; 3], [u64; 3]),
    /// A read of this physical address, and whether it was let through.
    Load(u64, bool),
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
                ["D", "call", name, x0, x1, x2, "=", r0, r1, r2] => {
                    let deed = Deed::Call(hex([x0, x1, x2])?, hex([r0, r1, r2])?);
                    played.act(name, deed);
                }
                ["D", "load", name, address, outcome @ ("done" | "refused")] => {
                    let [address] = hex([address])?;
                    played.act(name, Deed::Load(address, outcome == "done"));
                }
                ["D", "fail", ..] => bail!("a scene went wrong: {line}"),
                ["D", ..] => bail!("not understood: {line}"),
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

    fn act(&mut self, name: &str, deed: Deed) {
        let name = name.to_owned();
        self.acts.push(Act { name, deed });
    }
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
        let played =
            read("F cache_line 64\nD call a 1 2f 3 = 0 5 6\nnoise\nD load b 40 refused\nT end 2").unwrap();
        let acts: Vec<_> = played
            .acts
            .iter()
            .map(|act| (act.name.as_str(), act.deed))
            .collect();
        assert_eq!(
            acts,
            [
                ("a", Deed::Call([1, 0x2f, 3], [0, 5, 6])),
                ("b", Deed::Load(0x40, false))
            ]
        );
        assert_eq!(played.fact("cache_line").unwrap(), 64);
        assert!(played.fact("zero_block").is_err());
    }

    #[test]
    fn a_run_that_went_wrong_is_none() {
        for text in [
            "D call a 1 2 3 = 0 5 6",
            "D fail a.rs:3 text\nT end 1",
            "D call a 1 2 3 = 0 5\nT end 1",
            "D call a 1 2 g = 0 5 6\nT end 1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
