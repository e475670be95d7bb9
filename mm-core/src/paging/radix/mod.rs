//! A radix page-table engine for any [`EntryFormat`].
//!
//! ```text
//!   root ──▶ upper table ──▶ leaf table ──▶ 512 (4K granule) descriptor frames
//!                       └──▶ huge leaf
//! ```
//!
//! - `map` walks down once for a whole range and fills one leaf table after the other with the runs
//!   of a source. It fills a new table first and links it last. So entries that it is about to
//!   write are never zeroed before, and after a failure no CPU has seen the table.
//! - `unmap` invalidates entries, flushes once, and reclaims. There is no heap, so the invalidated
//!   entries themselves keep what they pointed at. A table without other entries is detached whole,
//!   by one store.
//! - `clear` takes one leaf out, and with the last one its tables, which `flush` then frees.
//! - `replace` exchanges entries in use, with break-before-make if the MMU requires it. Leaf tables that
//!   change as a whole are built aside.
//! - `shared` links one leaf table from several places if all of its entries are the same tail
//!   leaf.
//! - `root` fills entries of the root ahead, for kernels with many roots.
//! - `visit` reads.
//! - `tables` allocates and frees the frames of tables, and has them counted.
//! - `entries` reads and writes runs of entries in memory, by `lines`, and `report` says what they pointed at. `alike` knows which tables are
//!   told by their first entries. `tree` finds the entry of each level for an address.

mod alike;
mod clear;
mod entries;
mod lines;
mod map;
mod replace;
mod report;
mod root;
mod shared;
mod tables;
mod tree;
mod unmap;
mod visit;

use super::{
    Attributes, EntryFormat, Exchange, Flush, FlushScope, Leaf, Lookup, MapError, MapStopped,
    Mapping, Mmu, NoRecords, OneRoot, PageTable, Replace, ReplaceError, Replaced, Replacement,
    Roots, Run, RunSink, RunSource, TableRecords, Visit,
};
use crate::addr::{Granule, NodeId, Order, Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use core::marker::PhantomData;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
pub use root::FillRootError;
use tables::Tables;
use tree::Tree;

/// The [`PageTable`] of a kernel that provides entry format, frames, direct map and MMU, and says
/// which other roots copy entries of its root.
///
/// The value has no state of its own. A kernel may keep it, or make one each time that it takes its
/// lock; there may be several for one tree, as long as only one of them is used at a time.
#[derive(Debug)]
pub struct RadixTable<F, A, M, U, R = OneRoot> {
    root: Pfn,
    roots: R,
    frames: A,
    direct_map: M,
    mmu: U,
    attributes: Attributes<F>,
    format: PhantomData<F>,
}

/// A table tree at work, with the records that came with the call.
struct Engine<'t, F, A, M, U, R> {
    root: Pfn,
    roots: &'t R,
    tables: Tables<'t, A>,
    records: &'t dyn TableRecords,
    direct_map: &'t M,
    mmu: &'t U,
    attributes: Attributes<F>,
    format: PhantomData<F>,
}

impl<F, A, M, U, R> RadixTable<F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// The next larger leaf after a base page, if the format has one. This is
    /// [`PageTable::huge_leaf`], known without a table.
    pub const HUGE_LEAF: Option<Order> = Tree::<F>::HUGE_LEAF;

    /// Works on the tree below `root`. New tables are allocated from `frames`. `roots` is [`OneRoot`]
    /// where no other root copies entries of `root`.
    ///
    /// # Safety
    ///
    /// 1. `root` is a root table in the format `F`, and everything that is linked below it, in the
    ///    range that this value is used for, is well formed. Tables that this library has linked
    ///    there came from `frames`.
    /// 2. `direct_map` reaches `root`, every table below it, and every frame of `frames`, in pages of
    ///    the format's granule.
    /// 3. While a method runs, nobody else changes the entries that translate the addresses that it
    ///    is called for, or the entries on the way to them (one in each table above), apart from
    ///    what hardware writes by itself. Other entries of those tables may change.
    /// 4. `mmu` stands for every CPU that uses the tree, by `root` or by another root with copies of
    ///    its entries.
    /// 5. `roots` stands for every other root that has copies of entries of `root` in the range that
    ///    this value is used for, or comes to have them.
    pub const unsafe fn new(root: Pfn, roots: R, frames: A, direct_map: M, mmu: U) -> Self {
        Self {
            root,
            roots,
            frames,
            direct_map,
            mmu,
            attributes: Attributes::new(),
            format: PhantomData,
        }
    }

    /// The same table, whose entries have `attributes`.
    ///
    /// # Safety
    ///
    /// 1. All entries of this library's below the root, now and as long as this value is used, are
    ///    made with the same attributes.
    /// 2. The direct map accesses tables as the CPUs' walks by such links do, and descriptors as CPUs
    ///    do by such leaves (where memory is encrypted: all of them by the same key).
    #[must_use]
    pub const unsafe fn with_attributes(mut self, attributes: Attributes<F>) -> Self {
        self.attributes = attributes;
        self
    }

    /// The root table.
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// The tree, for a call that came with `records`.
    fn with<'t>(&'t self, records: &'t dyn TableRecords) -> Engine<'t, F, A, M, U, R> {
        let last = self.attributes.last_frame();
        Engine {
            root: self.root,
            roots: &self.roots,
            tables: Tables::new(&self.frames, records, last, Tree::<F>::LEAVES_PER_TABLE),
            records,
            direct_map: &self.direct_map,
            mmu: &self.mmu,
            attributes: self.attributes,
            format: PhantomData,
        }
    }

    /// The tree, for a call that only reads.
    fn reader(&self) -> Engine<'_, F, A, M, U, R> {
        self.with(&NoRecords)
    }
}

