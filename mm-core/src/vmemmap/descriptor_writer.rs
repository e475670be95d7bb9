//! Writing descriptors into frames that nobody has mapped yet.

use crate::addr::{Granule, NodeId, Order, Pfn};
use crate::descriptor::{Descriptor, Initial, Part, TailEncoding};
use crate::frame::DirectMap;
use crate::model::MemoryModel;
use crate::pagemap::DevPagemap;
use core::mem::{ManuallyDrop, MaybeUninit, transmute_copy};
use core::ptr::NonNull;

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

impl<'v, M> DescriptorWriter<'v, M> {
    /// The writer for descriptors of pages as `pagemap` says.
    pub(super) fn of(pagemap: &DevPagemap<'_>, model: &'v MemoryModel, direct_map: &'v M) -> Self {
        Self {
            model,
            direct_map,
            order: pagemap.geometry().order(),
            node: pagemap.node(),
            base: Part::Base,
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
    /// Writes into `frame` the descriptors of the page of memory that starts at `first`: base
    /// pages, or heads and tails.
    ///
    /// # Safety
    ///
    /// 1. `frame` was allocated, is reached by the direct map, and nobody else uses it.
    /// 2. `D` has the size that the model says.
    pub(super) unsafe fn write_page<D: Descriptor>(&self, frame: Pfn, first: Pfn) {
        let page = self.direct_map.frame_pointer(frame).cast::<D>();
        let in_page = self.model.descriptors_per_page();
        let write = |initial, from, to| {
            // SAFETY: 1 and 2: the caller's. 3: no run ends behind the page.
            unsafe { write_run(page, initial, from, to) };
        };
        if self.order == Order::BASE {
            write(self.initial::<D>(self.base, first), 0, in_page);
            return;
        }
        let mut index = 0;
        while index < in_page {
            let described = first.saturating_add(index);
            let head = described.align_down(self.order);
            let of_head = described.get() - head.get();
            let end = in_page.min(index + self.order.frames() - of_head);
            if of_head == 0 {
                write(self.initial::<D>(Part::Head, head), index, index + 1);
                index += 1;
            }
            write(self.initial::<D>(Part::Tail, head), index, end);
            index = end;
        }
    }

    /// Writes into `frame` nothing but tails of the compound page that starts at `head`.
    ///
    /// # Safety
    ///
    /// As for [`write_page`](Self::write_page).
    pub(super) unsafe fn write_tails<D: Descriptor>(&self, frame: Pfn, head: Pfn) {
        let page = self.direct_map.frame_pointer(frame).cast::<D>();
        let initial = self.initial::<D>(Part::Tail, head);
        // SAFETY: 1 and 2: the caller's. 3: so many fill the page.
        unsafe { write_run(page, initial, 0, self.model.descriptors_per_page()) };
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
}

/// A descriptor of the usual size. What is not initialized in it, as between fields, stays so.
type Words = [MaybeUninit<u64>; 8];

/// Writes the descriptors of `page` from the index `from` to before `to`, all with the same start.
///
/// # Safety
///
/// 1. `page` is a frame's in a direct map, and nobody else uses the frame.
/// 2. `D` has the size that the model says, so that descriptors fill the page and are aligned in it.
/// 3. `to` is at most the number of descriptors in a page.
pub(super) unsafe fn write_run<D: Descriptor>(
    page: NonNull<D>,
    initial: Initial,
    from: u64,
    to: u64,
) {
    if size_of::<D>() != size_of::<Words>() {
        for index in from..to {
            // SAFETY: by 1 to 3 the place is within the page, aligned and nobody else's; duty 1 of
            // `Descriptor` allows writing without dropping.
            unsafe { page.add(index as usize).write(D::initial(initial)) };
        }
        return;
    }
    // Word by word instead of field by field: few stores, of what stays in registers.
    let new = ManuallyDrop::new(D::initial(initial));
    // SAFETY: it has that size, and such words may have any bytes.
    let [a, b, c, d, e, f, g, h] = unsafe { transmute_copy::<_, Words>(&new) };
    let words = [a, b, c, d, e, f, g, h];
    let count = to.saturating_sub(from) as usize;
    // SAFETY: by 1 to 3 the places are within the page, and nobody else's; duty 1 of `Descriptor` allows to
    // write copies, without dropping. A page is aligned to more than words, and so is what is a multiple of
    // their size behind its start.
    let places = unsafe {
        let first = page.add(from as usize).cast::<Words>();
        NonNull::slice_from_raw_parts(first, count).as_mut()
    };
    let (fours, others) = places.as_chunks_mut();
    fours.fill([words; 4]);
    others.fill(words);
}
