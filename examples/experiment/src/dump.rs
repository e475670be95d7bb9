//! A kernel that has itself dumped: memory online with each policy, described, and said page by page; then it waits.
//!
//! ```text
//!   RAM and regions online ▶ frames marked ▶ a page with the description ▶ what each page is, printed ▶ wait ▶ all offline
//! ```
//!
//! What it prints is for whoever reads the dump, to be compared, a line for alike pages that follow each other:
//!
//! | line | has |
//! |---|---|
//! | `dump: pages START SIZE COUNT HEADS TAILS` | bytes, bytes, how many; heads and tails as `explorer inspect` names them, `-` for base pages |
//! | `dump: frames DESCRIPTORS LEAF UPPER` | frames with descriptors, leaf tables, tables above |
//! | `dump: marked COUNT` | marked frames |
//! | `dump: note` | nothing: the description will be in a note of the dump, too |
//! | `dump: ready` | nothing: from now on the kernel waits for a byte of input |

use crate::note::{DescriptionPage, TellDevice};
use crate::run::Ending;
use crate::{FrameInfo, Frames, MemoryMap, Report};
use core::fmt;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::Mask;
use mm_core::frame::{DirectMap, FrameAllocator, Released};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, PagemapError, Piece, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{
    AuditSlot, Finding, ListedPage, OfflineError, OnlineError, Region, TreeDescription, Vmemmap,
};

/// What is online beside RAM: which of the compound orders, tails, tables, heads.
const POLICIES: [(usize, Tails, Tables, Heads); 9] = [
    (0, Tails::None, Tables::Private, Heads::InPlace),
    (0, Tails::PerCompound, Tables::Private, Heads::InPlace),
    (0, Tails::PerOrder, Tables::Private, Heads::InPlace),
    (0, Tails::PerOrder, Tables::Private, Heads::Packed),
    (1, Tails::PerCompound, Tables::Private, Heads::InPlace),
    (1, Tails::PerCompound, Tables::Shared, Heads::InPlace),
    (1, Tails::PerOrder, Tables::Private, Heads::InPlace),
    (1, Tails::PerOrder, Tables::Shared, Heads::InPlace),
    (1, Tails::PerOrder, Tables::Shared, Heads::Packed),
];

/// How many pages each has, if they are small and if they are large.
const PAGES: [u64; 2] = [4, 2];

/// A vmemmap of the part.
type Described<'m, M> = Vmemmap<FrameInfo<Mask>, &'m Frames<'m>, &'m M>;

/// What is needed for it.
pub struct DumpPart<'m, M> {
    /// Where descriptors lie.
    pub model: MemoryModel,
    /// What memory there is.
    pub map: &'m MemoryMap,
    /// The allocator.
    pub frames: &'m Frames<'m>,
    /// The direct map.
    pub direct_map: &'m M,
    /// How the tables are read.
    pub tree: TreeDescription,
    /// The machine's emulator.
    pub emulator: Emulator<'m>,
}

/// What reaches the emulator.
#[derive(Clone, Copy)]
pub struct Emulator<'m> {
    /// Waits for a byte of input.
    pub wait: &'m dyn Fn(),
    /// Reaches its configuration device.
    pub tell: TellDevice,
}

impl fmt::Debug for Emulator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for DumpPart<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpPart")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// What went wrong.
enum Wrong {
    Pagemap(PagemapError),
    Online(OnlineError),
    Offline(OfflineError),
    Audit(Finding),
    NoRoom,
    Left { frames: u64 },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pagemap(error) => error.fmt(f),
            Self::Online(error) => error.fmt(f),
            Self::Offline(error) => error.fmt(f),
            Self::Audit(finding) => finding.fmt(f),
            Self::NoRoom => f.write_str("no memory, or no addresses, for what is to be dumped"),
            Self::Left { frames } => write!(f, "{frames} frames are not back"),
        }
    }
}

