//! Where heads lie that are not in the vmemmap.
//!
//! Where heads are [packed](crate::pagemap::Heads::Packed), the vmemmap of a compound page has only stubs,
//! and its head has a place in an array of its own. Pages of all orders have one there, numbered as the
//! nodes of a binary heap are:
//!
//! ```text
//!   order   pages                                 indices          index(pfn, order) = (room + pfn) >> order
//!   max     |               0               |     1                room: the frames of the model, rounded
//!   max-1   |       0       |       1       |     2 3                    up to a power of two
//!   max-2   |   0   |   1   |   2   |   3   |     4 5 6 7
//! ```
//!
//! An add and a shift lead there. Back, the highest bit of an index tells the order.

use super::{MemoryModel, ModelError};
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};

impl MemoryModel {
    /// The same model with an array for packed heads at `base`: places for the heads of all compound pages
    /// that fill at least one vmemmap page. With 4 KiB pages and descriptors of 64 bytes that takes a 32nd of
    /// the addresses of the vmemmap.
    ///
    /// ```
    /// # use mm_core::addr::{Granule, Order, Pfn, VirtAddr};
    /// # use mm_core::model::{MemoryModel, ModelConfig, ModelError};
    /// # fn main() -> Result<(), ModelError> {
    /// # let model = MemoryModel::new(ModelConfig {
    /// #     granule: Granule::Size4K,
    /// #     descriptor_bytes: 64,
    /// #     vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
    /// #     frames: 1 << 34,
    /// #     section: Order::new(15).unwrap(),
    /// #     subsection: Order::new(9).unwrap(),
    /// #     max_order: Order::new(18).unwrap(),
    /// # })?;
    /// let model = model.with_heads(VirtAddr::new(0xffff_eb00_0000_0000))?;
    /// // The second page of 2 MiB. Before it come all larger ones, and the first of its size.
    /// let head = model.packed_head(Pfn::new(512).unwrap(), Order::new(9).unwrap());
    /// assert_eq!(head, Some(VirtAddr::new(0xffff_eb00_0000_0000 + 64 * ((1 << 25) + 1))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ModelError::HeadsBase`] where `base` is not the start of a page, [`ModelError::HeadsPlace`] where the
    /// array would run beyond the address space or into the vmemmap.
    pub const fn with_heads(self, base: VirtAddr) -> Result<Self, ModelError> {
        let page = self.config.granule.bytes();
        if !base.is_aligned(page) {
            return Err(ModelError::HeadsBase { align: page });
        }
        let places = self.room().saturating_mul(2) >> self.vmemmap_page_order().get();
        let array = places.saturating_mul(self.descriptor_bytes());
        let bytes = match array.checked_next_multiple_of(page) {
            Some(bytes) if bytes > 0 => bytes,
            Some(_) => page,
            None => return Err(ModelError::HeadsPlace { bytes: array }),
        };
        let misplaced = Err(ModelError::HeadsPlace { bytes });
        let Ok(heads) = VirtRange::new(base, bytes) else {
            return misplaced;
        };
        match self.descriptors(self.all_frames()) {
            Some(vmemmap)
                if heads.last().get() < vmemmap.start().get()
                    || vmemmap.last().get() < heads.start().get() =>
            {
                Ok(Self {
                    heads: Some(heads),
                    ..self
                })
            }
            _ => misplaced,
        }
    }

    /// The frames, rounded up to a power of two.
    const fn room(&self) -> u64 {
        self.config.frames.next_power_of_two()
    }

    /// The addresses of packed heads, whole pages; `None` where the model has none.
    pub const fn heads(&self) -> Option<VirtRange> {
        self.heads
    }

    /// Whether compound pages of `order` can have packed heads: they fill at least one vmemmap page, and the
    /// model has [places](Self::with_heads) for their heads.
    pub const fn can_pack_heads(&self, order: Order) -> bool {
        self.heads.is_some()
            && order.get() >= self.smallest_packed_order().get()
            && order.get() <= self.config.max_order.get()
            && order.frames() <= self.room()
    }

    /// The orders of compound pages that can have packed heads.
    pub(crate) fn packed_orders(&self) -> impl Iterator<Item = Order> + use<> {
        let model = *self;
        let first = model.smallest_packed_order().get();
        let orders = (first..=model.max_order().get()).filter_map(Order::new);
        orders.filter(move |order| model.can_pack_heads(*order))
    }

    /// The order of a compound page whose descriptors fill `array_bytes` bytes, as a stub says; `None` where there is
    /// no such order.
    #[inline]
    pub(crate) const fn order_of_array(&self, array_bytes: u64) -> Option<Order> {
        let order = array_bytes
            .trailing_zeros()
            .wrapping_sub(self.descriptor_shift);
        Order::new(order as u8)
    }

