//! Which altmaps have frames in the vmemmap.
//!
//! A frame must go back to the altmap that it came from, but only the pagemap knows that altmap.
//! What is remembered here is enough to see that a pagemap has another altmap, or none.
//!
//! Altmaps are remembered in a search tree, by where they lie. Its nodes are the altmaps' own
//! [records](AltmapRecord), so there may be any number of altmaps, and remembering one cannot fail.
//! The tree is a treap: its shape follows from the addresses alone, and its depth is about twice the
//! logarithm of how many altmaps there are.

use crate::addr::{NodeId, Pfn, PfnRange};
use crate::frame::{Altmap, AltmapRecord};
use crate::paging::{Run, Step};
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A link of the tree. There is one writer at a time, the owner of the vmemmap.
type Link = AtomicPtr<AltmapRecord>;

/// The altmaps some of whose frames have descriptors here.
#[derive(Debug)]
pub(super) struct AltmapsInUse {
    root: Link,
}

/// The record that `link` leads to.
fn follow(link: &Link) -> Option<&AltmapRecord> {
    // SAFETY: a link leads to the record of an altmap of which frames are out, which stays where it
    // is as long as they are (duty 3 of `Altmap`). It is unlinked with the last of them.
    unsafe { link.load(Ordering::Relaxed).as_ref() }
}

fn set(link: &Link, record: Option<&AltmapRecord>) {
    let record = record.map_or(ptr::null(), ptr::from_ref);
    link.store(record.cast_mut(), Ordering::Relaxed);
}

