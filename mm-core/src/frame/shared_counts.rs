//! Counts of those frames only that have more than one reference.
//!
//! Nearly all frames of a vmemmap are mapped by one entry. So a frame that is out has one reference
//! unless it is listed here: in a hash table with linear probing, of one word for each frame, at most
//! half full.
//!
//! ```text
//!   word      63 ─ 24   frame
//!             23 ─  0   references, at least 2; a word of 0 is empty
//! ```

use super::reference_counts::sealed::CountFrames;
use super::spin::Spin;
use super::{AcquireError, OwnedBlock, Released};
use crate::addr::{Block, Pfn, PfnRange};
use core::sync::atomic::{AtomicU64, Ordering};

/// How many bits of a word are the count.
const COUNT_BITS: u32 = 24;

/// How many references a frame can have. More than that get a frame of their own: with tails per order,
/// one more for each 4 TiB in pages of 1 GiB (4K pages).
pub(crate) const MOST_REFERENCES: u64 = (1 << COUNT_BITS) - 1;

/// The last frame that has a place in a word: at 2^52 bytes, with pages of 4 KiB.
const LAST_FRAME: u64 = (1 << (u64::BITS - COUNT_BITS)) - 1;

/// How many frames are released under the lock at most before it is given back.
const AT_ONCE: u64 = 32;

/// Spreads frame numbers over the table: 2^64 by the golden ratio (Knuth, "The Art of Computer
/// Programming", volume 3, section 6.4).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Reference counts of frames with more than one reference, in memory that was lent for that alone.
///
/// There are [`words_for`](Self::words_for) as many frames of them as
/// [`DevPagemap::shared_frames`](crate::pagemap::DevPagemap::shared_frames) says, summed over all
/// pagemaps that are online at the same time: two words, 16 bytes, for each. With less nothing fails. What
/// cannot be counted is not shared: tails get frames of their own, and a
/// [`Note`](crate::vmemmap::Note::TailsNotCounted) says so.
///
/// A frame that is not listed is taken to have one reference. So this does not tell free frames from
/// others, and an audit does not find entries that map a free frame; with
/// [`WordCounts`](super::WordCounts) it does.
///
/// # Locks
///
/// Each call takes a spin lock of the value for some ten loads and stores, in which it calls nobody. Where
/// many frames are released together, it takes it again for every 32 of them.
/// An interrupt handler that uses the counts would wait for what it has interrupted. So either no handler
/// does, or interrupts are off wherever the counts are used.
#[derive(Debug)]
pub struct SharedCounts<'c> {
    table: Spin<Table<'c>>,
    /// How many frames are out.
    out: AtomicU64,
}

impl<'c> SharedCounts<'c> {
    /// How many words there have to be for `shared` frames with more than one reference: two for each.
    pub const fn words_for(shared: u64) -> u64 {
        shared.saturating_mul(2)
    }

    /// Counts in `words`, which are overwritten.
    pub const fn new(words: &'c mut [u64]) -> Self {
        let mut index = 0;
        while index < words.len() {
            words[index] = 0;
            index += 1;
        }
        Self {
            table: Spin::new(Table { words, listed: 0 }),
            out: AtomicU64::new(0),
        }
    }

    /// How many frames have more than one reference.
    pub fn shared_frames(&self) -> u64 {
        self.table.with(|table| table.listed as u64)
    }
}

impl CountFrames for SharedCounts<'_> {
    const TELLS_FREE_FRAMES: bool = false;

    fn most_references(&self) -> u64 {
        MOST_REFERENCES
    }

    fn claim(&self, block: Block) -> bool {
        let fits = block.frames().last().get() <= LAST_FRAME;
        if fits {
            let frames = block.order().frames();
            self.out.fetch_add(frames, Ordering::Relaxed);
        }
        fits
    }

    fn claim_frames(&self, run: PfnRange) -> u64 {
        let places = (LAST_FRAME + 1).saturating_sub(run.start().get());
        let claimed = run.frames().min(places);
        self.out.fetch_add(claimed, Ordering::Relaxed);
        claimed
    }

    /// Nothing: a block with one reference is listed as little as frames with one each.
    fn split(&self, _block: Block) {}

    /// Nothing: a block that is out and not listed has one reference.
    fn keep(&self, _block: Block) {}

    fn clear(&self, block: Block) {
        self.out
            .fetch_sub(block.order().frames(), Ordering::Relaxed);
    }

    fn acquire(&self, first: Pfn, references: u64) -> Result<(), AcquireError> {
        if references == 0 {
            return Ok(());
        }
        let changed = self.table.with(|table| {
            table.change(first, |count| {
                let sum = count.checked_add(references)?;
                (sum <= MOST_REFERENCES).then_some(sum)
            })
        });
        changed.map(drop).ok_or(AcquireError { frame: first })
    }

    unsafe fn release(&self, block: Block, references: u64) -> Released {
        if references == 0 {
            return Released::Shared;
        }
        let left = self.table.with(|table| {
            table.change(block.first(), |count| {
                Some(count.saturating_sub(references))
            })
        });
        if left != Some(0) {
            return Released::Shared;
        }
        // SAFETY: 1 and 2: the caller had the last references (its duty 1), so there is nobody else who
        // has one to release.
        Released::Last(unsafe { OwnedBlock::new(block) })
    }

    unsafe fn release_last(&self, frames: PfnRange, step: u64, references: u64) -> u64 {
        let most = frames.frames().div_ceil(step.max(1)).min(AT_ONCE);
        let first = frames.start().get();
        let freed = self
            .table
            .with(|table| table.remove_last(first, step, most, references));
        self.out.fetch_sub(freed, Ordering::Relaxed);
        freed
    }

    fn references(&self, first: Pfn) -> Option<u64> {
        self.table.with(|table| table.change(first, Some))
    }

    fn in_use(&self) -> u64 {
        self.out.load(Ordering::Relaxed)
    }
}

