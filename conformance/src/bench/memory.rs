//! Memory for checks: which frames, in pages of which order, and the pagemaps of them.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, skip};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::FrameAllocator;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::{InUse, PageTable, Replacement};

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    /// Aligned blocks of `order` of device memory, one after the other, from the one with the
    /// number `first` on.
    pub(crate) fn blocks(&self, order: Order, first: u64, count: u64) -> Result<PfnRange, Stop> {
        let frames = order.frames();
        let start = self.device.start().get().next_multiple_of(frames);
        let start = Pfn::new(start + first * frames);
        match start.and_then(|start| PfnRange::new(start, count * frames).ok()) {
            Some(range) if self.device.contains_range(range) => Ok(range),
            _ => skip("the device has too little memory"),
        }
    }

    /// The smallest order whose compound pages are whole subsections and share tails.
    pub(crate) fn small(&self) -> Order {
        let mut order = self.model.subsection();
        while self.model.vmemmap_pages(order) <= 2 {
            match Order::new(order.get() + 1) {
                Some(next) => order = next,
                None => break,
            }
        }
        order
    }

    /// The order of eight sections: of compound pages that are populated in pieces.
    pub(crate) fn large(&self) -> Result<Order, Stop> {
        match Order::new(self.model.section().get() + 3) {
            Some(order) if order <= self.model.max_order() => Ok(order),
            _ => skip("the model has no compound pages of eight sections"),
        }
    }

    pub(crate) fn pages(&self, frames: PfnRange) -> u64 {
        frames.frames() / self.model.descriptors_per_page()
    }

    pub(crate) fn pagemap<'r>(
        &self,
        ranges: &'r [PfnRange],
        order: Order,
    ) -> Result<DevPagemap<'r>, Stop> {
        let pagemap = DevPagemap::new(&self.model, ranges, Geometry::compound(order));
        Ok(self
            .expect(pagemap, "the pagemap is accepted")?
            .with_node(self.node))
    }

    /// As [`pagemap`](Self::pagemap), with tails shared as `tails` says.
    pub(crate) fn sharing<'r>(
        &self,
        ranges: &'r [PfnRange],
        order: Order,
        tails: Tails,
    ) -> Result<DevPagemap<'r>, Stop> {
        Ok(self.pagemap(ranges, order)?.with_tails(tails))
    }

    /// A node other than the bench's. It may have no memory, whose frames then come from elsewhere.
    pub(crate) fn other_node(&self) -> NodeId {
        NodeId::new(self.node.number() ^ 1)
    }

    /// The first frame that the vmemmap page number `page` of `frames` describes.
    pub(crate) fn frame_of_page(&self, frames: PfnRange, page: u64) -> Pfn {
        let first = page * self.model.descriptors_per_page();
        frames.start().saturating_add(first)
    }

    /// The order of huge leaves, and of the memory that one describes.
    pub(crate) fn huge_leaf(&self) -> Result<(Order, Order), Stop> {
        let Some(leaf) = self.table.huge_leaf() else {
            return skip("the page table has no huge leaves");
        };
        if self.table.resizes_leaves() && !self.frames.can_split() {
            return skip("the allocator cannot split the block of a huge leaf");
        }
        let describes = leaf.get() + self.model.vmemmap_page_order().get();
        match Order::new(describes) {
            Some(describes) => Ok((leaf, describes)),
            None => skip("a huge leaf describes more memory than there can be"),
        }
    }

    /// Skips a check that needs huge leaves in use to be split and joined.
    pub(crate) fn needs_resizing(&self) -> Verdict {
        self.needs_replacement()?;
        match self.table.resizes_leaves() {
            true => Ok(()),
            false => skip("the page table does not split or join leaves in use"),
        }
    }

    /// Skips a check that needs allocations to fail, before it has done anything.
    pub(crate) fn needs_faults(&self) -> Verdict {
        if self.controls.fail_after(None) {
            Ok(())
        } else {
            skip("the harness cannot make allocations fail")
        }
    }

    /// Skips a check that needs entries in use to be exchanged.
    pub(crate) fn needs_replacement(&self) -> Verdict {
        match self.table.replacement() {
            Replacement::Refused => skip("the page table cannot exchange entries in use"),
            _ => Ok(()),
        }
    }
}

/// `count` frames of `range`, from the one with the number `first` on; all of `range` where it has
/// not so many.
pub(crate) fn part(range: PfnRange, first: u64, count: u64) -> PfnRange {
    let (_, rest) = range.split_at(first);
    rest.unwrap_or(range).take_first(count).0
}
