//! Descriptors in the device's own memory: an altmap, with every geometry and policy.

use super::pages::every;
use super::problem::{Problem, equal};
use super::table::{ALTMAPS, AltmapFigures, Ending};
use super::usage::Usage;
use super::{Experiment, Session, Subject};
use crate::case::{Case, with_tails_per_compound};
use crate::cost::DeviceCost;
use crate::{Cost, FrameInfo, Leaves, Probe, Report, cases};
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Pointer, TailEncoding};
use mm_core::error::ErrorKind;
use mm_core::frame::{Altmap, AltmapError, DeviceAltmap, DirectMap};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Piece, Tails};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{Note, OnlineError, Region};

impl<'m, P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'m, P, T, M> {
    /// Each geometry and policy on all of the device, while nothing else is online.
    pub(super) fn run_altmaps(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        report.line(format_args!("{ALTMAPS}"));
        let (model, shape) = (self.on.model, self.on.shape);
        let of_all = |case: &Case| {
            let wanted = case.order == Order::BASE || case.tails != Tails::None;
            let wanted = wanted && case.piece != Piece::Subsection;
            let unit = case.order.max(model.subsection());
            wanted && case.range.frames() + unit.frames() > subject.device.frames()
        };
        for case in cases(&model, &shape, subject.device, subject.compound).filter(of_all) {
            let Some(device) = DeviceCost::of(&case, &model, &shape) else {
                report.skip(
                    format_args!("{case} altmap"),
                    format_args!("the device is too small to hold its own descriptors"),
                );
                continue;
            };
            if case.needs_same_tails() {
                self.run_altmap::<Mask>(&case, &device, report);
            } else {
                self.run_altmap::<Pointer>(&case, &device, report);
            }
            let small = (case.order, case.leaves) == (Order::BASE, Leaves::Small);
            for order in subject.compound.iter().filter(|_| small) {
                self.run_altmap_fold::<Pointer>(&case, &device, *order, report);
                self.run_altmap_fold::<Mask>(&case, &device, *order, report);
            }
        }
    }

    fn run_altmap<E: TailEncoding>(
        &mut self,
        case: &Case,
        device: &DeviceCost,
        report: &mut Report<'_>,
    ) {
        let subsection = self.on.model.subsection().frames();
        let fewer = device.reserved.frames().checked_sub(subsection);
        let fewer = fewer.and_then(|frames| device.reserved.split_at(frames).0);
        // One after the other, since they are over the same memory.
        if let Some(reserved) = fewer {
            let too_small = match self.altmap(reserved) {
                Ok(altmap) => altmap,
                Err(error) => return report.check("altmap", Err(error)),
            };
            let Some(mut session) = self.session::<E>(Some(&too_small), report) else {
                return;
            };
            let before = session.usage(report);
            session.check_too_small(case, &too_small, before, report);
        }
        let altmap = match self.altmap(device.reserved) {
            Ok(altmap) => altmap,
            Err(error) => return report.check("altmap", Err(error)),
        };
        let Some(mut session) = self.session::<E>(Some(&altmap), report) else {
            return;
        };
        let before = session.usage(report);
        let used = session.in_the_device(case, device, &altmap, before, report);
        let used = used.unwrap_or_else(|problem| {
            report.check("descriptors in the device", Err(problem));
            None
        });
        session.check_unchanged("all frames are back", before, report);
        let (start, size) = session.mebibytes(case.range);
        let (_, reserved) = session.mebibytes(device.reserved);
        let ending = Ending::of(report);
        report.line(format_args!(
            "{case} {start:>6}+{size:<6} {reserved:>13} {}  {ending}",
            AltmapFigures(used)
        ));
    }

    /// Base pages folded into compound pages of `order`, and unfolded.
    fn run_altmap_fold<E: TailEncoding>(
        &mut self,
        case: &Case,
        device: &DeviceCost,
        order: Order,
        report: &mut Report<'_>,
    ) {
        let altmap = match self.altmap(device.reserved) {
            Ok(altmap) => altmap,
            Err(error) => return report.check("altmap", Err(error)),
        };
        let Some(mut session) = self.session::<E>(Some(&altmap), report) else {
            return;
        };
        let before = session.usage(report);
        let outcome = session.fold_in_the_device(case, device, &altmap, order, report);
        let (folded, outcome) = match outcome {
            Ok(folded) => (folded, Ok(())),
            Err(problem) => (None, Err(problem)),
        };
        report.check("fold and unfold", outcome);
        session.check_unchanged("all frames are back", before, report);
        let Some((folded, cost)) = folded else {
            report.end_row();
            return;
        };
        let (start, size) = session.mebibytes(folded.range);
        let ending = Ending::of(report);
        report.line(format_args!(
            "{folded} {start:>6}+{size:<6} {:>13} {}  {ending}",
            "folded",
            AltmapFigures(cost)
        ));
    }

