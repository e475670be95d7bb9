//! Changes of order by the reserve, beside readers: all of a part, and a part of a page.
//!
//! ```text
//!   whole       1G ▶ 2M ▶ 4K ▶ 2M ▶ 1G
//!   a part      1G ▶ 2M out of it, the rest as large as fits ▶ 4K out of that ▶ 1G
//!   a mixture   the same ▶ offline as it is ▶ online again
//! ```
//!
//! Each step asks for another policy. Pages whose heads are packed keep their order. Within a change no frame is handed out: the allocator refuses.

use super::owner::{MOST_STAMPS, Owner};
use super::reader::Numbers;
use super::shared::{Orders, Part};
use super::wrong::Wrong;
use crate::{Case, Frames};
use core::sync::atomic::Ordering;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::DirectMap;
use mm_core::pagemap::{DevPagemap, Heads, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::readers::{GracePeriod, Kernel};

/// Which changes of order there are for the pages of a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrderChanges<'c> {
    case: &'c Case,
    frames: &'c Frames<'c>,
    /// To which orders pages go, one after the other.
    to: [Option<Order>; 2],
    /// How many there were, and how many steps of them.
    done: u64,
    steps: u64,
}

impl<'c> OrderChanges<'c> {
    /// Those of `case`, whose parts have `part` frames. `smaller` is the other size of compound pages.
    /// Frames come from `frames`.
    pub(super) fn of(case: &'c Case, smaller: Order, part: u64, frames: &'c Frames<'c>) -> Self {
        let to = match case.order {
            _ if case.heads == Heads::Packed => [None; 2],
            Order::BASE => [Some(smaller).filter(|order| order.frames() <= part), None],
            order if order > smaller => [Some(smaller), Some(Order::BASE)],
            _ => [Some(Order::BASE), None],
        };
        Self {
            case,
            frames,
            to,
            done: 0,
            steps: 0,
        }
    }

    /// What a step asks for: each combination in turn.
    fn policy<E: TailEncoding>(&mut self) -> (Tails, Tables) {
        let all = [Tails::PerCompound, Tails::None, Tails::PerOrder];
        let count = if E::SAME_FOR_ALL { 3 } else { 2 };
        let step = self.steps;
        self.steps += 1;
        let tables = [Tables::Shared, Tables::Private];
        let tables = tables[usize::from((step / count).is_multiple_of(2))];
        let tails = all.into_iter().nth((step % count) as usize);
        (tails.unwrap_or(Tails::None), tables)
    }
}