/// The words.
#[derive(Debug)]
struct Table<'c> {
    words: &'c mut [u64],
    /// How many of them are in use.
    listed: usize,
}

/// Where a frame is, or would be.
#[derive(Clone, Copy)]
enum Slot {
    Listed {
        index: usize,
        references: u64,
    },
    Empty {
        index: usize,
    },
    /// The table has no words.
    None,
}

impl Table<'_> {
    /// Makes the references of `frame` what `change` says of those it has, and tells how many these
    /// are. `None`, and all is as it was, where `change` says so, or where they cannot be listed.
    fn change(&mut self, frame: Pfn, change: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
        let slot = self.find(frame.get());
        let before = match slot {
            Slot::Listed { references, .. } => references,
            Slot::Empty { .. } | Slot::None => 1,
        };
        let after = change(before)?;
        match slot {
            Slot::Listed { index, .. } if after > 1 => self.list(index, frame, after),
            Slot::Listed { index, .. } => {
                self.remove(index);
                self.listed -= 1;
            }
            _ if after <= 1 => {}
            Slot::Empty { index } if self.has_room() => {
                self.list(index, frame, after);
                self.listed += 1;
            }
            Slot::Empty { .. } | Slot::None => return None,
        }
        Some(after)
    }

    /// Forgets one frame after the other of `most`, from `first` on by `step`, as long as they have no more
    /// than `references`, and says how many these are.
    fn remove_last(&mut self, first: u64, step: u64, most: u64, references: u64) -> u64 {
        let mut frame = first;
        for index in 0..most {
            match self.find(frame) {
                Slot::Listed {
                    index,
                    references: all,
                } if all <= references => {
                    self.remove(index);
                    self.listed -= 1;
                }
                Slot::Empty { .. } | Slot::None if references >= 1 => {}
                _ => return index,
            }
            frame = frame.wrapping_add(step);
        }
        most
    }

    /// Whether one frame more can be listed.
    fn has_room(&self) -> bool {
        self.listed < self.words.len() / 2
    }

    /// What the word at `index` says; 0 if it is empty.
    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    fn set(&mut self, index: usize, word: u64) {
        if let Some(place) = self.words.get_mut(index) {
            *place = word;
        }
    }

    /// Where the search for `frame` begins.
    fn home(&self, frame: u64) -> usize {
        let spread = u128::from(frame.wrapping_mul(SPREAD));
        ((spread * self.words.len() as u128) >> u64::BITS) as usize
    }

    /// The index after `index`.
    fn next(&self, index: usize) -> usize {
        if index + 1 < self.words.len() {
            index + 1
        } else {
            0
        }
    }

    /// How many steps it is from one index to another.
    fn steps(&self, from: usize, to: usize) -> usize {
        if from <= to {
            to - from
        } else {
            to + (self.words.len() - from)
        }
    }

    #[inline]
    fn find(&self, frame: u64) -> Slot {
        let mut index = self.home(frame);
        // At most half of the words are in use, so the search comes to an empty one.
        for _ in 0..self.words.len() {
            let word = self.word(index);
            if word == 0 {
                return Slot::Empty { index };
            }
            if word >> COUNT_BITS == frame {
                let references = word & MOST_REFERENCES;
                return Slot::Listed { index, references };
            }
            index = self.next(index);
        }
        Slot::None
    }

    /// Enters `references`, from 2 to [`MOST_REFERENCES`], of `frame` at `index`.
    fn list(&mut self, index: usize, frame: Pfn, references: u64) {
        self.set(index, frame.get() << COUNT_BITS | references);
    }

    /// Empties the word at `index`. Words behind it that a search would no longer reach move up.
    fn remove(&mut self, index: usize) {
        let mut hole = index;
        let mut next = self.next(index);
        while next != index && self.word(next) != 0 {
            let word = self.word(next);
            let home = self.home(word >> COUNT_BITS);
            if self.steps(home, next) >= self.steps(hole, next) {
                self.set(hole, word);
                hole = next;
            }
            next = self.next(next);
        }
        self.set(hole, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn words(count: usize) -> Vec<u64> {
        std::vec![u64::MAX; count]
    }

    fn frame(number: u64) -> Pfn {
        Pfn::new(number).unwrap()
    }

    fn release(counts: &SharedCounts<'_>, number: u64, references: u64) -> bool {
        // SAFETY: 1: the tests release what they have acquired, and the first one.
        let released = unsafe { counts.release(Block::single(frame(number)), references) };
        released != Released::Shared
    }

    #[test]
    fn what_is_not_shared_takes_no_word() {
        let mut none = [];
        let counts = SharedCounts::new(&mut none);
        let block = Block::new(frame(512), crate::addr::Order::new(9).unwrap()).unwrap();
        assert!(counts.claim(block));
        assert_eq!(
            (counts.in_use(), counts.references(frame(512))),
            (512, Some(1))
        );
        counts.split(block);
        assert!(release(&counts, 515, 1));
        assert!(counts.acquire(frame(516), 1).is_err());
        assert_eq!(counts.shared_frames(), 0);
    }

    #[test]
    fn two_words_hold_one_count_and_it_is_had_again_once_that_is_one() {
        let mut two = words(2);
        let counts = SharedCounts::new(&mut two);
        counts.acquire(frame(7), 3).unwrap();
        assert_eq!(counts.references(frame(7)), Some(4));
        assert!(counts.acquire(frame(0), 1).is_err());
        counts.acquire(frame(7), 1).unwrap();
        assert!(!release(&counts, 7, 4));
        assert_eq!(
            (counts.references(frame(7)), counts.shared_frames()),
            (Some(1), 0)
        );
        counts.acquire(frame(0), 1).unwrap();
        assert!(release(&counts, 0, 2));
        assert!(release(&counts, 7, 1));
    }

    #[test]
    fn counts_stay_within_their_bits() {
        let mut two = words(2);
        let counts = SharedCounts::new(&mut two);
        let last = frame(LAST_FRAME);
        counts.acquire(last, MOST_REFERENCES - 1).unwrap();
        assert_eq!(counts.references(last), Some(MOST_REFERENCES));
        for more in [1, 1 << COUNT_BITS, u64::MAX] {
            assert!(counts.acquire(last, more).is_err());
            assert_eq!(counts.references(last), Some(MOST_REFERENCES));
        }
        assert!(release(&counts, LAST_FRAME, MOST_REFERENCES));
        assert!(counts.acquire(last, MOST_REFERENCES).is_err());
        assert_eq!(counts.shared_frames(), 0);
    }

    #[test]
    fn frames_that_no_word_can_name_are_not_taken() {
        let mut two = words(2);
        let counts = SharedCounts::new(&mut two);
        let run = PfnRange::new(frame(LAST_FRAME - 1), 4).unwrap();
        assert_eq!(counts.claim_frames(run), 2);
        assert!(!counts.claim(Block::single(frame(LAST_FRAME + 1))));
        assert_eq!(counts.in_use(), 2);
    }

    /// A small generator, so that the test needs no crate.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn counts_are_those_of_a_plain_map_whatever_comes_and_goes() {
        for (room, numbers) in [(1, 3), (5, 9), (8, 8), (64, 200)] {
            let mut table = words(2 * room);
            let counts = SharedCounts::new(&mut table);
            let mut plain = BTreeMap::<u64, u64>::new();
            let mut state = 88_172_645_463_325_252;
            for _ in 0..20_000 {
                let number = next(&mut state) % numbers * 0x1_0000_0001;
                let references = next(&mut state) % 3 + 1;
                let before = plain.get(&number).copied().unwrap_or(1);
                if next(&mut state).is_multiple_of(16) {
                    // Of a run of frames, of which some are listed, the first ones that have no more.
                    let first = next(&mut state) % numbers;
                    let frames = 1 + next(&mut state) % 40;
                    let step = 1 + next(&mut state) % 3;
                    let range = PfnRange::new(frame(first * 0x1_0000_0001), frames).unwrap();
                    let mut expected = 0;
                    for number in range.into_iter().step_by(step as usize).take(32) {
                        let all = plain.get(&number.get()).copied().unwrap_or(1);
                        if all > references {
                            break;
                        }
                        plain.remove(&number.get());
                        expected += 1;
                    }
                    counts.out.fetch_add(expected, Ordering::Relaxed);
                    // SAFETY: 1: frames that are not listed have one reference, the test's.
                    let freed = unsafe { counts.release_last(range, step, references) };
                    assert_eq!((freed, counts.in_use()), (expected, 0));
                    continue;
                }
                if next(&mut state).is_multiple_of(2) {
                    let fits = before > 1 || plain.len() < room;
                    assert_eq!(counts.acquire(frame(number), references).is_ok(), fits);
                    if fits {
                        plain.insert(number, before + references);
                    }
                } else {
                    let gone = references.min(before - 1);
                    assert!(!release(&counts, number, gone));
                    plain.insert(number, before - gone);
                    plain.retain(|_, count| *count > 1);
                }
                assert_eq!(counts.shared_frames(), plain.len() as u64);
            }
            for number in (0..numbers).map(|number| number * 0x1_0000_0001) {
                let expected = plain.get(&number).copied().unwrap_or(1);
                assert_eq!(counts.references(frame(number)), Some(expected));
            }
        }
    }
}
