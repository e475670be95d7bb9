//! Taking memory offline.

use super::attempt::Attempt;
use super::decode::piece_of;
use super::interpreter::{Interpreter, Live, Pagemaps};
use super::op::{Fault, Request};
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use crate::mapped_together::maps_together;
use mm_core::addr::PfnRange;
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::vmemmap::OfflineError;
use std::ops::Range;

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Takes a piece of a region offline.
    pub(super) fn shrink(&mut self, index: usize, [skip, length]: [u8; 2]) -> Result<(), String> {
        let Some(live) = self.regions.get(index % self.regions.len().max(1)) else {
            return Ok(());
        };
        let pagemaps = live.pagemaps();
        match pagemaps.ours.ranges().first() {
            Some(range) => {
                let piece = piece_of(&self.scale(), *range, skip, length);
                self.depopulate(pagemaps, piece)
            }
            None => Ok(()),
        }
    }

    /// Takes `piece` offline.
    pub(super) fn take_offline(
        &mut self,
        request: &'s Request,
        piece: PfnRange,
        by_region: bool,
    ) -> Result<(), String> {
        let pagemaps = match self.with_altmap(piece).filter(|_| by_region) {
            Some(live) => live.pagemaps(),
            None => match self.prepare(request, None)? {
                Some(asked) => asked.pagemaps,
                None => return Ok(()),
            },
        };
        self.depopulate(pagemaps, piece)
    }

    fn depopulate(&mut self, pagemaps: Pagemaps<'s>, piece: PfnRange) -> Result<(), String> {
        let ranges = pagemaps.ours.ranges();
        let altmap = pagemaps.ours.altmap().map(Altmap::reserved);
        let expected = self.model.piece(ranges, piece);
        let expected = expected.and(|| self.model.depopulate(altmap, piece));
        let split = !self.model.straddlers(&self.scale().pages(piece)).is_empty();
        let attempt = Attempt {
            pages: self.hull(&[piece]),
            expected,
            needs_ram: split && self.parts.machine.facts().has_tables,
            altmap: None,
        };
        self.give_back_in(&attempt.pages);
        let gone = self.attempt(&attempt, |this: &mut Self| {
            this.vmemmap
                .depopulate(&mut this.table, &pagemaps.ours, piece)
        })?;
        let theirs = match (&mut self.oracle, pagemaps.theirs) {
            (Some(Oracle { vmemmap, table, .. }), Some(pagemap)) => {
                Some(vmemmap.depopulate(table, &pagemap, piece))
            }
            _ => None,
        };
        let theirs = self.same::<_, OfflineError>(gone.is_some(), theirs)?;
        let Some(gone) = gone else {
            let refused = super::model::Expected::refused(ErrorKind::Unsupported);
            self.tally.other_altmap += u64::from(expected == refused);
            return Ok(());
        };
        self.tally.offline += 1;
        self.tally.split_offline += u64::from(split);
        let marked = self.model.take_piece(piece);
        self.gone(gone.marked, theirs.map(|theirs| theirs.marked), marked)
    }

    /// Takes a region offline.
    pub(super) fn offline(&mut self, index: usize) -> Result<(), String> {
        if self.regions.is_empty() {
            return Ok(());
        }
        let live = self.regions.remove(index % self.regions.len());
        let Live { ours, theirs, .. } = live;
        let pagemap = *ours.pagemap();
        let ranges = pagemap.ranges();
        let altmap = ours.pagemap().altmap().map(Altmap::reserved);
        let split = self.model.split_by_region(ranges, altmap);
        if self.oracle.is_some() && !split.is_empty() {
            // The oracle's tables cost nothing, so it would not keep what the machine does.
            self.arm(Fault::None);
        }
        self.tally.offline += 1;
        self.give_back_in(&self.hull(ranges));
        self.speculate(&self.hull(ranges));
        let gone = self
            .vmemmap
            .offline(&mut self.table, ours)
            .map_err(|error| error.to_string())?;
        let same = match (&mut self.oracle, theirs) {
            (Some(Oracle { vmemmap, table, .. }), Some(region)) => Some(
                vmemmap
                    .offline(table, region)
                    .map_err(|error| error.to_string())?
                    .marked,
            ),
            _ => None,
        };
        self.tally.split_offline += u64::from(!split.is_empty() && gone.kept == 0);
        let in_others = self.model.frames_in_other_altmaps(ranges, altmap);
        let split_kept = gone.kept.checked_sub(in_others);
        let split_kept = split_kept.ok_or(format!("{gone:?}, {in_others} are other altmaps'"))?;
        let kept = self.kept(ranges, split, split_kept)?;
        let marked = self.model.take_region(ranges, altmap, &kept);
        // What the machine could not split holds on to its frames.
        let is_kept = altmap.is_some_and(|altmap| self.model.is_in_use(altmap));
        let unused = altmap.filter(|_| !is_kept);
        self.model.altmaps.retain(|other| Some(*other) != unused);
        self.gone(gone.marked, same, marked)
    }

    /// Which of the spans `split` are kept, by which `kept` frames of `ranges` stay: those that
    /// there was no frame for a table for.
    fn kept(
        &mut self,
        ranges: &[PfnRange],
        mut split: Vec<Range<u64>>,
        kept: u64,
    ) -> Result<Vec<Range<u64>>, String> {
        split.retain(|span| self.is_one(span));
        let scale = self.scale();
        let frames = |span: &Range<u64>| -> u64 {
            let pages = ranges.iter().map(|range| scale.pages(*range));
            let both = pages.map(|pages| pages.start.max(span.start)..pages.end.min(span.end));
            both.map(|both| both.end.saturating_sub(both.start) * scale.per_page)
                .sum()
        };
        let expected = split.iter().map(frames).sum();
        if kept != expected || kept > 0 && !(self.armed && self.parts.machine.facts().has_tables) {
            return Err(format!("{kept} frames stay, expected {expected}"));
        }
        self.tally.kept += kept.min(1);
        Ok(split)
    }

    /// Whether the page table maps all of `span` together.
    fn is_one(&self, span: &Range<u64>) -> bool {
        let first = span.start..span.start + 1;
        self.range_of(&first)
            .is_some_and(|page| maps_together(&self.table, page))
    }

    /// Checks how many marks have gone.
    fn gone(&mut self, gone: u64, theirs: Option<u64>, expected: u64) -> Result<(), String> {
        self.tally.marks_gone += expected;
        match gone == expected && theirs.is_none_or(|theirs| theirs == expected) {
            true => Ok(()),
            false => Err(format!(
                "{gone} marks are gone, with the oracle {theirs:?}, expected {expected}"
            )),
        }
    }
}
