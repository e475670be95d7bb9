//! A change of what a unit of memory is mapped to, with everything that it takes.

use super::describe::Describe;
use super::reordering::Reordering;
use super::target::Target;
use crate::addr::{Order, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Reshape};
use crate::frame::{DirectMap, FrameAllocator, FrameReserve};
use crate::pagemap::DevPagemap;
use crate::paging::{InUse, PageTable, Role, TableReserve, Visit};
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::memory_of;
use crate::vmemmap::note::Notes;
use crate::vmemmap::reserve::FromReserve;
use crate::vmemmap::table_records::RecordsInUse;
use core::ops::ControlFlow;

/// What a unit of memory is to become.
pub(in crate::vmemmap) struct Change<'p> {
    pub(in crate::vmemmap) target: &'p Target<'p>,
    pub(in crate::vmemmap) unit: PfnRange,
    /// Its vmemmap pages.
    pub(in crate::vmemmap) range: VirtRange,
    /// The size of huge leaves that come back where what they map has frames of its own.
    pub(in crate::vmemmap) leaf: Option<Order>,
    pub(in crate::vmemmap) describe: Describe,
    pub(in crate::vmemmap) source: Source,
}

/// Where frames and tables for a change come from, and where those go that it frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmemmap) enum Source {
    /// The vmemmap's reserve.
    Reserve,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Makes `change`, wholly or not at all, and says how many flushes that took.
    // Not inlined: what comes before it needs no stack meanwhile.
    #[inline(never)]
    pub(in crate::vmemmap) fn change<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        change: &Change<'_>,
        notes: &mut Notes,
    ) -> Result<u64, FoldError>
    where
        D: Reshape,
    {
        // SAFETY: 1: `fill_reserve` has allocated what is in it, and everything else there came from the
        // operations of this vmemmap on this page table (duty 3 of `new`). Duty 2 of `new`.
        let reserve =
            unsafe { FromReserve::new(&self.frames, &self.direct_map, &mut self.reserve) };
        let frames: &dyn FrameReserve = &reserve;
        let mut memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let mut tables: Option<&dyn TableReserve> = None;
        if change.source == Source::Reserve {
            // SAFETY: 1: as above.
            memory = unsafe { memory.with_reserve(&frames) };
            tables = Some(&reserve);
        }
        let records = RecordsInUse::new(memory, &mut self.table_records).with_reserve(tables);
        let pool = FramePool::new(memory, pagemap.altmap(), &mut self.pool_state);
        let pool = pool.up_to(table.last_frame());
        let writer = DescriptorWriter::of(pagemap, &self.model, &self.direct_map);
        let mut reordering =
            Reordering::<D, A, M>::new(pool, writer, &mut self.per_order, change);
        let prepared = reordering.prepare(&*table, change.range, change.leaf, notes);
        let replaced = prepared.and_then(|()| {
            // SAFETY: 1: frames and references were taken for this. 2: the survey has seen that all of the range
            // is this library's; the records are its own. 3: descriptors of the same memory, by either entry;
            // what they lose is what a change of orders is for.
            unsafe { table.replace(change.range, pagemap.node(), &mut reordering, &records) }
                .map_err(FoldError::from)
        });
        if replaced.is_ok() && reordering.has_huge_leaves {
            rewrite_huge_leaves(&*table, change.range, &reordering);
        }
        reordering.release_unused();
        Ok(replaced?.flushes)
    }
}

/// Makes the descriptors in the huge leaves of `range` parts of the new pages. The page table keeps such a
/// leaf, and does not ask about it.
fn rewrite_huge_leaves<D: Reshape, A: FrameAllocator, M: DirectMap, P: PageTable>(
    table: &P,
    range: VirtRange,
    reordering: &Reordering<'_, D, A, M>,
) {
    let _ = table.visit(range, &mut |visit| {
        if let Visit::Leaves { at, run } = visit
            && run.leaf.role == Role::Descriptors
            && run.leaf.block.order() != Order::BASE
        {
            reordering.unit_writer().rewrite::<D>(at, &run);
        }
        ControlFlow::Continue(())
    });
}
