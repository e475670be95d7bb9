//! Reference counts: one word for each frame, in host memory that costs nothing until it is used.
//!
//! ```text
//!  bit  62    61..56          55..0
//!      | out | block's order | count |      of a block's first frame; zero for all others
//! ```

use memmap2::{MmapMut, MmapOptions};
use mm_core::addr::{Block, Order, PfnRange};
use std::io;

/// The largest count.
pub(super) const MAX: u64 = (1 << ORDER_SHIFT) - 1;

const ORDER_SHIFT: u32 = 56;
const OUT: u64 = 1 << 62;

/// A frame's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    /// Of a frame that no block starts at.
    pub(super) const FREE: Self = Self(0);

    /// Of the first frame of a block of `order` with `references`, at most [`MAX`]. A block that is
    /// out with none is about to be freed.
    pub(super) const fn out(order: Order, references: u64) -> Self {
        Self(OUT | (order.get() as u64) << ORDER_SHIFT | references)
    }

    pub(super) const fn references(self) -> u64 {
        self.0 & MAX
    }

    /// Whether this is the word of a block of `order` that is out.
    pub(super) const fn is_out_as(self, order: Order) -> bool {
        self.0 & !MAX == Self::out(order, 0).0
    }

    /// The order of the block, if it is out.
    pub(super) fn order(self) -> Option<Order> {
        let order = (self.0 & !OUT & !MAX) >> ORDER_SHIFT;
        let order = u8::try_from(order).ok().and_then(Order::new);
        order.filter(|_| self.0 & OUT != 0)
    }

    /// The same block with another count.
    pub(super) const fn with(self, references: u64) -> Self {
        Self(self.0 & !MAX | references)
    }
}

/// The words of the frames of a range.
#[derive(Debug)]
pub(super) struct Counts {
    frames: PfnRange,
    words: MmapMut,
}

impl Counts {
    pub(super) fn new(frames: PfnRange) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the node is too large");
        let bytes = frames.frames().checked_mul(8).ok_or_else(too_large)?;
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let words = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        Ok(Self { frames, words })
    }

    pub(super) fn frames(&self) -> PfnRange {
        self.frames
    }

    /// The words of those of the `frames` frames from the number `first` on that are in the range.
    /// `first` is.
    pub(super) fn words(&mut self, first: u64, frames: u64) -> &mut [[u8; 8]] {
        let (words, _) = self.words.as_chunks_mut();
        let start = first.wrapping_sub(self.frames.start().get());
        let end = start.saturating_add(frames).min(self.frames.frames());
        words
            .get_mut(start as usize..end as usize)
            .unwrap_or_default()
    }
}

/// Reads a word.
pub(super) fn load(word: &[u8; 8]) -> Word {
    Word(u64::from_ne_bytes(*word))
}

/// Writes a word.
pub(super) fn store(word: &mut [u8; 8], value: Word) {
    *word = value.0.to_ne_bytes();
}

/// The counts of all ranges.
#[derive(Debug)]
pub(super) struct AllCounts(pub(super) Vec<Counts>);

impl AllCounts {
    /// The word of the block that starts at the frame number `first`, for reading and writing;
    /// `None` for a frame of no range.
    pub(super) fn word(&mut self, first: u64) -> Option<&mut [u8; 8]> {
        self.words(first, 1).first_mut()
    }

    /// The words of the frames from `first` on, as many as lie in the range of the first, at most
    /// `frames`.
    pub(super) fn words(&mut self, first: u64, frames: u64) -> &mut [[u8; 8]] {
        let has = |counts: &&mut Counts| {
            first.wrapping_sub(counts.frames().start().get()) < counts.frames().frames()
        };
        match self.0.iter_mut().find(has) {
            Some(counts) => counts.words(first, frames),
            None => &mut [],
        }
    }

    /// Stores `value` for each of the `frames` frames from `first` on.
    pub(super) fn fill(&mut self, first: u64, frames: u64, value: Word) {
        let mut done = 0;
        while done < frames {
            let words = self.words(first + done, frames - done);
            if words.is_empty() {
                return;
            }
            done += words.len() as u64;
            words.iter_mut().for_each(|word| store(word, value));
        }
    }

    /// The word of `block`; `None` for a frame of no range.
    pub(super) fn of(&mut self, block: Block) -> Option<&mut [u8; 8]> {
        self.word(block.first().get())
    }
}
