//! What an operation is done with: memory, a part of it, and a policy.

use super::Churn;
use super::model::Policy;
use super::world::Memory;
use mm_core::addr::{NodeId, Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Piece, Tables, Tails};
use std::ops::Range;

/// How many vmemmap pages get frames of their own, except now and then.
pub(super) const FEW: u64 = 96;

impl<'w, E: TailEncoding> Churn<'w, E> {
    pub(super) fn memory(&mut self) -> &'w Memory {
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
            packed: false,
        };
        let [_, medium, _] = self.world.layout.orders;
        let policy = match policy.tails {
            // One kind of tails that all pages of an order share, in each world.
            Tails::PerOrder if self.packs => Policy {
                node: 0,
                packed: true,
                ..policy
            },
            // As many tails of orders are known without a frame for that.
            Tails::PerOrder if order > medium => Policy { node: 0, ..policy },
            _ => policy,
        };
        let piece = match self.rng.u8(..3) {
            0 => Piece::Range,
            1 => Piece::Section,
            _ => Piece::Subsection,
        };
        (policy, piece)
    }

    /// What to do an operation with: mostly something of which `is_fit` says that it can be done.
    pub(super) fn target(
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
            .with_heads(match policy.packed {
                true => Heads::Packed,
                false => Heads::InPlace,
            })
            .with_tables(policy.tables)
            .with_huge_leaves(policy.huge_leaves)
            .with_piece(piece)
            .with_node(NodeId::new(policy.node)))
    }

    /// A pagemap of the window, to take anything offline by.
    pub(super) fn window_pagemap(&self) -> Result<DevPagemap<'w>, String> {
        let (model, window) = (&self.world.layout.model, &self.world.window);
        let pagemap = DevPagemap::new(model, window, Geometry::BASE_PAGES);
        pagemap.map_err(|error| error.to_string())
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

    /// How many pages are folded together at least.
    pub(super) fn unit(&self, policy: &Policy) -> u64 {
        Order::new(policy.order).map_or(1, |order| self.world.layout.pages_of_order(order))
    }
}