impl<E, T, M, K> Owner<'_, '_, '_, '_, E, T, M, K>
where
    E: TailEncoding,
    T: PageTable,
    M: DirectMap + Sync,
    K: Kernel,
{
    /// Pages of the part become pages of other orders, and come back or go offline as they are.
    pub(super) fn reorder(
        &mut self,
        part: &Part,
        numbers: &mut Numbers,
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        let OrderChanges { case, done, to, .. } = self.order_changes;
        self.order_changes.done += 1;
        let own = case.order;
        let [Some(first), second] = to else {
            return Ok(());
        };
        let largest = own.max(first);
        let is_whole = done.is_multiple_of(3);
        let mut whole = part.frames;
        if is_whole {
            part.begins_to_change([own].into_iter().chain(to.into_iter().flatten()).collect());
            self.reorder_to(part, whole, first, watch)?;
            // Very many pages, so once.
            if let Some(second) = second.filter(|_| done == 0) {
                self.reorder_to(part, whole, second, watch)?;
                self.reorder_to(part, whole, first, watch)?;
            }
        } else {
            whole = one_of(whole, largest, numbers);
            let mut frames = whole;
            part.begins_to_change(Orders::up_to(largest));
            for order in to.into_iter().flatten() {
                frames = one_of(frames, order, numbers);
                self.reorder_to(part, frames, order, watch)?;
            }
        }
        if done % 3 == 2 {
            // By both ways to go offline beside readers.
            let kind = if done.is_multiple_of(2) { 4 } else { 3 };
            self.until_done(watch, |owner| Ok(u64::from(!owner.round(part, kind)?)))?;
            self.mixtures += 1;
        } else {
            let (pagemap, policy) = (*self.pagemap, (case.tails, case.tables));
            self.reorder_by(&pagemap, whole, policy, watch)?;
            self.stamp(part)?;
        }
        part.has_changed();
        self.vmemmap.empty_reserve(self.table);
        self.reorders += 1;
        Ok(())
    }

    /// `frames` become pages of `order`, by the next policy, and get stamps, and so do those around them.
    fn reorder_to(
        &mut self,
        part: &Part,
        frames: PfnRange,
        order: Order,
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        let policy = self.order_changes.policy::<E>();
        let case = Case {
            order,
            ..*self.order_changes.case
        };
        let pagemap = case.pagemap(self.vmemmap.model());
        let pagemap = pagemap.map_err(Wrong::Pagemap)?;
        self.reorder_by(&pagemap, frames, policy, watch)?;
        if frames.frames() / order.frames() <= MOST_STAMPS {
            let around = frames.start().align_down(self.order_changes.case.order);
            let before = frames.start().get() - around.get();
            let around = PfnRange::new(around, frames.frames() + before);
            self.stamp_mixture(part, around.unwrap_or(frames))?;
        }
        // There is a moment in which readers find all stamps.
        self.kernel.grace().wait();
        part.loses_stamps();
        Ok(())
    }

    /// `frames` become pages as `pagemap` and the policy say, with frames of the reserve.
    fn reorder_by(
        &mut self,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
        (tails, tables): (Tails, Tables),
        watch: &dyn Fn() -> bool,
    ) -> Result<(), Wrong> {
        let pagemap = pagemap.with_tails(tails).with_tables(tables);
        let largest = self
            .order_changes
            .case
            .order
            .max(pagemap.geometry().order());
        let table = &mut *self.table;
        let needed = self
            .vmemmap
            .reserve_needed(table, &pagemap, frames, largest);
        let filled = self.vmemmap.fill_reserve(table, pagemap.node(), needed);
        let _ = filled.map_err(Wrong::Fold)?;
        let allocator = self.order_changes.frames.allocator();
        allocator.set_call_limit(Some(0));
        let done = self.until_done(watch, |owner| {
            // SAFETY: 1: the duties of `reader`, as in `run_case`; the owner's references are this value's, which
            // does not use them.
            let changed = unsafe {
                owner
                    .vmemmap
                    .reorder_beside_readers(owner.table, &pagemap, frames, (1, 1))
            };
            let changed = changed.map_err(Wrong::Fold)?;
            match changed.error {
                Some(error) => Err(Wrong::Fold(error)),
                None => Ok(changed.busy),
            }
        });
        allocator.set_call_limit(None);
        done
    }

    /// Writes the stamp of each page of `frames`, as they are listed, and readers find the same.
    fn stamp_mixture(&self, part: &Part, frames: PfnRange) -> Result<(), Wrong> {
        for page in self.vmemmap.pages(&*self.table, frames) {
            let first = page.first;
            let reading = self.shared.reader.enter();
            let found = reading.page_of(first);
            let found = found.ok_or(Wrong::NotFound { frame: first })?;
            if (found.first(), found.order()) != (first, page.order) {
                return Err(Wrong::Page {
                    frame: first,
                    found: (found.first(), found.order()),
                });
            }
            let stamp = part.stamp(first);
            found.head().owner().store(stamp, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// One of the pages of `order` that `frames` can be.
fn one_of(frames: PfnRange, order: Order, numbers: &mut Numbers) -> PfnRange {
    let page = order.frames();
    let pages = (frames.frames() / page).max(1);
    let first: Pfn = frames.start().saturating_add(numbers.below(pages) * page);
    PfnRange::new(first, page).unwrap_or(frames)
}
