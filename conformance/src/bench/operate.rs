//! What is done to the vmemmap, while CPUs cache what they can.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, fail};
use mm_core::addr::{NodeId, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::pagemap::DevPagemap;
use mm_core::paging::{Leaf, MapError, PageTable};
use mm_core::vmemmap::{FoldError, Folded, OfflineError, Offlined, OnlineError, Region};

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    pub(crate) fn try_online<'p>(
        &mut self,
        pagemap: &DevPagemap<'p>,
    ) -> Result<Region<'p>, OnlineError> {
        self.vmemmap.online(self.table, pagemap)
    }

    pub(crate) fn online<'p>(&mut self, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, Stop> {
        let online = self.try_online(pagemap);
        self.expect(online, "memory comes online")
    }

    /// Lets the CPUs cache everything first.
    pub(crate) fn offline(&mut self, region: Region<'_>) {
        for range in region.pagemap().ranges() {
            self.speculate(*range);
        }
        // A region that stays online is found by whatever looks next.
        let _ = self.vmemmap.offline(self.table, region);
    }

    /// Takes `region` offline, and says what went.
    pub(crate) fn take_offline(&mut self, region: Region<'_>) -> Result<Offlined, Stop> {
        let offlined = self.vmemmap.offline(self.table, region);
        self.expect(offlined, "a region goes offline")
    }

    pub(crate) fn populate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        let populated = self.vmemmap.populate(self.table, pagemap, piece);
        self.expect(populated, "a piece comes online").map(|_| ())
    }

    pub(crate) fn depopulate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        self.speculate(piece);
        let offlined = self.vmemmap.depopulate(self.table, pagemap, piece);
        self.expect(offlined, "a piece goes offline").map(|_| ())
    }

    pub(crate) fn try_depopulate(
        &mut self,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<(), OfflineError> {
        let offlined = self.vmemmap.depopulate(self.table, pagemap, piece);
        offlined.map(|_| ())
    }

    /// Lets CPUs cache all that is mapped for `frames`.
    pub(crate) fn speculate(&self, frames: PfnRange) {
        if let Some(range) = self.model.descriptors(frames) {
            self.controls.speculate(self.table, range);
        }
    }

    pub(crate) fn try_fold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError> {
        self.speculate(frames);
        self.vmemmap.fold(self.table, pagemap, frames)
    }

    pub(crate) fn fold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, Stop> {
        let folded = self.try_fold(pagemap, frames);
        self.expect(folded, "memory is folded")
    }

    pub(crate) fn try_unfold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, FoldError> {
        self.speculate(frames);
        self.vmemmap.unfold(self.table, pagemap, frames)
    }

    pub(crate) fn unfold(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Folded, Stop> {
        let unfolded = self.try_unfold(pagemap, frames);
        self.expect(unfolded, "memory is unfolded")
    }

    pub(crate) fn mark(&mut self, frame: Pfn) -> Verdict {
        match self.vmemmap.mark(self.table, frame, self.node) {
            Ok(true) => Ok(()),
            Ok(false) => fail("a frame is not marked before it is"),
            Err(error) => self.fail_by("a frame that is online can be marked", error),
        }
    }

    /// Enters `leaf` at `at`, and makes it visible.
    ///
    /// # Safety
    ///
    /// As for [`PageTable::map_leaf`].
    pub(crate) unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
    ) -> Result<(), MapError> {
        // SAFETY: 1 and 2: the caller's.
        let mapped = unsafe { self.table.map_leaf(at, leaf, node, &self.records) };
        let bytes = leaf.block.order().bytes(self.table.granule());
        if let Some(Ok(range)) = bytes.map(|bytes| VirtRange::new(at, bytes)) {
            self.table.entries_added(range);
        }
        mapped
    }
}
