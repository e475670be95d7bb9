//! Checks that every entry owns one reference, and that every reference belongs to an entry.

use super::Vmemmap;
use super::altmaps::AltmapsInUse;
use super::stats::{NodeStats, Stats};
use crate::addr::{NodeId, Order, Pfn, VirtAddr};
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator, InspectFrames};
use crate::paging::{PageTable, Role, Run, Step, Visit};
use core::fmt;
use core::ops::ControlFlow;

/// What an audit has counted: what this library has mapped in the vmemmap, and what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Distinct frames that hold descriptors.
    pub descriptor_frames: u64,
    /// Distinct tables whose entries are leaves of base pages.
    pub leaf_tables: u64,
    /// Distinct tables between the root and the leaf tables; the root is not counted.
    pub upper_tables: u64,
    /// Vmemmap pages that are mapped.
    pub mapped_pages: u64,
    /// Frames that hold marks of single frames.
    pub mark_frames: u64,
    /// Frames of altmaps in use that hold their counts. They are never handed out, and no entry
    /// points at them.
    pub count_frames: u64,
}

impl AuditReport {
    /// Vmemmap pages beyond the first one that are mapped to the same frame.
    pub const fn reused_entries(&self) -> u64 {
        self.mapped_pages.saturating_sub(self.descriptor_frames)
    }

    /// All frames, tables, marks and counts included.
    pub const fn frames(&self) -> u64 {
        self.allocated() + self.count_frames
    }

    /// All frames that allocators have handed out: all but those of counts.
    pub const fn allocated(&self) -> u64 {
        self.descriptor_frames + self.leaf_tables + self.upper_tables + self.mark_frames
    }
}

/// What an audit has found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The entries that point at a block and the references that it has are not the same number.
    Count {
        /// The block's first frame.
        frame: Pfn,
        /// The address of the first entry that points at it.
        at: VirtAddr,
        /// How many entries do.
        entries: u64,
        /// How many references the allocator counts.
        references: u64,
    },
    /// An entry points at a frame that no allocator knows.
    Unknown {
        /// The frame.
        frame: Pfn,
        /// The address of the entry.
        at: VirtAddr,
    },
    /// More frames are allocated than entries reach.
    Leaked {
        /// How many frames the allocators have out.
        outstanding: u64,
        /// How many the entries reach.
        reached: u64,
    },
    /// [`Vmemmap::stats`] says other than what was counted.
    Stats {
        /// The node; see [`PerNode`](crate::frame::PerNode) for nodes that share a row.
        node: NodeId,
        /// What was counted.
        counted: NodeStats,
        /// What it says.
        kept: NodeStats,
    },
    /// The scratch memory has no room for a table and what it maps.
    NoScratch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count {
                frame,
                at,
                entries,
                references,
            } => write!(
                f,
                "frame {frame}, first mapped at {at}, has {references} references for {entries} entries"
            ),
            Self::Unknown { frame, at } => write!(
                f,
                "the entry at {at} points at frame {frame}, which no allocator knows"
            ),
            Self::Leaked {
                outstanding,
                reached,
            } => write!(
                f,
                "{outstanding} frames are out and entries reach {reached}"
            ),
            Self::Stats {
                node,
                counted,
                kept,
            } => write!(f, "the stats of node {node} say {kept}; counted: {counted}"),
            Self::NoScratch => {
                f.write_str("too little scratch memory; hand over two slots at least")
            }
        }
    }
}

impl core::error::Error for Finding {}

/// What was counted: in total, and for each node as in [`Vmemmap::stats`].
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    all: AuditReport,
    stats: Stats,
}

impl Totals {
    fn clear(&mut self) {
        self.all = AuditReport::default();
        for (_, row) in self.stats.rows.iter_mut() {
            *row = NodeStats::default();
        }
    }
}

/// Scratch memory of an audit, for one frame. Contents do not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditSlot(Option<FrameEntries>);

