//! Looks at what is mapped before anything is changed.

use super::error::FoldError;
use crate::addr::{Block, Order, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::model::MemoryModel;
use crate::paging::{PageTable, Role, Run, Visit};
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;
use core::ops::ControlFlow;

/// How many compound pages of a range have their tails shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// All but the head's vmemmap page is mapped to tail frames.
    pub(super) folded: u64,
    /// Every vmemmap page has a frame of its own.
    pub(super) unfolded: u64,
}

/// Why leaves cannot be folded or unfolded as asked.
#[derive(Clone, Copy, Debug)]
enum Mismatch {
    /// Their frames are another altmap's.
    Altmap(PfnRange),
    /// They are tails of another order.
    Order,
}

/// Compares what is mapped with pages of one order.
struct Surveyor<'v> {
    model: &'v MemoryModel,
    /// How many bytes of vmemmap a page of the order has.
    unit: u64,
    range: VirtRange,
    /// The first address that has not been visited; `None` after the end of the address space.
    next: Option<VirtAddr>,
    /// How many vmemmap pages of the page at `next` are mapped to tails.
    tails: u64,
    survey: Survey,
    error: Option<FoldError>,
}

impl Surveyor<'_> {
    fn refuse(&mut self, error: FoldError) -> ControlFlow<()> {
        self.error = Some(error);
        ControlFlow::Break(())
    }

    /// Visits `run` at `at`, which may have a mismatch.
    fn leaves(&mut self, at: VirtAddr, run: &Run, mismatch: Option<Mismatch>) -> ControlFlow<()> {
        let page = self.model.granule().bytes();
        let Some(mut next) = self.next.filter(|next| at <= *next) else {
            return ControlFlow::Break(());
        };
        let is_tail = run.leaf.role == Role::Tail;
        if run.leaf.role == Role::Foreign {
            return ControlFlow::Break(());
        }
        match mismatch {
            Some(Mismatch::Altmap(reserved)) => {
                return self.refuse(FoldError::OtherAltmap { reserved });
            }
            Some(Mismatch::Order) => return self.refuse(FoldError::OtherTails { at: next }),
            None => {}
        }
        let end = run.pages().saturating_mul(page).saturating_sub(1);
        let last = at.checked_add(end).unwrap_or(self.range.last());
        let last = last.min(self.range.last());
        while next <= last {
            let start = VirtAddr::new(next.get() & !(self.unit - 1));
            let unit_last = VirtAddr::new(start.get() | (self.unit - 1));
            let part_last = unit_last.min(last);
            if is_tail {
                if next == start {
                    return self.refuse(FoldError::OtherTails { at: next });
                }
                self.tails += (part_last.get() - next.get()) / page + 1;
            }
            if part_last == unit_last {
                match core::mem::take(&mut self.tails) {
                    0 => self.survey.unfolded += 1,
                    tails if tails == self.unit / page - 1 => self.survey.folded += 1,
                    _ => return self.refuse(FoldError::OtherTails { at: start }),
                }
            }
            self.next = part_last.checked_add(1);
            match self.next {
                Some(after) => next = after,
                None => break,
            }
        }
        ControlFlow::Continue(())
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Checks `range`, whole pages of `order` and whole vmemmap pages, and counts. This library
    /// must have mapped all of it, with frames of RAM or of `altmap`. Tails must be shared only
    /// within such pages, and either all of a page's tails or none.
    // Once, and not in each operation that looks first.
    #[inline(never)]
    pub(super) fn survey<P: PageTable>(
        &self,
        table: &P,
        range: VirtRange,
        order: Order,
        altmap: Option<&dyn Altmap>,
    ) -> Result<Survey, FoldError> {
        let page = self.model.granule().bytes();
        let mut surveyor = Surveyor {
            model: &self.model,
            unit: self.model.vmemmap_pages(order).saturating_mul(page),
            range,
            next: Some(range.start()),
            tails: 0,
            survey: Survey::default(),
            error: None,
        };
        let _ = table.visit(range, &mut |visit| match visit {
            Visit::Leaves { at, run } | Visit::SharedTable { at, run, .. } => {
                let other = self
                    .pool_state
                    .altmaps
                    .other_altmap_of(&run, altmap)
                    .map(Mismatch::Altmap);
                let other = other.or_else(|| {
                    let is_right = run.leaf.role != Role::Tail
                        || self.order_of_tails(run.leaf.block) == Some(order);
                    (!is_right).then_some(Mismatch::Order)
                });
                surveyor.leaves(at, &run, other)
            }
            Visit::Table { .. } => ControlFlow::Continue(()),
        });
        match (surveyor.error, surveyor.next) {
            (Some(error), _) => Err(error),
            (None, Some(at)) if at <= range.last() => Err(FoldError::NotOnline { at }),
            _ => Ok(surveyor.survey),
        }
    }

    /// The first tail after `frames` that is shared, of a compound page whose head is one of
    /// `frames`. These are online and have no shared tail.
    pub(super) fn tails_after<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
    ) -> Option<VirtAddr> {
        let order = self.descriptor(table, frames.last())?.order();
        let head = frames.last().align_down(order);
        let compound = PfnRange::new(head, order.frames()).ok()?;
        let all = self.model.descriptors(compound)?;
        let behind = all.after(self.model.descriptors(frames)?.last())?;
        self.first_tail(table, behind, order)
    }

    /// Where in `range` the first tail is that compound pages of `order` share, if one is.
    #[inline(never)]
    pub(super) fn first_tail<P: PageTable>(
        &self,
        table: &P,
        range: VirtRange,
        order: Order,
    ) -> Option<VirtAddr> {
        let mut found = None;
        let _ = table.visit(range, &mut |visit| match visit {
            Visit::Leaves { at, run } | Visit::SharedTable { at, run, .. }
                if run.leaf.role == Role::Tail
                    && self.order_of_tails(run.leaf.block) == Some(order) =>
            {
                found = Some(at.max(range.start()));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        found
    }

    /// The order of the compound pages whose tails are in `block`, which is mapped as a tail frame. None of
    /// stubs, which are those of pages whose heads are elsewhere.
    fn order_of_tails(&self, block: Block) -> Option<Order> {
        if block.order() != Order::BASE {
            return None;
        }
        let page = self.direct_map.frame_pointer(block.first()).cast::<D>();
        // SAFETY: an entry of this library's maps the frame as a tail frame, so the direct map
        // reaches it (duty 2 of `new`) and it holds descriptors of `D`'s size; descriptors
        // are only shared.
        let tail = unsafe { page.as_ref() };
        (!D::Encoding::is_stub(tail.word())).then(|| tail.order())
    }
}
