//! A map whose values are words: as many as its rows are wide, without the key.
//!
//! The words of the rows in the map's value are not here, since their number is a part of its type.
//! Each method is given them as `inline`.
//!
//! Methods that more than one caller has are not inlined: a kernel is to have them once.

use super::memory::MapMemory;
use super::rows::{Rows, RowsMut, rows_in};
use super::tree::Tree;
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames};

/// See the module.
pub(super) struct Untyped {
    /// How many rows are in the value; none if the tree has rows.
    len: u64,
    pub(super) tree: Tree,
    /// How many words a row has, its key included.
    width: usize,
}

impl Untyped {
    /// A map without rows, which would be of this width.
    pub(super) const fn new(width: usize) -> Self {
        Self {
            len: 0,
            tree: Tree::new(width),
            width,
        }
    }

    pub(super) const fn len(&self) -> u64 {
        // One of them has no rows.
        self.tree.rows().saturating_add(self.len)
    }

    const fn inline<'m>(&self, inline: &'m [u64]) -> Rows<'m> {
        // At most as many as there is room for.
        Rows::new(inline, self.len as usize, self.width)
    }

    const fn inline_mut<'m>(&'m mut self, inline: &'m mut [u64]) -> RowsMut<'m> {
        RowsMut::new(inline, &mut self.len, self.width)
    }

    /// How many rows are in the value; `None` if rows are in frames.
    #[inline]
    pub(super) const fn inline_len(&self) -> Option<usize> {
        match self.tree.root() {
            Some(_) => None,
            // At most as many as there is room for.
            None => Some(self.len as usize),
        }
    }

    /// What is kept for `key` in frames.
    #[inline(never)]
    pub(super) fn get<A: FrameAllocator, M: DirectMap>(
        &self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<&[u64]> {
        let rows = self.tree.bucket(key, memory)?;
        rows.value(rows.find(key)?)
    }

    /// What is kept for `key` in frames, to be changed.
    #[inline(never)]
    pub(super) fn get_mut<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<&mut [u64]> {
        let rows = self.tree.bucket_mut(key, memory)?;
        let at = rows.rows().find(key)?;
        rows.into_value(at)
    }

    /// Keeps `value` for `key`, which is new.
    #[inline(never)]
    pub(super) fn insert<A: FrameAllocator, M: DirectMap>(
        &mut self,
        inline: &mut [u64],
        key: u64,
        value: &[u64],
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        if self.tree.root().is_some() {
            return self.tree.insert(key, value, memory);
        }
        let mut rows = RowsMut::new(inline, &mut self.len, self.width);
        let at = rows.rows().up_to(key);
        if rows.insert(at, key, value) {
            return Ok(());
        }
        self.tree.begin(&mut rows, key, value, memory)
    }

    /// Removes `key`, for which something is kept.
    #[inline(never)]
    pub(super) fn remove<A: FrameAllocator, M: DirectMap>(
        &mut self,
        inline: &mut [u64],
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) {
        if self.tree.root().is_none() {
            self.inline_mut(inline).remove(key);
            return;
        }
        self.tree.remove(key, memory);
        let few = rows_in(inline.len(), self.width) / 2;
        if self.tree.rows() <= few as u64 {
            self.move_back(inline, memory);
        }
    }

    /// Moves all rows from frames to the value. They fit.
    #[cold]
    fn move_back<A: FrameAllocator, M: DirectMap>(
        &mut self,
        inline: &mut [u64],
        memory: &MapMemory<'_, A, M>,
    ) {
        let mut rows = RowsMut::new(inline, &mut self.len, self.width);
        self.tree.for_each(memory, &mut |key, value| {
            rows.insert(rows.len(), key, value);
        });
        self.tree.clear(memory);
    }

    /// Calls `f` with each key and what is kept for it, in the order of keys.
    pub(super) fn for_each<A: FrameAllocator, M: DirectMap>(
        &self,
        inline: &[u64],
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(u64, &[u64]),
    ) {
        self.inline(inline).for_each(f);
        self.tree.for_each(memory, f);
    }
}
