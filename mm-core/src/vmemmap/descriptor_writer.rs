//! Writing descriptors into frames that nobody has mapped yet.

use crate::addr::{NodeId, Order, Pfn};
use crate::descriptor::{Descriptor, Initial, Part, TailEncoding};
use crate::frame::DirectMap;
use crate::model::MemoryModel;

/// Writes the descriptors of memory on one node, used in pages of one order.
#[derive(Clone, Copy)]
pub(super) struct DescriptorWriter<'v, M> {
    pub(super) model: &'v MemoryModel,
    pub(super) direct_map: &'v M,
    pub(super) order: Order,
    pub(super) node: NodeId,
    /// What base pages are.
    pub(super) base: Part,
}

impl<M: DirectMap> DescriptorWriter<'_, M> {
    /// Writes into `frame` the descriptors of the page of memory that starts at `first`: base
    /// pages, or heads and tails.
    ///
    /// # Safety
    ///
    /// 1. `frame` was allocated, is reached by the direct map, and nobody else uses it.
    /// 2. `D` has the size that the model says.
    pub(super) unsafe fn write_page<D: Descriptor>(&self, frame: Pfn, first: Pfn) {
        let in_page = self.model.vmemmap_page_order();
        let is_head = |index: u64| {
            first
                .checked_add(index)
                .is_some_and(|described| described.is_aligned(self.order))
        };
        for index in 0..in_page.frames() {
            let initial = if self.order == Order::BASE {
                self.initial::<D>(self.base, first)
            } else if is_head(index) {
                self.initial::<D>(Part::Head, first)
            } else {
                let described = first.saturating_add(index);
                self.initial::<D>(Part::Tail, described.align_down(self.order))
            };
            // SAFETY: 1 and 2: the caller's.
            unsafe { self.write_descriptor::<D>(frame, index, initial) };
        }
    }

    /// Writes into `frame` nothing but tails of the compound page that starts at `head`.
    ///
    /// # Safety
    ///
    /// As for [`write_page`](Self::write_page).
    pub(super) unsafe fn write_tails<D: Descriptor>(&self, frame: Pfn, head: Pfn) {
        let initial = self.initial::<D>(Part::Tail, head);
        for index in 0..self.model.descriptors_per_page() {
            // SAFETY: 1 and 2: the caller's.
            unsafe { self.write_descriptor::<D>(frame, index, initial) };
        }
    }

    /// The word of every tail of the compound page that starts at `head`.
    pub(super) fn tail_word<D: Descriptor>(&self, head: Pfn) -> u64 {
        let array = self.order.frames() * self.model.descriptor_bytes();
        match self.model.descriptor_address(head) {
            Some(head) => D::Encoding::tail_word(head, array),
            // The head is in the model, as all of the compound page is.
            None => D::Encoding::head_word(),
        }
    }

    /// What a descriptor that is `part` of the page at `head` starts with.
    pub(super) fn initial<D: Descriptor>(&self, part: Part, head: Pfn) -> Initial {
        let word = match part {
            Part::Base | Part::Head | Part::Reserved => D::Encoding::head_word(),
            Part::Tail => self.tail_word::<D>(head),
        };
        Initial {
            part,
            order: self.order,
            word,
            node: self.node,
        }
    }

    /// # Safety
    ///
    /// As for [`write_page`](Self::write_page); `index` is below the number of descriptors in a page.
    unsafe fn write_descriptor<D: Descriptor>(&self, frame: Pfn, index: u64, initial: Initial) {
        let page = self.direct_map.frame_pointer(frame).cast::<D>();
        // SAFETY: by 2 the descriptors fill the page exactly and are aligned in it, by 1 it is
        // writable and nobody else's; duty 1 of `Descriptor` allows writing without dropping.
        unsafe { page.add(index as usize).write(D::initial(initial)) };
    }
}
