//! Bits of entries that are known at run time only.

use super::{Entry, EntryFormat, Leaf};
use crate::addr::{Pfn, VirtAddr};
use core::marker::PhantomData;

/// How the entries of a tree differ from what their format says: bits that a kernel chooses, or
/// learns from its CPU.
///
/// There are two kinds. Bits that mean something else than an address, which all leaves or all links
/// have the other way round: *global*, for a kernel that hides its half of the address space from user
/// mode. And an address bit that says how memory is accessed, instead of where it is: memory
/// encryption. It is set in all entries, or in none, and frames end below it.
///
/// The architectures' crates make these by name (`Choices`).
///
/// ```text
///   leaf     format's entry  ^ leaf bits          once for each run, not for each entry
///   link     format's entry  ^ table bits
///   decode   format's decode of (entry & !hidden)
/// ```
pub struct Attributes<F> {
    leaf: u64,
    table: u64,
    /// The complement of the address bits that name no frame.
    keep: u64,
    last_frame: Pfn,
    format: PhantomData<fn() -> F>,
}

impl<F: EntryFormat> Attributes<F> {
    /// Entries are as the format says.
    pub const fn new() -> Self {
        Self {
            leaf: 0,
            table: 0,
            keep: u64::MAX,
            last_frame: F::LAST_FRAME,
            format: PhantomData,
        }
    }

    /// All leaves have `bits` the other way round than the format makes them.
    ///
    /// # Safety
    ///
    /// 1. The format gives each of `bits` the same value in all leaves, and reads nothing from it; or
    ///    it is an address bit that [`without_address_bit`](Self::without_address_bit) excludes.
    /// 2. CPUs translate by leaves with these bits to the same frames, with the same rights.
    /// 3. An entry in which they are the other way round is not zero.
    #[must_use]
    pub const unsafe fn with_leaf_bits(self, bits: u64) -> Self {
        Self {
            leaf: self.leaf ^ bits,
            ..self
        }
    }

    /// All links to tables have `bits` the other way round than the format makes them.
    ///
    /// # Safety
    ///
    /// 1. to 3. As for [`with_leaf_bits`](Self::with_leaf_bits), of links. [`EntryFormat::ALIKE`] is not among
    ///    them.
    #[must_use]
    pub const unsafe fn with_table_bits(self, bits: u64) -> Self {
        Self {
            table: self.table ^ bits,
            ..self
        }
    }

    /// `bit` of entries is no part of a frame's number: whether it is set in an entry says nothing
    /// about which frame that holds, and [`last_frame`](Self::last_frame) is below it. `None` where
    /// it is not among the format's address bits, counted from the lowest bit of an entry, or is the
    /// lowest of them, so that no frame would be left.
    #[must_use]
    pub const fn without_address_bit(self, bit: u32) -> Option<Self> {
        let Some(shift) = bit.checked_sub(F::FRAME_STEP.trailing_zeros()) else {
            return None;
        };
        let Some(frames) = 1u64.checked_shl(shift) else {
            return None;
        };
        if shift == 0 || frames > F::LAST_FRAME.get() {
            return None;
        }
        let last = match Pfn::new(frames - 1) {
            Some(last) if last.get() < self.last_frame.get() => last,
            _ => self.last_frame,
        };
        Some(Self {
            keep: self.keep & !(1 << bit),
            last_frame: last,
            ..self
        })
    }

    /// The last frame that an entry can hold.
    pub const fn last_frame(&self) -> Pfn {
        self.last_frame
    }

    /// The entry for a leaf at `depth`.
    #[inline]
    pub fn leaf(&self, leaf: Leaf, depth: usize) -> u64 {
        F::leaf(leaf, depth) ^ self.leaf
    }

    /// The entry that links the table `frame`.
    #[inline]
    pub fn table(&self, frame: Pfn, shared: bool) -> u64 {
        F::table(frame, shared) ^ self.table
    }

    /// See [`EntryFormat::leaf_at`].
    #[inline]
    pub fn leaf_at(&self, entry: u64, at: VirtAddr) -> Option<Leaf> {
        F::leaf_at(entry & self.keep, at)
    }

    /// What `entry` at `depth` says.
    #[inline]
    pub fn decode(&self, entry: u64, depth: usize) -> Entry {
        match F::decode(entry & self.keep, depth) {
            // Somebody's, though nothing but the excluded bit is set.
            Entry::Free if entry != 0 => Entry::Reserved,
            decoded => decoded,
        }
    }
}

impl<F> Clone for Attributes<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Attributes<F> {}

impl<F: EntryFormat> Default for Attributes<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> core::fmt::Debug for Attributes<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Attributes")
            .field("leaf", &format_args!("{:#x}", self.leaf))
            .field("table", &format_args!("{:#x}", self.table))
            .field("hidden", &format_args!("{:#x}", !self.keep))
            .field("last_frame", &self.last_frame)
            .finish()
    }
}
