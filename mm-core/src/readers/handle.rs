//! The handle by which CPUs read, and what it answers.

use super::Readers;
use super::counts::CountReferences;
use super::grace::GracePeriod;
use super::kernel::Kernel;
use super::protocol::{self, NoReference, Put, Sight};
use super::reference::PageReference;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr};
use crate::descriptor::{Descriptor, TailEncoding};
use core::fmt;
use core::marker::PhantomData;

/// Asks about frames, on any CPU, at any time, without the lock of the vmemmap. It neither walks a page
/// table nor stores to a tail.
///
/// A small value that is copied. Each question is asked under a guard, by [`enter`](Self::enter).
pub struct Reader<'r, D, K> {
    readers: Readers<'r, K>,
    descriptor: PhantomData<fn() -> D>,
}

impl<D, K> Clone for Reader<'_, D, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D, K> Copy for Reader<'_, D, K> {}

impl<D, K> fmt::Debug for Reader<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<'r, D: Descriptor, K: Kernel> Reader<'r, D, K> {
    /// # Safety
    ///
    /// The duties of [`Vmemmap::reader`](crate::vmemmap::Vmemmap::reader).
    pub(crate) const unsafe fn new(readers: Readers<'r, K>) -> Self {
        Self {
            readers,
            descriptor: PhantomData,
        }
    }

    /// Begins to read: takes a guard of the kernel's [grace period](GracePeriod).
    pub fn enter(&self) -> Reading<'r, D, K> {
        Reading {
            reader: *self,
            _guard: self.readers.kernel.grace().enter(),
        }
    }

    /// What all handles share.
    pub(crate) const fn readers(&self) -> &Readers<'r, K> {
        &self.readers
    }

    /// The descriptor of the head of the page that `frame` is part of.
    ///
    /// # Safety
    ///
    /// 1. The page is online, and stays so as long as the answer is used.
    pub(crate) unsafe fn head_of_page(&self, frame: Pfn) -> K::Access<'r, D> {
        // SAFETY: 1: the caller's; the head of what is online is there.
        unsafe { self.descriptor(self.head_address(frame)) }
    }

    /// Where the head is of the page that `frame` is part of.
    ///
    /// # Safety
    ///
    /// 1. As for [`head_of_page`](Self::head_of_page).
    pub(super) unsafe fn head_address(&self, frame: Pfn) -> VirtAddr {
        let at = self.address(frame);
        // SAFETY: 1: the caller's.
        let descriptor = unsafe { self.descriptor(at) };
        let word = descriptor.word();
        self.head_at(D::Encoding::head_of(at, word), word)
    }

    /// Where the head is of the page whose first frame's descriptor is at `first`: there, unless `word`, that of a
    /// frame of the page, says that it is elsewhere.
    // By that word alone: the page may be changing its order, and what is loaded after it may be another stub's, or
    // of a descriptor that is in its place.
    #[inline]
    fn head_at(&self, first: VirtAddr, word: u64) -> VirtAddr {
        self.packed(first, word).map_or(first, |(_, head)| head)
    }

    /// The order of that page, and where its head is, if that is packed.
    #[inline]
    fn packed(&self, first: VirtAddr, word: u64) -> Option<(Order, VirtAddr)> {
        if !D::Encoding::is_stub(word) {
            return None;
        }
        let model = &self.readers.model;
        let order = model.order_of_array(D::Encoding::stub_array(word))?;
        Some((order, model.place_of_head(first, order)))
    }

    /// Where the descriptor of `frame` is, or would be.
    fn address(&self, frame: Pfn) -> VirtAddr {
        let model = &self.readers.model;
        // Only frames of the model are asked for.
        let base = model.config().vmemmap_base;
        model.descriptor_address(frame).unwrap_or(base)
    }

    /// The descriptor at `at`.
    ///
    /// # Safety
    ///
    /// 1. `at` is that of the descriptor of a frame, or of the packed head of a page, that is online and stays so
    ///    as long as the answer is used: it was found online under a guard that the caller holds, or the caller has a reference
    ///    to its page, or has frozen it.
    pub(super) unsafe fn descriptor(&self, at: VirtAddr) -> K::Access<'r, D> {
        // SAFETY: 1: what is online is mapped on every CPU that reads, and not unmapped before a grace
        // period has passed after it was withdrawn. What has references, or is frozen by others, is
        // not withdrawn.
        unsafe { self.readers.kernel.descriptor(at) }
    }
}

/// Somebody reads: a guard, and the questions that can be asked under it.
///
/// What it answers is true at some moment while the guard is held. Whether the frame is still online,
/// and still part of the same page, is certain only with a [reference](Self::reference).
pub struct Reading<'r, D: Descriptor, K: Kernel + 'r> {
    reader: Reader<'r, D, K>,
    _guard: <K::Grace as GracePeriod>::Guard<'r>,
}

impl<D: Descriptor, K: Kernel> fmt::Debug for Reading<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

impl<'r, D: Descriptor, K: Kernel> Reading<'r, D, K> {
    /// Whether `frame` is online. Two loads.
    #[inline]
    pub fn is_online(&self, frame: Pfn) -> bool {
        let readers = &self.reader.readers;
        readers.map.contains(readers.kernel.direct_map(), frame)
    }

