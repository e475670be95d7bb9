//! A change of what a unit of memory is mapped to, with everything that it takes.

use super::describe::{Describe, UnitWriter};
use super::keep::Keeping;
use super::reordering::Reordering;
use super::target::Target;
use crate::addr::{Order, PfnRange, VirtRange};
use crate::descriptor::{Descriptor, Reshape};
use crate::frame::{DirectMap, FrameAllocator, FrameReserve};
use crate::pagemap::DevPagemap;
use crate::paging::{InUse, PageTable, Replaced, Role, TableReserve, Visit};
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
}

/// What a change took.
#[derive(Clone, Copy, Debug)]
pub(in crate::vmemmap) struct Changed {
    pub(in crate::vmemmap) flushes: u64,
    /// How many compound pages keep all of their frames because the allocator cannot count the references of
    /// a tail frame.
    pub(in crate::vmemmap) uncounted: u64,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Makes `change`, wholly or not at all. All that it takes comes from the reserve, and what it frees goes
    /// there; where it `KEEPS` the frames that are there, as [`Describe::keeps`] says too, all is the
    /// allocator's.
    // By a constant: a kernel that only folds has no code of the reserve and of tables aside.
    // Not inlined: what comes before it needs no stack meanwhile.
    #[inline(never)]
    pub(in crate::vmemmap) fn change<P: PageTable, const KEEPS: bool>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        change: &Change<'_>,
        notes: &mut Notes,
    ) -> Result<Changed, FoldError>
    where
        D: Reshape,
    {
        let reserve;
        let frames: &dyn FrameReserve;
        let mut memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let mut tables: Option<&dyn TableReserve> = None;
        if !KEEPS {
            // SAFETY: 1: `fill_reserve` has allocated what is in it, and everything else there came from the
            // operations of this vmemmap on this page table (duty 3 of `new`). Duty 2 of `new`.
            let all =
                unsafe { FromReserve::new(&self.frames, &self.direct_map, &mut self.reserve) };
            reserve = all.splitting_blocks(change.describe == Describe::Frozen);
            frames = &reserve;
            // SAFETY: 1: as above.
            memory = unsafe { memory.with_reserve(&frames) };
            tables = Some(&reserve);
        }
        let records = RecordsInUse::new(memory, &mut self.table_records).with_reserve(tables);
        let pool = FramePool::new(memory, pagemap.altmap(), &mut self.pool_state);
        let pool = pool.up_to(table.last_frame());
        let writer = DescriptorWriter::of(pagemap, &self.model, &self.direct_map);
        let mut reordering = Reordering::<D, A, M>::new(pool, writer, &mut self.per_order, change);
        let (range, node) = (change.range, pagemap.node());
        let found = reordering.find(&*table, range, change.leaf, notes);
        let mut uncounted = 0;
        // SAFETY, of both: 1: frames and references were taken for this. 2: the survey has seen that all of the
        // range is this library's; the records are its own. 3: descriptors of the same memory, by either entry;
        // what they lose is what a change of orders is for.
        let replaced = match found {
            Err(error) => Err(error),
            Ok(found) if KEEPS => match reordering.take(&found, notes) {
                Err(error) => Err(error),
                Ok(false) => Ok(Replaced::default()),
                Ok(true) => {
                    let mut keeping = Keeping::new(&mut reordering);
                    // SAFETY: see above.
                    let replaced = unsafe { table.replace(range, node, &mut keeping, &records) };
                    uncounted = keeping.uncounted;
                    replaced.map_err(FoldError::from)
                }
            },
            Ok(found) => match reordering.take_with_tails(&*table, &found, notes) {
                Err(error) => Err(error),
                Ok(()) => {
                    // SAFETY: see above.
                    let replaced = unsafe { table.replace(range, node, &mut reordering, &records) };
                    replaced.map_err(FoldError::from)
                }
            },
        };
        if KEEPS {
            reordering.release_unused();
        } else {
            if replaced.is_ok() && reordering.has_huge_leaves {
                let writer = reordering.unit_writer();
                rewrite_descriptors::<D, M, P>(&*table, range, &writer, Leaves::Huge);
            }
            reordering.release_all();
        }
        Ok(Changed {
            flushes: replaced?.flushes,
            uncounted,
        })
    }
}

/// Which leaves are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmemmap) enum Leaves {
    All,
    /// The page table keeps such a leaf, and does not ask about it.
    Huge,
}

/// Makes the descriptors in `leaves` of `range`, each in a frame of its own, parts of the new pages.
#[inline(never)]
pub(in crate::vmemmap) fn rewrite_descriptors<D: Reshape, M: DirectMap, P: PageTable>(
    table: &P,
    range: VirtRange,
    writer: &UnitWriter<'_, M>,
    leaves: Leaves,
) {
    let _ = table.visit(range, &mut |visit| {
        if let Visit::Leaves { at, run } = visit
            && run.leaf.role == Role::Descriptors
            && (leaves == Leaves::All || run.leaf.block.order() != Order::BASE)
        {
            writer.rewrite::<D>(at, &run);
        }
        ControlFlow::Continue(())
    });
}
