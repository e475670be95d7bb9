//! What a kernel keeps in descriptors of its own, through a fold and an unfold.

use super::Session;
use super::problem::Problem;
use crate::case::Case;
use crate::{FrameInfo, Probe};
use mm_core::addr::Pfn;
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::paging::PageTable;

/// What the kernel keeps, with the frame's number.
const KEPT: u64 = 0x4be9_0000_0000_0000;

/// What it has left in a descriptor that it gives up.
const LEFT: u64 = 0x1ef7;

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// Stores something of its own, by the MMU, to the descriptors that the first, a middle and the
    /// last compound page of `case` have for themselves: in the head's vmemmap page.
    pub(super) fn keep(&self, case: &Case) -> Result<(), Problem> {
        self.for_each_kept(case, |frame| self.set_owner(frame, KEPT | frame.get()))
    }

    /// Stores something to tails beyond those.
    pub(super) fn leave_behind(&self, case: &Case) -> Result<(), Problem> {
        self.for_each_left(case, |frame| self.set_owner(frame, LEFT))
    }

    /// What was kept is there, as the MMU sees it, and what was left behind is not.
    pub(super) fn is_kept(&self, case: &Case) -> Result<(), Problem> {
        self.for_each_kept(case, |frame| self.owner_is(frame, KEPT | frame.get()))?;
        self.for_each_left(case, |frame| self.owner_is(frame, 0))
    }

    /// Makes all of it what it was at first.
    pub(super) fn keep_nothing(&self, case: &Case) -> Result<(), Problem> {
        self.for_each_kept(case, |frame| self.set_owner(frame, 0))
    }

    fn for_each_kept(
        &self,
        case: &Case,
        work: impl Fn(Pfn) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let last_in_page = self.on.model.descriptors_per_page() - 1;
        for head in some_heads(case) {
            for offset in [0, 1, last_in_page] {
                work(head.saturating_add(offset))?;
            }
        }
        Ok(())
    }

    fn for_each_left(
        &self,
        case: &Case,
        work: impl Fn(Pfn) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let per_page = self.on.model.descriptors_per_page();
        for head in some_heads(case) {
            for offset in [per_page, case.order.frames() - 1] {
                work(head.saturating_add(offset))?;
            }
        }
        Ok(())
    }

    fn set_owner(&self, frame: Pfn, value: u64) -> Result<(), Problem> {
        let at = self.word_address(frame, FrameInfo::<E>::OWNER)?;
        // SAFETY: 1: the owner's word, which may have any value.
        Ok(unsafe { self.on.probe.store(at, value) }?)
    }
}

/// The heads of the first, a middle and the last compound page.
fn some_heads(case: &Case) -> impl Iterator<Item = Pfn> {
    let order = case.order;
    let middle = case.range.frames() / 2;
    [0, middle, case.range.frames() - 1]
        .map(|offset| case.range.start().saturating_add(offset).align_down(order))
        .into_iter()
}
