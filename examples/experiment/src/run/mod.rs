//! The experiment: memory online, looked at, offline, looked at again, in every way that there is.
//!
//! What is done:
//!
//! - `cases`: RAM online, then each geometry and policy of a device beside it;
//! - `folding`: memory that is in use folded and unfolded; `marks`: single frames of it marked;
//! - `device_frames`: descriptors in the device's own memory;
//! - `side_by_side`: regions of several geometries and policies with shared borders;
//! - `packed`: heads in an array of their own, and what is in the vmemmap then;
//! - `lazy`: RAM in large pages, which become base pages when frames are handed out;
//! - `battery`: the conformance battery, on the same table and frames.
//!
//! How it is looked at:
//!
//! - `pages`: every vmemmap page of a range, by loads and stores through the MMU;
//! - `sharing`: who sees what is written to one frame; `contents`: what a kernel keeps of its own;
//! - `parts`: part of a range offline while the rest is in use;
//! - `refusal`: memory that runs out half-way;
//! - `ledger`: what is in use;
//! - `table`: the rows that are printed;
//! - `problem`: what can turn out otherwise.

mod battery;
mod cases;
mod contents;
mod device_frames;
mod folding;
mod lazy;
mod marks;
mod packed;
mod pages;
mod parts;
mod problem;
mod refusal;
mod sharing;
mod side_by_side;
mod table;
mod usage;

pub(crate) use table::Ending;

use crate::{FrameInfo, Frames, Machine, MemoryMap, Probe, Report};
use core::fmt;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::TailEncoding;
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::paging::PageTable;
use mm_core::readers::OnlineEntry;
use mm_core::vmemmap::{AuditSlot, Vmemmap};

/// What the experiment is made with.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// What memory there is.
    pub map: &'s MemoryMap,
    /// The device's, in one range. All of it can be accessed.
    pub device: PfnRange,
    /// The orders of compound pages that are tried.
    pub compound: &'s [Order],
    /// A new root of an online map, for the battery alone.
    pub online_root: &'s [OnlineEntry],
}

/// Page tables, frames, and what is needed to look at a vmemmap from outside.
pub struct Experiment<'m, P, T, M> {
    on: Machine<'m, P, M>,
    table: T,
    scratch: &'m mut [AuditSlot],
}

impl<P, T, M> fmt::Debug for Experiment<'_, P, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("model", &self.on.model)
            .field("shape", &self.on.shape)
            .finish_non_exhaustive()
    }
}

/// A kernel's vmemmap, with descriptors whose tails name their heads by `E`, and what is needed to
/// look at it.
struct Session<'s, E, P, T, M> {
    on: Machine<'s, P, M>,
    table: &'s mut T,
    vmemmap: Vmemmap<FrameInfo<E>, &'s Frames<'s>, &'s M>,
    /// Where frames come from besides RAM.
    altmap: Option<&'s dyn InspectFrames>,
    scratch: &'s mut [AuditSlot],
}

impl<'m, P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'m, P, T, M> {
    /// Puts the parts together.
    ///
    /// # Safety
    ///
    /// 1. The CPU that the machine's probe uses translates by `table`, which is in the format and
    ///    of the shape that its `raw_tables` reads.
    /// 2. The vmemmap of its model is empty, and free for this value alone.
    /// 3. Its direct map reaches all frames of its allocator and all memory of devices, `table`
    ///    takes its tables from that allocator, and nobody else takes any.
    pub unsafe fn new(on: Machine<'m, P, M>, table: T, scratch: &'m mut [AuditSlot]) -> Self {
        Self { on, table, scratch }
    }

    /// Everything but the battery.
    pub fn run(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        self.run_cases(subject, report);
        self.run_folds(subject, report);
        self.run_altmaps(subject, report);
        self.run_side_by_side(subject, report);
        self.run_packed(subject, report);
        self.run_lazily(subject, report);
    }

    /// A vmemmap with nothing online, with `altmap` to look into.
    fn session<'s, E: TailEncoding>(
        &'s mut self,
        altmap: Option<&'s dyn InspectFrames>,
        report: &mut Report<'_>,
    ) -> Option<Session<'s, E, P, T, M>> {
        // SAFETY: 1: duty 2 of `new`; there is one at a time, which leaves nothing. 2: duty 3. 3:
        // there is one table here.
        let vmemmap = unsafe { Vmemmap::new(self.on.model, self.on.frames, self.on.direct_map) };
        match vmemmap {
            Ok(vmemmap) => Some(Session {
                on: self.on,
                table: &mut self.table,
                vmemmap,
                altmap,
                scratch: self.scratch,
            }),
            Err(error) => {
                report.check("model", Err(error));
                None
            }
        }
    }
}
