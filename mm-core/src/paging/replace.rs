//! How a page table exchanges entries in use: not at all, leaf by leaf, or in its own way.
//!
//! ```text
//!   PageTable::Replace = Refuse                     fold is refused
//!                        Direct                     needs ExchangeLeaf
//!                        BreakBeforeMake            needs ExchangeLeaf and BreakLeaf
//!                        a type of one's own        runs, huge leaves: the radix engine's
//! ```

use super::page_table::extend;
use super::{
    Exchange, Flush, FlushScope, Leaf, Lookup, PageTable, ReplaceError, Replaced, Replacement,
    Role, Run, Step, TableRecords,
};
use crate::addr::{NodeId, Order, Pfn, VirtAddr, VirtRange};

/// How many runs are exchanged for one flush.
const BATCH: usize = 32;

/// The way in which a page table `T` exchanges entries in use: its
/// [`PageTable::Replace`](super::PageTable::Replace).
///
/// What it says and what it does are one type, so that a page table cannot say that it exchanges
/// entries and not do it.
///
/// # Safety
///
/// 1. After `replace` each address of the range translates as `exchange` or `join` said last. At
///    each moment before, at which CPUs could access the address, it translated as before or as
///    after.
/// 2. `released` is called for an entry only when no CPU can still translate by it.
/// 3. Foreign entries and foreign tables are left as they are.
/// 4. A spare table is a frame that nobody else uses, with one reference, which the kernel's direct map
///    reaches until it is freed. So is one that `replace` gives to the reserve of its records, which it
///    takes only for tables.
pub unsafe trait Replace<T: ?Sized> {
    /// Whether huge leaves are split into base pages and joined from them, where the exchange says
    /// so.
    const RESIZES: bool;

    /// How entries in use can be exchanged.
    fn replacement(table: &T) -> Replacement;

    /// See [`InUse::replace`].
    ///
    /// # Errors
    ///
    /// [`ReplaceError`]; nothing has changed, and of `exchange` only [`Exchange::should_split`] was
    /// called.
    ///
    /// # Safety
    ///
    /// As for [`InUse::replace`].
    unsafe fn replace<X: Exchange>(
        table: &mut T,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError>;

    /// Whether `replace` may need tables. If so, [`take_spare_table`](Self::take_spare_table) gives some
    /// ahead. By default it needs none.
    fn takes_tables(table: &T) -> bool {
        let _ = table;
        false
    }

    /// How many levels of tables there are, the root's included. What changes of order map besides takes tables
    /// of the reserve by this many, less the root. By default 0: it takes none.
    fn levels(table: &T) -> u32 {
        let _ = table;
        0
    }

    /// A table for a later `replace`, with one reference, on `node` if there is one. It is linked nowhere
    /// and counted nowhere.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`]; by default [`Refused`](ReplaceError::Refused).
    fn take_spare_table(table: &mut T, node: NodeId) -> Result<Pfn, ReplaceError> {
        let _ = (table, node);
        Err(ReplaceError::Refused)
    }

    /// Frees a spare table. The default does nothing, since it never gave one.
    ///
    /// # Safety
    ///
    /// 1. `spare` came from [`take_spare_table`](Self::take_spare_table) of this page table, or `replace`
    ///    has given it to the reserve that came with its records. Its one reference is the caller's.
    unsafe fn free_spare_table(table: &mut T, spare: Pfn) {
        let _ = (table, spare);
    }
}

/// Entries in use of a page table, whose [`PageTable::Replace`] says how they are exchanged. Every
/// page table has these methods, and none overrides them.
pub trait InUse: PageTable {
    /// How entries in use can be exchanged.
    fn replacement(&self) -> Replacement {
        Self::Replace::replacement(self)
    }

    /// Whether huge leaves in use can be split, and made of base pages.
    fn resizes_leaves(&self) -> bool {
        Self::Replace::RESIZES && self.replacement() != Replacement::Refused
    }

    /// Whether that may need tables.
    fn takes_tables(&self) -> bool {
        Self::Replace::takes_tables(self)
    }

    /// How many levels of tables there are that come from the reserve, the root's included; 0 if none do.
    fn levels(&self) -> u32 {
        Self::Replace::levels(self)
    }

