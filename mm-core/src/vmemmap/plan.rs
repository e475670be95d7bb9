//! Which vmemmap pages of a piece get frames of their own, and which share one.
//!
//! ```text
//!   a compound page of 2 MiB       | head | tail | tail | tail | tail | tail | tail | tail |
//!   frames, per compound           |  H   |  T      T      T      T      T      T      T   |
//!   a later piece of a larger one  |  T      T      T  ...                (T of the earlier piece)
//! ```
//!
//! With an altmap, the reserved part of the device is base pages. So is the gap between it and the
//! first compound page:
//!
//! ```text
//!   the first range                | reserved |   gap    |   compound page    |   compound page    |
//!   frames                         |  own     |   own    |  H   T  T  T  ...  |  H   T  T  T  ...  |
//! ```
//!
//! Where heads are packed, no vmemmap page of a compound page has a frame of its own:
//!
//! ```text
//!   compound pages of 2 MiB        |    stubs of 8 vmemmap pages    |    stubs of 8 vmemmap pages    | ...
//!   frames                         |  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  S  ...
//! ```
//!
//! Everything here is pure: it looks up, allocates and writes nothing.

use super::error::OnlineError;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr};
use crate::frame::Altmap;
use crate::model::MemoryModel;
use crate::pagemap::{DevPagemap, Heads, Tails};

/// What the vmemmap pages of a run are mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedFrames {
    /// A frame of its own for each page.
    Own,
    /// One tail frame for every page of the run. It is the tail frame of the compound page, which
    /// another piece of that page may have already, or the tail frame of all compound pages of the
    /// order.
    Tail {
        /// The first frame of the compound page.
        head: Pfn,
    },
    /// One frame of stubs for every page of the run, whichever compound page it belongs to: the heads of
    /// their order are packed.
    Stubs,
    /// A block for each huge leaf of this order.
    HugeLeaves {
        /// The size of each leaf.
        order: Order,
    },
}

/// Consecutive vmemmap pages that are mapped in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRun {
    /// The address of the first page.
    pub at: VirtAddr,
    /// How many pages; at least 1.
    pub pages: u64,
    /// The frames that the pages describe.
    pub describes: PfnRange,
    /// The order of the pages in which the memory is used.
    pub order: Order,
    /// What they are mapped to.
    pub frames: PlannedFrames,
}

impl PlannedRun {
    /// The first `pages` pages, at least 1, and the rest.
    pub(super) fn split_at(self, pages: u64, model: &MemoryModel) -> (Self, Option<Self>) {
        if pages >= self.pages {
            return (self, None);
        }
        let per_page = model.descriptors_per_page();
        let (first, rest) = self.describes.take_first(pages.saturating_mul(per_page));
        let part = |describes: PfnRange| Self {
            at: model
                .descriptor_address(describes.start())
                .unwrap_or(self.at),
            pages: describes.frames() / per_page,
            describes,
            ..self
        };
        (part(first), rest.map(part))
    }
}

/// The runs of a piece, in the order of addresses.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    model: MemoryModel,
    order: Order,
    /// Where the heads of compound pages are.
    heads: Heads,
    /// Whether tails are shared.
    shares_tails: bool,
    /// The reserved part of the altmap.
    reserved: Option<PfnRange>,
    /// The reserved part, and the gap after it.
    base_pages: Option<PfnRange>,
    huge_leaf: Option<Order>,
    rest: Option<PfnRange>,
}

impl Plan {
    /// The plan for `piece` of `pagemap`, on a page table whose huge leaf, if it has one, is of the
    /// order `huge_leaf`.
    ///
    /// # Errors
    ///
    /// [`OnlineError::PieceMisaligned`] where the piece is not whole subsections, and
    /// [`OnlineError::PieceOutside`] where it does not lie in one range of the pagemap.
    pub fn new(
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
        huge_leaf: Option<Order>,
    ) -> Result<Self, OnlineError> {
        let model = *pagemap.model();
        if !piece.is_aligned(model.subsection()) {
            return Err(OnlineError::PieceMisaligned {
                piece,
                subsection: model.subsection().frames(),
            });
        }
        if pagemap.range_of(piece).is_none() {
            return Err(OnlineError::PieceOutside { piece });
        }
        let shares_tails = match pagemap.tails().0 {
            Tails::PerCompound | Tails::PerOrder => true,
            Tails::None => false,
        };
        Ok(Self {
            model,
            order: pagemap.geometry().order(),
            heads: pagemap.heads().0,
            shares_tails,
            reserved: pagemap.altmap().map(Altmap::reserved),
            base_pages: pagemap.base_pages(),
            huge_leaf: huge_leaf.filter(|_| pagemap.huge_leaves() && !shares_tails),
            rest: Some(piece),
        })
    }

