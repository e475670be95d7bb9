//! The rows that are in frames.
//!
//! ```text
//!   root       index [ 0 | 400 | 900 ]          height 1
//!                      │     │     └─────────────────┐
//!                      ▼     ▼                       ▼
//!   buckets    [ 3 50 120 ]  [ 400 410 ]             [ 900 955 ]
//! ```
//!
//! A row of an index has the lowest key that its child may have. That of the first row is not
//! looked at: the first child also has all keys below. So a key that is lower than all others
//! changes no index.
//!
//! - No node is empty. Two neighbours below one index have more than half of a frame's rows
//!   together, or they are joined. So few frames are nearly empty, whatever was removed.
//! - A full node is split in half. Only for a row behind all others, the next node is begun
//!   instead. So ascending keys fill their frames.
//!
//! There is no recursion and no record of the way down. Whoever needs the node of a higher level
//! walks down to it with the same key: a walk takes a few steps, and the second is rare.
//!
//! The frames are in use by the tree alone. What it does with them rests on this:
//!
//! 1. The root and the children of indexes came from the map's memory, in which they were begun:
//!    as buckets (rows of `V`) at level 0, as indexes (rows of `Pfn`) above.
//! 2. They have not gone back. A frame goes back after the row that names it is gone.
//! 3. Methods that change a frame have the tree by `&mut`. Each frame is named once.

use super::memory::MapMemory;
use super::rows::{Row, Rows, find};
use crate::addr::Pfn;
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames};
use core::marker::PhantomData;

/// The node at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) frame: Pfn,
    /// The level of the node: how many indexes are above each bucket.
    pub(super) height: u32,
}

/// A node on the way to a key.
struct Place {
    frame: Pfn,
    /// The lowest key that the next node of the level may have, if there is a next one.
    next: Option<u64>,
}

/// See the module.
pub(super) struct Tree<V> {
    root: Option<Root>,
    rows: u64,
    frames: u64,
    values: PhantomData<V>,
}

/// The number of the child that has `key`.
fn child_at(index: &[Row<Pfn>], key: u64) -> usize {
    let after = index.partition_point(|row| row.key <= key);
    after.saturating_sub(1)
}

impl<V: Copy> Tree<V> {
    pub(super) const fn new() -> Self {
        Self {
            root: None,
            rows: 0,
            frames: 0,
            values: PhantomData,
        }
    }

    pub(super) const fn root(&self) -> Option<Root> {
        self.root
    }

    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// The node of `level` that has `key`, if the tree is that high.
    fn descend<A: FrameAllocator, M: DirectMap>(
        &self,
        key: u64,
        level: u32,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<Place> {
        let root = self.root.filter(|root| level <= root.height)?;
        let mut place = Place {
            frame: root.frame,
            next: None,
        };
        for _ in level..root.height {
            // SAFETY: 1: an index, by 1 and 2 of the module. 2: the tree is borrowed.
            let index = unsafe { memory.rows::<Pfn>(place.frame) };
            let at = child_at(index, key);
            place.frame = index.get(at)?.value;
            if let Some(row) = index.get(at.saturating_add(1)) {
                place.next = Some(row.key);
            }
        }
        Some(place)
    }

    /// The rows of the bucket that has `key`.
    pub(super) fn bucket<'t, A: FrameAllocator, M: DirectMap>(
        &'t self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<&'t [Row<V>]> {
        let place = self.descend(key, 0, memory)?;
        // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: the tree is borrowed for as long.
        Some(unsafe { memory.rows(place.frame) })
    }

    /// The rows of the bucket that has `key`, to be changed.
    pub(super) fn bucket_mut<'t, A: FrameAllocator, M: DirectMap>(
        &'t mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<Rows<'t, V>> {
        let place = self.descend(key, 0, memory)?;
        // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: 3 of the module; the tree is borrowed
        // mutably for as long.
        Some(unsafe { memory.rows_mut(place.frame) })
    }

    /// Begins a tree with the rows of `inline`, which it takes, and `row`, which is not among them.
    /// All of them fit into a frame.
    #[cold]
    #[inline(never)]
    pub(super) fn begin<A: FrameAllocator, M: DirectMap>(
        &mut self,
        inline: &mut Rows<'_, V>,
        row: Row<V>,
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        let frame = memory.allocate()?;
        // SAFETY: 1: allocated just now.
        let mut bucket = unsafe { memory.begin(frame) };
        bucket.take_from(inline, 0);
        if let Err(at) = find(bucket.as_slice(), row.key) {
            bucket.insert(at, row);
        }
        self.rows = bucket.len() as u64;
        self.frames = 1;
        self.root = Some(Root { frame, height: 0 });
        Ok(())
    }

    /// Keeps `value` for `key`. Returns what was kept for it.
    pub(super) fn insert<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        value: V,
        memory: &MapMemory<'_, A, M>,
    ) -> Result<Option<V>, OutOfFrames> {
        let row = Row { key, value };
        let Some(mut bucket) = self.bucket_mut(key, memory) else {
            return Ok(None);
        };
        match find(bucket.as_slice(), key) {
            Ok(at) => {
                let old = bucket.as_mut_slice().get_mut(at);
                return Ok(old.map(|old| core::mem::replace(&mut old.value, value)));
            }
            Err(at) => {
                if !bucket.insert(at, row) {
                    self.grow(row, memory)?;
                }
            }
        }
        self.rows = self.rows.saturating_add(1);
        Ok(None)
    }

