//! Old heads of pages that have changed their order: they go when nobody can have found them before.
//!
//! ```text
//!   commit_reorder    stubs lead to new heads, which are thawed      under the vmemmap's lock
//!     ▼
//!   OldHeads          wait for a grace period                        without any lock
//!     ▼                                              dropped: they stay until the memory changes again
//!   QuiescentHeads
//!     ▼
//!   release_heads     their frames go to the reserve                 under the vmemmap's lock
//! ```

use crate::addr::{Order, PfnRange};
use crate::descriptor::{Descriptor, Reshape};
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::pagemap::DevPagemap;
use crate::paging::PageTable;
use crate::readers::{CountReferences, GracePeriod, Kernel, Reader, Readers, ReadersOf};
use crate::vmemmap::Vmemmap;
use crate::vmemmap::fold::{FoldError, Units};
use crate::vmemmap::frozen_pages::end_freeze;
use core::fmt;
use core::iter;

/// Heads that pages had in another place before they changed their order.
///
/// They are frozen, and no descriptor leads to them any more, but a reader may have found one before. So a
/// grace period has to pass: [`wait`](Self::wait), and
/// [`Vmemmap::release_heads`](crate::vmemmap::Vmemmap::release_heads). Until then the memory is in use as what it
/// has become, and refused, or busy, to operations that would change it again.
///
/// Dropping it leaves the heads where they are. The next change of that memory releases them, or it going
/// offline. Forgotten ([`core::mem::forget`]), the memory stays as it is for good.
#[must_use = "wait, and give it to `Vmemmap::release_heads`"]
pub struct OldHeads<'r, D: CountReferences, K: Kernel> {
    pub(in crate::vmemmap) reader: Reader<'r, D, K>,
    /// What is counted as frozen.
    pub(in crate::vmemmap) frames: PfnRange,
    pub(in crate::vmemmap) unit: Order,
    /// The units that have some.
    pub(in crate::vmemmap) units: Units,
    /// The order of pages whose heads are no old ones.
    pub(in crate::vmemmap) keep: Option<Order>,
}

impl<D: CountReferences, K: Kernel> fmt::Debug for OldHeads<'_, D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldHeads")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl<'r, D: CountReferences, K: Kernel> OldHeads<'r, D, K> {
    /// The frames of the call that left them.
    pub const fn frames(&self) -> PfnRange {
        self.frames
    }

    /// Waits until all who were reading are done, by the kernel's [`GracePeriod`]. Call it without the
    /// lock of the vmemmap.
    pub fn wait(self) -> QuiescentHeads<'r, D, K> {
        self.reader.readers().kernel().grace().wait();
        QuiescentHeads(self)
    }

    /// The same, where the caller has waited: by a call-back, say.
    ///
    /// # Safety
    ///
    /// 1. A grace period has passed since `commit_reorder` gave this.
    pub unsafe fn after_grace_period(self) -> QuiescentHeads<'r, D, K> {
        QuiescentHeads(self)
    }
}

impl<D: CountReferences, K: Kernel> Drop for OldHeads<'_, D, K> {
    fn drop(&mut self) {
        end_freeze(self.reader.readers().online_map(), self.frames);
    }
}

/// Old heads that no reader is looking at any more.
#[must_use = "give it to `Vmemmap::release_heads`"]
#[derive(Debug)]
pub struct QuiescentHeads<'r, D: CountReferences, K: Kernel>(OldHeads<'r, D, K>);

impl<D: CountReferences, K: Kernel> QuiescentHeads<'_, D, K> {
    /// The frames of the call that left them.
    pub const fn frames(&self) -> PfnRange {
        self.0.frames
    }
}

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// The orders of old heads that pages which begin in `frames` may have had, if those of `keep` are none.
    fn orders_of_old(&self, keep: Option<Order>) -> impl Iterator<Item = Order> + use<D, A, M, R> {
        let orders = self.model.packed_orders();
        orders.filter(move |order| Some(*order) != keep)
    }

    /// Whether there are packed heads of pages that begin in `frames` to which no stub leads. Those of pages of
    /// the order `keep` are not looked at.
    pub(in crate::vmemmap) fn has_old_heads<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        keep: Option<Order>,
    ) -> bool {
        self.heads_in_use(table).is_some()
            && self
                .orders_of_old(keep)
                .any(|order| self.has_unused(table, frames, order))
    }

    /// Takes these heads. Nobody uses them any more.
    pub(in crate::vmemmap) fn remove_old_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        altmap: Option<&dyn Altmap>,
        frames: PfnRange,
        keep: Option<Order>,
    ) {
        if self.look_for_heads(&*table).is_none() {
            return;
        }
        for order in self.orders_of_old(keep) {
            self.remove_unused(table, altmap, frames, order);
        }
    }
}

impl<'r, D: CountReferences + Reshape, A: FrameAllocator, M: DirectMap, K: Kernel>
    Vmemmap<D, A, M, Readers<'r, K>>
{
    /// Takes the old heads of pages that have changed their order. What that frees goes to the
    /// [reserve](Self::reserve), and to the altmap of `pagemap`, the one that they were changed by, what came from
    /// there.
    ///
    /// # Errors
    ///
    /// [`FoldError::OtherVmemmap`] where another one has changed them, and [`FoldError::OtherAltmap`] where
    /// some of them are in frames of an altmap that is not the pagemap's. They stay there.
    pub fn release_heads<P: PageTable>(
        &mut self,
        table: &mut P,
        pagemap: &DevPagemap<'_>,
        old: QuiescentHeads<'r, D, K>,
    ) -> Result<(), FoldError> {
        let QuiescentHeads(old) = old;
        if !self.readers.has_root_of(old.reader.readers()) {
            return Err(FoldError::OtherVmemmap);
        }
        let altmap = pagemap.altmap();
        if let Some((_, reserved)) = self.head_in_other_altmap(&*table, old.frames, altmap) {
            return Err(FoldError::OtherAltmap { reserved });
        }
        let mut done = 0;
        let runs = iter::from_fn(|| {
            let (end, frames) = old.units.next_run(done, old.frames, old.unit)?;
            done = end;
            Some(frames)
        });
        for frames in runs {
            self.remove_old_heads(table, altmap, frames, old.keep);
        }
        Ok(())
    }
}
