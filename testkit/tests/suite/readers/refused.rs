//! What is frozen is refused to every other operation, which names its first page and changes nothing.

use super::bed::{Bed, on_bed, pagemap};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{Change, FoldError, OfflineError, OnlineError, Region};
use testkit::on_backends;
use testkit::testbed::Sizes;

const NODE: NodeId = NodeId::new(0);

/// Three pages, each of which can be folded, unfolded and split.
struct Memory<'p> {
    base: DevPagemap<'p>,
    compound: DevPagemap<'p>,
    all: PfnRange,
    order: Order,
}

impl Memory<'_> {
    fn page(&self, index: u64) -> PfnRange {
        let first = self.all.start().saturating_add(index * self.order.frames());
        PfnRange::new(first, self.order.frames()).unwrap()
    }

    /// Every operation refuses `frames`, which have the frozen page at `first`.
    fn is_refused(&self, bed: &mut Bed<'_>, frames: PfnRange, first: Pfn) {
        let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
        let frozen = OfflineError::Frozen { first };
        let region = vmemmap.region(&*table, &self.compound).unwrap();
        assert_eq!(vmemmap.offline(table, region), Err(frozen));
        assert_eq!(
            vmemmap.depopulate(table, &self.compound, frames),
            Err(frozen)
        );
        let subsection = vmemmap.model().subsection();
        let last = PfnRange::new(frames.last().align_down(subsection), subsection.frames());
        let in_frozen = PfnRange::new(first, self.order.frames()).unwrap();
        if let Some(part) = last.unwrap().intersection(in_frozen) {
            // A part of the page, without its head if there is more of it.
            let refused = vmemmap.depopulate(table, &self.compound, part);
            assert_eq!(refused, Err(frozen));
        }
        let refused = vmemmap.populate(table, &self.compound, frames);
        assert!(
            matches!(refused, Err(OnlineError::AlreadyMapped { .. })),
            "{refused:?}"
        );

        let frozen = FoldError::Frozen { first };
        let folded = vmemmap.fold(table, &self.compound, frames);
        assert_eq!(folded.err(), Some(frozen));
        let unfolded = vmemmap.unfold(table, &self.compound, frames);
        assert_eq!(unfolded.err(), Some(frozen));
        let reshaped = vmemmap.reshape(&*table, &self.compound, frames);
        assert_eq!(reshaped.err(), Some(frozen));
        let step = vmemmap.reorder_step(table, &self.base, in_frozen);
        assert_eq!(step.err(), Some(frozen));
        let part = in_frozen.split_at(in_frozen.frames() / 2).1.unwrap();
        let step = vmemmap.reorder_step(table, &self.base, part);
        assert_eq!(step.err(), Some(frozen));

        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        unsafe {
            let refused = vmemmap.freeze(&*table, &self.compound, frames, 1);
            assert_eq!(refused.err(), Some(OfflineError::Frozen { first }));
            let refused = vmemmap.try_offline(table, &self.compound, frames, 1);
            assert_eq!(refused.err(), Some(OfflineError::Frozen { first }));
        }
    }

    /// What is not frozen can be changed, whatever is frozen beside it.
    fn can_be_used(&self, bed: &mut Bed<'_>, frames: PfnRange) {
        let (vmemmap, table) = (&mut bed.vmemmap, &mut bed.table);
        let unfolded = vmemmap.unfold(table, &self.compound, frames).unwrap();
        assert_eq!(unfolded.changed, 1);
        vmemmap.reshape(&*table, &self.compound, frames).unwrap();
        let folded = vmemmap.fold(table, &self.compound, frames).unwrap();
        assert_eq!(folded.changed, 1);
        let needed = vmemmap.reserve_needed(&*table, &self.base, frames, self.order);
        let filled = vmemmap.fill_reserve(table, NODE, needed);
        filled.map(drop).unwrap();
        vmemmap
            .reorder(table, &self.base, frames)
            .map(drop)
            .unwrap();
        vmemmap
            .reorder(table, &self.compound, frames)
            .map(drop)
            .unwrap();
        vmemmap.empty_reserve(table);
        let gone = vmemmap.depopulate(table, &self.compound, frames);
        gone.map(drop).unwrap();
        let there = vmemmap.populate(table, &self.compound, frames);
        there.map(drop).unwrap();
    }
}

