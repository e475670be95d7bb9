//! What entries look like: the architecture's side of the radix engine.

use super::{EntryLines, Leaf, SeenBits};
use crate::addr::{Granule, Pfn, VirtAddr};
use core::sync::atomic::AtomicU64;

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

impl Level {
    /// The base-2 logarithm of the bytes that a whole table of this level translates.
    #[inline]
    pub const fn table_shift(self) -> u32 {
        self.shift.saturating_add(self.index_bits)
    }
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
    /// What the two bits for software say of a link: [`EntryFormat::OWNED`] and
    /// [`EntryFormat::TAIL`].
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
/// 1. `LEVELS` has between 3 and 5 levels from the root down, so that the root's entries link
///    tables; each level's shift is the next one's shift plus index bits; the last level's shift is
///    the granule's and its entries can be leaves, and a table of every level fits in one page.
///    [`VIRTUAL_BITS`](Self::VIRTUAL_BITS) is what follows from that.
/// 2. `decode` is the inverse of `leaf` and `table`, for every depth that they are valid for and
///    all frames up to [`LAST_FRAME`](Self::LAST_FRAME), whatever the hardware has set of
///    [`STATUS_BITS`](Self::STATUS_BITS) since; it decodes zero, and nothing else, as
///    [`Entry::Free`].
/// 3. An entry that `leaf` or `table` makes is never zero, translates as described for the MMU, and
///    is told from foreign entries by [`OWNED`](Self::OWNED), a bit that the MMU ignores: set in
///    these, [`invalidated`](Self::invalidated) or not, but for leaves of
///    [`Role::Foreign`](super::Role::Foreign), and clear in all that decode as foreign.
/// 4. `invalidated` gives an entry that the MMU takes for not present, that is not zero, and that
///    decodes as [`Entry::InvalidTable`] or [`Entry::InvalidLeaf`] with all that the entry said.
/// 5. Adding [`FRAME_STEP`](Self::FRAME_STEP) to a base-page leaf, [`invalidated`](Self::invalidated)
///    or not, gives the leaf of the next frame, alike in all else. Behind `LAST_FRAME` it leaves
///    `OWNED` and `TAIL` as they are and gives nothing that `leaf` or `invalidated` would make.
/// 6. [`TAIL`](Self::TAIL) is a bit that the MMU ignores, another one than `OWNED`. Of what `leaf`
///    and `table` make it is set in leaves of [`Role::Tail`](super::Role::Tail) and in links to
///    shared tables, [`invalidated`](Self::invalidated) or not, and clear in all else.
/// 7. No entry holds a frame behind `LAST_FRAME`.
/// 8. `translates` holds for the addresses that the MMU translates by the tree. For each value of
///    the lower `VIRTUAL_BITS` bits that is one address, whose bits above those are all the same.
/// 9. `leaf_at` answers with a base page of [`Role::Foreign`](super::Role::Foreign), and only of an entry that decodes as a
///    leaf of that role.
/// 10. An invalidated link says the same with [`ALIKE`](Self::ALIKE) set. No link has it before that.
/// 11. `seen_bits` answers as [`SeenBits::of`] does, and `are_lines` as [`EntryLines::are_in`], for the bits that
///     nobody changes meanwhile.
pub unsafe trait EntryFormat {
    /// The size of a base page and of a table.
    const GRANULE: Granule;

    /// The levels, root first.
    const LEVELS: &'static [Level];

    /// How many bits of an address the tree translates. Follows from [`LEVELS`](Self::LEVELS);
    /// formats leave it as it is.
    const VIRTUAL_BITS: u32 = match Self::LEVELS {
        [root, ..] => root.table_shift(),
        [] => 0,
    };

    /// The last frame that an entry can hold. The engine refuses frames behind it
    /// ([`FrameOutOfReach`](super::FrameOutOfReach)), so that `leaf` and `table` are not asked for
    /// one.
    const LAST_FRAME: Pfn;

    /// What is added to a base-page leaf so that it points at the next frame.
    const FRAME_STEP: u64;

    /// Bits that the hardware writes (accessed, dirty), which say nothing about where an entry
    /// points.
    const STATUS_BITS: u64;

    /// The bit that says of an entry that it is this library's.
    const OWNED: u64;

    /// The bit that says "tail" of a leaf of this library's, and "shared" of a link.
    const TAIL: u64;

    /// A bit that the engine sets in an invalidated link, as a note for itself: the first entries of that leaf table
    /// tell of all others. 0 where there is no such bit; the engine compares them once more then.
    const ALIKE: u64 = 0;

    /// Whether the tree translates `at` (on x86-64: whether it is canonical).
    fn translates(at: VirtAddr) -> bool;

    /// The entry for a leaf at `depth`.
    fn leaf(leaf: Leaf, depth: usize) -> u64;

    /// The entry that links the table `frame` for this library: [`Link::Shared`] or
    /// [`Link::Private`].
    fn table(frame: Pfn, shared: bool) -> u64;

    /// What `entry` at `depth` says.
    fn decode(entry: u64, depth: usize) -> Entry;

    /// The leaf that `entry`, of a base page, is at `at`, where that is not in the entry alone: of several
    /// entries which say the same, each translates to a frame of its own (RISC-V's Svnapot). Such an entry is foreign,
    /// and `decode` says so, with whatever frame. By default there is none: `decode` says it all.
    fn leaf_at(entry: u64, at: VirtAddr) -> Option<Leaf> {
        let _ = (entry, at);
        None
    }

    /// `entry`, which is this library's, made not present and otherwise unchanged.
    fn invalidated(entry: u64) -> u64;

    /// The bits of `entries`, which are of a table that CPUs may be walking. A compiler loads atomics one by
    /// one; worth overriding where several entries can be loaded at a time.
    #[inline]
    fn seen_bits(entries: &[AtomicU64]) -> SeenBits {
        SeenBits::of(entries)
    }

    /// Whether `entries`, which are of a table that CPUs may be walking, are `lines`. Worth overriding as
    /// [`seen_bits`](Self::seen_bits) is.
    #[inline]
    fn are_lines(entries: &[[AtomicU64; EntryLines::LENGTH]], lines: &EntryLines) -> bool {
        lines.are_in(entries)
    }
}
