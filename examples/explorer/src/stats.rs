//! What the vmemmap costs on each node, by its own counters.

use crate::simulation::MachineVmemmap;
use crate::table::{align_right, number};
use comfy_table::{Table, presets};
use mm_core::addr::NodeId;
use mm_core::vmemmap::NodeStats;
use serde::Serialize;

/// What it costs on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The state that this was counted in, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// The node.
    pub node: u32,
    /// Frames that hold descriptors, or count those that do; the next two kinds included.
    pub descriptor_frames: u64,
    /// Frames that hold nothing but tails.
    pub tail_frames: u64,
    /// Frames of the altmap.
    pub altmap_frames: u64,
    /// Page tables.
    pub table_frames: u64,
    /// Frames that hold marks of single frames.
    pub mark_frames: u64,
    /// Frames that hold what the library has to remember of many nodes and orders.
    pub record_frames: u64,
    /// Leaf entries less distinct descriptor frames.
    pub reused_entries: u64,
}

/// A row for each node that has anything.
pub fn rows(state: Option<&'static str>, vmemmap: &MachineVmemmap<'_>) -> Vec<NodeRow> {
    let row = |node: NodeId, costs: NodeStats| NodeRow {
        state,
        node: node.number(),
        descriptor_frames: costs.descriptor_frames + costs.count_frames,
        tail_frames: costs.tail_frames,
        altmap_frames: costs.altmap_frames + costs.count_frames,
        table_frames: costs.table_frames,
        mark_frames: costs.mark_frames,
        record_frames: costs.record_frames,
        reused_entries: costs.reused_entries,
    };
    let mut rows = Vec::new();
    vmemmap.for_each_node(&mut |node, costs| rows.push(row(node, costs)));
    rows
}

/// `rows` for people, if they want them or there is more than one node.
pub fn table(rows: &[NodeRow], wanted: bool) -> Option<Table> {
    let first = rows.first()?;
    if !wanted && rows.iter().all(|row| row.node == first.node) {
        return None;
    }
    let has_states = first.state.is_some();
    let mut header = vec![
        "node",
        "descriptor\nframes",
        "of these\ntails",
        "of the\naltmap",
        "tables",
        "marks",
        "reused\nentries",
    ];
    if has_states {
        header.insert(0, "");
    }
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(header);
    for row in rows {
        let figures = [
            row.descriptor_frames,
            row.tail_frames,
            row.altmap_frames,
            row.table_frames,
            row.mark_frames,
            row.reused_entries,
        ];
        let state = row.state.map(str::to_owned).into_iter();
        let node = std::iter::once(row.node.to_string());
        table.add_row(
            state
                .chain(node)
                .chain(figures.map(|figure| number(Some(figure)))),
        );
    }
    align_right(&mut table, usize::from(has_states));
    Some(table)
}
