//! Recounting without the library: what a reader of bytes comes to, against the allocators.

use super::Testbed;
use super::altmap::TestAltmap;
use hosted::inspect::{SeenEntry, SeenLeaf, SeenTable};
use mm_core::addr::{NodeId, Pfn, VirtRange};
use mm_core::frame::{FrameAllocator, InspectFrames};
use mm_core::vmemmap::{AuditReport, NodeStats};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A block that entries point at.
struct Block {
    entries: u64,
    frames: u64,
    tail: bool,
    /// Whether it is mapped where packed heads are.
    heads: bool,
}

/// What was counted.
pub(super) struct Recount {
    /// Without the frames that no entry leads to.
    pub(super) report: AuditReport,
    /// How many of those there are: frames of marks, and of what the library has to remember.
    pub(super) unreached: u64,
    /// By the number of the node, those only on which there is anything.
    pub(super) nodes: BTreeMap<u32, NodeStats>,
}

struct Counter<'c, 'm> {
    bed: &'c dyn Testbed<'m>,
    altmaps: Vec<&'m dyn TestAltmap>,
    /// Tables by frame, with how many links there are.
    tables: FxHashMap<Pfn, (u64, bool)>,
    blocks: FxHashMap<Pfn, Block>,
    /// A table that has been counted already, at another place.
    repeated: Option<(VirtRange, Pfn)>,
    mapped_pages: u64,
    nodes: BTreeMap<u32, NodeStats>,
}

/// Counts everything.
pub(super) fn recount(bed: &dyn Testbed<'_>) -> Recount {
    let model = bed.model();
    let mut counter = Counter {
        bed,
        altmaps: bed.altmaps(),
        tables: FxHashMap::default(),
        blocks: FxHashMap::default(),
        repeated: None,
        mapped_pages: 0,
        nodes: BTreeMap::new(),
    };
    let all = model.descriptors(model.all_frames()).unwrap();
    bed.scan(all, &mut |entry| match entry {
        SeenEntry::Table(table) => counter.table(&table),
        SeenEntry::Leaf(leaf) if leaf.owned => counter.leaf(&leaf, false),
        SeenEntry::Leaf(_) => {}
    });
    if let Some(heads) = model.heads() {
        bed.scan(heads, &mut |entry| match entry {
            // What leads to both was counted.
            SeenEntry::Table(table)
                if table.span.start() <= all.last() && all.start() <= table.span.last() => {}
            SeenEntry::Table(table) => counter.table(&table),
            SeenEntry::Leaf(leaf) if leaf.owned => counter.leaf(&leaf, true),
            SeenEntry::Leaf(_) => {}
        });
    }
    counter.finish()
}

impl Counter<'_, '_> {
    fn table(&mut self, table: &SeenTable) {
        let of_ram = self.bed.frames().references(table.frame).is_some();
        if !of_ram {
            // Somebody else's.
            return;
        }
        let known = self.tables.entry(table.frame);
        let (links, _) = known.or_insert((0, table.leaf_table));
        *links += 1;
        self.repeated = (*links > 1).then_some((table.span, table.frame));
    }

    fn leaf(&mut self, leaf: &SeenLeaf, heads: bool) {
        let pages = leaf.order.frames();
        self.mapped_pages += pages;
        if let Some((span, table)) = self.repeated
            && span.contains(leaf.at)
        {
            let node = self.bed.frames().node_of(table);
            self.row(node).reused_entries += 1;
            return;
        }
        let block = self.blocks.entry(leaf.frame).or_insert(Block {
            entries: 0,
            frames: pages,
            tail: leaf.tail,
            heads,
        });
        block.entries += 1;
        let alike = (block.frames, block.tail, block.heads) == (pages, leaf.tail, heads);
        assert!(alike, "frame {} is mapped as two things", leaf.frame);
    }

    fn row(&mut self, node: NodeId) -> &mut NodeStats {
        self.nodes.entry(node.number()).or_default()
    }

    fn finish(mut self) -> Recount {
        let ram = self.bed.frames();
        let mut report = AuditReport {
            mapped_pages: self.mapped_pages,
            ..AuditReport::default()
        };
        let blocks = std::mem::take(&mut self.blocks);
        for (&first, block) in &blocks {
            let mut altmaps = self.altmaps.iter().copied();
            let altmap = altmaps.find(|one| one.contains(first));
            let (node, counted) = match altmap {
                Some(altmap) => (altmap.node_of(first), altmap.references(first)),
                None => (ram.node_of(first), ram.references(first)),
            };
            let entries = Some(block.entries);
            assert_eq!(counted, entries, "references of {first} and entries");
            report.descriptor_frames += block.frames;
            report.head_frames += if block.heads { block.frames } else { 0 };
            let row = self.row(node);
            row.descriptor_frames += block.frames;
            row.tail_frames += u64::from(block.tail);
            row.altmap_frames += if altmap.is_some() { block.frames } else { 0 };
            row.reused_entries += block.entries - 1;
        }
        for altmap in self.altmaps.clone() {
            if altmap.in_use() > 0 {
                let page = self.bed.model().granule().bytes();
                let counts = (64 + 4 * altmap.reserved().frames()).div_ceil(page);
                report.count_frames += counts;
                let node = altmap.node_of(altmap.reserved().start());
                self.row(node).count_frames += counts;
            }
        }
        let in_altmaps: u64 = self.altmaps.iter().map(|one| one.in_use()).sum();
        let total: u64 = self.nodes.values().map(|row| row.altmap_frames).sum();
        assert_eq!(total, in_altmaps, "frames of altmaps that entries reach");
        let tables = std::mem::take(&mut self.tables);
        for (table, (links, leaf_table)) in &tables {
            let counted = ram.references(*table);
            assert_eq!(counted, Some(*links), "references of table {table}");
            match leaf_table {
                true => report.leaf_tables += 1,
                false => report.upper_tables += 1,
            }
            self.row(ram.node_of(*table)).table_frames += 1;
        }
        let reached = report.allocated() - in_altmaps;
        let unreached = ram.outstanding().saturating_sub(reached);
        if unreached > 0 {
            self.count_unreached(&blocks, &tables);
        }
        self.nodes.retain(|_, row| *row != NodeStats::default());
        Recount {
            report,
            unreached,
            nodes: self.nodes,
        }
    }

    /// Counts the frames of RAM that are out and that no entry leads to: those of marks, of records
    /// and in reserve.
    fn count_unreached(
        &mut self,
        blocks: &FxHashMap<Pfn, Block>,
        tables: &FxHashMap<Pfn, (u64, bool)>,
    ) {
        let ram = self.bed.frames();
        for chunk in self.bed.memory().chunks() {
            let mut index = 0;
            while index < chunk.frames() {
                let frame = chunk.start().saturating_add(index);
                match blocks.get(&frame) {
                    Some(block) => index += block.frames,
                    None => {
                        let block = ram.block_at(frame);
                        let frames = block.map_or(1, |block| block.order().frames());
                        if block.is_some() && !tables.contains_key(&frame) {
                            self.row(ram.node_of(frame)).mark_frames += frames;
                        }
                        index += frames;
                    }
                }
            }
        }
    }
}
