//! What concerns single frames: marks, and what the kernel writes into descriptors.

use super::attempt::Attempt;
use super::interpreter::Interpreter;
use super::model::{Expected, Kind};
use super::op::One;
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use mm_core::addr::{NodeId, Pfn};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::error::ErrorKind;
use mm_core::vmemmap::Described;
use mm_core::vmemmap::MarkError;
use std::sync::atomic::Ordering;

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Marks a frame.
    pub(super) fn mark(&mut self, one: One, node: u32) -> Result<(), String> {
        let (page, frame) = self.frame(one)?;
        let expected = match self.model.own_page(page) {
            Some(_) => Expected::Done,
            None => Expected::refused(ErrorKind::NotOnline),
        };
        let attempt = Attempt {
            pages: page..page + 1,
            expected,
            needs_ram: true,
            altmap: None,
        };
        let node = NodeId::new(node);
        let new = self.attempt(&attempt, |this: &mut Self| {
            this.start_trace(None);
            this.vmemmap.mark(&this.table, frame, node)
        })?;
        self.end_trace(None);
        let theirs = self
            .oracle
            .as_mut()
            .map(|Oracle { vmemmap, table, .. }| vmemmap.mark(table, frame, node));
        let theirs = self.same::<_, MarkError>(new.is_some(), theirs)?;
        if let Some(new) = new {
            self.tally.marked += 1;
            let expected = self.model.marks.insert(frame.get());
            if new != expected || theirs.is_some_and(|theirs| theirs != expected) {
                return Err(format!(
                    "{frame} is newly marked: {new}, expected {expected}"
                ));
            }
        }
        self.check_marks_at(frame)
    }

    /// Takes the mark off a frame.
    pub(super) fn unmark(&mut self, one: One) -> Result<(), String> {
        let (_, frame) = self.frame(one)?;
        let expected = self.model.marks.remove(&frame.get());
        let was = self.vmemmap.unmark(frame);
        let theirs = self
            .oracle
            .as_mut()
            .map(|oracle| oracle.vmemmap.unmark(frame));
        if was != expected || theirs.is_some_and(|theirs| theirs != expected) {
            return Err(format!("{frame} was marked: {was}, expected {expected}"));
        }
        self.check_marks_at(frame)
    }

    /// Checks the marks of a frame and of those next to it.
    fn check_marks_at(&self, frame: Pfn) -> Result<(), String> {
        let around = frame.get().saturating_sub(1)..=frame.get() + 1;
        for frame in around.filter_map(Pfn::new) {
            let expected = self.model.marks.contains(&frame.get());
            if self.vmemmap.is_marked(frame) != expected {
                return Err(format!("{frame} should be marked: {expected}"));
            }
        }
        Ok(())
    }

    /// The kernel writes into the descriptor of a frame, unless others share it.
    pub(super) fn write(&mut self, one: One, value: u64) -> Result<(), String> {
        let (page, frame) = self.frame(one)?;
        let is_first = frame.get().is_multiple_of(self.scale().per_page);
        let is_own = |known: super::model::Page| {
            let packed = is_first && self.model.head_at(page).is_some();
            packed || matches!(known.kind, Kind::Own { .. })
        };
        let known = self.model.own_page(page);
        let ours = self.vmemmap.descriptor(&self.table, frame);
        let is_reserved = self.model.is_reserved(frame);
        if self.vmemmap.is_reserved(frame) != is_reserved {
            return Err(format!("{frame} is reserved: {is_reserved}"));
        }
        if is_reserved && ours.is_none() {
            return Ok(());
        }
        if ours.is_some() != known.is_some() || is_reserved {
            let there = ours.is_some();
            return Err(format!("the descriptor of {frame} is there: {there}"));
        }
        if !known.is_some_and(is_own) {
            return Ok(());
        }
        let store = |descriptor: &Page<E>| {
            descriptor.flags().store(value, Ordering::Relaxed);
            descriptor.private()[3].store(!value, Ordering::Relaxed);
        };
        ours.and_then(Described::own).into_iter().for_each(store);
        if let Some(Oracle { vmemmap, table, .. }) = &self.oracle {
            let theirs = vmemmap.descriptor(table, frame);
            store(
                theirs
                    .and_then(Described::own)
                    .ok_or("the oracle has no descriptor")?,
            );
        }
        self.model.written.insert(frame.get(), value);
        self.tally.written += 1;
        Ok(())
    }
}
