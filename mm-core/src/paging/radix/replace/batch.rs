//! Changes that are made together, for one flush.

use super::old_run::{OldRun, write};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::radix::tree::Tree;
use crate::paging::radix::{Engine, load, store};
use crate::paging::{Entry, EntryFormat, Flush, FlushScope, Mmu, Replacement, Roots, Run, Step};
use core::mem::size_of;
use core::sync::atomic::AtomicU64;

/// How many changes are made for one flush.
const BATCH: usize = 32;

/// One change of entries in use.
#[derive(Clone, Copy)]
pub(in crate::paging::radix) enum Change {
    /// Leaves of base pages in one table. When they are not `live`, they have been written already
    /// to a table that this batch links.
    Leaves {
        at: VirtAddr,
        old: u64,
        new: u64,
        count: u16,
        old_step: Step,
        new_step: Step,
        live: bool,
    },
    /// A huge leaf becomes a link to `table`.
    Split { at: VirtAddr, table: Pfn },
    /// A link to the leaf table `old` becomes one to `table`, which says the same, but for what has
    /// been written to it.
    Relink {
        at: VirtAddr,
        old: Pfn,
        table: Pfn,
        shared: bool,
    },
    /// A link to `table` becomes the huge leaf `new`.
    Join { at: VirtAddr, table: Pfn, new: u64 },
    /// The link or huge leaf `old` becomes a link to `table`, which was built aside. What both map alike
    /// has moved from one to the other, unless `table` is shared.
    Aside {
        at: VirtAddr,
        old: u64,
        table: Pfn,
        shared: bool,
    },
}

static_assertions::const_assert!(size_of::<Option<Change>>() == 32);

impl Change {
    /// Whether an entry above base pages is, or was, a link to a table.
    const fn is_of_links(&self) -> bool {
        match self {
            Self::Leaves { .. } => false,
            Self::Split { .. } | Self::Relink { .. } | Self::Join { .. } | Self::Aside { .. } => {
                true
            }
        }
    }
}

/// The changes of one flush.
pub(in crate::paging::radix) struct Batch {
    changes: [Option<Change>; BATCH],
    used: usize,
    /// A table that is to be linked by the batch, and what it will translate.
    pub(super) unlinked: Option<(VirtRange, Pfn)>,
}

impl Batch {
    pub(in crate::paging::radix) const fn new() -> Self {
        Self {
            changes: [None; BATCH],
            used: 0,
            unlinked: None,
        }
    }

    pub(in crate::paging::radix) fn is_full(&self) -> bool {
        self.used == BATCH
    }

    pub(in crate::paging::radix) fn push(&mut self, change: Change) {
        if let Some(slot) = self.changes.get_mut(self.used) {
            *slot = Some(change);
            self.used += 1;
        }
    }

    pub(in crate::paging::radix) fn iter(&self) -> impl Iterator<Item = Change> + '_ {
        self.changes.iter().take(self.used).copied().flatten()
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
    /// Makes the changes of `batch` by `rule` and makes CPUs forget what was before. Says whether
    /// there was anything to do. Where entries in use must not be exchanged, nobody uses these.
    pub(in crate::paging::radix) fn apply(&self, batch: &Batch, rule: Replacement) -> bool {
        let mut obligation = Flush::nothing();
        let mut all: Option<VirtRange> = None;
        for change in batch.iter() {
            let Some(span) = span_of::<F>(&change) else {
                continue;
            };
            obligation.add(span);
            if change.is_of_links() {
                obligation.note_links();
            }
            all = match all {
                None => Some(span),
                Some(all) => {
                    VirtRange::between(all.start().min(span.start()), all.last().max(span.last()))
                }
            };
        }
        let Some(all) = all.filter(|_| obligation.scope() != FlushScope::Nothing) else {
            return false;
        };
        self.mmu.publish();
        let make = || {
            for change in batch.iter() {
                self.make(change);
            }
        };
        let break_and_make = || {
            for change in batch.iter() {
                self.break_entries(change);
            }
            self.mmu.flush(obligation.scope());
            make();
            self.mmu.entries_added(all);
        };
        match rule {
            Replacement::Direct => {
                // With the flush, what was stored before it is visible.
                make();
                self.mmu.flush(obligation.scope());
            }
            Replacement::BreakBeforeMake => self.mmu.quiesce(all, &mut || break_and_make()),
            Replacement::Refused => break_and_make(),
        }
        true
    }

