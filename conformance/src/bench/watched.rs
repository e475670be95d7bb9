//! Checks beside readers.

use super::Bench;
use crate::harness::{Controls, Harness};
use crate::outcome::{Verdict, skip};
use crate::watch::{self, Session};
use mm_core::addr::{Order, VirtAddr};
use mm_core::descriptor::Mask;

impl<H: Harness> Bench<'_, H, Mask> {
    /// Runs `check` on a vmemmap with readers, who look at every flush. The bench's own has nothing online
    /// meanwhile.
    pub(crate) fn beside_readers(&mut self, check: fn(&mut Session<'_, '_>) -> Verdict) -> Verdict {
        let controls = self.controls;
        let Some(root) = controls.online_root() else {
            return skip("the harness has no readers");
        };
        let small = self.small();
        let large = Order::new(small.get() + 2);
        let Some(large) = large.filter(|large| *large <= self.model.max_order()) else {
            return skip("the model has no compound pages of four small ones");
        };
        let range = self.blocks(large, 0, watch::PAGES)?;
        if controls.read(self.address(range.start())?).is_none() {
            return skip("the harness has no readers");
        }
        let read = |at: VirtAddr| controls.read(at).flatten();
        let parts = watch::Parts {
            model: self.model,
            table: &mut *self.table,
            frames: self.frames,
            direct_map: self.direct_map,
            node: self.node,
            root,
            read: &read,
            cause: &self.cause,
            range,
            orders: [large, small],
        };
        // SAFETY: 1: as for the bench's own vmemmap, which has nothing online and is not asked for anything
        // until this returns. 2: the harness's duty; a check leaves nothing online.
        unsafe { watch::run(parts, check) }
    }
}
