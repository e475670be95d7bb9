//! The kernel's own frame allocator: a bit for each frame, set while it is free. Nothing here is about the
//! library.

use core::ptr::with_exposed_provenance_mut;
use spin::Mutex;

const WORDS: usize = 256;
const WORD_BITS: u64 = 64;

/// How many frames there are.
pub const FRAMES: u64 = WORDS as u64 * WORD_BITS;

/// The kernel's frames; none until it knows of memory.
pub static ALLOCATOR: Mutex<Frames> = Mutex::new(Frames {
    first: 0,
    words: [0; WORDS],
});

/// [`FRAMES`] frames that follow each other.
pub struct Frames {
    first: u64,
    words: [u64; WORDS],
}

impl Frames {
    /// Makes the frames from `first` on free, a multiple of a word's bits.
    ///
    /// # Safety
    ///
    /// 1. They are RAM that nobody uses, mapped where it is.
    pub unsafe fn set(&mut self, first: u64) {
        self.first = first;
        self.words = [u64::MAX; WORDS];
    }

    /// `count` frames, a power of two and at most a word's bits, aligned to their size.
    pub fn allocate(&mut self, count: u64) -> Option<u64> {
        let low = u64::MAX.checked_shr(u32::try_from(WORD_BITS.checked_sub(count)?).ok()?)?;
        for (index, word) in self.words.iter_mut().enumerate() {
            for bit in (0..WORD_BITS).step_by(count as usize) {
                let mask = low << bit;
                if *word & mask == mask {
                    *word &= !mask;
                    return Some(self.first + index as u64 * WORD_BITS + bit);
                }
            }
        }
        None
    }

    /// A frame of zeroes.
    pub fn allocate_zeroed(&mut self) -> Option<u64> {
        let frame = self.allocate(1)?;
        let start = with_exposed_provenance_mut::<[u64; 512]>((frame << 12) as usize);
        // SAFETY: a frame that nobody else has, mapped where it is (duty 1 of `set`).
        unsafe { start.write([0; 512]) };
        Some(frame)
    }

    /// Takes frames back, in whatever parts.
    pub fn free(&mut self, first: u64, count: u64) {
        for frame in first..first + count {
            let index = frame - self.first;
            let word = self.words.get_mut((index / WORD_BITS) as usize);
            let Some(word) = word else {
                panic!("frame {frame:#x} is none of the allocator's");
            };
            let bit = 1 << (index % WORD_BITS);
            assert!(*word & bit == 0, "frame {frame:#x} is freed twice");
            *word |= bit;
        }
    }
}
