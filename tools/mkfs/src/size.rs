// SPDX-License-Identifier: GPL-2.0

//! Sizes on the command line.

/// Reads a number of bytes: digits, then nothing or one of K, M, G, T, P for powers of 1024, as
/// "64M", "64MiB".
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        _ => return Err("a size is a number with K, M, G, T, P or nothing after it".into()),
    };
    let number: u64 = number.parse().map_err(|_| "no number".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "larger than any device".to_string())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        assert_eq!(parse("8388608"), Ok(8 << 20));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("64M"), Ok(64 << 20));
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("2g"), Ok(2 << 30));
        assert_eq!(parse("4P"), Ok(4 << 50));
        for wrong in [
            "",
            "M",
            "-1",
            "1.5G",
            "64MB",
            "64 M",
            "iB",
            "5iB",
            "99999999P",
            "1Q",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
