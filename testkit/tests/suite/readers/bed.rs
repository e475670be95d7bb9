//! A vmemmap with readers, on a machine whose CPUs are threads.

use arch_sim::{SimFrames, SimMemory};
use hosted::{AnyTable, BackendKind};
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::Replacement;
use mm_core::readers::{OnlineEntry, Reader, Readers};
use mm_core::vmemmap::{AuditReport, AuditSlot, Vmemmap};
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::testbed::Sizes;
use testkit::threads::{ThreadCpus, ThreadKernel};

pub(super) type Array<'m> =
    Vmemmap<Page<Mask>, &'m SimFrames, &'m SimMemory, Readers<'m, ThreadKernel<'m>>>;
pub(super) type Handle<'m> = Reader<'m, Page<Mask>, ThreadKernel<'m>>;

/// What a test works with.
pub(super) struct Bed<'m> {
    pub(super) kind: BackendKind,
    pub(super) table: AnyTable<'m>,
    pub(super) vmemmap: Array<'m>,
    pub(super) frames: &'m SimFrames,
    pub(super) memory: &'m SimMemory,
    pub(super) kernel: &'m ThreadKernel<'m>,
    pub(super) readers: Readers<'m, ThreadKernel<'m>>,
}

/// Hands a bed to `test`, after which nothing may be online, and nothing may be left.
pub(super) fn on_bed(kind: BackendKind, test: impl FnOnce(&mut Bed<'_>)) {
    on_bed_with(kind, Replacement::Direct, test);
}

/// The same, where entries in use are exchanged by `replacement`.
pub(super) fn on_bed_with(
    kind: BackendKind,
    replacement: Replacement,
    test: impl FnOnce(&mut Bed<'_>),
) {
    let granule = kind.model().granule();
    // Above all memory of the tests, and within what every format reaches.
    let ram = PfnRange::new(Pfn::new(3 << 30).unwrap(), 1 << 15).unwrap();
    let root_table = ram.last().saturating_add(1 << 10);
    let chunks = [ram, PfnRange::single(root_table)];
    let memory = SimMemory::new(granule, &chunks).unwrap();
    let frames = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
    let cpus = ThreadCpus::new(kind, &memory, root_table, replacement);
    let kernel = ThreadKernel::new(&cpus);
    let root: Vec<_> = (0..kind.model().online_entries())
        .map(|_| OnlineEntry::new())
        .collect();
    let readers = Readers::new(kind.model(), &root, &kernel).unwrap();
    // SAFETY: 1: the root is zero. 2: the memory has all frames. 3: the one table.
    let table = unsafe { cpus.table(&frames) };
    // SAFETY: 1: there is one table, one memory and one vmemmap. 2: the root is new.
    let vmemmap = unsafe { Vmemmap::with_readers(readers, &frames, &memory) };
    let mut bed = Bed {
        kind,
        table,
        vmemmap: vmemmap.unwrap(),
        frames: &frames,
        memory: &memory,
        kernel: &kernel,
        readers,
    };
    test(&mut bed);
    assert_eq!(bed.audit(), AuditReport::default(), "at the end");
    assert_eq!(frames.outstanding(), 0, "at the end");
    assert!(memory.violations().is_empty(), "{}", memory.violations());
}

impl<'m> Bed<'m> {
    pub(super) fn model(&self) -> MemoryModel {
        self.kind.model()
    }

    /// A handle, which is used as it may be.
    pub(super) fn reader(&self) -> Handle<'m> {
        // SAFETY: 1: all CPUs translate by the machine's one table. 2 to 4: tests fold nothing
        // that they read or store to, and take nothing offline that they have a reference to.
        unsafe { self.vmemmap.reader() }
    }

    pub(super) fn audit(&self) -> AuditReport {
        let out = self.frames.outstanding() as usize;
        let mut scratch = vec![AuditSlot::default(); 64 + out + out / 2];
        let report = self
            .vmemmap
            .audit(&self.table, &[self.frames], &mut scratch);
        report.unwrap_or_else(|finding| panic!("{finding}"))
    }

    /// Readers find the pages of `online`, each of the order that is named, and nothing else of `all`.
    /// Asked about are the ends of each subsection, and of each page near them.
    pub(super) fn expect(&self, all: PfnRange, online: &[(PfnRange, Order)]) {
        let reader = self.reader();
        let reading = reader.enter();
        for subsection in Sizes::of(self.model()).subsections(all) {
            let second = subsection.start().saturating_add(1);
            for frame in [subsection.start(), second, subsection.last()] {
                let expected = online.iter().find(|(frames, _)| frames.contains(frame));
                let expected = expected.map(|(_, order)| (frame.align_down(*order), *order));
                let found = reading.page_of(frame);
                let found = found.map(|page| (page.first(), page.order()));
                assert_eq!(found, expected, "the page of {frame}");
                assert_eq!(reading.is_online(frame), expected.is_some(), "{frame}");
            }
        }
    }
}

/// How many frames one entry of the online map is for: their bits fill a frame.
pub(super) fn span(model: &MemoryModel) -> u64 {
    let bits = model.granule().bytes() * 8;
    model.subsection().frames() * bits
}

/// A pagemap of compound pages, without what tests here are not about.
pub(super) fn pagemap<'p>(
    model: &MemoryModel,
    ranges: &'p [PfnRange],
    order: Order,
) -> DevPagemap<'p> {
    DevPagemap::new(model, ranges, Geometry::compound(order))
        .unwrap()
        .with_huge_leaves(false)
}

/// Ends the readers when the writer has ended, also where that fails.
pub(super) struct Done<'d>(pub(super) &'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
