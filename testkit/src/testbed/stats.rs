//! What the vmemmap says that it costs, node by node.

use mm_core::addr::NodeId;
use mm_core::vmemmap::NodeStats;
use std::collections::BTreeMap;

/// The figures of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub(super) nodes: BTreeMap<NodeId, NodeStats>,
}

impl Stats {
    /// What it costs on `node`.
    pub fn node(&self, node: NodeId) -> NodeStats {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// The nodes on which it costs anything.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeStats)> {
        self.nodes.iter().map(|(node, row)| (*node, *row))
    }

    /// What it costs on all of them.
    pub fn total(&self) -> NodeStats {
        let mut all = NodeStats::default();
        for row in self.nodes.values() {
            all.descriptor_frames += row.descriptor_frames;
            all.tail_frames += row.tail_frames;
            all.altmap_frames += row.altmap_frames;
            all.table_frames += row.table_frames;
            all.mark_frames += row.mark_frames;
            all.count_frames += row.count_frames;
            all.record_frames += row.record_frames;
            all.reserve_frames += row.reserve_frames;
            all.reused_entries += row.reused_entries;
        }
        all
    }
}
