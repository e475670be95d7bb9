//! Descriptors at their own addresses: no walk, and no lock.

use super::{Described, DescriptorMismatch, fits};
use crate::addr::{Pfn, VirtAddr};
use crate::descriptor::{Descriptor, TailEncoding};
use crate::model::MemoryModel;
use core::fmt;
use core::marker::PhantomData;

/// Looks descriptors up at their own addresses: without a walk, and without the
/// [`Vmemmap`](super::Vmemmap), which is behind the kernel's lock.
///
/// It is a copy of the model. A kernel makes it a constant, and the base of the vmemmap is then part of
/// the instructions:
///
/// ```
/// # use mm_core::addr::{Granule, Order, VirtAddr};
/// # use mm_core::model::ModelConfig;
/// use mm_core::addr::Pfn;
/// use mm_core::descriptor::{Mask, Page};
/// use mm_core::model::MemoryModel;
/// use mm_core::vmemmap::LiveDescriptors;
/// # const MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
/// #     granule: Granule::Size4K,
/// #     descriptor_bytes: 64,
/// #     vmemmap_base: VirtAddr::new(0xffff_ea00_0000_0000),
/// #     frames: 1 << 34,
/// #     section: Order::new(15).unwrap(),
/// #     subsection: Order::new(9).unwrap(),
/// #     max_order: Order::new(18).unwrap(),
/// # }) {
/// #     Ok(model) => model,
/// #     Err(_) => panic!("sizes and base do not fit each other"),
/// # };
///
/// // `MODEL` is the `MemoryModel` that the kernel's `Vmemmap` has.
/// const LIVE: LiveDescriptors<Page<Mask>> = match LiveDescriptors::new(&MODEL) {
///     Ok(live) => live,
///     Err(_) => panic!("the descriptor is not the model's"),
/// };
///
/// /// Takes a reference to the compound page that `frame` is part of. Says what its head is.
/// ///
/// /// # Safety
/// ///
/// /// As for `LiveDescriptors::descriptor`.
/// unsafe fn take_reference(frame: Pfn) -> Option<Pfn> {
///     // SAFETY: 1 to 4: the caller's. The head is online as long as its tails are.
///     let (head, page) = unsafe {
///         let head = LIVE.head_of(frame)?;
///         (head, LIVE.descriptor(head)?.own()?)
///     };
///     page.references().try_get().then_some(head)
/// }
/// ```
pub struct LiveDescriptors<D> {
    model: MemoryModel,
    descriptor: PhantomData<fn() -> D>,
}

impl<D: Descriptor> LiveDescriptors<D> {
    /// For the vmemmap of `model`, whose descriptors are `D`.
    ///
    /// # Errors
    ///
    /// [`DescriptorMismatch`] where the size or alignment of `D` does not fit the model.
    pub const fn new(model: &MemoryModel) -> Result<Self, DescriptorMismatch> {
        match fits::<D>(model) {
            Ok(()) => Ok(Self::of_fitting(*model)),
            Err(mismatch) => Err(mismatch),
        }
    }

    /// For a model of which it is known that `D` fits it.
    pub(super) const fn of_fitting(model: MemoryModel) -> Self {
        Self {
            model,
            descriptor: PhantomData,
        }
    }

    /// The descriptor of `frame`: one shift and one add.
    ///
    /// `None` only where the vmemmap has no room for it. As with
    /// [`Vmemmap::descriptor`](super::Vmemmap::descriptor) there is no reference to what many frames may
    /// share. Without a walk, that is every tail whose head is in another vmemmap page. A frame that an
    /// altmap reserves has a descriptor too. It was made as
    /// [`Part::Reserved`](crate::descriptor::Part::Reserved), by which a kernel can tell. Where heads are
    /// [packed](crate::pagemap::Heads::Packed), the answer for the first frame of a page is its head, and all
    /// others are shared.
    ///
    /// # Safety
    ///
    /// 1. `frame` is online, with descriptors `D` in a [`Vmemmap`](super::Vmemmap) of this model, and stays
    ///    so for as long as the answer is used.
    /// 2. The CPU translates by the page table that it is online on.
    /// 3. While [`fold`], [`unfold`], [`reshape`] or [`reorder`] works on the page of `frame`, or an
    ///    operation splits a huge leaf or a shared table that maps its descriptor, nobody stores to it: the
    ///    store may be lost.
    /// 4. After a fold of `frame`, or a change of its order, nobody stores by an answer from before: the descriptor may be one that
    ///    many frames share, on a page that is read-only. Where its head was
    ///    [packed](crate::pagemap::Heads::Packed) before a change of order, nobody uses such an answer: it is gone.
    ///
    /// [`fold`]: super::Vmemmap::fold
    /// [`unfold`]: super::Vmemmap::unfold
    /// [`reshape`]: super::Vmemmap::reshape
    /// [`reorder`]: super::Vmemmap::reorder
    #[inline]
    pub unsafe fn descriptor<'d>(&self, frame: Pfn) -> Option<Described<'d, D>> {
        // SAFETY: 1 to 4: the caller's.
        let (descriptor, word, at, head) = unsafe { self.look_up(frame) }?;
        if D::Encoding::is_stub(word) {
            if head != at {
                return Some(Described::shared(descriptor));
            }
            let order = self.model.order_of_array(D::Encoding::stub_array(word))?;
            let packed = self.model.place_of_head(at, order);
            // SAFETY: the head of a page whose first frame is online is there, by 1 and 2 as below.
            return unsafe { descriptor_at(packed) }.map(Described::Own);
        }
        let page = |at: VirtAddr| at.get() >> self.model.granule().shift();
        Some(match page(head) == page(at) {
            true => Described::Own(descriptor),
            false => Described::shared(descriptor),
        })
    }

