//! Regions and pieces that come online and go offline.

use super::model::{Cell, Policy};
use super::operations::Expected;
use super::{Churn, Live};
use mm_core::addr::PfnRange;
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::vmemmap::{OfflineError, OnlineError};
use std::ops::Range;

/// How many regions are online at most.
const REGIONS: usize = 12;

impl<'w, E: TailEncoding> Churn<'w, E> {
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
        let free = |page| self.model.cell(page) == Cell::Free;
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
        self.tally.packed += u64::from(self.model.packs(policy));
        Ok(())
    }

    pub(super) fn online(&mut self) -> Result<(), String> {
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
        let region = self.attempt(expected, OnlineError::kind, |churn| {
            churn.vmemmap.online(&mut churn.table, &pagemap)
        })?;
        let Some(region) = region else { return Ok(()) };
        for part in self.steps(&pages, &policy, piece) {
            self.entered(&part, &policy, 0, was_armed)?;
        }
        self.model.settle(&pages, &policy);
        self.tally.online += 1;
        self.regions.push(Live { region, policy });
        Ok(())
    }

    /// The steps in which `pages` come online: pieces, or compound pages that share their tails and are larger.
    pub(super) fn steps(
        &self,
        pages: &Range<u64>,
        policy: &Policy,
        piece: Piece,
    ) -> Vec<Range<u64>> {
        let piece = match piece {
            Piece::Range => return vec![pages.clone()],
            Piece::Section => self
                .world
                .layout
                .pages_of_order(self.world.layout.model.section()),
            Piece::Subsection => self.world.layout.subsection,
        };
        let unit = match self.model.tails_of(policy) {
            Tails::None => piece,
            _ => piece.max(self.model.pages_of(policy.order)),
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
        let parts = self.model.parts(&pages);
        let offlined = self
            .vmemmap
            .offline(&mut self.table, region)
            .map_err(|error| error.to_string())?;
        // Without a frame for a table, what reaches across an end stays.
        let goes = match offlined.kept {
            0 => pages.clone(),
            _ if parts && self.armed && self.world.machine.facts().has_tables => {
                self.model.apart(&pages, |page| self.is_one(page))
            }
            kept => return Err(format!("{kept} frames stay for no reason")),
        };
        let kept = (pages.end - pages.start) - (goes.end - goes.start);
        let kept = kept * self.world.layout.model.descriptors_per_page();
        if offlined.kept != kept {
            return Err(format!("{} frames stay, not {kept}", offlined.kept));
        }
        self.tally.split_offline += u64::from(parts && kept == 0);
        self.tally.kept += u64::from(kept > 0);
        match goes.is_empty() {
            true => Ok(()),
            false => self.went(&goes, offlined.marked),
        }
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

    /// Takes pieces offline that are no region's any more.
    pub(super) fn rest_offline(&mut self) -> Result<(), String> {
        self.clear(&(self.world.layout.device_pages()..self.world.layout.pages()))
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

    pub(super) fn populate(&mut self) -> Result<(), String> {
        let (pagemap, policy, frames) = self.target(
            |churn, _| churn.world.layout.subsection,
            |churn, pages, _| churn.free_or_online(pages).is_ok(),
        )?;
        self.populate_by(&pagemap, &policy, frames)
    }

    fn populate_by(
        &mut self,
        pagemap: &DevPagemap<'w>,
        policy: &Policy,
        frames: PfnRange,
    ) -> Result<(), String> {
        let pages = self.world.layout.pages_of(frames);
        self.act = format!("populate {pages:?} {policy:?}");
        self.touched = pages.clone();
        let was_armed = self.armed;
        let expected = self.free_or_online(&pages);
        let notes = self.attempt(expected, OnlineError::kind, |churn| {
            churn.vmemmap.populate(&mut churn.table, pagemap, frames)
        })?;
        if notes.is_some() {
            self.tally.populated += 1;
            self.entered(&pages, policy, 0, was_armed)?;
        }
        Ok(())
    }

    /// A compound page of whole leaf tables comes online with shared ones, or loses a part if it is
    /// online: which seldom happens by chance where tables are large.
    pub(super) fn shared_table_act(&mut self) -> Result<(), String> {
        let layout = self.world.layout;
        let [.., large] = layout.orders;
        let mut memories = self.world.large_memories.iter();
        let memory = memories.find(|memory| memory.order == large);
        let memory = memory.ok_or("no memory is a whole large page")?;
        let pages = layout.pages_of(memory.ranges[0]);
        if self.model.has_shared_table(&pages) {
            let part = self.part(memory, layout.subsection)?;
            return self.depopulate_by(&self.window_pagemap()?, part, Ok(()));
        }
        self.clear(&pages)?;
        let (policy, piece) = self.policy(memory);
        let policy = Policy {
            order: large.get(),
            tails: match policy.tails {
                Tails::None => Tails::PerCompound,
                shared => shared,
            },
            tables: Tables::Shared,
            ..policy
        };
        let pagemap = self.pagemap(memory, &policy, piece)?;
        self.populate_by(&pagemap, &policy, memory.ranges[0])
    }

    /// A region loses what it has of the last table that it reaches into, all that this table maps
    /// comes online by a huge leaf, and then the region goes: its neighbours have to stay.
    pub(super) fn gap_act(&mut self) -> Result<(), String> {
        let layout = self.world.layout;
        if self.regions.is_empty() || self.rng.u64(..layout.huge_leaves_of) > 0 {
            return self.populate();
        }
        let live = self
            .regions
            .swap_remove(self.rng.usize(..self.regions.len()));
        let pages = layout.pages_of(live.region.pagemap().ranges()[0]);
        let first = (pages.end - 1) / layout.table * layout.table;
        let span = first..first + layout.table;
        let mut memories = self.world.large_memories.iter();
        let memory = memories.find(|memory| layout.pages_of(memory.ranges[0]) == span);
        let memory = memory.ok_or("no memory is a whole table's")?;
        self.clear(&span)?;
        if self.free_or_online(&span).is_ok() {
            let policy = Policy {
                order: 0,
                tails: Tails::None,
                tables: Tables::Private,
                huge_leaves: true,
                node: self.rng.u32(..2),
                packed: false,
            };
            let pagemap = self.pagemap(memory, &policy, Piece::Range)?;
            self.populate_by(&pagemap, &policy, memory.ranges[0])?;
        }
        if self.rng.bool() {
            self.arm();
        }
        self.regions.push(live);
        self.region_offline(self.regions.len() - 1)
    }

    /// Whether all of `pages` are online, not too many of them.
    fn is_online(&self, pages: &Range<u64>) -> bool {
        pages.clone().all(|page| self.model.cell(page).is_ours())
    }

    pub(super) fn depopulate(&mut self) -> Result<(), String> {
        let (pagemap, _, frames) = self.target(
            |churn, _| churn.world.layout.subsection,
            |churn, pages, _| churn.is_online(pages),
        )?;
        match self.rng.u8(..4) {
            0 => self.freeze_and_depopulate(&pagemap, frames),
            _ => self.depopulate_by(&pagemap, frames, Ok(())),
        }
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
        let offlined = self.attempt(expected, OfflineError::kind, |churn| {
            churn.vmemmap.depopulate(&mut churn.table, pagemap, frames)
        })?;
        if let Some(offlined) = offlined {
            self.tally.split_offline += u64::from(parts);
            self.went(&pages, offlined.marked)?;
        }
        Ok(())
    }
}
