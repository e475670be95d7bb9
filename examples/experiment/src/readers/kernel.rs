//! What readers need of a kernel.

use super::wrong::Wrong;
use crate::cpus::OtherCpus;
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::{Order, Pfn, VirtAddr};
use mm_core::frame::LinearMap;
use mm_core::readers::{self, GracePeriod, Kernel};

/// Descriptors as the MMU maps them, with a grace period that is the kernel's.
#[derive(Debug)]
pub struct MappedDescriptors<'k, G> {
    grace: &'k G,
    direct_map: LinearMap,
}

impl<'k, G: GracePeriod + Sync> MappedDescriptors<'k, G> {
    /// Read under guards of `grace`.
    ///
    /// # Safety
    ///
    /// 1. Each CPU that uses the value translates by the page table that memory is online on.
    /// 2. `direct_map` is the vmemmap's.
    pub const unsafe fn new(grace: &'k G, direct_map: LinearMap) -> Self {
        Self { grace, direct_map }
    }
}

// SAFETY: 1 and 2: duties 1 and 2 of `new`.
unsafe impl<G: GracePeriod + Sync> Kernel for MappedDescriptors<'_, G> {
    type Grace = G;
    type DirectMap = LinearMap;
    type Access<'a, D: 'static>
        = &'a D
    where
        Self: 'a;

    fn grace(&self) -> &G {
        self.grace
    }

    fn direct_map(&self) -> &LinearMap {
        &self.direct_map
    }

    unsafe fn descriptor<D: 'static>(&self, at: VirtAddr) -> &D {
        // SAFETY: 1: the caller's.
        unsafe { readers::at_its_address(at) }
    }

    fn last_reference(&self, _first: Pfn, _order: Order) {}
}

/// One access in so many of the CPUs that read takes long, for so many turns: between the question whether a frame is
/// online and the look at its descriptor. Who takes memory offline without waiting for readers is done meanwhile, and they
/// fault. The owner has nobody to wait for.
const LONG_ACCESS: u64 = 256;
const TURNS: u64 = 512;

/// A kernel, with a count of the pages that have lost their last reference. No page may, since each
/// has its owner's.
pub(super) struct Watched<'k, K> {
    kernel: &'k K,
    cpus: &'k dyn OtherCpus,
    lost: AtomicU64,
    accesses: AtomicU64,
}

impl<K> fmt::Debug for Watched<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl<'k, K> Watched<'k, K> {
    pub(super) const fn new(kernel: &'k K, cpus: &'k dyn OtherCpus) -> Self {
        Self {
            kernel,
            cpus,
            lost: AtomicU64::new(0),
            accesses: AtomicU64::new(0),
        }
    }

    /// Whether there was none since this was asked last.
    pub(super) fn outcome(&self) -> Result<(), Wrong> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            pages => Err(Wrong::Lost { pages }),
        }
    }
}

// SAFETY: 1 and 2 hold because they hold for the kernel behind it.
unsafe impl<K: Kernel> Kernel for Watched<'_, K> {
    type Grace = K::Grace;
    type DirectMap = K::DirectMap;
    type Access<'a, D: 'static>
        = K::Access<'a, D>
    where
        Self: 'a;

    fn grace(&self) -> &K::Grace {
        self.kernel.grace()
    }

    fn direct_map(&self) -> &K::DirectMap {
        self.kernel.direct_map()
    }

    unsafe fn descriptor<'a, D: 'static>(&'a self, at: VirtAddr) -> K::Access<'a, D> {
        let accesses = self.accesses.fetch_add(1, Ordering::Relaxed);
        if accesses.is_multiple_of(LONG_ACCESS) && self.cpus.is_other() {
            (0..TURNS).for_each(|_| spin_loop());
        }
        // SAFETY: 1: the caller's.
        unsafe { self.kernel.descriptor(at) }
    }

    fn last_reference(&self, first: Pfn, order: Order) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.kernel.last_reference(first, order);
    }
}
