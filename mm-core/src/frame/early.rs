//! Frames before there is an allocator of RAM.

use super::spin::Spin;
use super::{DirectMap, FrameStack, PlainAllocator};
use crate::addr::{Block, NodeId, Order, Pfn, PfnRange};

/// Takes frames off the low end of free ranges of RAM, for a kernel that starts.
///
/// Frames come from the first range that has room. What lies before a block, for its alignment, is handed
/// out as single frames, and so is what comes back: the list is inside these frames.
///
/// Like [`SharedCounts`](super::SharedCounts) it takes a spin lock for some loads and stores.
#[derive(Debug)]
pub struct EarlyFrames<'m, M> {
    direct_map: M,
    node: NodeId,
    state: Spin<State<'m>>,
}

/// Frames of RAM, when the full allocator takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyRange {
    /// They were handed out, and will come back to the full allocator one day, in parts or never.
    Taken(PfnRange),
    /// They are free, and from now on the full allocator's.
    Free(PfnRange),
}

#[derive(Debug)]
struct State<'m> {
    /// All ranges.
    all: &'m [PfnRange],
    /// How many of them frames have come from.
    begun: usize,
    /// What is left of the last of these.
    rest: Option<PfnRange>,
    /// The run of single frames that is handed out next.
    singles: Option<Pfn>,
}

impl<'m, M: DirectMap> EarlyFrames<'m, M> {
    /// Frames of `ranges`, all on `node`.
    ///
    /// # Safety
    ///
    /// 1. They are RAM that nobody else uses, and no frame is in two of them.
    /// 2. `direct_map` reaches all of them.
    pub const unsafe fn new(ranges: &'m [PfnRange], node: NodeId, direct_map: M) -> Self {
        Self {
            direct_map,
            node,
            state: Spin::new(State {
                all: ranges,
                begun: 0,
                rest: None,
                singles: None,
            }),
        }
    }

    /// Takes all that is left. Before that, says what was taken. Together these are all frames of all
    /// ranges, each once, unless others take or give back frames meanwhile.
    pub fn drain(&self) -> impl Iterator<Item = EarlyRange> + '_ {
        let mut taken_behind = Some((0, 0));
        core::iter::from_fn(move || {
            self.with(|state, singles| {
                if let Some((index, from)) = taken_behind {
                    let found = state.taken_from(index, from, singles);
                    taken_behind = found.map(|(index, taken)| (index, taken.last().get() + 1));
                    if let Some((_, taken)) = found {
                        return Some(EarlyRange::Taken(taken));
                    }
                }
                state.take_any(singles).map(EarlyRange::Free)
            })
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut State<'m>, &mut FrameStack<'_, M>) -> R) -> R {
        self.state.with(|state| {
            // SAFETY: 1: the list is what `FrameStack` left behind, of frames that were taken by
            // nobody (duty 1 of `new`), or given back (duty 2 of `free`).
            let mut singles = unsafe { FrameStack::resume(&self.direct_map, state.singles) };
            let result = work(state, &mut singles);
            state.singles = singles.top();
            result
        })
    }
}

