//! Recounting on a simulated machine, and remembering what was found.

use crate::need::Need;
use crate::report::CLEAN;
use crate::simulation::{MachineVmemmap, Simulation};
use hosted::{AnyMachine, AnyTable};
use mm_core::addr::PfnRange;
use mm_core::frame::InspectFrames;
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;

/// The most slots that an audit gets: 64 MiB.
const MAX_AUDIT_SLOTS: u64 = 1 << 21;

/// Recounts, and remembers what was found.
pub struct Auditor<'m> {
    machine: &'m dyn AnyMachine,
    model: MemoryModel,
    allocators: Vec<&'m dyn InspectFrames>,
    scratch: Vec<AuditSlot>,
    findings: Vec<String>,
}

impl fmt::Debug for Auditor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditor")
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

/// All that an operation that fails must leave as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What an audit has counted; `None` where it has found something, which is remembered.
    pub counted: Option<AuditReport>,
    /// Frames of RAM and the altmap that are out.
    outstanding: u64,
    /// What is mapped where, in brief.
    entries: u64,
}

impl<'m> Auditor<'m> {
    /// Recounts what the machine and the altmap of `simulation` have out.
    pub fn new(simulation: &'m Simulation, need: &Need) -> Self {
        let machine = &*simulation.machine;
        let mut allocators: Vec<&dyn InspectFrames> = vec![machine.frames()];
        if let Some(altmap) = &simulation.altmap {
            allocators.push(altmap);
        }
        // A hash table with room to spare.
        let slots = (need.descriptor_frames + need.tables) / 4 * 5 + 64;
        let slots = slots.min(MAX_AUDIT_SLOTS) as usize;
        Self {
            machine,
            model: simulation.facts.model,
            allocators,
            scratch: vec![AuditSlot::default(); slots],
            findings: Vec::new(),
        }
    }

    /// Frames of RAM and the altmap that are out.
    pub fn outstanding(&self) -> u64 {
        self.allocators
            .iter()
            .filter_map(|one| one.outstanding())
            .sum()
    }

    /// Counts all that is mapped.
    pub fn count(
        &mut self,
        vmemmap: &MachineVmemmap<'_>,
        table: &AnyTable<'_>,
        when: &str,
    ) -> Option<AuditReport> {
        vmemmap
            .audit(table, &self.allocators, &mut self.scratch)
            .map_err(|finding| self.findings.push(format!("{when}: {finding}")))
            .ok()
    }

    /// Counts where nothing may be left.
    pub fn expect_nothing(
        &mut self,
        vmemmap: &MachineVmemmap<'_>,
        table: &AnyTable<'_>,
        when: &str,
    ) {
        if let Some(counted) = self.count(vmemmap, table, when)
            && counted != AuditReport::default()
        {
            let frames = counted.frames();
            self.findings
                .push(format!("{when}: {frames} frames are still mapped"));
        }
    }

    /// Counts, and remembers what is mapped where in the descriptors of `ranges`.
    pub fn look(
        &mut self,
        vmemmap: &MachineVmemmap<'_>,
        table: &AnyTable<'_>,
        ranges: &[PfnRange],
        when: &str,
    ) -> Snapshot {
        let mut entries = DefaultHasher::new();
        for range in ranges
            .iter()
            .filter_map(|range| self.model.descriptors(*range))
        {
            let _ = table.visit(range, &mut |visit| {
                format!("{visit:?}").hash(&mut entries);
                ControlFlow::Continue(())
            });
        }
        Snapshot {
            counted: self.count(vmemmap, table, when),
            outstanding: self.outstanding(),
            entries: entries.finish(),
        }
    }

    /// Remembers it if `before` and `after` an operation that has failed differ.
    pub fn expect_as_before(&mut self, before: &Snapshot, after: &Snapshot, when: &str) {
        if before != after {
            self.findings.push(format!(
                "{when}: not as before, {} frames are out instead of {}",
                after.outstanding, before.outstanding
            ));
        }
    }

    /// Remembers `what` else was found `when`.
    pub fn add(&mut self, when: &str, what: impl fmt::Display) {
        self.findings.push(format!("{when}: {what}"));
    }

    /// All that was found, and what the machine has complained of.
    pub fn result(&self) -> String {
        let complaints = self.machine.violations().to_string();
        let lines = self.findings.iter().map(String::as_str);
        let all: Vec<&str> = lines.chain(complaints.lines()).collect();
        if all.is_empty() {
            CLEAN.to_owned()
        } else {
            all.join("; ")
        }
    }
}
