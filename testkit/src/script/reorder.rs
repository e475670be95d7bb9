//! Changing the order of pages that are online.

use super::interpreter::{BothAltmaps, Interpreter, Pagemaps};
use super::model::{Costs, Expected, Reserved, Use};
use super::online::{left_of, made_as};
use super::op::{Fault, How, Reorder};
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use hosted::inspect::SeenEntry;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tails};
use mm_core::vmemmap::{FoldError, Reserve};
use std::ops::Range;

/// How many frames stay in reserve: each look at the counters visits them.
const KEPT: u64 = 512;

/// What is to become of which memory.
#[derive(Clone, Copy)]
pub(super) struct Request<'p, 's> {
    pub(super) pagemaps: Pagemaps<'p>,
    pub(super) altmaps: Option<&'s BothAltmaps<'s>>,
    pub(super) frames: PfnRange,
    pub(super) used: Use,
    /// Whether all that it can take was put in reserve.
    pub(super) is_prepared: bool,
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Changes the order of pages, if there are any to be changed.
    pub(super) fn reorder(&mut self, asked: &Reorder) -> Result<(), String> {
        let (page, _) = self.frame(asked.at)?;
        let here = self.model.own_page(page);
        let there = here.map_or(0, |page| page.contents.order);
        let order = asked.order.or(Order::new(there)).unwrap_or(Order::BASE);
        let part = self.part_around(page, order, asked);
        let (Some(frames), Some(single)) = (self.scale().frames(&part), Pfn::new(0)) else {
            return Ok(());
        };
        let of_part = self.with_altmap(frames).filter(|_| asked.altmap);
        let altmaps = of_part.and_then(|live| live.altmaps);
        let ranges = match of_part {
            Some(live) => live.ours.pagemap().ranges().to_vec(),
            None => vec![
                self.aligned_window(order)
                    .unwrap_or(PfnRange::single(single)),
            ],
        };
        let tails = match asked.tails {
            Tails::PerOrder if !E::SAME_FOR_ALL && asked.steps > 1 => Tails::PerCompound,
            tails => tails,
        };
        let expected = self.model.pagemap(&ranges, order);
        let geometry = Geometry::compound(order);
        let made = DevPagemap::new(&self.parts.machine.model(), &ranges, geometry);
        let Some(pagemap) = made_as(made, expected)? else {
            return Ok(());
        };
        let huge_leaves = asked.huge_leaves && self.parts.machine.facts().huge_leaf.is_some();
        let pagemap = pagemap
            .with_tails(tails)
            .with_tables(asked.tables)
            .with_huge_leaves(huge_leaves)
            .with_node(NodeId::new(asked.node));
        let packed = asked.packed && (E::HAS_STUBS || asked.steps == 1);
        let pagemap = match packed {
            true => pagemap.with_heads(Heads::Packed),
            false => pagemap,
        };
        let Some(pagemaps) = self.with_altmaps(pagemap, altmaps)? else {
            return Ok(());
        };
        let used = Use {
            order,
            tails,
            tables: asked.tables,
            node: asked.node,
            huge_leaves,
            packed,
            altmap: altmaps.map(|both| both.ours.reserved()),
        };
        let most = match asked.much {
            true => 2 * self.scale().per_table,
            false => self.scale().most_own(),
        };
        let own = self.model.own_then(&part, &used);
        if own > most || own * self.scale().page_bytes() > self.scale().most_bytes() {
            // Too large to be copied.
            return Ok(());
        }
        let mut request = Request {
            pagemaps,
            altmaps,
            frames,
            used,
            is_prepared: false,
        };
        let expected = self
            .model
            .reorder_request(&ranges, frames, &used, E::SAME_FOR_ALL);
        self.arm(Fault::None);
        if asked.how != How::Unprepared && expected == Expected::Done {
            request.is_prepared = self.fill_for(&request, asked.how != How::Prepared)?;
        }
        if let How::Frozen(frozen) = asked.how
            && expected == Expected::Done
            && altmaps.is_none()
            && R::READ
            && self.parts.machine.facts().has_tables
        {
            return R::reorder_frozen(self, &request, frozen);
        }
        let whole = self.model.orders().whole(&part).unwrap_or(part);
        self.give_back_in(&whole);
        let mut rest = Some(frames);
        for _ in 0..asked.steps {
            let Some(frames) = rest else { break };
            rest = self.reorder_step(&Request { frames, ..request }, expected)?;
        }
        Ok(())
    }

