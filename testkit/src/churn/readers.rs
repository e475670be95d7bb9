//! What readers find, beside what they should.

use super::Churn;
use crate::threads::ThreadKernel;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::error::ErrorKind;
use mm_core::pagemap::DevPagemap;
use mm_core::readers::Reader;
use mm_core::vmemmap::OfflineError;

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Whether readers can read descriptors: they translate by tables.
    fn reads(&self) -> bool {
        self.world.machine.facts().has_tables
    }

    /// Compares what readers find for a frame that `page` describes with what they should.
    pub(super) fn check_found(&self, page: u64) -> Result<(), String> {
        let layout = &self.world.layout;
        let expected = self.model.found(page);
        // The last one, since the first may be a head.
        let frame = layout.frame_of(page);
        let frame = frame.saturating_add(layout.model.descriptors_per_page() - 1);
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing is folded or taken
        // offline while this reads, and it keeps no reference.
        let reader = unsafe { self.vmemmap.reader() };
        let reading = reader.enter();
        if reading.is_online(frame) != expected.is_some() {
            return Err(format!(
                "frame {frame} of page {page}, expected {expected:?}"
            ));
        }
        let (true, Some(order)) = (self.reads(), expected) else {
            return Ok(());
        };
        let order = Order::new(order).ok_or("no such order")?;
        let first = frame.align_down(order);
        let found = reading.page_of(frame);
        match found.map(|page| (page.first(), page.order())) {
            Some(found) if found == (first, order) => Ok(()),
            found => Err(format!("frame {frame}: found {found:?}, not {order}")),
        }
    }

    /// Takes `frames` offline if nobody else has a reference to their pages, and sometimes somebody
    /// has.
    pub(super) fn freeze_and_depopulate(
        &mut self,
        pagemap: &DevPagemap<'w>,
        frames: PfnRange,
    ) -> Result<(), String> {
        if !self.reads() {
            return self.depopulate_by(pagemap, frames, Ok(()));
        }
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("freeze and depopulate {pages:?}");
        self.touched = pages.clone();
        let parts = self.model.parts(&pages);
        self.model.refresh();
        // SAFETY: 1: they translate by the machine's one table. 2 to 4: nothing is folded as long as
        // there is a reference, and what has one does not go offline.
        let reader = unsafe { self.vmemmap.reader() };
        give_owners(&reader, frames);
        let page = self.rng.u64(pages.clone());
        let in_use = match self.rng.u8(..4) {
            0 => reader
                .enter()
                .reference(self.world.layout.frame_of(page))
                .ok(),
            _ => None,
        };
        if self.model.found(page).is_none() && in_use.is_some() {
            return Err(format!(
                "there is a reference to page {page}, which is not found"
            ));
        }
        let ours = pages.clone().all(|page| self.model.cell(page).is_ours());
        let all_found = pages.clone().all(|page| self.model.found(page).is_some());
        let expected = match (ours, self.model.are_whole(&pages)) {
            (false, _) => Err(ErrorKind::NotOnline),
            (true, false) => Err(ErrorKind::Misaligned),
            // A part of a page of which more is missing is nothing that could be frozen.
            (true, true) if !all_found => Err(ErrorKind::Misaligned),
            (true, true) if in_use.is_some() => Err(ErrorKind::Busy),
            (true, true) => Ok(()),
        };
        if !parts && expected.is_ok() {
            self.disarm();
        }
        self.tally.busy += u64::from(ours && expected.is_err());
        self.speculate(&pages);
        let offlined = self.attempt(expected, OfflineError::kind, |churn| {
            let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
            // SAFETY: 1: as above. 2: each page has the one reference of its owner.
            unsafe { vmemmap.try_offline(table, pagemap, frames, 1) }
        })?;
        drop(in_use);
        if let Some(offlined) = offlined {
            self.tally.frozen += 1;
            self.tally.split_offline += u64::from(parts);
            self.went(&pages, offlined.marked)?;
        }
        Ok(())
    }
}

/// Gives an owner to each page of `frames` that has none, as those that were tails of others.
fn give_owners<E: TailEncoding>(reader: &Reader<'_, Page<E>, ThreadKernel<'_>>, frames: PfnRange) {
    let reading = reader.enter();
    let mut rest = Some(frames);
    while let Some(left) = rest {
        let page = reading.page_of(left.start());
        let frames = page.as_ref().map_or(1, |page| page.frames().frames());
        if let Some(page) = page {
            page.head().references().own();
        }
        rest = left.split_at(frames).1;
    }
}
