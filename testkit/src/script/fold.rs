//! Folding, unfolding and reshaping memory that is online.

use super::attempt::Attempt;
use super::interpreter::{BothAltmaps, Interpreter, Pagemaps};
use super::model::{Expected, Survey, Use, sharing};
use super::online::{Trace, check_notes, left_of, made_as};
use super::op::{Change, Fold, Frozen, Odd, Target};
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tails};
use mm_core::paging::PageTable;
use mm_core::readers::ReadersOf;
use mm_core::vmemmap::{FoldError, Folded, Vmemmap};

/// A change of memory, with all that it takes.
#[derive(Clone, Copy)]
pub(super) struct Request<'p, 's> {
    pub(super) change: Change,
    pub(super) pagemaps: Pagemaps<'p>,
    altmaps: Option<&'s BothAltmaps<'s>>,
    pub(super) frames: PfnRange,
    pub(super) used: Use,
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Changes memory that is online, if there is any to be changed.
    pub(super) fn change(&mut self, fold: &Fold) -> Result<(), String> {
        let (ranges, altmaps) = match fold.target {
            Target::Range(range) => (vec![range], None),
            Target::Region(index) => match self.regions.get(index % self.regions.len().max(1)) {
                Some(live) => {
                    let ranges = live.ours.pagemap().ranges().to_vec();
                    (ranges, live.altmaps.filter(|_| fold.altmap))
                }
                None => return Ok(()),
            },
        };
        let order = fold.order.unwrap_or_else(|| self.order_in(&ranges));
        let ranges = match altmaps {
            Some(_) => ranges,
            None => self.aligned(ranges, order),
        };
        let tails = match fold.tails {
            Tails::PerOrder if !E::SAME_FOR_ALL && fold.node == 0 => Tails::PerCompound,
            tails => tails,
        };
        let expected = self.model.pagemap(&ranges, order);
        let made = DevPagemap::new(
            &self.parts.machine.model(),
            &ranges,
            Geometry::compound(order),
        );
        let Some(pagemap) = made_as(made, expected)? else {
            return Ok(());
        };
        let pagemap = pagemap
            .with_tails(tails)
            .with_tables(fold.tables)
            .with_huge_leaves(fold.huge_leaves)
            .with_node(NodeId::new(fold.node));
        let packed = fold.packed && E::HAS_STUBS;
        let pagemap = match packed {
            true => pagemap.with_heads(Heads::Packed),
            false => pagemap,
        };
        let Some(pagemaps) = self.with_altmaps(pagemap, altmaps)? else {
            return Ok(());
        };
        let Some(frames) = self.part_of(&ranges, order, fold) else {
            return Ok(());
        };
        let used = Use {
            order,
            tails: sharing(&self.scale(), order.get(), tails),
            tables: fold.tables,
            node: fold.node,
            huge_leaves: fold.huge_leaves,
            packed,
            altmap: altmaps.map(|both| both.ours.reserved()),
        };
        let request = Request {
            change: fold.change,
            pagemaps,
            altmaps,
            frames,
            used,
        };
        self.change_frames(&request, fold.frozen)
    }

    /// The order of compound pages that there are in `ranges`.
    fn order_in(&self, ranges: &[PfnRange]) -> Order {
        let all = ranges.iter().flat_map(|range| self.scale().pages(*range));
        let mut pages = all.filter_map(|page| self.model.own_page(page)).peekable();
        let first = pages.peek().map_or(0, |page| page.contents.order);
        let tail = pages.find(|page| page.is_tail());
        let order = tail.map_or(first, |page| page.contents.order);
        Order::new(order).unwrap_or(Order::BASE)
    }

    /// What of `ranges` is whole pages of `order`, if that is something.
    fn aligned(&self, ranges: Vec<PfnRange>, order: Order) -> Vec<PfnRange> {
        let unit = order.frames().max(self.scale().subsection);
        let part = |range: &PfnRange| {
            let start = range.start().get().next_multiple_of(unit);
            let end = (range.last().get() + 1) / unit * unit;
            PfnRange::new(Pfn::new(start)?, end.checked_sub(start)?).ok()
        };
        let aligned: Vec<PfnRange> = ranges.iter().filter_map(part).collect();
        if aligned.is_empty() { ranges } else { aligned }
    }