#[derive(Clone, Copy, Debug)]
struct FrameEntries {
    frame: Pfn,
    at: VirtAddr,
    entries: u64,
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap> Vmemmap<D, A, M> {
    /// Walks all of the vmemmap once and counts the entries that point at each frame. Compares them
    /// with the counts of `allocators` (RAM and altmaps; the first that knows a frame decides), and
    /// with [`stats`](Self::stats). Foreign entries are not counted.
    ///
    /// The only memory that it needs is `scratch`, at least two slots. With fewer slots than there
    /// are frames, it walks several times.
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
        let mut passes = 1;
        while !self.audit_in_passes(table, allocators, scratch, passes, &mut totals)? {
            // A shared table and its tail need a slot each.
            if passes > 1 << 40 || scratch.len() < 2 {
                return Err(Finding::NoScratch);
            }
            passes *= 2;
        }
        for (frame, at) in self.mark_frames() {
            totals.all.mark_frames += 1;
            let entries = 1;
            compare(FrameEntries { frame, at, entries }, allocators)?;
            let node = self.frames.node_of(frame);
            totals.stats.rows.row_mut(node).mark_frames += 1;
        }
        for (node, frames) in self.pool_state.altmaps.count_frames() {
            totals.all.count_frames += frames;
            totals.stats.rows.row_mut(node).count_frames += frames;
        }
        self.compare_stats(table, &totals.stats)?;
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

    /// Audits a part of the frames in each of `passes` walks, into `recount`. Says whether each part
    /// fitted into the scratch memory.
    fn audit_in_passes<P: PageTable>(
        &self,
        table: &P,
        allocators: &[&dyn InspectFrames],
        scratch: &mut [AuditSlot],
        passes: u64,
        totals: &mut Totals,
    ) -> Result<bool, Finding> {
        totals.clear();
        let Some(vmemmap) = self.model.descriptors(self.model.all_frames()) else {
            return Ok(true);
        };
        for pass in 0..passes {
            scratch.fill(AuditSlot(None));
            let mut audit_pass = AuditPass {
                slots: scratch,
                used: 0,
                pass,
                passes,
                totals,
                ram: &self.frames,
                altmaps: &self.pool_state.altmaps,
            };
            let page = self.model.granule().bytes();
            if table
                .visit(vmemmap, &mut |visit| audit_pass.count(visit, page))
                .is_break()
            {
                return Ok(false);
            }
            for counted in scratch.iter().filter_map(|slot| slot.0) {
                compare(counted, allocators)?;
            }
        }
        Ok(true)
    }

    fn compare_stats<P: PageTable>(&self, table: &P, counted: &Stats) -> Result<(), Finding> {
        let tables = table.table_stats();
        for (node, counted) in counted.rows.iter() {
            let kept = self.pool_state.counters.node(node, tables.as_ref());
            let mut counted = *counted;
            if tables.is_none() {
                counted.table_frames = 0;
            }
            if kept != counted {
                return Err(Finding::Stats {
                    node,
                    counted,
                    kept,
                });
            }
        }
        Ok(())
    }
}

/// Compares the entries of one frame with its references.
fn compare(counted: FrameEntries, allocators: &[&dyn InspectFrames]) -> Result<(), Finding> {
    let FrameEntries { frame, at, entries } = counted;
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

/// One pass, which is about a part of the frames. It counts their entries in a hash table in the
/// scratch memory.
struct AuditPass<'t, A> {
    slots: &'t mut [AuditSlot],
    used: usize,
    pass: u64,
    passes: u64,
    totals: &'t mut Totals,
    ram: &'t A,
    altmaps: &'t AltmapsInUse,
}

impl<A: FrameAllocator> AuditPass<'_, A> {
    fn count(&mut self, visit: Visit, page: u64) -> ControlFlow<()> {
        match visit {
            Visit::Table {
                at,
                frame,
                leaf_table,
                owned: true,
            } => {
                if self.is_in_this_pass(frame) && self.add(frame, at, 1)? {
                    self.count_table(frame, leaf_table);
                }
            }
            Visit::SharedTable { at, frame, run } => {
                if self.pass == 0 {
                    self.totals.all.mapped_pages += run.pages();
                }
                self.count_shared(at, frame, run)?;
            }
            Visit::Leaves { at, run } if run.leaf.role != Role::Foreign => {
                if self.pass == 0 {
                    self.totals.all.mapped_pages += run.pages();
                }
                self.count_run(at, run, page)?;
            }
            Visit::Table { .. } | Visit::Leaves { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn count_run(&mut self, at: VirtAddr, run: Run, page: u64) -> ControlFlow<()> {
        let order: Order = run.leaf.block.order();
        let blocks = match run.step {
            Step::Same => 1,
            Step::Next => run.count,
        };
        for index in 0..blocks {
            let Some(block) = run.block(index) else { break };
            let offset = index.saturating_mul(order.frames()).saturating_mul(page);
            let at = at.checked_add(offset).unwrap_or(at);
            let entries = match run.step {
                Step::Same => run.count,
                Step::Next => 1,
            };
            if self.is_in_this_pass(block.first()) {
                let is_new = self.add(block.first(), at, entries)?;
                self.count_block(is_new, order, &run, block.first(), entries);
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts `entries` leaves of the block at `first`, the first ones or more.
    fn count_block(&mut self, is_new: bool, order: Order, run: &Run, first: Pfn, entries: u64) {
        let altmap = self.altmaps.node_of(first);
        let node = altmap.unwrap_or_else(|| self.ram.node_of(first));
        let row = self.totals.stats.rows.row_mut(node);
        if !is_new {
            row.reused_entries += entries;
            return;
        }
        let frames = order.frames();
        self.totals.all.descriptor_frames += frames;
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
        let node = self.ram.node_of(table);
        self.totals.stats.rows.row_mut(node).table_frames += 1;
    }

    /// Counts a link to a shared table, and with the first one the table's leaves, once for all
    /// links.
    fn count_shared(&mut self, at: VirtAddr, table: Pfn, run: Run) -> ControlFlow<()> {
        let tail = run.leaf.block.first();
        if !self.is_in_this_pass(tail) {
            return ControlFlow::Continue(());
        }
        if self.add(table, at, 1)? {
            self.count_table(table, true);
            let is_new = self.add(tail, at, run.count)?;
            self.count_block(is_new, Order::BASE, &run, tail, run.count);
        } else {
            let node = self.ram.node_of(table);
            self.totals.stats.rows.row_mut(node).reused_entries += run.count;
        }
        ControlFlow::Continue(())
    }

    /// Whether this pass is about `frame`.
    fn is_in_this_pass(&self, frame: Pfn) -> bool {
        (hash(frame) >> 8) % self.passes == self.pass
    }

    /// Counts `entries` more for `frame`, and says whether it is the first time. Breaks when there
    /// is no slot left.
    fn add(&mut self, frame: Pfn, at: VirtAddr, entries: u64) -> ControlFlow<(), bool> {
        let length = self.slots.len() as u64;
        // A full table is slow to search.
        let limit = self.slots.len() - self.slots.len() / 8;
        // The high half decides on the slot: hash * length / 2^64.
        let start = ((u128::from(hash(frame)) * u128::from(length)) >> 64) as usize;
        let (before, after) = self.slots.split_at_mut(start.min(self.slots.len()));
        for slot in after.iter_mut().chain(before) {
            match &mut slot.0 {
                Some(counted) if counted.frame == frame => {
                    counted.entries = counted.entries.saturating_add(entries);
                    return ControlFlow::Continue(false);
                }
                Some(_) => {}
                None if self.used == limit => break,
                empty @ None => {
                    self.used += 1;
                    *empty = Some(FrameEntries { frame, at, entries });
                    return ControlFlow::Continue(true);
                }
            }
        }
        ControlFlow::Break(())
    }
}

/// Sends neighbouring frames far apart, by the golden ratio.
const fn hash(frame: Pfn) -> u64 {
    frame.get().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
