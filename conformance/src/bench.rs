//! What all checks work with.

use crate::harness::{AltmapUnderTest, Harness, Parts, Powers, Seen};
use crate::outcome::{Failure, Outcome, Stop, Verdict, ensure_at, equal, equal_at, fail, skip};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange, VirtAddr};
use mm_core::descriptor::{Descriptor, Page, Pointer, TailEncoding};
use mm_core::frame::{DirectMap, InspectFrames};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::PageTable;
use mm_core::vmemmap::{AuditReport, AuditSlot, OfflineError, OnlineError, Region, Vmemmap};

/// The vmemmap that checks work on.
type Subject<'h, H, E> =
    Vmemmap<Page<E>, &'h <H as Harness>::Frames, &'h <H as Harness>::DirectMap>;

/// A harness's parts, and a vmemmap made of them whose tails name their heads by `E`.
pub(crate) struct Bench<'h, H: Harness, E = Pointer> {
    pub(crate) model: MemoryModel,
    pub(crate) table: &'h mut H::Table,
    pub(crate) frames: &'h H::Frames,
    pub(crate) direct_map: &'h H::DirectMap,
    pub(crate) powers: &'h H::Powers,
    pub(crate) node: NodeId,
    pub(crate) altmap: Option<&'h dyn AltmapUnderTest>,
    pub(crate) ends_are_free: bool,
    pub(crate) vmemmap: Subject<'h, H, E>,
    device: PfnRange,
    scratch: &'h mut [AuditSlot],
}

impl<'h, H: Harness, E: TailEncoding> Bench<'h, H, E> {
    pub(crate) fn new(parts: Parts<'h, H>) -> Result<Self, Failure> {
        // SAFETY: 1 to 3: the harness hands over the one page table, with its vmemmap free, and a
        // direct map for its frames.
        let vmemmap = unsafe { Vmemmap::new(parts.model, parts.frames, parts.direct_map) };
        let vmemmap = vmemmap.map_err(|mismatch| Failure {
            what: "the model's descriptors have the size of `Page`",
            at: None,
            expected: mismatch.descriptor as u64,
            found: mismatch.model,
        })?;
        Ok(Self {
            model: parts.model,
            table: parts.table,
            frames: parts.frames,
            direct_map: parts.direct_map,
            powers: parts.powers,
            node: parts.node,
            altmap: parts.altmap,
            ends_are_free: parts.ends_are_free,
            vmemmap,
            device: parts.device,
            scratch: parts.scratch,
        })
    }

    /// Runs `check`, and checks that it has left nothing behind.
    pub(crate) fn run(&mut self, check: fn(&mut Self) -> Verdict) -> Outcome {
        let verdict = self.audit().and_then(|before| {
            let outstanding = self.outstanding();
            let violations = self.powers.violations();
            let verdict = check(self);
            self.powers.fail_after(None);
            self.powers.fail_blocks(false);
            verdict?;
            equal(violations, self.powers.violations(), "no rule was broken")?;
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
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(failure)) => Outcome::Failed(failure),
            Err(Stop::Skipped(why)) => Outcome::Skipped(why),
        }
    }

