//! The reserve: filled, all of it or nothing, and given back.

use super::attempt::Attempt;
use super::interpreter::Interpreter;
use super::model::{Expected, Reserved};
use super::online::check_notes;
use super::oracle::Oracle;
use super::readers::ScriptReaders;
use mm_core::addr::NodeId;
use mm_core::descriptor::TailEncoding;
use mm_core::vmemmap::{FoldError, Reserve};

/// Both nodes.
const NODES: [NodeId; 2] = [NodeId::new(0), NodeId::new(1)];

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Fills the reserve of `node`.
    pub(super) fn fill(&mut self, node: NodeId, wanted: Reserve) -> Result<(), String> {
        let before = NODES.map(|node| self.vmemmap.reserve(node));
        let first = self.model.all_pages().start;
        let attempt = Attempt {
            pages: first..first + 1,
            expected: Expected::Done,
            needs_ram: true,
            altmap: None,
        };
        let undone = self.tally.undone;
        let notes = self.attempt(&attempt, |this: &mut Self| {
            this.start_trace(None);
            this.vmemmap.fill_reserve(&mut this.table, node, wanted)
        })?;
        self.tally.fill_undone += self.tally.undone - undone;
        let trace = self.end_trace(None);
        let theirs = self
            .oracle
            .as_mut()
            .map(|Oracle { vmemmap, table, .. }| vmemmap.fill_reserve(table, node, wanted));
        self.same::<_, FoldError>(notes.is_some(), theirs)?;
        let notes = notes.ok_or("the reserve was not filled")?;
        let leaf = self.parts.machine.facts().huge_leaf;
        let granted = trace.blocks(leaf).filter(|granted| *granted).count() as u64;
        for (index, before) in NODES.into_iter().zip(before) {
            let mut right = before;
            if index == node {
                right.huge_leaves += granted;
                let missing = match leaf {
                    Some(_) => wanted.huge_leaves.saturating_sub(right.huge_leaves),
                    None => 0,
                };
                check_notes(&notes, missing, self.remote(&trace, node.number(), &(0..0)))?;
                right.frames = before
                    .frames
                    .max(wanted.frames + missing * self.frames_of_block());
                if self.parts.machine.facts().has_tables {
                    right.tables = before.tables.max(wanted.tables + missing);
                }
            }
            let found = self.vmemmap.reserve(index);
            if found != right {
                return Err(format!(
                    "{found:?} in reserve of node {index}, not {right:?}"
                ));
            }
        }
        self.model.reserve = self.in_reserve();
        self.tally.filled += 1;
        Ok(())
    }

    /// Gives all of the reserve back.
    pub(super) fn empty_reserve(&mut self) -> Result<(), String> {
        self.vmemmap.empty_reserve(&mut self.table);
        if let Some(Oracle { vmemmap, table, .. }) = &mut self.oracle {
            vmemmap.empty_reserve(table);
        }
        self.model.reserve = Reserved::default();
        self.check_reserve()
    }

    /// Compares what is in reserve with what should be.
    pub(super) fn check_reserve(&self) -> Result<(), String> {
        match self.in_reserve() {
            found if found == self.model.reserve => Ok(()),
            found => Err(format!(
                "{found:?} in reserve, not {:?}",
                self.model.reserve
            )),
        }
    }

    /// What is in reserve, of both nodes.
    fn in_reserve(&self) -> Reserved {
        let of_nodes = NODES.map(|node| self.vmemmap.reserve(node));
        let of_block = self.frames_of_block();
        let frames = |one: &Reserve| one.frames + one.huge_leaves * of_block;
        Reserved {
            frames: of_nodes.iter().map(frames).sum(),
            tables: of_nodes.iter().map(|one| one.tables).sum(),
        }
    }

    /// How many blocks for huge leaves there are.
    pub(super) fn blocks_in_reserve(&self) -> u64 {
        let of_nodes = NODES.map(|node| self.vmemmap.reserve(node));
        of_nodes.iter().map(|one| one.huge_leaves).sum()
    }

    fn frames_of_block(&self) -> u64 {
        let leaf = self.parts.machine.facts().huge_leaf;
        leaf.map_or(0, |order| order.frames())
    }
}
