//! What entries look like: the architecture's side of the radix engine.

use super::Leaf;
use crate::addr::{Granule, Pfn, VirtAddr};

/// One level of a table tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The base-2 logarithm of the bytes that one entry of this level translates.
    pub shift: u32,
    /// The base-2 logarithm of the number of entries in a table of this level.
    pub index_bits: u32,
    /// Whether an entry of this level can be a leaf.
    pub leaf: bool,
}

/// Whose the link to a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not this library's: neither the link nor what is linked is ever taken away.
    Foreign,
    /// This library's, and the only one to its table.
    Private,
    /// This library's, to a leaf table whose entries are all the same tail leaf, which may be
    /// linked elsewhere too. Such a table is never written to.
    Shared,
}

impl Link {
    /// What the two bits for software say of a link: the one that says "of this library", and the
    /// one that says "tail" of a leaf.
    #[inline]
    pub const fn of(owned: bool, tail: bool) -> Self {
        match (owned, tail) {
            (false, _) => Self::Foreign,
            (true, false) => Self::Private,
            (true, true) => Self::Shared,
        }
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: all bits are zero.
    Free,
    /// A present link to a table.
    Table {
        /// The table.
        frame: Pfn,
        /// Whose it is.
        link: Link,
    },
    /// A present leaf.
    Leaf(Leaf),
    /// A link of this library's that was invalidated and still remembers its table.
    InvalidTable {
        /// The table.
        frame: Pfn,
    },
    /// A leaf of this library's that was invalidated and still remembers its block.
    InvalidLeaf(Leaf),
    /// Not present, not zero and not this library's: somebody keeps something here.
    Reserved,
}

/// An architecture's entry format and the shape of its tree, as data.
///
/// Depth 0 is the root. Entries are 64 bits wide and little endian in memory, as on every
/// architecture that the engine is for; the engine writes each with one store.
///
/// # Safety
///
/// 1. `LEVELS` has between 3 and 5 levels from the root down, so that the root's entries link tables; each level's shift is the next one's
///    shift plus index bits; the last level's shift is the granule's, and a table of every level
///    fits in one page.
/// 2. `decode` is the inverse of `leaf` and `table`, for every depth that they are valid for,
///    whatever the hardware has set of [`STATUS_BITS`](Self::STATUS_BITS) since; it decodes zero,
///    and nothing else, as [`Entry::Free`].
/// 3. An entry that `leaf` or `table` makes is never zero, translates as described for the MMU, and
///    is told from foreign entries by [`OWNED`](Self::OWNED), a bit that the MMU ignores: set in
///    these, [`invalidated`](Self::invalidated) or not, and clear in all that decode otherwise.
/// 4. `invalidated` gives an entry that the MMU takes for not present, that is not zero, and that
///    decodes as [`Entry::InvalidTable`] or [`Entry::InvalidLeaf`] with all that the entry said.
/// 5. Adding [`FRAME_STEP`](Self::FRAME_STEP) to a base-page leaf gives the leaf of the next frame,
///    alike in all else.
pub unsafe trait EntryFormat {
    /// The size of a base page and of a table.
    const GRANULE: Granule;

    /// The levels, root first.
    const LEVELS: &'static [Level];

    /// What is added to a base-page leaf so that it points at the next frame.
    const FRAME_STEP: u64;

    /// Bits that the hardware writes (accessed, dirty), which say nothing about where an entry
    /// points.
    const STATUS_BITS: u64;

    /// The bit that says of an entry that it is this library's.
    const OWNED: u64;

    /// The bit that says tail.
    const TAIL: u64;

    /// The last frame.
    const LAST_FRAME: Pfn;

    /// Whether the tree translates `at` (on x86-64: whether it is canonical).
    fn translates(at: VirtAddr) -> bool;

    /// The entry for a leaf at `depth`.
    fn leaf(leaf: Leaf, depth: usize) -> u64;

    /// The entry that links the table `frame` for this library: [`Link::Shared`] or
    /// [`Link::Private`].
    fn table(frame: Pfn, shared: bool) -> u64;

    /// What `entry` at `depth` says.
    fn decode(entry: u64, depth: usize) -> Entry;

    /// `entry`, which is this library's, made not present and otherwise unchanged.
    fn invalidated(entry: u64) -> u64;
}
