//! One descriptor, and how many copies of it reach a frame.

use super::copies;
use crate::addr::Pfn;
use crate::descriptor::{Descriptor, Initial};
use crate::frame::{DirectMap, Pattern};
use core::mem::{ManuallyDrop, MaybeUninit, size_of};
use core::ptr::{self, NonNull};
use core::slice;

/// What descriptors start with that start alike.
// Aligned so that it can be read by words.
#[repr(C, align(8))]
pub(super) struct Image<D> {
    descriptor: ManuallyDrop<D>,
}

impl<D: Descriptor> Image<D> {
    pub(super) fn new(initial: Initial) -> Self {
        Self {
            descriptor: ManuallyDrop::new(D::initial(initial)),
        }
    }

    /// Its words; `None` where it is no number of whole words.
    fn pattern(&self) -> Option<Pattern<'_>> {
        if !size_of::<D>().is_multiple_of(size_of::<u64>()) {
            return None;
        }
        let words = ptr::from_ref(self).cast::<MaybeUninit<u64>>();
        let count = size_of::<D>() / size_of::<u64>();
        // SAFETY: the value is borrowed, aligned to words, and starts with that many. They may be anything;
        // nobody changes them meanwhile.
        Pattern::new(unsafe { slice::from_raw_parts(words, count) })
    }

    /// Writes the descriptors of `page` from the index `from` to before `to`.
    ///
    /// # Safety
    ///
    /// 1. `page` is a frame's in a direct map, and nobody else uses the frame.
    /// 2. `D` has the size that the model says, so that descriptors fill the page and are aligned in it.
    /// 3. `to` is at most the number of descriptors in a page.
    #[inline]
    pub(super) unsafe fn write(&self, page: NonNull<D>, from: u64, to: u64) {
        let count = to.saturating_sub(from) as usize;
        // SAFETY: 1: by 1 to 3 the places are within the page, and nobody else's. 2: a page is aligned to more
        // than words, and so is what is a multiple of their size behind its start. 3: duty 1 of `Descriptor`.
        unsafe { copies::fill(page.add(from as usize), &*self.descriptor, count) };
    }
}

/// Stores of descriptors to frames that nobody has seen. Who gets the frames gets them when this is dropped:
/// what was streamed is ordered then.
pub(super) struct Stores<'m, M: DirectMap> {
    direct_map: &'m M,
    streams: bool,
}

impl<'m, M: DirectMap> Stores<'m, M> {
    /// Stores that are streamed, or are like all others.
    pub(super) fn new(direct_map: &'m M, streams: bool) -> Self {
        Self {
            direct_map,
            streams,
        }
    }

    /// Writes the descriptors of `frame` from the index `from` to before `to`.
    ///
    /// # Safety
    ///
    /// 1. The frame was allocated, is reached by the direct map, and nobody else uses it, nor looks at what is
    ///    written, before this is dropped.
    /// 2. `D` has the size that the model says, so that descriptors fill the page and are aligned in it.
    /// 3. `to` is at most the number of descriptors in a page.
    // Always: the deepest of all calls end here, and a frame more is what the stack has no room for.
    #[inline(always)]
    pub(super) unsafe fn write<D: Descriptor>(
        &self,
        frame: Pfn,
        image: &Image<D>,
        from: u64,
        to: u64,
    ) {
        match image.pattern().filter(|_| self.streams) {
            // SAFETY: 1: the caller's, by 3 within the page. 2: ended when this is dropped, by 1.
            Some(pattern) => unsafe {
                let places = from as usize..to.max(from) as usize;
                self.direct_map.stream(frame, places, pattern)
            },
            // SAFETY: 1 to 3: the caller's.
            None => unsafe { image.write(self.page(frame), from, to) },
        }
    }

    /// Writes all `in_page` descriptors of `frame`: `head`, and otherwise `tail`.
    ///
    /// # Safety
    ///
    /// 1 to 3. As for [`write`](Self::write).
    #[inline]
    pub(super) unsafe fn write_led<D: Descriptor>(
        &self,
        frame: Pfn,
        head: &Image<D>,
        tail: &Image<D>,
        in_page: u64,
    ) {
        // SAFETY: 1 to 3: the caller's. Duty 1 of `Descriptor`.
        unsafe {
            if self.streams {
                // Each line once.
                self.write(frame, head, 0, 1);
                self.write(frame, tail, 1, in_page);
            } else {
                // A whole page of tails is written without a rest.
                let page = self.page::<D>(frame);
                tail.write(page, 0, in_page);
                page.copy_from_nonoverlapping(NonNull::from(&*head.descriptor), 1);
            }
        }
    }

    #[inline]
    fn page<D>(&self, frame: Pfn) -> NonNull<D> {
        self.direct_map.frame_pointer(frame).cast()
    }
}

impl<M: DirectMap> Drop for Stores<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if self.streams {
            self.direct_map.end_stream();
        }
    }
}