impl<F, A, M, U, R> Engine<'_, F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    /// Makes CPUs forget what `obligation` says.
    fn meet(&self, obligation: &Flush) {
        if obligation.scope() != FlushScope::Nothing {
            self.mmu.flush(obligation.scope());
        }
    }

    /// Whether entries can hold all frames of `run`.
    #[inline]
    fn reaches(&self, run: &Run) -> bool {
        run.last_frame() <= self.tables.last
    }

    /// The entries of a table that CPUs may be walking.
    #[inline]
    fn live_table(&self, frame: Pfn, depth: usize) -> &[AtomicU64] {
        let entries = Tree::<F>::entries(depth);
        let first = self.direct_map.frame_pointer(frame).cast::<AtomicU64>();
        // SAFETY: duty 2 of `new`: the direct map reaches the table, one page, which holds that
        // many entries (duty 1 of `EntryFormat`); all accesses to live tables are atomic.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), entries) }
    }

    /// The entries of a table that nobody else can see.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the table, and it is linked nowhere: not yet, or no longer and flushed.
    /// 2. There is no other reference to its contents while this one lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "the table's memory is not part of this value"
    )]
    #[inline]
    unsafe fn private_table(&self, frame: Pfn, depth: usize) -> &mut [u64] {
        let entries = Tree::<F>::entries(depth);
        let first = self.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: the direct map reaches the page (duty 2 of `new`), every bit pattern is a `u64`,
        // and by 1 and 2 the contents are the caller's alone.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), entries) }
    }
}

// SAFETY: 1: `map` enters what the source gives, into entries that were free. 2: `visit` reads the
// entries as the MMU does; the format tells foreign ones. 3: `Mmu::flush`. 4: `unmap` flushes
// between invalidation and reclaim, `merge_tables` before it releases, and a record is removed before
// its table is freed. 5: only entries that decode as owned are invalidated, and only tables whose link
// is owned are detached; `map` enters only into entries that are zero.
unsafe impl<F, A, M, U, R> PageTable for RadixTable<F, A, M, U, R>
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    const COUNTS_TABLES: bool = true;

    type Replace = ByRuns;

    fn granule(&self) -> Granule {
        F::GRANULE
    }

    fn huge_leaf(&self) -> Option<Order> {
        Self::HUGE_LEAF
    }

    fn last_frame(&self) -> Pfn {
        self.attributes.last_frame()
    }

    fn lookup(&self, at: VirtAddr) -> Lookup {
        self.reader().look_up(at)
    }

    unsafe fn map_leaf(
        &mut self,
        at: VirtAddr,
        leaf: Leaf,
        node: NodeId,
        records: &dyn TableRecords,
    ) -> Result<(), MapError> {
        let bytes = Run::once(leaf).pages().saturating_mul(F::GRANULE.bytes());
        let unsupported = MapError::Unsupported {
            at,
            order: leaf.block.order(),
        };
        let range = VirtRange::new(at, bytes).map_err(|_| unsupported)?;
        let mut source = OneRun(Some(Run::once(leaf)));
        // SAFETY: 1 and 2: the caller's duties.
        match unsafe { self.with(records).fill(range, node, &mut source) } {
            Ok(()) => Ok(()),
            Err(MapStopped::Table { error, .. }) => Err(error),
            Err(MapStopped::Source { .. }) => Err(unsupported),
        }
    }

    unsafe fn clear_leaf(&mut self, at: VirtAddr, flush: &mut Flush) -> Option<Mapping> {
        self.reader().clear_entry(at, flush)
    }

    fn flush(&mut self, obligation: Flush, records: &dyn TableRecords) {
        let engine = self.with(records);
        engine.meet(&obligation);
        engine.reclaim_detached(&obligation);
    }

    fn visit(
        &self,
        range: VirtRange,
        visitor: &mut dyn FnMut(Visit) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.reader().visit_tree(range, visitor)
    }

    fn first_in_use(&self, range: VirtRange) -> Option<VirtAddr> {
        self.reader().find_in_use(range)
    }

    unsafe fn map_runs<S: RunSource>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        source: &mut S,
        records: &dyn TableRecords,
    ) -> Result<(), MapStopped<S::Error>> {
        // SAFETY: 1 and 2: the caller's duties.
        unsafe { self.with(records).fill(range, node, source) }
    }

    fn can_share_tables(&self) -> bool {
        true
    }

    unsafe fn share_tables(
        &mut self,
        range: VirtRange,
        released: &mut dyn FnMut(Run),
        records: &dyn TableRecords,
    ) -> u64 {
        match Tree::<F>::translates(range) {
            // SAFETY: 1 and 2: the caller's duties.
            true => unsafe { self.with(records).merge_tables(range, released) },
            false => 0,
        }
    }

    unsafe fn unmap<I>(&mut self, ranges: I, released: &mut dyn RunSink, records: &dyn TableRecords)
    where
        I: Iterator<Item = VirtRange> + Clone,
    {
        let mut obligation = Flush::nothing();
        for range in ranges.clone() {
            self.reader().invalidate(range, &mut obligation);
        }
        self.reader().meet(&obligation);
        for range in ranges {
            // SAFETY: 1: the flush above was for all ranges. 2: the caller's duty 1.
            unsafe { self.with(records).reclaim(range, released) };
        }
    }
}

