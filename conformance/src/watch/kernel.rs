//! What readers need of a kernel, as a harness has it.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::{Granule, Order, Pfn, VirtAddr};
use mm_core::frame::DirectMap;
use mm_core::readers::{GracePeriod, Kernel};

/// As large as a descriptor.
#[repr(C, align(64))]
struct Nothing([AtomicU64; 8]);

/// What a reader finds where it faults, so that the check can go on and say so.
static NOTHING: Nothing = Nothing([const { AtomicU64::new(0) }; 8]);

/// Readers by what a harness's CPUs find, and a grace period that counts how often it was waited for.
pub(crate) struct HarnessKernel<'w> {
    read: &'w dyn Fn(VirtAddr) -> Option<Pfn>,
    direct_map: &'w dyn DirectMap,
    granule: Granule,
    waits: Waits,
    fault: Cell<Option<VirtAddr>>,
    lost: Cell<u64>,
}

// SAFETY: it is private to this crate, which starts no threads and hands it, and what has it, to nobody
// but the vmemmap that it works on, in the same thread.
unsafe impl Sync for HarnessKernel<'_> {}

impl<'w> HarnessKernel<'w> {
    /// `read` says in which frame a CPU finds an address. The direct map is the vmemmap's.
    pub(crate) fn new(
        read: &'w dyn Fn(VirtAddr) -> Option<Pfn>,
        direct_map: &'w dyn DirectMap,
        granule: Granule,
    ) -> Self {
        Self {
            read,
            direct_map,
            granule,
            waits: Waits(AtomicU64::new(0)),
            fault: Cell::new(None),
            lost: Cell::new(0),
        }
    }

    /// How often somebody has waited for readers so far.
    pub(super) fn waits(&self) -> u64 {
        self.waits.0.load(Ordering::Relaxed)
    }

    /// Where a reader has found nothing, since this was asked last.
    pub(super) fn take_fault(&self) -> Option<VirtAddr> {
        self.fault.take()
    }

    /// How many pages have lost their last reference.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }
}

// SAFETY: 1: the harness says what CPUs find. 2: the session's vmemmap has the same.
unsafe impl<'w> Kernel for HarnessKernel<'w> {
    type Grace = Waits;
    type DirectMap = &'w dyn DirectMap;
    type Access<'k, D: 'static>
        = Found<D>
    where
        Self: 'k;

    fn grace(&self) -> &Waits {
        &self.waits
    }

    fn direct_map(&self) -> &&'w dyn DirectMap {
        &self.direct_map
    }

    unsafe fn descriptor<D: 'static>(&self, at: VirtAddr) -> Found<D> {
        const { assert!(size_of::<D>() <= size_of::<Nothing>() && align_of::<D>() <= 64) };
        let Some(frame) = (self.read)(at) else {
            self.fault.set(Some(at));
            return Found(NonNull::from(&NOTHING).cast());
        };
        let offset = at.get() & (self.granule.bytes() - 1);
        let page = self.direct_map.frame_pointer(frame);
        // SAFETY: the offset is within the page.
        Found(unsafe { page.add(offset as usize) }.cast())
    }

    fn last_reference(&self, _first: Pfn, _order: Order) {
        self.lost.set(self.lost.get() + 1);
    }
}

/// A descriptor that was found.
pub(crate) struct Found<D>(NonNull<D>);

impl<D> Deref for Found<D> {
    type Target = D;

    fn deref(&self) -> &D {
        // SAFETY: it is in a frame that the direct map reaches, as a CPU has found it, or nothing but
        // atomics; descriptors are only shared, and are looked at before anything else happens.
        unsafe { self.0.as_ref() }
    }
}

/// Nobody reads while somebody waits: there is one thread. It counts the waits.
pub(crate) struct Waits(AtomicU64);

/// Somebody reads.
pub(crate) struct Guard;

// SAFETY: 1: the thread that waits has no guard: looks end before anything else happens. 2: there is one
// thread. 3: guards have nothing to say to each other.
unsafe impl GracePeriod for Waits {
    type Guard<'g> = Guard;

    fn enter(&self) -> Guard {
        Guard
    }

    fn wait(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
