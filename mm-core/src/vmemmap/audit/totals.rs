//! What an audit counts, in total and node by node, and comparing that with what is kept.

use super::{AuditReport, Finding};
use crate::addr::NodeId;
use crate::descriptor::Descriptor;
use crate::frame::{DirectMap, FrameAllocator};
use crate::paging::PageTable;
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;
use crate::vmemmap::stats::{NODES, NodeStats};
use crate::vmemmap::table_records::TableFigures;

/// What was counted on a node, without tables and with those alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeTotals {
    pub(super) frames: NodeStats,
    pub(super) tables: TableFigures,
}

/// What was counted: in total, and on each of a few nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) all: AuditReport,
    nodes: [Option<(NodeId, NodeTotals)>; NODES],
    /// On nodes for whose figures there is no row.
    pub(super) others: NodeTotals,
}

impl Totals {
    /// Nothing counted yet, of the same nodes.
    pub(super) fn clear(&mut self) {
        self.all = AuditReport::default();
        self.others = NodeTotals::default();
        for (_, totals) in self.nodes.iter_mut().flatten() {
            *totals = NodeTotals::default();
        }
    }

    pub(super) fn of(&mut self, node: NodeId) -> Option<&mut NodeTotals> {
        let mut nodes = self.nodes.iter_mut().flatten();
        nodes
            .find(|(listed, _)| *listed == node)
            .map(|(_, totals)| totals)
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// Lists the nodes that come first from `from` on, to be counted. Returns the next one to begin
    /// with, if there may be more.
    #[inline(never)]
    pub(super) fn list_nodes(&self, from: NodeId, totals: &mut Totals) -> Option<NodeId> {
        let nodes = self.lowest_nodes(from);
        for (slot, node) in totals.nodes.iter_mut().zip(nodes) {
            *slot = node.map(|node| (node, NodeTotals::default()));
        }
        let last = nodes.last().copied().flatten()?;
        last.number().checked_add(1).map(NodeId::new)
    }

    /// Where frames of `node` are counted: `None` if that is in another walk.
    pub(super) fn frame_totals<'t>(
        &self,
        node: NodeId,
        totals: &'t mut Totals,
    ) -> Option<&'t mut NodeStats> {
        let has_row = self.pool_state.counters.row(node, self.memory()).is_some();
        match has_row {
            true => totals.of(node).map(|totals| &mut totals.frames),
            false => Some(&mut totals.others.frames),
        }
    }

    /// Compares the figures of the nodes that were counted.
    #[inline(never)]
    pub(super) fn compare_stats<P: PageTable>(&self, counted: &Totals) -> Result<(), Finding> {
        let listed = counted.nodes.iter().flatten();
        let rows = listed.map(|(node, totals)| (Some(*node), totals, self.stats_on(*node)));
        let others = (None, &counted.others, self.stats_of_other_nodes());
        for (node, totals, kept) in rows.chain([others]) {
            let tables = match P::COUNTS_TABLES {
                true => totals.tables,
                false => TableFigures::default(),
            };
            let counted = NodeStats {
                table_frames: tables.tables,
                reused_entries: totals.frames.reused_entries + tables.reused_entries,
                ..totals.frames
            };
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