    /// The head of the compound page that `frame` is part of, or `frame` itself where it is a page of its
    /// own.
    ///
    /// # Safety
    ///
    /// 1. Duties 1 and 2 of [`descriptor`](Self::descriptor); nothing is stored to by this.
    #[inline]
    pub unsafe fn head_of(&self, frame: Pfn) -> Option<Pfn> {
        // SAFETY: 1 and 2: the caller's. 3 and 4: the reference ends here, and nothing is stored.
        let (_, _, _, head) = unsafe { self.look_up(frame) }?;
        self.model.frame_of_descriptor(head)
    }

    /// The descriptor of `frame` and its word, where it is, and where its head is.
    ///
    /// # Safety
    ///
    /// Those of [`descriptor`](Self::descriptor).
    #[inline]
    unsafe fn look_up<'d>(&self, frame: Pfn) -> Option<(&'d D, u64, VirtAddr, VirtAddr)> {
        let at = self.model.descriptor_address(frame)?;
        // SAFETY: by 1 and 2 there is a descriptor at its address, written before it was mapped,
        // until the memory goes offline; descriptors are only shared.
        let descriptor: &D = unsafe { descriptor_at(at) }?;
        let word = descriptor.word();
        let head = D::Encoding::head_of(at, word);
        Some((descriptor, word, at, head))
    }
}

/// The descriptor at `at`.
///
/// # Safety
///
/// 1. There is a `D` at `at`, mapped on this CPU, as long as the answer is used.
#[inline]
unsafe fn descriptor_at<'d, D>(at: VirtAddr) -> Option<&'d D> {
    let pointer = core::ptr::with_exposed_provenance::<D>(usize::try_from(at.get()).ok()?);
    // SAFETY: 1: the caller's; descriptors are only shared.
    unsafe { pointer.as_ref() }
}

impl<D> Clone for LiveDescriptors<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for LiveDescriptors<D> {}

impl<D> fmt::Debug for LiveDescriptors<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveDescriptors")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::addr::{Granule, NodeId, Order};
    use crate::descriptor::{Initial, Mask, Page, Part, Pointer};
    use crate::model::ModelConfig;
    use std::boxed::Box;

    /// Descriptors of a compound page of 512 frames and of one of 32, which has a vmemmap page with base
    /// pages to itself; aligned as the vmemmap is.
    #[repr(align(32768))]
    struct Array<E>([Page<E>; 1024]);

    fn model(base: u64, descriptor_bytes: u64) -> MemoryModel {
        let order = |order| Order::new(order).unwrap();
        MemoryModel::new(ModelConfig {
            granule: Granule::Size4K,
            descriptor_bytes,
            vmemmap_base: VirtAddr::new(base),
            frames: 1024,
            section: order(9),
            subsection: order(9),
            max_order: order(9),
        })
        .unwrap()
    }

    fn each_frame_is_found_with_its_head<E: TailEncoding>() {
        let mut array = Box::<Array<E>>::new_uninit();
        // SAFETY: within the box.
        let base = unsafe { &raw mut (*array.as_mut_ptr()).0 }.cast::<Page<E>>();
        let model = model(base.expose_provenance() as u64, 64);
        let head_of = |frame: u64| match frame {
            0..512 => (0, 9),
            512..544 => (512, 5),
            _ => (frame, 0),
        };
        for frame in 0..1024 {
            let (head, order) = head_of(frame);
            let order = Order::new(order).unwrap();
            let (part, word) = match (head == frame, order) {
                (true, Order::BASE) => (Part::Base, E::head_word()),
                (true, _) => (Part::Head, E::head_word()),
                (false, _) => {
                    let head = Pfn::new(head).unwrap();
                    let at = model.descriptor_address(head).unwrap();
                    (Part::Tail, E::tail_word(at, order.frames() * 64))
                }
            };
            let page = Page::initial(Initial {
                part,
                order,
                word,
                node: NodeId::new(0),
            });
            // SAFETY: the array has so many.
            unsafe { base.add(frame as usize).write(page) };
        }
        let live = LiveDescriptors::<Page<E>>::new(&model).unwrap();
        for number in 0..1024 {
            let frame = Pfn::new(number).unwrap();
            let (head, order) = head_of(number);
            // SAFETY: 1 to 4: the array is there, with all descriptors, and nobody changes it.
            let (found, described) = unsafe { (live.head_of(frame), live.descriptor(frame)) };
            let described = described.unwrap();
            assert_eq!(found.map(Pfn::get), Some(head));
            assert_eq!(described.order().get(), order);
            // 64 descriptors to a vmemmap page: only there is a tail's descriptor its own for certain.
            let own = described.own().map(core::ptr::from_ref);
            let at = base.cast_const().wrapping_add(number as usize);
            assert_eq!(own, (number / 64 == head / 64).then_some(at));
        }
        let beyond = Pfn::new(1024).unwrap();
        // SAFETY: 1: there is no such descriptor, so none is looked at.
        unsafe {
            assert!(live.descriptor(beyond).is_none());
            assert_eq!(live.head_of(beyond), None);
        }
    }

    #[test]
    fn each_frame_is_found_with_its_head_by_pointer() {
        each_frame_is_found_with_its_head::<Pointer>();
    }

    #[test]
    fn each_frame_is_found_with_its_head_by_mask() {
        each_frame_is_found_with_its_head::<Mask>();
    }

    #[test]
    fn a_descriptor_of_another_size_is_refused() {
        let refused = LiveDescriptors::<Page>::new(&model(1 << 40, 32)).map(drop);
        let mismatch = DescriptorMismatch {
            model: 32,
            descriptor: 64,
        };
        assert_eq!(refused, Err(mismatch));
    }
}
