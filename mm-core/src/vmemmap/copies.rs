//! Many copies of one descriptor.
//!
//! A descriptor is a few words in registers, which are stored again and again. So it costs the stores of
//! its bytes, whatever its fields are.

use core::mem::{MaybeUninit, transmute_copy};
use core::ptr::NonNull;

/// A word of a descriptor. What is not initialized in it, as between fields, stays so.
type Word = MaybeUninit<u64>;

/// Writes `count` copies of the bytes of `value` from `to` on. What was there is not dropped.
///
/// # Safety
///
/// 1. `to` is valid for writes of `count` values, and nobody else uses that memory.
/// 2. `to` is aligned for `D`, and for words where the size of `D` is a multiple of theirs.
/// 3. Copies of the bytes of `value` are values of `D`, and may be forgotten.
#[inline]
pub(super) unsafe fn fill<D>(to: NonNull<D>, value: &D, count: usize) {
    // SAFETY: 1 to 3: the caller's. 4: it is so many words.
    unsafe {
        match size_of::<D>() {
            8 => fill_by_words::<D, 1>(to, value, count),
            16 => fill_by_words::<D, 2>(to, value, count),
            32 => fill_by_words::<D, 4>(to, value, count),
            64 => fill_by_words::<D, 8>(to, value, count),
            128 => fill_by_words::<D, 16>(to, value, count),
            // Less than a word, or more than there are registers.
            _ => {
                for index in 0..count {
                    to.add(index)
                        .copy_from_nonoverlapping(NonNull::from(value), 1);
                }
            }
        }
    }
}

/// The same by words.
///
/// # Safety
///
/// 1 to 3. As for [`fill`].
/// 4. The size of `D` is that of `WORDS` words.
#[inline]
unsafe fn fill_by_words<D, const WORDS: usize>(to: NonNull<D>, value: &D, count: usize) {
    // SAFETY: 4; such words may have any bytes.
    let words: [Word; WORDS] = unsafe { transmute_copy(value) };
    let mut places = NonNull::slice_from_raw_parts(to.cast::<[Word; WORDS]>(), count);
    // SAFETY: 1, 2 and 4; nobody else has a reference.
    fill_words(unsafe { places.as_mut() }, &words);
}

// Not inlined: a compiler that knows some of the words stores these one by one, and others two at a time only
// where both are unknown. It is also the same for all types of one size.
#[inline(never)]
fn fill_words<const WORDS: usize>(places: &mut [[Word; WORDS]], words: &[Word; WORDS]) {
    // Word by word: an array that is assigned whole is copied from memory each time. In one loop, which the
    // compiler unrolls: where a word is stored at several places, it does not store two at a time.
    let words = *words;
    let write = |place: &mut [Word; WORDS]| {
        for (place, word) in place.iter_mut().zip(words) {
            *place = word;
        }
    };
    if HAS_WIDE_REGISTERS {
        return places.iter_mut().for_each(write);
    }
    let (eights, rest) = places.as_chunks_mut::<8>();
    for eight in eights {
        eight.iter_mut().for_each(write);
    }
    rest.iter_mut().for_each(write);
}

/// Whether the compiler may store two words at a time. Kernels are compiled so that it may not; it unrolls less
/// then.
const HAS_WIDE_REGISTERS: bool = cfg!(any(target_feature = "sse2", target_feature = "neon"));
