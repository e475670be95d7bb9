//! From a memory map with odd ends to ranges that can be brought online.

use super::MemoryModel;
use crate::addr::{Order, Pfn, PfnRange};

impl MemoryModel {
    /// Ranges of whole subsections, which [`DevPagemap`](crate::pagemap::DevPagemap) asks for, that contain
    /// all frames of `ram`. The ranges of `ram` are in the order of addresses, as firmware gives them;
    /// those that share a subsection, or are next to each other, become one.
    ///
    /// The ends of RAM are seldom the ends of a subsection. So the ranges contain frames that are no
    /// RAM: firmware's, a device's, nobody's. They get descriptors like all others, which costs nothing
    /// (the descriptors of a subsection fill whole pages), and a scanner of frame numbers finds them. It
    /// is the kernel that knows which frames are RAM: it gives its allocator those of `ram` alone, and
    /// marks the rest in its descriptors if somebody may ask. A device whose memory shares a subsection
    /// with RAM is described with it; bringing that subsection online again is refused.
    ///
    /// Frames behind the last whole subsection that the model has room for are left out.
    ///
    /// ```
    /// # use mm_core::addr::{Granule, Order, PfnRange, PhysAddr, VirtAddr};
    /// # use mm_core::model::{MemoryModel, ModelConfig};
    /// # let model = MemoryModel::new(ModelConfig {
    /// #     granule: Granule::Size4K,
    /// #     descriptor_bytes: 64,
    /// #     vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
    /// #     frames: 1 << 34,
    /// #     section: Order::new(15).unwrap(),
    /// #     subsection: Order::new(9).unwrap(),
    /// #     max_order: Order::new(18).unwrap(),
    /// # }).unwrap();
    /// # let bytes = |start, bytes| PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K).unwrap();
    /// let ram = [
    ///     bytes(0, 636 << 10),
    ///     bytes(1 << 20, 127 << 20),
    ///     bytes(4 << 30, (3 << 20) - (64 << 10)),
    /// ];
    /// // Subsections are of 2 MiB.
    /// let online = [bytes(0, 128 << 20), bytes(4 << 30, 4 << 20)];
    /// assert!(model.whole_subsections(ram).eq(online));
    /// ```
    pub fn whole_subsections<I>(&self, ram: I) -> WholeSubsections<I::IntoIter>
    where
        I: IntoIterator<Item = PfnRange>,
    {
        let subsection = self.subsection();
        WholeSubsections {
            subsection,
            room: self.all_frames().frames() >> subsection.get() << subsection.get(),
            ram: ram.into_iter(),
            next: None,
        }
    }
}

/// See [`MemoryModel::whole_subsections`].
#[derive(Clone, Debug)]
pub struct WholeSubsections<I> {
    subsection: Order,
    /// How many frames the model has room for, in whole subsections.
    room: u64,
    ram: I,
    /// The range that the next of `ram` may belong to.
    next: Option<PfnRange>,
}

impl<I> WholeSubsections<I> {
    /// `range` up to the ends of its subsections, as far as there is room.
    fn widened(&self, range: PfnRange) -> Option<PfnRange> {
        let start = range.start().align_down(self.subsection).get();
        let last = range.last().get() | (self.subsection.frames() - 1);
        let end = last.saturating_add(1).min(self.room);
        let frames = end.checked_sub(start).filter(|frames| *frames > 0)?;
        PfnRange::new(Pfn::new(start)?, frames).ok()
    }
}

/// One range for both, if the second follows in the first or behind it without a gap.
fn joined(first: PfnRange, second: PfnRange) -> Option<PfnRange> {
    let (start, end) = (first.start().get(), first.last().get() + 1);
    if !(start..=end).contains(&second.start().get()) {
        return None;
    }
    let end = end.max(second.last().get() + 1);
    PfnRange::new(first.start(), end - start).ok()
}

impl<I: Iterator<Item = PfnRange>> Iterator for WholeSubsections<I> {
    type Item = PfnRange;

    fn next(&mut self) -> Option<PfnRange> {
        while let Some(ram) = self.ram.next() {
            let Some(widened) = self.widened(ram) else {
                continue;
            };
            let Some(before) = self.next.replace(widened) else {
                continue;
            };
            match joined(before, widened) {
                Some(both) => self.next = Some(both),
                None => return Some(before),
            }
        }
        self.next.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Granule, VirtAddr};
    use crate::model::ModelConfig;
    extern crate std;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Room for 30 subsections of 512 frames and a bit.
    fn model() -> MemoryModel {
        MemoryModel::new(ModelConfig {
            granule: Granule::Size4K,
            descriptor_bytes: 64,
            vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
            frames: 30 * 512 + 100,
            section: Order::new(15).unwrap(),
            subsection: Order::new(9).unwrap(),
            max_order: Order::new(9).unwrap(),
        })
        .unwrap()
    }

    /// The subsections that `ram` touches, one by one.
    fn touched(ram: &[PfnRange]) -> BTreeSet<u64> {
        let frames = ram.iter().flat_map(|range| *range);
        let subsections = frames.map(|frame| frame.get() / 512);
        subsections.filter(|index| *index < 30).collect()
    }

    #[test]
    fn each_subsection_with_ram_is_in_one_range_and_no_other() {
        let range = |start, frames| PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap();
        let maps: &[&[PfnRange]] = &[
            &[],
            &[range(0, 1)],
            &[range(511, 2)],
            &[
                range(0, 512),
                range(512, 512),
                range(1100, 3),
                range(1200, 3),
            ],
            &[
                range(5, 1),
                range(600, 1),
                range(2048, 4096),
                range(6000, 1),
            ],
            &[range(29 * 512, 700), range(40 * 512, 512)],
            &[range(30 * 512, 100)],
            // Not what is asked for, and no harm.
            &[range(1024, 10), range(0, 2000), range(100, 10)],
        ];
        for (index, map) in maps.iter().enumerate() {
            let wide: Vec<_> = model().whole_subsections(map.iter().copied()).collect();
            let aligned = |range: &PfnRange| {
                range.is_aligned(Order::new(9).unwrap()) && range.last().get() < 30 * 512
            };
            assert!(wide.iter().all(aligned), "{wide:?}");
            assert_eq!(touched(&wide), touched(map), "{wide:?}");
            let gaps = wide
                .windows(2)
                .all(|pair| pair[0].last().get() + 1 < pair[1].start().get());
            assert!(gaps || index == maps.len() - 1, "{wide:?}");
        }
    }

    #[test]
    fn the_last_frame_of_all_is_no_trouble() {
        let last = PfnRange::single(Pfn::MAX);
        assert_eq!(model().whole_subsections([last]).next(), None);
    }
}
