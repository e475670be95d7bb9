//! The page table, as far as the vmemmap needs it.

use super::{Flush, Leaf, Lookup, Mapping, Replace, Run, RunSink, RunSource, TableRecords};
use crate::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use crate::frame::OutOfFrames;
use core::fmt;
use core::ops::ControlFlow;

/// How many runs the default [`PageTable::unmap`] collects before it flushes.
const UNMAP_BATCH: usize = 32;

/// What [`PageTable::visit`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// An entry that links a table.
    Table {
        /// The first address below the table.
        at: VirtAddr,
        /// The table's frame.
        frame: Pfn,
        /// Whether the entries of the table are leaves of base pages.
        leaf_table: bool,
        /// Whether the entry is this library's, and owns a reference on the table.
        owned: bool,
    },
    /// An entry that links a shared leaf table: other entries may link it too, and all of its
    /// leaves are the same. The entry owns a reference on the table. The table owns one for each of
    /// its leaves. The leaves are not reported separately.
    SharedTable {
        /// The first address below the table.
        at: VirtAddr,
        /// The table's frame.
        frame: Pfn,
        /// All of its leaves.
        run: Run,
    },
    /// Consecutive leaf entries that form a run. A run may be reported in several parts.
    Leaves {
        /// The address of the first.
        at: VirtAddr,
        /// What they point at.
        run: Run,
    },
}

/// A frame that no entry of the page table can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOutOfReach {
    /// The frame, or the last one of a block or run.
    pub frame: Pfn,
    /// The last frame that an entry can hold.
    pub last: Pfn,
}

impl fmt::Display for FrameOutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame {} is behind {}, the last that an entry of the page table can hold; keep such frames from the vmemmap's allocators and altmaps",
            self.frame, self.last
        )
    }
}

impl core::error::Error for FrameOutOfReach {}

/// Why a leaf could not be entered. The entry is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// A table was needed and there was no frame for it.
    OutOfFrames(OutOfFrames),
    /// There is an entry already.
    InUse {
        /// Where.
        at: VirtAddr,
    },
    /// The leaf, or a table that an allocator gave for it, has a frame that no entry can hold. The
    /// table went back to the allocator.
    FrameOutOfReach(FrameOutOfReach),
    /// The page table has no leaf of this size here. Either `at` is not aligned to it, or no level
    /// has it.
    Unsupported {
        /// Where.
        at: VirtAddr,
        /// The size.
        order: Order,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(error) => write!(f, "no frame for a page table: {error}"),
            Self::FrameOutOfReach(error) => error.fmt(f),
            Self::InUse { at } => write!(f, "{at} is mapped already; unmap it first"),
            Self::Unsupported { at, order } => {
                write!(f, "no leaf of order {order} can be entered at {at}")
            }
        }
    }
}

impl core::error::Error for MapError {}

/// Why [`PageTable::map_runs`] ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapStopped<E> {
    /// The page table refused.
    Table {
        /// The first address that is not mapped.
        at: VirtAddr,
        /// Why.
        error: MapError,
    },
    /// The source had no run.
    Source {
        /// The first address that is not mapped.
        at: VirtAddr,
        /// What it said.
        error: E,
    },
}

impl<E> MapStopped<E> {
    /// The first address that is not mapped. The range is mapped up to it.
    pub const fn at(&self) -> VirtAddr {
        match self {
            Self::Table { at, .. } | Self::Source { at, .. } => *at,
        }
    }
}