    /// An altmap over `reserved`.
    fn altmap(&self, reserved: PfnRange) -> Result<DeviceAltmap<&'m M>, AltmapError> {
        let on = self.on;
        // SAFETY: 1: the device's memory is nobody else's, and nothing of it is online. 2: the
        // direct map reaches it (duty 3 of `Experiment::new`). 3: each is used by one case alone,
        // with one vmemmap.
        unsafe { DeviceAltmap::new(&on.model, on.direct_map, reserved, NodeId::new(0)) }
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    /// A subsection less than what suffices: refused, and nothing has changed.
    fn check_too_small(
        &mut self,
        case: &Case,
        altmap: &dyn Altmap,
        before: Usage,
        report: &mut Report<'_>,
    ) {
        let outcome = with_altmap(case, altmap, &self.on.model)
            .and_then(|pagemap| self.must_refuse(&pagemap, ErrorKind::AltmapExhausted));
        report.check("an altmap too small is refused", outcome);
        self.check_unchanged("a refusal leaves nothing", before, report);
        report.check("a refusal maps nothing", self.all_fault(case));
    }

    fn in_the_device(
        &mut self,
        case: &Case,
        device: &DeviceCost,
        altmap: &dyn Altmap,
        before: Usage,
        report: &mut Report<'_>,
    ) -> Result<Option<Cost>, Problem> {
        let DeviceCost {
            first, rest, cost, ..
        } = device;
        let pagemap = with_altmap(case, altmap, &self.on.model)?;
        let needed = pagemap.altmap_needed().map_err(Problem::Pagemap)?;
        report.check(
            "the fewest subsections",
            equal("frames reserved", needed.frames(), device.reserved.frames()),
        );
        self.check_refusals(case, &pagemap, *cost, before, report);
        report.check(
            "what is reserved is no memory for others",
            self.reserved_for_itself(&pagemap, device, rest),
        );
        self.check_unchanged("a piece leaves nothing", before, report);

        let online = self.vmemmap.online(self.table, &pagemap);
        let region = online.map_err(Problem::Online)?;
        report.check("as asked", with_gap(&region, device));
        let used = self.check_cost(*cost, before, report);
        for (case, other) in [(first, rest), (rest, first)] {
            report.check("descriptors through the MMU", self.all_readable(case));
            report.check("heads", self.heads_are_found(case));
            let outcome = self.written_is_seen(case, core::slice::from_ref(other));
            report.check("written and seen", outcome);
            report.check("in the device", self.lies_in(case, device.reserved));
        }
        report.check("read-only tails", self.tails_refuse_stores(rest));
        report.check(
            "what is reserved goes and comes",
            self.reserved_goes_and_comes(&pagemap, device),
        );
        self.check_parts(rest, &pagemap, *cost, before, report);
        report.check("descriptors through the MMU", self.all_readable(first));
        let offlined = self.vmemmap.offline(self.table, region);
        report.check("offline", offlined.map(drop).map_err(Problem::Offline));
        report.check("every page faults", self.all_fault(case));
        Ok(used)
    }

    /// A piece behind what is reserved comes online first. What is reserved comes online by no
    /// pagemap without the altmap then.
    fn reserved_for_itself(
        &mut self,
        pagemap: &DevPagemap<'_>,
        device: &DeviceCost,
        rest: &Case,
    ) -> Result<(), Problem> {
        let subsection = self.on.model.subsection().frames();
        let piece = rest.range.take_first(subsection).0;
        let ranges = [device.reserved];
        let others = DevPagemap::new(&self.on.model, &ranges, Geometry::BASE_PAGES);
        let others = others.map_err(Problem::Pagemap)?;
        let populated = self.vmemmap.populate(self.table, pagemap, piece);
        populated.map(drop).map_err(Problem::Online)?;
        let refused = self.vmemmap.online(self.table, &others);
        let gone = self.vmemmap.depopulate(self.table, pagemap, piece);
        gone.map(drop).map_err(Problem::Offline)?;
        match refused {
            Err(OnlineError::Reserved { .. }) => Ok(()),
            Err(error) => Err(Problem::Online(error)),
            Ok(_) => Err(Problem::ShouldRefuse),
        }
    }

    /// The descriptors of what is reserved go offline and come again, while its frames hold those of
    /// the rest.
    fn reserved_goes_and_comes(
        &mut self,
        pagemap: &DevPagemap<'_>,
        device: &DeviceCost,
    ) -> Result<(), Problem> {
        let gone = self
            .vmemmap
            .depopulate(self.table, pagemap, device.reserved);
        gone.map(drop).map_err(Problem::Offline)?;
        let back = self.vmemmap.populate(self.table, pagemap, device.reserved);
        back.map(drop).map_err(Problem::Online)
    }

