//! Readers: every CPU asks about frames at any time, without the lock of the vmemmap, while memory
//! comes online and goes offline.
//!
//! ```text
//!   Readers (root, kernel) ──▶ Vmemmap::with_readers ──▶ Reader ── enter ──▶ Reading ──▶ is_online
//!        the kernel's              the writer,           a copy              under a      page_of
//!                                under its lock       for each CPU            guard       reference ──▶ PageReference
//! ```
//!
//! A [`Reader`] answers by the address of a descriptor, and by the *online map*: a bit for each
//! subsection, below a root that is the kernel's. What a page is, its descriptors say; who has a
//! reference to it, its head counts ([`CountReferences`]).
//!
//! # For kernels
//!
//! - Implement [`Kernel`]: how a descriptor is reached, what happens with the last reference, and a
//!   [grace period](GracePeriod).
//! - Have a root, [`MemoryModel::online_entries`] entries that are all [new](OnlineEntry::new), and make
//!   [`Readers`] of both. Make the vmemmap by
//!   [`Vmemmap::with_readers`](crate::vmemmap::Vmemmap::with_readers), and hand out copies of
//!   [`Vmemmap::reader`](crate::vmemmap::Vmemmap::reader).
//! - Memory is found by readers when all of it is online: after
//!   [`online`](crate::vmemmap::Vmemmap::online), or with the last piece of a compound page. It is
//!   withdrawn before any part of it goes; operations that take memory offline then wait for a grace
//!   period, with the lock of the vmemmap held. To wait without it, use
//!   [`freeze`](crate::vmemmap::Vmemmap::freeze) and [`commit`](crate::vmemmap::Vmemmap::commit).
//!
//! A kernel without readers uses [`Vmemmap::new`](crate::vmemmap::Vmemmap::new), and nothing of this is
//! compiled.
//!
//! How readers and the writer meet is in `protocol`, which a model checker runs through.
//!
//! [`MemoryModel::online_entries`]: crate::model::MemoryModel::online_entries

mod counts;
mod grace;
mod handle;
mod kernel;
mod online_map;
mod protocol;
mod reference;

pub use counts::CountReferences;
pub use grace::{
    CountedGuard, CountedReaders, GracePeriod, Interrupts, InterruptsOff, InterruptsOffGuard,
};
pub use handle::{OnlinePage, Reader, Reading};
pub use kernel::{Kernel, at_its_address};
pub use online_map::{OnlineEntry, RootTooSmall};
pub use protocol::{NoReference, Put, ReferenceCount};
pub use reference::PageReference;

use crate::model::MemoryModel;
use core::fmt;
pub(crate) use online_map::{OnlineMap, Part};

/// What the readers of a vmemmap share: the root of the online map, and the kernel's part.
pub struct Readers<'r, K> {
    model: MemoryModel,
    map: OnlineMap<'r>,
    kernel: &'r K,
}

impl<K> Clone for Readers<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Readers<'_, K> {}

impl<K> fmt::Debug for Readers<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl<'r, K: Kernel> Readers<'r, K> {
    /// Readers of the vmemmap of `model`, with an online map below `root`.
    ///
    /// # Errors
    ///
    /// [`RootTooSmall`].
    pub const fn new(
        model: MemoryModel,
        root: &'r [OnlineEntry],
        kernel: &'r K,
    ) -> Result<Self, RootTooSmall> {
        match OnlineMap::new(&model, root) {
            Ok(map) => Ok(Self { model, map, kernel }),
            Err(error) => Err(error),
        }
    }

    /// The model of the vmemmap.
    pub(crate) const fn model(&self) -> &MemoryModel {
        &self.model
    }

    /// What they need of the kernel.
    pub(crate) const fn kernel(&self) -> &'r K {
        self.kernel
    }

    /// What is online.
    pub(crate) const fn online_map(&self) -> &OnlineMap<'r> {
        &self.map
    }

    /// Whether both are about one vmemmap.
    pub(crate) fn has_root_of(&self, other: &Self) -> bool {
        self.map.is_same(&other.map)
    }
}

/// A vmemmap without readers: nobody asks but by its own methods.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReaders;

/// Whether a [`Vmemmap`](crate::vmemmap::Vmemmap) has [`Readers`], or [none](NoReaders).
pub trait ReadersOf: Copy + sealed::Sealed {
    /// The online map, if there is one.
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed")]
    fn map(&self) -> Option<OnlineMap<'_>>;

    /// Waits until all who were reading are done.
    #[doc(hidden)]
    fn wait(&self);
}

impl ReadersOf for NoReaders {
    #[expect(private_interfaces, reason = "the trait is sealed")]
    #[inline]
    fn map(&self) -> Option<OnlineMap<'_>> {
        None
    }

    #[inline]
    fn wait(&self) {}
}

impl<K: Kernel> ReadersOf for Readers<'_, K> {
    #[expect(private_interfaces, reason = "the trait is sealed")]
    fn map(&self) -> Option<OnlineMap<'_>> {
        Some(self.map)
    }

    fn wait(&self) {
        self.kernel.grace().wait();
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NoReaders {}
    impl<K> Sealed for super::Readers<'_, K> {}
}

/// Handles, references and what is frozen may go to any CPU: this compiles for whatever descriptor and
/// kernel there are.
#[cfg(test)]
const fn _any_cpu<D: CountReferences, K: Kernel + 'static>() {
    const fn may_move<T: Send + Sync>() {}
    may_move::<Reader<'static, D, K>>();
    may_move::<PageReference<'static, D, K>>();
    may_move::<crate::vmemmap::Frozen<'static, 'static, D, K>>();
    may_move::<crate::vmemmap::Quiescent<'static, 'static, D, K>>();
    may_move::<crate::vmemmap::FrozenUnits<'static, D, K>>();
}
