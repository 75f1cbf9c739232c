// SPDX-License-Identifier: GPL-2.0

//! What the command-line tools of rdax share.

#![forbid(unsafe_code)]

pub mod device;
pub mod progress;
pub mod signature;

/// Prints a line. That nobody reads it any more (`| head`) is no reason to stop, least of all in
/// the middle of a repair; the exit status says what it came to.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

/// Prints a line on standard error, as [`say!`] does on standard output.
#[macro_export]
macro_rules! complain {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

/// Bytes as people write them: "2 GiB", "1.5 MiB", "513 bytes".
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let unit = 1u64 << (10 * power);
    let tenths = (u128::from(bytes) * 10 / u128::from(unit)) as u64;
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[power - 1]),
        tenth => format!("{}.{} {}", tenths / 10, tenth, UNITS[power - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(1024), "1 KiB");
        assert_eq!(human(8 << 20), "8 MiB");
        assert_eq!(human((3 << 30) / 2), "1.5 GiB");
        assert_eq!(human(1 << 52), "4 PiB");
        assert_eq!(human(u64::MAX), "15.9 EiB");
    }
}