    /// Every vmemmap page of `case` lies in a frame of `reserved`, but for a tail for all, which
    /// lies in none: by the tables. What the MMU loads is what is there.
    fn lies_in(&self, case: &Case, reserved: PfnRange) -> Result<(), Problem> {
        for frame in every(case.range, self.on.model.descriptors_per_page()) {
            let at = self.word_address(frame, FrameInfo::<E>::WORD)?;
            let seen = self.on.raw_tables.translate(at);
            let holder = seen.map(|seen| seen.frame);
            let is_tail = frame != frame.align_down(case.order);
            let of_ram = is_tail && self.has_read_only_tails(case);
            let Some(found) = holder.filter(|found| reserved.contains(*found) != of_ram) else {
                return Err(Problem::Holder { frame, holder });
            };
            self.holds_at(found, FrameInfo::<E>::WORD, self.on.probe.load(at)?)?;
        }
        Ok(())
    }

    /// The word `offset` bytes into `holder`, by the direct map, is `expected`.
    fn holds_at(&self, holder: Pfn, offset: u64, expected: u64) -> Result<(), Problem> {
        let first = self.on.direct_map.frame_pointer(holder).cast::<AtomicU64>();
        let index = offset as usize / size_of::<AtomicU64>();
        // SAFETY: the frame holds descriptors, which the direct map reaches; the word is an atomic
        // of the first of them.
        let found = unsafe { first.add(index).as_ref() }.load(Ordering::Relaxed);
        equal("in the frame that holds it", found, expected)
    }

    /// Memory that is online as base pages is folded into compound pages of `order`, as far as it
    /// is not reserved, and unfolded: frames go back to the device and come from it again.
    fn fold_in_the_device(
        &mut self,
        case: &Case,
        device: &DeviceCost,
        altmap: &dyn Altmap,
        order: Order,
        report: &mut Report<'_>,
    ) -> Result<Option<(Case, Option<Cost>)>, Problem> {
        let model = self.on.model;
        let as_base = with_altmap(case, altmap, &model)?;
        let base_frames = device.reserved.frames().next_multiple_of(order.frames());
        let (first, Some(range)) = case.range.split_at(base_frames) else {
            return Ok(None);
        };
        let tails = match E::SAME_FOR_ALL {
            true => Tails::PerOrder,
            false => Tails::PerCompound,
        };
        let folded = Case {
            page_bytes: order.bytes(model.granule()).unwrap_or(0),
            order,
            tails,
            range,
            ..with_tails_per_compound(*case)
        };
        let all = Case {
            range: case.range,
            ..folded
        };
        let as_compound = with_altmap(&all, altmap, &model)?;

        let before = self.usage(report);
        let online = self.vmemmap.online(self.table, &as_base);
        let region = online.map_err(Problem::Online)?;
        let start = self.usage(report);
        self.exchange(Self::fold, &as_compound, range, report);
        let of_ram = u64::from(tails == Tails::PerOrder);
        let pages = |case: &Case| Cost::of(case, &[], &model, &self.on.shape).descriptor_frames;
        let spared = pages(&Case { range, ..*case }) - pages(&folded);
        let expected = Cost {
            descriptor_frames: device.cost.descriptor_frames - spared,
            altmap_frames: device.cost.altmap_frames - spared - of_ram,
            ..device.cost
        };
        let used = self.check_cost(expected, before, report);
        self.all_readable(&folded)?;
        self.lies_in(&folded, device.reserved)?;
        self.exchange(Self::unfold, &as_compound, range, report);
        self.check_unchanged("the frames of the start", start, report);
        self.all_readable(&Case {
            tails: Tails::None,
            ..folded
        })?;
        if let Some(range) = first {
            self.all_readable(&Case { range, ..*case })?;
        }
        let offlined = self.vmemmap.offline(self.table, region);
        offlined.map_err(Problem::Offline)?;
        self.all_fault(case)?;
        Ok(Some((folded, used)))
    }
}

/// What is asked for, with frames from `altmap`.
fn with_altmap<'a>(
    case: &'a Case,
    altmap: &'a dyn Altmap,
    model: &MemoryModel,
) -> Result<DevPagemap<'a>, Problem> {
    let pagemap = case
        .pagemap(model)
        .and_then(|pagemap| pagemap.with_altmap(altmap));
    pagemap.map_err(Problem::Pagemap)
}

/// Everything was done as asked, but for what lies between the reserved part and compound pages.
fn with_gap(region: &Region<'_>, device: &DeviceCost) -> Result<(), Problem> {
    let mut notes = region.notes().iter();
    let expected = device.gap().map(|frames| Note::AltmapGap { frames });
    match (notes.next(), notes.next()) {
        (note, None) if note == expected => Ok(()),
        (Some(note), _) | (None, Some(note)) => Err(Problem::Note(note)),
        (None, None) => equal("frames between altmap and compound pages", 0, 1),
    }
}
