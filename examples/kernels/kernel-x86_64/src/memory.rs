//! The kernel's frames, and the memory for their books.

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU64;
use experiment::{Bitmap, EarlyFrames, Frames, MemoryMap, Rationed};
use mm_core::addr::{Granule, Pfn, PfnRange};
use mm_core::frame::{Counted, DirectMap};

/// Memory below this is left to firmware.
const LOW_MEMORY: u64 = 1 << 20;

/// RAM below `limit` and above the image, which is where early frames come from.
pub fn early_range(map: &MemoryMap, image_end: u64, limit: u64) -> Option<PfnRange> {
    let frame = |address: u64| Pfn::new(address >> Granule::Size4K.shift());
    let (first, end) = (frame(image_end.next_multiple_of(4096))?, frame(limit)?);
    let window = PfnRange::new(first, end.get().checked_sub(first.get())?).ok()?;
    let parts = map.ram.as_slice().iter();
    parts
        .filter_map(|range| range.intersection(window))
        .max_by_key(|range| range.frames())
}

/// `count` values in early memory, each `value()`, for good.
pub fn early_slice<T>(
    early: &EarlyFrames,
    direct_map: &impl DirectMap,
    count: u64,
    value: impl Fn() -> T,
) -> Option<&'static mut [T]> {
    let bytes = count.checked_mul(size_of::<T>() as u64)?;
    let frames = early.take(bytes.div_ceil(Granule::Size4K.bytes()).max(1))?;
    let first = direct_map
        .frame_pointer(frames.start())
        .cast::<MaybeUninit<T>>();
    // SAFETY: the frames are nobody else's and never given back; the kernel's direct map is linear, so that they follow each other
    // there; pages are aligned for any type.
    let slice = unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), count as usize) };
    for place in slice.iter_mut() {
        place.write(value());
    }
    // SAFETY: every element was just written.
    Some(unsafe { &mut *(core::ptr::from_mut(slice) as *mut [T]) })
}

/// An allocator of all RAM of `map` that neither firmware, nor the image, nor early memory uses.
///
/// Ends early memory: what is left of it goes to the allocator.
///
/// # Safety
///
/// 1. All RAM of `map` above low memory and the image is free, but for what was taken from `early`, which came from `early_range`.
/// 2. `direct_map` is linear and reaches all RAM.
pub unsafe fn frames(
    map: &MemoryMap,
    early_range: PfnRange,
    early: &EarlyFrames,
    direct_map: &impl DirectMap,
    image_end: u64,
) -> Option<Frames<'static>> {
    let first = Pfn::new(LOW_MEMORY.max(image_end).div_ceil(Granule::Size4K.bytes()))?;
    let last = map.last_ram_frame()?;
    let all = PfnRange::new(first, last.get().checked_sub(first.get())? + 1).ok()?;
    let words = early_slice(early, direct_map, Bitmap::words_for(all), || Cell::new(0))?;
    let counts = early_slice(early, direct_map, all.frames(), || AtomicU64::new(0))?;
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
    Counted::new(Rationed::new(bitmap), all, counts).ok()
}