impl<M: DirectMap + Sync> DumpPart<'_, M> {
    /// Does all of it on `table`, with regions in pages of each of `compound` behind `device`.
    ///
    /// # Safety
    ///
    /// 1. The CPU translates by `table`, and the vmemmap of the model is empty, and free for this.
    /// 2. The direct map reaches all frames of the allocator, and `table` takes its tables from that.
    pub unsafe fn run<T: PageTable>(
        &self,
        table: &mut T,
        scratch: &mut [AuditSlot],
        (device, compound): (PfnRange, [Order; 2]),
        report: &mut Report<'_>,
    ) {
        let before = self.free();
        // SAFETY: 1: duty 1. 2: duty 2. 3: there is one table. 4: nothing is online.
        let vmemmap = unsafe { Vmemmap::new(self.model, self.frames, self.direct_map) };
        match vmemmap {
            Ok(mut vmemmap) => {
                let done =
                    self.with_all_online(&mut vmemmap, table, scratch, (device, compound), report);
                report.check("memory for a dump", done);
            }
            Err(error) => report.check("model", Err(error)),
        }
        let left = before.saturating_sub(self.free());
        let back = if left == 0 {
            Ok(())
        } else {
            Err(Wrong::Left { frames: left })
        };
        report.check("all frames are back", back);
        let _ = Ending::of(report);
    }

    fn free(&self) -> u64 {
        self.frames.allocator().allocator().free_frames()
    }

    fn with_all_online<T: PageTable>(
        &self,
        vmemmap: &mut Described<'_, M>,
        table: &mut T,
        scratch: &mut [AuditSlot],
        (device, compound): (PfnRange, [Order; 2]),
        report: &mut Report<'_>,
    ) -> Result<(), Wrong> {
        let described = self.map.described(self.model.subsection());
        let ram = DevPagemap::new(&self.model, described.as_slice(), Geometry::BASE_PAGES);
        let ram = ram.map_err(Wrong::Pagemap)?.with_piece(Piece::Range);
        let ram = vmemmap.online(table, &ram).map_err(Wrong::Online)?;
        let ranges = ranges(device, compound).ok_or(Wrong::NoRoom)?;
        let mut regions: [Option<Region<'_>>; POLICIES.len()] = [const { None }; POLICIES.len()];
        for ((range, region), (size, tails, tables, heads)) in
            ranges.iter().zip(&mut regions).zip(POLICIES)
        {
            let order = compound.get(size).copied().unwrap_or(Order::BASE);
            let range = core::slice::from_ref(range);
            let pagemap = DevPagemap::new(&self.model, range, Geometry::compound(order));
            let pagemap = pagemap.map_err(Wrong::Pagemap)?;
            let pagemap = pagemap
                .with_tails(tails)
                .with_tables(tables)
                .with_heads(heads);
            let pagemap = pagemap.with_huge_leaves(false);
            *region = Some(vmemmap.online(table, &pagemap).map_err(Wrong::Online)?);
        }
        let marked = self.mark(vmemmap, table, &ranges);
        self.say(vmemmap, table, scratch, marked, report)?;
        self.dumped(vmemmap, report)?;
        for range in &ranges {
            for frame in marks_of(*range) {
                vmemmap.unmark(frame);
            }
        }
        for region in regions.into_iter().flatten().chain([ram]) {
            vmemmap.offline(table, region).map_err(Wrong::Offline)?;
        }
        Ok(())
    }

    /// Marks some frames of each region; how many.
    fn mark<T: PageTable>(
        &self,
        vmemmap: &mut Described<'_, M>,
        table: &T,
        ranges: &[PfnRange],
    ) -> u64 {
        let frames = ranges.iter().flat_map(|range| marks_of(*range));
        let marked = frames.filter(|frame| vmemmap.mark(table, *frame, NodeId::new(0)) == Ok(true));
        marked.count() as u64
    }

    /// Prints what each page is, and what all of them take.
    fn say<T: PageTable>(
        &self,
        vmemmap: &Described<'_, M>,
        table: &T,
        scratch: &mut [AuditSlot],
        marked: u64,
        report: &mut Report<'_>,
    ) -> Result<(), Wrong> {
        let mut run: Option<(ListedPage, u64)> = None;
        for page in vmemmap.pages(table, self.model.all_frames()) {
            match &mut run {
                Some((first, count)) if follows(first, *count, &page) => *count += 1,
                _ => {
                    if let Some(run) = run.replace((page, 1)) {
                        self.say_pages(run, report);
                    }
                }
            }
        }
        if let Some(run) = run {
            self.say_pages(run, report);
        }
        let counted = vmemmap
            .audit(table, &[self.frames], scratch)
            .map_err(Wrong::Audit)?;
        report.line(format_args!(
            "dump: frames {} {} {}",
            counted.descriptor_frames, counted.leaf_tables, counted.upper_tables
        ));
        report.line(format_args!("dump: marked {marked}"));
        Ok(())
    }

    fn say_pages(&self, (page, count): (ListedPage, u64), report: &mut Report<'_>) {
        let shift = self.model.granule().shift();
        let heads = match (page.order, page.heads) {
            (Order::BASE, _) => "-",
            (_, Heads::Packed) => "packed",
            _ => "in-place",
        };
        let tails = match page.tails {
            Tails::PerCompound => "per-compound",
            Tails::PerOrder => "per-order",
            _ => "none",
        };
        report.line(format_args!(
            "dump: pages {} {} {count} {heads} {tails}",
            page.first.get() << shift,
            page.order.frames() << shift
        ));
    }

    /// Puts the description into a page of its own and into a note, and waits.
    fn dumped(&self, vmemmap: &Described<'_, M>, report: &mut Report<'_>) -> Result<(), Wrong> {
        let frame = self.frames.allocate(Order::BASE, NodeId::new(0));
        let frame = frame.map_err(|_| Wrong::NoRoom)?;
        let at = frame.first().base(self.model.granule());
        let pointer = self.direct_map.frame_pointer(frame.first());
        // SAFETY: 1: the frame is this function's, which the direct map reaches.
        let mut page = unsafe { DescriptionPage::new(at, pointer, self.emulator.tell) };
        if page.write(vmemmap.describe(&self.tree)) {
            report.line(format_args!("dump: note"));
        }
        report.line(format_args!("dump: ready"));
        (self.emulator.wait)();
        report.line(format_args!("dump: over"));
        // The next one who reads memory is not to find it.
        page.erase();
        // SAFETY: the reference that `allocate` gave.
        if let Released::Last(block) = unsafe { self.frames.release(frame, 1) } {
            // SAFETY: 1: `release` gave it.
            unsafe { self.frames.free(block) };
        }
        Ok(())
    }
}