    /// The page that `frame` is part of; `None` where it is not online. Two loads more than
    /// [`is_online`](Self::is_online).
    #[inline]
    pub fn page_of(&self, frame: Pfn) -> Option<OnlinePage<'_, 'r, D, K>> {
        if !self.is_online(frame) {
            return None;
        }
        let at = self.reader.address(frame);
        // SAFETY: 1: it is online, and the guard is held as long as `self` is borrowed.
        let descriptor = unsafe { self.reader.descriptor(at) };
        let word = descriptor.word();
        let start = D::Encoding::head_of(at, word);
        let first = self.reader.readers.model.frame_of_descriptor(start)?;
        let packed = self.reader.packed(start, word);
        let (order, head) = packed.unwrap_or_else(|| (descriptor.order(), start));
        Some(OnlinePage {
            first,
            order,
            frame,
            at,
            head,
            reading: self,
        })
    }

    /// A reference to the page that `frame` is part of, so that it stays online and stays that page.
    ///
    /// # Errors
    ///
    /// [`NoReference`].
    pub fn reference(&self, frame: Pfn) -> Result<PageReference<'r, D, K>, NoReference>
    where
        D: CountReferences,
    {
        let sight = FrameSight {
            reading: self,
            frame,
            at: self.reader.address(frame),
        };
        let head = protocol::get(&sight)?;
        // SAFETY: 1: taken just now, and `head` is that of an online page.
        Ok(unsafe { PageReference::of_head(self.reader, head) })
    }
}

/// A page that was found under a guard.
pub struct OnlinePage<'g, 'r, D: Descriptor, K: Kernel> {
    first: Pfn,
    order: Order,
    frame: Pfn,
    at: VirtAddr,
    head: VirtAddr,
    reading: &'g Reading<'r, D, K>,
}

impl<D: Descriptor, K: Kernel> fmt::Debug for OnlinePage<'_, '_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnlinePage")
            .field("first", &self.first)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<D: Descriptor, K: Kernel> OnlinePage<'_, '_, D, K> {
    /// Its first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// Its order. A hint without a reference: the page may be changing it.
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Its frames.
    pub fn frames(&self) -> PfnRange {
        frames_of(self.first, self.order)
    }

    /// The descriptor of its head.
    pub fn head(&self) -> K::Access<'_, D> {
        // SAFETY: 1: it is online with the frame that was asked about, under the guard.
        unsafe { self.reading.reader.descriptor(self.head) }
    }

    /// The descriptor of the frame that was asked about, where it has memory of its own: it is in the
    /// head's vmemmap page. Others may share theirs. Where heads are [packed](crate::pagemap::Heads::Packed) that
    /// is the head itself, of the page's first frame.
    pub fn own_descriptor(&self) -> Option<K::Access<'_, D>> {
        if self.frame == self.first {
            return Some(self.head());
        }
        let page = self.reading.reader.readers.model.granule().shift();
        (self.head.get() >> page == self.at.get() >> page)
            // SAFETY: 1: the frame is online, under the guard.
            .then(|| unsafe { self.reading.reader.descriptor(self.at) })
    }
}

/// What a reader sees of one frame.
struct FrameSight<'g, 'r, D: Descriptor, K: Kernel> {
    reading: &'g Reading<'r, D, K>,
    frame: Pfn,
    at: VirtAddr,
}

impl<'r, D: Descriptor, K: Kernel> FrameSight<'_, 'r, D, K> {
    fn descriptor(&self, at: VirtAddr) -> K::Access<'r, D> {
        // SAFETY: 1: the frame was found online, and so is the head that it names; the guard is held.
        unsafe { self.reading.reader.descriptor(at) }
    }
}

impl<D: CountReferences, K: Kernel> Sight for FrameSight<'_, '_, D, K> {
    type Head = VirtAddr;

    fn is_online(&self) -> bool {
        self.reading.is_online(self.frame)
    }

    fn head(&self) -> VirtAddr {
        let word = self.descriptor(self.at).word();
        let first = D::Encoding::head_of(self.at, word);
        self.reading.reader.head_at(first, word)
    }

    fn try_get(&self, head: VirtAddr) -> bool {
        self.descriptor(head).try_get()
    }

    fn put(&self, head: VirtAddr) {
        let reader = self.reading.reader;
        // SAFETY: 1: `try_get` took one of this head. Dropping it tells the kernel if it was the last.
        drop(unsafe { PageReference::of_head(reader, head) });
    }
}

/// Gives a reference back that was taken of the page whose head is at `head`. Says whether it was the
/// last one.
///
/// # Safety
///
/// 1. The caller has the reference, and does not use it any more.
pub(super) unsafe fn put<D: CountReferences, K: Kernel>(
    reader: &Reader<'_, D, K>,
    head: VirtAddr,
) -> Put {
    // SAFETY: 1: the caller has a reference to the page.
    let descriptor = unsafe { reader.descriptor(head) };
    // SAFETY: 1: the caller's.
    unsafe { descriptor.put() }
}

/// The frames of the page of `order` at `first`, as descriptors say.
pub(super) fn frames_of(first: Pfn, order: Order) -> PfnRange {
    let frames = PfnRange::new(first, order.frames());
    frames.unwrap_or(PfnRange::single(first))
}
