//! A count of references that can be frozen.

use super::word::Word;
use core::sync::atomic::{AtomicU32, Ordering};

/// What giving a reference back has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after the last reference the page is free, and somebody has to know"]
pub enum Put {
    /// The page has other references.
    Shared,
    /// That was the last one: the page has no owner any more.
    Last,
}

/// Frozen: no number of references.
const FROZEN: u32 = u32::MAX;

/// From here on references are refused, so that none is counted as frozen.
const MOST: u32 = i32::MAX as u32;

/// The references of a page, in its head: none where nobody owns it, or frozen.
///
/// While it is frozen, nobody takes a reference, and nobody has a reason to store: all references
/// belong to whoever froze it. A descriptor of a kernel's own has one as a field, and forwards the
/// methods of [`CountReferences`](crate::readers::CountReferences) to it.
#[derive(Debug)]
#[repr(transparent)]
pub struct ReferenceCount<W = AtomicU32> {
    pub(in crate::readers) word: W,
}

impl ReferenceCount {
    /// A count of `references`, at most 2^31 - 1; more are taken for that.
    pub const fn new(references: u32) -> Self {
        let references = if references > MOST { MOST } else { references };
        Self {
            word: AtomicU32::new(references),
        }
    }

    /// How many there are at this moment; `None` while it is frozen.
    pub fn get(&self) -> Option<u32> {
        match Word::load(&self.word, Ordering::Relaxed) {
            FROZEN => None,
            references => Some(references),
        }
    }

    /// Makes it what `new` is, whatever it was: what a descriptor's
    /// [`reset`](crate::descriptor::Reshape::reset) does with it.
    ///
    /// # Safety
    ///
    /// 1. Nobody has a reference that is counted here, or has frozen it.
    /// 2. If `new` counts references, the page has an owner of so many.
    pub unsafe fn reset(&self, new: &Self) {
        let word = Word::load(&new.word, Ordering::Relaxed);
        Word::store(&self.word, word, Ordering::Relaxed);
    }

    /// Makes it 1 if it is 0: the page, which was free, has an owner. Says whether it was.
    pub fn own(&self) -> bool {
        let owned = Word::compare_exchange(&self.word, 0, 1, Ordering::Acquire, Ordering::Relaxed);
        owned.is_ok()
    }
}

impl<W: Word<Value = u32>> ReferenceCount<W> {
    /// Takes a reference, if there is one already and it is not frozen. Where it refuses, it has
    /// loaded and nothing more.
    pub fn try_get(&self) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        while (1..MOST).contains(&seen) {
            let taken = self.word.compare_exchange(
                seen,
                seen + 1,
                // What was flushed before it was unfrozen is flushed for whoever has the reference.
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives a reference back.
    ///
    /// # Safety
    ///
    /// 1. The caller has a reference, and does not use it any more. So the count is not frozen.
    pub unsafe fn put(&self) -> Put {
        // What each holder did is done before the page is free, or frozen.
        match self.word.fetch_sub(1, Ordering::AcqRel) {
            1 => Put::Last,
            _ => Put::Shared,
        }
    }

    /// Freezes it if it counts `expected`, which are the caller's. Says whether it did.
    pub fn try_freeze(&self, expected: u32) -> bool {
        if expected > MOST {
            return false;
        }
        let frozen = self.word.compare_exchange(
            expected,
            FROZEN,
            // What holders did before they gave their references back is done.
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        frozen.is_ok()
    }

    /// Whether it is frozen. If not, what was done before it was unfrozen is done.
    pub fn is_frozen(&self) -> bool {
        self.word.load(Ordering::Acquire) == FROZEN
    }

    /// Makes it count `references` again.
    ///
    /// # Safety
    ///
    /// 1. The caller has frozen it, or made it frozen.
    /// 2. The page has an owner of so many references, or none if there are none.
    pub unsafe fn unfreeze(&self, references: u32) {
        self.word.store(references.min(MOST), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_reset_to_what_a_new_one_is() {
        let count = ReferenceCount::new(1);
        for references in [0, 1] {
            // SAFETY: 1 and 2: there is no page.
            unsafe { count.reset(&ReferenceCount::new(references)) };
            assert_eq!(count.get(), Some(references));
            assert_eq!(count.try_get(), references == 1);
        }
    }

    #[test]
    fn a_free_page_and_a_frozen_one_refuse() {
        let count = ReferenceCount::new(0);
        assert!(!count.try_get());
        assert!(count.own() && !count.own());
        assert!(count.try_get());
        assert_eq!(count.get(), Some(2));
        assert!(!count.try_freeze(1));
        assert!(count.try_freeze(2));
        assert_eq!(
            (count.get(), count.try_get(), count.own()),
            (None, false, false)
        );
        assert!(!count.try_freeze(2), "frozen once");
        assert!(count.is_frozen());
        // SAFETY: 1 and 2: frozen just now, with two references.
        unsafe { count.unfreeze(2) };
        assert!(!count.is_frozen());
        // SAFETY: 1: both references are this test's.
        let puts = unsafe { [count.put(), count.put()] };
        assert_eq!(puts, [Put::Shared, Put::Last]);
        assert!(count.try_freeze(0), "a free page can be frozen too");
    }

    #[test]
    fn so_many_references_that_the_next_would_look_frozen_are_refused() {
        let count = ReferenceCount::new(u32::MAX);
        assert_eq!(count.get(), Some(MOST));
        assert!(!count.try_get());
        assert!(!count.try_freeze(u32::MAX));
        assert!(count.try_freeze(MOST));
    }
}
