//! Writing descriptors into frames that nobody has mapped yet.

use super::batch::{Batch, Described};
use super::image::{Image, Stores};
use super::registry::TailKey;
use crate::addr::{Granule, NodeId, Order, Pfn, PfnRange};
use crate::descriptor::{Descriptor, Initial, Part, TailEncoding};
use crate::frame::DirectMap;
use crate::model::MemoryModel;
use crate::pagemap::{DevPagemap, Heads};

/// Writes the descriptors of memory on one node, used in pages of one order.
#[derive(Clone, Copy)]
pub(super) struct DescriptorWriter<'v, M> {
    pub(super) model: &'v MemoryModel,
    pub(super) direct_map: &'v M,
    pub(super) order: Order,
    pub(super) node: NodeId,
    /// Where heads are: tails are stubs if not in place.
    pub(super) heads: Heads,
    /// What base pages are.
    pub(super) base: Part,
    /// Whether they are streamed.
    pub(super) streams: bool,
}

impl<'v, M> DescriptorWriter<'v, M> {
    /// The writer for descriptors of pages as `pagemap` says.
    pub(super) fn of(pagemap: &DevPagemap<'_>, model: &'v MemoryModel, direct_map: &'v M) -> Self {
        Self {
            model,
            direct_map,
            order: pagemap.geometry().order(),
            node: pagemap.node(),
            heads: pagemap.heads().0,
            base: Part::Base,
            streams: false,
        }
    }

    /// What a frame of tails that all compound pages of the order share is registered for.
    pub(super) const fn tail_key(&self) -> TailKey {
        TailKey {
            order: self.order,
            node: self.node,
            heads: self.heads,
        }
    }
}

/// Copies a page of descriptors from one frame to another.
///
/// # Safety
///
/// 1. The direct map reaches both frames, and they are different ones.
/// 2. Nobody else uses `to`, and nobody stores to `from`.
pub(super) unsafe fn copy_page<M: DirectMap>(direct_map: &M, granule: Granule, from: Pfn, to: Pfn) {
    let [from, to] = [from, to].map(|frame| direct_map.frame_pointer(frame));
    // SAFETY: by 1 both are whole pages of that size, which do not overlap; 2.
    unsafe { to.copy_from_nonoverlapping(from, granule.bytes() as usize) };
}

