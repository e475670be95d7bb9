//! Which entry of which level an address belongs to.

use crate::addr::{Order, VirtAddr, VirtRange};
use crate::paging::{EntryFormat, Level};
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

/// The shape of a format's tree.
pub(super) struct Tree<F>(PhantomData<F>);

impl<F: EntryFormat> Tree<F> {
    /// The depth of the tables whose entries are leaves of base pages.
    pub(super) const LEAF_DEPTH: usize = {
        assert!(
            F::LEVELS.len() >= 3 && F::LEVELS.len() <= 5,
            "between 3 and 5 levels"
        );
        let mut depth = 0;
        while depth < F::LEVELS.len() {
            let level = F::LEVELS[depth];
            assert!(
                1 << level.index_bits <= F::GRANULE.entries_per_table(),
                "a table fits in a page"
            );
            let below = if depth + 1 < F::LEVELS.len() {
                F::LEVELS[depth + 1].table_shift()
            } else {
                F::GRANULE.shift()
            };
            assert!(
                level.shift == below,
                "an entry translates what the table below it does"
            );
            depth += 1;
        }
        F::LEVELS.len() - 1
    };

    /// How many leaves a leaf table has.
    pub(super) const LEAVES_PER_TABLE: u64 = 1 << F::LEVELS[Self::LEAF_DEPTH].index_bits;

    #[inline]
    fn level(depth: usize) -> Level {
        // Recursion starts at 0 and stops at LEAF_DEPTH, so the depth always exists.
        F::LEVELS
            .get(depth)
            .copied()
            .unwrap_or(F::LEVELS[Self::LEAF_DEPTH])
    }

    /// How many entries a table at `depth` has.
    #[inline]
    pub(super) fn entries(depth: usize) -> usize {
        1 << Self::level(depth).index_bits
    }

    /// The size of a leaf at `depth`.
    #[inline]
    pub(super) fn order(depth: usize) -> Order {
        let pages = Self::level(depth).shift - F::GRANULE.shift();
        u8::try_from(pages)
            .ok()
            .and_then(Order::new)
            .unwrap_or(Order::MAX)
    }

    /// The size of the leaf next above a base page, if the level above the last has leaves.
    pub(super) const HUGE_LEAF: Option<Order> = {
        let level = F::LEVELS[Self::LEAF_DEPTH - 1];
        if level.leaf {
            Order::new((level.shift - F::GRANULE.shift()) as u8)
        } else {
            None
        }
    };

    /// The largest leaf that can be entered at `at` in a range that ends with `last`, where nothing
    /// is below.
    pub(super) fn largest_leaf(at: VirtAddr, last: VirtAddr) -> Order {
        let fits = |order: &Order| {
            order.bytes(F::GRANULE).is_some_and(|bytes| {
                at.is_aligned(bytes) && last.get().wrapping_sub(at.get()) >= bytes - 1
            })
        };
        Self::HUGE_LEAF.filter(fits).unwrap_or(Order::BASE)
    }

    /// Whether an entry at `depth`, not the last, can be a leaf of `order`.
    #[inline]
    pub(super) fn is_huge_leaf(depth: usize, order: Order) -> bool {
        Self::level(depth).leaf && Self::order(depth) == order && order != Order::BASE
    }

    /// Whether the tree translates all of `range`: both ends, and no gap of addresses lies between
    /// them that it does not translate. The root's entries are then those of the range, each
    /// once.
    pub(super) fn translates(range: VirtRange) -> bool {
        let ends = range.start().get() ^ range.last().get();
        F::translates(range.start())
            && F::translates(range.last())
            && ends.checked_shr(F::VIRTUAL_BITS).unwrap_or(0) == 0
    }

    /// The parts of `range` that the tree translates, in the order of addresses.
    pub(super) fn translated(range: VirtRange) -> impl Iterator<Item = VirtRange> {
        let mut rest = Some(range);
        core::iter::from_fn(move || {
            loop {
                let left = rest?;
                let (span, translated) = Self::alike(left.start())?;
                rest = left.after(span.last());
                if translated {
                    return VirtRange::between(left.start(), span.last().min(left.last()));
                }
            }
        })
    }