/// Whether `page` is alike and follows `count` pages from `first` on.
fn follows(first: &ListedPage, count: u64, page: &ListedPage) -> bool {
    let next = first.first.get() + count * first.order.frames();
    let what = |page: &ListedPage| (page.order, page.heads, page.tails);
    page.first.get() == next && what(first) == what(page)
}

/// Memory for each policy, behind `device`: what lies there is only described.
fn ranges(device: PfnRange, [small, large]: [Order; 2]) -> Option<[PfnRange; POLICIES.len()]> {
    let [few, two] = PAGES;
    let slot = (two * large.frames())
        .max(few * small.frames())
        .checked_next_power_of_two()?;
    let first = (device.last().get() + 1).checked_next_multiple_of(slot)?;
    let mut ranges = [device; POLICIES.len()];
    for ((index, range), (size, ..)) in (0..).zip(&mut ranges).zip(POLICIES) {
        // Apart from each other, by what no policy has.
        let start = Pfn::new(first + 2 * index * slot)?;
        let frames = if size == 0 {
            few * small.frames()
        } else {
            two * large.frames()
        };
        *range = PfnRange::new(start, frames).ok()?;
    }
    Some(ranges)
}

/// Frames that are marked: the first, one that shares its descriptor where any does, and the last.
fn marks_of(range: PfnRange) -> [Pfn; 3] {
    [
        range.start(),
        range.start().saturating_add(range.frames() / 2 + 3),
        range.last(),
    ]
}
