//! The exchange that changes orders. The page table asks it what replaces each vmemmap page. All frames and
//! references are taken before the first question.

use super::change::Change;
use super::describe::Describe;
use super::held_tails::{HeldTail, HeldTails};
use super::survey::{Difference, Survey};
use super::target::{Kind, ORDERS, Target};
use super::to_release::ToRelease;
use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Reshape;
use crate::frame::{DirectMap, FrameAllocator, FrameStack};
use crate::paging::{PageTable, Role, Run};
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::fold::FoldError;
use crate::vmemmap::frame_pool::FramePool;
use crate::vmemmap::frames_ahead::FramesAhead;
use crate::vmemmap::note::Notes;
use crate::vmemmap::shared_tail::shared_tail;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// How many words a frame of a stack starts with.
const HEADER_WORDS: usize = FrameStack::<()>::HEADER_WORDS;

/// What a compound page needs of a tail frame of its own.
struct NextTail {
    /// The frame before the compound page.
    before: Option<Pfn>,
    /// How many references are needed.
    references: u64,
    /// Whether other entries of the compound page map such a frame already, and stay.
    is_partly_there: bool,
}

/// See the module.
pub(super) struct Reordering<'v, D, A, M> {
    pub(super) pool: FramePool<'v, A, M>,
    pub(super) writer: DescriptorWriter<'v, M>,
    pub(super) target: &'v Target<'v>,
    pub(super) describe: Describe,
    /// What is changed.
    pub(super) unit: PfnRange,
    pub(super) ahead: FramesAhead<'v, M>,
    /// Tail frames of compound pages, the first on top. Each says how many references it has.
    pub(super) tails: FrameStack<'v, M>,
    /// What no entry maps any more.
    pub(super) to_release: ToRelease<'v, M>,
    /// The tail frame of each order.
    pub(super) per_order: &'v mut HeldTails,
    /// The tail frame of the compound page that is being made, and where that starts.
    pub(super) current: Option<(Pfn, HeldTail)>,
    /// Whether all entries of tails per compound page in the unit are replaced. Then there is no need to look
    /// for a tail frame that stays.
    pub(super) all_tails_are_new: bool,
    /// Whether huge leaves map some of the unit.
    pub(super) has_huge_leaves: bool,
    /// The huge leaf that is being made: its first address and its block.
    pub(super) joining: Option<(VirtAddr, Block)>,
    /// The segment that was asked about last: its first and last address, and its kind.
    pub(super) segment: Option<(VirtAddr, VirtAddr, Kind)>,
    pub(super) descriptor: PhantomData<fn() -> D>,
}

impl<'v, D: Reshape, A: FrameAllocator, M: DirectMap> Reordering<'v, D, A, M> {
    pub(super) fn new(
        pool: FramePool<'v, A, M>,
        writer: DescriptorWriter<'v, M>,
        per_order: &'v mut HeldTails,
        change: &Change<'v>,
    ) -> Self {
        let Change {
            target,
            unit,
            describe,
            ..
        } = *change;
        per_order.clear();
        Self {
            pool,
            ahead: FramesAhead::new(writer.direct_map),
            tails: FrameStack::new(writer.direct_map),
            to_release: ToRelease::new(
                writer.direct_map,
                writer.model.granule().entries_per_table() as u64,
            ),
            writer,
            target,
            describe,
            unit,
            per_order,
            current: None,
            all_tails_are_new: false,
            has_huge_leaves: false,
            joining: None,
            segment: None,
            descriptor: PhantomData,
        }
    }

    fn survey(&self, leaf: Option<Order>, blocks: u64) -> Survey<'_, 'v, A, M> {
        Survey {
            target: self.target,
            pool: &self.pool,
            writer: &self.writer,
            leaf,
            blocks,
            keeps: self.describe.keeps(),
        }
    }

    /// What differs in `range`, the unit's vmemmap pages; see [`Survey`].
    fn difference<P: PageTable>(
        &mut self,
        table: &P,
        range: VirtRange,
        leaf: Option<Order>,
        blocks: u64,
    ) -> Difference {
        let survey = Survey {
            target: self.target,
            pool: &self.pool,
            writer: &self.writer,
            leaf,
            blocks,
            keeps: self.describe.keeps(),
        };
        survey.difference::<D, P>(table, range, Some(self.per_order))
    }

