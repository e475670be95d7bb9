//! Pages that become pages of another order, with frames of a reserve.

use super::Churn;
use super::model::{Costs, Policy, Reserved};
use super::targets::FEW;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{FoldError, Reserve};
use std::ops::Range;

/// How many frames stay in reserve: each look at the counters visits them.
const KEPT: u64 = 96;

/// What is to become of which memory.
pub(super) struct Request<'w> {
    pub(super) pagemap: DevPagemap<'w>,
    pub(super) policy: Policy,
    pub(super) frames: PfnRange,
    /// The range of the pagemap that the frames are in.
    pub(super) range: PfnRange,
    /// What the pagemap's altmap reserves, in vmemmap pages.
    pub(super) reserved: Range<u64>,
}

/// What a change of order has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) units: u64,
    /// The page that it ends before, and why it ends there if it does early.
    pub(super) end: u64,
    pub(super) error: Option<ErrorKind>,
    /// What huge leaves may map now, by first pages.
    pub(super) candidates: Vec<u64>,
}

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Changes the order of some memory.
    pub(super) fn reorder(&mut self) -> Result<(), String> {
        let request = self.reorder_target()?;
        self.change_order(&request)
    }

    /// Memory, mostly such that is online, and any order that fits.
    fn reorder_target(&mut self) -> Result<Request<'w>, String> {
        let mut tried = 0;
        loop {
            let memory = self.memory();
            let (mut policy, piece) = self.policy(memory);
            if self.rng.bool() {
                let largest = memory.order.max(self.world.layout.model.subsection());
                policy.order = self.rng.u8(..=largest.get());
            }
            if policy.tails == Tails::PerOrder {
                // No more tails are known without a frame for that than those of one node.
                policy.node = 0;
            }
            let frames = self.part(memory, self.unit(&policy))?;
            tried += 1;
            let whole = self.model.whole(&self.world.layout.pages_of(frames));
            let is_online = whole.is_some_and(|whole| self.model.is_ours(&whole));
            if tried > 8 || is_online {
                let pagemap = self.pagemap(memory, &policy, piece)?;
                let [range] = memory.ranges;
                return Ok(Request {
                    pagemap,
                    policy,
                    frames,
                    range,
                    reserved: 0..0,
                });
            }
        }
    }

    /// Does `request` in one of the ways that there are.
    pub(super) fn change_order(&mut self, request: &Request<'w>) -> Result<(), String> {
        let most = match self.rng.u64(..self.world.layout.huge_leaves_of) {
            0 => 2 * self.world.layout.table,
            _ => FEW,
        };
        let part = self.world.layout.pages_of(request.frames);
        if self.model.own_then(&part, &request.policy) > most {
            return Ok(());
        }
        let whole = self.model.whole(&part).unwrap_or_else(|| part.clone());
        self.touched = whole.clone();
        self.tally.reordered_parts += u64::from(whole != part);
        self.speculate(&whole);
        match self.rng.u8(..8) {
            0 => self.reorder_unprepared(request),
            1 | 2 => self.reorder_by_steps(request),
            3..=5 if self.can_freeze(request, &whole) => {
                self.reorder_beside_readers(request, &whole)
            }
            _ => self.reorder_all(request),
        }
    }

    /// All of it, in one call.
    fn reorder_all(&mut self, request: &Request<'w>) -> Result<(), String> {
        let part = self.world.layout.pages_of(request.frames);
        self.act = format!("reorder {part:?} {:?}", request.policy);
        let has_blocks = self.prepare(request, false)?;
        let before = self.model.costs();
        let done = self.without_allocator(|churn| {
            let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
            vmemmap.reorder(table, &request.pagemap, request.frames)
        })?;
        let (done, error) = match done {
            Ok(done) => (done, None),
            Err(stopped) => (stopped.done, Some(stopped.kind())),
        };
        let expected = self.follow(request, &part, u64::MAX);
        let end = done
            .rest
            .map_or(part.end, |rest| self.world.layout.pages_of(rest).start);
        let right = (expected.units, expected.end.min(part.end), expected.error);
        if (done.units, end, error) != right {
            return Err(format!("{done:?} and {error:?}, expected {expected:?}"));
        }
        self.changed(&before, &expected, has_blocks)
    }

    /// A few units of it. The rest stays as it is.
    fn reorder_by_steps(&mut self, request: &Request<'w>) -> Result<(), String> {
        let part = self.world.layout.pages_of(request.frames);
        self.act = format!("steps of {part:?} {:?}", request.policy);
        let has_blocks = self.prepare(request, false)?;
        let mut rest = Some(request.frames);
        for _ in 0..self.rng.u8(1..4) {
            let Some(frames) = rest else { return Ok(()) };
            let before = self.model.costs();
            let done = self.without_allocator(|churn| {
                let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
                vmemmap.reorder_step(table, &request.pagemap, frames)
            })?;
            let expected = self.follow(request, &self.world.layout.pages_of(frames), 1);
            let (answer, next) = match done {
                Ok(done) => ((done.units, None), done.rest),
                Err(error) => ((0, Some(error.kind())), None),
            };
            let end = next.map(|next| self.world.layout.pages_of(next).start);
            let right =
                (expected.error.is_none() && expected.end < part.end).then_some(expected.end);
            if (answer, end) != ((expected.units, expected.error), right) {
                return Err(format!("{done:?}, expected {expected:?}"));
            }
            self.changed(&before, &expected, has_blocks)?;
            rest = next;
        }
        self.tally.stopped += u64::from(rest.is_some());
        Ok(())
    }

    /// A step with what is in reserve, which may be too little: then nothing has changed.
    fn reorder_unprepared(&mut self, request: &Request<'w>) -> Result<(), String> {
        let part = self.world.layout.pages_of(request.frames);
        self.act = format!("unprepared step of {part:?} {:?}", request.policy);
        self.disarm();
        let (needed, there) = (
            self.needed(request),
            self.vmemmap.reserve(self.node_of(request)),
        );
        let before = self.model.costs();
        let done = self.without_allocator(|churn| {
            let (vmemmap, table) = (&mut churn.vmemmap, &mut churn.table);
            vmemmap.reorder_step(table, &request.pagemap, request.frames)
        })?;
        let units = self.model.units(&part, &request.policy);
        let expected = match (done, units) {
            (Err(FoldError::ReserveTooSmall { .. }), Ok(_)) => {
                let is_enough = there.frames >= needed.frames
                    && there.tables >= needed.tables
                    && there.huge_leaves >= needed.huge_leaves;
                self.tally.too_small += 1;
                return match is_enough {
                    true => Err(format!("{there:?} is not enough, for {needed:?}")),
                    false => Ok(()),
                };
            }
            // As much as there was enough for.
            (Ok(done), Ok([small, large])) if small != large => {
                let end = done
                    .rest
                    .map_or(part.end, |rest| self.world.layout.pages_of(rest).start);
                let unit = if end < large.end.min(part.end) {
                    small
                } else {
                    large
                };
                self.follow_unit(request, &part, unit)
            }
            _ => self.follow(request, &part, 1),
        };
        let answer = match done {
            Ok(done) => (done.units, None),
            Err(error) => (0, Some(error.kind())),
        };
        if answer != (expected.units, expected.error) {
            return Err(format!("{done:?}, expected {expected:?}"));
        }
        self.changed(&before, &expected, false)
    }

    /// Has the model do up to `units` units of a change of `part`.
    pub(super) fn follow(
        &mut self,
        request: &Request<'w>,
        part: &Range<u64>,
        units: u64,
    ) -> Expected {
        let mut all = Expected {
            units: 0,
            end: part.start,
            error: None,
            candidates: Vec::new(),
        };
        while all.units < units && all.end < part.end && all.error.is_none() {
            let left = all.end..part.end;
            match self.model.units(&left, &request.policy) {
                Err(error) => all.error = Some(error),
                Ok([_, unit]) => {
                    let next = self.follow_unit(request, &left, unit);
                    all.units += next.units;
                    all.end = next.end.max(all.end);
                    all.error = next.error;
                    all.candidates.extend(next.candidates);
                }
            }
        }
        all
    }

    /// Has the model do `unit`.
    fn follow_unit(
        &mut self,
        request: &Request<'w>,
        part: &Range<u64>,
        unit: Range<u64>,
    ) -> Expected {
        let is_reserved = unit.start < request.reserved.end && request.reserved.start < unit.end;
        let error = match (is_reserved, self.model.is_ours(&unit)) {
            (true, _) => Some(ErrorKind::Overlap),
            (false, false) => Some(ErrorKind::NotOnline),
            (false, true) => None,
        };
        let mut done = Expected {
            units: 0,
            end: part.start,
            error,
            candidates: Vec::new(),
        };
        if error.is_none() {
            done.candidates = self.model.reorder(&unit, part, &request.policy);
            // The next unit may need the tails that nobody has any more.
            self.forget_tails();
            done.units = 1;
            done.end = unit.end;
        }
        done
    }

    /// Writes down in the model that huge leaves came back, and checks that nothing was lost.
    pub(super) fn changed(
        &mut self,
        before: &Costs,
        done: &Expected,
        has_blocks: bool,
    ) -> Result<(), String> {
        let huge = self.huge_among(done.candidates.clone(), !has_blocks)?;
        self.tally.joined += huge.len() as u64;
        self.tally.reordered += done.units;
        self.model.join(&huge);
        self.model.refresh();
        let after = self.model.costs();
        let of_ram = |costs: &Costs| costs.descriptors - costs.of_altmaps + costs.online_map;
        let all = self.model.reserve;
        self.model.reserve = Reserved {
            frames: all.frames + of_ram(before) - of_ram(&after),
            tables: all.tables + before.tables - after.tables,
        };
        match self.in_reserve() {
            found if found == self.model.reserve => Ok(()),
            found => {
                let pages = self.touched.clone();
                let wrong = pages
                    .into_iter()
                    .find_map(|page| self.check_page(page).err());
                Err(format!(
                    "{found:?} in reserve, not {:?}; {before:?}, {after:?}; {wrong:?}",
                    self.model.reserve
                ))
            }
        }
    }

    fn node_of(&self, request: &Request<'w>) -> NodeId {
        NodeId::new(request.policy.node)
    }

    /// How much `request` can take.
    fn needed(&self, request: &Request<'w>) -> Reserve {
        let part = self.world.layout.pages_of(request.frames);
        let whole = self.model.whole(&part).unwrap_or(part);
        let largest = Order::new(self.model.largest_order(&whole)).unwrap_or(Order::BASE);
        let (pagemap, frames) = (&request.pagemap, request.frames);
        self.vmemmap
            .reserve_needed(&self.table, pagemap, frames, largest)
    }

    /// Fills the reserve with what `request` can take, with single frames instead of blocks too if it
    /// `may_leave` some of it. Says whether there were blocks for huge leaves.
    pub(super) fn prepare(
        &mut self,
        request: &Request<'w>,
        may_leave: bool,
    ) -> Result<bool, String> {
        if self.model.reserve.frames > KEPT {
            self.empty_reserve()?;
        }
        let (mut needed, node) = (self.needed(request), self.node_of(request));
        // For the bits by which readers find it, if they have found nothing before.
        needed.frames += 1 - self.model.costs().online_map;
        if may_leave {
            needed.frames += needed.huge_leaves * self.frames_of_block();
        }
        let has_blocks = self.fill_reserve(node, needed)?;
        self.disarm();
        Ok(has_blocks)
    }

    fn fill_reserve(&mut self, node: NodeId, wanted: Reserve) -> Result<bool, String> {
        let before = self.vmemmap.reserve(node);
        let filled = self.attempt(Ok(()), FoldError::kind, |churn| {
            churn.vmemmap.fill_reserve(&mut churn.table, node, wanted)
        })?;
        let there = self.vmemmap.reserve(node);
        self.model.reserve = self.in_reserve();
        let single = wanted.huge_leaves.saturating_sub(there.huge_leaves);
        let has_tables = self.world.machine.facts().has_tables;
        let is_enough = there.frames >= wanted.frames + single * self.frames_of_block()
            && (there.tables >= wanted.tables + single || !has_tables)
            && there.frames >= before.frames;
        match (filled, is_enough) {
            (None, _) => Err("the reserve was not filled".into()),
            (Some(_), false) => Err(format!("{there:?} in reserve, not {wanted:?}")),
            (Some(_), true) => Ok(single == 0),
        }
    }

    /// Some more, or nothing any more.
    pub(super) fn reserve_act(&mut self) -> Result<(), String> {
        if self.rng.bool() {
            self.act = "empty the reserve".into();
            return self.empty_reserve();
        }
        let wanted = Reserve {
            frames: self.rng.u64(..24),
            tables: self.rng.u64(..4),
            huge_leaves: 0,
        };
        self.act = format!("fill the reserve: {wanted:?}");
        let node = NodeId::new(self.rng.u32(..2));
        self.fill_reserve(node, wanted).map(drop)
    }

    pub(super) fn empty_reserve(&mut self) -> Result<(), String> {
        self.vmemmap.empty_reserve(&mut self.table);
        self.model.reserve = Reserved::default();
        match self.in_reserve() {
            none if none == Reserved::default() => Ok(()),
            left => Err(format!("{left:?} is left in reserve")),
        }
    }

    fn frames_of_block(&self) -> u64 {
        let leaf = self.world.machine.facts().huge_leaf;
        leaf.map_or(0, Order::frames)
    }

    /// What is in reserve, of both nodes.
    fn in_reserve(&self) -> Reserved {
        let of_nodes = [0, 1].map(|node| self.vmemmap.reserve(NodeId::new(node)));
        let of_block = self.frames_of_block();
        Reserved {
            frames: of_nodes
                .iter()
                .map(|one| one.frames + one.huge_leaves * of_block)
                .sum(),
            tables: of_nodes.iter().map(|one| one.tables).sum(),
        }
    }

    /// See [`TestMachine::without_allocator`](crate::TestMachine::without_allocator).
    pub(super) fn without_allocator<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, String> {
        let machine = &self.world.machine;
        machine.without_allocator(|| work(self))
    }
}
