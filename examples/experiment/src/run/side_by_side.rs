//! Regions of several geometries and policies side by side: with tables, shared tails and borders in
//! common, and somebody else's mapping among them. They come and go in any order, and parts of them
//! too; each time all others are looked at.

use super::problem::Problem;
use super::table::{CASES, Ending};
use super::usage::Usage;
use super::{Experiment, Session, Subject};
use crate::case::{Case, CaseList, Neighbours, REGIONS};
use crate::cost::{Cost, split_span_at, tail_frames, vmemmap_pages};
use crate::{Probe, Report};
use mm_core::addr::{Block, NodeId, Pfn, PfnRange, VirtRange};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::paging::{Flush, NoRecords, PageTable};
use mm_core::vmemmap::{NodeStats, Region};

/// In which order the regions come online, and in which they go.
const ONLINE: [usize; REGIONS] = [3, 0, 5, 1, 6, 4, 2];
const OFFLINE: [usize; REGIONS] = [1, 4, 0, 6, 2, 3, 5];

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// All of it, while nothing else is online.
    pub(super) fn run_side_by_side(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        let (model, shape) = (self.on.model, self.on.shape);
        let Some(neighbours) = Neighbours::of(&model, &shape, subject.device) else {
            return report.skip(
                format_args!("regions side by side"),
                format_args!("the device is too small for them"),
            );
        };
        let Some(mut session) = self.session::<Mask>(None, report) else {
            return;
        };
        report.line(format_args!("side by side: {CASES}"));
        let before = session.usage(report);
        let outcome = session.come_and_go(&neighbours, before, report);
        report.check("side by side", outcome);
        session.check_unchanged("all frames are back", before, report);
        let ending = Ending::of(report);
        report.line(format_args!("all offline again: {ending}"));
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    fn come_and_go(
        &mut self,
        neighbours: &Neighbours,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Result<(), Problem> {
        let all = neighbours.regions.as_slice();
        let mut regions: [Option<Region<'_>>; REGIONS] = [const { None }; REGIONS];
        let mut online = neighbours.regions.emptied();
        for index in ONLINE {
            let (Some(case), Some(region)) = (all.get(index), regions.get_mut(index)) else {
                continue;
            };
            let pagemap = case.pagemap(&self.on.model).map_err(Problem::Pagemap)?;
            let before_it = self.usage(report);
            let expected = Cost::of(case, online.as_slice(), &self.on.model, &self.on.shape);
            let came = self.vmemmap.online(self.table, &pagemap);
            *region = Some(came.map_err(Problem::Online)?);
            let used = self.check_cost(expected, before_it, report);
            if online.as_slice().is_empty() {
                self.map_foreign(neighbours.foreign)?;
            }
            online.add(*case);
            report.check(
                "all that is online",
                self.all_as_they_are(&online, neighbours),
            );
            let pages = vmemmap_pages(case, &self.on.model);
            let ranges = core::slice::from_ref(&case.range);
            self.row(
                format_args!("{case}"),
                "device",
                (ranges, pages),
                used,
                report,
            );
        }
        for case in online.as_slice() {
            let others = online.without(case);
            let outcome = self.written_is_seen(case, others.as_slice());
            report.check("written and seen", outcome);
        }
        self.check_stats(&online, before, report);
        let split = self.parts_go_and_come(&online, neighbours, before, report)?;

        let last = OFFLINE.len() - 1;
        for (step, index) in OFFLINE.into_iter().enumerate() {
            if step == last {
                self.unmap_foreign(neighbours.foreign)?;
            }
            let (Some(case), Some(region)) = (all.get(index), regions.get_mut(index)) else {
                continue;
            };
            let Some(region) = region.take() else {
                continue;
            };
            let offlined = self.vmemmap.offline(self.table, region);
            report.check("offline", offlined.map(drop).map_err(Problem::Offline));
            online = online.without(case);
            report.check("every page faults", self.all_fault(case));
            if step != last {
                report.check(
                    "all that is online",
                    self.all_as_they_are(&online, neighbours),
                );
            }
            let mut expected = online.cost(&self.on.model, &self.on.shape);
            let split = split.filter(|split| online.as_slice().contains(split));
            expected.leaf_tables += u64::from(split.is_some());
            self.check_cost(expected, before, report);
        }
        Ok(())
    }

    /// A subsection in the middle of each region goes offline and comes back, and nothing else
    /// changes. Says which region was mapped by a huge leaf, and has a table instead.
    fn parts_go_and_come(
        &mut self,
        online: &CaseList<REGIONS>,
        neighbours: &Neighbours,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Result<Option<Case>, Problem> {
        let model = self.on.model;
        let mut split = None;
        let mut expected = online.cost(&model, &self.on.shape);
        for case in online.as_slice() {
            let middle = case.range.start().saturating_add(case.range.frames() / 2);
            let middle = middle.align_down(model.subsection());
            let Ok(part) = PfnRange::new(middle, model.subsection().frames()) else {
                continue;
            };
            if split_span_at(case, part, &model, &self.on.shape).is_some() {
                split = Some(*case);
                expected.leaf_tables += 1;
            }
            let pagemap = case.pagemap(&model).map_err(Problem::Pagemap)?;
            let gone = self.vmemmap.depopulate(self.table, &pagemap, part);
            gone.map_err(Problem::Offline)?;
            let part = Case {
                range: part,
                ..*case
            };
            report.check("a part faults", self.all_fault(&part));
            let others = online.without(case);
            report.check("all others", self.all_as_they_are(&others, neighbours));
            let back = self.vmemmap.populate(self.table, &pagemap, part.range);
            back.map_err(Problem::Online)?;
            report.check(
                "all that is online",
                self.all_as_they_are(online, neighbours),
            );
            self.check_cost(expected, before, report);
        }
        Ok(split)
    }

    /// Every region is readable by the MMU, and somebody else's page is where it was.
    fn all_as_they_are(
        &self,
        online: &CaseList<REGIONS>,
        neighbours: &Neighbours,
    ) -> Result<(), Problem> {
        let frame = neighbours.foreign.start();
        let holder = self.on.raw_tables.translate(self.address(frame)?);
        let holder = holder.map(|seen| seen.frame);
        if holder != Some(frame) {
            return Err(Problem::Holder { frame, holder });
        }
        self.on.probe.load(self.address(frame)?)?;
        let mut online = online.as_slice().iter();
        online.try_for_each(|case| self.all_readable(case))
    }

    /// The counters, node by node, are what arithmetic says; they are printed. (That they are what
    /// an audit counts is checked whenever there is one.)
    fn check_stats(&mut self, online: &CaseList<REGIONS>, before: Usage, report: &mut Report<'_>) {
        let (model, shape) = (self.on.model, self.on.shape);
        let cost = online.cost(&model, &shape);
        let all = online.as_slice().iter();
        let pages: u64 = all.clone().map(|case| vmemmap_pages(case, &model)).sum();
        let expected = NodeStats {
            descriptor_frames: cost.descriptor_frames,
            tail_frames: all.map(|case| tail_frames(case, &model)).sum(),
            count_frames: 0,
            altmap_frames: 0,
            table_frames: cost.leaf_tables + cost.upper_tables,
            mark_frames: 0,
            online_map_frames: 0,
            record_frames: 0,
            reserve_frames: 0,
            reused_entries: pages - cost.descriptor_frames,
        };
        self.vmemmap.for_each_node(&mut |node, found| {
            report.line(format_args!("stats, node {node}: {found}"));
        });
        let found = self.vmemmap.stats_on(NodeId::new(0));
        let outcome = (found == expected && self.vmemmap.stats() == expected).then_some(());
        report.check("stats", outcome.ok_or(Problem::Stats { found, expected }));
        self.check_cost(cost, before, report);
    }

    /// Maps a page of `memory` where the first of its descriptors would be, as somebody else.
    fn map_foreign(&mut self, memory: PfnRange) -> Result<(), Problem> {
        let frame = memory.start();
        let at = self.address(frame)?;
        let mapped = self.on.raw_tables.map_foreign(at, Block::single(frame));
        self.forget(frame)?;
        mapped.then_some(()).ok_or(Problem::NotPlanted { at })
    }

    fn unmap_foreign(&mut self, memory: PfnRange) -> Result<(), Problem> {
        self.on.raw_tables.clear_leaf(self.address(memory.start())?);
        self.forget(memory.start())
    }

    /// Makes CPUs forget the address of the descriptor of `frame`.
    fn forget(&mut self, frame: Pfn) -> Result<(), Problem> {
        let at = self.address(frame)?;
        let mut flush = Flush::nothing();
        if let Ok(page) = VirtRange::new(at, self.on.model.granule().bytes()) {
            flush.add(page);
        }
        self.table.flush(flush, &NoRecords);
        Ok(())
    }
}
