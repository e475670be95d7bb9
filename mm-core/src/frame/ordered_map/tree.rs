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
//!    as buckets at level 0, as indexes (rows of the numbers of frames) above.
//! 2. They have not gone back. A frame goes back after the row that names it is gone.
//! 3. Methods that change a frame have the tree by `&mut`. Each frame is named once.

use super::memory::MapMemory;
use super::rows::{Rows, RowsMut, width};
use crate::addr::Pfn;
use crate::frame::{DirectMap, FrameAllocator, OutOfFrames};

/// The width of an index's rows: a key, and the number of a frame.
pub(super) const INDEX: usize = width(size_of::<u64>());

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
pub(super) struct Tree {
    root: Option<Root>,
    rows: u64,
    frames: u64,
    /// The width of the buckets' rows.
    width: usize,
}

/// The number of the child that has `key`.
fn child_at(index: Rows<'_>, key: u64) -> usize {
    index.up_to(key).saturating_sub(1)
}

/// The child that is in the row number `at`.
fn child(index: Rows<'_>, at: usize) -> Option<Pfn> {
    Pfn::new(*index.value(at)?.first()?)
}

impl Tree {
    /// A tree for rows of this width. It has none.
    pub(super) const fn new(width: usize) -> Self {
        Self {
            root: None,
            rows: 0,
            frames: 0,
            width,
        }
    }

