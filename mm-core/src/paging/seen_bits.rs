//! What many entries have in common.

use core::sync::atomic::{AtomicU64, Ordering};

/// The bits of some entries, seen together. Where all of them have what any of them has, the entries are
/// equal.
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use mm_core::paging::SeenBits;
///
/// let entries = [0b1101, 0b0101, 0b0111].map(AtomicU64::new);
/// assert_eq!(SeenBits::of(&entries), SeenBits { all: 0b0101, any: 0b1111 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenBits {
    /// Those that all entries have.
    pub all: u64,
    /// Those that an entry has, one or more.
    pub any: u64,
}

impl SeenBits {
    /// Of no entry.
    pub const NONE: Self = Self {
        all: u64::MAX,
        any: 0,
    };

    /// Of `entries`, which are loaded one after the other.
    #[inline]
    pub fn of(entries: &[AtomicU64]) -> Self {
        let seen = entries.iter().map(|entry| entry.load(Ordering::Relaxed));
        seen.fold(Self::NONE, |seen, entry| seen.and(Self::of_entry(entry)))
    }

    /// Of one entry.
    #[inline]
    pub const fn of_entry(entry: u64) -> Self {
        Self {
            all: entry,
            any: entry,
        }
    }

    /// Of these entries and `others`.
    #[inline]
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self {
            all: self.all & others.all,
            any: self.any | others.any,
        }
    }
}