    /// The vmemmap pages from `page` on that `asked` is about.
    fn part_around(&self, page: u64, order: Order, asked: &Reorder) -> Range<u64> {
        let unit = self.scale().unit(order.get());
        let all = self.model.all_pages();
        let first = page - page % unit;
        let part = first.max(all.start)..(first + asked.count * unit).min(all.end);
        if !asked.whole {
            return part;
        }
        let mut whole = self.model.orders().whole(&part).unwrap_or(part);
        whole.start -= whole.start % unit;
        whole.end = whole.end.next_multiple_of(unit);
        whole.start.max(all.start)..whole.end.min(all.end)
    }

    /// What of the window is whole pages of `order`.
    pub(super) fn aligned_window(&self, order: Order) -> Option<PfnRange> {
        let window = self.scale().frames(&self.model.all_pages())?;
        let start = window.start().get().next_multiple_of(order.frames());
        let end = (window.last().get() + 1) / order.frames() * order.frames();
        PfnRange::new(Pfn::new(start)?, end.checked_sub(start)?).ok()
    }

    /// How much `request` can take.
    fn needed(&self, request: &Request<'_, 's>) -> Reserve {
        let part = self.scale().pages(request.frames);
        let orders = self.model.orders();
        let whole = orders.whole(&part).unwrap_or(part);
        let largest = Order::new(orders.largest(&whole)).unwrap_or(Order::BASE);
        let (pagemap, frames) = (&request.pagemaps.ours, request.frames);
        self.vmemmap
            .reserve_needed(&self.table, pagemap, frames, largest)
    }

    /// Fills the reserve with what `request` can take; with single frames instead of blocks too if it
    /// `may_leave` some of it. Nothing of that fails.
    fn fill_for(&mut self, request: &Request<'_, 's>, may_leave: bool) -> Result<bool, String> {
        if self.model.reserve.frames > KEPT {
            self.empty_reserve()?;
        }
        let mut needed = self.needed(request);
        // For the bits by which readers find it, if they have found nothing before.
        needed.frames += u64::from(self.model.has_readers()) - self.model.costs().online_map;
        if may_leave && let Some(leaf) = self.parts.machine.facts().huge_leaf {
            needed.frames += needed.huge_leaves * leaf.frames();
        }
        self.fill(NodeId::new(request.used.node), needed)?;
        Ok(true)
    }

