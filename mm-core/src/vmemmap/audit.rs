//! Checks that every entry owns one reference, and that every reference belongs to an entry.

mod bits_seen;
mod report;
mod totals;

pub use report::{AuditReport, Finding};

use super::Vmemmap;
use super::table_records::TableFigures;
use crate::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, InspectFrames};
use crate::paging::{PageTable, Role, Run, Step, Visit};
use crate::readers::ReadersOf;
use bits_seen::BitsSeen;
use core::ops::ControlFlow;
use totals::Totals;

/// Scratch memory of an audit, for one frame: at most 32 bytes. Contents do not matter, so
/// `[AuditSlot::default(); 256]` is some.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditSlot(Option<FrameEntries>);

#[derive(Clone, Copy, Debug)]
struct FrameEntries {
    frame: Pfn,
    at: VirtAddr,
    /// None of a shared table that was compared: its slot can be used again.
    entries: u64,
    shared_table: bool,
}

/// How the frames are divided into those of one walk.
#[derive(Clone, Copy, Debug)]
struct Passes {
    /// Each pass is about a part of all frames but shared tables. It counts the leaves of a shared
    /// table with the tail frame, whichever table that is.
    of_frames: u64,
    /// Within a pass, each walk is about a part of the shared tables.
    of_tables: u64,
}

/// How many walks there are at most. More would never end.
const MOST_WALKS: u64 = 1 << 20;

