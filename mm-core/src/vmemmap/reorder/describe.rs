//! Writing descriptors of pages that change their order.

use super::target::Target;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr};
use crate::descriptor::{Descriptor, Initial, Part, Reshape, TailEncoding};
use crate::frame::DirectMap;
use crate::pagemap::Heads;
use crate::paging::Run;
use crate::vmemmap::descriptor_writer::DescriptorWriter;
use crate::vmemmap::image::Image;
use crate::vmemmap::queries::holders;
use core::ptr::NonNull;

/// What becomes of the descriptors of pages that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmemmap) enum Describe {
    /// Where a new page begins, its first descriptor is as that of a page that has just come online.
    Owned,
    /// Where a new page begins, its first descriptor has no references, like a tail's. It gets one when the
    /// page is thawed.
    Frozen,
    /// Descriptors that have memory of their own stay as they are. Only their order changes, and what maps
    /// their tails.
    Kept,
    /// Descriptors do not change, only what maps them.
    Unchanged,
}

impl Describe {
    /// Whether the pages stay what they are, as in fold and unfold. Tails that are shared stay in their frame.
    /// Tails that begin to be shared use a frame that is mapped already.
    pub(super) const fn keeps(self) -> bool {
        matches!(self, Self::Kept | Self::Unchanged)
    }
}

/// Descriptors in one vmemmap page that are alike.
struct Alike {
    /// The first frame that they describe.
    first: Pfn,
    count: u64,
    initial: Initial,
}

/// Writes the descriptors of a unit of memory, as parts of the pages that it is to become.
#[derive(Clone, Copy)]
pub(in crate::vmemmap) struct UnitWriter<'u, M> {
    pub(in crate::vmemmap) writer: &'u DescriptorWriter<'u, M>,
    pub(in crate::vmemmap) target: &'u Target<'u>,
    pub(in crate::vmemmap) unit: PfnRange,
    pub(in crate::vmemmap) describe: Describe,
}

