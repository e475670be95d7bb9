//! Sets up the allocator of the kernel, and the memory that it keeps its records in.

use super::{Bitmap, EarlyFrames, Frames, Limited, MemoryMap};
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;
use mm_core::addr::{Granule, Pfn, PfnRange};
use mm_core::frame::{Counted, DirectMap, WordCounts};

/// The largest part of RAM in whole frames above the image and below `limit`, which is where early
/// frames come from.
pub(crate) fn early_range(
    map: &MemoryMap,
    granule: Granule,
    image_end: u64,
    limit: u64,
) -> Option<PfnRange> {
    let first = Pfn::new(image_end.div_ceil(granule.bytes()))?;
    let end = Pfn::new(limit >> granule.shift())?;
    let window = PfnRange::new(first, end.get().checked_sub(first.get())?).ok()?;
    let parts = map.ram.as_slice().iter();
    parts
        .filter_map(|range| range.intersection(window))
        .max_by_key(|range| range.frames())
}

/// `count` values in early memory, each `value()`, for good.
///
/// # Safety
///
/// 1. The frames of `early` are RAM that nobody uses, in pages of `granule`.
/// 2. `direct_map` is linear and reaches them, for good.
pub(crate) unsafe fn early_slice<T>(
    early: &EarlyFrames,
    granule: Granule,
    direct_map: &impl DirectMap,
    count: u64,
    value: impl Fn() -> T,
) -> Option<&'static mut [T]> {
    let bytes = count.checked_mul(size_of::<T>() as u64)?;
    let frames = early.take(bytes.div_ceil(granule.bytes()).max(1))?;
    let first = direct_map
        .frame_pointer(frames.start())
        .cast::<MaybeUninit<T>>();
    // SAFETY: the frames are nobody else's (duty 1) and never given back; they follow each other in
    // the direct map (duty 2); pages are aligned for any type.
    let slice = unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), count as usize) };
    for place in slice.iter_mut() {
        place.write(value());
    }
    // SAFETY: every element was just written.
    Some(unsafe { &mut *(core::ptr::from_mut(slice) as *mut [T]) })
}

/// An allocator of all RAM of `map` from `first_free` on that early memory does not use.
///
/// Ends early memory: what is left of it goes to the allocator.
///
/// # Safety
///
/// 1. All RAM of `map` from `first_free` on is free, but for what was taken from `early`, which
///    came from `early_range`.
/// 2. `direct_map` is linear and reaches all RAM, for good.
pub(crate) unsafe fn allocator(
    map: &MemoryMap,
    early_range: PfnRange,
    early: &EarlyFrames,
    granule: Granule,
    direct_map: &impl DirectMap,
    first_free: u64,
) -> Option<Frames<'static>> {
    let first = Pfn::new(first_free.div_ceil(granule.bytes()))?;
    let last = map.last_ram_frame()?;
    let all = PfnRange::new(first, last.get().checked_sub(first.get())? + 1).ok()?;
    // SAFETY: 1 and 2: duties 1 and 2.
    let (words, counts) = unsafe {
        let words = early_slice(early, granule, direct_map, Bitmap::words_for(all), || {
            Cell::new(0)
        });
        let counts = early_slice(early, granule, direct_map, all.frames(), || {
            AtomicU32::new(0)
        });
        (words?, counts?)
    };
    let bitmap = Bitmap::new(all, words)?;

    let rest = early.finish();
    let others = map.ram.as_slice().iter().flat_map(|range| {
        let window = range.intersection(all);
        // The range that early memory came from, without that.
        let before = window.and_then(|window| {
            let frames = early_range
                .start()
                .get()
                .saturating_sub(window.start().get());
            window.split_at(frames).0
        });
        let after = window.and_then(|window| {
            let frames = (early_range.last().get() + 1).saturating_sub(window.start().get());
            window.split_at(frames).1
        });
        if window.is_some_and(|window| window.overlaps(early_range)) {
            [before, after]
        } else {
            [window, None]
        }
    });
    for range in others.flatten().chain(rest) {
        // SAFETY: 1: duty 1. 2: duty 2.
        unsafe { bitmap.add(range) };
    }
    let counts = WordCounts::new(all, counts).ok()?;
    Some(Counted::new(Limited::new(bitmap), counts))
}