/// What did not fit into the scratch memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooMany {
    Frames,
    SharedTables,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Walks all of the vmemmap once and counts the entries that point at each frame. Compares them
    /// with the counts of `allocators` (RAM and altmaps; the first that knows a frame decides), and
    /// with [`stats`](Self::stats). Foreign entries are not counted.
    ///
    /// `allocators` are the one that the vmemmap was made with, and the altmaps that are in use.
    ///
    /// The only memory that it needs is `scratch`, at least two slots. With fewer slots than there
    /// are frames, it walks several times: with half as many, twice.
    ///
    /// ```
    /// use mm_core::descriptor::{Mask, Page};
    /// use mm_core::frame::{DirectMap, FrameAllocator, InspectFrames};
    /// use mm_core::paging::PageTable;
    /// use mm_core::vmemmap::{AuditSlot, Finding, Vmemmap};
    ///
    /// /// How many frames the vmemmap has. `frames` is what it was made with.
    /// fn audited<A: FrameAllocator + InspectFrames, M: DirectMap, P: PageTable>(
    ///     vmemmap: &Vmemmap<Page<Mask>, &A, M>,
    ///     table: &P,
    ///     frames: &A,
    /// ) -> Result<u64, Finding> {
    ///     // 8 KiB of the stack.
    ///     let mut scratch = [AuditSlot::default(); 256];
    ///     Ok(vmemmap.audit(table, &[frames], &mut scratch)?.frames())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The first [`Finding`]. It is a bug in this library, the allocator or the page table.
    pub fn audit<P: PageTable>(
        &self,
        table: &P,
        allocators: &[&dyn InspectFrames],
        scratch: &mut [AuditSlot],
    ) -> Result<AuditReport, Finding> {
        let mut totals = Totals::default();
        let mut next = Some(NodeId::new(0));
        // Where there are many nodes, the figures of a few of them are compared in each walk.
        while let Some(from) = next {
            next = self.list_nodes(from, &mut totals);
            self.recount(table, allocators, scratch, &mut totals)?;
            self.compare_stats::<P>(&totals)?;
        }
        let report = totals.all;
        let known: Option<u64> = allocators.iter().map(|one| one.outstanding()).sum();
        match known {
            Some(outstanding) if outstanding != report.allocated() => Err(Finding::Leaked {
                outstanding,
                reached: report.allocated(),
            }),
            _ => Ok(report),
        }
    }

    /// Counts everything, in as many walks as the scratch memory makes necessary.
    fn recount<P: PageTable>(
        &self,
        table: &P,
        allocators: &[&dyn InspectFrames],
        scratch: &mut [AuditSlot],
        totals: &mut Totals,
    ) -> Result<(), Finding> {
        let mut passes = Passes {
            of_frames: 1,
            of_tables: 1,
        };
        while let Some(many) = self.audit_in_passes(table, allocators, scratch, passes, totals)? {
            match many {
                TooMany::Frames => passes.of_frames *= 2,
                TooMany::SharedTables => passes.of_tables *= 2,
            }
            // A shared table and its tail need a slot each.
            if passes.of_frames * passes.of_tables > MOST_WALKS || scratch.len() < 2 {
                return Err(Finding::NoScratch);
            }
        }
        self.recount_beside_the_vmemmap(allocators, totals)
    }

    /// Counts the frames that no entry points at: those of marks, of counts, of records and of the
    /// reserve. Those of the online map were counted in the walk.
    #[inline(never)]
    fn recount_beside_the_vmemmap(
        &self,
        allocators: &[&dyn InspectFrames],
        totals: &mut Totals,
    ) -> Result<(), Finding> {
        for (frame, at) in self.mark_frames() {
            totals.all.mark_frames += 1;
            compare(FrameEntries::one(frame, at), allocators)?;
            if let Some(row) = self.frame_totals(self.frames.node_of(frame), totals) {
                row.mark_frames += 1;
            }
        }
        for (node, frames) in self.pool_state.altmaps.count_frames() {
            totals.all.count_frames += frames;
            if let Some(row) = self.frame_totals(node, totals) {
                row.count_frames += frames;
            }
        }
        let at = self.model.config().vmemmap_base;
        let mut wrong = None;
        self.for_each_record_frame(&mut |frame| {
            totals.all.record_frames += 1;
            if let Err(finding) = compare(FrameEntries::one(frame, at), allocators) {
                wrong.get_or_insert(finding);
            }
            if let Some(row) = totals.of(self.frames.node_of(frame)) {
                row.frames.record_frames += 1;
            }
        });
        self.for_each_reserve_block(&mut |first, frames| {
            totals.all.reserve_frames += frames;
            if let Err(finding) = compare(FrameEntries::one(first, at), allocators) {
                wrong.get_or_insert(finding);
            }
            if let Some(row) = totals.of(self.frames.node_of(first)) {
                row.frames.reserve_frames += frames;
            }
        });
        match wrong {
            Some(finding) => Err(finding),
            None => Ok(()),
        }
    }

    /// What entries are counted in: the vmemmap, and packed heads; the lower one first.
    fn audited_ranges(&self) -> [Option<VirtRange>; 2] {
        let vmemmap = self.model.descriptors(self.model.all_frames());
        match (vmemmap, self.model.heads()) {
            (Some(vmemmap), Some(heads)) if heads.start() < vmemmap.start() => {
                [Some(heads), Some(vmemmap)]
            }
            both => [both.0, both.1],
        }
    }

    /// Audits a part of the frames in each walk, into `totals`. Says what of a part did not fit into
    /// the scratch memory, if anything.
    fn audit_in_passes<P: PageTable>(
        &self,
        table: &P,
        allocators: &[&dyn InspectFrames],
        scratch: &mut [AuditSlot],
        passes: Passes,
        totals: &mut Totals,
    ) -> Result<Option<TooMany>, Finding> {
        totals.clear();
        let ranges = self.audited_ranges();
        let page = self.model.granule().bytes();
        for pass in 0..passes.of_frames {
            scratch.fill(AuditSlot(None));
            let mut audit_pass: AuditPass<'_, D, A, M, R> = AuditPass {
                slots: scratch,
                used: 0,
                pass,
                table_pass: 0,
                passes,
                too_many: None,
                bits: BitsSeen::new(self.readers.map()),
                totals,
                vmemmap: self,
            };
            for table_pass in 0..passes.of_tables {
                audit_pass.table_pass = table_pass;
                let mut before = None;
                for range in ranges.into_iter().flatten() {
                    let _ = table.visit(range, &mut |visit| match visit {
                        // It leads to both ranges, and was counted with the one below.
                        Visit::Table { at, .. } if before.is_some_and(|last| at <= last) => {
                            ControlFlow::Continue(())
                        }
                        _ => audit_pass.count(visit, page, allocators),
                    });
                    if audit_pass.too_many.is_some() {
                        return Ok(audit_pass.too_many);
                    }
                    before = Some(range.last());
                }
                audit_pass.bits.compared()?;
                audit_pass.compare_shared_tables(allocators)?;
            }
            for counted in scratch.iter().filter_map(|slot| slot.0) {
                compare(counted, allocators)?;
            }
        }
        Ok(None)
    }
}

/// Compares the entries of one frame with its references.
fn compare(counted: FrameEntries, allocators: &[&dyn InspectFrames]) -> Result<(), Finding> {
    let FrameEntries {
        frame, at, entries, ..
    } = counted;
    if counted.is_vacant() {
        return Ok(());
    }
    match allocators.iter().find_map(|one| one.references(frame)) {
        Some(references) if references == entries => Ok(()),
        Some(references) => Err(Finding::Count {
            frame,
            at,
            entries,
            references,
        }),
        None => Err(Finding::Unknown { frame, at }),
    }
}

impl FrameEntries {
    /// The one entry or link that a frame has.
    const fn one(frame: Pfn, at: VirtAddr) -> Self {
        Self {
            frame,
            at,
            entries: 1,
            shared_table: false,
        }
    }

