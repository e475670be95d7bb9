//! Changing the order of pages, with a reserve and an allocator that refuses.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Stop, Verdict, equal};
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, FoldError, ReorderStopped, Reordered, Reserve};

/// How memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) order: Order,
    pub(crate) tails: Tails,
    pub(crate) tables: Tables,
    pub(crate) huge_leaves: bool,
}

impl Form {
    /// By base pages of vmemmap and tables that are private.
    pub(crate) const fn new(order: Order, tails: Tails) -> Self {
        Self {
            order,
            tails,
            tables: Tables::Private,
            huge_leaves: false,
        }
    }
}

impl<H: Harness, E: TailEncoding> Bench<'_, H, E> {
    /// Memory of that form.
    pub(crate) fn of_form<'r>(
        &self,
        ranges: &'r [PfnRange],
        form: Form,
    ) -> Result<DevPagemap<'r>, Stop> {
        let pagemap = self.sharing(ranges, form.order, form.tails)?;
        Ok(pagemap
            .with_tables(form.tables)
            .with_piece(Piece::Range)
            .with_huge_leaves(form.huge_leaves))
    }

    /// Fills the reserve.
    pub(crate) fn fill_reserve(&mut self, wanted: Reserve) -> Verdict {
        let filled = self.try_fill_reserve(wanted);
        self.expect(filled, "the reserve is filled")
    }

    pub(crate) fn try_fill_reserve(&mut self, wanted: Reserve) -> Result<(), FoldError> {
        let filled = self.vmemmap.fill_reserve(self.table, self.node, wanted);
        filled.map(|_| ())
    }

    /// Gives all of the reserve back, and checks that nothing is left of it.
    pub(crate) fn empty_reserve(&mut self) -> Verdict {
        self.vmemmap.empty_reserve(self.table);
        let left = self.vmemmap.reserve(self.node);
        let left = left.frames + left.tables + left.huge_leaves;
        equal(0, left, "what is left of the reserve")
    }

    /// Does `work` while the allocator refuses, if the harness can make it do so. No frame may be taken or
    /// given back meanwhile.
    pub(crate) fn without_allocator<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Stop> {
        let before = self.frames_out();
        let _ = self.controls.fail_after(Some(0));
        let done = work(self);
        let _ = self.controls.fail_after(None);
        let (before, after) = (before.unwrap_or(0), self.frames_out().unwrap_or(0));
        equal(before, after, "frames that are out, before and after")?;
        Ok(done)
    }
}

impl<H: Harness> Bench<'_, H, Mask> {
    /// What is needed to make `frames` pages as `pagemap` says, where none is larger than `largest`.
    pub(crate) fn needed(
        &self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        largest: Order,
    ) -> Reserve {
        let table = &*self.table;
        self.vmemmap.reserve_needed(table, pagemap, frames, largest)
    }

    /// Makes `frames` pages as `pagemap` says, by what is in reserve.
    pub(crate) fn try_reorder(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<Result<Reordered, ReorderStopped>, Stop> {
        self.speculate(frames);
        self.without_allocator(|bench| bench.vmemmap.reorder(bench.table, pagemap, frames))
    }

    /// The same with a reserve that has what is needed, and is emptied then. Nothing may be left to do.
    pub(crate) fn reorder(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        largest: Order,
    ) -> Result<Reordered, Stop> {
        self.fill_reserve(self.needed(pagemap, frames, largest))?;
        let done = self.try_reorder(pagemap, frames)?;
        let done = done.map_err(|stopped| stopped.error);
        let done = self.expect(done, "pages change their order")?;
        let left = done.rest.map_or(0, PfnRange::frames);
        equal(0, left, "frames that are left to do")?;
        self.empty_reserve()?;
        Ok(done)
    }

    /// What memory of that form costs when it comes online.
    pub(crate) fn cost_of(&mut self, ranges: &[PfnRange], form: Form) -> Result<AuditReport, Stop> {
        let region = self.online(&self.of_form(ranges, form)?)?;
        let report = self.audit()?;
        self.offline(region);
        Ok(report)
    }

    /// Checks that everything costs now what `report` says.
    pub(crate) fn costs_as(&mut self, report: &AuditReport) -> Verdict {
        let now = self.audit()?;
        equal(
            report.descriptor_frames,
            now.descriptor_frames,
            "descriptor frames",
        )?;
        equal(report.mapped_pages, now.mapped_pages, "mapped pages")?;
        if H::Table::KEEPS_TABLES {
            return Ok(());
        }
        equal(report.leaf_tables, now.leaf_tables, "leaf tables")?;
        equal(report.frames(), now.frames(), "frames and tables")
    }
}
