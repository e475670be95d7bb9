//! What all checks work with.
//!
//! - `memory`: which memory there is, and pagemaps of it;
//! - `operate`: what is done with it;
//! - `reorder`: the same for changes of order;
//! - `look`: what comes of that, as far as it can be seen from outside;
//! - `watched`: what is done beside readers;
//! - `faults`: doing it while memory runs out;
//! - `ram`: what a check allocates itself.

mod faults;
mod look;
mod memory;
mod operate;
mod ram;
mod records;
mod reorder;
mod watched;

pub(crate) use look::State;
pub(crate) use memory::part;
pub(crate) use reorder::Form;

use crate::harness::{AltmapUnderTest, Controls, Harness, Parts};
use crate::outcome::{Cause, Fault, Outcome, Stop, Verdict, equal, fail};
use core::cell::Cell;
use mm_core::addr::{NodeId, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Page, Pointer, TailEncoding};
use mm_core::frame::{DirectMap, FrameAllocator, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, DescriptorMismatch, Finding, Vmemmap};
use records::Records;

/// The vmemmap that checks work on.
type Subject<'h, H, E> =
    Vmemmap<Page<E>, &'h <H as Harness>::Frames, &'h <H as Harness>::DirectMap>;

/// A harness's parts, and a vmemmap made of them whose tails name their heads by `E`.
pub(crate) struct Bench<'h, H: Harness, E = Pointer> {
    pub(crate) model: MemoryModel,
    pub(crate) table: &'h mut H::Table,
    pub(crate) frames: &'h H::Frames,
    pub(crate) direct_map: &'h H::DirectMap,
    pub(crate) controls: &'h H::Controls,
    pub(crate) node: NodeId,
    pub(crate) altmap: Option<&'h dyn AltmapUnderTest>,
    pub(crate) ends_are_free: bool,
    /// For calls of the page table's that are not the vmemmap's.
    pub(crate) records: Records,
    pub(crate) vmemmap: Subject<'h, H, E>,
    device: PfnRange,
    scratch: &'h mut [AuditSlot],
    /// Why the check has failed, in the words of what was asked.
    cause: Cell<Option<Cause>>,
}

impl<'h, H: Harness, E: TailEncoding> Bench<'h, H, E> {
    pub(crate) fn new(parts: Parts<'h, H>) -> Result<Self, Fault> {
        let vmemmap = new_vmemmap(parts.model, parts.frames, parts.direct_map)?;
        Ok(Self {
            model: parts.model,
            table: parts.table,
            frames: parts.frames,
            direct_map: parts.direct_map,
            controls: parts.controls,
            node: parts.node,
            altmap: parts.altmap,
            ends_are_free: parts.ends_are_free,
            records: Records::default(),
            vmemmap,
            device: parts.device,
            scratch: parts.scratch,
            cause: Cell::new(None),
        })
    }

    /// Drops the vmemmap, whatever is online, and takes a new one.
    pub(crate) fn renew_vmemmap(&mut self) -> Verdict {
        let (model, frames, direct_map) = (self.model, self.frames, self.direct_map);
        // SAFETY: 1: as for the first one. 2: that is of the same type, and is dropped here. 3: what
        // had an altmap has gone offline.
        let vmemmap = unsafe { Vmemmap::adopt(model, frames, direct_map) }.map_err(mismatched);
        self.vmemmap = vmemmap.map_err(Stop::Failed)?;
        Ok(())
    }

    /// Runs `check`, and checks that it has left nothing behind.
    pub(crate) fn run(&mut self, check: fn(&mut Self) -> Verdict) -> Outcome {
        let verdict = self.audit().and_then(|before| {
            let outstanding = self.outstanding();
            let violations = self.controls.violations();
            let verdict = check(self);
            self.controls.fail_after(None);
            self.controls.fail_blocks(false);
            verdict?;
            equal(violations, self.controls.violations(), "no rule was broken")?;
            equal(outstanding, self.outstanding(), "every frame came back")?;
            let after = self.audit()?;
            equal(
                before.mapped_pages,
                after.mapped_pages,
                "nothing stays mapped",
            )?;
            if !H::Table::KEEPS_TABLES {
                equal(before.frames(), after.frames(), "no table stays behind")?;
            }
            Ok(())
        });
        Outcome::of(verdict, self.cause.take())
    }

    /// Fails with the error, if `result` is one.
    pub(crate) fn expect<T, R: Into<Cause>>(
        &self,
        result: Result<T, R>,
        what: &'static str,
    ) -> Result<T, Stop> {
        result.or_else(|error| self.fail_by(what, error))
    }

