//! The frames of the online map, found on the way over what is mapped.
//!
//! The root of the map has an entry for each span of the model, whether anything of that is online or not. So
//! it is not walked: memory that readers can find, or are about to, is mapped.

use super::Finding;
use crate::addr::{Pfn, PfnRange};
use crate::readers::OnlineMap;

/// The frames of bits of all memory that was walked over so far, in the order of frames.
pub(super) struct BitsSeen<'r> {
    map: Option<OnlineMap<'r>>,
    /// The first frame whose span was not looked at; `None` behind the last one.
    next: Option<Pfn>,
    wrong: Option<Finding>,
}

impl<'r> BitsSeen<'r> {
    pub(super) const fn new(map: Option<OnlineMap<'r>>) -> Self {
        Self {
            map,
            next: Some(Pfn::ZERO),
            wrong: None,
        }
    }

    /// Whether `frames` reach into a span that was not looked at.
    #[inline]
    pub(super) fn may_have_more(&self, frames: PfnRange) -> bool {
        self.map.is_some() && self.next.is_some_and(|next| frames.last() >= next)
    }

    /// The next frame of bits of the spans of `frames` that were not looked at.
    pub(super) fn next_of(&mut self, frames: PfnRange) -> Option<Pfn> {
        let map = self.map?;
        loop {
            let next = self.next.filter(|next| frames.last() >= *next)?;
            let first = frames.start().max(next);
            self.next = map.span_after(first);
            if let Some(bits) = map.bits_of(first) {
                return Some(bits);
            }
        }
    }

    /// Remembers what is wrong with a frame, if it is the first one.
    pub(super) fn keep(&mut self, compared: Result<(), Finding>) {
        if let Err(finding) = compared {
            self.wrong.get_or_insert(finding);
        }
    }

    /// What was wrong.
    pub(super) fn compared(&mut self) -> Result<(), Finding> {
        match self.wrong.take() {
            Some(finding) => Err(finding),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Granule, Order, VirtAddr};
    use crate::model::{MemoryModel, ModelConfig};
    use crate::readers::OnlineEntry;
    extern crate std;
    use std::vec::Vec;

    /// Of 64 GiB each.
    const SPAN: u64 = 1 << 24;

    /// The entries of the root that are looked at on the way over `mapped`, where there are so many spans: each of
    /// them leads to the frame of its number.
    fn looked_at(spans: u64, mapped: &[PfnRange]) -> Vec<u64> {
        let model = MemoryModel::new(ModelConfig {
            granule: Granule::Size4K,
            descriptor_bytes: 64,
            vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
            frames: spans * SPAN,
            section: Order::new(15).unwrap(),
            subsection: Order::new(9).unwrap(),
            max_order: Order::new(18).unwrap(),
        });
        let entry = |number| OnlineEntry::leading_to(Pfn::new(number).unwrap());
        let root: Vec<_> = (0..spans).map(entry).collect();
        let map = OnlineMap::new(&model.unwrap(), &root).unwrap();
        let mut seen = BitsSeen::new(Some(map));
        let mut looked_at = Vec::new();
        for frames in mapped {
            while seen.may_have_more(*frames) {
                looked_at.push(seen.next_of(*frames).unwrap().get());
            }
        }
        looked_at
    }

    #[test]
    fn each_span_with_something_mapped_is_looked_at_once_and_no_other_however_many_there_are() {
        let frames = |start, count| PfnRange::new(Pfn::new(start).unwrap(), count).unwrap();
        let mapped = [
            frames(2 * SPAN + 64, 64),
            frames(2 * SPAN + 192, 64),
            frames(4 * SPAN - 64, 2 * SPAN + 64),
            frames(7 * SPAN, 1),
        ];
        for spans in [8, 64, 1024] {
            assert_eq!(looked_at(spans, &mapped), [2, 3, 4, 5, 7]);
            assert_eq!(looked_at(spans, &[]), [0; 0]);
            let last = [frames((spans - 1) * SPAN, SPAN)];
            assert_eq!(looked_at(spans, &last), [spans - 1]);
        }
    }
}
