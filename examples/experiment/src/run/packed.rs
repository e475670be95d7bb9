//! Packed heads on the MMU: what they cost, which addresses fault, and who sees what is stored.
//!
//! ```text
//!   vmemmap     one frame, read-only: loads say that the head is elsewhere, stores fault, at the first frame's too
//!   heads       each at its place, stored to by its address; the next ones stay as they are
//! ```

use super::cases::as_asked;
use super::pages::every;
use super::problem::{Problem, equal};
use super::table::CASES;
use super::{Experiment, Session, Subject};
use crate::case::packed_cases;
use crate::cost::{packed_cost, place_of_head, vmemmap_pages};
use crate::{Case, FrameInfo, Probe, Report};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::descriptor::{Mask, TailEncoding};
use mm_core::frame::DirectMap;
use mm_core::paging::PageTable;

/// What a kernel stores in the head of the page that begins with `first`.
const fn stored_for(first: Pfn) -> u64 {
    first.get() | 1 << 63
}

impl<P: Probe, T: PageTable, M: DirectMap + Sync> Experiment<'_, P, T, M> {
    /// Brings the device online with packed heads, in each size of pages and with each policy for tables.
    pub(super) fn run_packed(&mut self, subject: &Subject<'_>, report: &mut Report<'_>) {
        report.line(format_args!("packed heads: {CASES}"));
        let (model, shape) = (self.on.model, self.on.shape);
        let mut cases = packed_cases(&model, &shape, subject.device, subject.compound).peekable();
        if cases.peek().is_none() {
            let why = format_args!("the device has no whole compound page, or the model no place");
            return report.skip(format_args!("packed heads"), why);
        }
        if let Some(mut session) = self.session::<Mask>(None, report) {
            cases.for_each(|case| session.run_packed(&case, report));
        }
    }
}

