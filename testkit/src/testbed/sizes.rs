//! Sizes that mean the same on every granule.

use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;

/// The sizes that follow from a model, in orders.
///
/// | size | 4K | 16K | 64K |
/// |---|---|---|---|
/// | a vmemmap page describes | 256K | 4M | 64M |
/// | [`small`](Self::small): the smallest that is whole subsections and shares tails | 2M | 16M | 256M |
/// | [`natural`](Self::natural): what a leaf above a base page maps | 2M | 32M | 512M |
/// | [`table`](Self::table): what a leaf table describes | 128M | 8G | 512G |
/// | [`gigantic`](Self::gigantic): the smallest that shares leaf tables | 256M | 16G | 1T |
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    model: MemoryModel,
}

impl Sizes {
    /// Those of `model`.
    pub const fn of(model: MemoryModel) -> Self {
        Self { model }
    }

    /// What a vmemmap page describes.
    pub fn vmemmap_page(self) -> Order {
        self.model.vmemmap_page_order()
    }

    /// The smallest unit that comes online.
    pub fn subsection(self) -> Order {
        self.model.subsection()
    }

    /// The smallest compound page that is whole subsections and shares tails, whatever the policy:
    /// at least four vmemmap pages.
    pub fn small(self) -> Order {
        larger(self.vmemmap_page(), 2).max(self.subsection())
    }

    /// A table's worth of frames: 2 MiB, 32 MiB, 512 MiB.
    pub fn natural(self) -> Order {
        larger(Order::BASE, self.entries().trailing_zeros())
    }

    /// What a leaf table of the vmemmap describes.
    pub fn table(self) -> Order {
        larger(self.vmemmap_page(), self.entries().trailing_zeros())
    }

    /// The smallest compound page in which a leaf table holds nothing but tails.
    pub fn gigantic(self) -> Order {
        larger(self.table(), 1)
    }

    /// How many entries a table has.
    pub fn entries(self) -> u64 {
        self.model.granule().entries_per_table() as u64
    }

    /// How many vmemmap pages describe a page of `order`.
    pub fn pages(self, order: Order) -> u64 {
        self.model.vmemmap_pages(order)
    }

    /// `count` blocks of `order`, from the block number `first` on.
    pub fn blocks(self, order: Order, first: u64, count: u64) -> PfnRange {
        frames(first * order.frames(), count * order.frames())
    }

    /// The page of `bytes` bytes.
    pub fn order(self, bytes: u64) -> Order {
        Order::from_bytes(bytes, self.model.granule()).unwrap()
    }

    /// The subsections of `range`.
    pub fn subsections(self, range: PfnRange) -> Vec<PfnRange> {
        let unit = self.subsection().frames();
        let start = range.start().get();
        (0..range.frames() / unit)
            .map(|index| frames(start + index * unit, unit))
            .collect()
    }
}

/// 2^`by` pages of `order`.
fn larger(order: Order, by: u32) -> Order {
    Order::new(order.get() + by as u8).unwrap()
}

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

/// `0..count` in an order that has no pattern to speak of; another one for each seed.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed | 1;
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}