    /// Exchanges entries of `range` that are in use for what `exchange` says. New tables come from
    /// `node`.
    ///
    /// Everything that can fail comes first. Then the exchange goes from the start of the range to
    /// its end, in parts of a fixed number of runs, with one flush for each.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`]; nothing has changed, and of `exchange` only [`Exchange::should_split`] was
    /// called.
    ///
    /// What `exchange` gives with frames behind [`last_frame`](PageTable::last_frame) is not
    /// entered: it goes back by [`Exchange::released`], and the old entries stay.
    ///
    /// # Safety
    ///
    /// 1. The caller may map the blocks that `exchange` provides, and has a reference for each
    ///    entry.
    /// 2. `range` is whole pages of the vmemmap, all of them mapped by
    ///    [`map_leaf`](PageTable::map_leaf), [`map_runs`](PageTable::map_runs) or this. The `records`
    ///    are [those of the tree](PageTable#for-callers).
    /// 3. Until this returns, the old entry and the new one of an address are equally good for
    ///    readers.
    unsafe fn replace<X: Exchange>(
        &mut self,
        range: VirtRange,
        node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        // SAFETY: the caller's duties are the same.
        unsafe { Self::Replace::replace(self, range, node, exchange, records) }
    }
}

impl<T: PageTable + ?Sized> InUse for T {}

/// Entries in use are not exchanged: fold is refused.
#[derive(Clone, Copy, Debug)]
pub enum Refuse {}

// SAFETY: 1 to 3: nothing is ever exchanged.
unsafe impl<T: ?Sized> Replace<T> for Refuse {
    const RESIZES: bool = false;

    fn replacement(_table: &T) -> Replacement {
        Replacement::Refused
    }

    unsafe fn replace<X: Exchange>(
        _table: &mut T,
        _range: VirtRange,
        _node: NodeId,
        _exchange: &mut X,
        _records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        Err(ReplaceError::Refused)
    }
}

/// The one primitive that fold needs of a page table that works leaf by leaf.
///
/// # Safety
///
/// 1. Afterwards the page translates to the frame of the leaf, once what was before is flushed. No
///    other address's translation has changed.
/// 2. If the entry was present, the page translates as before or as after at each moment.
pub unsafe trait ExchangeLeaf: PageTable {
    /// Makes `leaf`, a base page, what maps the page at `at`, in place of the leaf of a base page
    /// that is there. With [`BreakBeforeMake`], that leaf was [broken](BreakLeaf::break_leaf)
    /// before. Nothing is allocated, and nothing can fail.
    ///
    /// The caller flushes. After a break it has done that before, and calls [`entries_added`](PageTable::entries_added).
    ///
    /// # Safety
    ///
    /// 1. The caller may map the frame, and has one reference for it, which the entry owns from now
    ///    on. The reference of the old entry is the caller's.
    /// 2. A leaf of this library's maps `at` as a base page, or did when it was broken.
    unsafe fn exchange_leaf(&mut self, at: VirtAddr, leaf: Leaf);
}

/// What fold needs besides, where an entry has to be made invalid before it leads elsewhere
/// (AArch64).
///
/// # Safety
///
/// 1. `quiesce` calls `work` once, with this page table, before it returns. Meanwhile no CPU accesses
///    the range, apart from what `work` does.
pub unsafe trait BreakLeaf: ExchangeLeaf {
    /// Makes the leaf of a base page at `at` not present. Its place is kept, and so are the tables
    /// on the way to it. The caller flushes.
    ///
    /// # Safety
    ///
    /// 1. The call is within [`quiesce`](Self::quiesce), for a range that contains `at`.
    /// 2. [`exchange_leaf`](ExchangeLeaf::exchange_leaf) follows before it ends.
    unsafe fn break_leaf(&mut self, at: VirtAddr);

    /// Calls `work` once, and keeps all CPUs from `range` until it returns: the kernel stops them,
    /// or lets their faults in `range` wait. `work` neither allocates nor frees.
    fn quiesce(&mut self, range: VirtRange, work: &mut dyn FnMut(&mut Self));
}

/// Base pages are exchanged one by one, by one store each ([`Replacement::Direct`]). Huge leaves
/// stay as they are: where one would have to be split, the exchange is refused.
#[derive(Clone, Copy, Debug)]
pub enum Direct {}

// SAFETY: 1: `exchange_leaf` is called for what was said, one store for each page (its duties 1 and
// 2). 2: reported after the flush. 3: only what `lookup` says is the library's is exchanged.
unsafe impl<T: ExchangeLeaf> Replace<T> for Direct {
    const RESIZES: bool = false;

    fn replacement(_table: &T) -> Replacement {
        Replacement::Direct
    }