    /// Adds `row`, whose bucket is full.
    #[cold]
    #[inline(never)]
    fn grow<A: FrameAllocator, M: DirectMap>(
        &mut self,
        row: Row<V>,
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        // From here on there is a frame for each node that splits, so nothing can fail.
        let mut reserved = memory.reserve(self.needed(row.key, memory))?;
        let (Some(root), Some(place), Some(new)) =
            (self.root, self.descend(row.key, 0, memory), reserved.take())
        else {
            return Ok(());
        };
        let is_last = place.next.is_none();
        // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: 3 of the module.
        let bucket = unsafe { memory.rows_mut::<V>(place.frame) };
        let at = find(bucket.as_slice(), row.key).unwrap_or_else(|at| at);
        let mut added = self.split(bucket, at, row, new, is_last, memory);
        for level in 1..=root.height {
            let Some(place) = self.descend(row.key, level, memory) else {
                return Ok(());
            };
            // SAFETY: 1: an index, by 1 and 2 of the module. 2: 3 of the module.
            let mut index = unsafe { memory.rows_mut::<Pfn>(place.frame) };
            let at = child_at(index.as_slice(), row.key).saturating_add(1);
            if index.insert(at, added) {
                return Ok(());
            }
            let Some(new) = reserved.take() else {
                return Ok(());
            };
            added = self.split(index, at, added, new, is_last, memory);
        }
        if let Some(frame) = reserved.take() {
            // SAFETY: 1: it was reserved for this.
            let mut index = unsafe { memory.begin::<Pfn>(frame) };
            // The key of the first row is not looked at.
            let first = Row {
                key: 0,
                value: root.frame,
            };
            index.insert(0, first);
            index.insert(1, added);
            self.frames = self.frames.saturating_add(1);
            self.root = Some(Root {
                frame,
                height: root.height.saturating_add(1),
            });
        }
        Ok(())
    }