/// The kernel's page table, as far as the vmemmap needs it.
///
/// # For callers
///
/// The records that come with calls are the same for every call on one tree: those of its vmemmap, or
/// [`NoRecords`](super::NoRecords) each time. They are for these calls alone: nobody else adds to them.
///
/// Work on runs. The kernel's lock on this part of its page tables is held for as long as the
/// `&mut` lives. Nobody else changes entries or tables of the range in that time. Readers need no
/// lock: CPUs walk the tables at all times, and they may see every intermediate state.
///
/// # For implementers
///
/// Required are the sizes of a page and a huge leaf ([`granule`](Self::granule),
/// [`huge_leaf`](Self::huge_leaf)), [`lookup`](Self::lookup), [`map_leaf`](Self::map_leaf),
/// [`clear_leaf`](Self::clear_leaf) and [`flush`](Self::flush), and to say by
/// [`Replace`](Self::Replace) how entries in use are exchanged: [`Refuse`](super::Refuse) is the
/// least, [`Direct`](super::Direct) takes one more primitive. The other methods have default bodies
/// that use these, with a walk for each page that is mapped, and one for each hole. An
/// implementation that can do better overrides them: [`RadixTable`](super::RadixTable) works on runs
/// in all of them, and flushes once per `unmap`.
///
/// Each can be overridden without the others, except for two pairs:
///
/// - Who [counts tables](Self::COUNTS_TABLES) reports the same tables by [`visit`](Self::visit). An
///   allocator whose frames become tables that are not reported answers `None` to
///   [`InspectFrames::outstanding`](crate::frame::InspectFrames::outstanding).
/// - [`share_tables`](Self::share_tables) does what [`can_share_tables`](Self::can_share_tables)
///   says, and `map_runs` and `visit` know shared tables then.
///
/// How entries in use are exchanged, and that they are, is one type.
///
/// Each leaf has a [`Role`](super::Role), which its entry has to keep: one bit for "of this
/// library", and one for a shared tail. Page-table formats have bits for software.
///
/// Values have no state of their own that a later call depends on: kernels make one each time that
/// they take their lock. What has to be remembered goes to the [`TableRecords`] that come with the
/// calls. An implementation that neither shares nor counts tables ignores them.
///
/// Tables that the implementation allocates follow the rule of
/// [`FrameAllocator`](crate::frame::FrameAllocator): a table is freed with its last entry, after
/// the flush. An implementation that keeps empty tables says so by
/// [`KEEPS_TABLES`](Self::KEEPS_TABLES).
///
/// # Safety
///
/// 1. After `map_leaf` or `map_runs` the addresses translate to exactly the frames of the leaf, in
///    pages of `granule`, and no other address's translation has changed.
/// 2. `lookup`, `visit` and `first_in_use` report what the CPU would see. They report a leaf that
///    this library did not enter as [`Role::Foreign`](super::Role::Foreign).
/// 3. When `flush` returns, no CPU translates by an entry that was changed before the obligation
///    was given.
/// 4. `unmap` and `share_tables` call `released` for an entry only when no CPU can still translate by
///    it. Nor is a table freed before, or before a record of it is removed.
/// 5. `clear_leaf` and `unmap` leave foreign entries and foreign tables as they are, and `map_leaf`
///    and `map_runs` enter nothing where an entry is in use, present or not.
pub unsafe trait PageTable {
    /// Whether tables that have become empty are kept. They then count as resident, not as leaked.
    const KEEPS_TABLES: bool = false;

    /// Whether the implementation has its tables counted by the [`TableRecords`] that come with a
    /// call. If not, statistics have none.
    const COUNTS_TABLES: bool = false;

    /// How entries in use are exchanged, which fold needs: [`Refuse`](super::Refuse),
    /// [`Direct`](super::Direct), [`BreakBeforeMake`](super::BreakBeforeMake), or a type of one's
    /// own.
    type Replace: Replace<Self>;

    /// The size of a base page.
    fn granule(&self) -> Granule;

    /// The next larger leaf after a base page, if this table can map one.
    fn huge_leaf(&self) -> Option<Order>;

    /// The last frame that an entry can hold. By default every frame number can be held. The
    /// vmemmap gives frames behind it back to where they came from, and maps none.
    fn last_frame(&self) -> Pfn {
        Pfn::MAX
    }

    /// What `at` translates to, at any level, foreign leaves included. If it translates to nothing,
    /// how far that is so: the larger the hole, the fewer calls.
    fn lookup(&self, at: VirtAddr) -> Lookup;

    /// Enters one leaf at `at`. Tables for it come from `node`. CPUs need not see it before
    /// [`entries_added`](Self::entries_added).
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing has changed, and the leaf's reference still belongs to the caller.
    ///
    /// # Safety
    ///
    /// 1. The caller may map the block, and has one reference for it. The entry owns that reference
    ///    from now on.
    /// 2. `at` is an address of the vmemmap that no other part of the kernel uses. The `records` are
    ///    [those of the tree](Self#for-callers).
    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError>;