    /// Does the first unit of `request`, for which `expected` is the answer if it is refused as a whole.
    /// Answers with what is left to do.
    fn reorder_step(
        &mut self,
        request: &Request<'_, 's>,
        expected: Expected,
    ) -> Result<Option<PfnRange>, String> {
        let Request { used, frames, .. } = *request;
        let part = self.scale().pages(frames);
        let whole = self.model.orders().whole(&part).unwrap_or(part.clone());
        let hull = self.hull(&[self.scale().frames(&whole).unwrap_or(frames)]);
        self.speculate(&hull);
        self.model.refresh();
        let before = self.snapshot(&hull);
        let costs = self.model.costs();
        let blocks = self.blocks_in_reserve();
        let there = self.vmemmap.reserve(NodeId::new(used.node));
        let needed = self.needed(request);
        let left = request.altmaps.map(left_of);
        let answer = self.without_allocator(|this| {
            this.start_trace(request.altmaps);
            let (vmemmap, table) = (&mut this.vmemmap, &mut this.table);
            vmemmap.reorder_step(table, &request.pagemaps.ours, frames)
        })?;
        self.end_trace(request.altmaps);
        let units = match expected {
            Expected::Done => self.model.units(&part, &used),
            refused => Err(refused),
        };
        let refusals = match &units {
            Ok(units) => units
                .clone()
                .map(|unit| self.model.reorder_unit(&unit, &used)),
            Err(refused) => [*refused; 2],
        };
        let done = match answer {
            Ok(done) => done,
            Err(error) => {
                // Of too little, the frames of an altmap may have been taken before it was noticed.
                self.forget_trace(request.altmaps);
                self.refused(request, error, refusals, (there, needed), left)?;
                self.unchanged(&before, &hull, "after a change of order was refused")?;
                return Ok(None);
            }
        };
        let [small, large] = units.map_err(|refused| format!("{done:?}, expected {refused:?}"))?;
        let end = done
            .rest
            .map_or(part.end, |rest| self.scale().pages(rest).start);
        let is_large = end >= large.end.min(part.end);
        let (unit, refusal) = match is_large {
            true => (large, refusals[1]),
            false => (small, refusals[0]),
        };
        if refusal != Expected::Done || end != unit.end.min(part.end) || done.units != 1 {
            return Err(format!(
                "{done:?} of {part:?}, expected {unit:?}: {refusal:?}"
            ));
        }
        if !is_large && request.is_prepared && request.altmaps.is_none() {
            return Err(format!(
                "{done:?}, though there is enough for more in reserve"
            ));
        }
        let blocks = Some(blocks).filter(|_| request.altmaps.is_none());
        self.enter_unit(request, &unit, (&part, 1), blocks)?;
        self.nothing_is_lost(&costs)?;
        self.tally.reordered += 1;
        self.tally.reordered_parts += u64::from(part.start > unit.start || part.end < unit.end);
        let pieces = self.scale().frames(&(part.start..end));
        if let Some(pieces) = pieces {
            self.oracle_reorders(request, pieces)?;
        }
        Ok(done.rest)
    }

    /// Has the oracle do what the machine did of `request`, which is `frames`.
    pub(super) fn oracle_reorders(
        &mut self,
        request: &Request<'_, 's>,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.scale().pages(frames);
        let pages = self.model.orders().whole(&pages).unwrap_or(pages);
        let spans: Vec<_> = self.model.spans(&pages).collect();
        let (Some(oracle), Some(pagemap)) = (&mut self.oracle, request.pagemaps.theirs) else {
            return Ok(());
        };
        let Oracle { vmemmap, table, .. } = oracle;
        for span in spans {
            let at = self.model.scale.address(span.start);
            let whose = self.model.tables.leaf_table(span.start);
            table.set_foreign_table(at, whose == Some(super::model::Table::Foreign));
        }
        let done = vmemmap.reorder(table, &pagemap, frames);
        done.map(drop)
            .map_err(|stopped| format!("the oracle: {stopped:?}"))
    }

    /// Checks that `error` is one of those that there may be.
    fn refused(
        &mut self,
        request: &Request<'_, 's>,
        error: FoldError,
        refusals: [Expected; 2],
        (there, needed): (Reserve, Reserve),
        left: Option<u64>,
    ) -> Result<(), String> {
        let at = match error {
            FoldError::NotOnline { at } | FoldError::ReservedOnline { at } => Some(at),
            _ => None,
        };
        let [of_small, of_large] = refusals;
        let is = |expected: Expected| match expected {
            Expected::Refused(kind, _) => kind == error.kind() && self.at(expected) == at,
            Expected::Done => false,
        };
        // What there was not enough for is tried as something smaller.
        let right = match error {
            FoldError::ReserveTooSmall { .. } => {
                let is_enough = there.frames >= needed.frames + u64::from(self.model.has_readers())
                    && there.tables >= needed.tables
                    && there.huge_leaves >= needed.huge_leaves;
                !request.is_prepared && !is_enough
            }
            FoldError::AltmapExhausted { .. } => left.is_some_and(|left| {
                left < self.model.scale.pages(request.frames).count() as u64 + left / 2 + 8
            }),
            _ => is(of_large) || is(of_small) && !request.is_prepared,
        };
        self.tally.reorder_refused += 1;
        self.tally.too_small += u64::from(error.kind() == ErrorKind::OutOfFrames);
        match right {
            true => Ok(()),
            false => Err(format!(
                "{error:?}, expected {refusals:?}, with {there:?} of {needed:?} in reserve"
            )),
        }
    }

