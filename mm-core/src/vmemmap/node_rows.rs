//! Figures of each node, for any number of nodes.

use crate::addr::NodeId;
use crate::frame::{DirectMap, FrameAllocator, MapMemory, OrderedMap, Words};
use core::mem;

/// How many nodes have their figures in the value. Those of more nodes are in frames.
const INLINE: usize = 4;

/// Figures of each node.
///
/// A node has a row from its first figure on, until all of its figures are zero. If there is no
/// memory for a new row, its node is counted among the *others*. New nodes then are, too, until the
/// others have no figures any more. So each figure is subtracted where it was added.
#[derive(Debug)]
pub(super) struct NodeRows<T: Words> {
    rows: OrderedMap<T, INLINE>,
    others: T,
}

impl<T: Words + PartialEq> NodeRows<T> {
    /// No node has figures.
    pub(super) const fn new() -> Self {
        Self {
            rows: OrderedMap::new(),
            others: T::ZERO,
        }
    }

    /// Changes the figures of `node`.
    // Not inlined: it is called from as many places as figures change.
    #[inline(never)]
    pub(super) fn update<A: FrameAllocator, M: DirectMap>(
        &mut self,
        node: NodeId,
        memory: MapMemory<'_, A, M>,
        change: &mut dyn FnMut(&mut T),
    ) {
        let memory = memory.on(node);
        let key = u64::from(node.number());
        let Some(row) = self.rows.get_mut(key, &memory) else {
            return self.begin(key, memory, change);
        };
        change(row);
        if *row == T::ZERO {
            self.rows.remove(key, &memory);
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
        change: &mut dyn FnMut(&mut T),
    ) {
        let mut row = mem::replace(&mut self.others, T::ZERO);
        let any_others = row != T::ZERO;
        change(&mut row);
        let counted =
            row == T::ZERO || (!any_others && self.rows.insert(key, row, &memory).is_ok());
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