    /// The order of the page that `frame` is part of.
    fn order_of(&self, frame: Pfn) -> Order {
        match self.base_pages {
            Some(base_pages) if base_pages.contains(frame) => Order::BASE,
            _ => self.order,
        }
    }

    /// The page that `frame` is part of.
    pub(super) fn page_of(&self, frame: Pfn) -> PfnRange {
        let order = self.order_of(frame);
        let page = PfnRange::new(frame.align_down(order), order.frames());
        // Pages lie in the pagemap's ranges.
        page.unwrap_or(PfnRange::single(frame))
    }

    /// The compound page that `frame` is part of; `None` for a base page, or where tails are not
    /// shared.
    pub(super) fn compound_page(&self, frame: Pfn) -> Option<PfnRange> {
        let is_shared = self.shares_tails && self.order_of(frame) != Order::BASE;
        is_shared.then(|| self.page_of(frame))
    }

    /// The whole compound pages that come next, if there is one and they share their tails: those whose
    /// vmemmap is at most `pages` pages, and more than one for each of them.
    pub(super) fn whole_compounds(&self, pages: u64) -> Option<PfnRange> {
        let rest = self.rest?;
        self.compounds_from(rest.start(), pages)
    }

    /// The same from `first` on, which is at the start of what comes next, or has been planned last.
    pub(super) fn compounds_from(&self, first: Pfn, pages: u64) -> Option<PfnRange> {
        let last = self.rest?.last();
        let compound = self.compound_page(first)?;
        let vmemmap = self.model.vmemmap_pages(self.order);
        if first != compound.start() || vmemmap < 2 || self.heads == Heads::Packed {
            return None;
        }
        let frames = last.get().checked_sub(first.get())? + 1;
        let rest = PfnRange::new(first, frames).ok()?;
        let alike = self.uniform_prefix(rest).frames() / self.order.frames();
        let compounds = alike.min(pages / vmemmap);
        rest.split_at(compounds * self.order.frames()).0
    }

    /// The first frame that is not planned yet.
    pub(super) fn next_frame(&self) -> Option<Pfn> {
        Some(self.rest?.start())
    }

    /// Leaves out what is planned for the next `frames` frames.
    pub(super) fn skip_frames(&mut self, frames: u64) {
        self.rest = self.rest.and_then(|rest| rest.split_at(frames).1);
    }

    /// The first part of `rest` that has one order, and is reserved as a whole or not at all. (A huge
    /// leaf that mapped both would be split when what is not reserved is folded.)
    fn uniform_prefix(&self, rest: PfnRange) -> PfnRange {
        let mut parts = [self.reserved, self.base_pages].into_iter().flatten();
        parts
            .find_map(|part| {
                part.contains(rest.start())
                    .then(|| part.intersection(rest))?
            })
            .unwrap_or(rest)
    }

    /// The run at the start of `rest`, a [uniform](Self::uniform_prefix) range whose vmemmap is at
    /// `at`: how many frames it describes at most, and what it is mapped to.
    fn first_run(&self, rest: PfnRange, at: VirtAddr) -> (u64, PlannedFrames) {
        let page = self.model.descriptors_per_page();
        if let Some(compound) = self.compound_page(rest.start()) {
            if self.heads == Heads::Packed {
                return (rest.frames(), PlannedFrames::Stubs);
            }
            if rest.start() == compound.start() {
                return (page, PlannedFrames::Own);
            }
            let to_end = compound.last().get() - rest.start().get() + 1;
            let head = compound.start();
            return (to_end, PlannedFrames::Tail { head });
        }
        let Some(order) = self.huge_leaf else {
            return (rest.frames(), PlannedFrames::Own);
        };
        // What one huge leaf of vmemmap describes, in frames.
        let describes = order.frames() * page;
        let bytes = order.frames() * self.model.granule().bytes();
        let past_boundary = (at.get() & (bytes - 1)) / self.model.descriptor_bytes();
        if past_boundary != 0 {
            return (describes - past_boundary, PlannedFrames::Own);
        }
        match rest.frames() / describes {
            0 => (rest.frames(), PlannedFrames::Own),
            leaves => (leaves * describes, PlannedFrames::HugeLeaves { order }),
        }
    }
}

impl Iterator for Plan {
    type Item = PlannedRun;

    fn next(&mut self) -> Option<PlannedRun> {
        let rest = self.rest?;
        let at = self.model.descriptor_address(rest.start())?;
        let alike = self.uniform_prefix(rest);
        let (describes, frames) = self.first_run(alike, at);
        let (describes, rest) = rest.take_first(describes.min(alike.frames()));
        self.rest = rest;
        Some(PlannedRun {
            at,
            pages: describes.frames() / self.model.descriptors_per_page(),
            describes,
            order: self.order_of(describes.start()),
            frames,
        })
    }
}
