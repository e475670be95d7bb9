//! What readers need of the kernel.

use super::grace::GracePeriod;
use crate::addr::{Order, Pfn, VirtAddr};
use crate::frame::DirectMap;
use core::ops::Deref;

/// What readers need of the kernel. There is one value for a vmemmap, which all CPUs share.
///
/// ```
/// use mm_core::addr::{Order, Pfn, VirtAddr};
/// use mm_core::frame::LinearMap;
/// use mm_core::readers::{self, Interrupts, InterruptsOff, Kernel};
///
/// struct Cpus<I> {
///     grace: InterruptsOff<I>,
///     direct_map: LinearMap,
/// }
///
/// // SAFETY: 1: all CPUs use the kernel's one page table. 2: it is the vmemmap's.
/// unsafe impl<I: Interrupts + Sync> Kernel for Cpus<I> {
///     type Grace = InterruptsOff<I>;
///     type DirectMap = LinearMap;
///     type Access<'k, D: 'static> = &'k D where Self: 'k;
///
///     fn grace(&self) -> &InterruptsOff<I> {
///         &self.grace
///     }
///
///     fn direct_map(&self) -> &LinearMap {
///         &self.direct_map
///     }
///
///     unsafe fn descriptor<'k, D: 'static>(&'k self, at: VirtAddr) -> &'k D {
///         // SAFETY: 1: the caller's.
///         unsafe { readers::at_its_address(at) }
///     }
///
///     fn last_reference(&self, first: Pfn, order: Order) {
///         // The page goes back to the kernel's allocator.
///         # let _ = (first, order);
///     }
/// }
/// ```
///
/// # Safety
///
/// 1. `descriptor` is what the CPU reads and writes at the address, by the page table that memory is
///    online on.
/// 2. `direct_map` reaches the frames that the vmemmap's does, and the same bytes.
pub unsafe trait Kernel: Sync {
    /// How to wait for readers.
    type Grace: GracePeriod;

    /// The direct map.
    type DirectMap: DirectMap;

    /// A descriptor that is being accessed: `&'k D` in a kernel. A simulation keeps a flush waiting
    /// as long as it is there.
    type Access<'k, D: 'static>: Deref<Target = D>
    where
        Self: 'k;

    /// How to wait for readers.
    fn grace(&self) -> &Self::Grace;

    /// The direct map.
    fn direct_map(&self) -> &Self::DirectMap;

    /// The descriptor at `at`, an address in the vmemmap, or of a [packed
    /// head](crate::model::MemoryModel::heads). A kernel answers with
    /// [`at_its_address`](super::at_its_address).
    ///
    /// # Safety
    ///
    /// 1. There is a `D` at `at`, mapped on this CPU, as long as the answer is used.
    unsafe fn descriptor<'k, D: 'static>(&'k self, at: VirtAddr) -> Self::Access<'k, D>;

    /// The last reference to a page was dropped: `first` is its first frame. The page has no owner
    /// any more, and whoever drops a reference calls this, on any CPU. That may be under a guard, also
    /// within [`Reading::reference`](super::Reading::reference), which takes one too many for a moment. So
    /// it neither sleeps nor takes a lock that is held while somebody waits for a grace period.
    ///
    /// It is not called where [`PageReference::put`](super::PageReference::put) has told its caller.
    fn last_reference(&self, first: Pfn, order: Order);
}

/// The descriptor at `at`, as a CPU finds it.
///
/// # Safety
///
/// 1. There is a `D` at `at`, mapped on this CPU, as long as the answer is used.
#[inline]
pub unsafe fn at_its_address<'k, D>(at: VirtAddr) -> &'k D {
    let pointer = core::ptr::with_exposed_provenance::<D>(at.get() as usize);
    // SAFETY: 1: the caller's; descriptors are only shared.
    unsafe { &*pointer }
}