    /// Enters into the model that `unit` was changed as a part of `part`. New pages have the references that
    /// are said with that. If it is known how many `blocks` there were, that many huge leaves come back.
    pub(super) fn enter_unit(
        &mut self,
        request: &Request<'_, 's>,
        unit: &Range<u64>,
        (part, references): (&Range<u64>, u32),
        blocks: Option<u64>,
    ) -> Result<(), String> {
        let used = request.used;
        let had_packed = self.model.heads_in(unit.clone()).next().is_some();
        let pages = self.seen(unit);
        let seen = |page: u64| pages.get((page - unit.start) as usize).copied().flatten();
        let candidates = self.model.reorder(unit, part, &used, references, &seen)?;
        let has_packed = self.model.heads_in(unit.clone()).next().is_some();
        self.tally.repacked += u64::from(had_packed || has_packed);
        let is_huge = |first: &u64| self.is_huge_leaf(*first);
        let joined: Vec<u64> = candidates.iter().copied().filter(is_huge).collect();
        if let Some(blocks) = blocks
            && joined.len() as u64 != blocks.min(candidates.len() as u64)
        {
            return Err(format!(
                "huge leaves are at {joined:x?} of {candidates:x?}, with {blocks} blocks"
            ));
        }
        self.tally.joined += u64::from(!joined.is_empty());
        self.model.join(&joined, used.altmap, &seen)
    }

    /// What a change of order has freed is in reserve, and nothing else is.
    pub(super) fn nothing_is_lost(&mut self, before: &Costs) -> Result<(), String> {
        self.model.refresh();
        self.see_records()?;
        let after = self.model.costs();
        let of_ram =
            |costs: &Costs| costs.descriptors - costs.of_altmaps + costs.online_map + costs.records;
        let all = self.model.reserve;
        let left = |there: u64, before: u64, after: u64| (there + before).checked_sub(after);
        let left = (
            left(all.frames, of_ram(before), of_ram(&after)),
            left(all.tables, before.tables, after.tables),
        );
        let (Some(frames), Some(tables)) = left else {
            return Err(format!(
                "{before:?} and {all:?} in reserve became {after:?}"
            ));
        };
        self.model.reserve = Reserved { frames, tables };
        self.check_reserve()
            .map_err(|error| format!("{error}; {before:?} became {after:?}"))
    }

    /// Takes over how many frames it takes to remember shared tails and tables, if that may be so many.
    pub(super) fn see_records(&mut self) -> Result<(), String> {
        self.model.records = self.vmemmap.stats().record_frames;
        match self.model.can_have_records() {
            true => Ok(()),
            false => Err(format!("{} frames of records", self.model.records)),
        }
    }

    /// Whether a huge leaf maps `page`.
    fn is_huge_leaf(&self, page: u64) -> bool {
        let mut is_huge = false;
        if let Some(range) = self.range_of(&(page..page + 1)) {
            self.table.scan(range, &mut |entry| {
                if let SeenEntry::Leaf(leaf) = entry {
                    is_huge |= leaf.order > Order::BASE;
                }
            });
        }
        is_huge
    }

    /// See [`TestMachine::without_allocator`](crate::TestMachine::without_allocator).
    pub(super) fn without_allocator<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, String> {
        let machine = &self.parts.machine;
        machine.without_allocator(|| work(self))
    }
}
