//! The oracle: the same algorithm on a page table without tables, in memory of its own.

use super::readers::ScriptReaders;
use super::replay::Replay;
use super::trace::Taken;
use crate::TestMachine;
use arch_sim::{FlatTable, SimMemory};
use hosted::BackendFacts;
use mm_core::addr::{NodeId, Pfn, PfnRange};
use mm_core::descriptor::{Page, TailEncoding};
use mm_core::frame::{FrameAllocator, InspectFrames};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use std::collections::VecDeque;

/// The node of altmaps.
pub(super) const ALTMAP_NODE: NodeId = NodeId::new(0);

/// What the oracle borrows.
pub(super) struct OracleParts {
    pub(super) memory: SimMemory,
    pub(super) frames: Replay,
    nodes: Vec<(PfnRange, NodeId)>,
    page: u64,
}

impl OracleParts {
    /// Memory like that of `machine`.
    pub(super) fn new(machine: &TestMachine) -> Result<Self, String> {
        let chunks: Vec<PfnRange> = machine.memory().chunks().collect();
        let node_of = |range: &PfnRange| match machine.frames().references(range.start()) {
            Some(_) => machine.frames().node_of(range.start()),
            None => ALTMAP_NODE,
        };
        let nodes: Vec<_> = chunks
            .iter()
            .map(|range| (*range, node_of(range)))
            .collect();
        let memory = SimMemory::new(machine.model().granule(), &chunks)
            .map_err(|error| error.to_string())?;
        let page = machine.model().granule().bytes();
        let frames = Replay::new(nodes.clone(), PfnRange::single(Pfn::MAX), page);
        Ok(Self {
            memory,
            frames,
            nodes,
            page,
        })
    }

    /// An altmap over `reserved`.
    pub(super) fn altmap(&self, reserved: PfnRange) -> Replay {
        Replay::new(self.nodes.clone(), reserved, self.page)
    }
}

/// The oracle itself.
pub(super) struct Oracle<'s, E: TailEncoding, R> {
    pub(super) table: FlatTable,
    pub(super) vmemmap: Vmemmap<Page<E>, &'s Replay, &'s SimMemory, R>,
    pub(super) parts: &'s OracleParts,
}

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Oracle<'s, E, R> {
    pub(super) fn new(
        facts: &BackendFacts,
        parts: &'s OracleParts,
        readers: R,
    ) -> Result<Self, String> {
        // SAFETY: 1 to 3: the oracle's own, and nobody else's.
        let vmemmap = unsafe { readers.vmemmap(facts.model, &parts.frames, &parts.memory) };
        Ok(Self {
            table: FlatTable::new(facts.model.granule(), facts.huge_leaf),
            vmemmap: vmemmap?,
            parts,
        })
    }

    /// Will hand out what the machine has.
    pub(super) fn expect(&self, frames: VecDeque<Taken>) {
        self.parts.frames.expect(frames);
    }

    /// Whether all of that was asked for.
    pub(super) fn complaints(&self) -> Result<(), String> {
        match self.parts.frames.complaints().first() {
            Some(first) => Err(first.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn audit(
        &self,
        altmaps: &[&dyn InspectFrames],
        scratch: &mut [AuditSlot],
    ) -> Result<AuditReport, String> {
        let mut allocators = altmaps.to_vec();
        allocators.push(&self.parts.frames);
        self.vmemmap
            .audit(&self.table, &allocators, scratch)
            .map_err(|finding| format!("oracle: {finding}"))
    }
}
