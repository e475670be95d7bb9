//! What is done in a world, what the model says to it, and whether that is what happens.

use super::model::{Misfit, Policy};
use super::world::Memory;
use super::{Churn, Live};
use crate::Power;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtRange};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::FoldError;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// How many regions are online at most.
const REGIONS: usize = 12;

/// How many vmemmap pages get frames of their own, except now and then.
const FEW: u64 = 96;

/// What an operation has to answer.
pub(super) type Expected = Result<(), ErrorKind>;

impl<'w, B: Power, E: TailEncoding> Churn<'w, B, E> {
    /// Does something.
    pub(super) fn act(&mut self) -> Result<(), String> {
        if self.rng.u8(..8) == 0 {
            self.arm();
        }
        let done = match self.rng.u8(..100) {
            0..=9 => self.online(),
            10..=17 => self.offline(),
            18..=33 => self.populate(),
            34..=48 => self.depopulate(),
            49..=57 => self.fold(),
            58..=65 => self.unfold(),
            66..=68 => self.reshape(),
            69..=75 => self.mark(),
            76..=79 => self.note(),
            80..=82 => self.wrong_arguments(),
            _ => self.device_act(),
        };
        self.disarm();
        done
    }

    /// Makes some of the next allocations fail.
    fn arm(&mut self) {
        let frames = self.world.machine.frames();
        self.armed = true;
        match self.rng.u8(..8) {
            0..=2 => frames.fail_after(self.rng.u64(..6)),
            3 | 4 => frames.fail_nth(self.rng.u64(..12)),
            5 => frames.fail_blocks(true),
            6 => frames.fill_node(NodeId::new(self.rng.u32(..2))),
            _ => {
                frames.fill_node(NodeId::new(0));
                frames.fill_node(NodeId::new(1));
            }
        }
    }