    /// Which frames are changed: mostly whole pages of `order` within one of `ranges`.
    fn part_of(&self, ranges: &[PfnRange], order: Order, fold: &Fold) -> Option<PfnRange> {
        let [skip, length] = fold.part.map(u64::from);
        let range = ranges.get(skip as usize % ranges.len().max(1))?;
        let unit = order.frames().max(self.scale().per_page);
        let units = (range.frames() / unit).max(1);
        let skip = skip / 2 % units;
        let count = match length {
            0..=63 => units - skip,
            _ => (1 + length % 8).min(units - skip),
        };
        let (skip, count) = match fold.aims {
            true => self.aim(fold.change, *range, order, [skip, count]),
            false => (skip, count),
        };
        let start = range.start().get() + skip * unit;
        let (start, frames) = match fold.odd {
            Odd::Not => (start, count * unit),
            Odd::Start => (start + self.scale().per_page / 2, count * unit),
            Odd::End => (start, count * unit - 1),
            Odd::Beyond => (start, (units - skip + 1) * unit),
        };
        PfnRange::new(Pfn::new(start)?, frames).ok()
    }

    /// The units of `range` from the first one on that can be changed, at or behind the first of
    /// `units`, and at most as many; or those, if there is none.
    fn aim(&self, change: Change, range: PfnRange, order: Order, units: [u64; 2]) -> (u64, u64) {
        let [skip, count] = units;
        let pages = self.scale().pages(range);
        let unit = self.scale().unit(order.get());
        let all = (pages.end - pages.start) / unit;
        let fits = |index: u64| {
            let head = pages.start + index % all * unit;
            self.model.fits(change, &(head..head + unit), order)
        };
        let Some(first) = (skip..skip + all).find(|index| fits(*index)) else {
            return (skip, count);
        };
        let first = first % all;
        let run = (first..all.min(first + count)).take_while(|index| fits(*index));
        (first, run.count() as u64)
    }

    /// Whether `frames` can be changed as `request` says, and what they are.
    pub(super) fn survey(
        &self,
        request: &Request<'_, 's>,
        frames: PfnRange,
    ) -> Result<Survey, Expected> {
        let ranges = request.pagemaps.ours.ranges();
        let same = E::SAME_FOR_ALL;
        self.model
            .survey(request.change, ranges, frames, &request.used, same)
    }

    /// What huge leaves could map again when `request` is done with `frames`, by first pages.
    pub(super) fn possible_leaves(&self, request: &Request<'_, 's>, frames: PfnRange) -> Vec<u64> {
        match request.change == Change::Unfold
            && request.pagemaps.ours.huge_leaves()
            && self.parts.machine.facts().huge_leaf.is_some()
        {
            true => self.model.joins(frames),
            false => Vec::new(),
        }
    }

    fn change_frames(
        &mut self,
        request: &Request<'_, 's>,
        frozen: Option<Frozen>,
    ) -> Result<(), String> {
        let Request {
            change,
            pagemaps,
            altmaps,
            frames,
            used,
        } = *request;
        let survey = self.survey(request, frames);
        let possible = match survey.is_ok() {
            true => self.possible_leaves(request, frames),
            false => Vec::new(),
        };
        let singles = match (change, survey) {
            (Change::Unfold, Ok(_)) => self.model.singles(frames, &[], used.order),
            _ => 0,
        };
        let in_leaves = possible.len() as u64 * self.scale().per_table;
        if (singles + in_leaves) * self.scale().page_bytes() > self.scale().most_bytes() {
            // Too large to be copied.
            return Ok(());
        }
        if let Some(frozen) = frozen
            && altmaps.is_none()
            && R::READ
            && self.parts.machine.facts().has_tables
        {
            return R::change_frozen(self, request, frozen);
        }
        let takes = change == Change::Unfold
            && survey.is_ok_and(|survey| survey.folded > 0 || !possible.is_empty());
        let usable = || match takes {
            true => self.model.usable(used.altmap),
            false => Expected::Done,
        };
        let attempt = Attempt {
            pages: self.hull(&[frames]),
            expected: survey.err().unwrap_or(Expected::Done).and(usable),
            needs_ram: change != Change::Reshape,
            altmap: altmaps.map(|both| (singles + in_leaves, left_of(both))),
        };
        self.give_back_in(&attempt.pages);
        let undone = self.tally.undone;
        let folded = self.attempt(&attempt, |this: &mut Self| {
            this.start_trace(altmaps);
            let (vmemmap, table) = (&mut this.vmemmap, &mut this.table);
            call(change, vmemmap, table, &pagemaps.ours, frames)
        })?;
        self.tally.fold_undone += self.tally.undone - undone;
        let trace = self.end_trace(altmaps);
        let theirs = self.oracle_changes(request, frames);
        let theirs = self.same(folded.is_some(), theirs)?;
        let (Some(folded), Ok(survey)) = (folded, survey) else {
            self.tally.fold_refused += 1;
            let refused = Expected::refused(ErrorKind::Unsupported);
            self.tally.other_altmap +=
                u64::from(attempt.expected == refused && used.tails != Tails::None);
            return Ok(());
        };
        if let Some(theirs) = theirs
            && (theirs.changed, theirs.unchanged) != (folded.changed, folded.unchanged)
        {
            return Err(format!("{folded:?}, the oracle {theirs:?}"));
        }
        self.changed(request, &[(frames, survey)], &folded, &possible, &trace)
    }