impl State<'_> {
    /// Takes a run of single frames, or the rest of a range.
    fn take_any<M: DirectMap>(&mut self, singles: &mut FrameStack<'_, M>) -> Option<PfnRange> {
        singles
            .pop()
            .or_else(|| self.rest.take())
            .or_else(|| self.next_range())
    }

    /// Begins with the next range.
    fn next_range(&mut self) -> Option<PfnRange> {
        let range = self.all.get(self.begun)?;
        self.begun += 1;
        Some(*range)
    }

    /// The first frames that were handed out, from the frame `from` of the range `index` on, or in a later
    /// range; and the number of that range.
    fn taken_from<M: DirectMap>(
        &self,
        index: usize,
        from: u64,
        singles: &FrameStack<'_, M>,
    ) -> Option<(usize, PfnRange)> {
        for (number, range) in self.all.get(..self.begun)?.iter().enumerate().skip(index) {
            let is_last = number + 1 == self.begun;
            let end = match self.rest.filter(|_| is_last) {
                Some(rest) => rest.start().get(),
                None => range.last().get() + 1,
            };
            let mut from = if number == index { from } else { 0 }.max(range.start().get());
            while from < end {
                // What is free from there on.
                let mut free: Option<PfnRange> = None;
                singles.for_each(|run| {
                    let is_sooner = free.is_none_or(|free| run.start() < free.start());
                    if run.last().get() >= from && run.start().get() < end && is_sooner {
                        free = Some(run);
                    }
                });
                match free {
                    Some(free) if free.start().get() <= from => from = free.last().get() + 1,
                    _ => {
                        let end = free.map_or(end, |free| free.start().get());
                        let taken = PfnRange::new(Pfn::new(from)?, end - from).ok()?;
                        return Some((number, taken));
                    }
                }
            }
        }
        None
    }

    fn take_block<M: DirectMap>(
        &mut self,
        order: Order,
        singles: &mut FrameStack<'_, M>,
    ) -> Option<Block> {
        let has_room = |range: PfnRange| first_block(range, order).is_some();
        let mut later = self.all.iter().skip(self.begun);
        let in_later = later.any(|range| has_room(*range));
        if !self.rest.is_some_and(has_room) && !in_later {
            return None;
        }
        // Some range has room, so this ends.
        loop {
            let range = match self.rest.take() {
                Some(rest) => rest,
                None => self.next_range()?,
            };
            let Some(block) = first_block(range, order) else {
                // SAFETY: 1: free frames, by duties 1 and 2 of `new`.
                unsafe { singles.push(range) };
                continue;
            };
            let before = block.first().get() - range.start().get();
            let (before, from) = range.split_at(before);
            if let Some(before) = before {
                // SAFETY: 1: as above.
                unsafe { singles.push(before) };
            }
            self.rest = from.and_then(|from| from.split_at(order.frames()).1);
            return Some(block);
        }
    }

    fn take_run<M: DirectMap>(
        &mut self,
        at_most: u64,
        singles: &mut FrameStack<'_, M>,
    ) -> Option<PfnRange> {
        if let Some(run) = singles.take(at_most) {
            return Some(run);
        }
        let (run, rest) = self.take_any(singles)?.take_first(at_most);
        self.rest = rest;
        Some(run)
    }
}

/// The first block of `order` in `range`.
fn first_block(range: PfnRange, order: Order) -> Option<Block> {
    let first = range
        .start()
        .get()
        .checked_next_multiple_of(order.frames())?;
    let block = Block::new(Pfn::new(first)?, order)?;
    range.contains_range(block.frames()).then_some(block)
}