    pub(super) fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.world.machine.frames().no_more_faults();
        }
    }

    pub(super) fn addresses(&self) -> Result<VirtRange, String> {
        let window = self.world.layout.window()?;
        let addresses = self.world.layout.model.descriptors(window);
        addresses.ok_or_else(|| "the window is outside the model".into())
    }

    fn memory(&mut self) -> &'w Memory {
        let (large, small) = (&self.world.large_memories, &self.world.memories);
        match self.rng.u64(..self.world.layout.large_of) {
            0 => &large[self.rng.usize(..large.len())],
            _ => &small[self.rng.usize(..small.len())],
        }
    }

    /// A policy for `memory`, and how much is populated at a time.
    pub(super) fn policy(&mut self, memory: &Memory) -> (Policy, Piece) {
        let range = self.world.layout.pages_of(memory.ranges[0]);
        let few = range.end - range.start <= FEW;
        let spends = few || self.rng.u64(..self.world.layout.huge_leaves_of) == 0;
        let orders = self
            .world
            .layout
            .orders
            .map(|order| order.min(memory.order));
        let order = match self.rng.usize(..4) {
            0 if spends => Order::BASE,
            0 => memory.order,
            index => orders[index - 1],
        };
        let policy = Policy {
            order: order.get(),
            tails: match self.rng.u8(..8) {
                0 if spends => Tails::None,
                1..=3 if E::SAME_FOR_ALL => Tails::PerOrder,
                _ => Tails::PerCompound,
            },
            tables: match self.rng.u8(..4) {
                0 => Tables::Private,
                _ => Tables::Shared,
            },
            huge_leaves: self.rng.bool() || !few,
            node: self.rng.u32(..2),
        };
        let piece = match self.rng.u8(..3) {
            0 => Piece::Range,
            1 => Piece::Section,
            _ => Piece::Subsection,
        };
        (policy, piece)
    }

    /// What to do an operation with: mostly something of which `is_fit` says that it can be done.
    fn aim(
        &mut self,
        unit: impl Fn(&Self, &Policy) -> u64,
        is_fit: impl Fn(&Self, &Range<u64>, &Policy) -> bool,
    ) -> Result<(DevPagemap<'w>, Policy, PfnRange), String> {
        let tries = match self.rng.u8(..12) {
            0 => 1,
            _ => 12,
        };
        let mut tried = 0;
        loop {
            let memory = self.memory();
            let (policy, piece) = self.policy(memory);
            let unit = unit(self, &policy);
            let frames = self.part(memory, unit)?;
            tried += 1;
            let pages = self.world.layout.pages_of(frames);
            if tried >= tries || is_fit(self, &pages, &policy) {
                return Ok((self.pagemap(memory, &policy, piece)?, policy, frames));
            }
        }
    }

    /// Whether all of `pages` are online, not too many of them.
    fn is_online(&self, pages: &Range<u64>) -> bool {
        pages.clone().all(|page| self.model.cell(page).is_ours())
    }

    pub(super) fn pagemap(
        &self,
        memory: &'w Memory,
        policy: &Policy,
        piece: Piece,
    ) -> Result<DevPagemap<'w>, String> {
        let order = Order::new(policy.order).ok_or("no such order")?;
        let geometry = Geometry::compound(order);
        let pagemap = DevPagemap::new(&self.world.layout.model, &memory.ranges, geometry);
        let pagemap = pagemap.map_err(|error| error.to_string())?;
        Ok(pagemap
            .with_tails(policy.tails)
            .with_tables(policy.tables)
            .with_huge_leaves(policy.huge_leaves)
            .with_piece(piece)
            .with_node(NodeId::new(policy.node)))
    }

    /// Some of `memory`, in whole units of `pages` pages.
    pub(super) fn part(&mut self, memory: &Memory, pages: u64) -> Result<PfnRange, String> {
        let all = self.world.layout.pages_of(memory.ranges[0]);
        let units = (all.end - all.start) / pages;
        let skip = self.rng.u64(..units);
        let (skip, count) = match self.rng.u8(..8) {
            0 => (0, units),
            1 => (skip, units - skip),
            _ => (skip, self.rng.u64(1..=(units - skip).min(4))),
        };
        self.world
            .layout
            .frames(all.start + skip * pages, count * pages)
    }

    /// Compares an answer with what it has to be. What may have lacked memory has to have changed
    /// nothing, and is `None`.
    pub(super) fn judge<T>(
        &mut self,
        answer: Result<T, ErrorKind>,
        expected: Expected,
    ) -> Result<Option<T>, String> {
        match (answer, expected) {
            (Ok(value), Ok(())) => Ok(Some(value)),
            (Err(kind), Err(right)) if kind == right => {
                self.tally.refused += 1;
                Ok(None)
            }
            (Err(ErrorKind::OutOfFrames), Ok(())) if self.armed => {
                self.disarm();
                self.tally.undone += 1;
                self.check_counts()
                    .map_err(|error| format!("after a failure: {error}"))?;
                for page in [self.touched.start, self.touched.end - 1] {
                    self.check_page(page)
                        .map_err(|error| format!("after a failure: {error}"))?;
                }
                Ok(None)
            }
            (answer, expected) => Err(format!(
                "the answer is {:?}, expected {expected:?}",
                answer.map(drop)
            )),
        }
    }

    /// Does `operation`, a second time if it lacked memory the first time.
    pub(super) fn attempt<T, X: Fn(&X2) -> ErrorKind, X2>(
        &mut self,
        expected: Expected,
        kind: X,
        mut operation: impl FnMut(&mut Self) -> Result<T, X2>,
    ) -> Result<Option<T>, String> {
        let was_armed = self.armed;
        let answer = operation(self).map_err(|error| kind(&error));
        match self.judge(answer, expected)? {
            None if expected.is_ok() && was_armed => {
                let answer = operation(self).map_err(|error| kind(&error));
                self.judge(answer, expected)
            }
            done => Ok(done),
        }
    }

    /// CPUs cache what is at both ends of `pages`, and beyond.
    pub(super) fn speculate(&self, pages: &Range<u64>) {
        let last = self.world.layout.pages();
        for middle in [pages.start, pages.end - 1] {
            let (from, to) = (middle.saturating_sub(2), (middle + 3).min(last));
            let frames = self.world.layout.frames(from, to - from);
            let range = frames.map(|frames| self.world.layout.model.descriptors(frames));
            if let Ok(Some(range)) = range {
                B::fill(&self.world.machine, range);
            }
        }
    }

    /// Which of the spans at `candidates` have huge leaves now. Without a reason all of them do.
    pub(super) fn huge_among(
        &self,
        candidates: Vec<u64>,
        was_armed: bool,
    ) -> Result<Vec<u64>, String> {
        let all = candidates.len();
        let huge: Vec<u64> = candidates
            .into_iter()
            .filter(|page| self.is_huge(*page))
            .collect();
        match huge.len() == all || was_armed {
            true => Ok(huge),
            false => Err(format!("{} of {all} huge leaves", huge.len())),
        }
    }

    fn free_or_online(&self, pages: &Range<u64>) -> Expected {
        let free = |page| self.model.cell(page) == super::model::Cell::Free;
        match pages.clone().all(free) {
            true => Ok(()),
            false => Err(ErrorKind::AlreadyOnline),
        }
    }

    /// Writes down in the model what came online.
    pub(super) fn entered(
        &mut self,
        pages: &Range<u64>,
        policy: &Policy,
        base_until: u64,
        was_armed: bool,
    ) -> Result<(), String> {
        let huge = self.huge_among(self.model.huge_spans(pages, policy), was_armed)?;
        self.tally.huge += u64::from(!huge.is_empty());
        self.model.enter(pages, policy, base_until, &huge);
        self.tally.shared_tables += u64::from(self.model.has_shared_table(pages));
        self.tally.per_order += u64::from(self.model.tails_of(policy) == Tails::PerOrder);
        Ok(())
    }

    fn online(&mut self) -> Result<(), String> {
        if self.regions.len() >= REGIONS {
            return self.offline();
        }
        let memory = self.memory();
        let (policy, piece) = self.policy(memory);
        let pages = self.world.layout.pages_of(memory.ranges[0]);
        if self.free_or_online(&pages).is_err() && self.rng.u8(..8) > 0 {
            self.clear(&pages)?;
        }
        self.act = format!("online {pages:?} {policy:?} {piece:?}");
        self.touched = pages.clone();
        let pagemap = self.pagemap(memory, &policy, piece)?;
        let was_armed = self.armed;
        let expected = self.free_or_online(&pages);
        let region = self.attempt(
            expected,
            |error: &mm_core::vmemmap::OnlineError| error.kind(),
            |churn| churn.vmemmap.online(&mut churn.table, &pagemap),
        )?;
        let Some(region) = region else { return Ok(()) };
        for part in self.pieces(&pages, piece) {
            self.entered(&part, &policy, 0, was_armed)?;
        }
        self.model.settle(&pages, &policy);
        self.tally.online += 1;
        self.regions.push(Live { region, policy });
        Ok(())
    }

    /// The pieces that `pages` are populated in.
    pub(super) fn pieces(&self, pages: &Range<u64>, piece: Piece) -> Vec<Range<u64>> {
        let unit = match piece {
            Piece::Range => return vec![pages.clone()],
            Piece::Section => self
                .world
                .layout
                .pages_of_order(self.world.layout.model.section()),
            Piece::Subsection => self.world.layout.subsection,
        };
        let mut pieces = Vec::new();
        let mut start = pages.start;
        while start < pages.end {
            let end = ((start / unit + 1) * unit).min(pages.end);
            pieces.push(start..end);
            start = end;
        }
        pieces
    }

    pub(super) fn offline(&mut self) -> Result<(), String> {
        if self.regions.is_empty() {
            return Ok(());
        }
        let index = self.rng.usize(..self.regions.len());
        self.region_offline(index)
    }

    fn region_offline(&mut self, index: usize) -> Result<(), String> {
        let Live { region, policy } = self.regions.swap_remove(index);
        let pages = self.world.layout.pages_of(region.pagemap().ranges()[0]);
        self.act = format!("offline {pages:?} {policy:?}");
        self.speculate(&pages);
        let offlined = self.vmemmap.offline(&mut self.table, region);
        self.went(&pages, offlined.marked)
    }

    /// Takes offline whatever is online in `pages`: regions that meet them, and pieces.
    fn clear(&mut self, pages: &Range<u64>) -> Result<(), String> {
        let meets = |churn: &Self, live: &Live<'w>| {
            let other = churn
                .world
                .layout
                .pages_of(live.region.pagemap().ranges()[0]);
            other.start < pages.end && pages.start < other.end
        };
        while let Some(index) = self.regions.iter().position(|live| meets(self, live)) {
            self.region_offline(index)?;
        }
        let pagemap = self.window_pagemap()?;
        let mut first = pages.start;
        while first < pages.end {
            let mut rest = first..pages.end;
            let run = rest.find(|page| !self.model.cell(*page).is_ours());
            let end = run.unwrap_or(pages.end);
            if end > first {
                let frames = self.world.layout.frames(first, end - first)?;
                self.depopulate_by(&pagemap, frames, Ok(()))?;
            }
            first = end.max(first + 1);
        }
        Ok(())
    }

    /// A pagemap of the window, to take anything offline by.
    fn window_pagemap(&self) -> Result<DevPagemap<'w>, String> {
        let (model, window) = (&self.world.layout.model, &self.world.window);
        let pagemap = DevPagemap::new(model, window, Geometry::BASE_PAGES);
        pagemap.map_err(|error| error.to_string())
    }

    /// Writes down in the model that `pages` went offline, with so many marks.
    pub(super) fn went(&mut self, pages: &Range<u64>, marked: u64) -> Result<(), String> {
        self.touched = pages.clone();
        self.tally.offline += 1;
        let right = self.model.remove(pages);
        self.forget_tails();
        match marked == right {
            true => Ok(()),
            false => Err(format!("{marked} marks went offline, not {right}")),
        }
    }

    fn populate(&mut self) -> Result<(), String> {
        let (pagemap, policy, frames) = self.aim(
            |churn, _| churn.world.layout.subsection,
            |churn, pages, _| churn.free_or_online(pages).is_ok(),
        )?;
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("populate {pages:?} {policy:?}");
        self.touched = pages.clone();
        let was_armed = self.armed;
        let expected = self.free_or_online(&pages);
        let notes = self.attempt(
            expected,
            |error: &mm_core::vmemmap::OnlineError| error.kind(),
            |churn| churn.vmemmap.populate(&mut churn.table, &pagemap, frames),
        )?;
        if notes.is_some() {
            self.tally.populated += 1;
            self.entered(&pages, &policy, 0, was_armed)?;
        }
        Ok(())
    }

    fn depopulate(&mut self) -> Result<(), String> {
        let (pagemap, _, frames) = self.aim(
            |churn, _| churn.world.layout.subsection,
            |churn, pages, _| churn.is_online(pages),
        )?;
        self.depopulate_by(&pagemap, frames, Ok(()))
    }

    /// Takes `frames` offline, for which `expected` is the answer if they are online.
    pub(super) fn depopulate_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        frames: PfnRange,
        expected: Expected,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("depopulate {pages:?}");
        self.touched = pages.clone();
        let expected = match pages.clone().all(|page| self.model.cell(page).is_ours()) {
            true => expected,
            false => Err(ErrorKind::NotOnline),
        };
        let parts = self.model.parts(&pages);
        if !parts && expected.is_ok() {
            self.disarm();
        }
        self.speculate(&pages);
        let offlined = self.attempt(
            expected,
            |error: &mm_core::vmemmap::OfflineError| error.kind(),
            |churn| churn.vmemmap.depopulate(&mut churn.table, pagemap, frames),
        )?;
        if let Some(offlined) = offlined {
            self.tally.parted += u64::from(parts);
            self.went(&pages, offlined.marked)?;
        }
        Ok(())
    }

    fn fold(&mut self) -> Result<(), String> {
        let unfolded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            let survey = churn.model.survey(pages, policy.order);
            survey.is_ok_and(|(_, unfolded)| unfolded > 0)
                && churn.model.tails_of(policy) != Tails::None
        };
        let (pagemap, policy, frames) = self.aim(Self::unit, unfolded)?;
        self.fold_by(&pagemap, &policy, frames)
    }

    /// How many pages are folded together at least.
    pub(super) fn unit(&self, policy: &Policy) -> u64 {
        Order::new(policy.order).map_or(1, |order| self.world.layout.pages_of_order(order))
    }

    fn surveyed(&self, pages: &Range<u64>, policy: &Policy) -> (Expected, u64, u64) {
        match self.model.survey(pages, policy.order) {
            Ok((folded, unfolded)) => (Ok(()), folded, unfolded),
            Err(Misfit::NotOnline) => (Err(ErrorKind::NotOnline), 0, 0),
            Err(Misfit::OtherTails) => (Err(ErrorKind::Overlap), 0, 0),
        }
    }

    pub(super) fn fold_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        policy: &Policy,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("fold {pages:?} {policy:?}");
        self.touched = pages.clone();
        let (mut expected, folded, unfolded) = self.surveyed(&pages, policy);
        if self.model.tails_of(policy) == Tails::None {
            expected = Err(ErrorKind::Unsupported);
        }
        self.speculate(&pages);
        let done = self.attempt(expected, FoldError::kind, |churn| {
            churn.vmemmap.fold(&mut churn.table, pagemap, frames)
        })?;
        let Some(done) = done else { return Ok(()) };
        if (done.changed, done.unchanged) != (unfolded, folded) {
            return Err(format!("{done:?} instead of {unfolded} and {folded}"));
        }
        self.tally.folded += unfolded;
        self.model.fold(&pages, policy);
        Ok(())
    }

    fn unfold(&mut self) -> Result<(), String> {
        let most = match self.rng.u64(..self.world.layout.huge_leaves_of) {
            0 => 2 * self.world.layout.table,
            _ => FEW,
        };
        let folded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            let survey = churn.model.survey(pages, policy.order);
            pages.end - pages.start <= most && survey.is_ok_and(|(folded, _)| folded > 0)
        };
        let (pagemap, policy, frames) = self.aim(Self::unit, folded)?;
        let pages = self.world.layout.pages_of(frames);
        // What is unfolded gets frames of its own.
        if pages.end - pages.start > most {
            return Ok(());
        }
        self.unfold_by(&pagemap, &policy, frames)
    }

    pub(super) fn unfold_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        policy: &Policy,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("unfold {pages:?} {policy:?}");
        self.touched = pages.clone();
        let was_armed = self.armed;
        let (expected, folded, unfolded) = self.surveyed(&pages, policy);
        self.speculate(&pages);
        let done = self.attempt(expected, FoldError::kind, |churn| {
            churn.vmemmap.unfold(&mut churn.table, pagemap, frames)
        })?;
        let Some(done) = done else { return Ok(()) };
        if (done.changed, done.unchanged) != (folded, unfolded) {
            return Err(format!("{done:?} instead of {folded} and {unfolded}"));
        }
        let huge = self.huge_among(self.model.joins(&pages, policy), was_armed)?;
        self.tally.unfolded += folded;
        self.tally.joined += huge.len() as u64;
        self.model.unfold(&pages, &huge);
        Ok(())
    }

    fn reshape(&mut self) -> Result<(), String> {
        let unfolded = |churn: &Self, pages: &Range<u64>, policy: &Policy| {
            pages.end - pages.start <= FEW
                && matches!(churn.model.survey(pages, policy.order), Ok((0, _)))
        };
        let (pagemap, policy, frames) = self.aim(Self::unit, unfolded)?;
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("reshape {pages:?} {policy:?}");
        self.touched = pages.clone();
        let expected = match self.surveyed(&pages, &policy) {
            (Ok(()), 0, _) if !self.model.has_tails_behind(&pages) => Ok(()),
            (Ok(()), ..) => Err(ErrorKind::Overlap),
            (refused, ..) => refused,
        };
        let answer = self.vmemmap.reshape(&self.table, &pagemap, frames);
        if self
            .judge(answer.map_err(|error| error.kind()), expected)?
            .is_some()
        {
            self.tally.reshaped += 1;
            self.model.reshape(&pages, policy.order);
        }
        Ok(())
    }

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

    fn mark(&mut self) -> Result<(), String> {
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
        let new = self.attempt(
            expected,
            |error: &mm_core::vmemmap::MarkError| error.kind(),
            |churn| churn.vmemmap.mark(&churn.table, frame, node),
        )?;
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
    fn note(&mut self) -> Result<(), String> {
        let page = self.world.layout.page_of(self.any_frame());
        let note = self.rng.u64(1..);
        self.act = format!("write {note:#x} to page {page}");
        self.touched = page..page + 1;
        if matches!(self.model.cell(page), super::model::Cell::Own { .. }) {
            let frame = self.world.layout.frame_of(page);
            let descriptor = self.vmemmap.descriptor(&self.table, frame);
            let descriptor = descriptor.ok_or("there is no descriptor")?;
            descriptor.flags().store(note, Ordering::Relaxed);
            self.model.notes.insert(page, note);
        }
        Ok(())
    }

    fn wrong_arguments(&mut self) -> Result<(), String> {
        let memory = self.memory();
        let (policy, piece) = self.policy(memory);
        let pagemap = self.pagemap(memory, &policy, piece)?;
        let [range] = memory.ranges;
        self.touched = self.world.layout.pages_of(range);
        self.act = format!("wrong arguments for {:?} {policy:?}", self.touched);
        let odd = range.take_first(range.frames() - 1).0;
        let beyond = PfnRange::new(
            range.start(),
            range.frames() + self.world.layout.model.subsection().frames(),
        );
        let beyond = beyond.map_err(|error| error.to_string())?;
        let (vmemmap, table) = (&mut self.vmemmap, &mut self.table);
        let answers = [
            vmemmap
                .populate(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .populate(table, &pagemap, beyond)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .depopulate(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .depopulate(table, &pagemap, beyond)
                .map(drop)
                .map_err(|error| error.kind()),
            vmemmap
                .unfold(table, &pagemap, odd)
                .map(drop)
                .map_err(|error| error.kind()),
        ];
        let kinds = [
            ErrorKind::Misaligned,
            ErrorKind::OutOfRange,
            ErrorKind::Misaligned,
            ErrorKind::OutOfRange,
            ErrorKind::Misaligned,
        ];
        for (answer, kind) in answers.into_iter().zip(kinds) {
            self.judge(answer, Err(kind))?;
        }
        Ok(())
    }

    /// Takes pieces offline that are no region's any more.
    pub(super) fn rest_offline(&mut self) -> Result<(), String> {
        self.clear(&(self.world.layout.device_pages()..self.world.layout.pages()))
    }
}