/// The engine's way to exchange entries in use: runs of them, with huge leaves that are split and
/// joined, as [`Mmu::replacement`] says.
#[derive(Clone, Copy, Debug)]
pub enum ByRuns {}

// SAFETY: 1: `replace_entries` stores whole entries, by break-before-make or one by one as the MMU
// says. 2: it flushes before it reports. 3: only entries that decode as owned are exchanged. 4: spare tables
// are allocated as all others are; what goes to a reserve was a table, and is linked nowhere.
unsafe impl<F, A, M, U, R> Replace<RadixTable<F, A, M, U, R>> for ByRuns
where
    F: EntryFormat,
    A: FrameAllocator,
    M: DirectMap,
    U: Mmu<F>,
    R: Roots,
{
    const RESIZES: bool = true;

    fn replacement(table: &RadixTable<F, A, M, U, R>) -> Replacement {
        table.mmu.replacement()
    }

    unsafe fn replace<X: Exchange>(
        table: &mut RadixTable<F, A, M, U, R>,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let engine = table.with(records);
        // SAFETY: 1 to 3: the caller's duties.
        unsafe {
            match X::has_spans() {
                true => engine.replace_entries::<true>(range, node, exchange),
                false => engine.replace_entries::<false>(range, node, exchange),
            }
        }
    }

    fn takes_tables(_table: &RadixTable<F, A, M, U, R>) -> bool {
        true
    }

    fn levels(_table: &RadixTable<F, A, M, U, R>) -> u32 {
        F::LEVELS.len() as u32
    }

    fn take_spare_table(
        table: &mut RadixTable<F, A, M, U, R>,
        node: NodeId,
    ) -> Result<Pfn, ReplaceError> {
        Ok(table.reader().tables.allocate(node)?)
    }

    unsafe fn free_spare_table(table: &mut RadixTable<F, A, M, U, R>, spare: Pfn) {
        // SAFETY: 1: it came from there, and its one reference is the caller's.
        unsafe { table.reader().tables.give_back(spare) };
    }
}

/// The source of a single run.
struct OneRun(Option<Run>);

/// The single run was taken already.
struct Exhausted;

impl RunSource for OneRun {
    type Error = Exhausted;

    fn next_run(&mut self, _: VirtAddr, _: u64, _: Order) -> Result<Run, Exhausted> {
        self.0.take().ok_or(Exhausted)
    }

    fn return_unused(&mut self, run: Run) {
        self.0 = Some(run);
    }
}

/// Stores an entry of a table that may be live.
#[inline]
fn store(slot: &AtomicU64, entry: u64) {
    slot.store(entry, Ordering::Release);
}

/// Loads an entry of a table that may be live.
#[inline]
fn load(slot: &AtomicU64) -> u64 {
    slot.load(Ordering::Acquire)
}
