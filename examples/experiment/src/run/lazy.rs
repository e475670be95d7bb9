//! RAM that nobody uses yet: online in large pages, which become smaller ones when frames of them are
//! handed out, beside RAM online in base pages at once.
//!
//! ```text
//!   base pages at once   online
//!   as it is used        online in large pages ▶ the allocator hands out a frame ▶ its block becomes base pages,
//!                        by the reserve, and the rest of its page the largest that fit
//! ```

use super::problem::{Problem, equal};
use super::{Experiment, Session, Subject};
use crate::case::{Size, whole_blocks, with_tails_per_compound};
use crate::{Case, Cost, FrameInfo, Probe, Report, ram_case};
use mm_core::addr::{Block, NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::frame::{DirectMap, PlainAllocator};
use mm_core::pagemap::{DevPagemap, Geometry, Tables, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::Region;

/// Of what orders frames are handed out: single ones, and one block.
const HANDED_OUT: usize = 4;

/// RAM, the pages that it comes online in, and what of it becomes base pages at a time.
#[derive(Clone, Copy)]
struct Ram {
    eager: Case,
    lazy: Case,
    block: Order,
}

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// Brings as much of RAM online as is whole pages of the largest order that fits: in both ways, one
    /// after the other.
    pub(super) fn run_lazily(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        let Some(ram) = self.ram_in_large_pages(subject) else {
            return report.skip(
                format_args!("RAM as it is used"),
                format_args!("there is no whole compound page of RAM"),
            );
        };
        if let Some(mut session) = self.session::<Mask>(None, report) {
            session.run_lazily(&ram, report);
            let _ = report.end_row();
        }
    }

    fn ram_in_large_pages(&self, subject: &Subject<'_>) -> Option<Ram> {
        let (model, shape) = (self.on.model, self.on.shape);
        let described = subject.map.described(model.subsection());
        let pages = |order: Order| {
            let ranges = described.as_slice().iter();
            let mut whole = ranges.filter_map(|range| whole_blocks(*range, order));
            whole.next().map(|range| (order, range))
        };
        let fitting = subject.compound.iter().filter_map(|order| pages(*order));
        let (order, range) = fitting.max_by_key(|(order, _)| *order)?;
        let eager = ram_case(&model, &shape, range);
        let lazy = Case {
            order,
            page_bytes: order.bytes(model.granule())?,
            tails: Tails::PerOrder,
            ..with_tails_per_compound(eager)
        };
        let shared = Case {
            tables: Tables::Shared,
            ..lazy
        };
        Some(Ram {
            eager,
            lazy: match shared.shares_tables(&model, &shape) {
                true => shared,
                false => lazy,
            },
            block: subject.compound.iter().copied().min()?,
        })
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    fn run_lazily(&mut self, ram: &Ram, report: &mut Report<'_>) {
        let before = self.usage(report);
        let granule = self.on.model.granule();
        let (start, size) = self.mebibytes(ram.lazy.range);
        let block = ram.block.bytes(granule).unwrap_or(0);
        report.line(format_args!(
            "RAM as it is used, {start}+{size} MiB, in blocks of {}:  frames      ticks",
            Size(block)
        ));
        if let Some((region, frames)) = self.timed_online(&ram.eager, "base pages at once", report)
        {
            self.goes_offline(region, report);
            self.check_unchanged("all frames are back", before, report);
            if let Some((region, _)) = self.timed_online(&ram.lazy, "large pages", report) {
                self.hand_frames_out(ram, frames, report);
                self.vmemmap.empty_reserve(self.table);
                self.goes_offline(region, report);
            }
        }
        self.check_unchanged("all frames are back", before, report);
    }

    /// Brings `case` online, and prints what that takes. Says how many frames it has.
    fn timed_online(
        &mut self,
        case: &Case,
        name: &str,
        report: &mut Report<'_>,
    ) -> Option<(Region<'static>, u64)> {
        let model = self.on.model;
        let before = self.usage(report);
        // One range, which the region need not name.
        let geometry = Geometry::compound(case.order);
        let pagemap = DevPagemap::of_range(&model, case.range, geometry);
        let pagemap = match pagemap {
            Ok(pagemap) => pagemap.with_piece(case.piece).with_tables(case.tables),
            Err(error) => {
                report.check("pagemap", Err(Problem::Pagemap(error)));
                return None;
            }
        };
        let pagemap = match case.order {
            Order::BASE => pagemap,
            _ => pagemap.with_tails(case.tails),
        };
        let start = self.on.probe.ticks();
        let region = self.vmemmap.online(self.table, &pagemap);
        let took = self.ticks_since(start);
        let region = match region {
            Ok(region) => region,
            Err(error) => {
                report.check("online", Err(Problem::Online(error)));
                return None;
            }
        };
        let expected = Cost::of(case, &[], &model, &self.on.shape);
        let used = self.check_cost(expected, before, report)?;
        self.lazy_row(name, used.ram_frames(), took, report);
        Some((region, used.ram_frames()))
    }

    fn goes_offline(&mut self, region: Region<'_>, report: &mut Report<'_>) {
        let offlined = self.vmemmap.offline(self.table, region);
        report.check("offline", offlined.map(drop).map_err(Problem::Offline));
    }

    /// Hands frames out, and prints what that takes; `most` frames are those of base pages at once.
    fn hand_frames_out(&mut self, ram: &Ram, most: u64, report: &mut Report<'_>) {
        let frames = self.on.frames;
        let allocator = frames.allocator();
        let mut handed_out: [Option<Block>; HANDED_OUT] = [None; HANDED_OUT];
        for (index, slot) in handed_out.iter_mut().enumerate() {
            // Blocks in between, so that frames of several are handed out.
            let order = match index % 2 {
                0 => Order::BASE,
                _ => ram.block,
            };
            let Some(block) = allocator.allocate(order, NodeId::new(0)) else {
                continue;
            };
            *slot = Some(block);
            let in_ram = ram.lazy.range.contains_range(block.frames());
            if !in_ram {
                continue;
            }
            let outcome = self.becomes_base_pages(ram, block.frames().start());
            let took = *outcome.as_ref().unwrap_or(&None);
            report.check("a block becomes base pages", outcome.map(drop));
            report.check("its frames", self.is_of_base_pages(block.frames()));
            let now = self.usage(report).used.ram_frames();
            report.check(
                "fewer frames than base pages at once",
                (now < most).then_some(()).ok_or(Problem::Number {
                    what: "frames",
                    found: now,
                    expected: most,
                }),
            );
            let name = match order {
                Order::BASE => "a frame is handed out",
                _ => "a block is handed out",
            };
            self.lazy_row(name, now, took, report);
        }
        let out = handed_out.iter().flatten();
        let out: u64 = out.map(|block| block.frames().frames()).sum();
        for block in handed_out.into_iter().flatten() {
            // SAFETY: 1: it was allocated above, and only its descriptors were used.
            unsafe { allocator.free(block) };
        }
        report.check(
            "frames were handed out",
            (out > 0).then_some(()).ok_or(Problem::ShouldRefuse),
        );
    }

    /// The block of `frame` becomes base pages where it is not, without an allocator. Says how many ticks
    /// that took, if it was necessary and they are counted.
    fn becomes_base_pages(&mut self, ram: &Ram, frame: Pfn) -> Result<Option<u64>, Problem> {
        let listed = self
            .vmemmap
            .pages(&*self.table, PfnRange::single(frame))
            .next();
        let listed = listed.ok_or(Problem::NotOnline { frame })?;
        if listed.order == Order::BASE {
            return Ok(None);
        }
        let block = frame.align_down(ram.block);
        let block = PfnRange::new(block, ram.block.frames()).unwrap_or(ram.lazy.range);
        let pagemap = DevPagemap::of_range(&self.on.model, ram.lazy.range, Geometry::BASE_PAGES);
        let pagemap = pagemap.map_err(Problem::Pagemap)?;
        // For the rest of the page.
        let pagemap = pagemap
            .with_tails(ram.lazy.tails)
            .with_tables(ram.lazy.tables);
        let needed = self
            .vmemmap
            .reserve_needed(&*self.table, &pagemap, block, ram.lazy.order);
        let filled = self
            .vmemmap
            .fill_reserve(self.table, pagemap.node(), needed);
        let _ = filled.map_err(Problem::Fold)?;
        let allocator = self.on.frames.allocator();
        allocator.set_call_limit(Some(0));
        let start = self.on.probe.ticks();
        let done = self.vmemmap.reorder(self.table, &pagemap, block);
        let took = self.ticks_since(start);
        allocator.set_call_limit(None);
        match done {
            Ok(done) => equal("units", done.units, 1).map(|()| took),
            Err(stopped) => Err(Problem::Fold(stopped.error)),
        }
    }

    /// The first and the last of `frames` are pages by themselves, and can be written to.
    fn is_of_base_pages(&self, frames: PfnRange) -> Result<(), Problem> {
        for frame in [frames.start(), frames.last()] {
            let page = self
                .vmemmap
                .pages(&*self.table, PfnRange::single(frame))
                .next();
            if page.map(|page| (page.first, page.order)) != Some((frame, Order::BASE)) {
                let found = page.map(|page| page.first);
                return Err(Problem::Head { frame, found });
            }
            let at = self.vmemmap.descriptor_address(frame);
            let at = at.and_then(|at| at.checked_add(FrameInfo::<E>::OWNER));
            let at = at.ok_or(Problem::NotOnline { frame })?;
            let word = frame.get() | 1 << 63;
            // SAFETY: 1: the owner's word of a frame that was handed out to this.
            unsafe { self.on.probe.store(at, word) }.map_err(Problem::Fault)?;
            let found = self.on.probe.load(at).map_err(Problem::Fault)?;
            if found != word {
                return Err(Problem::Word {
                    at,
                    found,
                    expected: word,
                });
            }
        }
        Ok(())
    }

    fn ticks_since(&self, start: Option<u64>) -> Option<u64> {
        let (start, now) = (start?, self.on.probe.ticks()?);
        Some(now.wrapping_sub(start))
    }

    fn lazy_row(&self, name: &str, frames: u64, took: Option<u64>, report: &mut Report<'_>) {
        match took {
            Some(ticks) => report.line(format_args!("{name:<51} {frames:>8} {ticks:>10}")),
            None => report.line(format_args!("{name:<51} {frames:>8}          -")),
        }
    }
}
