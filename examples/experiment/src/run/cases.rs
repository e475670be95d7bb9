//! RAM online, as at boot, and each geometry and policy of a device beside it.

use super::problem::Problem;
use super::table::{CASES, Ending, Figures};
use super::usage::Usage;
use super::{Experiment, Session, Subject};
use crate::case::{Case, CaseList, cases, ram_case};
use crate::cost::{Cost, vmemmap_pages};
use crate::{MemoryMap, Probe, RangeList, Report, TableShape};
use core::fmt;
use mm_core::addr::{Pfn, PfnRange};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{OnlineError, Region};

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// Brings RAM online, as a kernel does at boot; then runs each case beside it; then takes RAM
    /// offline, which a kernel would not do, to see that everything comes back.
    ///
    /// All of that twice: with tails that store their head's address, and with tails that are the
    /// same for all compound pages of an order, for the cases that need those.
    pub(super) fn run_cases(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        report.line(format_args!("{CASES}"));
        let (model, shape) = (self.on.model, self.on.shape);
        let cases = cases(&model, &shape, subject.device, subject.compound);
        if let Some(mut session) = self.session::<Pointer>(None, report) {
            let by_pointer = cases.clone().filter(|case| !case.needs_same_tails());
            session.run(subject.map, by_pointer, report);
        }
        if let Some(mut session) = self.session::<Mask>(None, report) {
            let by_mask = cases.filter(Case::needs_same_tails);
            session.run(subject.map, by_mask, report);
        }
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    fn run(&mut self, map: &MemoryMap, cases: impl Iterator<Item = Case>, report: &mut Report<'_>) {
        let described = map.described(self.on.model.subsection());
        let all = ram_cases(&self.on.model, &self.on.shape, &described);
        let ram = all.as_slice();

        let before = self.usage(report);
        let Some(region) = self.bring_ram_online(&described, &all, before, report) else {
            return;
        };
        cases.for_each(|case| self.run_case(&case, ram, report));

        for case in ram {
            report.check("RAM's descriptors are as before", self.all_readable(case));
        }
        let offlined = self.vmemmap.offline(self.table, region);
        report.check("offline", offlined.map(drop).map_err(Problem::Offline));
        for case in ram {
            report.check("RAM's descriptors fault", self.all_fault(case));
        }
        self.check_unchanged("all frames are back", before, report);
        let ending = Ending::of(report);
        report.line(format_args!("RAM offline: {ending}"));
    }

    fn bring_ram_online<'r>(
        &mut self,
        described: &'r RangeList,
        all: &RamCases,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Option<Region<'r>> {
        let ram = all.as_slice();
        let ranges = described.as_slice();
        let pagemap = DevPagemap::new(&self.on.model, ranges, Geometry::BASE_PAGES);
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
        let expected = all.cost(&self.on.model, &self.on.shape);
        let used = self.check_cost(expected, before, report);
        for case in ram {
            report.check("descriptors through the MMU", self.all_readable(case));
        }
        for case in ram {
            report.check("written and seen", self.written_is_seen(case, ram));
        }
        let pages = ram
            .iter()
            .map(|case| vmemmap_pages(case, &self.on.model))
            .sum();
        let name = ram.first().copied();
        if let Some(case) = name {
            self.row(format_args!("{case}"), "RAM", (ranges, pages), used, report);
        }
        Some(region)
    }

    fn run_case(&mut self, case: &Case, online: &[Case], report: &mut Report<'_>) {
        let model = self.on.model;
        let pagemap = match case.pagemap(&model) {
            Ok(pagemap) => pagemap,
            Err(error) => return report.check("pagemap", Err(Problem::Pagemap(error))),
        };
        let before = self.usage(report);
        let expected = Cost::of(case, online, &model, &self.on.shape);
        self.check_refusals(case, &pagemap, expected, before, report);

        let used = if expected.ram_frames() > before.free {
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
        before: Usage,
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
        let offlined = self.vmemmap.offline(self.table, region);
        report.check("offline", offlined.map(drop).map_err(Problem::Offline));
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

    /// Prints the row of memory that is online.
    pub(super) fn row(
        &self,
        name: fmt::Arguments<'_>,
        memory: &str,
        (ranges, pages): (&[PfnRange], u64),
        used: Option<Cost>,
        report: &mut Report<'_>,
    ) {
        let ending = Ending::of(report);
        let (start, _) = ranges
            .first()
            .map_or((0, 0), |first| self.mebibytes(*first));
        let size: u64 = ranges.iter().map(|range| self.mebibytes(*range).1).sum();
        report.line(format_args!(
            "{name} {memory:<6} {start:>6}+{size:<6} {}  {ending}",
            Figures { used, pages },
        ));
    }

    /// Where a range starts and how large it is, in MiB.
    pub(super) fn mebibytes(&self, range: PfnRange) -> (u64, u64) {
        let mebibytes = |frames: u64| (frames << self.on.model.granule().shift()) >> 20;
        (mebibytes(range.start().get()), mebibytes(range.frames()))
    }
}

pub(super) fn as_asked(region: &Region<'_>) -> Result<(), Problem> {
    match region.notes().iter().next() {
        None => Ok(()),
        Some(note) => Err(Problem::Note(note)),
    }
}

/// RAM as cases, one for each range.
type RamCases = CaseList<{ RangeList::CAPACITY }>;

fn ram_cases(model: &MemoryModel, shape: &TableShape, described: &RangeList) -> RamCases {
    let empty = PfnRange::single(Pfn::ZERO);
    let mut cases = RamCases::new(ram_case(model, shape, empty));
    for range in described.as_slice() {
        cases.add(ram_case(model, shape, *range));
    }
    cases
}
