//! What all of it costs.

use super::{Key, Model, Span};
use std::collections::BTreeSet;

/// What an operation costs and saves in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::churn) struct Costs {
    pub(in crate::churn) descriptors: u64,
    pub(in crate::churn) tails: u64,
    pub(in crate::churn) of_altmaps: u64,
    pub(in crate::churn) tables: u64,
    pub(in crate::churn) marks: u64,
    pub(in crate::churn) online_map: u64,
    pub(in crate::churn) reserve: u64,
    pub(in crate::churn) reused: u64,
}

impl Model {
    /// What all of it costs now.
    pub(in crate::churn) fn costs(&self) -> Costs {
        let tails = self.tails.len() as u64;
        let of_devices = |key: &Key| match key {
            Key::Compound(_, head) => *head < self.layout.device_pages(),
            Key::Order(..) | Key::Stubs(..) => false,
        };
        let tails_of_devices = self.tails.keys().filter(|key| of_devices(key)).count() as u64;
        let bits = self.layout.model.granule().shift() + 2;
        let blocks: BTreeSet<u64> = self.marks.iter().map(|frame| frame >> bits).collect();
        Costs {
            descriptors: self.own + tails + self.heads.frames(),
            tails,
            of_altmaps: self.own_of_devices + tails_of_devices,
            tables: self.tables(),
            marks: blocks.len() as u64,
            online_map: self.found.map_frames(),
            reserve: self.reserve.frames + self.reserve.tables,
            reused: self.mapped - self.own - tails - self.heads.frames(),
        }
    }

    /// How many tables this library has made.
    fn tables(&self) -> u64 {
        if !self.has_tables {
            return 0;
        }
        let mut shared: Vec<Key> = Vec::new();
        let mut leaf_tables = 0;
        let mut any = false;
        let mut foreign = false;
        for (span, ours) in self.spans.iter().zip(&self.ours) {
            match span {
                Span::Shared(key) => shared.push(*key),
                Span::Huge => any = true,
                Span::Foreign => foreign = true,
                Span::Private => leaf_tables += u64::from(*ours > 0),
            }
        }
        shared.sort_unstable();
        shared.dedup();
        leaf_tables += shared.len() as u64;
        // All of the window is below one table of each level, which somebody else has made where
        // they have made any.
        let levels = self.upper_levels();
        leaf_tables
            + if (any || leaf_tables > 0) && !foreign {
                levels
            } else {
                0
            }
            + self.tables_of_heads(any || leaf_tables > 0 || foreign)
    }

    /// Levels between the root and the leaf tables.
    fn upper_levels(&self) -> u64 {
        self.layout.upper_levels
    }
}