    unsafe fn replace<X: Exchange>(
        table: &mut T,
        range: VirtRange,
        _node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let apply = |table: &mut T, batch: &Batch| {
            // SAFETY: 1: the caller's duty 1, or that of `Exchange::exchange`. 2: they were looked
            // up for the batch.
            unsafe { batch.make(table) };
            // With the flush, what was stored before it is visible.
            table.flush(batch.flush(), records);
        };
        leaf_by_leaf(table, range, exchange, apply)
    }
}

/// Base pages are exchanged one by one, invalid in between, while CPUs are kept away
/// ([`Replacement::BreakBeforeMake`]). Huge leaves stay as they are: where one would have to be
/// split, the exchange is refused.
#[derive(Clone, Copy, Debug)]
pub enum BreakBeforeMake {}

// SAFETY: 1: as for `Direct`; CPUs are kept away while an entry is invalid (duty 1 of `BreakLeaf`).
// 2: reported after the flush. 3: as for `Direct`.
unsafe impl<T: BreakLeaf> Replace<T> for BreakBeforeMake {
    const RESIZES: bool = false;

    fn replacement(_table: &T) -> Replacement {
        Replacement::BreakBeforeMake
    }

    unsafe fn replace<X: Exchange>(
        table: &mut T,
        range: VirtRange,
        _node: NodeId,
        exchange: &mut X,
        records: &dyn TableRecords,
    ) -> Result<Replaced, ReplaceError> {
        let apply = |table: &mut T, batch: &Batch| {
            let Some(all) = batch.all else { return };
            table.quiesce(all, &mut |table| {
                batch.for_each_page(|at, _| {
                    // SAFETY: 1: `all` contains it. 2: `make` follows.
                    unsafe { table.break_leaf(at) };
                });
                table.flush(batch.flush(), records);
                // SAFETY: 1: the caller's duty 1, or that of `Exchange::exchange`. 2: broken above.
                unsafe { batch.make(table) };
                table.entries_added(all);
            });
        };
        leaf_by_leaf(table, range, exchange, apply)
    }
}

/// A run of base pages without its length.
#[derive(Clone, Copy)]
struct Pages {
    first: Pfn,
    role: Role,
    writable: bool,
    step: Step,
}

impl Pages {
    const fn of(run: &Run) -> Self {
        Self {
            first: run.leaf.block.first(),
            role: run.leaf.role,
            writable: run.leaf.writable,
            step: run.step,
        }
    }

    /// The run of `count` of them.
    const fn run(self, count: u64) -> Run {
        let leaf = Leaf {
            writable: self.writable,
            ..Leaf::single(self.first, self.role)
        };
        Run {
            leaf,
            count,
            step: self.step,
        }
    }
}

/// Entries of base pages that are exchanged for others.
#[derive(Clone, Copy)]
struct Change {
    at: VirtAddr,
    old: Pages,
    new: Pages,
    count: u64,
}

impl Change {
    const fn new(at: VirtAddr, old: &Run, new: &Run) -> Self {
        Self {
            at,
            old: Pages::of(old),
            new: Pages::of(new),
            count: old.count,
        }
    }

    /// Both changes as one, if `next` continues this one.
    fn joined(&self, next: &Self, page_shift: u32) -> Option<Self> {
        if self.at.checked_add(self.count << page_shift) != Some(next.at) {
            return None;
        }
        let old = self.old.run(self.count).joined(next.old.run(next.count))?;
        let new = self.new.run(self.count).joined(next.new.run(next.count))?;
        Some(Self::new(self.at, &old, &new))
    }
}

const _: () = assert!(size_of::<Option<Change>>() <= 48);

/// The changes of one flush.
struct Batch {
    changes: [Option<Change>; BATCH],
    used: usize,
    page_shift: u32,
    /// From the first address to the last.
    all: Option<VirtRange>,
}

impl Batch {
    const fn new(page_shift: u32) -> Self {
        Self {
            changes: [None; BATCH],
            used: 0,
            page_shift,
            all: None,
        }
    }

    fn is_full(&self) -> bool {
        self.used == BATCH
    }

    fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().take(self.used).flatten()
    }

    /// The addresses of `count` pages from `at` on.
    fn span(&self, at: VirtAddr, count: u64) -> Option<VirtRange> {
        VirtRange::new(at, count << self.page_shift).ok()
    }

    fn push(&mut self, change: Change) {
        let Some(span) = self.span(change.at, change.count) else {
            return;
        };
        self.all = match self.all {
            None => Some(span),
            Some(all) => VirtRange::between(all.start(), span.last()),
        };
        let last = self.changes.get_mut(self.used.wrapping_sub(1));
        if let Some(last) = last.and_then(Option::as_mut)
            && let Some(joined) = last.joined(&change, self.page_shift)
        {
            *last = joined;
        } else if let Some(slot) = self.changes.get_mut(self.used) {
            *slot = Some(change);
            self.used += 1;
        }
    }

