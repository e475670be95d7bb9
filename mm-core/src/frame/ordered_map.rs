//! An ordered map without a heap and without a fixed capacity.
//!
//! The first rows are in the map itself. When there are more, all of them move to frames, which are
//! a tree (`tree.rs`). When there are few again, they move back. There are `INLINE` places in the
//! map; rows move back when they fill half of them, so a map does not move to and fro.
//!
//! A look-up takes one binary search for each level: of 65 536 rows of 8 bytes, three searches (4K
//! granule). Only a new key ever needs frames, and if there are none, nothing has changed.
//!
//! A map that goes out of scope does not give its frames back: it does not know the allocator. Who
//! removes all keys has given all frames back.

mod memory;
mod rows;
#[cfg(test)]
mod tests;
mod tree;

use self::rows::{Row, Rows, find};
use self::tree::Tree;
use super::{DirectMap, FrameAllocator, OutOfFrames};
use crate::addr::Pfn;
use core::fmt;
use core::mem::MaybeUninit;

pub(crate) use self::memory::MapMemory;

/// How many rows a frame has room for, at least: with fewer, a tree would be high and slow.
const FEWEST_ROWS: usize = 16;

/// A map whose first `INLINE` rows are in the value, and whose further rows are in frames.
///
/// All methods are given the memory that the frames are in. That it is the same each time is a duty
/// of [`MapMemory::new`].
pub(crate) struct OrderedMap<V, const INLINE: usize> {
    inline: Inline<V, INLINE>,
    tree: Tree<V>,
}

/// The rows in the value; none if the tree has rows.
struct Inline<V, const N: usize> {
    /// The first so many places are initialised.
    len: usize,
    places: [MaybeUninit<Row<V>>; N],
}

impl<V: Copy, const N: usize> Inline<V, N> {
    fn rows(&self) -> &[Row<V>] {
        let rows = self.places.as_ptr().cast();
        // SAFETY: so many places are initialised, and a place has the layout of its row.
        unsafe { core::slice::from_raw_parts(rows, self.len) }
    }

    fn rows_mut(&mut self) -> Rows<'_, V> {
        // SAFETY: 1: so many places are initialised.
        unsafe { Rows::new(&mut self.len, &mut self.places) }
    }
}

impl<V: Copy, const INLINE: usize> OrderedMap<V, INLINE> {
    /// A map without rows. It has no frames.
    pub(crate) const fn new() -> Self {
        const {
            assert!(Row::<V>::fit(FEWEST_ROWS), "too few rows fit into a frame");
            assert!(Row::<Pfn>::fit(FEWEST_ROWS), "an index has too few rows");
            // They all move to one frame, with the row for which there is no place.
            assert!(
                INLINE < usize::MAX && Row::<V>::fit(INLINE + 1),
                "the inline rows and one more do not fit into a frame"
            );
        }
        Self {
            inline: Inline {
                len: 0,
                places: [const { MaybeUninit::uninit() }; INLINE],
            },
            tree: Tree::new(),
        }
    }

    /// How many keys there are.
    pub(crate) const fn len(&self) -> u64 {
        // One of them has no rows.
        self.tree.rows().saturating_add(self.inline.len as u64)
    }

    /// How many frames the map has.
    pub(crate) const fn frames(&self) -> u64 {
        self.tree.frames()
    }

    /// What is kept for `key`.
    pub(crate) fn get<A: FrameAllocator, M: DirectMap>(
        &self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<V> {
        let rows = match self.tree.bucket(key, memory) {
            Some(bucket) => bucket,
            None => self.inline.rows(),
        };
        let at = find(rows, key).ok()?;
        rows.get(at).map(|row| row.value)
    }

    /// Changes what is kept for `key`, where it is. Says whether there is something.
    pub(crate) fn update<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
        f: impl FnOnce(&mut V),
    ) -> bool {
        let mut rows = match self.tree.bucket_mut(key, memory) {
            Some(bucket) => bucket,
            None => self.inline.rows_mut(),
        };
        let rows = rows.as_mut_slice();
        let at = find(rows, key).ok();
        let Some(row) = at.and_then(|at| rows.get_mut(at)) else {
            return false;
        };
        f(&mut row.value);
        true
    }

    /// Keeps `value` for `key`. Returns what was kept for it before.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if the key is new and needs frames. Nothing has changed then.
    pub(crate) fn insert<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        value: V,
        memory: &MapMemory<'_, A, M>,
    ) -> Result<Option<V>, OutOfFrames> {
        if self.tree.root().is_some() {
            return self.tree.insert(key, value, memory);
        }
        let mut rows = self.inline.rows_mut();
        match find(rows.as_slice(), key) {
            Ok(at) => {
                let old = rows.as_mut_slice().get_mut(at);
                Ok(old.map(|old| core::mem::replace(&mut old.value, value)))
            }
            Err(at) => {
                let row = Row { key, value };
                if !rows.insert(at, row) {
                    self.tree.begin(&mut rows, row, memory)?;
                }
                Ok(None)
            }
        }
    }

    /// Removes `key`. Returns what was kept for it. Needs no memory and cannot fail; a frame that
    /// is not needed any more is free at once.
    pub(crate) fn remove<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<V> {
        if self.tree.root().is_none() {
            let mut rows = self.inline.rows_mut();
            let at = find(rows.as_slice(), key).ok()?;
            return rows.remove(at).map(|row| row.value);
        }
        let removed = self.tree.remove(key, memory);
        if self.tree.rows() <= const { (INLINE / 2) as u64 } {
            self.move_back(memory);
        }
        removed
    }

    /// Moves all rows from frames to the value. They fit.
    #[cold]
    #[inline(never)]
    fn move_back<A: FrameAllocator, M: DirectMap>(&mut self, memory: &MapMemory<'_, A, M>) {
        let mut rows = self.inline.rows_mut();
        self.tree.for_each(memory, &mut |row| {
            rows.insert(rows.len(), *row);
        });
        self.tree.clear(memory);
    }

    /// Calls `f` with each key and what is kept for it, in the order of keys.
    pub(crate) fn for_each<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(u64, &V),
    ) {
        for row in self.inline.rows() {
            f(row.key, &row.value);
        }
        self.tree
            .for_each(memory, &mut |row| f(row.key, &row.value));
    }

    /// Calls `f` with each frame of the map, once.
    pub(crate) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(Pfn),
    ) {
        self.tree.for_each_frame(memory, f);
    }
}

impl<V: Copy, const INLINE: usize> fmt::Debug for OrderedMap<V, INLINE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rows may be in frames, which cannot be read without the map's memory.
        f.debug_struct("OrderedMap")
            .field("len", &self.len())
            .field("frames", &self.frames())
            .field("root", &self.tree.root())
            .finish_non_exhaustive()
    }
}