impl<M: DirectMap> UnitWriter<'_, M> {
    /// Writes the descriptors of a vmemmap page into `holder`, for the memory from `first` on.
    ///
    /// # Safety
    ///
    /// 1. `holder` was allocated, is reached by the direct map, and nobody else uses it.
    /// 2. `D` has the size that the model says. All of the page is about frames of the unit.
    pub(super) unsafe fn write_page<D: Reshape>(&self, holder: Pfn, first: Pfn) {
        let descriptors = self.descriptors::<D>(holder);
        let mut left = self.in_page(first);
        while let Some(part) = self.next_part::<D>(&mut left) {
            let index = part.first.get() - first.get();
            // SAFETY: 1 and 2: the caller's. 3: the part is in the page.
            unsafe { self.write_part::<D>(descriptors, part.initial, index, index + part.count) };
        }
    }

    /// The same for the first vmemmap page of each of the compound pages of `order` that follow each other
    /// from the frame `first` on: each into a frame of `holders`. They are of one node, and their tails are
    /// the same bytes.
    ///
    /// # Safety
    ///
    /// 1. As for [`write_page`](Self::write_page), for each of them.
    /// 2. As there. A page of `order` fills more than one vmemmap page.
    pub(super) unsafe fn write_first_pages<D: Reshape>(
        &self,
        holders: PfnRange,
        first: Pfn,
        order: Order,
    ) {
        let [head, tail] = [Part::Head, Part::Tail].map(|part| {
            self.writer
                .initial_as::<D>(order, Heads::InPlace, part, first)
        });
        let in_page = self.writer.model.descriptors_per_page();
        for holder in holders {
            let descriptors = self.descriptors::<D>(holder);
            // SAFETY: 1 and 2: the caller's. 3: so many fill the page.
            unsafe {
                self.write_part::<D>(descriptors, head, 0, 1);
                self.write_part::<D>(descriptors, tail, 1, in_page);
            }
        }
    }

    /// Writes the descriptors of `page` from the index `from` to before `to`, all as the same part.
    ///
    /// # Safety
    ///
    /// 1 to 3. As for [`Image::write`].
    // Not inlined: what it takes of the stack is not there while the next part is found.
    #[inline(never)]
    unsafe fn write_part<D: Reshape>(
        &self,
        page: NonNull<D>,
        initial: Initial,
        from: u64,
        to: u64,
    ) {
        let as_tail = self.frozen(initial);
        // SAFETY: 1 to 3: the caller's.
        unsafe { Image::<D>::new(as_tail.unwrap_or(initial)).write(page, from, to) };
        if as_tail.is_some() {
            for index in from..to {
                // SAFETY: written above. 1: the frame becomes that part.
                unsafe { page.add(index as usize).as_ref().reshape(initial) };
            }
        }
    }

    /// Makes the first descriptor in `holder`, for the frame `first`, what `old` is, if a page begins there: one
    /// began there before, and its head was elsewhere.
    ///
    /// # Safety
    ///
    /// 1 and 2. As for [`write_page`](Self::write_page), which has written the page.
    /// 3. `old` is a head that nobody stores to.
    pub(super) unsafe fn carry_over<D: Reshape>(&self, holder: Pfn, first: Pfn, old: NonNull<D>) {
        let descriptors = self.descriptors::<D>(holder);
        let part = self.next_part::<D>(&mut self.in_page(first));
        // A tail of a larger page is a new one, like a head in place that becomes one.
        let Some(part) = part.filter(|part| part.initial.part != Part::Tail) else {
            return;
        };
        // SAFETY: 1 to 3: the caller's; they are two frames. 1 of `reshape`: the frame becomes that part.
        unsafe {
            descriptors.copy_from_nonoverlapping(old, 1);
            descriptors.as_ref().reshape(part.initial);
        }
    }

    /// Makes the descriptors in `holder`, which is mapped for the memory from `first` on, parts of the
    /// new pages: those that are about frames of the unit. The first one of a page that was a first one
    /// keeps what the kernel has in it, and so does a tail that was one. All others are new, or keep it too.
    pub(super) fn rewrite_page<D: Reshape>(&self, holder: Pfn, first: Pfn) {
        let descriptors = self.descriptors::<D>(holder);
        let mut left = self.in_page(first);
        while let Some(part) = self.next_part::<D>(&mut left) {
            let (initial, index) = (part.initial, part.first.get() - first.get());
            for index in index..index + part.count {
                // SAFETY: the frame is mapped by this library, so the direct map reaches it (duty 2 of
                // `Vmemmap::new`), and it holds a page of descriptors of `D`'s size; they are only
                // shared, and change by atomics (duty 1 of `Reshape`).
                self.rewrite_one(unsafe { descriptors.add(index as usize).as_ref() }, initial);
            }
        }
    }

    /// Makes a descriptor what it is to be.
    // Not inlined: what it takes of the stack is not there while the next part is found.
    #[inline(never)]
    fn rewrite_one<D: Reshape>(&self, descriptor: &D, initial: Initial) {
        let was_tail = D::Encoding::is_tail(descriptor.word());
        let stays = self.describe.keeps() || was_tail == (initial.part == Part::Tail);
        let as_tail = self.frozen(initial);
        // SAFETY: 1: the frame becomes that part. 2: what began elsewhere, or ends to begin here, is another
        // page.
        unsafe {
            if !stays {
                descriptor.reset(as_tail.unwrap_or(initial));
            }
            if stays || as_tail.is_some() {
                descriptor.reshape(initial);
            }
        }
    }

    /// Makes the descriptors of `run`, mapped at `at`, each in a frame of its own, parts of the new pages.
    pub(super) fn rewrite<D: Reshape>(&self, at: VirtAddr, run: &Run) {
        for (holder, first) in holders(self.writer.model, at, run) {
            self.rewrite_page::<D>(holder, first);
        }
    }

    /// Makes `holder`, which is mapped for the memory from `first` on, a page of nothing but new tails of
    /// the compound page that is to be there. By atomics: others may read it.
    pub(super) fn reset_to_tails<D: Reshape>(&self, holder: Pfn, first: Pfn) {
        let descriptors = self.descriptors::<D>(holder);
        let Some(part) = self.next_part::<D>(&mut self.in_page(first)) else {
            return;
        };
        for index in 0..part.count {
            // SAFETY: as in `rewrite_page`. 1: the frame becomes that part. 2: it stands for all tails from now
            // on.
            unsafe { descriptors.add(index as usize).as_ref().reset(part.initial) };
        }
    }

    /// What the first descriptor of a page is made from, if it is to have no references.
    fn frozen(&self, initial: Initial) -> Option<Initial> {
        let is_frozen = self.describe == Describe::Frozen && initial.part != Part::Tail;
        let part = Part::Tail;
        is_frozen.then_some(Initial { part, ..initial })
    }

    fn descriptors<D>(&self, holder: Pfn) -> NonNull<D> {
        self.writer.direct_map.frame_pointer(holder).cast()
    }

    /// What of the unit is described by the vmemmap page that starts with the frame `first`.
    fn in_page(&self, first: Pfn) -> Option<PfnRange> {
        let in_page = PfnRange::new(first, self.writer.model.descriptors_per_page());
        in_page.ok().and_then(|page| page.intersection(self.unit))
    }

    /// What the descriptors of the first of `left` are to be, and how many are alike. Takes these away.
    // Not inlined: it is asked for in several places, and what it takes of the stack is not needed for long.
    #[inline(never)]
    fn next_part<D: Descriptor>(&self, left: &mut Option<PfnRange>) -> Option<Alike> {
        let frames = (*left)?;
        let (page, order) = self.target.find_page(frames.start());
        let before = frames.start().get() - page.start().get();
        let part = match before {
            0 if order == Order::BASE => Part::Base,
            0 => Part::Head,
            _ => Part::Tail,
        };
        let count = match before {
            0 if part == Part::Base => self.target.base_pages(frames),
            0 => 1,
            _ => frames.frames().min(page.frames() - before),
        };
        *left = frames.split_at(count).1;
        Some(Alike {
            first: frames.start(),
            count,
            initial: self
                .writer
                .initial_as::<D>(order, Heads::InPlace, part, page.start()),
        })
    }
}