    /// Where the head is of the page of `order` of which a stub says that its head is packed: `first` is the
    /// address of the first descriptor of the page, in the vmemmap. No argument does harm, but others lead anywhere.
    // What the page's index is, in bytes of descriptors. The descriptors of a page are aligned to their size, so one
    // shift does for the two of an index that becomes an address. Models with places for heads have room for the sum.
    #[inline]
    pub(crate) const fn place_of_head(&self, first: VirtAddr, order: Order) -> VirtAddr {
        let Some(heads) = self.heads else {
            return first;
        };
        let offset = first.get().wrapping_sub(self.config.vmemmap_base.get());
        let index = self.room_bytes.wrapping_add(offset) >> order.get();
        VirtAddr::new(heads.start().get().wrapping_add(index))
    }

    /// The order of the smallest compound pages that can have packed heads. What fills a vmemmap page is one,
    /// unless that is a base page.
    pub(crate) const fn smallest_packed_order(&self) -> Order {
        let order = self.vmemmap_page_order();
        match Order::new(1) {
            Some(smallest) if order.get() == 0 => smallest,
            _ => order,
        }
    }

    /// Where the packed head of the compound page of `order` is, or would be, that `frame` is part of.
    /// `None` where the model has no place for it.
    #[inline]
    pub const fn packed_head(&self, frame: Pfn, order: Order) -> Option<VirtAddr> {
        if frame.get() >= self.config.frames || !self.can_pack_heads(order) {
            return None;
        }
        let Some(heads) = self.heads else {
            return None;
        };
        let index = (self.room() + frame.get()) >> order.get();
        heads.start().checked_add(index << self.descriptor_shift)
    }

    /// The compound page whose packed head is, or would be, at `at`, or includes that address. `None` where
    /// there is no place for one.
    pub const fn page_of_packed_head(&self, at: VirtAddr) -> Option<PfnRange> {
        let Some(heads) = self.heads else {
            return None;
        };
        if !heads.contains(at) {
            return None;
        }
        let index = (at.get() - heads.start().get()) >> self.descriptor_shift;
        let Some(level) = index.checked_ilog2() else {
            return None;
        };
        let Some(order) = self.room().ilog2().checked_sub(level) else {
            return None;
        };
        let Some(order) = Order::new(order as u8) else {
            return None;
        };
        if !self.can_pack_heads(order) {
            return None;
        }
        let Some(first) = Pfn::new((index << order.get()) - self.room()) else {
            return None;
        };
        match PfnRange::new(first, order.frames()) {
            Ok(page) if page.last().get() < self.config.frames => Some(page),
            _ => None,
        }
    }

