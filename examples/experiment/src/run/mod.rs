//! The experiment: RAM online, each case online, looked at, offline, looked at again.
//!
//! - `pages`: every vmemmap page of a range, by loads through the MMU;
//! - `sharing`: who sees what is written to one frame;
//! - `parts`: part of a range offline while the rest is in use;
//! - `refusal`: memory that runs out half-way;
//! - `table`: the rows that are printed;
//! - `problem`: what can turn out otherwise;
//! - `battery`: the conformance battery, on the same table and frames.

mod battery;
mod pages;
mod parts;
mod problem;
mod refusal;
mod sharing;
mod table;

use crate::case::{Case, ram_case};
use crate::cost::{Cost, TableSpans, vmemmap_pages};
use crate::{FrameInfo, Frames, MemoryMap, Probe, RangeList, Report};
use core::fmt;
use mm_core::addr::PfnRange;
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditSlot, OnlineError, Region, Vmemmap};
use problem::Problem;
use table::{Figures, HEADER, Verdict};

/// Page tables, frames, and what is needed to look at a vmemmap from outside.
pub struct Experiment<'m, P, T, M> {
    probe: &'m P,
    table: T,
    model: MemoryModel,
    frames: &'m Frames<'m>,
    direct_map: &'m M,
    scratch: &'m mut [AuditSlot],
    spans: TableSpans,
}

impl<P, T, M> fmt::Debug for Experiment<'_, P, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("model", &self.model)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}

/// A kernel's vmemmap, with descriptors whose tails name their heads by `E`, and what is needed to
/// look at it.
struct Session<'s, E, P, T, M> {
    probe: &'s P,
    table: &'s mut T,
    vmemmap: Vmemmap<FrameInfo<E>, &'s Frames<'s>, &'s M>,
    model: MemoryModel,
    frames: &'s Frames<'s>,
    scratch: &'s mut [AuditSlot],
    spans: TableSpans,
}

/// What is in use at one time, by the audit's count and by the allocator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ledger {
    used: Cost,
    free: u64,
}

impl<'m, P: Probe, T: PageTable, M: DirectMap> Experiment<'m, P, T, M> {
    /// Puts the parts together.
    ///
    /// # Safety
    ///
    /// 1. The CPU that `probe` uses translates by `table`.
    /// 2. The vmemmap of `model` is empty, and free for this value alone.
    /// 3. `direct_map` reaches all frames of `frames`, `table` takes its tables from these, and
    ///    nobody else takes any.
    pub unsafe fn new(
        probe: &'m P,
        table: T,
        model: MemoryModel,
        frames: &'m Frames<'m>,
        direct_map: &'m M,
        scratch: &'m mut [AuditSlot],
        spans: TableSpans,
    ) -> Self {
        Self {
            probe,
            table,
            model,
            frames,
            direct_map,
            scratch,
            spans,
        }
    }

    /// Brings RAM online, as a kernel does at boot; then runs each of `cases` beside it; then takes
    /// RAM offline, which a kernel would not do, to see that everything comes back.
    ///
    /// All of that twice: with tails that store their head's address, and with tails that are the
    /// same for all compound pages of an order, for the cases that need those.
    pub fn run(
        &mut self,
        map: &MemoryMap,
        cases: impl Iterator<Item = Case> + Clone,
        report: &mut Report<'_>,
    ) {
        report.line(format_args!("{HEADER}"));
        let by_pointer = cases.clone().filter(|case| !case.needs_same_tails());
        self.run_with::<Pointer>(map, by_pointer, report);
        let by_mask = cases.filter(Case::needs_same_tails);
        self.run_with::<Mask>(map, by_mask, report);
    }