    /// Frames that are out, of RAM and of the altmap; 0 where the allocator cannot tell.
    pub(crate) fn outstanding(&self) -> u64 {
        let altmap = self.altmap.and_then(|altmap| altmap.outstanding());
        self.frames.outstanding().unwrap_or(0) + altmap.unwrap_or(0)
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
        use mm_core::vmemmap::Finding;
        audit.map_err(|finding| {
            let (what, at, expected, found) = match finding {
                Finding::Count {
                    at,
                    entries,
                    references,
                    ..
                } => (
                    "entries own one reference each",
                    Some(at),
                    entries,
                    references,
                ),
                Finding::Unknown { frame, at } => {
                    ("an allocator knows the frame", Some(at), 1, frame.get())
                }
                Finding::Leaked {
                    outstanding,
                    reached,
                } => ("entries reach every frame", None, reached, outstanding),
                _ => ("the audit is clean", None, 1, 0),
            };
            Stop::Failed(Failure {
                what,
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
            let all = report.frames();
            equal(
                self.outstanding(),
                all,
                "every frame that is out is counted",
            )?;
        }
        Ok(())
    }

    /// Aligned blocks of `order` of device memory, one after the other, from the one with the
    /// number `first` on.
    pub(crate) fn blocks(&self, order: Order, first: u64, count: u64) -> Result<PfnRange, Stop> {
        let frames = order.frames();
        let start = self.device.start().get().next_multiple_of(frames);
        let start = Pfn::new(start + first * frames);
        match start.and_then(|start| PfnRange::new(start, count * frames).ok()) {
            Some(range) if self.device.contains_range(range) => Ok(range),
            _ => skip("the device has too little memory"),
        }
    }

    /// The smallest order whose compound pages are whole subsections and share tails.
    pub(crate) fn small(&self) -> Order {
        let mut order = self.model.subsection();
        while self.model.vmemmap_pages(order) <= 2 {
            match Order::new(order.get() + 1) {
                Some(next) => order = next,
                None => break,
            }
        }
        order
    }

    /// The order of eight sections: of compound pages that are populated in pieces.
    pub(crate) fn large(&self) -> Result<Order, Stop> {
        match Order::new(self.model.section().get() + 3) {
            Some(order) if order <= self.model.max_order() => Ok(order),
            _ => skip("the model has no compound pages of eight sections"),
        }
    }

    pub(crate) fn pages(&self, frames: PfnRange) -> u64 {
        frames.frames() / self.model.descriptors_per_page()
    }

    pub(crate) fn pagemap<'r>(
        &self,
        ranges: &'r [PfnRange],
        order: Order,
    ) -> Result<DevPagemap<'r>, Stop> {
        match DevPagemap::new(&self.model, ranges, Geometry::compound(order)) {
            Ok(pagemap) => Ok(pagemap.with_node(self.node)),
            Err(_) => fail("the pagemap is accepted"),
        }
    }

    pub(crate) fn try_online<'p>(
        &mut self,
        pagemap: &DevPagemap<'p>,
    ) -> Result<Region<'p>, OnlineError> {
        self.vmemmap.online(self.table, pagemap)
    }

    pub(crate) fn online<'p>(&mut self, pagemap: &DevPagemap<'p>) -> Result<Region<'p>, Stop> {
        self.try_online(pagemap)
            .or_else(|_| fail("memory comes online"))
    }

    /// Lets the CPUs cache everything first.
    pub(crate) fn offline(&mut self, region: Region<'_>) {
        for range in region.pagemap().ranges() {
            self.speculate(*range);
        }
        self.vmemmap.offline(self.table, region);
    }

    pub(crate) fn populate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        match self.vmemmap.populate(self.table, pagemap, piece) {
            Ok(_) => Ok(()),
            Err(_) => fail("a piece comes online"),
        }
    }

    pub(crate) fn depopulate(&mut self, pagemap: &DevPagemap<'_>, piece: PfnRange) -> Verdict {
        self.speculate(piece);
        match self.vmemmap.depopulate(self.table, pagemap, piece) {
            Ok(_) => Ok(()),
            Err(_) => fail("a piece goes offline"),
        }
    }

    pub(crate) fn try_depopulate(
        &mut self,
        pagemap: &DevPagemap<'_>,
        piece: PfnRange,
    ) -> Result<(), OfflineError> {
        let offlined = self.vmemmap.depopulate(self.table, pagemap, piece);
        offlined.map(|_| ())
    }

    fn speculate(&self, frames: PfnRange) {
        if let Some(range) = self.model.descriptors(frames) {
            self.powers.speculate(self.table, range);
        }
    }

    /// What the independent reader sees at the descriptor of `frame`.
    pub(crate) fn seen(&self, frame: Pfn) -> Result<Option<Seen>, Stop> {
        let at = self.address(frame)?;
        match self.powers.translate(self.table, at) {
            Some(seen) => Ok(seen),
            None => skip("the harness has no independent reader of translations"),
        }
    }

    pub(crate) fn address(&self, frame: Pfn) -> Result<VirtAddr, Stop> {
        match self.model.descriptor_address(frame) {
            Some(at) => Ok(at),
            None => fail("the vmemmap has room for the device's memory"),
        }
    }

    /// Checks that nothing translates for any page of `frames`.
    pub(crate) fn absent(&self, frames: PfnRange) -> Verdict {
        for page in 0..self.pages(frames) {
            let frame = self.frame_of_page(frames, page);
            let at = self.address(frame)?;
            ensure_at(
                self.table.lookup(at).is_none(),
                "the page table finds nothing",
                at,
            )?;
            ensure_at(
                !self.vmemmap.is_valid(&*self.table, frame),
                "memory that is not online is not valid",
                at,
            )?;
            if let Some(seen) = self.powers.translate(self.table, at) {
                ensure_at(seen.is_none(), "nothing is mapped", at)?;
            }
        }
        Ok(())
    }

    /// The first frame that the vmemmap page number `page` of `frames` describes.
    pub(crate) fn frame_of_page(&self, frames: PfnRange, page: u64) -> Pfn {
        let first = page * self.model.descriptors_per_page();
        frames.start().saturating_add(first)
    }

    /// The frame that holds the descriptor of `frame`: what the independent reader says, where
    /// there is one, and the same as the page table says.
    pub(crate) fn holder(&self, frame: Pfn) -> Result<Pfn, Stop> {
        let at = self.address(frame)?;
        let found = self.table.lookup(at);
        let Some(found) = found.and_then(|found| found.frame_of(at, self.model.granule())) else {
            ensure_at(false, "the page table finds the descriptors", at)?;
            return fail("the page table finds the descriptors");
        };
        if let Some(seen) = self.powers.translate(self.table, at) {
            let seen = seen.map_or(u64::MAX, |seen| seen.frame.get());
            equal_at(found.get(), seen, "both readers find the same frame", at)?;
        }
        Ok(found)
    }

    /// Checks the descriptors of `frames`, memory in compound pages of `order`: those of a vmemmap
    /// page's first and last frame.
    pub(crate) fn described(&self, frames: PfnRange, order: Order) -> Verdict {
        let last_in_page = self.model.descriptors_per_page() - 1;
        for page in 0..self.pages(frames) {
            let first = self.frame_of_page(frames, page);
            let holder = self.holder(first)?;
            for index in [0, last_in_page] {
                let frame = first.saturating_add(index);
                let at = self.address(frame)?;
                let pointer = self.direct_map.frame_pointer(holder).cast::<Page<E>>();
                // SAFETY: the frame is mapped by the library as a page of descriptors, which fit it
                // exactly; descriptors are only shared.
                let page = unsafe { pointer.add(index as usize).as_ref() };
                equal_at(order.get().into(), page.order().get().into(), "order", at)?;
                let head = self.address(frame.align_down(order))?;
                let found = E::head_of(at, page.word());
                equal_at(head.get(), found.get(), "address of the head", at)?;
                let is_tail = u64::from(at != head);
                equal_at(is_tail, page.is_tail().into(), "tail", at)?;
                let head_of = self.vmemmap.head_of(&*self.table, frame);
                let head_of = head_of.map_or(u64::MAX, Pfn::get);
                equal_at(frame.align_down(order).get(), head_of, "head_of", at)?;
            }
        }
        Ok(())
    }

    /// How many references the allocators count for the block at `frame`.
    pub(crate) fn references(&self, frame: Pfn) -> Option<u64> {
        let altmap = self.altmap.and_then(|altmap| altmap.references(frame));
        altmap.or_else(|| self.frames.references(frame))
    }
}
