//! Virtual addresses.

use super::{Granule, RangeError};
use core::fmt;

/// A virtual address, in bytes. Not tied to a number of translated bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address `bytes` further up; `None` beyond the last address.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }

    /// The start of the aligned block of 2^`shift` bytes that this address lies in.
    #[inline]
    pub const fn align_down(self, shift: u32) -> Self {
        match u64::MAX.checked_shl(shift) {
            Some(mask) => Self(self.0 & mask),
            None => Self(0),
        }
    }

    /// Whether this address is a multiple of `align` bytes, a power of two.
    #[inline]
    pub const fn is_aligned(self, align: u64) -> bool {
        self.0 & align.wrapping_sub(1) == 0
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtAddr({self})")
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Virtual addresses that follow each other. Never empty; may end with the last address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtRange {
    start: VirtAddr,
    last: VirtAddr,
}

impl VirtRange {
    /// The `bytes` bytes from `start` on.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] for no bytes, [`RangeError::Overflow`] beyond the last address.
    pub const fn new(start: VirtAddr, bytes: u64) -> Result<Self, RangeError> {
        if bytes == 0 {
            return Err(RangeError::Empty);
        }
        match start.checked_add(bytes - 1) {
            Some(last) => Ok(Self { start, last }),
            None => Err(RangeError::Overflow),
        }
    }

    /// `at` alone.
    pub const fn single(at: VirtAddr) -> Self {
        Self {
            start: at,
            last: at,
        }
    }

    /// From `start` to `last`, both included; `None` where `last` is below `start`.
    #[inline]
    pub const fn between(start: VirtAddr, last: VirtAddr) -> Option<Self> {
        if start.0 <= last.0 {
            Some(Self { start, last })
        } else {
            None
        }
    }

    /// The first address.
    pub const fn start(self) -> VirtAddr {
        self.start
    }

    /// The last address, included.
    pub const fn last(self) -> VirtAddr {
        self.last
    }

    /// How many pages of `granule` the range touches.
    pub const fn pages(self, granule: Granule) -> u64 {
        (self.last.0 >> granule.shift()) - (self.start.0 >> granule.shift()) + 1
    }

    /// Whether `at` is one of these addresses.
    pub const fn contains(self, at: VirtAddr) -> bool {
        self.start.0 <= at.0 && at.0 <= self.last.0
    }

    /// Whether start and end are multiples of `align` bytes, a power of two.
    #[inline]
    pub const fn is_aligned(self, align: u64) -> bool {
        self.start.is_aligned(align) && VirtAddr(self.last.0.wrapping_add(1)).is_aligned(align)
    }

    /// The part below `at`, which is empty where `at` is the start or below.
    pub const fn before(self, at: VirtAddr) -> Option<Self> {
        if at.0 <= self.start.0 {
            return None;
        }
        let last = if at.0 - 1 < self.last.0 {
            VirtAddr(at.0 - 1)
        } else {
            self.last
        };
        Some(Self {
            start: self.start,
            last,
        })
    }

    /// The part above `last`, which is empty where `last` is the last address or above.
    #[inline]
    pub const fn after(self, last: VirtAddr) -> Option<Self> {
        if last.0 >= self.last.0 {
            return None;
        }
        let start = if last.0 + 1 > self.start.0 {
            VirtAddr(last.0 + 1)
        } else {
            self.start
        };
        Some(Self {
            start,
            last: self.last,
        })
    }
}

impl fmt::Debug for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtRange({}..={})", self.start, self.last)
    }
}

impl fmt::Display for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.last)
    }
}
