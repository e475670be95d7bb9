//! Where everything lies, in vmemmap pages of a window, for the memory model of a backend.
//!
//! ```text
//!   the window, in leaf tables   |  devices with altmaps  |  memory that anything comes online in   |
//!                                |          0             |        1, 2          |   3 (foreign)    |
//! ```

use hosted::BackendFacts;
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr};
use mm_core::model::MemoryModel;

/// How many leaf tables the window has.
const TABLES: u64 = 4;

/// The sizes of a model, and the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) model: MemoryModel,
    /// Leaves of a leaf table.
    pub(super) table: u64,
    /// Vmemmap pages of a subsection.
    pub(super) subsection: u64,
    /// The first frame of the window.
    start: Pfn,
    /// Orders of compound pages, from small to large. The last fills two leaf tables.
    pub(super) orders: [Order; 3],
    /// One of how many chances for a huge leaf is taken, since writing all of its descriptors takes
    /// time.
    pub(super) huge_leaves_of: u64,
    /// One of how many operations is about a leaf table's worth of memory, or several. Checking it
    /// takes time by its pages.
    pub(super) large_of: u64,
    /// Levels of tables between the root and the leaf tables.
    pub(super) upper_levels: u64,
}

impl Layout {
    /// The layout for `B`; `place` decides where the window is.
    pub(super) fn of(facts: &BackendFacts, place: u64) -> Result<Self, String> {
        let model = facts.model;
        let granule = model.granule();
        let table = granule.entries_per_table() as u64;
        let page = model.vmemmap_page_order();
        let order = |pages: u64| Order::new(page.get() + pages.trailing_zeros() as u8);
        let subsection = model.vmemmap_pages(model.subsection());
        let small = order(subsection.max(4));
        let (Some(small), Some(large)) = (small, order(2 * table)) else {
            return Err("the model has no such orders".into());
        };
        let medium = Order::new(small.get() + 3).unwrap_or(small);
        let frames = TABLES * table * model.descriptors_per_page();
        let all = model.all_frames().frames();
        let start = match place % 3 {
            0 => 0,
            1 => all - frames,
            _ => all / 2,
        };
        Ok(Self {
            model,
            table,
            subsection,
            start: Pfn::new(start).ok_or("no such frame")?,
            orders: [small, medium, large],
            huge_leaves_of: match (table * granule.bytes()) >> 20 {
                0..=2 => 3,
                3..=32 => 200,
                _ => u64::MAX,
            },
            large_of: ((table * table) >> 16).max(4),
            upper_levels: facts.table_levels.saturating_sub(2).into(),
        })
    }

    /// How many pages the window has.
    pub(super) fn pages(&self) -> u64 {
        TABLES * self.table
    }

    /// The pages in which devices with altmaps lie.
    pub(super) fn device_pages(&self) -> u64 {
        self.table
    }

    /// The leaf table that somebody else has linked before anything comes online, if there is one.
    pub(super) fn foreign_table(&self) -> u64 {
        TABLES - 1
    }

    /// The frames that `pages` pages from `first` on describe.
    pub(super) fn frames(&self, first: u64, pages: u64) -> Result<PfnRange, String> {
        let per_page = self.model.descriptors_per_page();
        let start = self.start.checked_add(first * per_page);
        start
            .and_then(|start| PfnRange::new(start, pages * per_page).ok())
            .ok_or_else(|| format!("no frames for page {first}"))
    }

    /// The window's frames.
    pub(super) fn window(&self) -> Result<PfnRange, String> {
        self.frames(0, self.pages())
    }

    /// The number of the page that has the descriptor of `frame`, in the window.
    pub(super) fn page_of(&self, frame: Pfn) -> u64 {
        (frame.get() - self.start.get()) / self.model.descriptors_per_page()
    }

    /// The pages that describe `frames`.
    pub(super) fn pages_of(&self, frames: PfnRange) -> std::ops::Range<u64> {
        self.page_of(frames.start())..self.page_of(frames.last()) + 1
    }

    /// The first frame that `page` describes.
    pub(super) fn frame_of(&self, page: u64) -> Pfn {
        let per_page = self.model.descriptors_per_page();
        self.start.saturating_add(page * per_page)
    }

    /// The address of `page`.
    pub(super) fn address(&self, page: u64) -> VirtAddr {
        let at = self.model.descriptor_address(self.frame_of(page));
        at.unwrap_or(self.model.config().vmemmap_base)
    }

    /// The vmemmap pages of a page of `order`, or 1.
    pub(super) fn pages_of_order(&self, order: Order) -> u64 {
        self.model.vmemmap_pages(order).max(1)
    }
}