    fn flush(&self) -> Flush {
        let mut flush = Flush::nothing();
        let spans = self.iter().map(|one| self.span(one.at, one.count));
        spans.flatten().for_each(|span| flush.add(span));
        flush
    }

    /// Each page, and its new leaf.
    fn for_each_page(&self, mut with: impl FnMut(VirtAddr, Leaf)) {
        for change in self.iter() {
            let new = change.new.run(change.count);
            for index in 0..new.count {
                let at = change.at.checked_add(index << self.page_shift);
                if let (Some(at), Some(block)) = (at, new.block(index)) {
                    with(at, Leaf { block, ..new.leaf });
                }
            }
        }
    }

    /// Enters the new leaves.
    ///
    /// # Safety
    ///
    /// As for [`ExchangeLeaf::exchange_leaf`] with each of them.
    unsafe fn make<T: ExchangeLeaf>(&self, table: &mut T) {
        self.for_each_page(|at, leaf| {
            // SAFETY: 1 and 2: the caller's.
            unsafe { table.exchange_leaf(at, leaf) };
        });
    }
}

/// Exchanges the base pages of `range` as `exchange` says. `apply` makes the changes of a batch and
/// flushes them.
fn leaf_by_leaf<T: PageTable, X: Exchange>(
    table: &mut T,
    range: VirtRange,
    exchange: &mut X,
    apply: impl Fn(&mut T, &Batch),
) -> Result<Replaced, ReplaceError> {
    let granule = table.granule();
    if !range.is_aligned(granule.bytes()) {
        return Err(ReplaceError::Refused);
    }
    if let Some(at) = first_split(table, range, exchange) {
        return Err(ReplaceError::SplitsHugeLeaf { at });
    }
    let mut replaced = Replaced::default();
    let mut rest = Some(range);
    while rest.is_some() {
        let mut batch = Batch::new(granule.shift());
        while let Some(left) = rest
            && !batch.is_full()
        {
            rest = plan(table, left, exchange, &mut batch);
        }
        if batch.used == 0 {
            continue;
        }
        replaced.flushes += u64::from(batch.flush().scope() != FlushScope::Nothing);
        apply(table, &batch);
        for change in batch.iter() {
            exchange.released(change.old.run(change.count));
        }
    }
    Ok(replaced)
}

/// Where the first huge leaf is that has to be split.
fn first_split<T: PageTable, X: Exchange>(
    table: &T,
    range: VirtRange,
    exchange: &X,
) -> Option<VirtAddr> {
    let granule = table.granule();
    let mut rest = Some(range);
    while let Some(left) = rest {
        let found = table.lookup(left.start());
        if let Lookup::Mapped(mapping) = found
            && mapping.leaf.role != Role::Foreign
            && mapping.leaf.block.order() != Order::BASE
            && exchange.should_split(mapping.at, mapping.leaf)
        {
            return Some(mapping.at);
        }
        rest = left.after(found.last(left.start(), granule));
    }
    None
}

/// Asks `exchange` about the run at the start of `left`, until the batch is full. Answers with what
/// is left to do.
fn plan<T: PageTable, X: Exchange>(
    table: &T,
    left: VirtRange,
    exchange: &mut X,
    batch: &mut Batch,
) -> Option<VirtRange> {
    let granule = table.granule();
    let found = table.lookup(left.start());
    let own = found.mapping().filter(|mapping| {
        mapping.leaf.role != Role::Foreign && mapping.leaf.block.order() == Order::BASE
    });
    let Some(first) = own else {
        return left.after(found.last(left.start(), granule));
    };
    let mut run = Run::once(first.leaf);
    let mut rest = left.after(first.last(granule));
    while let Some(more) = rest
        && let Lookup::Mapped(next) = table.lookup(more.start())
        && next.leaf.role != Role::Foreign
        && next.leaf.block.order() == Order::BASE
        && extend(&mut run, next.leaf)
    {
        rest = more.after(next.last(granule));
    }
    let mut at = left.start();
    let mut unasked = Some(run);
    while let Some(old) = unasked {
        if batch.is_full() {
            return VirtRange::between(at, left.last());
        }
        let new = exchange.exchange(at, old);
        let (old, later) = old.take(new.count.clamp(1, old.count));
        let new = new.take(old.count).0;
        let stays = new.leaf == old.leaf && (old.count == 1 || new.step == old.step);
        if !stays && new.count == old.count && new.leaf.block.order() == Order::BASE {
            if new.last_frame() <= table.last_frame() {
                batch.push(Change::new(at, &old, &new));
            } else {
                exchange.released(new);
            }
        }
        unasked = later;
        at = VirtAddr::new(at.get().wrapping_add(old.count << granule.shift()));
    }
    rest
}
