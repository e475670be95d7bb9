//! Single frames: marks, and what the kernel writes into descriptors.

use super::Churn;
use super::model::Cell;
use mm_core::addr::{NodeId, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::vmemmap::Described;
use mm_core::vmemmap::MarkError;
use std::sync::atomic::Ordering;

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// A frame, mostly one whose descriptors were touched before.
    fn any_frame(&mut self) -> Pfn {
        let page = match self.rng.u8(..4) {
            0 => self.rng.u64(..self.world.layout.pages()),
            _ => self.rng.u64(self.touched.clone()),
        };
        let within = self
            .rng
            .u64(..self.world.layout.model.descriptors_per_page());
        self.world.layout.frame_of(page).saturating_add(within)
    }

    pub(super) fn mark(&mut self) -> Result<(), String> {
        let frame = self.any_frame();
        let page = self.world.layout.page_of(frame);
        self.act = format!("mark {frame} of page {page}");
        self.touched = page..page + 1;
        let known = self.model.marks.contains(&frame.get());
        if self.vmemmap.is_marked(frame) != known {
            return Err(format!("marked: {}, should be {known}", !known));
        }
        if known && self.rng.u8(..3) > 0 {
            self.model.marks.remove(&frame.get());
            return match self.vmemmap.unmark(frame) {
                true => Ok(()),
                false => Err("there was a mark".into()),
            };
        }
        let expected = match self.model.cell(page).is_ours() {
            true => Ok(()),
            false => Err(ErrorKind::NotOnline),
        };
        let node = NodeId::new(self.rng.u32(..2));
        let new = self.attempt(expected, MarkError::kind, |churn| {
            churn.vmemmap.mark(&churn.table, frame, node)
        })?;
        match new {
            Some(new) if new == known => Err(format!("new: {new}")),
            Some(_) => {
                self.tally.marked += 1;
                self.model.marks.insert(frame.get());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The kernel writes into a descriptor that has a place of its own.
    pub(super) fn note(&mut self) -> Result<(), String> {
        let page = self.world.layout.page_of(self.any_frame());
        let note = self.rng.u64(1..);
        self.act = format!("write {note:#x} to page {page}");
        self.touched = page..page + 1;
        let is_own = matches!(self.model.cell(page), Cell::Own { .. });
        if is_own || self.model.place_at(page).is_some() {
            let frame = self.world.layout.frame_of(page);
            if self.vmemmap.is_reserved(frame) {
                // No page of the kernel's.
                return match self.altmaps.iter().any(|altmap| altmap.contains(frame)) {
                    true => Ok(()),
                    false => Err("nobody reserves it".into()),
                };
            }
            let descriptor = self.vmemmap.descriptor(&self.table, frame);
            let descriptor = descriptor.and_then(Described::own);
            let descriptor = descriptor.ok_or("there is no descriptor of its own")?;
            descriptor.flags().store(note, Ordering::Relaxed);
            self.model.notes.insert(page, note);
        }
        Ok(())
    }
}
