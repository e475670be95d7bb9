//! Doing what may lack memory: after a failure everything is as it was, and without the fault it
//! succeeds.

use super::interpreter::Interpreter;
use super::model::{Costs, Expected};
use super::op::Fault;
use super::readers::ScriptReaders;
use hosted::inspect::Fingerprint;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::vmemmap::{FoldError, MarkError, OfflineError, OnlineError};
use std::fmt::Debug;
use std::ops::Range;

/// Why an operation was not done.
pub(super) trait Refusal: Debug {
    fn kind(&self) -> ErrorKind;
    /// The address that it is about.
    fn at(&self) -> Option<VirtAddr>;
}

impl Refusal for OnlineError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }

    fn at(&self) -> Option<VirtAddr> {
        match self {
            Self::AlreadyMapped { at } => Some(*at),
            _ => None,
        }
    }
}

impl Refusal for OfflineError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }

    fn at(&self) -> Option<VirtAddr> {
        match self {
            Self::NotOnline { at } => Some(*at),
            _ => None,
        }
    }
}

impl Refusal for FoldError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }

    fn at(&self) -> Option<VirtAddr> {
        match self {
            Self::NotOnline { at } | Self::OtherTails { at } | Self::ReservedOnline { at } => {
                Some(*at)
            }
            _ => None,
        }
    }
}

impl Refusal for MarkError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }

    fn at(&self) -> Option<VirtAddr> {
        None
    }
}

/// What an operation is about, and what is to come of it.
pub(super) struct Attempt {
    /// The pages that it may change.
    pub(super) pages: Range<u64>,
    pub(super) expected: Expected,
    /// Whether it may lack RAM when allocations fail.
    pub(super) needs_ram: bool,
    /// How many frames of an altmap it needs, at least, and how many there are.
    pub(super) altmap: Option<(u64, u64)>,
}

/// Everything that a failure must leave as it was.
pub(super) struct Snapshot {
    tables: Fingerprint,
    of_altmaps: u64,
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Does `call`; once more without the fault, if there is one and it fails. `None` if it was
    /// refused or lacked frames of the altmap, as it had to.
    pub(super) fn attempt<T, F: Refusal>(
        &mut self,
        attempt: &Attempt,
        mut call: impl FnMut(&mut Self) -> Result<T, F>,
    ) -> Result<Option<T>, String> {
        self.speculate(&attempt.pages);
        let before = self.snapshot(&attempt.pages);
        let mut outcome = call(self);
        if let Err(error) = &outcome
            && error.kind() == ErrorKind::OutOfFrames
        {
            if !(self.armed && attempt.needs_ram && attempt.expected == Expected::Done) {
                return Err(format!(
                    "{error:?} for no reason, expected {:?}",
                    attempt.expected
                ));
            }
            self.tally.undone += 1;
            self.unchanged(&before, &attempt.pages, "after a failure")?;
            self.arm(Fault::None);
            self.speculate(&attempt.pages);
            outcome = call(self);
        }
        let (kind, at) = match (outcome, attempt.expected) {
            (Ok(done), Expected::Done) => return Ok(Some(done)),
            (Ok(_), Expected::Refused(..)) => {
                return Err(format!("done, expected {:?}", attempt.expected));
            }
            (Err(error), _) => (error.kind(), error.at()),
        };
        match (attempt.expected, attempt.altmap) {
            (Expected::Done, Some((needed, left)))
                if kind == ErrorKind::AltmapExhausted && needed > left =>
            {
                self.tally.exhausted += 1;
            }
            (Expected::Refused(expected, _), _)
                if expected == kind && at == self.at(attempt.expected) =>
            {
                self.tally.refused += 1;
            }
            (expected, _) => return Err(format!("{kind} at {at:?}, expected {expected:?}")),
        }
        self.unchanged(&before, &attempt.pages, "after a refusal")?;
        Ok(None)
    }

    /// Compares what the oracle says to what was asked for with what the machine said, if there is
    /// an oracle.
    pub(super) fn same<T, F: Refusal>(
        &self,
        done: bool,
        theirs: Option<Result<T, F>>,
    ) -> Result<Option<T>, String> {
        match (done, theirs) {
            (_, None) => Ok(None),
            (true, Some(Ok(done))) => Ok(Some(done)),
            (false, Some(Err(_))) => Ok(None),
            (done, Some(theirs)) => Err(format!(
                "done: {done}, but the oracle says {:?}",
                theirs.map(drop)
            )),
        }
    }

    pub(super) fn snapshot(&self, pages: &Range<u64>) -> Snapshot {
        Snapshot {
            tables: self.fingerprint(pages),
            of_altmaps: self.out_of_altmaps(),
        }
    }

