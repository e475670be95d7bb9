//! RAM that nobody uses yet: in base pages at once, and in pages of 1 GiB of which a block becomes base pages when its
//! first frame is handed out.
//!
//! A line for each step, `lazy <frames> <instructions> <what>`. Frames are all that the vmemmap has then, tables
//! included, but for what is in reserve. That is filled before, where an allocator may allocate: what is counted is the
//! change alone, which allocates nothing.

use crate::cases::GIB;
use crate::clock::Clock;
use crate::machine::{Machine, on_machine};
use arch_x86_64::{Cpu, MODEL_4_LEVEL};
use experiment::{RangeList, Report};
use mm_core::addr::{Granule, NodeId, Order, PfnRange, PhysAddr};
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tables, Tails};
use mm_core::vmemmap::Region;

/// Where RAM starts, and how much there is.
const START: u64 = 64 * GIB;
const SIZE: u64 = 8 * GIB;

/// What becomes base pages at a time.
const BLOCK: u64 = 2 << 20;

/// Of which blocks frames are handed out, and what that is.
const HANDED_OUT: [(u64, &str); 3] = [
    (0, "its first frame is handed out"),
    (BLOCK, "one of the block beside it"),
    (GIB, "one of the next page of 1 GiB"),
];

/// Counts both ways.
pub fn count(cpu: Cpu, clock: Clock, ram: &RangeList, report: &mut Report<'_>) {
    let eager = on_machine(cpu, ram, |machine| {
        let mut lazy = Lazy::new(clock, machine, report);
        let region = lazy.online("base pages at once", Geometry::BASE_PAGES)?;
        lazy.offline(region)
    });
    report.check("RAM in base pages", eager);
    let lazy = on_machine(cpu, ram, |machine| {
        Lazy::new(clock, machine, report).as_it_is_used()
    });
    report.check("RAM as it is used", lazy);
}

/// RAM in the middle of it.
struct Lazy<'l, 'm, 'r> {
    clock: Clock,
    machine: Machine<'l, 'm>,
    report: &'l mut Report<'r>,
}

impl<'l, 'm, 'r> Lazy<'l, 'm, 'r> {
    fn new(clock: Clock, machine: Machine<'l, 'm>, report: &'l mut Report<'r>) -> Self {
        Self {
            clock,
            machine,
            report,
        }
    }

    fn as_it_is_used(&mut self) -> Result<(), &'static str> {
        let large = Geometry::from_bytes(GIB, Granule::Size4K).ok_or("there is no such page")?;
        let region = self.online("in pages of 1 GiB", large)?;
        for (at, what) in HANDED_OUT {
            let instructions = self.becomes_base_pages(at, large.order())?;
            self.line(what, instructions);
        }
        // What of the first page is left.
        let mut all = 0;
        for at in (0..GIB).step_by(BLOCK as usize).skip(2) {
            all += self.becomes_base_pages(at, large.order())?;
        }
        self.line("the rest of its page, block by block", all);
        let Machine { vmemmap, table, .. } = &mut self.machine;
        vmemmap.empty_reserve(*table);
        self.offline(region)
    }

    /// Brings all of it online in pages of `geometry`.
    fn online(&mut self, what: &str, geometry: Geometry) -> Result<Region<'static>, &'static str> {
        let pagemap = pagemap(geometry)?;
        let Machine { vmemmap, table, .. } = &mut self.machine;
        let (region, instructions) = self.clock.count(|| vmemmap.online(*table, &pagemap));
        let region = region.map_err(|_| "it does not come online")?;
        self.line(what, instructions);
        Ok(region)
    }

    fn offline(&mut self, region: Region<'_>) -> Result<(), &'static str> {
        let Machine { vmemmap, table, .. } = &mut self.machine;
        let done = vmemmap.offline(*table, region);
        done.map(drop).map_err(|_| "it does not go offline")
    }

    /// The block at `at` becomes base pages, and the rest of its page the largest pages that fit. Answers with the
    /// instructions of that.
    fn becomes_base_pages(&mut self, at: u64, largest: Order) -> Result<u64, &'static str> {
        let pagemap = pagemap(Geometry::BASE_PAGES)?;
        let block = range(START + at, BLOCK)?;
        let Machine {
            vmemmap,
            table,
            frames,
        } = &mut self.machine;
        let needed = vmemmap.reserve_needed(&**table, &pagemap, block, largest);
        let filled = vmemmap.fill_reserve(*table, NodeId::default(), needed);
        let _ = filled.map_err(|_| "there is too little for the reserve")?;
        let calls = frames.calls();
        let (done, instructions) = self
            .clock
            .count(|| vmemmap.reorder(*table, &pagemap, block));
        let _ = done.map_err(|_| "it does not become base pages")?;
        match frames.calls() == calls {
            true => Ok(instructions),
            false => Err("it has called the allocator"),
        }
    }

    fn line(&mut self, what: &str, instructions: u64) {
        let Machine {
            vmemmap, frames, ..
        } = &self.machine;
        let frames = frames.frames_out() - vmemmap.stats().reserve_frames;
        self.report
            .line(format_args!("lazy {frames} {instructions} {what}"));
    }
}

/// All RAM, in pages of `geometry`; what is left of a page shares what it can.
fn pagemap(geometry: Geometry) -> Result<DevPagemap<'static>, &'static str> {
    let all = DevPagemap::of_range(&MODEL_4_LEVEL, range(START, SIZE)?, geometry);
    let pagemap = all.map_err(|_| "there is no such pagemap")?;
    Ok(pagemap
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Range))
}

fn range(start: u64, bytes: u64) -> Result<PfnRange, &'static str> {
    let range = PfnRange::from_bytes(PhysAddr::new(start), bytes, Granule::Size4K);
    range.map_err(|_| "there is no such range")
}
