//! Lengths of time as people type them: `500ms`, `30s`, `10m`, `2h`, `7d`.

use std::str::FromStr;
use std::time::Duration;

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The longest that is taken: ten years.
const MAX_MS: u64 = 10 * 366 * 86_400_000;

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HOW: &str = "write a number and a unit, as in 500ms, 30s, 10m, 2h or 7d (at most ten years)";
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(HOW)?;
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(HOW),
        };
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or(HOW)?;
        if ms > MAX_MS { Err(HOW) } else { Ok(Self(Duration::from_millis(ms))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_a_number_and_a_unit() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("2h", 7_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "5", "s", "1.5h", "-1s", "1w", "99999999999999999999d", "5000d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
