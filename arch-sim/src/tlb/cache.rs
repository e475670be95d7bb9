//! What a CPU has cached, by address and by frame.

use super::places::Places;
use crate::walker::{Hole, Table, Translation};
use mm_core::addr::{Block, Granule, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use std::collections::BTreeMap;

/// Something that a CPU caches: an entry of a table.
pub(super) trait Cached: Copy {
    /// The addresses that it is cached for.
    fn span(&self) -> VirtRange;

    /// The frames that it points at, if it does.
    fn block(&self, granule: Granule) -> Option<Block>;
}

impl Cached for Translation {
    fn span(&self) -> VirtRange {
        self.span
    }

    fn block(&self, granule: Granule) -> Option<Block> {
        let whole = Block::new(self.frame, self.order(granule));
        Some(whole.unwrap_or(Block::single(self.frame)))
    }
}

impl Cached for Table {
    fn span(&self) -> VirtRange {
        self.span
    }

    fn block(&self, _granule: Granule) -> Option<Block> {
        Some(Block::single(self.frame))
    }
}

impl Cached for Hole {
    fn span(&self) -> VirtRange {
        self.span
    }

    fn block(&self, _granule: Granule) -> Option<Block> {
        None
    }
}

/// How many cached things point at each frame.
#[derive(Debug, Default)]
struct FrameIndex {
    /// By order, then by first frame.
    blocks: BTreeMap<Order, BTreeMap<u64, u64>>,
}

impl FrameIndex {
    fn add(&mut self, block: Option<Block>) {
        let Some(block) = block else { return };
        let same_size = self.blocks.entry(block.order()).or_default();
        *same_size.entry(block.first().get()).or_default() += 1;
    }

    fn remove(&mut self, block: Option<Block>) {
        if let Some(block) = block
            && let Some(same_size) = self.blocks.get_mut(&block.order())
            && let Some(count) = same_size.get_mut(&block.first().get())
        {
            *count -= 1;
            if *count == 0 {
                same_size.remove(&block.first().get());
            }
        }
    }

    /// The first of `frames` that something points at.
    fn first_of(&self, frames: PfnRange) -> Option<Pfn> {
        let in_size = |(order, firsts): (&Order, &BTreeMap<u64, u64>)| {
            let lowest = frames.start().align_down(*order).get();
            let mut hits = firsts.range(lowest..=frames.last().get());
            hits.next().map(|(first, _)| *first)
        };
        let first = self.blocks.iter().filter_map(in_size).min()?;
        Pfn::new(first.max(frames.start().get()))
    }
}

/// Cached entries of one kind. Entries of different sizes may overlap; of one size there is one at
/// each place.
#[derive(Debug)]
pub(super) struct Cache<T> {
    granule: Granule,
    /// By the base-2 logarithm of the span.
    by_size: BTreeMap<u32, Places<T>>,
    frames: FrameIndex,
}

impl<T: Cached> Cache<T> {
    pub(super) fn new(granule: Granule) -> Self {
        Self {
            granule,
            by_size: BTreeMap::new(),
            frames: FrameIndex::default(),
        }
    }

    /// Caches `entry`, unless one of this size is cached at the place: that one stays.
    pub(super) fn add(&mut self, entry: T) {
        let span = entry.span();
        let size = (span.last().get() - span.start().get()).trailing_ones();
        let same_size = self.by_size.entry(size);
        let same_size = same_size.or_insert_with(|| Places::new(size));
        if same_size.add(span.start(), entry) {
            self.frames.add(entry.block(self.granule));
        }
    }

    /// What is cached for `at`, the smallest span first.
    pub(super) fn at(&self, at: VirtAddr) -> impl Iterator<Item = &T> {
        let same_place = self.by_size.values().filter_map(move |same| same.at(at));
        same_place.filter(move |entry| entry.span().contains(at))
    }

    /// What is cached for any address of `range`.
    pub(super) fn overlapping(&self, range: VirtRange) -> impl Iterator<Item = &T> {
        let sizes = self.by_size.values();
        sizes.flat_map(move |same_size| same_size.overlapping(range))
    }

    /// Drops what overlaps `range`.
    pub(super) fn drop_range(&mut self, range: VirtRange) {
        for same_size in self.by_size.values_mut() {
            same_size.drop_range(range, |entry| {
                self.frames.remove(entry.block(self.granule));
            });
        }
    }

    /// Drops what overlaps `range` of entries that span `bytes` bytes each.
    pub(super) fn drop_of_size(&mut self, bytes: u64, range: VirtRange) {
        if let Some(same_size) = self.by_size.get_mut(&bytes.trailing_zeros()) {
            same_size.drop_range(range, |entry| {
                self.frames.remove(entry.block(self.granule));
            });
        }
    }

    /// Keeps what `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for same_size in self.by_size.values_mut() {
            same_size.retain(|entry| {
                let keeps = keep(entry);
                if !keeps {
                    self.frames.remove(entry.block(self.granule));
                }
                keeps
            });
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.granule);
    }

    /// How many entries are cached.
    pub(super) fn len(&self) -> usize {
        self.by_size.values().map(Places::len).sum()
    }

    /// The first of `frames` that something cached points at.
    pub(super) fn first_of(&self, frames: PfnRange) -> Option<Pfn> {
        self.frames.first_of(frames)
    }
}
