//! Splits what is mapped across the ends of memory that goes offline: huge leaves and shared
//! tables. Their other part stays online.
//!
//! ```text
//!   the piece                     |<----------- goes offline --------->|
//!   before       [     huge leaf      ]  ...           [    shared table, linked elsewhere too   ]
//!   after        [ table of its own   ]  ...           [          table of its own               ]
//! ```
//!
//! Entries of memory that stays online are exchanged for others with the same translations. So this
//! follows the rule of the page table for [entries in use](crate::paging::Replacement).

use super::Vmemmap;
use super::error::OfflineError;
use super::frame_pool::FramePool;
use super::memory_of;
use super::table_records::RecordsInUse;
use crate::addr::{Block, NodeId, Order, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator, OutOfFrames};
use crate::pagemap::DevPagemap;
use crate::paging::{
    Exchange, InUse, Leaf, PageTable, ReplaceError, Replacement, Role, Run, Visit,
};
use crate::readers::ReadersOf;
use core::ops::ControlFlow;

/// A huge leaf or a shared table that reaches across an end of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Straddler {
    HugeLeaf {
        at: VirtAddr,
    },
    SharedTable {
        at: VirtAddr,
        /// All of its leaves.
        run: Run,
    },
}

impl Straddler {
    /// What a visit has met, if it is a mapping: the address where it starts, all of its leaves,
    /// and what to split if it straddles an end.
    pub(super) fn of(visit: Visit) -> Option<(VirtAddr, Run, Self)> {
        match visit {
            Visit::Leaves { at, run } => Some((at, run, Self::HugeLeaf { at })),
            Visit::SharedTable { at, run, .. } => Some((at, run, Self::SharedTable { at, run })),
            Visit::Table { .. } => None,
        }
    }

    fn at(&self) -> VirtAddr {
        match self {
            Self::HugeLeaf { at } | Self::SharedTable { at, .. } => *at,
        }
    }

    /// Why the piece cannot go offline, on a page table that cannot exchange entries in use.
    fn refusal(&self) -> OfflineError {
        match self {
            Self::HugeLeaf { at } => OfflineError::SplitsHugeLeaf { at: *at },
            Self::SharedTable { at, .. } => OfflineError::SplitsSharedTable { at: *at },
        }
    }
}

/// What reaches across the first end of a piece, and across the last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Straddlers {
    first: Option<Straddler>,
    last: Option<Straddler>,
}

impl Straddlers {
    /// Records `straddler`, which maps `span`, if that reaches across an end of `range`.
    pub(super) fn meet(&mut self, straddler: Straddler, span: VirtRange, range: VirtRange) {
        if span.start() < range.start() {
            self.first = Some(straddler);
        } else if span.last() > range.last() {
            self.last = Some(straddler);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Straddler> + use<> {
        [self.first, self.last].into_iter().flatten()
    }
}

/// The exchange that splits, with the references for the copies of shared tables.
struct Split<'v, A, M> {
    pool: FramePool<'v, A, M>,
    straddlers: Straddlers,
    held: [Option<Run>; 2],
}

impl<A: FrameAllocator, M: DirectMap> Split<'_, A, M> {
    /// Takes the references for copies of shared tables. Says whether they could be counted. If
    /// not, none is held.
    fn take_references(&mut self) -> bool {
        for (slot, straddler) in self.held.iter_mut().zip(self.straddlers.iter()) {
            let Straddler::SharedTable { run, .. } = straddler else {
                continue;
            };
            // SAFETY: 1: the frame is mapped by a shared table of this library's. 2: given to the
            // copy's entries, or released by `release_unused`.
            if !unsafe { self.pool.acquire(run.leaf.block.first(), run.count) } {
                self.release_unused();
                return false;
            }
            *slot = Some(run);
        }
        true
    }

    /// Releases the references for which no copy was made.
    fn release_unused(&mut self) {
        for run in self.held.iter_mut().filter_map(Option::take) {
            // SAFETY: 1: the references were acquired by `take_references`. 2: no entry was made for them.
            unsafe { self.pool.release_run(run) };
        }
    }
}