impl AltmapRecord {
    fn first(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    /// The frame after the last one.
    fn end(&self) -> u64 {
        self.first() + self.frames.load(Ordering::Relaxed)
    }

    fn reserved(&self) -> Option<PfnRange> {
        PfnRange::new(Pfn::new(self.first())?, self.frames.load(Ordering::Relaxed)).ok()
    }

    /// Which of two records is nearer to the root: the one with more of this.
    fn weight(&self) -> u64 {
        // Finalizer of SplitMix64: neighbours get weights that have nothing to do with each other.
        let mixed = (self.first() ^ (self.first() >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The link behind which `first` is, or would be.
    fn towards(&self, first: u64) -> &Link {
        if first < self.first() {
            &self.below
        } else {
            &self.above
        }
    }
}

impl AltmapsInUse {
    pub(super) const fn new() -> Self {
        Self {
            root: Link::new(ptr::null_mut()),
        }
    }

    /// `frames` were taken from `altmap`. Answers with how many frames count them, if they are the
    /// first.
    pub(super) fn taken(&mut self, altmap: &dyn Altmap, frames: u64) -> Option<u64> {
        let record = altmap.record();
        let out = record.out.load(Ordering::Relaxed).saturating_add(frames);
        record.out.store(out, Ordering::Relaxed);
        let reserved = altmap.reserved();
        if self.knows(record, reserved) {
            return None;
        }
        let (start, counts) = (reserved.start(), altmap.count_frames());
        record.start.store(start.get(), Ordering::Relaxed);
        record.frames.store(reserved.frames(), Ordering::Relaxed);
        record.count_frames.store(counts, Ordering::Relaxed);
        let node = altmap.node_of(start);
        record.node.store(node.number(), Ordering::Relaxed);
        self.link(record);
        Some(counts)
    }

    /// `frames` were released to `altmap`. Answers with how many frames counted them, if they were
    /// the last.
    pub(super) fn released(&mut self, altmap: &dyn Altmap, frames: u64) -> Option<u64> {
        let record = altmap.record();
        let out = record.out.load(Ordering::Relaxed).saturating_sub(frames);
        record.out.store(out, Ordering::Relaxed);
        (out == 0 && self.unlink(record)).then(|| altmap.count_frames())
    }

    /// Whether frames of `altmap` are in use here.
    pub(super) fn contains(&self, altmap: &dyn Altmap) -> bool {
        self.knows(altmap.record(), altmap.reserved())
    }

    fn knows(&self, record: &AltmapRecord, reserved: PfnRange) -> bool {
        let first = reserved.start().get();
        let mut at = follow(&self.root);
        while let Some(known) = at {
            if ptr::eq(known, record) {
                return true;
            }
            at = follow(known.towards(first));
        }
        false
    }

    /// Enters `new`, which is not in the tree.
    fn link(&self, new: &AltmapRecord) {
        let first = new.first();
        let mut link = &self.root;
        while let Some(known) = follow(link)
            && known.weight() > new.weight()
        {
            link = known.towards(first);
        }
        // What was there is divided into what lies below and what lies above.
        let mut rest = follow(link);
        set(link, Some(new));
        let (mut below, mut above) = (&new.below, &new.above);
        while let Some(known) = rest {
            if known.first() < first {
                set(below, Some(known));
                below = &known.above;
                rest = follow(below);
            } else {
                set(above, Some(known));
                above = &known.below;
                rest = follow(above);
            }
        }
        set(below, None);
        set(above, None);
    }

    /// Takes `old` out. Says whether it was in the tree.
    fn unlink(&self, old: &AltmapRecord) -> bool {
        let first = old.first();
        let mut link = &self.root;
        loop {
            match follow(link) {
                Some(known) if ptr::eq(known, old) => break,
                Some(known) => link = known.towards(first),
                None => return false,
            }
        }
        let (mut below, mut above) = (follow(&old.below), follow(&old.above));
        loop {
            match (below, above) {
                (Some(lower), Some(upper)) if lower.weight() > upper.weight() => {
                    set(link, below);
                    link = &lower.above;
                    below = follow(link);
                }
                (Some(_), Some(upper)) => {
                    set(link, above);
                    link = &upper.below;
                    above = follow(link);
                }
                (rest, None) | (None, rest) => {
                    set(link, rest);
                    return true;
                }
            }
        }
    }

    /// The first altmap that ends behind `frame`.
    fn ending_behind(&self, frame: Pfn) -> Option<&AltmapRecord> {
        let mut found = None;
        let mut at = follow(&self.root);
        while let Some(known) = at {
            if known.end() > frame.get() {
                found = Some(known);
                at = follow(&known.below);
            } else {
                at = follow(&known.above);
            }
        }
        found
    }

    /// What the first altmap reserves that has some of `frames`.
    fn first_in(&self, frames: PfnRange) -> Option<PfnRange> {
        let reserved = self.ending_behind(frames.start())?.reserved()?;
        reserved.overlaps(frames).then_some(reserved)
    }

    /// Whether an altmap reserves `frame`.
    pub(super) fn reserves(&self, frame: Pfn) -> bool {
        self.first_in(PfnRange::single(frame)).is_some()
    }

    /// What an altmap other than `own` reserves, if that is some of `frames`.
    pub(super) fn other_reserving(
        &self,
        frames: PfnRange,
        own: Option<&dyn Altmap>,
    ) -> Option<PfnRange> {
        let own = own.map(Altmap::reserved);
        let mut rest = Some(frames);
        while let Some(frames) = rest {
            let first = self.first_in(frames)?;
            if Some(first) != own {
                return Some(first);
            }
            let behind = first.last().get().saturating_sub(frames.start().get());
            rest = frames.split_at(behind.saturating_add(1)).1;
        }
        None
    }

    /// The node of the altmap that has `frame`.
    pub(super) fn node_of(&self, frame: Pfn) -> Option<NodeId> {
        let record = self.ending_behind(frame)?;
        let node = NodeId::new(record.node.load(Ordering::Relaxed));
        (record.first() <= frame.get()).then_some(node)
    }

    /// For each altmap, its node, and how many frames count those that are in use.
    pub(super) fn count_frames(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        let mut next = self.ending_behind(Pfn::ZERO);
        core::iter::from_fn(move || {
            let record = next?;
            next = Pfn::new(record.end()).and_then(|end| self.ending_behind(end));
            let node = NodeId::new(record.node.load(Ordering::Relaxed));
            Some((node, record.count_frames.load(Ordering::Relaxed)))
        })
    }

    /// Whether there is an altmap other than `own`.
    pub(super) fn any_other(&self, own: Option<&dyn Altmap>) -> bool {
        let Some(root) = follow(&self.root) else {
            return false;
        };
        let is_own = own.is_some_and(|own| root.reserved() == Some(own.reserved()));
        !is_own || follow(&root.below).or(follow(&root.above)).is_some()
    }

    /// The reserved frames of an altmap other than `own`, if leaves of `run` point at some of them.
    pub(super) fn other_altmap_of(&self, run: &Run, own: Option<&dyn Altmap>) -> Option<PfnRange> {
        self.other_reserving(frames_of(run)?, own)
    }

    /// The numbers of those leaves of `run`. If there are several such altmaps, the leaves of the
    /// one that comes first in the run.
    pub(super) fn leaves_in_other(
        &self,
        run: &Run,
        own: Option<&dyn Altmap>,
    ) -> Option<Range<u64>> {
        leaves_in(run, self.other_altmap_of(run, own)?)
    }
}

/// The frames that the leaves of `run` point at.
fn frames_of(run: &Run) -> Option<PfnRange> {
    let first = run.leaf.block.first();
    let last = run.block(run.count.checked_sub(1)?)?.frames().last();
    PfnRange::new(first, last.get().checked_sub(first.get())?.checked_add(1)?).ok()
}

/// The numbers of the leaves of `run` that point at some of `frames`.
fn leaves_in(run: &Run, frames: PfnRange) -> Option<Range<u64>> {
    let all = frames_of(run)?;
    let first = all.start().get();
    let common = all.intersection(frames)?;
    match run.step {
        Step::Same => Some(0..run.count),
        Step::Next => {
            let order = run.leaf.block.order().get();
            let leaf_of = |frame: Pfn| frame.get().saturating_sub(first) >> order;
            Some(leaf_of(common.start())..leaf_of(common.last()) + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Block, Order};
    use crate::frame::{AcquireError, FrameAllocator, OutOfFrames, OwnedBlock, Released};
    use crate::paging::{Leaf, Role};
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn frames(start: u64, count: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
    }

    fn run(first: u64, order: u8, count: u64, step: Step) -> Run {
        let order = Order::new(order).unwrap();
        let block = Block::new(Pfn::new(first).unwrap(), order).unwrap();
        let leaf = Leaf {
            block,
            role: Role::Descriptors,
            writable: true,
        };
        Run { leaf, count, step }
    }

    #[test]
    fn of_a_run_that_runs_into_an_altmap_only_those_leaves_are_in_it() {
        let next = |count| run(0x100, 0, count, Step::Next);
        assert_eq!(leaves_in(&next(16), frames(0x108, 0x100)), Some(8..16));
        assert_eq!(leaves_in(&next(16), frames(0x104, 4)), Some(4..8));
        assert_eq!(leaves_in(&next(16), frames(0xf0, 0x18)), Some(0..8));
        assert_eq!(leaves_in(&next(16), frames(0x110, 16)), None);
        assert_eq!(leaves_in(&next(16), frames(0xf0, 16)), None);
    }

    #[test]
    fn a_block_or_a_tail_is_in_an_altmap_as_a_whole() {
        let blocks = run(0x400, 9, 3, Step::Next);
        assert_eq!(leaves_in(&blocks, frames(0x7ff, 1)), Some(1..2));
        let tails = run(0x108, 0, 7, Step::Same);
        assert_eq!(leaves_in(&tails, frames(0x108, 1)), Some(0..7));
        assert_eq!(leaves_in(&tails, frames(0x109, 8)), None);
    }

    /// An altmap that is nothing but its record.
    struct Remembered {
        reserved: PfnRange,
        node: NodeId,
        record: AltmapRecord,
    }

    // SAFETY: 1 to 5: hands out nothing.
    unsafe impl FrameAllocator for Remembered {
        fn allocate(&self, order: Order, node: NodeId) -> Result<Block, OutOfFrames> {
            Err(OutOfFrames { order, node })
        }

        unsafe fn acquire(&self, frame: Pfn, _references: u64) -> Result<(), AcquireError> {
            Err(AcquireError { frame })
        }

        unsafe fn release(&self, _block: Block, _references: u64) -> Released {
            Released::Shared
        }

        unsafe fn free(&self, _block: OwnedBlock) {}

        unsafe fn keep(&self, block: OwnedBlock) -> Block {
            block.block()
        }

        unsafe fn split(&self, _block: Block) {}

        fn node_of(&self, _frame: Pfn) -> NodeId {
            self.node
        }
    }

    // SAFETY: 1 and 2: hands out nothing. 3: the tests move no altmap that is in use.
    unsafe impl Altmap for Remembered {
        fn reserved(&self) -> PfnRange {
            self.reserved
        }

        fn count_frames(&self) -> u64 {
            u64::from(self.node.number()) + 1
        }

        fn record(&self) -> &AltmapRecord {
            &self.record
        }
    }

    /// `count` altmaps of 1 to 3 subsections, with none to 2 between them.
    fn altmaps(count: u32) -> Vec<Remembered> {
        let mut start = 0x1000;
        let altmap = |number: u32| {
            let reserved = frames(start, 512 * u64::from(1 + number % 3));
            start = reserved.last().get() + 1 + 512 * u64::from(number % 7 % 3);
            let node = NodeId::new(number);
            let record = AltmapRecord::new();
            Remembered {
                reserved,
                node,
                record,
            }
        };
        (0..count).map(altmap).collect()
    }

    /// Numbers below `below` that have nothing to do with each other.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        }
    }

    fn depth(link: &Link) -> usize {
        match follow(link) {
            Some(known) => 1 + depth(&known.below).max(depth(&known.above)),
            None => 0,
        }
    }

    #[test]
    fn altmaps_that_come_and_go_in_any_order_are_found_by_their_frames() {
        let altmaps = altmaps(200);
        let mut random = numbers(7);
        let mut in_use = AltmapsInUse::new();
        let mut out = BTreeMap::new();
        for _ in 0..20_000 {
            let number = random(200) as usize;
            let altmap = &altmaps[number];
            let held: &mut u64 = out.entry(number).or_default();
            let counts = altmap.count_frames();
            if random(2) == 0 || *held == 0 {
                let frames = 1 + random(3);
                let first = (*held == 0).then_some(counts);
                assert_eq!(in_use.taken(altmap, frames), first);
                *held += frames;
            } else {
                let frames = 1 + random(*held);
                *held -= frames;
                let last = (*held == 0).then_some(counts);
                assert_eq!(in_use.released(altmap, frames), last);
            }
            assert_eq!(in_use.contains(altmap), *held > 0);
            out.retain(|_, held| *held > 0);

            let known = || out.keys().map(|number| &altmaps[*number]);
            let frame = Pfn::new(0x1000 + random(200 * 3 * 512)).unwrap();
            let owner = known().find(|altmap| altmap.reserved.contains(frame));
            assert_eq!(in_use.node_of(frame), owner.map(|altmap| altmap.node));
            assert_eq!(in_use.reserves(frame), owner.is_some());
            let range = PfnRange::new(frame, 1 + random(4000)).unwrap();
            for own in [None, Some(altmap), owner] {
                let is_other = |altmap: &&Remembered| own.is_none_or(|own| !ptr::eq(own, *altmap));
                let meets = |altmap: &&Remembered| altmap.reserved.overlaps(range);
                let other = known().find(|altmap| is_other(altmap) && meets(altmap));
                let own = own.map(|own| own as &dyn Altmap);
                assert_eq!(
                    in_use.other_reserving(range, own),
                    other.map(|one| one.reserved)
                );
                assert_eq!(
                    in_use.any_other(own),
                    known().any(|altmap| is_other(&altmap))
                );
            }
        }
        let counts = out.keys().map(|number| &altmaps[*number]);
        let counts = counts.map(|altmap| (altmap.node, altmap.count_frames()));
        assert!(in_use.count_frames().eq(counts));
    }

    #[test]
    fn thousands_of_altmaps_in_a_row_make_no_deep_tree() {
        let altmaps = altmaps(4096);
        let mut in_use = AltmapsInUse::new();
        for altmap in &altmaps {
            assert!(in_use.taken(altmap, 1).is_some());
        }
        assert_eq!(in_use.count_frames().count(), 4096);
        assert!(depth(&in_use.root) < 40, "{}", depth(&in_use.root));
        for altmap in &altmaps {
            assert!(in_use.released(altmap, 1).is_some());
        }
        assert_eq!(in_use.count_frames().count(), 0);
    }

    #[test]
    fn an_altmap_in_use_that_another_value_met_before_is_remembered_anew() {
        let altmaps = altmaps(3);
        let mut before = AltmapsInUse::new();
        for altmap in &altmaps {
            before.taken(altmap, 2);
        }
        let mut in_use = AltmapsInUse::new();
        assert_eq!(in_use.released(&altmaps[1], 1), None);
        assert!(!in_use.contains(&altmaps[1]));
        assert!(in_use.taken(&altmaps[1], 1).is_some());
        assert!(in_use.contains(&altmaps[1]));
        assert_eq!(in_use.count_frames().count(), 1);
        assert!(in_use.released(&altmaps[1], 2).is_some());
        assert_eq!(in_use.count_frames().count(), 0);
    }
}