    /// Whether this was a shared table, and can be something else.
    fn is_vacant(&self) -> bool {
        self.shared_table && self.entries == 0
    }
}

/// One pass, which is about a part of the frames. It counts their entries in a hash table in the
/// scratch memory.
struct AuditPass<'t, D, A, M, R> {
    slots: &'t mut [AuditSlot],
    used: usize,
    pass: u64,
    /// Which part of the shared tables the walk is about.
    table_pass: u64,
    passes: Passes,
    /// What there was no slot left for.
    too_many: Option<TooMany>,
    bits: BitsSeen<'t>,
    totals: &'t mut Totals,
    vmemmap: &'t Vmemmap<D, A, M, R>,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> AuditPass<'_, D, A, M, R> {
    fn count(
        &mut self,
        visit: Visit,
        page: u64,
        allocators: &[&dyn InspectFrames],
    ) -> ControlFlow<()> {
        // What is not about shared tables is counted by the first of a pass's walks.
        let is_first_walk = self.table_pass == 0;
        let is_very_first = self.pass == 0 && is_first_walk;
        match visit {
            Visit::Table {
                at,
                frame,
                leaf_table,
                owned: true,
            } => {
                if is_first_walk && self.is_in_this_pass(frame) && self.add(frame, at, 1, false)? {
                    self.count_table(frame, leaf_table);
                }
            }
            Visit::SharedTable { at, frame, run } => {
                if is_very_first {
                    self.count_mapped(at, &run, allocators);
                }
                self.count_shared(at, frame, run)?;
            }
            Visit::Leaves { at, run } if run.leaf.role != Role::Foreign => {
                if is_very_first {
                    self.count_mapped(at, &run, allocators);
                }
                if is_first_walk {
                    self.count_run(at, run, page)?;
                }
            }
            Visit::Table { .. } | Visit::Leaves { .. } => {}
        }
        ControlFlow::Continue(())
    }

    /// Counts the pages of `run`, and the frames of the online map that are about its memory: where nothing
    /// is mapped there are none.
    fn count_mapped(&mut self, at: VirtAddr, run: &Run, allocators: &[&dyn InspectFrames]) {
        let pages = run.pages();
        self.totals.all.mapped_pages += pages;
        let model = &self.vmemmap.model;
        let frames = pages.saturating_mul(model.descriptors_per_page());
        let described = model.frame_of_descriptor(at);
        let described = described.and_then(|first| PfnRange::new(first, frames).ok());
        let Some(described) = described.filter(|frames| self.bits.may_have_more(*frames)) else {
            return;
        };
        while let Some(bits) = self.bits.next_of(described) {
            self.totals.all.online_map_frames += 1;
            self.bits
                .keep(compare(FrameEntries::one(bits, at), allocators));
            let node = self.vmemmap.frames.node_of(bits);
            if let Some(row) = self.vmemmap.frame_totals(node, self.totals) {
                row.online_map_frames += 1;
            }
        }
    }

    /// Compares the shared tables of a walk, and makes room for those of the next one.
    fn compare_shared_tables(&mut self, allocators: &[&dyn InspectFrames]) -> Result<(), Finding> {
        let tables = self.slots.iter_mut().filter_map(|slot| slot.0.as_mut());
        for table in tables.filter(|counted| counted.shared_table) {
            compare(*table, allocators)?;
            table.entries = 0;
        }
        Ok(())
    }

    fn count_run(&mut self, at: VirtAddr, run: Run, page: u64) -> ControlFlow<()> {
        let order: Order = run.leaf.block.order();
        let blocks = match run.step {
            Step::Same => 1,
            Step::Next => run.count,
        };
        let holds_heads = self.vmemmap.model.heads();
        let holds_heads = holds_heads.is_some_and(|heads| heads.contains(at));
        for index in 0..blocks {
            let Some(block) = run.block(index) else { break };
            let offset = index.saturating_mul(order.frames()).saturating_mul(page);
            let at = at.checked_add(offset).unwrap_or(at);
            let entries = match run.step {
                Step::Same => run.count,
                Step::Next => 1,
            };
            if self.is_in_this_pass(block.first()) {
                let is_new = self.add(block.first(), at, entries, false)?;
                self.count_block(is_new, order, &run, block.first(), entries);
                if is_new && holds_heads {
                    self.totals.all.head_frames += order.frames();
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts `entries` leaves of the block at `first`, the first ones or more.
    fn count_block(&mut self, is_new: bool, order: Order, run: &Run, first: Pfn, entries: u64) {
        let altmap = self.vmemmap.pool_state.altmaps.node_of(first);
        let node = altmap.unwrap_or_else(|| self.vmemmap.frames.node_of(first));
        let frames = order.frames();
        if is_new {
            self.totals.all.descriptor_frames += frames;
        }
        let Some(row) = self.vmemmap.frame_totals(node, self.totals) else {
            return;
        };
        if !is_new {
            row.reused_entries += entries;
            return;
        }
        row.descriptor_frames += frames;
        row.altmap_frames += if altmap.is_some() { frames } else { 0 };
        row.tail_frames += u64::from(run.leaf.role == Role::Tail);
        row.reused_entries += entries - 1;
    }

    fn count_table(&mut self, table: Pfn, leaf_table: bool) {
        if leaf_table {
            self.totals.all.leaf_tables += 1;
        } else {
            self.totals.all.upper_tables += 1;
        }
        if let Some(row) = self.table_totals(table) {
            row.tables += 1;
        }
    }

    /// Where `table` is counted: `None` if that is in another walk.
    fn table_totals(&mut self, table: Pfn) -> Option<&mut TableFigures> {
        let node = self.vmemmap.frames.node_of(table);
        let figures = &self.vmemmap.table_records.figures;
        match figures.row(node, self.vmemmap.memory()).is_some() {
            true => self.totals.of(node).map(|totals| &mut totals.tables),
            false => Some(&mut self.totals.others.tables),
        }
    }

    /// Counts a link to a shared table, and with the first one the table's leaves, once for all
    /// links.
    fn count_shared(&mut self, at: VirtAddr, table: Pfn, run: Run) -> ControlFlow<()> {
        let tail = run.leaf.block.first();
        let is_in_this_walk = part_of(table, self.passes.of_tables) == self.table_pass;
        if !self.is_in_this_pass(tail) || !is_in_this_walk {
            return ControlFlow::Continue(());
        }
        if self.add(table, at, 1, true)? {
            self.count_table(table, true);
            let is_new = self.add(tail, at, run.count, false)?;
            self.count_block(is_new, Order::BASE, &run, tail, run.count);
        } else {
            let leaves = run.count;
            if let Some(row) = self.table_totals(table) {
                row.reused_entries += leaves;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether this pass is about `frame`.
    fn is_in_this_pass(&self, frame: Pfn) -> bool {
        part_of(frame, self.passes.of_frames) == self.pass
    }

    /// Counts `entries` more for `frame`, and says whether it is the first time. Breaks when there
    /// is no slot left.
    fn add(
        &mut self,
        frame: Pfn,
        at: VirtAddr,
        entries: u64,
        shared_table: bool,
    ) -> ControlFlow<(), bool> {
        let length = self.slots.len() as u64;
        // A full table is slow to search.
        let limit = self.slots.len() - self.slots.len() / 8;
        // The high half decides on the slot: hash * length / 2^64.
        let start = ((u128::from(hash(frame)) * u128::from(length)) >> 64) as usize;
        let (before, after) = self.slots.split_at_mut(start.min(self.slots.len()));
        let new = FrameEntries {
            frame,
            at,
            entries,
            shared_table,
        };
        let mut vacant = None;
        for slot in after.iter_mut().chain(before) {
            if slot.0.is_some_and(|counted| counted.is_vacant()) {
                vacant = vacant.or(Some(slot));
                continue;
            }
            match &mut slot.0 {
                Some(counted) if counted.frame == frame => {
                    counted.entries = counted.entries.saturating_add(entries);
                    return ControlFlow::Continue(false);
                }
                Some(_) => {}
                None if self.used == limit || vacant.is_some() => break,
                empty @ None => {
                    self.used += 1;
                    *empty = Some(new);
                    return ControlFlow::Continue(true);
                }
            }
        }
        if let Some(vacant) = vacant {
            vacant.0 = Some(new);
            return ControlFlow::Continue(true);
        }
        self.too_many = Some(self.most_slots_are(shared_table));
        ControlFlow::Break(())
    }

    /// What most of the slots are used for, with one more shared table or frame.
    #[cold]
    fn most_slots_are(&self, shared_table: bool) -> TooMany {
        let slots = self.slots.iter().filter_map(|slot| slot.0);
        let tables = slots.filter(|counted| counted.shared_table).count();
        let tables = tables + usize::from(shared_table);
        match tables > 1 && tables > self.used / 2 {
            true => TooMany::SharedTables,
            false => TooMany::Frames,
        }
    }
}

/// Sends neighbouring frames far apart, by the golden ratio.
const fn hash(frame: Pfn) -> u64 {
    frame.get().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Which of `parts` parts `frame` belongs to. Says nothing of the slots that its hash leads to.
const fn part_of(frame: Pfn, parts: u64) -> u64 {
    let hash = hash(frame);
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed as u128 * parts as u128) >> 64) as u64
}
