//! Brings memory online.

use super::Vmemmap;
use super::descriptor_writer::DescriptorWriter;
use super::error::OnlineError;
use super::frame_pool::FramePool;
use super::memory_of;
use super::note::Notes;
use super::piece_source::{ExistingTail, PieceSource};
use super::plan::Plan;
use super::region::Region;
use super::table_records::RecordsInUse;
use crate::addr::{Block, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::{DevPagemap, Heads, Tables, Tails};
use crate::paging::{Leaf, MapStopped, PageTable, Role, Run, Visit};
use crate::readers::ReadersOf;
use core::ops::ControlFlow;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Brings all of `pagemap` online, piece by piece. Pieces of one compound page that shares its tails come
    /// online together.
    ///
    /// # Errors
    ///
    /// [`OnlineError`]. Tables, allocator and altmap are then as they were before the call. The
    /// same call succeeds once the cause is gone.
    pub fn online<'p, P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'p>,
    ) -> Result<Region<'p>, OnlineError> {
        self.check_parts(table, pagemap)?;
        self.check_ranges_free(table, pagemap)?;
        self.check_altmap(table, pagemap.altmap())?;
        self.prepare_all_to_publish(pagemap)?;
        let mut region = self.region_of(table, pagemap);
        let bytes = pagemap
            .ranges()
            .iter()
            .map(|range| described_bytes(pagemap, *range));
        let streams = self.streams(bytes.fold(0, u64::saturating_add));
        let mut done = 0;
        for &range in pagemap.ranges() {
            for piece in pagemap.steps_of(range) {
                let notes = &mut region.notes;
                if let Err(error) = self.populate_piece(table, pagemap, piece, streams, notes) {
                    self.undo_steps(table, pagemap, done);
                    self.free_all_bits(pagemap);
                    return Err(error);
                }
                done += 1;
            }
        }
        if region.tables == Tables::Shared && pagemap.steps_are_smaller_than_a_table() {
            for &range in pagemap.ranges() {
                // SAFETY: 1: the region is not known to anybody yet.
                unsafe { self.share_tables(table, pagemap, range) };
            }
        }
        pagemap
            .ranges()
            .iter()
            .for_each(|range| self.publish(*range));
        Ok(region)
    }

    /// Brings one piece of `pagemap` online: whole subsections within one of its ranges.
    ///
    /// Pieces come in any order, those of the reserved part of an altmap too. All pieces of a
    /// compound page share its tail frame.
    ///
    /// # Errors
    ///
    /// [`OnlineError`]. Tables, allocator and altmap are then as they were before the call.
    pub fn populate<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<Notes, OnlineError> {
        self.check_parts(table, pagemap)?;
        let plan = Plan::new(pagemap, piece, None)?;
        self.check_free(table, pagemap, piece)?;
        self.check_altmap(table, pagemap.altmap())?;
        let huge_leaf = self.huge_leaf_of(table, pagemap);
        let mut notes = Notes::for_any_piece(pagemap, huge_leaf, table.can_share_tables());
        self.note_whole_blocks(table, pagemap, &mut notes);
        let gap = pagemap.altmap_gap();
        notes.altmap_gap(gap.and_then(|gap| gap.intersection(piece)));
        let whole = self.whole_pages_with(table, pagemap, &plan, piece);
        if let Some(whole) = whole {
            self.prepare_to_publish(whole, pagemap.node())
                .map_err(OnlineError::OutOfFrames)?;
        }
        let streams = self.streams(described_bytes(pagemap, piece));
        let populated = self.populate_piece(table, pagemap, piece, streams, &mut notes);
        match (populated, whole) {
            (Ok(()), Some(whole)) => self.publish(whole),
            (Err(_), Some(whole)) => self.free_bits(whole),
            (_, None) => {}
        }
        populated.map(|()| notes)
    }

    /// Frees the frames of bits that were taken to publish `pagemap`, and were not used.
    fn free_all_bits(&mut self, pagemap: &DevPagemap<'_>) {
        for &range in pagemap.ranges() {
            self.free_bits(range);
        }
    }

    /// Takes what it needs to publish all of `pagemap`. After an error nothing has changed.
    fn prepare_all_to_publish(&mut self, pagemap: &DevPagemap<'_>) -> Result<(), OnlineError> {
        for &range in pagemap.ranges() {
            if let Err(error) = self.prepare_to_publish(range, pagemap.node()) {
                self.free_all_bits(pagemap);
                return Err(OnlineError::OutOfFrames(error));
            }
        }
        Ok(())
    }

    /// Merges equal leaf tables of `frames`, which lie within one range of `pagemap`. Returns how
    /// many flushes that took.
    ///
    /// # Safety
    ///
    /// 1. Where the page table cannot exchange entries in use, nobody uses the descriptors of
    ///    `frames` yet.
    #[inline(never)]
    pub(super) unsafe fn share_tables<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> u64 {
        let Some(range) = self.model.descriptors(frames) else {
            return 0;
        };
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let records = RecordsInUse::new(memory, &mut self.table_records);
        let mut pool = FramePool::new(memory, pagemap.altmap(), &mut self.pool_state);
        // SAFETY: 1: the caller's. 2: all of it is mapped by this library; the records are its own.
        unsafe {
            table.share_tables(
                range,
                &mut |run| {
                    // SAFETY: 1: the frames of the range came from this pool. 2: the page table reports
                    // them after the flush.
                    pool.release_run(run)
                },
                &records,
            )
        }
    }

    /// Checks that pagemap and page table belong to this vmemmap. By a page table with other pages
    /// each leaf would map more than the frame that was allocated for it, or less.
    fn check_parts<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
    ) -> Result<(), OnlineError> {
        if *pagemap.model() != self.model {
            return Err(OnlineError::OtherModel);
        }
        self.check_heads(pagemap)?;
        let (table, model) = (table.granule(), self.model.granule());
        match table == model {
            true => Ok(()),
            false => Err(OnlineError::OtherGranule { table, model }),
        }
    }

    #[inline(never)]
    fn check_ranges_free<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
    ) -> Result<(), OnlineError> {
        for &range in pagemap.ranges() {
            self.check_free(table, pagemap, range)?;
        }
        Ok(())
    }

    /// Checks that no descriptor of `frames` is mapped, and that no other altmap reserves some of
    /// them.
    fn check_free<P: PageTable>(
        &self,
        table: &P,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Result<(), OnlineError> {
        if let Some(at) = table.first_in_use(self.descriptors(frames)?) {
            return Err(OnlineError::AlreadyMapped { at });
        }
        let altmaps = &self.pool_state.altmaps;
        match altmaps.other_reserving(frames, pagemap.altmap()) {
            Some(reserved) => Err(OnlineError::Reserved { reserved }),
            None => Ok(()),
        }
    }

    /// Checks that frames may be taken from `altmap`: it is in use already, or the memory that it
    /// reserves is in no use at all. So no memory is online that descriptors are about to be
    /// written to.
    #[inline(never)]
    pub(super) fn check_altmap<P: PageTable>(
        &self,
        table: &P,
        altmap: Option<&dyn Altmap>,
    ) -> Result<(), OnlineError> {
        let altmaps = &self.pool_state.altmaps;
        let Some(altmap) = altmap.filter(|altmap| !altmaps.contains(*altmap)) else {
            return Ok(());
        };
        let reserved = altmap.reserved();
        if let Some(at) = table.first_in_use(self.descriptors(reserved)?) {
            return Err(OnlineError::AlreadyMapped { at });
        }
        match altmaps.other_reserving(reserved, None) {
            Some(reserved) => Err(OnlineError::Reserved { reserved }),
            None => Ok(()),
        }
    }

    /// Whether a call that writes so many bytes of descriptors streams them.
    fn streams(&self, bytes: u64) -> bool {
        bytes >= self.direct_map.streams_from()
    }

    fn descriptors(&self, frames: PfnRange) -> Result<VirtRange, OnlineError> {
        self.model
            .descriptors(frames)
            .ok_or(OnlineError::PieceOutside { piece: frames })
    }

    /// Brings one piece online. All of its addresses are free.
    // The deepest calls are those that take frames. What comes before and after is not inlined, so
    // that it uses no stack during those calls.
    #[inline(never)]
    fn populate_piece<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
        streams: bool,
        notes: &mut Notes,
    ) -> Result<(), OnlineError> {
        let mut plan = Plan::new(pagemap, piece, self.huge_leaf_of(table, pagemap))?;
        let range = self.descriptors(piece)?;
        let tails = pagemap.tails().0;
        if tails == Tails::PerOrder && !D::Encoding::SAME_FOR_ALL {
            return Err(OnlineError::TailsDiffer);
        }
        self.map_heads(table, pagemap, piece, notes)?;
        let writer = DescriptorWriter {
            streams,
            ..DescriptorWriter::of(pagemap, &self.model, &self.direct_map)
        };
        let found = match tails {
            Tails::PerCompound => {
                self.tails_of_other_pieces(table, &plan, &writer, piece, pagemap.altmap())
            }
            Tails::PerOrder | Tails::None => [None; 2],
        };
        let memory = memory_of(&self.model, &self.frames, &self.direct_map);
        let records = RecordsInUse::new(memory, &mut self.table_records);
        let pool = FramePool::new(memory, pagemap.altmap(), &mut self.pool_state)
            .up_to(table.last_frame());
        let mut source =
            PieceSource::<D, A, M>::new(pool, &writer, pagemap, &mut plan, &found, notes);
        source.lent = self.workers;

        // SAFETY: 1: the supply's frames are allocated for this, with a reference for each entry.
        // 2: the range is this value's alone (duty 1 of `new`), and so are the records.
        let mapped = unsafe { table.map_runs(range, pagemap.node(), &mut source, &records) };
        source.release_unused();
        mapped.map_err(|stopped| self.undo_piece(table, pagemap, piece, stopped))
    }

    /// Unmaps what was mapped of `piece` before it stopped, and returns the reason.
    #[inline(never)]
    fn undo_piece<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
        stopped: MapStopped<OnlineError>,
    ) -> OnlineError {
        let start = self.model.descriptor_address(piece.start());
        let done = start.map_or(0, |start| stopped.at().get() - start.get());
        let done = piece.split_at(done / self.model.descriptor_bytes()).0;
        self.unmap_pieces(table, pagemap.altmap(), done.as_slice().iter().copied());
        if pagemap.heads().0 == Heads::Packed {
            self.remove_heads(table, pagemap.altmap(), core::iter::once(piece));
        }
        match stopped {
            MapStopped::Table { error, .. } => error.into(),
            MapStopped::Source { error, .. } => error,
        }
    }

    /// Unmaps what came online in the first `done` steps of `pagemap`.
    #[inline(never)]
    fn undo_steps<P: PageTable>(&mut self, table: &mut P, pagemap: &DevPagemap<'_>, done: usize) {
        let done = pagemap.steps().take(done);
        self.unmap_pieces(table, pagemap.altmap(), done);
    }

    /// The existing tail frames of the compound pages that only partly lie in `piece`.
    #[inline(never)]
    fn tails_of_other_pieces<P: PageTable>(
        &self,
        table: &P,
        plan: &Plan,
        writer: &DescriptorWriter<'_, M>,
        piece: PfnRange,
        altmap: Option<&dyn Altmap>,
    ) -> [Option<ExistingTail>; 2] {
        let of = |frame: Pfn| {
            let compound = plan.compound_page(frame)?;
            if piece.contains_range(compound) {
                return None;
            }
            self.find_tail(table, writer, compound, piece, altmap)
        };
        let first = of(piece.start());
        let is_one = plan.page_of(piece.start()).contains(piece.last());
        let last = (!is_one).then(|| of(piece.last()));
        [first, last.flatten()]
    }

    /// The tail frame of `compound` that a piece other than `piece` has mapped.
    ///
    /// It looks next to the piece first, where populating piece by piece leaves it. Then it looks
    /// in the rest of the compound page, and nowhere else.
    fn find_tail<P: PageTable>(
        &self,
        table: &P,
        writer: &DescriptorWriter<'_, M>,
        compound: PfnRange,
        piece: PfnRange,
        altmap: Option<&dyn Altmap>,
    ) -> Option<ExistingTail> {
        let head = compound.start();
        let all = self.model.descriptors(compound)?;
        let own = self.model.descriptors(piece)?;
        let page = self.model.granule().bytes();
        let tails = all.after(VirtAddr::new(all.start().get() | (page - 1)))?;
        let below = tails.before(own.start());
        let above = tails.after(own.last());

        // A read-only tail belongs to all compound pages of its order, even if its bytes are those of
        // this compound page's tails. A frame of another altmap cannot be counted here.
        let is_tail = |leaf: &Leaf| {
            (leaf.role == Role::Tail
                && leaf.writable
                && self
                    .pool_state
                    .altmaps
                    .other_altmap_of(&Run::once(*leaf), altmap)
                    .is_none()
                && self.holds_tails_of(leaf.block, writer, head))
            .then_some(leaf.block.first())
        };
        let at = |at| {
            table
                .lookup(at)
                .mapping()
                .and_then(|mapping| is_tail(&mapping.leaf))
        };
        let within = |range| {
            let mut found = None;
            let _ = table.visit(range, &mut |visit| {
                if let Visit::Leaves { run, .. } | Visit::SharedTable { run, .. } = visit {
                    found = is_tail(&run.leaf);
                }
                match found {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
            found
        };
        let frame = None
            .or_else(|| below.and_then(|range| at(range.last())))
            .or_else(|| above.and_then(|range| at(range.start())))
            .or_else(|| below.and_then(within))
            .or_else(|| above.and_then(within))?;
        Some(ExistingTail { head, frame })
    }

    /// Whether `block`, mapped as a tail frame within the compound page at `head`, is the tail
    /// frame of that compound page. It may be that of a page of another order that was online
    /// there.
    fn holds_tails_of(&self, block: Block, writer: &DescriptorWriter<'_, M>, head: Pfn) -> bool {
        if block.order() != Order::BASE {
            return false;
        }
        let page = self.direct_map.frame_pointer(block.first()).cast::<D>();
        // SAFETY: an entry of this library's maps the frame as a tail frame, so the direct map
        // reaches it (duty 2 of `new`) and it holds descriptors of `D`'s size; descriptors
        // are only shared.
        let tail = unsafe { page.as_ref() };
        tail.order() == writer.order && tail.word() == writer.tail_word::<D>(head)
    }
}

/// How many bytes of descriptors have memory of their own when `frames` of `pagemap` come online: shared
/// tails of an order, and what an altmap makes base pages, apart.
fn described_bytes(pagemap: &DevPagemap<'_>, frames: PfnRange) -> u64 {
    let (model, order) = (pagemap.model(), pagemap.geometry().order());
    let pages = model.vmemmap_pages(order);
    let of_each = match pagemap.tails().0 {
        Tails::PerOrder => 1,
        Tails::PerCompound => 2,
        Tails::None => pages,
    };
    if pages < 2 {
        // Base pages, or several compound pages in one vmemmap page.
        return frames.frames().saturating_mul(model.descriptor_bytes());
    }
    (frames.frames() >> order.get()).saturating_mul(of_each * model.granule().bytes())
}