    /// Looks what the change of `range`, the unit's vmemmap pages, needs. `leaf` is the size of a huge leaf,
    /// if any is to come back: it takes blocks for these. After this, or an error, and whatever follows,
    /// [`release_unused`](Self::release_unused) gives back what was taken and not needed.
    #[inline(never)]
    pub(super) fn find<P: PageTable>(
        &mut self,
        table: &P,
        range: VirtRange,
        leaf: Option<Order>,
        notes: &mut Notes,
    ) -> Result<Difference, FoldError> {
        let found = self.difference(table, range, leaf, 0);
        if let Some(error) = found.error {
            return Err(error);
        }
        self.has_huge_leaves = found.has_huge_leaves;
        let Some(leaf) = leaf.filter(|_| found.leaves > 0) else {
            return Ok(found);
        };
        let node = self.writer.node;
        let pool = &mut self.pool;
        let blocks = self
            .ahead
            .take_blocks(pool, found.leaves, leaf, node, notes);
        self.per_order.clear();
        Ok(self.difference(table, range, Some(leaf), blocks))
    }

    /// Takes all other frames and references for what was [found](Self::find), where tail frames of compound
    /// pages are there already. Says whether anything is to be mapped otherwise than it is.
    #[inline(never)]
    pub(super) fn take(
        &mut self,
        found: &Difference,
        notes: &mut Notes,
    ) -> Result<bool, FoldError> {
        let node = self.writer.node;
        self.ahead
            .take_singles(&mut self.pool, found.own, node, notes)?;
        let any_per_order = self.take_per_order(notes)?;
        Ok(any_per_order || found.own + found.leaves + found.per_compound > 0)
    }

    /// The same, with tail frames for compound pages.
    #[inline(never)]
    pub(super) fn take_with_tails<P: PageTable>(
        &mut self,
        table: &P,
        found: &Difference,
        notes: &mut Notes,
    ) -> Result<(), FoldError> {
        let node = self.writer.node;
        let mut tails = 0;
        if found.per_compound > 0 {
            self.current = self.kept_tail(found)?;
            if self.current.is_none() {
                self.all_tails_are_new =
                    found.kept_tail.is_none() && found.per_compound == self.most_tails();
                let mut last = Some(self.unit.last());
                while let Some(next) = self.next_tail(table, last) {
                    if next.is_partly_there {
                        // That page changes by itself, and keeps its tail frame.
                        return Err(FoldError::ReserveTooSmall { node });
                    }
                    tails += u64::from(next.references > 0);
                    last = next.before;
                }
            }
        }
        let own = found.own + tails;
        self.take(&Difference { own, ..*found }, notes)?;
        match tails {
            0 => Ok(()),
            _ => self.take_tails(table),
        }
    }

    /// Takes references of the tail frame of each order. Says whether any are needed.
    #[inline(never)]
    fn take_per_order(&mut self, notes: &mut Notes) -> Result<bool, FoldError> {
        let mut any = false;
        for slot in 0..ORDERS {
            let references = self.per_order.needed(slot);
            let found = self.target.order_of(slot).filter(|_| references > 0);
            let Some((order, heads)) = found else {
                continue;
            };
            let writer = DescriptorWriter {
                order,
                heads,
                ..self.writer
            };
            let before = self.pool.registered_tail(writer.tail_key());
            let head = self.unit.start().align_down(order);
            let pool = &mut self.pool;
            let tail = shared_tail::<D, A, M>(pool, &writer, head, references, notes)?;
            if tail.references < references {
                // SAFETY: 1: the references came from this pool. 2: no entry was made for them.
                unsafe { self.pool.release_run(tail.entries()) };
                return Err(FoldError::Uncounted { frame: tail.frame });
            }
            any = true;
            self.per_order.insert(
                slot,
                HeldTail {
                    frame: tail.frame,
                    references,
                    before: before.unwrap_or(tail.frame),
                },
            );
        }
        Ok(any)
    }

    /// The tail frame that the unit keeps, if that is one compound page, with references for the entries
    /// that are to be made.
    fn kept_tail(&mut self, found: &Difference) -> Result<Option<(Pfn, HeldTail)>, FoldError> {
        let (page, _) = self.target.page_of(self.unit.start());
        let Some(frame) = found.kept_tail.filter(|_| page == self.unit) else {
            return Ok(None);
        };
        let references = found.per_compound;
        // SAFETY: 1: the frame is mapped by an entry of this library's. 2: the entries that are about to be
        // made own these.
        if !unsafe { self.pool.acquire(frame, references) } {
            return Err(FoldError::Uncounted { frame });
        }
        Ok(Some((page.start(), HeldTail::new(frame, references))))
    }