    /// Where the packed heads are of those compound pages of `order` whose first frame is in `frames`; `None`
    /// where there are none.
    pub(crate) const fn packed_heads(&self, frames: PfnRange, order: Order) -> Option<VirtRange> {
        let before = order.frames() - 1;
        let Some(start) = frames.start().checked_add(before) else {
            return None;
        };
        let first = self.packed_head(start.align_down(order), order);
        let last = self.packed_head(frames.last(), order);
        self.span_of(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Granule;
    use crate::model::ModelConfig;

    const CONFIG: ModelConfig = ModelConfig {
        granule: Granule::Size4K,
        descriptor_bytes: 64,
        vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
        frames: 1 << 34,
        section: Order::new(15).unwrap(),
        subsection: Order::new(9).unwrap(),
        max_order: Order::new(18).unwrap(),
    };
    const HEADS: VirtAddr = VirtAddr::new(0xffff_eb00_0000_0000);

    fn order(order: u8) -> Order {
        Order::new(order).unwrap()
    }

    #[test]
    fn heads_have_a_32nd_of_the_addresses_of_the_vmemmap() {
        let model = MemoryModel::new(CONFIG).unwrap();
        assert_eq!(model.heads(), None);
        assert_eq!(model.packed_head(Pfn::ZERO, order(9)), None);
        let model = model.with_heads(HEADS).unwrap();
        let heads = model.heads().unwrap();
        assert_eq!(heads, VirtRange::new(HEADS, 32 << 30).unwrap());
        // The last of the smallest ones is the last of all.
        let last = model.packed_head(model.all_frames().last(), order(6));
        assert_eq!(last.unwrap().get() + 63, heads.last().get());
    }

    #[test]
    fn an_array_that_is_not_whole_pages_beside_the_vmemmap_is_refused() {
        let model = MemoryModel::new(CONFIG).unwrap();
        let align = 4096;
        let odd = VirtAddr::new(HEADS.get() + 64);
        assert_eq!(model.with_heads(odd), Err(ModelError::HeadsBase { align }));
        let misplaced = Err(ModelError::HeadsPlace { bytes: 32 << 30 });
        let base = CONFIG.vmemmap_base.get();
        let below = base - (32 << 30);
        for at in [base, HEADS.get() - 4096, below + 4096, u64::MAX - 4095] {
            assert_eq!(model.with_heads(VirtAddr::new(at)), misplaced, "{at:#x}");
        }
        assert!(model.with_heads(VirtAddr::new(below)).is_ok());
        let top = VirtAddr::new(0u64.wrapping_sub(32 << 30));
        assert!(model.with_heads(top).is_ok());
        // A vmemmap that is moved may not run into them.
        let model = model.with_heads(HEADS).unwrap();
        assert_eq!(model.at(HEADS), misplaced);
        let elsewhere = VirtAddr::new(0xffff_9200_0000_0000);
        assert_eq!(model.at(elsewhere).unwrap().heads(), model.heads());
    }

    /// The index of the page of `order` that `frame` is part of, by halves: from the root of the heap, which
    /// stands for all of the room, to the left below a node or to the right.
    fn by_halves(room: u64, frame: u64, order: Order) -> u64 {
        let (mut index, mut start, mut frames) = (1, 0, room);
        while frames > order.frames() {
            frames /= 2;
            index *= 2;
            if frame >= start + frames {
                index += 1;
                start += frames;
            }
        }
        index
    }

    /// Whether the page of `size` that has `frame` has a place where it should, and is found by all of it.
    fn check_place(model: &MemoryModel, frame: u64, size: u8) {
        let (of, frames) = (Pfn::new(frame).unwrap(), model.all_frames().frames());
        let order = order(size);
        let bytes = model.descriptor_bytes();
        let room = frames.next_power_of_two();
        let place = model.packed_head(of, order);
        let exists = frame < frames && model.can_pack_heads(order);
        let expected = exists.then(|| HEADS.get() + bytes * by_halves(room, frame, order));
        assert_eq!(place.map(VirtAddr::get), expected, "{of}, order {size}");
        let Some(place) = place else {
            return;
        };
        let page = PfnRange::new(of.align_down(order), order.frames()).unwrap();
        let page = model.all_frames().contains_range(page).then_some(page);
        for at in [0, 1, bytes - 1] {
            let found = model.page_of_packed_head(place.checked_add(at).unwrap());
            assert_eq!(found, page, "{of}, order {size}");
        }
        assert!(model.heads().unwrap().contains(place));
    }

    #[test]
    fn places_are_those_of_a_binary_heap_and_lead_back() {
        for (frames, granule, bytes) in [
            (1 << 12, Granule::Size4K, 64),
            ((1 << 12) - 512, Granule::Size4K, 64),
            (100, Granule::Size4K, 64),
            (33, Granule::Size4K, 4096),
            (1 << 12, Granule::Size16K, 8),
            (1 << 12, Granule::Size64K, 32),
        ] {
            let model = MemoryModel::new(ModelConfig {
                granule,
                descriptor_bytes: bytes,
                frames,
                max_order: order(12),
                section: order(15),
                subsection: order(14),
                ..CONFIG
            });
            let model = model.unwrap().with_heads(HEADS).unwrap();
            for frame in 0..frames + 2 {
                (0..16).for_each(|size| check_place(&model, frame, size));
            }
            // What is no place leads nowhere.
            let heads = model.heads().unwrap();
            let mut at = heads.start();
            while heads.contains(at) {
                if let Some(page) = model.page_of_packed_head(at) {
                    let size = page.frames().ilog2() as u8;
                    assert_eq!(model.packed_head(page.start(), order(size)), Some(at));
                }
                at = at.checked_add(bytes).unwrap();
            }
            let before = VirtAddr::new(heads.start().get() - 1);
            for at in [before, heads.start(), at] {
                assert_eq!(model.page_of_packed_head(at), None);
            }
        }
    }

    #[test]
    fn places_are_right_at_both_ends_of_large_models_and_between() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for frames in [1 << 34, (1 << 34) - (1 << 18), (1 << 33) + 512, 1 << 40] {
            let model = MemoryModel::new(ModelConfig {
                vmemmap_base: VirtAddr::new(0xff00_0000_0000_0000),
                frames,
                ..CONFIG
            });
            let model = model.unwrap().with_heads(HEADS).unwrap();
            let random = core::iter::repeat_with(|| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 20) % frames
            });
            let ends = [0, 1, 511, 512, frames - 512, frames - 1, frames];
            for frame in ends.into_iter().chain(random.take(200)) {
                (0..40).for_each(|size| check_place(&model, frame, size));
            }
        }
    }

    #[test]
    fn the_heads_of_a_range_are_those_of_pages_that_begin_in_it() {
        let model = MemoryModel::new(CONFIG).unwrap().with_heads(HEADS).unwrap();
        let heads = |start, frames, size| {
            let frames = PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
            let found = model.packed_heads(frames, order(size))?;
            let count = (found.last().get() - found.start().get() + 1) / 64;
            Some((
                model.page_of_packed_head(found.start())?.start().get(),
                count,
            ))
        };
        assert_eq!(heads(1 << 18, 1 << 18, 18), Some((1 << 18, 1)));
        assert_eq!(heads(1 << 18, 512, 18), Some((1 << 18, 1)));
        assert_eq!(heads((1 << 18) + 512, 512, 18), None);
        assert_eq!(heads(512, 1 << 18, 18), Some((1 << 18, 1)));
        assert_eq!(heads(0, 1 << 15, 9), Some((0, 64)));
        let last = (1 << 34) - 512;
        assert_eq!(heads(last, 512, 9), Some((last, 1)));
        assert_eq!(heads(last, 512, 18), None);
        assert_eq!(heads(0, 512, 5), None);
    }
}