    /// Clears the leaf that maps `at`, whole, if it is this library's, and passes its reference to
    /// the caller. Adds to `flush` what has to be flushed.
    ///
    /// Tables that have no entry any more go with it: detached now, with their addresses
    /// [added](Flush::add_detached) to `flush`, and freed by [`flush`](Self::flush). Until then
    /// those addresses may count as in use. With [`KEEPS_TABLES`](Self::KEEPS_TABLES) they stay.
    ///
    /// # Safety
    ///
    /// 1. Nobody uses the addresses of the leaf any more.
    /// 2. The reference is released only after `flush` was passed to this table's
    ///    [`flush`](Self::flush), with [the records of the tree](Self#for-callers).
    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping>;

    /// Flushes on every CPU what the obligation says, and returns when that is done. Then frees the
    /// tables that were [detached](Flush::detached), and tells the `records` of them.
    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords);

    /// Walks what is mapped in `range`, in the order of addresses, until the visitor breaks. Tables
    /// and leaves that reach across the ends of the range are reported too, as far as they lie in
    /// it. A huge leaf is reported whole. The default reports leaves only.
    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut rest = Some(range);
        while let Some(left) = rest {
            let found = self.lookup(left.start());
            if let Lookup::Mapped(mapping) = found {
                visitor(Visit::Leaves {
                    at: mapping.at,
                    run: Run::once(mapping.leaf),
                })?;
            }
            rest = left.after(found.last(left.start(), self.granule()));
        }
        ControlFlow::Continue(())
    }

    /// The first address in `range` whose entry is in use, present or not.
    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        let mut rest = Some(range);
        while let Some(left) = rest {
            match self.lookup(left.start()) {
                hole @ Lookup::Hole(_) => {
                    rest = left.after(hole.last(left.start(), self.granule()));
                }
                Lookup::Mapped(_) | Lookup::Reserved(_) => return Some(left.start()),
            }
        }
        None
    }

    /// Makes all leaves that `map_leaf` has entered in `range`, and after a break `exchange_leaf`, visible to table
    /// walks, with the links on the way to them; once for all of them. Nothing to do where a store is visible as it is.
    fn entries_added(&mut self, range: VirtRange) {
        let _ = range;
    }

    /// Enters the runs that `source` provides, from the start of `range` to its end. Tables come
    /// from `node`.
    ///
    /// # Errors
    ///
    /// [`MapStopped`]. The range is mapped up to [`MapStopped::at`], and above it nothing has
    /// changed. No table without an entry is left. Every run that was taken is mapped, or was
    /// returned to the source.
    ///
    /// # Safety
    ///
    /// 1. The caller may map the blocks that the source provides, and has a reference for each
    ///    entry. The source gives no more and no larger leaves than it is asked for.
    /// 2. `range` is whole pages of the vmemmap that no other part of the kernel uses. The `records`
    ///    are [those of the tree](Self#for-callers).
    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<S::Error>> {
        let granule = self.granule();
        let mut at = range.start();
        let mapped = loop {
            let pages = (range.last().get() - at.get()) / granule.bytes() + 1;
            let fits = |order: &Order| {
                order.frames() <= pages
                    && order
                        .bytes(granule)
                        .is_some_and(|bytes| at.is_aligned(bytes))
            };
            let largest = self.huge_leaf().filter(fits).unwrap_or(Order::BASE);
            let run = match source.next_run(at, pages, largest) {
                Ok(run) => run,
                Err(error) => break Err(MapStopped::Source { at, error }),
            };
            // SAFETY: 1: the source vouches for the run. 2: the caller vouches for the range.
            if let Err((rest, error)) = unsafe { map_run(self, at, run, node, records) } {
                let mapped = run.count - rest.count;
                source.return_unused(rest);
                let bytes = Run {
                    count: mapped,
                    ..run
                }
                .pages()
                    * granule.bytes();
                let at = VirtAddr::new(at.get().saturating_add(bytes));
                break Err(MapStopped::Table { at, error });
            }
            match at.checked_add(run.pages() * granule.bytes()) {
                Some(next) if next <= range.last() => at = next,
                _ => break Ok(()),
            }
        };
        self.entries_added(range);
        mapped
    }

    /// Whether one table can be linked from several places, which [`RunSource::share_tables`] asks
    /// for.
    fn can_share_tables(&self) -> bool {
        false
    }

    /// Merges the leaf tables in `range` whose entries are all the same tail leaf: one table
    /// remains for each such leaf. Reports what the other tables pointed at when no CPU can use
    /// them any more. Returns how many flushes that took.
    ///
    /// The default does nothing.
    ///
    /// # Safety
    ///
    /// 1. Where [`InUse::replacement`](super::InUse::replacement) is refused, nobody uses the
    ///    addresses of `range` yet: for a moment some of them are not mapped.
    /// 2. `range` is whole pages, mapped by [`map_runs`](Self::map_runs). The `records` are [those of
    ///    the tree](Self#for-callers).
    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        let _ = (range, released, records);
        0
    }

    /// Clears this library's entries of all `ranges`, flushes them on all CPUs, and only then
    /// reports to `released` what they pointed at: each leaf once, as runs or in groups. The references
    /// of what is reported, one per leaf, then belong to the callee.
    ///
    /// A huge leaf that reaches across the end of a range is cleared whole. A shared table that
    /// does so stays. [`InUse::replace`](super::InUse::replace) can split either of them first.
    ///
    /// The default collects a fixed number of runs before each flush.
    ///
    /// # Safety
    ///
    /// 1. Nobody uses addresses of the ranges any more.
    /// 2. `ranges` yields the same ranges each time it is cloned. Each is whole pages of the vmemmap.
    ///    (What is not mapped there, or foreign, is skipped.) The `records` are [those of the
    ///    tree](Self#for-callers).
    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn RunSink, records: &dyn TableRecords)
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let granule = self.granule();
        let mut batch: [Option<Run>; UNMAP_BATCH] = [None; UNMAP_BATCH];
        let mut used = 0;
        let mut flush = Flush::nothing();
        for range in ranges {
            let mut rest = Some(range);
            while let Some(left) = rest {
                let at = left.start();
                if used == UNMAP_BATCH {
                    self.flush(core::mem::take(&mut flush), records);
                    let full = batch.iter_mut().filter_map(Option::take);
                    full.for_each(|run| released.run(run));
                    used = 0;
                }
                // SAFETY: 1: the caller's duty 1. 2: runs are reported after the flush only.
                let cleared = unsafe { self.clear_leaf(at, &mut flush) };
                let found = cleared.map_or_else(|| self.lookup(at), Lookup::Mapped);
                rest = left.after(found.last(at, granule));
                if let Some(mapping) = cleared {
                    let last = batch.get_mut(used.wrapping_sub(1)).and_then(Option::as_mut);
                    if !last.is_some_and(|last| extend(last, mapping.leaf))
                        && let Some(slot) = batch.get_mut(used)
                    {
                        *slot = Some(Run::once(mapping.leaf));
                        used += 1;
                    }
                }
            }
        }
        self.flush(flush, records);
        let left = batch.iter_mut().filter_map(Option::take);
        left.for_each(|run| released.run(run));
    }
}

/// Enters the leaves of `run` from `at` on. If one could not be entered: those from it on, and why.
///
/// # Safety
///
/// As for [`PageTable::map_leaf`] with each of them.
unsafe fn map_run<T: PageTable + ?Sized>(
    table: &mut T,
    at: VirtAddr,
    run: Run,
    node: NodeId,
    records: &dyn TableRecords,
) -> Result<(), (Run, MapError)> {
    let bytes = run.leaf.block.order().frames() * table.granule().bytes();
    let mut rest = Some(run);
    let mut at = at;
    while let Some(run) = rest {
        // SAFETY: 1 and 2: the caller's.
        if let Err(error) = unsafe { table.map_leaf(at, run.leaf, node, records) } {
            return Err((run, error));
        }
        rest = run.take(1).1;
        at = VirtAddr::new(at.get().wrapping_add(bytes));
    }
    Ok(())
}

/// Adds `leaf` to `run` if it continues the run.
pub(super) fn extend(run: &mut Run, leaf: Leaf) -> bool {
    let joined = run.joined(Run::once(leaf));
    *run = joined.unwrap_or(*run);
    joined.is_some()
}