impl<E: TailEncoding, P: Probe, T: PageTable, M: DirectMap + Sync> Session<'_, E, P, T, M> {
    fn run_packed(&mut self, case: &Case, report: &mut Report<'_>) {
        let model = self.on.model;
        let pagemap = match case.pagemap(&model) {
            Ok(pagemap) => pagemap,
            Err(error) => return report.check("pagemap", Err(Problem::Pagemap(error))),
        };
        let before = self.usage(report);
        let expected = packed_cost(case, &model, &self.on.shape).unwrap_or_default();
        let region = match self.vmemmap.online(self.table, &pagemap) {
            Ok(region) => region,
            Err(error) => return report.check("online", Err(Problem::Online(error))),
        };
        report.check("as asked", as_asked(&region));
        let used = self.check_cost(expected, before, report);
        report.check("stubs through the MMU", self.stubs_are_one_frame(case));
        report.check("stubs refuse stores", self.stubs_refuse_stores(case));
        report.check("heads", self.heads_are_found(case));
        report.check("nothing beside", self.neighbours(case, &[]));
        report.check("heads are stored to", self.heads_are_stored_to(case));
        report.check(
            "other places are vacant",
            self.places_beside_are_vacant(case),
        );
        // The CPU has cached what it may have.
        let offlined = self.vmemmap.offline(self.table, region);
        report.check("offline", offlined.map(drop).map_err(Problem::Offline));
        report.check("every page faults", self.all_fault(case));
        report.check("heads fault", self.heads_fault(case));
        self.check_unchanged("all frames are back", before, report);
        let ranges = core::slice::from_ref(&case.range);
        let pages = vmemmap_pages(case, &model);
        self.row(
            format_args!("{case}"),
            "packed",
            (ranges, pages),
            used,
            report,
        );
    }

    /// The address of the head of the page that `frame` is part of.
    fn place(&self, case: &Case, frame: Pfn) -> Result<VirtAddr, Problem> {
        place_of_head(case, &self.on.model, frame).ok_or(Problem::NotOnline { frame })
    }

    /// The address of the word `offset` bytes into that head.
    fn word_of_head(&self, case: &Case, frame: Pfn, offset: u64) -> Result<VirtAddr, Problem> {
        let place = self.place(case, frame)?;
        place
            .checked_add(offset)
            .ok_or(Problem::NotOnline { frame })
    }

    /// Every vmemmap page is the same frame, read-only; the first and the last descriptor in it say that the head is elsewhere, and
    /// lead to the first frame's.
    fn stubs_are_one_frame(&self, case: &Case) -> Result<(), Problem> {
        let per_page = self.on.model.descriptors_per_page();
        let mut stubs = None;
        for first in every(case.range, per_page) {
            let seen = self.on.raw_tables.translate(self.address(first)?);
            let seen = seen.ok_or(Problem::NotOnline { frame: first })?;
            let expected = *stubs.get_or_insert(seen.frame);
            if seen.writable || seen.executable || seen.frame != expected {
                let holder = Some(seen.frame);
                return Err(Problem::Holder {
                    frame: first,
                    holder,
                });
            }
            for frame in [first, first.saturating_add(per_page - 1)] {
                let word = self
                    .on
                    .probe
                    .load(self.word_address(frame, FrameInfo::<E>::WORD)?)?;
                if !E::is_stub(word) {
                    return Err(Problem::Part { frame });
                }
                let head = frame.align_down(case.order);
                let found = E::head_of(self.address(frame)?, word);
                let found = self.vmemmap.frame_of_descriptor(found);
                if found != Some(head) {
                    return Err(Problem::Head { frame, found });
                }
            }
        }
        Ok(())
    }

    /// A store through the vmemmap faults: at the first frame of each page, where its head would be, and at others.
    fn stubs_refuse_stores(&self, case: &Case) -> Result<(), Problem> {
        let per_page = self.on.model.descriptors_per_page();
        let compound = case.order.frames();
        for first in every(case.range, compound) {
            for offset in [0, 1, per_page - 1, compound / 2, compound - 1] {
                let frame = first.saturating_add(offset);
                self.refuses_store(self.word_address(frame, FrameInfo::<E>::OWNER)?)?;
            }
        }
        Ok(())
    }

    /// What is stored in each head by its address is there, the library finds it by the frame, and no other head has it.
    fn heads_are_stored_to(&self, case: &Case) -> Result<(), Problem> {
        let heads = || every(case.range, case.order.frames());
        for first in heads() {
            let word =
                self.on
                    .probe
                    .load(self.word_of_head(case, first, FrameInfo::<E>::WORD)?)?;
            equal("as the word of a head", word, E::head_word())?;
            let at = self.word_of_head(case, first, FrameInfo::<E>::OWNER)?;
            // SAFETY: 1: the owner's word of a head, which may have any value.
            unsafe { self.on.probe.store(at, stored_for(first)) }?;
        }
        for first in heads() {
            let at = self.word_of_head(case, first, FrameInfo::<E>::OWNER)?;
            let (found, expected) = (self.on.probe.load(at)?, stored_for(first));
            if found != expected {
                return Err(Problem::Word {
                    at,
                    found,
                    expected,
                });
            }
            let head = self.vmemmap.descriptor(&*self.table, first);
            let head = head.and_then(|head| head.own());
            let head = head.ok_or(Problem::Head {
                frame: first,
                found: None,
            })?;
            let found = head.owner().load(core::sync::atomic::Ordering::Relaxed);
            equal("as the owner of a head", found, expected)?;
        }
        Ok(())
    }

    /// The places next to those of the case's pages, where they are in the same page of heads, say that nobody has them.
    fn places_beside_are_vacant(&self, case: &Case) -> Result<(), Problem> {
        let in_page = self.on.model.granule().bytes() - 1;
        let size = self.on.model.descriptor_bytes();
        let first = self.place(case, case.range.start())?;
        let last = self.place(case, case.range.last())?;
        let below = first.get() & in_page != 0;
        let below = below.then(|| VirtAddr::new(first.get() - size));
        let above = VirtAddr::new(last.get() + size);
        let above = (above.get() & in_page != 0).then_some(above);
        for place in [below, above].into_iter().flatten() {
            let at = place.checked_add(FrameInfo::<E>::WORD);
            let at = at.ok_or(Problem::NoFault { at: place })?;
            equal(
                "as the word of a vacant place",
                self.on.probe.load(at)?,
                E::vacant_word(),
            )?;
        }
        Ok(())
    }

    /// Where heads were, loads fault.
    fn heads_fault(&self, case: &Case) -> Result<(), Problem> {
        every(case.range, case.order.frames()).try_for_each(|first| {
            self.faults(self.word_of_head(case, first, FrameInfo::<E>::OWNER)?)
        })
    }
}
