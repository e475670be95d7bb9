//! A value for each node, without a heap.

use crate::addr::NodeId;

/// How many rows there are.
pub(crate) const ROWS: usize = 16;

/// A row for each node.
///
/// Nodes 0 to 14 have a row of their own; the last row, that of node 15, is also that of every node
/// above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerNode<T> {
    rows: [T; ROWS],
}

impl<T: Default> Default for PerNode<T> {
    fn default() -> Self {
        Self {
            rows: core::array::from_fn(|_| T::default()),
        }
    }
}

impl<T> PerNode<T> {
    /// The node whose row is also that of all nodes above it.
    pub const LAST: NodeId = NodeId::new(ROWS as u32 - 1);

    /// A row for each node, all of which are `row` at first.
    pub const fn new(row: T) -> Self
    where
        T: Copy,
    {
        Self { rows: [row; ROWS] }
    }

    /// These rows, that of node 0 first.
    pub(crate) const fn of(rows: [T; ROWS]) -> Self {
        Self { rows }
    }

    /// The row of `node`.
    pub fn row(&self, node: NodeId) -> &T {
        self.rows
            .get(node.number() as usize)
            .unwrap_or(&self.rows[ROWS - 1])
    }

    /// The row of `node`.
    pub fn row_mut(&mut self, node: NodeId) -> &mut T {
        let index = (node.number() as usize).min(ROWS - 1);
        // The index is below the number of rows.
        &mut self.rows[index]
    }

    /// All rows, with the first node that each is for.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &T)> {
        (0..).map(NodeId::new).zip(&self.rows)
    }

    /// All rows, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut T)> {
        (0..).map(NodeId::new).zip(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_beyond_the_last_row_share_it() {
        let mut per_node = PerNode::new(0);
        for node in [0, 14, 15, 16, u32::MAX] {
            *per_node.row_mut(NodeId::new(node)) += 1;
        }
        let rows: [i32; 3] = [0, 14, 15].map(|node| *per_node.row(NodeId::new(node)));
        assert_eq!(rows, [1, 1, 3]);
        assert_eq!(per_node.row(NodeId::new(u32::MAX)), &3);
        assert_eq!(per_node.iter().map(|(_, row)| row).sum::<i32>(), 5);
        assert_eq!(per_node.iter().last(), Some((PerNode::<i32>::LAST, &3)));
    }
}