    /// Makes the old entries of `change` not present.
    fn break_entries(&self, change: Change) {
        match change {
            Change::Leaves { live: false, .. } => {}
            Change::Leaves { at, count, .. } => {
                for slot in self.leaf_slots(at).iter().take(usize::from(count)) {
                    store(slot, F::invalidated(load(slot)));
                }
            }
            Change::Split { at, .. }
            | Change::Relink { at, .. }
            | Change::Join { at, .. }
            | Change::Aside { at, .. } => {
                if let Some(slot) = self.slot_above(at) {
                    store(slot, F::invalidated(load(slot)));
                    if Self::HUGE_LEAF_DEPTH == 0 {
                        // SAFETY: 1: the roots are this engine's, and its own entry is invalidated above.
                        unsafe { self.roots.entry_removed(at) };
                    }
                }
            }
        }
    }

    /// Stores the new entries of `change`.
    fn make(&self, change: Change) {
        let (at, new) = match change {
            Change::Leaves { live: false, .. } => return,
            Change::Leaves {
                at,
                new,
                count,
                new_step,
                ..
            } => return write::<F>(self.leaf_slots(at), new, new_step, count),
            Change::Split { at, table } => (at, self.attributes.table(table, false)),
            Change::Relink {
                at, table, shared, ..
            }
            | Change::Aside {
                at, table, shared, ..
            } => (at, self.attributes.table(table, shared)),
            Change::Join { at, new, .. } => (at, new),
        };
        if let Some(slot) = self.slot_above(at) {
            store(slot, new);
            if Self::HUGE_LEAF_DEPTH == 0 {
                // SAFETY: 1: the roots are this engine's, and the entry is stored above.
                unsafe { self.roots.entry_installed(at) };
            }
        }
    }

    /// Reports what the old entries of `change` pointed at. No CPU translates by them any more.
    // What was built aside is only looked at where there are spans. Not inlined, for the stack.
    #[inline(never)]
    pub(in crate::paging::radix) fn release_old<const SPANS: bool>(
        &self,
        change: Change,
        released: &mut dyn FnMut(Run),
    ) {
        match change {
            Change::Split { .. } => {}
            Change::Aside {
                old, table, shared, ..
            } => {
                if SPANS {
                    self.release_aside(old, table, shared, released);
                }
            }
            Change::Relink { old: table, .. } | Change::Join { table, .. } => {
                self.release_table(Tree::<F>::LEAF_DEPTH, table, &mut &mut *released);
            }
            Change::Leaves {
                old,
                count,
                old_step: step,
                ..
            } => {
                let old = OldRun {
                    entry: old,
                    step,
                    count,
                };
                if let Some(run) = old.run(&self.attributes) {
                    released(run);
                }
            }
        }
    }

    /// The entry that links the leaf table for `at`, or is the huge leaf for it.
    pub(in crate::paging::radix) fn slot_above(&self, at: VirtAddr) -> Option<&AtomicU64> {
        let mut frame = self.root;
        for depth in 0..Self::HUGE_LEAF_DEPTH {
            let slot = self
                .live_table(frame, depth)
                .get(Tree::<F>::index(depth, at))?;
            match self.attributes.decode(load(slot), depth) {
                Entry::Table { frame: next, .. } => frame = next,
                _ => return None,
            }
        }
        self.live_table(frame, Self::HUGE_LEAF_DEPTH)
            .get(Tree::<F>::index(Self::HUGE_LEAF_DEPTH, at))
    }

    /// The entries of the leaf table for `at`, from that of `at` on.
    fn leaf_slots(&self, at: VirtAddr) -> &[AtomicU64] {
        let depth = Tree::<F>::LEAF_DEPTH;
        let slot = self.slot_above(at);
        match slot.map(|slot| self.attributes.decode(load(slot), Self::HUGE_LEAF_DEPTH)) {
            Some(Entry::Table { frame, .. }) => self
                .live_table(frame, depth)
                .get(Tree::<F>::index(depth, at)..)
                .unwrap_or_default(),
            _ => &[],
        }
    }
}

/// The addresses that have to be flushed for `change`.
fn span_of<F: EntryFormat>(change: &Change) -> Option<VirtRange> {
    match *change {
        Change::Leaves { live: false, .. } => None,
        Change::Leaves { at, count, .. } => {
            VirtRange::new(at, u64::from(count) << F::GRANULE.shift()).ok()
        }
        Change::Split { at, .. }
        | Change::Relink { at, .. }
        | Change::Join { at, .. }
        | Change::Aside { at, .. } => {
            VirtRange::between(at, Tree::<F>::last(Tree::<F>::LEAF_DEPTH - 1, at))
        }
    }
}
