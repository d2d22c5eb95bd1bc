//! Numbers and names on the command line.

use std::fmt::Debug;

/// A number of 64 bits: decimal or `0x` hexadecimal, `_` allowed between digits, and sums of these
/// (`0x4000_0000+0xffc`).
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    text.split('+').try_fold(0_u64, |sum, part| {
        sum.checked_add(parse_one(part)?)
            .ok_or_else(|| "the sum does not fit 64 bits".to_owned())
    })
}

fn parse_one(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        // `from_str_radix` takes a sign, which is none of ours.
        Some(hex) if !hex.starts_with(['+', '-']) => u64::from_str_radix(hex, 16),
        Some(_) => return Err(format!("{text:?} is no number")),
        None => digits.parse(),
    };
    parsed.map_err(|error| format!("{text:?} is no number of 64 bits: {error}"))
}

/// A value of a numbered enumeration, given by its name (`PoolFree`) or number.
///
/// # Errors
/// If the text is neither.
pub(crate) fn parse_named<T: Debug + Into<u64>>(
    values: impl Iterator<Item = T>,
    text: &str,
) -> Result<u64, String> {
    for value in values {
        if format!("{value:?}") == text {
            return Ok(value.into());
        }
    }
    parse(text).map_err(|_| format!("{text:?} is neither a name nor a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyp_abi::Counter;

    #[test]
    fn numbers() {
        assert_eq!(parse("42"), Ok(42));
        assert_eq!(parse("0x4000_0000"), Ok(0x4000_0000));
        assert_eq!(parse("0x40000000+0xffc"), Ok(0x4000_0ffc));
        assert_eq!(parse("0xffffffffffffffff"), Ok(u64::MAX));
        for text in [
            "",
            "x",
            "0x",
            "-1",
            "0x-1",
            "0x1_0000_0000_0000_0000",
            "0xffffffffffffffff+1",
            "1+",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(parse_named(Counter::all(), "Smcs"), Ok(Counter::Smcs.into()));
        assert_eq!(parse_named(Counter::all(), "99"), Ok(99));
        assert!(parse_named(Counter::all(), "smc").is_err());
    }
}
