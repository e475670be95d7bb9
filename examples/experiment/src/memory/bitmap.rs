//! The kernel's frame allocator: a bit for each frame, set while the frame is free.

use core::cell::Cell;
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::frame::PlainAllocator;

/// The bits of a word, as an order of frames.
const WORD_ORDER: u8 = 6;
const WORD_BITS: u64 = 1 << WORD_ORDER;

/// Free frames of one node, for one CPU.
///
/// Single frames come from the low end and blocks from the high end, so that blocks stay whole for
/// long.
#[derive(Debug)]
pub struct Bitmap<'m> {
    frames: PfnRange,
    /// Bit `n` is frame `base + n`, where the base is a multiple of a word's bits.
    words: &'m [Cell<u64>],
    free: Cell<u64>,
    /// No word below this one has a free frame.
    lowest: Cell<usize>,
    freed_twice: Cell<u64>,
}

impl<'m> Bitmap<'m> {
    /// How many words a bitmap of `frames` needs.
    pub const fn words_for(frames: PfnRange) -> u64 {
        (frames.last().get() >> WORD_ORDER) - (frames.start().get() >> WORD_ORDER) + 1
    }

    /// Frames of `frames`, none of them free. Overwrites `words`; `None` where these are too few.
    pub fn new(frames: PfnRange, words: &'m [Cell<u64>]) -> Option<Self> {
        let needed = usize::try_from(Self::words_for(frames)).ok()?;
        let words = words.get(..needed)?;
        words.iter().for_each(|word| word.set(0));
        Some(Self {
            frames,
            words,
            free: Cell::new(0),
            lowest: Cell::new(needed),
            freed_twice: Cell::new(0),
        })
    }

    /// How many frames are free.
    pub fn free_frames(&self) -> u64 {
        self.free.get()
    }

    /// How many frames were given back that were free already. That breaks a duty; it is written
    /// down to be told.
    pub fn freed_twice(&self) -> u64 {
        self.freed_twice.get()
    }

    /// Makes `frames` free.
    ///
    /// # Safety
    ///
    /// 1. They are RAM that nobody uses.
    /// 2. The kernel's direct map reaches them.
    pub unsafe fn add(&self, frames: PfnRange) {
        self.set_free(frames);
    }

    /// Sets the bits of `frames`, and says how many were not set before.
    fn set_free(&self, frames: PfnRange) -> u64 {
        let before = self.free.get();
        let mut rest = frames.intersection(self.frames);
        while let Some(range) = rest {
            let in_word = WORD_BITS - range.start().get() % WORD_BITS;
            let (part, after) = range.take_first(in_word);
            rest = after;
            let Some((index, word)) = self.word_of(part.start()) else {
                break;
            };
            let mask = mask(part.frames()) << (part.start().get() % WORD_BITS);
            let newly = mask & !word.get();
            word.set(word.get() | mask);
            self.free
                .set(self.free.get() + u64::from(newly.count_ones()));
            self.lowest.set(self.lowest.get().min(index));
        }
        self.free.get() - before
    }

    /// The number of the first word's first frame.
    fn base(&self) -> u64 {
        self.frames.start().get() & !(WORD_BITS - 1)
    }

    fn word_of(&self, frame: Pfn) -> Option<(usize, &Cell<u64>)> {
        let index = (frame.get().checked_sub(self.base())? >> WORD_ORDER) as usize;
        self.words.get(index).map(|word| (index, word))
    }

    /// A block that fits into a word, from the lowest word that has one.
    fn take_in_word(&self, order: Order) -> Option<Pfn> {
        let start = self.lowest.get();
        let mut first_free = None;
        for (index, word) in self.words.iter().enumerate().skip(start) {
            let bits = word.get();
            if bits == 0 {
                continue;
            }
            first_free.get_or_insert(index);
            let step = order.frames() as usize;
            let block = (0..WORD_BITS)
                .step_by(step)
                .map(|bit| (bit, mask(order.frames()) << bit))
                .find(|(_, mask)| bits & mask == *mask);
            if let Some((bit, mask)) = block {
                word.set(bits & !mask);
                self.lowest.set(first_free.unwrap_or(index));
                return Pfn::new(self.base() + ((index as u64) << WORD_ORDER) + bit);
            }
        }
        self.lowest.set(first_free.unwrap_or(self.words.len()));
        None
    }

