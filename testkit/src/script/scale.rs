//! How large things are in a script: the sizes of the backend's memory model, and how much of them
//! a script is about.
//!
//! ```text
//!   the window     |         table         |         table         |   ...     two large compound pages
//!   most is done             |<----------->|<----------->|                     around the first border
//!                          origin        border
//! ```

use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::model::MemoryModel;

/// How much a script does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Operations are about thousands of vmemmap pages.
    Wide,
    /// Operations are about tens of vmemmap pages, and take microseconds.
    Narrow,
}

/// The sizes of a model, in frames or in vmemmap pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    model: MemoryModel,
    pub(super) width: Width,
    /// Frames that a vmemmap page describes.
    pub(super) per_page: u64,
    /// Pages that a leaf table maps, as does a huge leaf.
    pub(super) per_table: u64,
    /// Frames of a subsection.
    pub(super) subsection: u64,
    /// Frames of a section.
    pub(super) section: u64,
}

impl Scale {
    pub(super) fn new(model: &MemoryModel, width: Width) -> Self {
        Self {
            model: *model,
            width,
            per_page: model.descriptors_per_page(),
            per_table: model.granule().entries_per_table() as u64,
            subsection: model.subsection().frames(),
            section: model.section().frames(),
        }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.width == Width::Wide
    }

    /// The number behind the model's last frame.
    pub(super) fn end(&self) -> u64 {
        self.model.all_frames().last().get() + 1
    }

    pub(super) fn page_bytes(&self) -> u64 {
        self.model.granule().bytes()
    }

    /// Where the places of packed heads begin, if there are any.
    pub(super) fn heads(&self) -> Option<VirtAddr> {
        self.model.heads().map(|heads| heads.start())
    }

    /// Whether packed heads may be at `at`.
    pub(super) fn is_place(&self, at: VirtAddr) -> bool {
        self.model.heads().is_some_and(|heads| heads.contains(at))
    }

    /// The orders of pages whose heads can be packed.
    pub(super) fn packed_orders(&self) -> std::ops::RangeInclusive<u8> {
        self.page_order().max(1)..=self.max_order()
    }

    pub(super) fn descriptor_bytes(&self) -> u64 {
        self.model.descriptor_bytes()
    }

    /// The order of what a vmemmap page describes.
    fn page_order(&self) -> u8 {
        self.per_page.trailing_zeros() as u8
    }

    /// The compound pages that the granule's users like most: 2, 32 or 512 MiB.
    pub(super) fn small(&self) -> u8 {
        (self.page_order() + 3).max(self.subsection.trailing_zeros() as u8)
    }

    /// What a leaf table describes.
    pub(super) fn table_order(&self) -> u8 {
        self.page_order() + self.per_table.trailing_zeros() as u8
    }

    /// Compound pages that have whole leaf tables of tails: 1 GiB where that has some.
    pub(super) fn large(&self) -> u8 {
        (self.table_order() + 1).max(30 - self.model.granule().shift() as u8)
    }

    /// The largest order that there can be, of which the next one is too large.
    pub(super) fn max_order(&self) -> u8 {
        self.model.max_order().get()
    }

    /// The orders that are asked for, by a byte.
    pub(super) fn order(&self, byte: u8) -> Order {
        let page = self.page_order();
        let order = match self.width {
            Width::Wide => match byte % 16 {
                0..=3 => 0,
                4..=6 => self.small(),
                7 | 8 => self.large(),
                9 => page + 1,
                10 => page + 2,
                11 => self.small() + 1,
                12 => self.table_order(),
                13 => page - 2,
                14 => page + 4,
                _ => self.max_order() + 1,
            },
            // What is large takes time by its pages.
            Width::Narrow => match (byte, byte % 24) {
                (255, _) => self.large(),
                (254, _) => self.table_order(),
                (253, _) => self.max_order() + 1,
                (240.., _) if self.per_table <= 512 => self.large(),
                (_, 0..=6) => 0,
                (_, 7..=12) => self.small(),
                (_, 13..=15) => page + 1,
                (_, 16..=18) => page + 2,
                (_, 19 | 20) => self.small() + 1,
                (_, 21) => page - 2,
                _ => page + 4,
            },
        };
        Order::new(order).unwrap_or(Order::BASE)
    }