    /// The width of rows at `level`.
    const fn width(&self, level: u32) -> usize {
        if level == 0 { self.width } else { INDEX }
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
            let index = unsafe { memory.rows(place.frame, INDEX) };
            let at = child_at(index, key);
            place.frame = child(index, at)?;
            if let Some(next) = index.key(at.saturating_add(1)) {
                place.next = Some(next);
            }
        }
        Some(place)
    }

    /// The rows of the bucket that has `key`.
    pub(super) fn bucket<'t, A: FrameAllocator, M: DirectMap>(
        &'t self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<Rows<'t>> {
        let place = self.descend(key, 0, memory)?;
        // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: the tree is borrowed for as long.
        Some(unsafe { memory.rows(place.frame, self.width) })
    }

    /// The rows of the bucket that has `key`, to be changed.
    pub(super) fn bucket_mut<'t, A: FrameAllocator, M: DirectMap>(
        &'t mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<RowsMut<'t>> {
        let place = self.descend(key, 0, memory)?;
        // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: 3 of the module; the tree is borrowed
        // mutably for as long.
        Some(unsafe { memory.rows_mut(place.frame, self.width) })
    }

    /// Begins a tree with the rows of `inline`, which it takes, and `value` for `key`, which is not
    /// among them. All of them fit into a frame.
    #[cold]
    #[inline(never)]
    pub(super) fn begin<A: FrameAllocator, M: DirectMap>(
        &mut self,
        inline: &mut RowsMut<'_>,
        key: u64,
        value: &[u64],
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        let frame = memory.allocate()?;
        // SAFETY: 1: allocated just now.
        let mut bucket = unsafe { memory.begin(frame, self.width) };
        bucket.take_from(inline, 0);
        bucket.insert(bucket.rows().up_to(key), key, value);
        self.rows = bucket.len() as u64;
        self.frames = 1;
        self.root = Some(Root { frame, height: 0 });
        Ok(())
    }

    /// Keeps `value` for `key`, which is new.
    pub(super) fn insert<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        value: &[u64],
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        if let Some(mut bucket) = self.bucket_mut(key, memory)
            && !bucket.insert(bucket.rows().up_to(key), key, value)
        {
            self.grow(key, value, memory)?;
        }
        self.rows = self.rows.saturating_add(1);
        Ok(())
    }

    /// Adds a row whose bucket is full.
    #[cold]
    #[inline(never)]
    fn grow<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        value: &[u64],
        memory: &MapMemory<'_, A, M>,
    ) -> Result<(), OutOfFrames> {
        // From here on there is a frame for each node that splits, so nothing can fail.
        let mut reserved = memory.reserve(self.needed(key, memory))?;
        let Some(root) = self.root else {
            return Ok(());
        };
        let is_last = self
            .descend(key, 0, memory)
            .is_some_and(|bucket| bucket.next.is_none());
        // What the node of the next level gets: the row, and then links to second parts.
        let mut added = (key, None);
        for level in 0..=root.height {
            let Some(place) = self.descend(key, level, memory) else {
                return Ok(());
            };
            // SAFETY: 1: a node, by 1 and 2 of the module. 2: 3 of the module.
            let mut node = unsafe { memory.rows_mut(place.frame, self.width(level)) };
            let (lowest, link) = (added.0, added.1.map(|frame: Pfn| [frame.get()]));
            let value = link.as_ref().map_or(value, |link| link.as_slice());
            let at = match level {
                0 => node.rows().up_to(key),
                // Behind the child that was split.
                _ => child_at(node.rows(), key).saturating_add(1),
            };
            if node.insert(at, lowest, value) {
                return Ok(());
            }
            let Some(new) = reserved.take() else {
                return Ok(());
            };
            // SAFETY: 1: it was reserved for this.
            let right = unsafe { memory.begin(new, self.width(level)) };
            self.frames = self.frames.saturating_add(1);
            let lowest = split(node, right, at, lowest, value, is_last);
            added = (lowest, Some(new));
        }
        if let (Some(frame), (lowest, Some(new))) = (reserved.take(), added) {
            // SAFETY: 1: it was reserved for this.
            let mut index = unsafe { memory.begin(frame, INDEX) };
            // The key of the first row is not looked at.
            index.insert(0, 0, &[root.frame.get()]);
            index.insert(1, lowest, &[new.get()]);
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
            let width = self.width(full);
            // SAFETY: 1: a node, by 1 and 2 of the module. 2: nothing is changed.
            let rows = unsafe { memory.rows(place.frame, width) };
            if rows.len() < memory.capacity(width) {
                return full;
            }
            full = full.saturating_add(1);
        }
        full.saturating_add(1)
    }

    /// Takes the row of `key` out, if there is one.
    pub(super) fn remove<A: FrameAllocator, M: DirectMap>(
        &mut self,
        key: u64,
        memory: &MapMemory<'_, A, M>,
    ) {
        let Some(mut bucket) = self.bucket_mut(key, memory) else {
            return;
        };
        if !bucket.remove(key) {
            return;
        }
        let is_low = bucket.len() <= bucket.capacity() / 2;
        self.rows = self.rows.saturating_sub(1);
        if is_low {
            self.shrink(key, memory);
        }
    }

    /// Joins nodes on the way to `key`, where a row has just gone, and gives back what is empty.
    #[inline(never)]
    fn shrink<A: FrameAllocator, M: DirectMap>(&mut self, key: u64, memory: &MapMemory<'_, A, M>) {
        let mut level: u32 = 0;
        while let Some(parent) = self.descend(key, level.saturating_add(1), memory) {
            // SAFETY: 1: an index, by 1 and 2 of the module. 2: 3 of the module.
            let parent = unsafe { memory.rows_mut(parent.frame, INDEX) };
            let Some(unused) = self.join(parent, key, level, memory) else {
                return;
            };
            self.give_back(unused, memory);
            level = level.saturating_add(1);
        }
        self.lower_root(memory);
    }

    /// Removes the child of `parent`, of `level`, that has `key` if it is empty, or joins it with a
    /// neighbour if both fit into half a frame. Returns the frame that is no longer used.
    fn join<A: FrameAllocator, M: DirectMap>(
        &self,
        mut parent: RowsMut<'_>,
        key: u64,
        level: u32,
        memory: &MapMemory<'_, A, M>,
    ) -> Option<Pfn> {
        let width = self.width(level);
        let at = child_at(parent.rows(), key);
        let own = child(parent.rows(), at)?;
        // SAFETY: 1: a child of an index, by 1 and 2 of the module. 2: nothing changes it here.
        if unsafe { memory.rows(own, width) }.len() == 0 {
            parent.remove_at(at);
            return Some(own);
        }
        for second in [at, at.saturating_add(1)] {
            let first = second.checked_sub(1);
            let first = first.and_then(|first| child(parent.rows(), first));
            let lowest = parent.rows().key(second);
            let (Some(first), Some(lowest), Some(unused)) =
                (first, lowest, child(parent.rows(), second))
            else {
                continue;
            };
            // SAFETY: 1: children of an index, by 1 and 2 of the module. 2: two frames, by 3.
            let (mut left, mut right) = unsafe {
                (
                    memory.rows_mut(first, width),
                    memory.rows_mut(unused, width),
                )
            };
            if left.len().saturating_add(right.len()) <= left.capacity() / 2 {
                if level > 0 {
                    // The first key of an index is looked at when the row is no longer the first.
                    right.set_key(0, lowest);
                }
                left.take_from(&mut right, 0);
                parent.remove_at(second);
                return Some(unused);
            }
        }
        None
    }

    /// Gives the root back while it is an index with one child, or an empty bucket.
    fn lower_root<A: FrameAllocator, M: DirectMap>(&mut self, memory: &MapMemory<'_, A, M>) {
        while let Some(root) = self.root {
            // SAFETY: 1: a node, by 1 and 2 of the module. 2: nothing changes it here.
            let rows = unsafe { memory.rows(root.frame, self.width(root.height)) };
            let only = match (rows.len(), root.height.checked_sub(1)) {
                (0, _) => None,
                (1, Some(height)) => child(rows, 0).map(|frame| Root { frame, height }),
                _ => return,
            };
            self.root = only;
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

    /// Calls `f` with each key and what is kept for it, in the order of keys.
    pub(super) fn for_each<A: FrameAllocator, M: DirectMap>(
        &self,
        memory: &MapMemory<'_, A, M>,
        f: &mut dyn FnMut(u64, &[u64]),
    ) {
        let mut next = Some(0);
        while let Some(place) = next.and_then(|key| self.descend(key, 0, memory)) {
            // SAFETY: 1: a bucket, by 1 and 2 of the module. 2: the tree is borrowed.
            unsafe { memory.rows(place.frame, self.width) }.for_each(f);
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
        *self = Self::new(self.width);
    }
}

/// Splits `left`, which is full, and adds `value` for `key` at the number `at`. The second part is in
/// `right`, which is empty. Returns the lowest key there.
fn split(
    mut left: RowsMut<'_>,
    mut right: RowsMut<'_>,
    at: usize,
    key: u64,
    value: &[u64],
    is_last: bool,
) -> u64 {
    let at_end = is_last && at >= left.len();
    let middle = if at_end { left.len() } else { left.len() / 2 };
    right.take_from(&mut left, middle);
    if !left.insert(at, key, value) {
        right.insert(at.saturating_sub(middle), key, value);
    }
    right.rows().key(0).unwrap_or(key)
}