fn on_memory(kind: BackendKind, test: impl Fn(&mut Bed<'_>, &Memory<'_>)) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 3, 3)];
    on_bed(kind, |bed| {
        let [base, compound] = [Order::BASE, order].map(|order| {
            pagemap(&kind.model(), &ranges, order).with_tails(match order {
                Order::BASE => Tails::None,
                _ => Tails::PerCompound,
            })
        });
        let memory = Memory {
            base,
            compound,
            all: ranges[0],
            order,
        };
        let region: Region<'_> = bed
            .vmemmap
            .online(&mut bed.table, &memory.compound)
            .unwrap();
        test(bed, &memory);
        bed.audit();
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

/// Both what goes offline and what is to change: each operation refuses it, and the first frozen page is
/// named also where others are before it.
fn what_is_frozen_is_refused_to_all_operations(kind: BackendKind) {
    on_memory(kind, |bed, memory| {
        let page = memory.page(1);
        let before = bed.audit();
        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &memory.compound, page, 1) };
        let frozen = frozen.unwrap();
        memory.is_refused(bed, page, page.start());
        memory.is_refused(bed, memory.all, page.start());
        memory.can_be_used(bed, memory.page(0));
        memory.can_be_used(bed, memory.page(2));
        // SAFETY: as above.
        let refused = unsafe { bed.vmemmap.freeze_units(&bed.table, &memory.base, page, 1) };
        let first = page.start();
        assert_eq!(refused.err(), Some(FoldError::Frozen { first }));
        drop(frozen);
        memory.can_be_used(bed, page);
        assert_eq!(bed.audit(), before);
    });
}

fn units_that_are_frozen_are_refused_to_all_operations(kind: BackendKind) {
    on_memory(kind, |bed, memory| {
        let page = memory.page(1);
        let before = bed.audit();
        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        let frozen = unsafe {
            bed.vmemmap
                .freeze_units(&bed.table, &memory.compound, page, 1)
        };
        let frozen = frozen.unwrap();
        memory.is_refused(bed, page, page.start());
        memory.is_refused(bed, memory.all, page.start());
        memory.can_be_used(bed, memory.page(2));
        // Others are frozen beside it, and it is busy.
        // SAFETY: as above.
        let all = unsafe {
            bed.vmemmap
                .freeze_units(&bed.table, &memory.compound, memory.all, 1)
        };
        let all = all.unwrap();
        assert_eq!(all.busy(), 1);
        memory.is_refused(bed, memory.all, memory.page(0).start());
        let table = &mut bed.table;
        let all = all.wait();
        let unfold = Change::Unfold;
        let changed = bed
            .vmemmap
            .commit_change(table, all, unfold, &memory.compound, 1);
        assert_eq!(changed.folded.changed, 2);
        memory.is_refused(bed, page, page.start());
        let quiescent = frozen.wait();
        let table = &mut bed.table;
        let changed = bed
            .vmemmap
            .commit_change(table, quiescent, unfold, &memory.compound, 1);
        assert_eq!((changed.folded.changed, changed.error), (1, None));
        let table = &mut bed.table;
        let folded = bed.vmemmap.fold(table, &memory.compound, memory.all);
        assert_eq!(folded.unwrap().changed, 3);
        assert_eq!(bed.audit(), before);
    });
}

/// A page that is not all there is found by nobody, as what is frozen. It is not taken for that.
fn an_incomplete_page_goes_offline_beside_frozen_memory(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.table();
    let ranges = [sizes.blocks(order, 3, 2)];
    on_bed(kind, |bed| {
        let pages = pagemap(&kind.model(), &ranges, order).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &pages).unwrap();
        let [one, other] = [3, 4].map(|page| sizes.blocks(order, page, 1));
        let subsections = sizes.subsections(one);
        let (last, rest) = subsections.split_last().unwrap();
        let gone = bed.vmemmap.depopulate(&mut bed.table, &pages, *last);
        gone.map(drop).unwrap();
        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &pages, other, 1) };
        for part in rest {
            let gone = bed.vmemmap.depopulate(&mut bed.table, &pages, *part);
            gone.map(drop).unwrap();
        }
        drop(frozen.unwrap());
        bed.expect(ranges[0], &[(other, order)]);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

on_backends!(radix:
    what_is_frozen_is_refused_to_all_operations,
    units_that_are_frozen_are_refused_to_all_operations,
    an_incomplete_page_goes_offline_beside_frozen_memory,
);
