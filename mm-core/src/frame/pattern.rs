//! What is stored again and again.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// Words that are repeated over a frame, such as those of a descriptor.
///
/// Some may not be initialized, as between the fields of a descriptor. They stay so in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'w> {
    words: &'w [MaybeUninit<u64>],
}

impl<'w> Pattern<'w> {
    /// Of these words, of which there is one at least.
    pub const fn new(words: &'w [MaybeUninit<u64>]) -> Option<Self> {
        match words.is_empty() {
            true => None,
            false => Some(Self { words }),
        }
    }

    /// The words, at least one.
    #[inline]
    pub const fn words(&self) -> &'w [MaybeUninit<u64>] {
        self.words
    }

    /// Stores it `times` times from `to` on, by stores like all others.
    ///
    /// # Safety
    ///
    /// 1. `to` is aligned for words and valid for writes of so many patterns, and nobody else uses that memory.
    #[inline]
    pub unsafe fn store(&self, to: NonNull<u64>, times: usize) {
        let from = NonNull::from(self.words).cast::<MaybeUninit<u64>>();
        let to = to.cast::<MaybeUninit<u64>>();
        for index in 0..times {
            // SAFETY: 1: it is that far from `to` at most; the words are borrowed, so they lie elsewhere.
            unsafe {
                to.add(index * self.words.len())
                    .copy_from_nonoverlapping(from, self.words.len());
            }
        }
    }
}
