//! Whether a page is all there: a part of it may have gone offline, and other pages may have come online in
//! its place; or a part of it was reshaped.

use crate::addr::{Pfn, PfnRange, VirtAddr};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::{PageTable, Role, Run, Visit};
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::queries::holders;
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Checks that `pages`, in which a request begins and ends, are all there if the rest of them is to change
    /// too: what came online in their place is not asked for.
    pub(super) fn check_complete<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        pages: [PfnRange; 2],
    ) -> Result<(), FoldError> {
        let mut split = pages
            .into_iter()
            .filter(|page| !frames.contains_range(*page));
        match split.find(|page| !self.is_complete(table, *page)) {
            Some(pages) => Err(FoldError::SplitsPage { pages }),
            None => Ok(()),
        }
    }

    /// Whether no descriptor of `page` that is online is another page's.
    pub(in crate::vmemmap) fn is_complete<P: PageTable>(&self, table: &P, page: PfnRange) -> bool {
        // What is less than a vmemmap page describes changes as a whole.
        let is_less = page.frames() < self.model.descriptors_per_page();
        let Some(range) = self.model.descriptors(page).filter(|_| !is_less) else {
            return true;
        };
        let mut is_complete = true;
        let _ = table.visit(range, &mut |visit| {
            let (Visit::Leaves { at, run } | Visit::SharedTable { at, run, .. }) = visit else {
                return ControlFlow::Continue(());
            };
            is_complete = run.leaf.role == Role::Foreign || self.all_describe(page, at, &run);
            match is_complete {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        is_complete
    }

    /// Whether the descriptors that `run` maps at `at` are those of `page`, as far as they are about its
    /// frames. The first one of each vmemmap page tells.
    fn all_describe(&self, page: PfnRange, at: VirtAddr, run: &Run) -> bool {
        // Tails are all the same.
        let pages = match run.leaf.role {
            Role::Tail => 1,
            _ => usize::MAX,
        };
        holders(&self.model, at, run)
            .take(pages)
            .filter(|(_, frame)| page.contains(*frame))
            .all(|(holder, frame)| self.describes_in(holder, frame, page))
    }

    /// Whether the descriptor of `frame` in `holder` is one of `page`.
    fn describes_in(&self, holder: Pfn, frame: Pfn, page: PfnRange) -> bool {
        let descriptor = self.descriptor_in(holder, frame);
        let head = self
            .descriptor_address(frame)
            .map(|at| D::Encoding::head_of(at, descriptor.word()));
        descriptor.order().frames() == page.frames()
            && head == self.descriptor_address(page.start())
    }
}