    fn fingerprint(&self, pages: &Range<u64>) -> Fingerprint {
        let range = match self.scale().is_wide() {
            true => Some(self.addresses),
            false => self.range_of(pages),
        };
        let range = range.unwrap_or(self.addresses);
        self.table.fingerprint(range)
    }

    /// Checks that all is as it was `before`, but for hollow tables.
    pub(super) fn unchanged(
        &mut self,
        before: &Snapshot,
        pages: &Range<u64>,
        when: &str,
    ) -> Result<(), String> {
        let after = self.snapshot(pages);
        if let Some(at) = before.tables.difference(&after.tables) {
            return Err(format!(
                "{when}: the bytes of the table for {at:#x} have changed"
            ));
        }
        if before.of_altmaps != after.of_altmaps {
            let (before, after) = (before.of_altmaps, after.of_altmaps);
            return Err(format!(
                "{when}: {after} frames of altmaps are out, were {before}"
            ));
        }
        let spans: Vec<_> = self.model.spans(pages).collect();
        for span in spans {
            let there = self
                .parts
                .machine
                .tables_at(self.scale().address(span.start));
            if there < self.model.tables.on_the_way(span.start) {
                self.model.tables.keep(span.start, there);
            }
        }
        self.check_costs()
            .and_then(|()| self.check_pages(pages))
            .and_then(|()| self.check_heads(pages))
            .map_err(|error| format!("{when}: {error}"))
    }

    /// Makes CPUs cache what is mapped at `pages` and next to them, now and whenever the eager one
    /// may: all of it in a wide script, else the first and the last.
    pub(super) fn speculate(&self, pages: &Range<u64>) {
        let [first, last] = match self.scale().is_wide() {
            true => [Some(self.addresses), None],
            false => {
                let all = self.model.all_pages();
                let (start, end) = (pages.start.max(all.start), pages.end.min(all.end));
                let first = start.saturating_sub(1).max(all.start)..end.min(start + 24);
                let last = start.max(end.saturating_sub(8))..(end + 1).min(all.end);
                [first, last].map(|part| self.range_of(&part).filter(|_| part.start < part.end))
            }
        };
        let [place, other] = self.some_places();
        let ranges = [first, last, place, other];
        self.ahead.set(ranges);
        if !self.scale().is_wide() {
            // A flush of everything, as each of RISC-V's that is about a table, reads no more than one by addresses.
            let all = self.model.all_pages();
            let start = pages.start.saturating_sub(1).max(all.start);
            let around = self.range_of(&(start..(pages.end + 1).min(all.end)));
            let ranges = [around, place, other].into_iter().flatten();
            let ranges: Vec<VirtRange> = ranges.collect();
            self.parts.machine.cpus().read_only_ahead(&ranges);
        }
        for range in ranges.into_iter().flatten() {
            self.parts.machine.cpus().fill(range);
        }
    }

    /// Makes all CPUs cache all that is mapped, and some of the heads.
    pub(super) fn speculate_all(&self) {
        let [place, other] = self.some_places();
        for range in [Some(self.addresses), place, other].into_iter().flatten() {
            self.parts.machine.cpus().fill(range);
        }
    }

    /// Checks that the costs are what they should be.
    pub(super) fn check_costs(&mut self) -> Result<(), String> {
        self.model.refresh();
        self.see_records()?;
        let expected = self.model.costs();
        let out = self.parts.machine.frames().outstanding();
        let of_altmaps = self.out_of_altmaps();
        if (out, of_altmaps) != (expected.ram(), expected.of_altmaps) {
            return Err(format!(
                "{out} frames of RAM and {of_altmaps} of altmaps are out, expected {expected:?}"
            ));
        }
        let stats = self.vmemmap.stats();
        let found = Costs {
            descriptors: stats.descriptor_frames,
            tails: stats.tail_frames,
            of_altmaps: stats.altmap_frames,
            tables: stats.table_frames,
            marks: stats.mark_frames,
            online_map: stats.online_map_frames,
            records: stats.record_frames,
            reserve: stats.reserve_frames,
            reused: stats.reused_entries,
        };
        self.check_reserve()?;
        let marks = self.vmemmap.mark_stats();
        let marked = (self.model.marks.len() as u64, expected.marks);
        if found != expected || (marks.marked, marks.frames) != marked {
            return Err(format!(
                "the stats say {found:?} and {marks:?}, expected {expected:?}"
            ));
        }
        let violations = self.parts.machine.violations();
        match violations.is_empty() {
            true => Ok(()),
            false => Err(format!("rules were broken: {violations}")),
        }
    }
}
