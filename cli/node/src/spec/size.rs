//! Sizes, strictly: a whole number and its unit.

/// Bytes of `512MiB` and its like. No fractions, blanks, signs or leading zeros, and no unit that could mean two things.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("{text:?} is not a size: give a whole number with KiB, MiB or GiB, as in \"512MiB\"")),
    };
    if number.is_empty() || (number.starts_with('0') && number != "0") {
        return Err(format!("{text:?} is not a size: give a whole number with KiB, MiB or GiB, as in \"512MiB\""));
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is more than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_strict() {
        assert_eq!(parse("512MiB"), Ok(512 << 20));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("4KiB"), Ok(4096));
        for bad in [
            "", "512", "512M", "512MB", "512 MiB", " 512MiB", "512MiB ", "0512MiB", "+1MiB", "-1MiB", "1.5GiB", "MiB",
            "512mib",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("99999999999GiB").is_err());
    }
}