    /// Addresses around `at` that the tree translates if, as the other answer says, it translates
    /// `at`, and else not.
    pub(super) fn alike(at: VirtAddr) -> Option<(VirtRange, bool)> {
        // What is above the bits for the root says nothing but whether an address is translated:
        // where it is neither all zeros nor all ones, it is not.
        let middle = 1u64.checked_shl(F::VIRTUAL_BITS);
        let middle = middle.and_then(|first| {
            VirtRange::between(
                VirtAddr::new(first),
                VirtAddr::new(first.wrapping_neg().wrapping_sub(1)),
            )
        });
        if let Some(middle) = middle.filter(|middle| middle.contains(at)) {
            return Some((middle, false));
        }
        let half = F::VIRTUAL_BITS.saturating_sub(1);
        let last = VirtAddr::new(at.get() | ((1u64 << half) - 1));
        Some((
            VirtRange::between(at.align_down(half), last)?,
            F::translates(at),
        ))
    }

    /// The entry of `at` in a table at `depth`.
    #[inline]
    pub(super) fn index(depth: usize, at: VirtAddr) -> usize {
        let level = Self::level(depth);
        (at.get() >> level.shift) as usize & ((1 << level.index_bits) - 1)
    }

    /// The first address that the entry of `at` at `depth` translates.
    #[inline]
    pub(super) fn base(depth: usize, at: VirtAddr) -> VirtAddr {
        at.align_down(Self::level(depth).shift)
    }

    /// The address of the entry `entries` after that of `at` at `depth`, within one table.
    #[inline]
    pub(super) fn step(depth: usize, at: VirtAddr, entries: usize) -> VirtAddr {
        let level = Self::level(depth);
        VirtAddr::new(
            at.align_down(level.shift)
                .get()
                .wrapping_add((entries as u64) << level.shift),
        )
    }

    /// The last address that the entry of `at` at `depth` translates.
    pub(super) fn last(depth: usize, at: VirtAddr) -> VirtAddr {
        VirtAddr::new(Self::step(depth, at, 1).get().wrapping_sub(1))
    }

    /// All that the entry of `at` at `depth` translates.
    pub(super) fn span(depth: usize, at: VirtAddr) -> Option<VirtRange> {
        VirtRange::new(Self::base(depth, at), 1 << Self::level(depth).shift).ok()
    }

    /// Whether `range`, which lies within an entry at `depth`, is all that it translates.
    #[inline]
    pub(super) fn covers_entry(depth: usize, range: VirtRange) -> bool {
        let last = range.last().get().wrapping_sub(range.start().get());
        last == (1 << Self::level(depth).shift) - 1
    }

    /// The entries of a table at `depth` that `range`, which lies within the table, touches, each
    /// with its part of the range.
    #[inline]
    fn children(depth: usize, range: VirtRange) -> Children {
        Children {
            level: Self::level(depth),
            rest: Some(range),
        }
    }
}

/// See [`Tree::children`].
struct Children {
    level: Level,
    rest: Option<VirtRange>,
}

impl Iterator for Children {
    type Item = (usize, VirtRange);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let range = self.rest?;
        let bytes = 1u64 << self.level.shift;
        let last = VirtAddr::new(range.start().get() | (bytes - 1)).min(range.last());
        self.rest = range.after(last);
        let child = VirtRange::between(range.start(), last)?;
        let index =
            (range.start().get() >> self.level.shift) as usize & ((1 << self.level.index_bits) - 1);
        Some((index, child))
    }
}

/// The entries of a table at `depth` that `range` touches, with their parts of it.
pub(super) fn entries_of<F: EntryFormat>(
    slots: &[AtomicU64],
    depth: usize,
    range: VirtRange,
) -> impl Iterator<Item = (VirtRange, &AtomicU64)> {
    Tree::<F>::children(depth, range)
        .filter_map(|(index, part)| slots.get(index).map(|slot| (part, slot)))
}
