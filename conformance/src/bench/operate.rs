//! What is done to the vmemmap, while CPUs cache what they can.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, fail};
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::pagemap::DevPagemap;
use mm_core::vmemmap::{FoldError, Folded, OfflineError, Offlined, OnlineError, Region};

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    pub(crate) fn try_online<'p>(
        &mut self,
        pagemap: &DevPagemap<'p>,
    ) -> Result<Region<'p>, OnlineError> {
        self.vmemmap.online(self.table, pagemap)
    }

    pub(crate) fn online<'p>(&mut self, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, Stop> {
        self.try_online(pagemap)
            .or_else(|_| fail("memory comes online"))
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
        offlined.or_else(|_| fail("a region goes offline"))
    }

    pub(crate) fn populate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        match self.vmemmap.populate(self.table, pagemap, piece) {
            Ok(_) => Ok(()),
            Err(_) => fail("a piece comes online"),
        }
    }

    pub(crate) fn depopulate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        self.speculate(piece);
        match self.vmemmap.depopulate(self.table, pagemap, piece) {
            Ok(_) => Ok(()),
            Err(_) => fail("a piece goes offline"),
        }
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
        self.try_fold(pagemap, frames)
            .or_else(|_| fail("memory is folded"))
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
        self.try_unfold(pagemap, frames)
            .or_else(|_| fail("memory is unfolded"))
    }

    pub(crate) fn mark(&mut self, frame: Pfn) -> Verdict {
        match self.vmemmap.mark(self.table, frame, self.node) {
            Ok(true) => Ok(()),
            Ok(false) => fail("a frame is not marked before it is"),
            Err(_) => fail("a frame that is online can be marked"),
        }
    }
}
