//! An ordered map without a heap and without a fixed capacity.
//!
//! The first rows are in the map itself. When there are more, all of them move to frames, which are
//! a tree (`tree.rs`). When there are few again, they move back. There are `INLINE` places in the
//! map; rows move back when they fill half of them, so a map does not move to and fro.
//!
//! A look-up takes one binary search for each level: of 65 536 rows of 8 bytes, three searches (4K
//! granule). Only a new key ever needs frames, and if there are none, nothing has changed.
//!
//! Values are [`Words`], and the code for a map is there once, whatever its values and however many of
//! its rows are in it (`untyped.rs`). [`OrderedMap`] is a front for that which knows the types. It finds
//! the rows in the value by itself: that is short where types are known, and what is asked most.
//!
//! A map that goes out of scope does not give its frames back: it does not know the allocator. Who
//! removes all keys has given all frames back.

mod memory;
mod rows;
#[cfg(test)]
mod tests;
mod tree;
mod untyped;
mod words;

use self::rows::{capacity, width};
use self::tree::INDEX;
use self::untyped::Untyped;
use self::words::{value_of, value_of_mut, words_of};
use super::{DirectMap, FrameAllocator, OutOfFrames};
use crate::addr::{Granule, Pfn};
use core::fmt;
use core::mem;
use core::slice;

pub(crate) use self::memory::MapMemory;
pub(crate) use self::words::Words;

/// How many rows a frame has room for, at least: with fewer, a tree would be high and slow.
const FEWEST_ROWS: usize = 16;

/// A map whose first `INLINE` rows are in the value, and whose further rows are in frames.
///
/// All methods are given the memory that the frames are in. That it is the same each time is a duty
/// of [`MapMemory::new`].
pub(crate) struct OrderedMap<V, const INLINE: usize> {
    map: Untyped,
    inline: [Row<V>; INLINE],
}

/// A key, and what is kept for it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Row<V> {
    key: u64,
    value: V,
}

/// Where `key` is in `rows`.
#[inline]
fn find<V>(rows: &[Row<V>], key: u64) -> Option<usize> {
    rows.binary_search_by_key(&key, |row| row.key).ok()
}

impl<V: Words, const INLINE: usize> OrderedMap<V, INLINE> {
    /// The words of a row.
    const WIDTH: usize = width(size_of::<V>());

    /// A map without rows. It has no frames.
    pub(crate) const fn new() -> Self {
        const {
            let rows = capacity(Granule::Size4K, Self::WIDTH);
            assert!(rows >= FEWEST_ROWS, "too few rows fit into a frame");
            let of_index = capacity(Granule::Size4K, INDEX);
            assert!(of_index >= FEWEST_ROWS, "an index has too few rows");
            // They all move to one frame, with the row for which there is no place.
            assert!(
                INLINE < rows,
                "the inline rows and one more do not fit into a frame"
            );
        }
        Self {
            map: Untyped::new(Self::WIDTH),
            inline: [Row {
                key: 0,
                value: V::ZERO,
            }; INLINE],
        }
    }

    /// The words of the rows in the value.
    const fn inline(&self) -> &[u64] {
        // SAFETY: a row is the word of its key, and those of its value (duty 1 of `Words`).
        unsafe { slice::from_raw_parts(self.inline.as_ptr().cast(), INLINE * Self::WIDTH) }
    }

    /// The map, and the words of the rows in the value.
    const fn parts(&mut self) -> (&mut Untyped, &mut [u64]) {
        let inline = self.inline.as_mut_ptr().cast();
        // SAFETY: as in `inline`; whatever words are written, they are keys and values.
        let inline = unsafe { slice::from_raw_parts_mut(inline, INLINE * Self::WIDTH) };
        (&mut self.map, inline)
    }

    /// How many keys there are.
    pub(crate) const fn len(&self) -> u64 {
        self.map.len()
    }

    /// How many frames the map has.
    pub(crate) const fn frames(&self) -> u64 {
        self.map.tree.frames()
    }

    /// How many frames `more` new keys take at most.
    pub(crate) fn frames_for<A: FrameAllocator, M: DirectMap>(
        &self,
        more: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> u64 {
        let rows = self.len().saturating_add(more);
        let fits = rows <= memory.capacity(Self::WIDTH) as u64;
        match self.map.tree.root() {
            None if rows <= INLINE as u64 => 0,
            // All of them move there.
            None if fits => 1,
            Some(root) if fits && root.height == 0 => 0,
            // Each key may split a node of each level, and need a new root.
            root => {
                let levels = root.map_or(0, |root| u64::from(root.height)) + 2;
                more.saturating_mul(levels)
            }
        }
    }

    /// What is kept for `key`.
    #[inline]
    pub(crate) fn get<A: FrameAllocator, M: DirectMap>(
        &self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<V> {
        let Some(len) = self.map.inline_len() else {
            return value_of(self.map.get(key, memory)?).copied();
        };
        let rows = self.inline.get(..len)?;
        let at = find(rows, key)?;
        rows.get(at).map(|row| row.value)
    }

    /// What is kept for `key`, to be changed where it is.
    #[inline]
    pub(crate) fn get_mut<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<&mut V> {
        let Some(len) = self.map.inline_len() else {
            return value_of_mut(self.map.get_mut(key, memory)?);
        };
        let rows = self.inline.get_mut(..len)?;
        let at = find(rows, key)?;
        rows.get_mut(at).map(|row| &mut row.value)
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
        if let Some(old) = self.get_mut(key, memory) {
            return Ok(Some(mem::replace(old, value)));
        }
        let (map, inline) = self.parts();
        map.insert(inline, key, words_of(&value), memory)?;
        Ok(None)
    }

    /// Removes `key`. Returns what was kept for it. Needs no memory and cannot fail; a frame that
    /// is not needed any more is free at once.
    pub(crate) fn remove<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<V> {
        // Mostly there is nothing.
        let removed = self.get(key, memory)?;
        let (map, inline) = self.parts();
        map.remove(inline, key, memory);
        Some(removed)
    }

    /// Calls `f` with each key and what is kept for it, in the order of keys.
    pub(crate) fn for_each<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(u64, &V),
    ) {
        self.map.for_each(self.inline(), memory, &mut |key, words| {
            if let Some(value) = value_of(words) {
                f(key, value);
            }
        });
    }

    /// Calls `f` with each frame of the map, once.
    pub(crate) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(Pfn),
    ) {
        self.map.tree.for_each_frame(memory, f);
    }
}

impl<V: Words, const INLINE: usize> fmt::Debug for OrderedMap<V, INLINE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rows may be in frames, which cannot be read without the map's memory.
        f.debug_struct("OrderedMap")
            .field("len", &self.len())
            .field("frames", &self.frames())
            .field("root", &self.map.tree.root())
            .finish_non_exhaustive()
    }
}