    /// Fails with the error, if `result` is one, for an address.
    pub(crate) fn expect_at<T, R: Into<Cause>>(
        &self,
        result: Result<T, R>,
        what: &'static str,
        at: VirtAddr,
    ) -> Result<T, Stop> {
        result.map_err(|error| {
            self.cause.set(Some(error.into()));
            Stop::Failed(Fault {
                what,
                at: Some(at),
                expected: 1,
                found: 0,
            })
        })
    }

    /// A failure, and what was said when it should not have been.
    pub(crate) fn fail_by<T>(
        &self,
        what: &'static str,
        cause: impl Into<Cause>,
    ) -> Result<T, Stop> {
        self.cause.set(Some(cause.into()));
        fail(what)
    }

    /// Frames that are out, of RAM and of the altmap; 0 where the allocator cannot tell.
    pub(crate) fn outstanding(&self) -> u64 {
        let altmap = self.altmap.and_then(|altmap| altmap.outstanding());
        self.frames.outstanding().unwrap_or(0) + altmap.unwrap_or(0)
    }

    /// Frames of RAM that are out, where the allocator can tell.
    pub(crate) fn frames_out(&self) -> Option<u64> {
        self.frames.outstanding()
    }

    /// Recounts.
    pub(crate) fn audit(&mut self) -> Result<AuditReport, Stop> {
        let ram: &dyn InspectFrames = self.frames;
        let audit = match self.altmap {
            Some(altmap) => {
                let both = [altmap.as_inspect(), ram];
                self.vmemmap.audit(&*self.table, &both, self.scratch)
            }
            None => self.vmemmap.audit(&*self.table, &[ram], self.scratch),
        };
        audit.map_err(|finding| {
            let (at, expected, found) = match finding {
                Finding::Count {
                    at,
                    entries,
                    references,
                    ..
                } => (Some(at), entries, references),
                Finding::Unknown { frame, at } => (Some(at), 1, frame.get()),
                Finding::Leaked {
                    outstanding,
                    reached,
                } => (None, reached, outstanding),
                _ => (None, 1, 0),
            };
            self.cause.set(Some(Cause::Audit(finding)));
            Stop::Failed(Fault {
                what: "an audit finds nothing wrong",
                at,
                expected,
                found,
            })
        })
    }

    /// Compares what is mapped with the closed formula, and the frames that are out with the frames
    /// that are mapped.
    pub(crate) fn costs(&mut self, descriptors: u64, pages: u64) -> Verdict {
        let report = self.audit()?;
        equal(descriptors, report.descriptor_frames, "descriptor frames")?;
        equal(pages, report.mapped_pages, "mapped pages")?;
        if self.frames.outstanding().is_some() {
            let all = report.allocated();
            equal(
                self.outstanding(),
                all,
                "every frame that is out is counted",
            )?;
        }
        Ok(())
    }

    /// How often CPUs were made to forget so far.
    pub(crate) fn flushes(&self) -> Option<u64> {
        self.controls.flushes(self.table)
    }

    /// How many references the allocators count for the block at `frame`.
    pub(crate) fn references(&self, frame: Pfn) -> Option<u64> {
        let altmap = self.altmap.and_then(|altmap| altmap.references(frame));
        altmap.or_else(|| self.frames.references(frame))
    }

    /// That the block at `frame` is free, as far as its allocator tells.
    pub(crate) fn is_free(&self, frame: Pfn, what: &'static str) -> Verdict {
        let of_altmap = self.altmap.and_then(|altmap| altmap.references(frame));
        let unless_shared = match of_altmap {
            None if !self.frames.tells_free_frames() => 1,
            _ => 0,
        };
        equal(unless_shared, self.references(frame).unwrap_or(0), what)
    }
}

/// A vmemmap of a harness's parts.
fn new_vmemmap<E: TailEncoding, A: FrameAllocator, M: DirectMap>(
    model: MemoryModel,
    frames: A,
    direct_map: M,
) -> Result<Vmemmap<Page<E>, A, M>, Fault> {
    // SAFETY: 1 to 4: the harness hands over the one page table, with its vmemmap free, and a
    // direct map for its frames; a bench has one vmemmap at a time.
    unsafe { Vmemmap::new(model, frames, direct_map) }.map_err(mismatched)
}

fn mismatched(mismatch: DescriptorMismatch) -> Fault {
    Fault {
        what: "the model's descriptors have the size of `Page`",
        at: None,
        expected: mismatch.descriptor as u64,
        found: mismatch.model,
    }
}