    fn run_with<E: TailEncoding>(
        &mut self,
        map: &MemoryMap,
        cases: impl Iterator<Item = Case>,
        report: &mut Report<'_>,
    ) {
        // SAFETY: 1: duty 2 of `new`; there is one at a time, which leaves nothing. 2: duty 3. 3:
        // there is one table here.
        let vmemmap = unsafe { Vmemmap::new(self.model, self.frames, self.direct_map) };
        let vmemmap = match vmemmap {
            Ok(vmemmap) => vmemmap,
            Err(error) => return report.check("model", Err(error)),
        };
        let mut session = Session::<E, P, T, M> {
            probe: self.probe,
            table: &mut self.table,
            vmemmap,
            model: self.model,
            frames: self.frames,
            scratch: self.scratch,
            spans: self.spans,
        };
        session.run(map, cases, report);
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap> Session<'_, E, P, T, M> {
    fn run(&mut self, map: &MemoryMap, cases: impl Iterator<Item = Case>, report: &mut Report<'_>) {
        let described = map.described(self.model.subsection());
        let ram = RamCases::new(&self.model, &self.spans, &described);
        let ram = ram.as_slice();

        let before = self.ledger(report);
        let Some(region) = self.bring_ram_online(&described, ram, before, report) else {
            return;
        };
        cases.for_each(|case| self.run_case(&case, ram, report));

        for case in ram {
            report.check("RAM's descriptors are as before", self.all_readable(case));
        }
        self.vmemmap.offline(self.table, region);
        for case in ram {
            report.check("RAM's descriptors fault", self.all_fault(case));
        }
        self.check_unchanged("all frames are back", before, report);
    }

    fn bring_ram_online<'r>(
        &mut self,
        described: &'r RangeList,
        ram: &[Case],
        before: Ledger,
        report: &mut Report<'_>,
    ) -> Option<Region<'r>> {
        let ranges = described.as_slice();
        let pagemap = DevPagemap::new(&self.model, ranges, Geometry::BASE_PAGES);
        let region = pagemap.map_err(Problem::Pagemap).and_then(|pagemap| {
            let pagemap = match ram.first() {
                Some(case) => pagemap.with_piece(case.piece),
                None => pagemap,
            };
            self.vmemmap
                .online(self.table, &pagemap)
                .map_err(Problem::Online)
        });
        let region = match region {
            Ok(region) => region,
            Err(problem) => {
                report.check::<Problem>("RAM online", Err(problem));
                return None;
            }
        };
        report.check("as asked", as_asked(&region));
        let expected = ram
            .iter()
            .enumerate()
            .fold(Cost::default(), |sum, (index, case)| {
                let earlier = ram.get(..index).unwrap_or_default();
                sum.plus(&Cost::of(case, earlier, &self.model, &self.spans))
            });
        let used = self.check_cost(expected, before, report);
        for case in ram {
            report.check("descriptors through the MMU", self.all_readable(case));
        }
        for case in ram {
            report.check("written and seen", self.written_is_seen(case, ram));
        }
        let pages = ram
            .iter()
            .map(|case| vmemmap_pages(case, &self.model))
            .sum();
        let name = ram.first().copied();
        if let Some(case) = name {
            self.row(format_args!("{case}"), "RAM", (ranges, pages), used, report);
        }
        Some(region)
    }

    fn run_case(&mut self, case: &Case, online: &[Case], report: &mut Report<'_>) {
        let model = self.model;
        let pagemap = match case.pagemap(&model) {
            Ok(pagemap) => pagemap,
            Err(error) => return report.check("pagemap", Err(Problem::Pagemap(error))),
        };
        let before = self.ledger(report);
        let expected = Cost::of(case, online, &model, &self.spans);
        self.check_refusals(case, &pagemap, expected, before, report);

        let used = if expected.frames() > before.free {
            // RAM is too small for this one, which is a refusal as good as any other.
            report.line(format_args!(
                "  {case} needs {expected}: more than there are"
            ));
            None
        } else {
            self.online_and_offline(case, &pagemap, (online, expected), before, report)
        };
        self.check_unchanged("all frames are back", before, report);
        let pages = vmemmap_pages(case, &model);
        let ranges = core::slice::from_ref(&case.range);
        let name = format_args!("{case}");
        self.row(name, "device", (ranges, pages), used, report);
    }

    fn online_and_offline(
        &mut self,
        case: &Case,
        pagemap: &DevPagemap<'_>,
        (online, expected): (&[Case], Cost),
        before: Ledger,
        report: &mut Report<'_>,
    ) -> Option<Cost> {
        let region = match self.vmemmap.online(self.table, pagemap) {
            Ok(region) => region,
            Err(error) => {
                report.check("online", Err(Problem::Online(error)));
                return None;
            }
        };
        report.check("as asked", as_asked(&region));
        let used = self.check_cost(expected, before, report);
        report.check("descriptors through the MMU", self.all_readable(case));
        report.check("heads", self.heads_are_found(case));
        report.check("nothing beside", self.neighbours(case, online));
        report.check("written and seen", self.written_is_seen(case, online));
        report.check("read-only tails", self.tails_refuse_stores(case));
        report.check("online twice is refused", self.refused_twice(case, pagemap));
        self.check_parts(case, pagemap, expected, before, report);

        // The CPU has them all in its TLB, as far as they fit.
        report.check("descriptors through the MMU", self.all_readable(case));
        self.vmemmap.offline(self.table, region);
        report.check("every page faults", self.all_fault(case));
        used
    }

    /// Bringing online what is online must be refused, at its first page.
    fn refused_twice(&mut self, case: &Case, pagemap: &DevPagemap<'_>) -> Result<(), Problem> {
        match self.vmemmap.online(self.table, pagemap) {
            Err(OnlineError::AlreadyMapped { at })
                if self.vmemmap.descriptor_address(case.range.start()) == Some(at) =>
            {
                Ok(())
            }
            Err(error) => Err(Problem::Online(error)),
            Ok(_) => Err(Problem::ShouldRefuse),
        }
    }

    fn ledger(&mut self, report: &mut Report<'_>) -> Ledger {
        let audit = self
            .vmemmap
            .audit(&*self.table, &[self.frames], self.scratch);
        let used = match audit {
            Ok(found) => Cost {
                descriptor_frames: found.descriptor_frames,
                leaf_tables: found.leaf_tables,
                upper_tables: found.upper_tables,
            },
            Err(finding) => {
                report.check("audit", Err(Problem::Audit(finding)));
                Cost::default()
            }
        };
        let free = self.frames.allocator().allocator().free_frames();
        Ledger { used, free }
    }

    /// Checks that `expected` is in use beyond what was before, and says what is.
    fn check_cost(
        &mut self,
        expected: Cost,
        before: Ledger,
        report: &mut Report<'_>,
    ) -> Option<Cost> {
        let now = self.ledger(report);
        let found = now.used.since(&before.used);
        let outcome = match found {
            Some(found) if found == expected => Ok(()),
            found => Err(Problem::Cost { found, expected }),
        };
        report.check("frames used", outcome);
        let out = before.free.saturating_sub(now.free);
        let outcome = (out == expected.frames()).then_some(());
        report.check(
            "frames taken from the allocator",
            outcome.ok_or(Problem::Taken {
                out,
                expected: expected.frames(),
            }),
        );
        found
    }

    /// Checks that the same frames are in use as before.
    fn check_unchanged(&mut self, what: &str, before: Ledger, report: &mut Report<'_>) {
        let now = self.ledger(report);
        let outcome = (now == before).then_some(());
        report.check(what, outcome.ok_or(Problem::Changed { before, now }));
    }

    fn row(
        &self,
        name: fmt::Arguments<'_>,
        memory: &str,
        (ranges, pages): (&[PfnRange], u64),
        used: Option<Cost>,
        report: &mut Report<'_>,
    ) {
        let (passed, failed) = report.end_row();
        let granule = self.model.granule();
        let mib = |frames: u64| (frames << granule.shift()) >> 20;
        let start = ranges.first().map_or(0, |range| mib(range.start().get()));
        let size = mib(ranges.iter().map(|range| range.frames()).sum());
        report.line(format_args!(
            "{name} {memory:<6} {start:>6}+{size:<6} {}  {}",
            Figures { used, pages },
            Verdict { passed, failed }
        ));
    }
}

fn as_asked(region: &Region<'_>) -> Result<(), Problem> {
    match region.notes().iter().next() {
        None => Ok(()),
        Some(note) => Err(Problem::Note(note)),
    }
}

/// RAM as cases, one for each range.
struct RamCases {
    cases: [Case; RangeList::CAPACITY],
    used: usize,
}

impl RamCases {
    fn new(model: &MemoryModel, spans: &TableSpans, described: &RangeList) -> Self {
        let ranges = described.as_slice();
        let empty = PfnRange::single(mm_core::addr::Pfn::ZERO);
        Self {
            cases: core::array::from_fn(|index| {
                let range = ranges.get(index).copied().unwrap_or(empty);
                ram_case(model, spans, range)
            }),
            used: ranges.len(),
        }
    }

    fn as_slice(&self) -> &[Case] {
        self.cases.get(..self.used).unwrap_or_default()
    }
}