    /// How many entries of tails per compound page the unit has, if none stays.
    fn most_tails(&self) -> u64 {
        let mut tails = 0;
        let mut last = Some(self.unit.last());
        while let Some(page) =
            last.and_then(|last| self.target.compound_page_before(self.unit, last))
        {
            tails += self.target.tails_of(page);
            last = page.start().get().checked_sub(1).and_then(Pfn::new);
        }
        tails
    }

    /// What the last compound page needs that ends at `last` or before.
    fn next_tail<P: PageTable>(&self, table: &P, last: Option<Pfn>) -> Option<NextTail> {
        let page = self.target.compound_page_before(self.unit, last?)?;
        let (references, kept) = match self.all_tails_are_new {
            true => (self.target.tails_of(page), None),
            false => self.survey(None, 0).new_tails::<D, P>(table, page),
        };
        Some(NextTail {
            before: page.start().get().checked_sub(1).and_then(Pfn::new),
            references,
            is_partly_there: references > 0 && kept.is_some() && page.frames() < self.unit.frames(),
        })
    }

    /// Makes a tail frame of a frame for each compound page that needs it, with its references.
    fn take_tails<P: PageTable>(&mut self, table: &P) -> Result<(), FoldError> {
        // The first is to be on top.
        let mut last = Some(self.unit.last());
        while let Some(NextTail {
            before, references, ..
        }) = self.next_tail(table, last)
        {
            last = before;
            if references == 0 {
                continue;
            }
            let Some(frame) = self.ahead.singles.take(1).map(PfnRange::start) else {
                break;
            };
            // SAFETY: 1: the frame came from this pool. 2: the entries that are about to be made own these
            // and the one that it came with.
            let counted = references == 1 || unsafe { self.pool.acquire(frame, references - 1) };
            // SAFETY: 1: taken just now.
            unsafe {
                match counted {
                    true => self.tails.push(PfnRange::single(frame)),
                    false => self.ahead.singles.push(PfnRange::single(frame)),
                }
            }
            if !counted {
                return Err(FoldError::Uncounted { frame });
            }
            // SAFETY: the frame is this value's, and the stack's header does not reach so far.
            unsafe { self.references_in(frame).write(references) };
        }
        Ok(())
    }

    /// Where a frame of `tails` says how many references it has.
    fn references_in(&self, frame: Pfn) -> NonNull<u64> {
        let page = self.writer.direct_map.frame_pointer(frame).cast::<u64>();
        // SAFETY: a page has more than three words.
        unsafe { page.add(HEADER_WORDS) }
    }

    /// The next of `tails`.
    pub(super) fn pop_tail(&mut self) -> Option<HeldTail> {
        let frame = self.tails.take(1)?.start();
        // SAFETY: `take_tails` has written it, and nobody else uses the frame.
        let references = unsafe { self.references_in(frame).read() };
        Some(HeldTail::new(frame, references))
    }

    /// Gives back what was not needed, after [`take_with_tails`](Self::take_with_tails).
    pub(super) fn release_all(&mut self) {
        // SAFETY: 1: this value has one pool.
        unsafe { self.to_release.release(&mut self.pool) };
        while let Some(held) = self.pop_tail() {
            self.release_held(held, Role::Descriptors);
        }
        self.release_unused();
    }

    /// Gives back what was not needed, after [`take`](Self::take).
    pub(super) fn release_unused(&mut self) {
        self.release_current();
        while let Some(held) = self.per_order.pop() {
            self.release_held(held, Role::Tail);
        }
        // SAFETY: 1: it was taken of this pool, and what became entries was taken out.
        unsafe { self.ahead.release(&mut self.pool) };
    }

    /// Gives back what is left of the references of the current compound page's tail frame.
    pub(super) fn release_current(&mut self) {
        if let Some((_, held)) = self.current.take() {
            self.release_held(held, Role::Tail);
        }
    }

    fn release_held(&mut self, held: HeldTail, role: Role) {
        if held.references > 0 {
            // SAFETY: 1: the references came from this pool. 2: no entry was made for them.
            unsafe {
                self.pool
                    .release_run(Run::repeat(held.frame, held.references, role))
            };
        }
    }
}
