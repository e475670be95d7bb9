//! Sizes and ranges as people write them: `512M`, `0x40000000`, `24G+16G`.

use mm_core::addr::{Granule, PfnRange};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

const SIZE_FORM: &str = "a number of bytes, decimal or 0x hex, with an optional suffix K, M, G, T or P (like 512M or 0x40000000)";

/// Suffixes, and the base-2 logarithms of what they stand for.
const SUFFIXES: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Why a text is no size and no range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// It does not look like a size.
    NoSize(String),
    /// It has more than 64 bits.
    TooLarge(String),
    /// A range has no `+`.
    NoPlus(String),
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSize(text) => write!(f, "'{text}' is no size; takes {SIZE_FORM}"),
            Self::TooLarge(text) => {
                write!(f, "'{text}' is too large; takes at most 64 bits of bytes")
            }
            Self::NoPlus(text) => write!(
                f,
                "'{text}' has no '+'; takes START+SIZE, each of them {SIZE_FORM}"
            ),
        }
    }
}

impl std::error::Error for SizeError {}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let no_size = || SizeError::NoSize(text.to_owned());
        let too_large = || SizeError::TooLarge(text.to_owned());
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let (digits, radix) = hex.map_or((text, 10), |digits| (digits, 16));
        let end = digits
            .find(|c: char| !c.is_digit(radix))
            .unwrap_or(digits.len());
        let (digits, suffix) = digits.split_at_checked(end).ok_or_else(no_size)?;
        if digits.is_empty() {
            return Err(no_size());
        }
        let shift = suffix_shift(suffix).ok_or_else(no_size)?;
        let number = u64::from_str_radix(digits, radix).map_err(|_| too_large())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(too_large)?;
        Ok(Self(bytes))
    }
}

/// The power of two that a suffix stands for: nothing, `K`, `KB` or `KiB`, and so on.
fn suffix_shift(suffix: &str) -> Option<u32> {
    let mut letters = suffix.chars().map(|c| c.to_ascii_uppercase());
    let shift = match letters.next() {
        None => return Some(0),
        Some('B') => 0,
        Some(letter) => {
            let named = |(name, _): &&(char, u32)| *name == letter;
            let shift = SUFFIXES.iter().find(named)?.1;
            match (letters.next(), letters.next()) {
                (None, _) | (Some('B'), None) | (Some('I'), Some('B')) => shift,
                _ => return None,
            }
        }
    };
    letters.next().is_none().then_some(shift)
}

impl fmt::Display for ByteSize {
    /// The shortest exact way to write it: `16G`, `1536M`, `4097`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(char, u32)| self.0.trailing_zeros() >= *shift;
        match SUFFIXES.iter().rev().find(whole) {
            Some((letter, shift)) if self.0 != 0 => write!(f, "{}{letter}", self.0 >> shift),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// Bytes of physical memory, `START+SIZE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ByteRange {
    /// The first byte's address.
    pub start: u64,
    /// How many bytes.
    pub size: u64,
}

impl ByteRange {
    /// The bytes of `frames`.
    pub fn of(frames: PfnRange, granule: Granule) -> Self {
        let bytes = granule.bytes();
        Self {
            start: frames.start().get().saturating_mul(bytes),
            size: frames.frames().saturating_mul(bytes),
        }
    }
}

impl FromStr for ByteRange {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (start, size) = text
            .split_once('+')
            .ok_or_else(|| SizeError::NoPlus(text.to_owned()))?;
        let ByteSize(start) = start.parse()?;
        let ByteSize(size) = size.parse()?;
        Ok(Self { start, size })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", ByteSize(self.start), ByteSize(self.size))
    }
}

/// Bytes in the largest binary unit that they fill, rounded: `40.0 KiB`.
pub fn rounded(bytes: f64) -> String {
    rounded_to(1, bytes)
}

/// Two numbers of bytes, rounded to as few digits as tell them apart: `8.03 GiB` and `8.00 GiB`.
pub fn rounded_apart(one: u64, other: u64) -> [String; 2] {
    let texts = |digits| [one, other].map(|bytes| rounded_to(digits, bytes as f64));
    let mut apart = (1..=6).map(texts).filter(|[one, other]| one != other);
    apart
        .next()
        .unwrap_or_else(|| [one, other].map(|bytes| format!("{bytes} B")))
}

fn rounded_to(digits: usize, bytes: f64) -> String {
    let unit = |(_, shift): &&(char, u32)| bytes >= (1_u64 << shift) as f64;
    match SUFFIXES.iter().rev().find(unit) {
        Some((letter, shift)) => format!("{:.digits$} {letter}iB", bytes / (1_u64 << shift) as f64),
        None => format!("{bytes:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form_that_help_names() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("0x40000000", 1 << 30),
            ("0X1B", 0x1b),
            ("512M", 512 << 20),
            ("16g", 16 << 30),
            ("3KiB", 3 << 10),
            ("3kb", 3 << 10),
            ("7B", 7),
            ("0x10K", 16 << 10),
            ("2T", 2 << 40),
            ("16383P", 16383 << 50),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "G", "-1", "1.5G", "1 G", "0x", "1KK", "1iB", "1KiBB", "1Ki", "1BB", "１G", "1é",
            "+1", "é",
        ] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(SizeError::NoSize(text.to_owned())),
                "{text}"
            );
        }
        for text in ["18446744073709551616", "16384P", "0x10000000000000000"] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(SizeError::TooLarge(text.to_owned())),
                "{text}"
            );
        }
        assert!(matches!(
            "24G".parse::<ByteRange>(),
            Err(SizeError::NoPlus(_))
        ));
        assert!("1G+1G+1G".parse::<ByteRange>().is_err());
    }

    #[test]
    fn as_many_digits_are_written_as_tell_sizes_apart() {
        let gib = 1 << 30;
        let cases = [
            (9 * gib, "9.0 GiB", "8.0 GiB"),
            (8 * gib + gib / 32, "8.03 GiB", "8.00 GiB"),
            (8 * gib + 1, "8589934593 B", "8589934592 B"),
        ];
        for (bytes, one, other) in cases {
            assert_eq!(rounded_apart(bytes, 8 * gib), [one, other]);
        }
    }

    #[test]
    fn a_range_is_written_as_it_is_read() {
        for text in ["24G+16G", "0+1536M", "4097+1T"] {
            assert_eq!(text.parse::<ByteRange>().unwrap().to_string(), text);
        }
    }
}