    /// How much memory a script is about, in frames.
    pub(super) fn window_frames(&self) -> u64 {
        2 << self.large()
    }

    /// How many vmemmap pages the window has.
    pub(super) fn window_pages(&self) -> u64 {
        self.window_frames() / self.per_page
    }

    /// How many frames of RAM each node has: more than anything online needs.
    pub(super) fn ram_frames(&self) -> u64 {
        (4 * self.window_pages()).max(1 << 15)
    }

    /// The window, at one of four places.
    pub(super) fn window(&self, place: u8) -> PfnRange {
        let start = match place % 4 {
            0 => 0,
            1 => self.end().saturating_sub(self.window_frames()),
            2 => 1 << 24,
            // Starts in the middle of a large compound page.
            _ => (1 << 24) + (1 << (self.large() - 1)),
        };
        let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
        PfnRange::new(start, self.window_frames()).unwrap_or(PfnRange::single(start))
    }

    /// The most pages that get frames of their own at a time, but for huge leaves: by their bytes.
    pub(super) fn most_own(&self) -> u64 {
        let bytes = match self.width {
            Width::Wide => 4 << 20,
            Width::Narrow => 256 << 10,
        };
        (bytes / self.page_bytes()).max(8)
    }

    /// The most bytes of descriptors that an operation may write, huge leaves included.
    pub(super) fn most_bytes(&self) -> u64 {
        match self.width {
            Width::Wide => 64 << 20,
            Width::Narrow => 32 << 20,
        }
    }

    /// The distance between places where ranges start often, in frames.
    pub(super) fn stride(&self) -> u64 {
        self.most_own() / 2 * self.per_page
    }

    /// The first page of where most is done, counted from the window's first: such that a border
    /// between leaf tables is among it.
    pub(super) fn origin(&self) -> u64 {
        match self.width {
            Width::Wide if self.per_table <= self.most_own() => 0,
            Width::Wide => self.per_table - self.most_own(),
            Width::Narrow => self.per_table - 2 * self.most_own(),
        }
    }

    /// How many pages that are.
    pub(super) fn usual_pages(&self) -> u64 {
        match self.width {
            Width::Wide if self.per_table <= self.most_own() => 3 * self.per_table,
            Width::Wide => 2 * self.most_own(),
            Width::Narrow => 4 * self.most_own(),
        }
    }

    /// The pages that describe `frames`, whole pages.
    pub(super) fn pages(&self, frames: PfnRange) -> std::ops::Range<u64> {
        frames.start().get() / self.per_page..(frames.last().get() + 1) / self.per_page
    }

    /// The frames that pages describe.
    pub(super) fn frames(&self, pages: &std::ops::Range<u64>) -> Option<PfnRange> {
        let start = Pfn::new(pages.start * self.per_page)?;
        PfnRange::new(start, (pages.end - pages.start) * self.per_page).ok()
    }

    /// The address of a page.
    pub(super) fn address(&self, page: u64) -> VirtAddr {
        let base = self.model.config().vmemmap_base.get();
        VirtAddr::new(base.wrapping_add(page * self.page_bytes()))
    }

    /// The number of the page at `at`, which is in the vmemmap.
    pub(super) fn page_at(&self, at: VirtAddr) -> u64 {
        let base = self.model.config().vmemmap_base.get();
        at.get().wrapping_sub(base) / self.page_bytes()
    }

    /// How many pages the descriptors of a page of `order` fill, at least 1.
    pub(super) fn unit(&self, order: u8) -> u64 {
        1 << order.saturating_sub(self.page_order())
    }
}