    /// Has the oracle do `request` with `frames`.
    pub(super) fn oracle_changes(
        &mut self,
        request: &Request<'_, 's>,
        frames: PfnRange,
    ) -> Option<Result<Folded, FoldError>> {
        let spans: Vec<_> = self.model.spans(&self.hull(&[frames])).collect();
        let (Some(oracle), Some(pagemap)) = (&mut self.oracle, request.pagemaps.theirs) else {
            return None;
        };
        let Oracle { vmemmap, table, .. } = oracle;
        for span in spans {
            let at = self.model.scale.address(span.start);
            let whose = self.model.tables.leaf_table(span.start);
            table.set_foreign_table(at, whose == Some(super::model::Table::Foreign));
        }
        Some(call(request.change, vmemmap, table, &pagemap, frames))
    }

    /// Enters what was changed of `request` into the model, `runs` of frames and what they were, and checks what was
    /// reported.
    pub(super) fn changed(
        &mut self,
        request: &Request<'_, 's>,
        runs: &[(PfnRange, Survey)],
        folded: &Folded,
        possible: &[u64],
        trace: &Trace,
    ) -> Result<(), String> {
        let Request { change, used, .. } = request;
        let blocks = match change {
            Change::Unfold => trace
                .blocks(self.parts.machine.facts().huge_leaf)
                .filter(|granted| *granted)
                .count(),
            _ => 0,
        };
        let joined = possible.get(..blocks).ok_or("too many blocks were taken")?;
        self.tally.joined += u64::from(blocks > 0);
        let (mut changed, mut unchanged) = (0, 0);
        for (frames, survey) in runs {
            let pages = self.scale().pages(*frames);
            let seen = self.seen(&pages);
            let seen = |page: u64| seen.get((page - pages.start) as usize).copied().flatten();
            let right = match change {
                Change::Fold => {
                    let splits = self.model.fold(*frames, used, &seen)?;
                    self.tally.folded += u64::from(survey.unfolded > 0);
                    self.tally.split += u64::from(splits > 0);
                    (survey.unfolded, survey.folded)
                }
                Change::Unfold => {
                    self.model.unfold(*frames, joined, used, &seen)?;
                    self.tally.unfolded += u64::from(survey.folded > 0);
                    (survey.folded, survey.unfolded)
                }
                Change::Reshape => {
                    self.model.reshape(*frames, used.order);
                    self.tally.reshaped += 1;
                    (0, 0)
                }
            };
            changed += right.0;
            unchanged += right.1;
            if *change != Change::Reshape && right.0 > 0 {
                self.tally.marks_kept += self.model.marked(*frames);
            }
        }
        if (folded.changed, folded.unchanged) != (changed, unchanged) {
            return Err(format!(
                "{folded:?}, expected {changed} changed and {unchanged} not"
            ));
        }
        if folded.changed > 0 && folded.flushes == 0 && self.parts.machine.facts().has_tables {
            return Err(format!("no flush for {folded:?}"));
        }
        let missing = match change {
            Change::Unfold => (possible.len() - blocks) as u64,
            _ => 0,
        };
        let pages = self.scale().pages(request.frames);
        let remote = self.remote(trace, used.node, &pages);
        check_notes(&folded.notes, missing, remote)
    }
}

/// Does `change`.
fn call<E, A, M, P, R>(
    change: Change,
    vmemmap: &mut Vmemmap<mm_core::descriptor::Page<E>, A, M, R>,
    table: &mut P,
    pagemap: &DevPagemap<'_>,
    frames: PfnRange,
) -> Result<Folded, FoldError>
where
    E: TailEncoding,
    A: mm_core::frame::FrameAllocator,
    M: mm_core::frame::DirectMap,
    P: PageTable,
    R: ReadersOf,
{
    match change {
        Change::Fold => vmemmap.fold(table, pagemap, frames),
        Change::Unfold => vmemmap.unfold(table, pagemap, frames),
        Change::Reshape => {
            let reshaped = vmemmap.reshape(table, pagemap, frames);
            reshaped.map(|()| Folded::default())
        }
    }
}
