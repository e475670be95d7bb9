//! The bits of an entry that have names.

/// Bits of an entry: any of those that have names here, or others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PteFlags(u64);

impl PteFlags {
    /// V: the entry is valid.
    pub const VALID: Self = Self(1);

    /// R.
    pub const READ: Self = Self(1 << 1);

    /// W.
    pub const WRITE: Self = Self(1 << 2);

    /// X.
    pub const EXECUTE: Self = Self(1 << 3);

    /// U: for user mode.
    pub const USER: Self = Self(1 << 4);

    /// G: in every address space.
    pub const GLOBAL: Self = Self(1 << 5);

    /// A.
    pub const ACCESSED: Self = Self(1 << 6);

    /// D.
    pub const DIRTY: Self = Self(1 << 7);

    /// The lower bit of RSW.
    pub const SOFTWARE_1: Self = Self(1 << 8);

    /// The upper bit of RSW.
    pub const SOFTWARE_2: Self = Self(1 << 9);

    /// PBMT, both bits: another memory type than the address has (chapter 6, "Svpbmt").
    pub const MEMORY_TYPE: Self = Self(0b11 << 61);

    /// N: part of a larger range that is translated as one (chapter 5, "Svnapot").
    pub const NAPOT: Self = Self(1 << 63);

    /// The bits of `entry`, those without a name too.
    pub const fn of(entry: u64) -> Self {
        Self(entry)
    }

    /// As in an entry.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// These and `others`.
    #[must_use]
    pub const fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without `others`.
    #[must_use]
    pub const fn difference(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of `others` are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether any of `others` is among these.
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// These with `others`, or without them.
    #[must_use]
    pub const fn with(self, others: Self, are_set: bool) -> Self {
        if are_set {
            self.union(others)
        } else {
            self.difference(others)
        }
    }
}
