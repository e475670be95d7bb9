//! Folding, unfolding and reshaping memory that is online.

use super::attempt::Attempt;
use super::interpreter::{BothAltmaps, Interpreter, Pagemaps};
use super::model::{Expected, Survey, Use, sharing};
use super::online::{Trace, check_notes, left_of, made_as};
use super::op::{Change, Fold, Odd, Target};
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::{DevPagemap, Geometry, Tails};
use mm_core::paging::PageTable;
use mm_core::readers::ReadersOf;
use mm_core::vmemmap::{FoldError, Folded, Vmemmap};

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
            altmap: altmaps.map(|both| both.ours.reserved()),
        };
        self.change_frames(fold.change, pagemaps, altmaps, frames, &used)
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

    fn change_frames(
        &mut self,
        change: Change,
        pagemaps: Pagemaps<'_>,
        altmaps: Option<&'s BothAltmaps<'s>>,
        frames: PfnRange,
        used: &Use,
    ) -> Result<(), String> {
        let ranges = pagemaps.ours.ranges();
        let survey = self
            .model
            .survey(change, ranges, frames, used, E::SAME_FOR_ALL);
        let possible = match change == Change::Unfold && survey.is_ok() {
            true if pagemaps.ours.huge_leaves()
                && self.parts.machine.facts().huge_leaf.is_some() =>
            {
                self.model.joins(frames)
            }
            _ => Vec::new(),
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
        let spans: Vec<_> = self.model.spans(&attempt.pages).collect();
        let theirs = match (&mut self.oracle, pagemaps.theirs) {
            (Some(Oracle { vmemmap, table, .. }), Some(pagemap)) => {
                for span in spans {
                    let at = self.model.scale.address(span.start);
                    let whose = self.model.tables.leaf_table(span.start);
                    table.set_foreign_table(at, whose == Some(super::model::Table::Foreign));
                }
                Some(call(change, vmemmap, table, &pagemap, frames))
            }
            _ => None,
        };
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
        self.changed(change, frames, used, survey, &folded, &possible, &trace)
    }

    /// Enters what was changed into the model, and checks what was reported.
    #[allow(
        clippy::too_many_arguments,
        reason = "what was asked, and what came of it"
    )]
    fn changed(
        &mut self,
        change: Change,
        frames: PfnRange,
        used: &Use,
        survey: Survey,
        folded: &Folded,
        possible: &[u64],
        trace: &Trace,
    ) -> Result<(), String> {
        let pages = self.scale().pages(frames);
        let seen = self.seen(&pages);
        let seen = |page: u64| seen.get((page - pages.start) as usize).copied().flatten();
        let (right, missing) = match change {
            Change::Fold => {
                let splits = self.model.fold(frames, used, &seen)?;
                self.tally.folded += u64::from(survey.unfolded > 0);
                self.tally.split += u64::from(splits > 0);
                ((survey.unfolded, survey.folded), 0)
            }
            Change::Unfold => {
                let blocks = trace
                    .blocks(self.parts.machine.facts().huge_leaf)
                    .filter(|granted| *granted)
                    .count();
                let joined = possible.get(..blocks).ok_or("too many blocks were taken")?;
                self.model.unfold(frames, joined, used, &seen)?;
                self.tally.unfolded += u64::from(survey.folded > 0);
                self.tally.joined += u64::from(blocks > 0);
                let missing = possible.len() - blocks;
                ((survey.folded, survey.unfolded), missing as u64)
            }
            Change::Reshape => {
                self.model.reshape(frames, used.order);
                self.tally.reshaped += 1;
                ((0, 0), 0)
            }
        };
        if (folded.changed, folded.unchanged) != right {
            return Err(format!("{folded:?}, expected {right:?}"));
        }
        if folded.changed > 0 && folded.flushes == 0 && self.parts.machine.facts().has_tables {
            return Err(format!("no flush for {folded:?}"));
        }
        check_notes(
            &folded.notes,
            missing,
            self.remote(trace, used.node, &pages),
        )?;
        if change != Change::Reshape && folded.changed > 0 {
            self.tally.marks_kept += self.model.marked(frames);
        }
        Ok(())
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