    /// A block of whole words, from the highest that there is.
    fn take_words(&self, order: Order) -> Option<Pfn> {
        let words = (order.frames() >> WORD_ORDER) as usize;
        let end = self.frames.last().get() + 1;
        let mut first = (end & !(order.frames() - 1)).checked_sub(order.frames())?;
        while let Some((index, _)) = Pfn::new(first).and_then(|frame| self.word_of(frame)) {
            let block = self.words.get(index..index.checked_add(words)?)?;
            if block.iter().all(|word| word.get() == u64::MAX) {
                block.iter().for_each(|word| word.set(0));
                return Pfn::new(first);
            }
            first = first.checked_sub(order.frames())?;
        }
        None
    }
}

/// The lowest `bits` bits, between 1 and 64.
const fn mask(bits: u64) -> u64 {
    u64::MAX >> (WORD_BITS - bits)
}

// SAFETY: 1: the bits of a block are cleared when it is handed out, and bits are set for frames
// that were given to `add` (its duty 1) or to `free`; blocks start at multiples of their size;
// there is one node. 2: bits do not remember blocks. 3: duty 2 of `add`.
unsafe impl PlainAllocator for Bitmap<'_> {
    fn allocate(&self, order: Order, _node: NodeId) -> Option<Block> {
        let first = if order.get() < WORD_ORDER {
            self.take_in_word(order)
        } else {
            self.take_words(order)
        }?;
        self.free.set(self.free.get() - order.frames());
        Block::new(first, order)
    }

    unsafe fn free(&self, block: Block) {
        let newly = self.set_free(block.frames());
        let twice = block.order().frames().saturating_sub(newly);
        self.freed_twice.set(self.freed_twice.get() + twice);
    }

    fn node_of(&self, _frame: Pfn) -> NodeId {
        NodeId::new(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::new(0);

    fn frames(start: u64, frames: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start).unwrap(), frames).unwrap()
    }

    fn allocate(bitmap: &Bitmap<'_>, order: u8) -> Option<u64> {
        let block = bitmap.allocate(Order::new(order).unwrap(), NODE)?;
        Some(block.first().get())
    }

    #[test]
    fn single_frames_come_from_below_and_blocks_from_above() {
        let words = [const { Cell::new(7) }; 40];
        let bitmap = Bitmap::new(frames(100, 2000), &words).unwrap();
        assert_eq!(allocate(&bitmap, 0), None);
        // SAFETY: 1 and 2: no memory is behind them, and nothing here touches any.
        unsafe { bitmap.add(frames(101, 1999)) };
        assert_eq!(bitmap.free_frames(), 1999);
        assert_eq!(allocate(&bitmap, 0), Some(101));
        assert_eq!(allocate(&bitmap, 9), Some(1536));
        assert_eq!(allocate(&bitmap, 9), Some(1024));
        assert_eq!(allocate(&bitmap, 9), Some(512));
        assert_eq!(allocate(&bitmap, 9), None);
        assert_eq!(allocate(&bitmap, 1), Some(102));
        assert_eq!(allocate(&bitmap, 5), Some(128));
        assert_eq!(bitmap.free_frames(), 1999 - 1 - 3 * 512 - 2 - 32);
    }

    #[test]
    fn a_block_given_back_frame_by_frame_is_whole_again() {
        let words = [const { Cell::new(0) }; 16];
        let bitmap = Bitmap::new(frames(0, 1024), &words).unwrap();
        // SAFETY: as above.
        unsafe { bitmap.add(frames(512, 512)) };
        assert_eq!(allocate(&bitmap, 9), Some(512));
        for index in (0..512).rev() {
            assert_eq!(allocate(&bitmap, 9), None);
            let frame = Pfn::new(512 + index).unwrap();
            // SAFETY: 1 and 2: it was handed out as part of the block.
            unsafe { bitmap.free(Block::single(frame)) };
        }
        assert_eq!(allocate(&bitmap, 9), Some(512));
    }

    #[test]
    fn a_frame_freed_twice_is_told_and_counted_once() {
        let words = [const { Cell::new(0) }; 2];
        let bitmap = Bitmap::new(frames(64, 64), &words).unwrap();
        // SAFETY: as above.
        unsafe { bitmap.add(frames(64, 64)) };
        let block = bitmap.allocate(Order::BASE, NODE).unwrap();
        for (free, twice) in [(64, 0), (64, 1)] {
            // SAFETY: 1: it was handed out. 2: the second time is broken on purpose.
            unsafe { bitmap.free(block) };
            assert_eq!((bitmap.free_frames(), bitmap.freed_twice()), (free, twice));
        }
    }

    #[test]
    fn too_few_words_are_refused() {
        let words = [const { Cell::new(0) }; 2];
        assert!(Bitmap::new(frames(63, 2), &words).is_some());
        assert!(Bitmap::new(frames(63, 66), &words).is_none());
    }
}
