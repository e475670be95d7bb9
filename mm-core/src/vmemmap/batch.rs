//! Frames whose descriptors are written at once.

use super::descriptor_writer::DescriptorWriter;
use crate::addr::{Order, Pfn, PfnRange};

/// What is described by the frames of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// All memory from the first frame on.
    EachPage,
    /// Of each compound page the first vmemmap page, or the first and one of tails.
    FirstPages {
        /// How many of them: 1 or 2.
        each: u64,
    },
}

/// Frames that nobody has seen, and what their descriptors are to describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) frames: PfnRange,
    /// The first frame that they describe; where first pages are described, of a compound page.
    pub(super) first: Pfn,
    pub(super) described: Described,
}

impl Batch {
    /// The part that starts `skipped` frames behind the start and has at most `frames`: both are whole compound
    /// pages' where first pages are described.
    pub(super) fn part<M>(
        &self,
        writer: &DescriptorWriter<'_, M>,
        skipped: u64,
        frames: u64,
    ) -> Option<Self> {
        let described = match self.described {
            Described::EachPage => skipped.saturating_mul(writer.model.descriptors_per_page()),
            Described::FirstPages { each } => {
                (skipped / each).saturating_mul(writer.order.frames())
            }
        };
        let rest = self.frames.split_at(skipped).1?;
        Some(Self {
            frames: rest.take_first(frames).0,
            first: self.first.saturating_add(described),
            described: self.described,
        })
    }

    /// How many frames belong together.
    pub(super) const fn frames_each(&self) -> u64 {
        match self.described {
            Described::EachPage => 1,
            Described::FirstPages { each } => each,
        }
    }

    /// Whether `frame` gets the vmemmap page number `page` of the compound page, of `order`, at `head`. First pages
    /// only.
    pub(super) fn holds(&self, frame: Pfn, head: Pfn, page: u64, order: Order) -> bool {
        let Described::FirstPages { each } = self.described else {
            return false;
        };
        if !self.frames.contains(frame) {
            return false;
        }
        let before = frame.get() - self.frames.start().get();
        let described = (before / each).saturating_mul(order.frames());
        before % each == page && head == self.first.saturating_add(described)
    }

    /// Whether all of `other` is what a part of this is, in pages of `order`. First pages only.
    pub(super) fn includes(&self, other: &Self, order: Order) -> bool {
        self.described == other.described
            && self.frames.contains_range(other.frames)
            && self.holds(other.frames.start(), other.first, 0, order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Granule, NodeId, VirtAddr};
    use crate::descriptor::Part;
    use crate::model::{MemoryModel, ModelConfig};
    use crate::pagemap::Heads;

    fn pfn(frame: u64) -> Pfn {
        Pfn::new(frame).unwrap()
    }

    fn model() -> MemoryModel {
        MemoryModel::new(ModelConfig {
            granule: Granule::Size4K,
            descriptor_bytes: 64,
            vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
            frames: 1 << 30,
            section: Order::new(15).unwrap(),
            subsection: Order::new(9).unwrap(),
            max_order: Order::new(18).unwrap(),
        })
        .unwrap()
    }

    /// The first frame that `frame`, the one number `index`, describes, or the head of its compound page.
    fn described(described: Described, index: u64) -> Pfn {
        pfn(match described {
            Described::EachPage => 512 + 64 * index,
            Described::FirstPages { each } => 512 + 512 * (index / each),
        })
    }

    #[test]
    fn parts_are_the_whole() {
        let model = model();
        let writer = DescriptorWriter {
            model: &model,
            direct_map: &(),
            order: Order::new(9).unwrap(),
            node: NodeId::new(0),
            heads: Heads::InPlace,
            base: Part::Base,
            streams: false,
        };
        for kind in [
            Described::EachPage,
            Described::FirstPages { each: 1 },
            Described::FirstPages { each: 2 },
        ] {
            let frames = PfnRange::new(pfn(77), 14).unwrap();
            let batch = Batch {
                frames,
                first: pfn(512),
                described: kind,
            };
            let mut next = 0;
            while let Some(part) = batch.part(&writer, next, 4) {
                assert_eq!(part.frames.start().get(), 77 + next);
                assert_eq!(part.first, described(kind, next), "{kind:?} from {next}");
                let is_known = batch.includes(&part, writer.order);
                assert_eq!(is_known, kind != Described::EachPage);
                next += part.frames.frames();
            }
            assert_eq!(next, 14, "{kind:?}");
        }
    }

    #[test]
    fn a_frame_holds_what_it_was_written_for_and_nothing_else() {
        let order = Order::new(9).unwrap();
        for each in [1, 2] {
            let kind = Described::FirstPages { each };
            let frames = PfnRange::new(pfn(100), 6).unwrap();
            let batch = Batch {
                frames,
                first: pfn(512),
                described: kind,
            };
            for frame in 98..108 {
                for (head, page) in (0..8).flat_map(|head| [(head, 0), (head, 1)]) {
                    let head = pfn(512 * head);
                    let index = frame - 100_u64.min(frame);
                    let holds = (100..106).contains(&frame)
                        && described(kind, index) == head
                        && index % each == page;
                    assert_eq!(batch.holds(pfn(frame), head, page, order), holds);
                }
            }
        }
    }
}