impl<A: FrameAllocator, M: DirectMap> Exchange for Split<'_, A, M> {
    fn should_split(&self, at: VirtAddr, _leaf: Leaf) -> bool {
        self.straddlers.iter().any(|straddler| straddler.at() == at)
    }

    fn split(&mut self, block: Block) {
        // SAFETY: 1: an entry of this library's was the block's one user. 2: that entry's
        // reference; the entries that take its place own those that come of it.
        unsafe { self.pool.split(block) };
    }

    fn acquire_for_copy(&mut self, run: Run) -> bool {
        let mut held = self.held.iter_mut();
        let same = held.find(|held| **held == Some(run));
        same.and_then(Option::take).is_some()
    }

    fn exchange(&mut self, _at: VirtAddr, old: Run) -> Run {
        old
    }

    fn released(&mut self, run: Run) {
        // SAFETY: 1: the run was mapped with frames of this pool. 2: the page table reports it
        // after the flush (duty 6 of `PageTable`).
        unsafe { self.pool.release_run(run) };
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Gives the `straddlers` at the ends of `range` tables of their own, so that `range` can be
    /// unmapped alone. After an error nothing has changed.
    pub(super) fn split_straddlers<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        range: VirtRange,
        straddlers: Straddlers,
    ) -> Result<(), OfflineError> {
        let Some(first) = straddlers.iter().next() else {
            return Ok(());
        };
        if table.replacement() == Replacement::Refused {
            return Err(first.refusal());
        }
        let node = pagemap.node();
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let records = RecordsInUse::new(memory, &mut self.table_records);
        let mut split = Split {
            pool: FramePool::new(memory, pagemap.altmap(), &mut self.pool_state),
            straddlers,
            held: [None; 2],
        };
        if !split.take_references() {
            return Err(uncounted(node));
        }
        // One page at an end is enough to meet what is there.
        let page = self.model.granule().bytes();
        let range = match (straddlers.first, straddlers.last) {
            (Some(_), None) => page_of(range.start(), page).unwrap_or(range),
            (None, Some(_)) => page_of(range.last(), page).unwrap_or(range),
            _ => range,
        };
        // SAFETY: 1: the references of the new entries are those of the block, or held. 2: the
        // caller has seen that all of the range is this library's; the records are its own. 3: the new
        // entries say what the old ones do.
        let replaced = unsafe { table.replace(range, node, &mut split, &records) };
        split.release_unused();
        match replaced {
            Ok(_) => Ok(()),
            Err(ReplaceError::OutOfFrames(error)) => Err(OfflineError::OutOfFrames(error)),
            Err(ReplaceError::FrameOutOfReach(error)) => Err(OfflineError::FrameOutOfReach(error)),
            Err(ReplaceError::Refused | ReplaceError::SplitsHugeLeaf { .. }) => {
                Err(first.refusal())
            }
        }
    }

    /// Splits what reaches across an end of `frames`. Says whether nothing does any more.
    pub(super) fn split_at_ends<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> bool {
        let Some(range) = self.model.descriptors(frames) else {
            return true;
        };
        // One after the other, since nothing is known of what lies between them.
        let mut is_split = true;
        for at in [range.start(), range.last()] {
            let mut straddlers = Straddlers::default();
            if let Some((straddler, span)) = self.own_span(&*table, at, pagemap.altmap()) {
                straddlers.meet(straddler, span, range);
            }
            is_split &= self
                .split_straddlers(table, pagemap, range, straddlers)
                .is_ok();
        }
        is_split
    }

    /// `frames` without those at its ends whose descriptors are mapped by a huge leaf or a shared
    /// table that reaches further.
    pub(super) fn without_straddled_ends<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        altmap: Option<&dyn Altmap>,
    ) -> Option<PfnRange> {
        let range = self.model.descriptors(frames)?;
        let in_frames = |bytes: u64| bytes / self.model.descriptor_bytes();
        let mut rest = frames;
        if let Some((_, last)) = self.own_span(table, range.last(), altmap)
            && last.last() > range.last()
        {
            let before = last.start().get().saturating_sub(range.start().get());
            rest = rest.split_at(in_frames(before)).0?;
        }
        if let Some((_, first)) = self.own_span(table, range.start(), altmap)
            && first.start() < range.start()
        {
            let shared = first.last().get().saturating_sub(range.start().get());
            rest = rest.split_at(in_frames(shared.saturating_add(1))).1?;
        }
        Some(rest)
    }

    /// The mapping of `at`, and all addresses that it maps, if it is this library's and its frames
    /// are of RAM or of `altmap`.
    // Once for all ends: it is asked a few times in all of an operation.
    #[inline(never)]
    fn own_span<P: PageTable>(
        &self,
        table: &P,
        at: VirtAddr,
        altmap: Option<&dyn Altmap>,
    ) -> Option<(Straddler, VirtRange)> {
        let page = self.model.granule().bytes();
        let mut found = None;
        let _ = table.visit(page_of(at, page)?, &mut |visit| {
            let Some((start, run, straddler)) = Straddler::of(visit) else {
                return ControlFlow::Continue(());
            };
            let is_own = run.leaf.role != Role::Foreign
                && self
                    .pool_state
                    .altmaps
                    .other_altmap_of(&run, altmap)
                    .is_none();
            let span = VirtRange::new(start, run.pages().saturating_mul(page)).ok();
            found = span.filter(|_| is_own).map(|span| (straddler, span));
            ControlFlow::Break(())
        });
        found
    }
}

/// The page, of `page` bytes, that contains `at`.
fn page_of(at: VirtAddr, page: u64) -> Option<VirtRange> {
    VirtRange::new(VirtAddr::new(at.get() & !(page - 1)), page).ok()
}

/// The error for an allocator that cannot count the references of another table.
fn uncounted(node: NodeId) -> OfflineError {
    let order = Order::BASE;
    OfflineError::OutOfFrames(OutOfFrames { order, node })
}