    /// How many frames a row for `key` takes: one for each full node from the bucket up, and one
    /// for a root above if all are full.
    fn needed<A: FrameAllocator, M: DirectMap>(
        &self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> u32 {
        let mut full: u32 = 0;
        while let Some(place) = self.descend(key, full, memory) {
            let is_full = if full == 0 {
                // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: nothing is changed.
                unsafe { memory.rows::<V>(place.frame) }.len() >= memory.capacity::<V>()
            } else {
                // SAFETY: as above, for an index.
                unsafe { memory.rows::<Pfn>(place.frame) }.len() >= memory.capacity::<Pfn>()
            };
            if !is_full {
                return full;
            }
            full = full.saturating_add(1);
        }
        full.saturating_add(1)
    }

    /// Splits `left`, which is full, and adds `row` at its number `at`. The second part is in the
    /// frame `new`. Returns the row for it in the index above.
    fn split<T: Copy, A: FrameAllocator, M: DirectMap>(
        &mut self,
        mut left: Rows<'_, T>,
        at: usize,
        row: Row<T>,
        new: Pfn,
        is_last: bool,
        memory: &MapMemory<'_, A, M>,
    ) -> Row<Pfn> {
        let at_end = is_last && at >= left.len();
        let middle = if at_end { left.len() } else { left.len() / 2 };
        // SAFETY: 1: it was reserved for this.
        let mut right = unsafe { memory.begin::<T>(new) };
        right.take_from(&mut left, middle);
        if !left.insert(at, row) {
            right.insert(at.saturating_sub(middle), row);
        }
        self.frames = self.frames.saturating_add(1);
        let lowest = right.as_slice().first().map_or(row.key, |first| first.key);
        Row {
            key: lowest,
            value: new,
        }
    }

    /// Takes the row of `key` out.
    pub(super) fn remove<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<V> {
        let mut bucket = self.bucket_mut(key, memory)?;
        let at = find(bucket.as_slice(), key).ok()?;
        let removed = bucket.remove(at)?;
        let is_low = bucket.len() <= bucket.capacity() / 2;
        self.rows = self.rows.saturating_sub(1);
        if is_low {
            self.shrink(key, memory);
        }
        Some(removed.value)
    }

    /// Joins nodes on the way to `key`, where a row has just gone, and gives back what is empty.
    #[inline(never)]
    fn shrink<A: FrameAllocator, M: DirectMap>(&mut self, key: u64, memory: &MapMemory<'_, A, M>) {
        let mut level: u32 = 0;
        while let Some(parent) = self.descend(key, level.saturating_add(1), memory) {
            // SAFETY: 1: an index, by 1 and 2 of the module. 2: 3 of the module.
            let parent = unsafe { memory.rows_mut(parent.frame) };
            let unused = if level == 0 {
                self.join::<V, _, _>(parent, key, memory, |_, _| ())
            } else {
                // The first key of an index is looked at when the row is no longer the first.
                self.join(parent, key, memory, |first: &mut Row<Pfn>, lowest| {
                    first.key = lowest;
                })
            };
            let Some(unused) = unused else {
                return;
            };
            self.give_back(unused, memory);
            level = level.saturating_add(1);
        }
        self.lower_root(memory);
    }

    /// Removes the child of `parent` that has `key` if it is empty, or joins it with a neighbour if
    /// both fit into half a frame. Returns the frame that is no longer used. Before rows move,
    /// `begins` is told the lowest key that they may have.
    fn join<T: Copy, A: FrameAllocator, M: DirectMap>(
        &mut self,
        mut parent: Rows<'_, Pfn>,
        key: u64,
        memory: &MapMemory<'_, A, M>,
        begins: impl Fn(&mut Row<T>, u64),
    ) -> Option<Pfn> {
        let at = child_at(parent.as_slice(), key);
        let child = parent.as_slice().get(at)?.value;
        // SAFETY: 1: a child of an index, by 1 and 2 of the module. 2: nothing changes it here.
        if unsafe { memory.rows::<T>(child) }.is_empty() {
            return parent.remove(at).map(|row| row.value);
        }
        for second in [at, at.saturating_add(1)] {
            let first = second.checked_sub(1);
            let first = first.and_then(|first| parent.as_slice().get(first));
            let (Some(first), Some(row)) = (first, parent.as_slice().get(second)) else {
                continue;
            };
            // SAFETY: 1: children of an index, by 1 and 2 of the module. 2: two frames, by 3.
            let (mut left, mut right) = unsafe {
                (
                    memory.rows_mut::<T>(first.value),
                    memory.rows_mut::<T>(row.value),
                )
            };
            if left.len().saturating_add(right.len()) <= left.capacity() / 2 {
                if let Some(moved) = right.as_mut_slice().first_mut() {
                    begins(moved, row.key);
                }
                left.take_from(&mut right, 0);
                return parent.remove(second).map(|row| row.value);
            }
        }
        None
    }

    /// Gives the root back while it is an index with one child, or an empty bucket.
    fn lower_root<A: FrameAllocator, M: DirectMap>(&mut self, memory: &MapMemory<'_, A, M>) {
        while let Some(root) = self.root {
            self.root = match root.height.checked_sub(1) {
                // SAFETY: 1: an index, by 1 and 2 of the module. 2: nothing changes it here.
                Some(height) => match *unsafe { memory.rows::<Pfn>(root.frame) } {
                    [] => None,
                    [only] => Some(Root {
                        frame: only.value,
                        height,
                    }),
                    _ => return,
                },
                // SAFETY: as above, for a bucket.
                None if unsafe { memory.rows::<V>(root.frame) }.is_empty() => None,
                None => return,
            };
            self.give_back(root.frame, memory);
        }
    }

    /// Gives `frame` back, which no row names any more.
    fn give_back<A: FrameAllocator, M: DirectMap>(
        &mut self,
        frame: Pfn,
        memory: &MapMemory<'_, A, M>,
    ) {
        self.frames = self.frames.saturating_sub(1);
        // SAFETY: 1: it was a node, by 1 and 2 of the module, and is none any more.
        unsafe { memory.give_back(frame) };
    }

    /// Calls `f` with each row, in the order of keys.
    pub(super) fn for_each<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(&Row<V>),
    ) {
        let mut next = Some(0);
        while let Some(place) = next.and_then(|key| self.descend(key, 0, memory)) {
            // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: the tree is borrowed.
            unsafe { memory.rows(place.frame) }.iter().for_each(&mut *f);
            next = place.next;
        }
    }

    /// Calls `f` with each frame. The frames above it are used afterwards; the frame is not.
    pub(super) fn for_each_frame<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(Pfn),
    ) {
        let levels = self.root.map_or(0, |root| root.height.saturating_add(1));
        for level in 0..levels {
            let mut next = Some(0);
            while let Some(place) = next.and_then(|key| self.descend(key, level, memory)) {
                f(place.frame);
                next = place.next;
            }
        }
    }

    /// Gives all frames back.
    pub(super) fn clear<A: FrameAllocator, M: DirectMap>(&mut self, memory: &MapMemory<'_, A, M>) {
        // SAFETY: 1: a node, by 1 and 2 of the module. It is not used afterwards, not even to find
        // the others.
        self.for_each_frame(memory, &mut |frame| unsafe { memory.give_back(frame) });
        *self = Self::new();
    }
}
