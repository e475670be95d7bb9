//! Readers find what has changed: all of it are whole pages, also where it was a part of a page of which
//! more was missing, and others came online in between.

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;
use crate::vmemmap::fold::FoldError;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Takes the frame of bits from the reserve for `node` that it needs to
    /// [publish](Self::publish_unit) `unit`, if it needs one. There is at most one: a unit is aligned to
    /// its size, so it is within a span of the map, or whole spans.
    pub(super) fn take_bits_for(
        &mut self,
        unit: PfnRange,
        node: NodeId,
    ) -> Result<Option<Pfn>, FoldError> {
        if !self.needs_bits_to_publish(unit) {
            return Ok(None);
        }
        let bits = self.reserve.take_frame(node, &self.direct_map);
        bits.map(Some).ok_or(FoldError::ReserveTooSmall { node })
    }

    /// Gives the frame back, since `unit` has not changed.
    pub(super) fn give_bits_back(&mut self, bits: Option<Pfn>) {
        if let Some(bits) = bits {
            let node = self.frames.node_of(bits);
            // SAFETY: 1: it came from the reserve, and nobody has used it.
            unsafe { self.reserve.put_frame(bits, node, &self.direct_map) };
        }
    }

    /// Lets readers find `unit`, which has changed. `bits` was taken for that.
    pub(super) fn publish_unit(&mut self, unit: PfnRange, bits: Option<Pfn>) {
        if let Some(bits) = bits {
            self.give_bits_to(unit, bits);
        }
        // Smaller units are of pages that come with the whole subsection.
        if unit.frames() >= self.model.subsection().frames() {
            self.publish(unit);
        }
    }
}
