//! Values as words.

use core::slice;

/// What a map keeps for a key.
///
/// # Safety
///
/// 1. A value is `u64`s, one behind the other, and nothing else. Whatever these are, it is a value.
pub(crate) unsafe trait Words: Copy {
    /// The value whose words are zero.
    const ZERO: Self;
}

// SAFETY: 1: it is one.
unsafe impl Words for u64 {
    const ZERO: Self = 0;
}

/// How many words a value has.
const fn count<V: Words>() -> usize {
    size_of::<V>() / size_of::<u64>()
}

/// The words of `value`.
pub(super) const fn words_of<V: Words>(value: &V) -> &[u64] {
    // SAFETY: duty 1 of `Words`: these are its words. It is borrowed for as long.
    unsafe { slice::from_raw_parts((&raw const *value).cast(), count::<V>()) }
}

/// The value that `words` are, if they are as many as it has.
pub(super) const fn value_of<V: Words>(words: &[u64]) -> Option<&V> {
    if words.len() != count::<V>() {
        return None;
    }
    // SAFETY: duty 1 of `Words`: so many words are a value. They are borrowed for as long.
    Some(unsafe { &*words.as_ptr().cast() })
}

/// The value that `words` are, to be changed.
pub(super) const fn value_of_mut<V: Words>(words: &mut [u64]) -> Option<&mut V> {
    if words.len() != count::<V>() {
        return None;
    }
    // SAFETY: as in `value_of`; a value is words again. They are borrowed mutably for as long.
    Some(unsafe { &mut *words.as_mut_ptr().cast() })
}
