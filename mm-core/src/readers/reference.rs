//! References to pages.

use super::counts::CountReferences;
use super::handle::{self, Reader};
use super::kernel::Kernel;
use super::protocol::Put;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr};
use core::fmt;
use core::mem::ManuallyDrop;

/// A reference to a page. As long as it is there, the page stays online and keeps its order.
///
/// Given back by [`put`](Self::put), which says whether it was the last one, or by dropping it, which
/// tells the [kernel](Kernel::last_reference) then. No guard is needed to have one, and any CPU may give
/// it back. Forgotten ([`core::mem::forget`]), the page keeps a reference for good and stays online.
#[must_use = "dropping it gives the reference back"]
pub struct PageReference<'r, D: CountReferences, K: Kernel> {
    reader: Reader<'r, D, K>,
    head: VirtAddr,
    first: Pfn,
    order: Order,
}

impl<D: CountReferences, K: Kernel> fmt::Debug for PageReference<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageReference")
            .field("first", &self.first)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<'r, D: CountReferences, K: Kernel> PageReference<'r, D, K> {
    /// # Safety
    ///
    /// 1. A reference was taken of the page whose head is at `head`, which nobody else gives back.
    pub(super) unsafe fn of_head(reader: Reader<'r, D, K>, head: VirtAddr) -> Self {
        // SAFETY: 1: there is a reference to the page.
        let order = unsafe { reader.descriptor(head) }.order();
        let model = reader.readers().model();
        let packed = || model.page_of_packed_head(head).map(PfnRange::start);
        let first = model.frame_of_descriptor(head).or_else(packed);
        Self {
            reader,
            head,
            // Heads lie in the model's vmemmap, or in its array of packed heads.
            first: first.unwrap_or(Pfn::ZERO),
            order,
        }
    }

    /// The page's first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// Its order.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Its frames.
    pub fn frames(&self) -> PfnRange {
        handle::frames_of(self.first, self.order)
    }

    /// The descriptor of its head.
    pub fn head(&self) -> K::Access<'_, D> {
        // SAFETY: 1: there is a reference to the page.
        unsafe { self.reader.descriptor(self.head) }
    }

    /// Gives it back, and says whether it was the last one. The kernel is not told otherwise.
    pub fn put(self) -> Put {
        let this = ManuallyDrop::new(self);
        // SAFETY: 1: it is this value's, which ends here.
        unsafe { handle::put(&this.reader, this.head) }
    }

    /// The page's first frame, for a place that has room for no more. The reference stays.
    pub fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).first
    }

    /// The reference that [`into_raw`](Self::into_raw) has left.
    ///
    /// # Safety
    ///
    /// 1. `first` is what `into_raw` gave, of a reference by a reader of the same vmemmap.
    /// 2. It is used once.
    pub unsafe fn from_raw(reader: Reader<'r, D, K>, first: Pfn) -> Self {
        // SAFETY: 1: the caller's: it was taken of this page, which stays the same as long as it is there.
        unsafe { Self::of_head(reader, reader.head_address(first)) }
    }
}

impl<D: CountReferences, K: Kernel> Drop for PageReference<'_, D, K> {
    fn drop(&mut self) {
        // SAFETY: 1: it is this value's, which ends here.
        if unsafe { handle::put(&self.reader, self.head) } == Put::Last {
            let kernel = self.reader.readers().kernel();
            kernel.last_reference(self.first, self.order);
        }
    }
}