impl<M: DirectMap> DescriptorWriter<'_, M> {
    /// Writes the descriptors of `batch`.
    ///
    /// # Safety
    ///
    /// 1. Its frames were allocated, are reached by the direct map, and nobody else uses them.
    /// 2. `D` has the size that the model says.
    /// 3. Where first pages are described, a compound page fills more than one vmemmap page.
    pub(super) unsafe fn write<D: Descriptor>(&self, batch: Batch) {
        // SAFETY: 1 to 3: the caller's.
        unsafe {
            match batch.described {
                Described::EachPage if self.order == Order::BASE => {
                    self.write_base_pages::<D>(batch.frames, batch.first)
                }
                Described::EachPage => self.write_pages::<D>(batch.frames, batch.first),
                Described::FirstPages { each } => {
                    self.write_first_pages::<D>(batch.frames, each, batch.first)
                }
            }
        }
    }

    /// Writes into `frames` the descriptors of base pages from `first` on.
    ///
    /// # Safety
    ///
    /// 1 and 2. As for [`write`](Self::write).
    // Not inlined, as the others are not: the stack has room for the descriptors of one of them.
    #[inline(never)]
    unsafe fn write_base_pages<D: Descriptor>(&self, frames: PfnRange, first: Pfn) {
        let in_page = self.model.descriptors_per_page();
        let stores = self.stores();
        let base = Image::<D>::new(self.initial::<D>(self.base, first));
        for frame in frames {
            // SAFETY: 1 and 2: the caller's. 3: so many fill the page.
            unsafe { stores.write(frame, &base, 0, in_page) };
        }
    }

    /// Writes into `frames` the descriptors of so many pages' worth of memory from `first` on: heads and tails.
    ///
    /// # Safety
    ///
    /// 1 and 2. As for [`write`](Self::write).
    #[inline(never)]
    unsafe fn write_pages<D: Descriptor>(&self, frames: PfnRange, first: Pfn) {
        let in_page = self.model.descriptors_per_page();
        let stores = self.stores();
        let mut described = first;
        for frame in frames {
            // SAFETY: 1 and 2: the caller's.
            unsafe { self.write_compound::<D>(&stores, frame, described) };
            described = described.saturating_add(in_page);
        }
    }

    /// Writes into `frame` the descriptors of the page of memory that starts at `first`: heads and tails.
    ///
    /// # Safety
    ///
    /// 1 and 2. As for [`write`](Self::write).
    unsafe fn write_compound<D: Descriptor>(&self, stores: &Stores<'_, M>, frame: Pfn, first: Pfn) {
        let in_page = self.model.descriptors_per_page();
        let mut index = 0;
        while index < in_page {
            let described = first.saturating_add(index);
            let start = described.align_down(self.order);
            let of_head = described.get() - start.get();
            let end = in_page.min(index + self.order.frames() - of_head);
            // SAFETY: 1 and 2: the caller's. 3: no run ends behind the page.
            unsafe {
                // One after the other, so that they have the same place on the stack.
                if of_head == 0 {
                    let head = Image::<D>::new(self.initial::<D>(Part::Head, start));
                    stores.write(frame, &head, index, index + 1);
                    index += 1;
                }
                let tail = Image::<D>::new(self.initial::<D>(Part::Tail, start));
                stores.write(frame, &tail, index, end);
            }
            index = end;
        }
    }

    /// Writes the descriptors of the first vmemmap page of each of the compound pages that follow each other
    /// from the frame `first` on, one into each frame of `frames`. Where there are two frames for each
    /// page, `each` of them, the second gets nothing but tails.
    ///
    /// # Safety
    ///
    /// 1 to 3. As for [`write`](Self::write).
    #[inline(never)]
    unsafe fn write_first_pages<D: Descriptor>(&self, frames: PfnRange, each: u64, first: Pfn) {
        let in_page = self.model.descriptors_per_page();
        let stores = self.stores();
        let head = Image::<D>::new(self.initial::<D>(Part::Head, first));
        let mut tail = Image::<D>::new(self.initial::<D>(Part::Tail, first));
        let mut start = first;
        let mut of_page = 0;
        for frame in frames {
            if of_page == each {
                of_page = 0;
                start = start.saturating_add(self.order.frames());
                if !D::Encoding::SAME_FOR_ALL {
                    tail = Image::new(self.initial::<D>(Part::Tail, start));
                }
            }
            // SAFETY: 1 and 2: the caller's. 3: as many as fill the page.
            unsafe {
                match of_page {
                    0 => stores.write_led(frame, &head, &tail, in_page),
                    _ => stores.write(frame, &tail, 0, in_page),
                }
            }
            of_page += 1;
        }
    }

    /// Writes into `frame` nothing but tails of the compound page that starts at `head`.
    ///
    /// # Safety
    ///
    /// 1 and 2. As for [`write`](Self::write).
    pub(super) unsafe fn write_tails<D: Descriptor>(&self, frame: Pfn, head: Pfn) {
        let tail = Image::<D>::new(self.initial::<D>(Part::Tail, head));
        let in_page = self.model.descriptors_per_page();
        // SAFETY: 1 and 2: the caller's. 3: so many fill the page.
        unsafe { self.stores().write(frame, &tail, 0, in_page) };
    }

    /// For what is written at once. Nobody may see it before it is dropped.
    fn stores(&self) -> Stores<'_, M> {
        Stores::new(self.direct_map, self.streams)
    }

    /// The word of every tail of the compound page that starts at `head`.
    pub(super) fn tail_word<D: Descriptor>(&self, head: Pfn) -> u64 {
        self.tail_word_as::<D>(self.order, self.heads, head)
    }

    /// The same, if it is of `order`, with its head where `heads` says.
    fn tail_word_as<D: Descriptor>(&self, order: Order, heads: Heads, head: Pfn) -> u64 {
        let array = order.frames() * self.model.descriptor_bytes();
        if heads == Heads::Packed {
            return D::Encoding::stub_word(array);
        }
        match self.model.descriptor_address(head) {
            Some(head) => D::Encoding::tail_word(head, array),
            // The head is in the model, as all of the compound page is.
            None => D::Encoding::head_word(),
        }
    }

    /// What a descriptor that is `part` of the page at `head` starts with.
    pub(super) fn initial<D: Descriptor>(&self, part: Part, head: Pfn) -> Initial {
        self.initial_as::<D>(self.order, self.heads, part, head)
    }

    /// The same, for a page of `order`, with its head where `heads` says.
    pub(super) fn initial_as<D: Descriptor>(
        &self,
        order: Order,
        heads: Heads,
        part: Part,
        head: Pfn,
    ) -> Initial {
        let word = match part {
            Part::Base | Part::Head | Part::Reserved => D::Encoding::head_word(),
            Part::Tail => self.tail_word_as::<D>(order, heads, head),
        };
        Initial {
            part,
            order,
            word,
            node: self.node,
        }
    }
}

#[cfg(test)]
mod tests;
