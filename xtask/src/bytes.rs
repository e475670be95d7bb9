//! Sizes as they are written on a command line.

use std::fmt;
use std::str::FromStr;

/// A whole number of mebibytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    mebibytes: u64,
}

impl Bytes {
    pub(crate) const fn from_mebibytes(mebibytes: u64) -> Self {
        Self { mebibytes }
    }

    pub(crate) const fn mebibytes(self) -> u64 {
        self.mebibytes
    }

    pub(crate) const fn get(self) -> u64 {
        self.mebibytes << 20
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is not a size; write for example 512M or 4G");
        let unit = text.char_indices().next_back().ok_or_else(malformed)?;
        let mebibytes = match unit.1 {
            'M' | 'm' => 1,
            'G' | 'g' => 1 << 10,
            'T' | 't' => 1 << 20,
            _ => return Err(malformed()),
        };
        let number = text.get(..unit.0).unwrap_or_default();
        let number: u64 = number.parse().map_err(|_| malformed())?;
        number
            .checked_mul(mebibytes)
            .filter(|mebibytes| (1..=1 << 30).contains(mebibytes))
            .map(Self::from_mebibytes)
            .ok_or_else(|| format!("{text} is out of range: from 1M to 1024T"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mebibytes.is_multiple_of(1 << 10) {
            write!(f, "{}G", self.mebibytes >> 10)
        } else {
            write!(f, "{}M", self.mebibytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_a_range() {
        let parse = |text: &str| text.parse::<Bytes>();
        assert_eq!(parse("4G"), Ok(Bytes::from_mebibytes(4096)));
        assert_eq!(parse("1024m").unwrap().to_string(), "1G");
        assert_eq!(parse("130M").unwrap().to_string(), "130M");
        for wrong in ["", "G", "4", "-1G", "0M", "2000000T", "4€"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
