//! The size of a base page, and powers of two of it.

use core::fmt;

/// The size of a base page: the unit in which frames are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB pages.
    Size4K,
    /// 16 KiB pages.
    Size16K,
    /// 64 KiB pages.
    Size64K,
}

impl Granule {
    /// The base-2 logarithm of the page size in bytes.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size16K => 14,
            Self::Size64K => 16,
        }
    }

    /// The page size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// How many 8-byte entries a table of one page holds.
    pub const fn entries_per_table(self) -> usize {
        1 << (self.shift() - 3)
    }
}

/// A power of two of frames: order 0 is one frame, order 9 is 512 frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const BASE: Self = Self(0);

    /// The largest order that can be named: every frame number fits in a block of it.
    pub const MAX: Self = Self(48);

    /// The order `order`, if it is at most [`Order::MAX`].
    pub const fn new(order: u8) -> Option<Self> {
        if order <= Self::MAX.0 {
            Some(Self(order))
        } else {
            None
        }
    }

    /// The order of a block of `bytes` bytes in pages of `granule`, if it is a power of two of
    /// them.
    pub const fn from_bytes(bytes: u64, granule: Granule) -> Option<Self> {
        if !bytes.is_power_of_two() || bytes < granule.bytes() {
            return None;
        }
        Self::new((bytes.trailing_zeros() - granule.shift()) as u8)
    }

    /// The exponent.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How many frames a block of this order has.
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// The bytes of a block of this order in pages of `granule`; `None` above 2^63.
    pub const fn bytes(self, granule: Granule) -> Option<u64> {
        let shift = self.0 as u32 + granule.shift();
        if shift < 64 { Some(1 << shift) } else { None }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
