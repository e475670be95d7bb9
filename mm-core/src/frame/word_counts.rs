//! A count of 32 bits for each frame of a range.

use super::counts::{CountStore, Counts, MOST_REFERENCES};
use super::reference_counts::sealed::CountFrames;
use super::{AcquireError, Released};
use crate::addr::{Block, Pfn, PfnRange};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

/// The memory for the counts is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewCounts {
    /// How many words there have to be: one for each frame.
    pub needed: u64,
    /// How many there are.
    pub given: usize,
}

impl fmt::Display for TooFewCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames need a count for each of them; only {} were given",
            self.needed, self.given
        )
    }
}

impl core::error::Error for TooFewCounts {}

/// Reference counts in memory that was lent for that alone: a word for each frame of a range.
#[derive(Debug)]
pub struct WordCounts<'c> {
    counts: Counts<Words<'c>>,
}

impl<'c> WordCounts<'c> {
    /// Counts for `frames` in `words`, which has a word for each of them and is overwritten. The
    /// words are this value's alone for as long as they are borrowed:
    ///
    /// ```compile_fail,E0502
    /// use core::sync::atomic::{AtomicU32, Ordering};
    /// use mm_core::addr::PfnRange;
    /// use mm_core::frame::WordCounts;
    ///
    /// fn stores(frames: PfnRange, mut words: [AtomicU32; 16]) {
    ///     let counts = WordCounts::new(frames, &mut words);
    ///     words[0].store(7, Ordering::Relaxed);
    ///     drop(counts);
    /// }
    /// ```
    ///
    /// ```compile_fail,E0499
    /// use core::sync::atomic::AtomicU32;
    /// use mm_core::addr::PfnRange;
    /// use mm_core::frame::WordCounts;
    ///
    /// fn counts_twice(frames: PfnRange, mut words: [AtomicU32; 16]) {
    ///     let first = WordCounts::new(frames, &mut words);
    ///     let second = WordCounts::new(frames, &mut words);
    ///     drop((first, second));
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TooFewCounts`].
    pub fn new(frames: PfnRange, words: &'c mut [AtomicU32]) -> Result<Self, TooFewCounts> {
        let too_few = TooFewCounts {
            needed: frames.frames(),
            given: words.len(),
        };
        let needed = usize::try_from(frames.frames()).map_err(|_| too_few)?;
        let words = words.get_mut(..needed).ok_or(too_few)?;
        for word in words.iter_mut() {
            *word.get_mut() = 0;
        }
        let counts = Counts::new(Words { frames, words });
        Ok(Self { counts })
    }
}

impl CountFrames for WordCounts<'_> {
    const TELLS_FREE_FRAMES: bool = true;

    fn most_references(&self) -> u64 {
        MOST_REFERENCES
    }

    fn claim(&self, block: Block) -> bool {
        self.counts.claim(block)
    }

    fn claim_frames(&self, run: PfnRange) -> u64 {
        let claimed = |frame: &Pfn| self.counts.claim(Block::single(*frame));
        run.into_iter().take_while(claimed).count() as u64
    }

    fn split(&self, block: Block) {
        self.counts.split(block);
    }

    fn keep(&self, block: Block) {
        self.counts.keep(block);
    }

    fn clear(&self, block: Block) {
        self.counts.clear(block);
    }

    fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        self.counts.acquire(first, references)
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        // SAFETY: 1: the caller's.
        unsafe { self.counts.release(block, references) }
    }

    fn references(&self, first: Pfn) -> Option<u64> {
        self.counts.references(first)
    }

    fn in_use(&self) -> u64 {
        let words = self.counts.store().words;
        // An audit asks for all of RAM, of which most is free: eight words are seen to be 0 at once.
        let (eights, rest) = words.as_chunks::<8>();
        eights.iter().map(|eight| used(eight)).sum::<u64>() + used(rest)
    }
}

/// How many of `words` are not 0.
#[inline]
fn used(words: &[AtomicU32]) -> u64 {
    let loads = || words.iter().map(|word| word.load(Ordering::Relaxed));
    match loads().fold(0, |all, word| all | word) {
        0 => 0,
        _ => loads().map(|word| u64::from(word != 0)).sum(),
    }
}

/// The words, and whose counts they are.
#[derive(Debug)]
struct Words<'c> {
    frames: PfnRange,
    words: &'c [AtomicU32],
}

impl CountStore for Words<'_> {
    fn frames(&self) -> PfnRange {
        self.frames
    }

    fn count(&self, frame: Pfn) -> Option<&AtomicU32> {
        let index = frame.get().checked_sub(self.frames.start().get())?;
        self.words.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also those behind the last eight.
    #[test]
    fn each_frame_in_use_is_counted_wherever_it_is() {
        let frames = PfnRange::new(Pfn::ZERO, 19).unwrap();
        for first in 0..19 {
            let mut words = [const { AtomicU32::new(0) }; 19];
            let counts = WordCounts::new(frames, &mut words).unwrap();
            assert_eq!(counts.in_use(), 0);
            for claimed in 0..19 {
                let frame = Pfn::new((first + claimed * 7) % 19).unwrap();
                assert!(counts.claim(Block::single(frame)));
                assert_eq!(counts.in_use(), claimed + 1, "{frame} from {first} on");
            }
        }
    }
}