// SAFETY: 1: duty 1 of `new`; what is handed out is in no list until it comes back. 2: single frames
// are taken back as well. 3: duty 2 of `new`.
unsafe impl<M: DirectMap> PlainAllocator for EarlyFrames<'_, M> {
    fn allocate(&self, order: Order, node: NodeId) -> Option<Block> {
        if order == Order::BASE {
            let run = self.allocate_run(1, node)?;
            return Some(Block::single(run.start()));
        }
        self.with(|state, singles| state.take_block(order, singles))
    }

    fn allocate_run(&self, at_most: u64, _node: NodeId) -> Option<PfnRange> {
        self.with(|state, singles| state.take_run(at_most, singles))
    }

    unsafe fn free(&self, block: Block) {
        // SAFETY: 1: nobody uses the frames any more, and the direct map reaches them: the caller's
        // duties 1 and 2, and duty 2 of `new`.
        self.with(|_, singles| unsafe { singles.push(block.frames()) });
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        self.node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use core::cell::UnsafeCell;
    use core::ptr::NonNull;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const NODE: NodeId = NodeId::new(3);

    /// 64 pages, of two words each, for frames 0 to 63.
    struct Memory(UnsafeCell<[[u64; 2]; 64]>);

    impl Memory {
        const fn new() -> Self {
            Self(UnsafeCell::new([[u64::MAX; 2]; 64]))
        }
    }

    // SAFETY: 1 to 3: each frame has a place of its own; no more than its two words are accessed.
    unsafe impl DirectMap for Memory {
        fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
            let pages = self.0.get().cast::<[u64; 2]>();
            // SAFETY: the tests have frames 0 to 63 only.
            NonNull::new(unsafe { pages.add(frame.get() as usize) }.cast()).unwrap()
        }
    }

    fn range(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    fn order(order: u8) -> Order {
        Order::new(order).unwrap()
    }

    fn frames(ranges: impl IntoIterator<Item = PfnRange>) -> Vec<u64> {
        let frames = ranges.into_iter().flatten().map(Pfn::get);
        frames.collect()
    }

    /// The free frames that are left.
    fn free_of(early: &EarlyFrames<'_, &Memory>) -> Vec<PfnRange> {
        let free = early.drain().filter_map(|range| match range {
            EarlyRange::Free(range) => Some(range),
            EarlyRange::Taken(_) => None,
        });
        free.collect()
    }

    fn taken_once(taken: &[u64]) -> BTreeSet<u64> {
        let set: BTreeSet<_> = taken.iter().copied().collect();
        assert_eq!(set.len(), taken.len(), "{taken:?}");
        set
    }

    #[test]
    fn frames_come_from_the_low_end_and_the_rest_is_left() {
        let (ranges, memory) = ([range(0, 3), range(10, 5)], Memory::new());
        // SAFETY: 1 and 2: the memory is this test's.
        let early = unsafe { EarlyFrames::new(&ranges, NODE, &memory) };
        assert_eq!(early.allocate_run(2, NODE), Some(range(0, 2)));
        assert_eq!(early.allocate_run(9, NODE), Some(range(2, 1)));
        assert_eq!(early.allocate_run(2, NODE), Some(range(10, 2)));
        let taken = [range(0, 3), range(10, 2)].map(EarlyRange::Taken);
        let free = [EarlyRange::Free(range(12, 3))];
        assert!(early.drain().eq(taken.into_iter().chain(free)));
        assert_eq!(early.allocate_run(1, NODE), None);
        assert_eq!(early.node_of(Pfn::ZERO), NODE);
    }

    #[test]
    fn blocks_are_aligned_and_what_lies_before_them_is_not_lost() {
        let (ranges, memory) = ([range(1, 4), range(9, 20), range(40, 8)], Memory::new());
        // SAFETY: 1 and 2: the memory is this test's.
        let early = unsafe { EarlyFrames::new(&ranges, NODE, &memory) };
        let block = early.allocate(order(3), NODE).unwrap();
        assert_eq!(block.frames(), range(16, 8));
        let large = early.allocate(order(4), NODE);
        assert_eq!(
            large, None,
            "no range has one, and nothing is given up for it"
        );
        assert_eq!(
            early.allocate(order(3), NODE).unwrap().frames(),
            range(40, 8)
        );
        let mut all = frames([range(16, 8), range(40, 8)]);
        while let Some(run) = early.allocate_run(3, NODE) {
            all.extend(frames([run]));
        }
        let expected = taken_once(&frames(ranges));
        assert_eq!(taken_once(&all), expected);
    }

    #[test]
    fn what_comes_back_is_handed_out_again_or_drained() {
        let (ranges, memory) = ([range(0, 16), range(32, 32)], Memory::new());
        // SAFETY: 1 and 2: the memory is this test's.
        let early = unsafe { EarlyFrames::new(&ranges, NODE, &memory) };
        let blocks = [0, 2, 1, 3].map(|of| early.allocate(order(of), NODE).unwrap());
        for block in blocks {
            // SAFETY: 1 and 2: handed out above, and used for nothing.
            unsafe { early.free(block) };
        }
        let again = early.allocate(order(0), NODE).unwrap();
        let drained = frames(free_of(&early));
        let mut all = taken_once(&drained);
        assert!(all.insert(again.first().get()));
        assert_eq!(all, taken_once(&frames(ranges)));
    }

    #[test]
    fn what_was_taken_and_what_is_free_are_all_frames_once() {
        let (ranges, memory) = ([range(3, 9), range(16, 20), range(40, 8)], Memory::new());
        for keep in 0..16_u32 {
            // SAFETY: 1 and 2: the memory is this test's.
            let early = unsafe { EarlyFrames::new(&ranges, NODE, &memory) };
            let mut kept = Vec::new();
            for (index, of) in [0, 3, 0, 2].into_iter().enumerate() {
                let block = early.allocate(order(of), NODE).unwrap();
                if keep >> index & 1 == 1 {
                    kept.push(block.frames());
                } else {
                    // SAFETY: 1 and 2: handed out above, and used for nothing.
                    unsafe { early.free(block) };
                }
            }
            let (mut taken, mut free) = (Vec::new(), Vec::new());
            for range in early.drain() {
                match range {
                    EarlyRange::Taken(range) => taken.extend(frames([range])),
                    EarlyRange::Free(range) => free.extend(frames([range])),
                }
            }
            assert_eq!(taken_once(&taken), taken_once(&frames(kept)), "{keep:#b}");
            taken.extend(free);
            assert_eq!(taken_once(&taken), taken_once(&frames(ranges)), "{keep:#b}");
        }
    }
}
