//! Changes the order of pages that others may have references to: frozen first, unit by unit.

use super::{Describe, Reordered, packed_order};
use crate::addr::{Order, PfnRange};
use crate::descriptor::Reshape;
use crate::frame::{DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::PageTable;
use crate::readers::{CountReferences, Kernel, Readers};
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::fold::Units;
use crate::vmemmap::frozen_pages::thaw_pages;
use crate::vmemmap::{Changed, OldHeads, QuiescentUnits, Vmemmap};
use core::fmt;

/// What [`Vmemmap::commit_reorder`] has done.
#[must_use = "old heads are to be released; see `OldHeads`"]
pub struct Committed<'r, D: CountReferences, K: Kernel> {
    /// What has changed.
    pub changed: Changed,
    /// The [packed](crate::pagemap::Heads::Packed) heads that the pages had before, if they had some.
    pub old_heads: Option<OldHeads<'r, D, K>>,
}

impl<D: CountReferences, K: Kernel> fmt::Debug for Committed<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed")
            .field("changed", &self.changed)
            .field("old_heads", &self.old_heads)
            .finish()
    }
}

impl<'r, D: CountReferences + Reshape, A: FrameAllocator, M: DirectMap, K: Kernel>
    Vmemmap<D, A, M, Readers<'r, K>>
{
    /// Makes `frames` of frozen memory pages of the pagemap's order, as [`reorder`](Self::reorder) does,
    /// and thaws all of it. Each page has `references` references then, which are the caller's. Units
    /// that were busy stay as they are. `frames` may be a part of the pages that are frozen.
    ///
    /// What [`freeze_units`](Self::freeze_units) has frozen are whole pages: those that `frames` are in.
    /// Frames come from the [reserve](Self::reserve). If that ends the rest is thawed as it was, and
    /// [`Changed::error`] says so.
    ///
    /// Where heads were [packed](crate::pagemap::Heads::Packed), old ones are left, which a reader may have found
    /// before. [`Committed::old_heads`] is what to wait for, a second time, before
    /// [`release_heads`](Self::release_heads) takes them.
    pub fn commit_reorder<P: PageTable>(
        &mut self,
        table: &mut P,
        quiescent: QuiescentUnits<'r, D, K>,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: u32,
    ) -> Committed<'r, D, K> {
        let units = quiescent.units();
        let mut changed = units.not_frozen();
        if !self.readers.has_root_of(units.reader().readers()) {
            changed.error = Some(FoldError::OtherVmemmap);
            let old_heads = None;
            return Committed { changed, old_heads };
        }
        let mut reordered = Reordered::default();
        let mut done = 0;
        while let Some((end, run)) = units.next_run(done) {
            reordered.rest = run.intersection(frames);
            let steps =
                self.all_steps(table, pagemap, Describe::Frozen, usize::MAX, &mut reordered);
            changed.error = steps.err();
            // A unit that was not changed starts where it is frozen from.
            let (new, old) = match reordered.rest.filter(|_| changed.error.is_some()) {
                Some(left) => {
                    let start = self.first_of_page(&*table, left.start());
                    run.split_at(start.get().saturating_sub(run.start().get()))
                }
                None => (Some(run), None),
            };
            if let Some(new) = new {
                thaw_pages(units.reader(), new, None, references);
            }
            if let Some(old) = old {
                thaw_pages(units.reader(), old, None, units.references());
            }
            done = end;
            if changed.error.is_some() {
                break;
            }
        }
        changed.folded.changed = reordered.units;
        changed.folded.flushes = reordered.flushes;
        changed.folded.notes = reordered.notes;
        let keep = packed_order(pagemap);
        let old = self.units_with_old_heads(&*table, &quiescent, done, keep);
        let old_heads = quiescent.leave_old_heads(done, old, keep);
        Committed { changed, old_heads }
    }

    /// The units before the unit `done` that have packed heads of pages which have changed.
    #[inline(never)]
    fn units_with_old_heads<P: PageTable>(
        &self,
        table: &P,
        quiescent: &QuiescentUnits<'r, D, K>,
        done: u64,
        keep: Option<Order>,
    ) -> Units {
        let mut old = Units::default();
        for (unit, frames) in quiescent.units().frozen_units(done) {
            if self.has_old_heads(table, frames, keep) {
                old.add(unit);
            }
        }
        old
    }

    /// Freezes the pages that `frames` are in, waits, and makes `frames` pages of the pagemap's order, call
    /// by call until all is done that can be, and waits again where heads were packed. It waits with the lock of
    /// the vmemmap held; see [`freeze_units`](Self::freeze_units) for the steps. `references`: what each page has before, and
    /// what each has afterwards.
    ///
    /// # Errors
    ///
    /// Those of [`freeze_units`](Self::freeze_units), where nothing was changed. After that,
    /// [`Changed::error`].
    ///
    /// # Safety
    ///
    /// 1. Duties 1 and 2 of [`freeze_units`](Self::freeze_units), for all pages that `frames` are in.
    pub unsafe fn reorder_beside_readers<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        references: (u32, u32),
    ) -> Result<Changed, FoldError> {
        let pages = self.whole_pages_around(&*table, frames);
        let commit = |vmemmap: &mut Self, table: &mut P, quiescent| {
            let committed = vmemmap.commit_reorder(table, quiescent, pagemap, frames, references.1);
            let mut changed = committed.changed;
            if let Some(old) = committed.old_heads {
                let released = vmemmap.release_heads(table, pagemap, old.wait());
                changed.error = changed.error.or(released.err());
            }
            changed
        };
        // SAFETY: 1: the caller's, for all of these pages.
        unsafe { self.call_by_call(table, pagemap, pages, references.0, commit) }
    }
}
