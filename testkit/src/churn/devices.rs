//! Devices whose descriptors are in frames of their own.

use super::model::Policy;
use super::reorder::Request;
use super::{Churn, Live};
use mm_core::descriptor::TailEncoding;
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::pagemap::{DevPagemap, Piece};
use mm_core::vmemmap::OnlineError;

impl<'w, E: TailEncoding> Churn<'w, E> {
    /// Does something with a device.
    pub(super) fn device_act(&mut self) -> Result<(), String> {
        let device = self.rng.usize(..self.world.devices.len());
        let memory = &self.world.devices[device];
        let pages = self.world.layout.pages_of(memory.ranges[0]);
        let any_online = pages.clone().any(|page| self.model.cell(page).is_ours());
        match (any_online, self.rng.u8(..16)) {
            (false, _) | (true, 0) => self.device_online(device),
            (true, 1..=3) => self.device_offline(device),
            (true, 4..=8) => self.device_piece(device),
            (true, 9..=10) => self.device_fold(device, true),
            (true, 11..=12) => self.device_fold(device, false),
            (true, _) => self.device_reorder(device),
        }
    }

    /// A pagemap with the device's altmap.
    fn device_pagemap(&mut self, device: usize) -> Result<(DevPagemap<'w>, Policy, Piece), String> {
        let memory = &self.world.devices[device];
        let (policy, piece) = self.policy(memory);
        // Blocks would break up so small an altmap.
        let policy = Policy {
            huge_leaves: false,
            order: match policy.order {
                0 => 0,
                _ => self.world.layout.orders[0].get(),
            },
            ..policy
        };
        let pagemap = self.pagemap(memory, &policy, piece)?;
        let pagemap = pagemap.with_altmap(&self.altmaps[device]);
        let pagemap = pagemap.map_err(|error| error.to_string())?;
        Ok((pagemap, policy, piece))
    }

    /// How many of a device's pages are base pages, from the first one of the window on.
    fn base_until(&self, device: usize, policy: &Policy) -> u64 {
        let reserved = self.world.layout.pages_of(self.altmaps[device].reserved());
        reserved.start + (reserved.end - reserved.start).next_multiple_of(self.unit(policy))
    }

    fn device_online(&mut self, device: usize) -> Result<(), String> {
        let (pagemap, policy, piece) = self.device_pagemap(device)?;
        let pages = self.world.layout.pages_of(pagemap.ranges()[0]);
        self.act = format!("device online {pages:?} {policy:?} {piece:?}");
        self.touched = pages.clone();
        let any_online = pages.clone().any(|page| self.model.cell(page).is_ours());
        let expected = match any_online {
            true => Err(ErrorKind::AlreadyOnline),
            false => Ok(()),
        };
        let was_armed = self.armed;
        let region = self.attempt(expected, OnlineError::kind, |churn| {
            churn.vmemmap.online(&mut churn.table, &pagemap)
        })?;
        let Some(region) = region else { return Ok(()) };
        let base_until = self.base_until(device, &policy);
        for part in self.steps(&pages, &policy, piece) {
            self.entered(&part, &policy, base_until, was_armed)?;
        }
        self.model.settle(&pages, &policy);
        self.tally.online += 1;
        self.tally.altmap += 1;
        self.device_regions[device] = Some(Live { region, policy });
        Ok(())
    }

    fn device_offline(&mut self, device: usize) -> Result<(), String> {
        let Some(Live { region, policy }) = self.device_regions[device].take() else {
            return Ok(());
        };
        let pages = self.world.layout.pages_of(region.pagemap().ranges()[0]);
        self.act = format!("device offline {pages:?} {policy:?}");
        self.speculate(&pages);
        let offlined = self
            .vmemmap
            .offline(&mut self.table, region)
            .map_err(|error| error.to_string())?;
        self.went(&pages, offlined.marked)
    }

    /// Takes a piece of a device offline, or brings one online.
    fn device_piece(&mut self, device: usize) -> Result<(), String> {
        let (pagemap, policy, _) = self.device_pagemap(device)?;
        let memory = &self.world.devices[device];
        let frames = self.part(memory, self.world.layout.subsection)?;
        let pages = self.world.layout.pages_of(frames);
        if pages.clone().all(|page| self.model.cell(page).is_ours()) {
            self.depopulate_by(&pagemap, frames, Ok(()))?;
            let mut all = self.world.layout.pages_of(memory.ranges[0]);
            if !all.any(|page| self.model.cell(page).is_ours()) {
                // Nothing is left of the region.
                if let Some(live) = self.device_regions[device].take() {
                    self.vmemmap
                        .offline(&mut self.table, live.region)
                        .map_err(|error| error.to_string())?;
                }
            }
            return Ok(());
        }
        self.act = format!("device populate {pages:?} {policy:?}");
        self.touched = pages.clone();
        let free = |page| self.model.cell(page) == super::model::Cell::Free;
        let expected = match pages.clone().all(free) {
            true => Ok(()),
            false => Err(ErrorKind::AlreadyOnline),
        };
        let was_armed = self.armed;
        let populated = self.attempt(expected, OnlineError::kind, |churn| {
            churn.vmemmap.populate(&mut churn.table, &pagemap, frames)
        })?;
        if populated.is_some() {
            self.tally.populated += 1;
            self.tally.altmap += 1;
            let base_until = self.base_until(device, &policy);
            self.entered(&pages, &policy, base_until, was_armed)?;
        }
        Ok(())
    }

    fn device_fold(&mut self, device: usize, fold: bool) -> Result<(), String> {
        let (pagemap, policy, _) = self.device_pagemap(device)?;
        let memory = &self.world.devices[device];
        let unit = self.unit(&policy);
        let frames = self.part(memory, unit)?;
        let pages = self.world.layout.pages_of(frames);
        let reserved = self.world.layout.pages_of(self.altmaps[device].reserved());
        if pages.start >= reserved.end {
            return match fold {
                true => self.fold_by(&pagemap, &policy, frames),
                false => self.unfold_by(&pagemap, &policy, frames),
            };
        }
        self.act = format!("fold what is reserved, {pages:?} {policy:?}");
        self.touched = pages;
        let answer = self.vmemmap.unfold(&mut self.table, &pagemap, frames);
        let answer = answer.map(drop).map_err(|error| error.kind());
        self.judge(answer, Err(ErrorKind::Overlap)).map(drop)
    }

    pub(super) fn devices_offline(&mut self) -> Result<(), String> {
        for device in 0..self.world.devices.len() {
            self.device_offline(device)?;
        }
        Ok(())
    }

    fn device_reorder(&mut self, device: usize) -> Result<(), String> {
        let (pagemap, policy, _) = self.device_pagemap(device)?;
        let memory = &self.world.devices[device];
        let frames = self.part(memory, self.unit(&policy))?;
        let reserved = self.altmaps[device].reserved();
        let [range] = memory.ranges;
        self.change_order(&Request {
            pagemap,
            policy,
            frames,
            range,
            reserved: self.world.layout.pages_of(reserved),
        })
    }
}
