//! Figures of each node, for any number of nodes.

use crate::addr::NodeId;
use crate::frame::{DirectMap, FrameAllocator, MapMemory, OrderedMap};
use core::mem;

/// How many nodes have their figures in the value. Those of more nodes are in frames.
const INLINE: usize = 4;

/// Figures of each node.
///
/// A node has a row from its first figure on, until all of its figures are zero. If there is no
/// memory for a new row, its node is counted among the *others*. New nodes then are, too, until the
/// others have no figures any more. So each figure is subtracted where it was added.
#[derive(Debug)]
pub(super) struct NodeRows<T: Copy> {
    rows: OrderedMap<T, INLINE>,
    others: T,
}

impl<T: Copy> NodeRows<T> {
    /// No node has figures: `none`, which is the default.
    pub(super) const fn new(none: T) -> Self {
        Self {
            rows: OrderedMap::new(),
            others: none,
        }
    }
}

impl<T: Copy + Default + PartialEq> NodeRows<T> {
    /// Changes the figures of `node`.
    pub(super) fn update<A: FrameAllocator, M: DirectMap>(
        &mut self,
        node: NodeId,
        memory: MapMemory<'_, A, M>,
        change: impl FnOnce(&mut T),
    ) {
        let memory = memory.on(node);
        let key = u64::from(node.number());
        let mut change = Some(change);
        let mut apply = |row: &mut T| {
            if let Some(change) = change.take() {
                change(row);
            }
        };
        let mut is_empty = false;
        let has_row = self.rows.update(key, &memory, |row| {
            apply(row);
            is_empty = *row == T::default();
        });
        match (has_row, is_empty) {
            (true, false) => {}
            (true, true) => {
                self.rows.remove(key, &memory);
            }
            (false, _) => self.begin(key, memory, &mut apply),
        }
    }

    /// Counts the first figures of a node without a row.
    // Seldom, and apart so that it takes no stack of what is not.
    #[cold]
    #[inline(never)]
    fn begin<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: MapMemory<'_, A, M>,
        apply: &mut dyn FnMut(&mut T),
    ) {
        let mut row = mem::take(&mut self.others);
        let any_others = row != T::default();
        apply(&mut row);
        let counted =
            row == T::default() || (!any_others && self.rows.insert(key, row, &memory).is_ok());
        if !counted {
            self.others = row;
        }
    }

    /// The figures of `node`, if it has a row.
    pub(super) fn row<A: FrameAllocator, M: DirectMap>(
        &self,
        node: NodeId,
        memory: MapMemory<'_, A, M>,
    ) -> Option<T> {
        self.rows.get(u64::from(node.number()), &memory)
    }

    /// The figures of all nodes without a row, together.
    pub(super) const fn others(&self) -> &T {
        &self.others
    }

    /// Shows each node that has a row, in the order of nodes.
    pub(super) fn for_each_node<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: MapMemory<'_, A, M>,
        visit: &mut dyn FnMut(NodeId),
    ) {
        self.rows.for_each(&memory, &mut |key, _| {
            if let Ok(number) = u32::try_from(key) {
                visit(NodeId::new(number));
            }
        });
    }

    /// The map with the rows, for the audit of its frames.
    pub(super) const fn map(&self) -> &OrderedMap<T, INLINE> {
        &self.rows
    }
}
