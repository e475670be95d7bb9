//! Packed heads in frames of an altmap: whose pages of places may be there, and who may use these.
//!
//! ```text
//!   pages of places    |  ... | H  H  H  H | H  H  H  H | H  H ... |
//!   the pagemap               |<---- its compound pages ---->|
//!   from the altmap           |     yes    |     yes    |   RAM: others may have heads there
//! ```
//!
//! A page of places that lies within the pagemap has no heads of others, unless they bring some of the same memory
//! online. Who does that by another pagemap is refused: it could not give the frame back.

use super::find::find_run;
use super::pages_of;
use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::frame::{Altmap, DirectMap, FrameAllocator};
use crate::paging::{Leaf, PageTable, Run};
use crate::readers::ReadersOf;
use crate::vmemmap::Vmemmap;

impl<D: Descriptor, A: FrameAllocator, M: DirectMap, R: ReadersOf> Vmemmap<D, A, M, R> {
    /// What an altmap other than `own` reserves, if `holder`, which has places, is a frame of it.
    pub(super) fn other_altmap_with(
        &self,
        holder: Pfn,
        own: Option<&dyn Altmap>,
    ) -> Option<PfnRange> {
        let altmaps = &self.pool_state.altmaps;
        altmaps.other_reserving(PfnRange::single(holder), own)
    }

    /// The first page that begins in `frames` and whose packed head is in a frame of an altmap other than `own`; and
    /// what that altmap reserves.
    // Where there is no other altmap nobody looks.
    pub(in crate::vmemmap) fn head_in_other_altmap<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        own: Option<&dyn Altmap>,
    ) -> Option<(PfnRange, PfnRange)> {
        if !self.pool_state.altmaps.any_other(own) {
            return None;
        }
        self.heads_in_use(table)?;
        let orders = self.model.packed_orders();
        let found =
            orders.filter_map(|order| self.head_of_order_in_other(table, frames, order, own));
        found.min_by_key(|(page, _)| page.start())
    }

    #[inline(never)]
    fn head_of_order_in_other<P: PageTable>(
        &self,
        table: &P,
        frames: PfnRange,
        order: Order,
        own: Option<&dyn Altmap>,
    ) -> Option<(PfnRange, PfnRange)> {
        let places = self.model.packed_heads(frames, order)?;
        find_run(table, pages_of(&self.model, places)?, |at, run| {
            self.head_of_run_in_other(at, run, places, own)
        })
    }

    /// The same, of the heads at those of `places` that `run` maps from `at` on.
    fn head_of_run_in_other(
        &self,
        at: VirtAddr,
        run: &Run,
        places: VirtRange,
        own: Option<&dyn Altmap>,
    ) -> Option<(PfnRange, PfnRange)> {
        let bytes = self.model.granule().bytes();
        (0..run.count).find_map(|leaf| {
            let block = run.block(leaf)?;
            let reserved = self.other_altmap_with(block.first(), own)?;
            let at = at.checked_add(leaf.checked_mul(bytes)?)?;
            let once = Run::once(Leaf { block, ..run.leaf });
            let head = self.find_in_run(at, &once, places, &|_| true)?;
            Some((self.model.page_of_packed_head(head)?, reserved))
        })
    }
}
