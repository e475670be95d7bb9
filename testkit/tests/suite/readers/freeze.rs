//! Memory that goes offline only if nobody else has references to it.

use super::bed::{Bed, on_bed, pagemap, span};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::{DevPagemap, Piece, Tables, Tails};
use mm_core::readers::{NoReference, Readers};
use mm_core::vmemmap::{OfflineError, Vmemmap};
use testkit::on_backends;
use testkit::testbed::Sizes;

/// Four pages of an order, online, by a pagemap in pieces of whole ranges.
pub(super) struct Online<'p> {
    pub(super) pagemap: DevPagemap<'p>,
    pub(super) all: PfnRange,
    pub(super) order: Order,
}

impl<'p> Online<'p> {
    fn new(kind: BackendKind, ranges: &'p [PfnRange], order: Order, bed: &mut Bed<'_>) -> Self {
        let pagemap = pagemap(&kind.model(), ranges, order).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        drop(region);
        Self {
            pagemap,
            all: ranges[0],
            order,
        }
    }

    pub(super) fn page(&self, index: u64) -> PfnRange {
        let first = self.all.start().saturating_add(index * self.order.frames());
        PfnRange::new(first, self.order.frames()).unwrap()
    }

    /// Readers find all pages but those of `gone`.
    pub(super) fn expect(&self, bed: &Bed<'_>, gone: &[u64]) {
        let there = (0..4).filter(|index| !gone.contains(index));
        let found: Vec<_> = there.map(|index| (self.page(index), self.order)).collect();
        bed.expect(self.all, &found);
        bed.audit();
    }

    pub(super) fn rest_goes_offline(&self, bed: &mut Bed<'_>, gone: &[u64]) {
        for index in (0..4).filter(|index| !gone.contains(index)) {
            let page = self.page(index);
            bed.vmemmap
                .depopulate(&mut bed.table, &self.pagemap, page)
                .unwrap();
        }
        self.expect(bed, &[0, 1, 2, 3]);
    }
}

pub(super) fn on_pages(kind: BackendKind, test: impl Fn(&mut Bed<'_>, &Online<'_>)) {
    let sizes = Sizes::of(kind.model());
    for order in [sizes.natural(), sizes.table()] {
        let ranges = [sizes.blocks(order, 3, 4)];
        on_bed(kind, |bed| {
            let online = Online::new(kind, &ranges, order, bed);
            test(bed, &online);
        });
    }
}

fn pages_in_use_stay_and_are_named(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let reader = bed.reader();
        let in_use = online.page(2);
        let reference = reader.enter().reference(in_use.last()).unwrap();
        let pages = PfnRange::new(online.page(1).start(), 3 * online.order.frames()).unwrap();
        let before = bed.frames.outstanding();
        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        let refused = unsafe {
            bed.vmemmap
                .try_offline(&mut bed.table, &online.pagemap, pages, 1)
        };
        let first = in_use.start();
        assert_eq!(refused, Err(OfflineError::Busy { first }));
        assert_eq!(bed.frames.outstanding(), before);
        online.expect(bed, &[]);
        // The pages before it were frozen, and are no longer.
        for index in 0..4 {
            drop(reader.enter().reference(online.page(index).last()).unwrap());
        }
        drop(reference);
        // SAFETY: as above.
        let gone = unsafe {
            bed.vmemmap
                .try_offline(&mut bed.table, &online.pagemap, pages, 1)
        };
        gone.map(drop).unwrap();
        online.expect(bed, &[1, 2, 3]);
        online.rest_goes_offline(bed, &[1, 2, 3]);
    });
}

fn frozen_memory_is_not_found_and_is_thawed_by_dropping_it(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let page = online.page(1);
        // SAFETY: 1: as for the reader. 2: the owner's reference is the test's, which does not use
        // it.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, page, 1) };
        let frozen = frozen.unwrap();
        assert_eq!(frozen.frames(), page);
        online.expect(bed, &[1]);
        let refused = bed.reader().enter().reference(page.last()).err();
        assert_eq!(refused, Some(NoReference::NotOnline));
        drop(frozen);
        online.expect(bed, &[]);
        assert!(bed.reader().enter().reference(page.last()).is_ok());
        // SAFETY: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, page, 1) };
        let quiescent = frozen.unwrap().wait();
        bed.vmemmap.commit(&mut bed.table, quiescent).unwrap();
        online.expect(bed, &[1]);
        online.rest_goes_offline(bed, &[1]);
    });
}

fn all_of_a_vmemmap_can_be_used_beside_frozen_memory(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let [frozen, other] = [online.page(0), online.page(3)];
        // SAFETY: 1: as for the reader. 2: the owner's reference is the test's, which does not use
        // it.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, frozen, 1) };
        let frozen = frozen.unwrap();
        for index in [1, 2, 3] {
            let page = online.page(index);
            bed.vmemmap
                .depopulate(&mut bed.table, &online.pagemap, page)
                .unwrap();
        }
        // No bit is set, and the frame of bits stays for those that may be thawed.
        assert_eq!(bed.audit().online_map_frames, 1);
        bed.expect(online.all, &[]);
        bed.vmemmap
            .populate(&mut bed.table, &online.pagemap, other)
            .unwrap();
        online.expect(bed, &[0, 1, 2]);
        bed.vmemmap
            .depopulate(&mut bed.table, &online.pagemap, other)
            .unwrap();
        drop(frozen);
        online.expect(bed, &[1, 2, 3]);
        online.rest_goes_offline(bed, &[1, 2, 3]);
    });
}

fn what_cannot_be_committed_is_thawed(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        // One huge leaf, of which a half is to go: the other half needs a table.
        let ranges = [sizes.blocks(sizes.table(), 3, 1)];
        let base = pagemap(&kind.model(), &ranges, Order::BASE)
            .with_huge_leaves(true)
            .with_piece(Piece::Range);
        let region = bed.vmemmap.online(&mut bed.table, &base).unwrap();
        let half = ranges[0].split_at(ranges[0].frames() / 2).1.unwrap();
        // SAFETY: 1: as for the reader. 2: the owner's references are the test's, which uses none.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &base, half, 1) };
        let quiescent = frozen.unwrap().wait();
        bed.frames.fail_after(0);
        let refused = bed.vmemmap.commit(&mut bed.table, quiescent);
        bed.frames.no_more_faults();
        assert!(
            matches!(refused, Err(OfflineError::OutOfFrames(_))),
            "{refused:?}"
        );
        bed.expect(ranges[0], &[(ranges[0], Order::BASE)]);
        bed.audit();
        assert!(bed.reader().enter().reference(half.last()).is_ok());
        // SAFETY: as above.
        let gone = unsafe { bed.vmemmap.try_offline(&mut bed.table, &base, half, 1) };
        gone.map(drop).unwrap();
        bed.audit();
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn a_part_of_a_whole_span_is_frozen_only_with_a_frame_for_its_bits(kind: BackendKind) {
    let span = span(&kind.model());
    let order = Order::new(span.trailing_zeros() as u8 - 5).unwrap();
    let ranges = [Sizes::of(kind.model()).blocks(order, 32, 32)];
    let pagemap = pagemap(&kind.model(), &ranges, order)
        .with_tails(Tails::PerOrder)
        .with_tables(Tables::Shared)
        .with_piece(Piece::Range);
    on_bed(kind, |bed| {
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        assert_eq!(bed.audit().online_map_frames, 0);
        let page = PfnRange::new(ranges[0].start(), order.frames()).unwrap();
        let found = [(ranges[0], order)];
        bed.frames.fail_after(0);
        // SAFETY: 1: as for the reader. 2: the owner's reference is the test's, which does not use
        // it.
        let refused = unsafe { bed.vmemmap.freeze(&bed.table, &pagemap, page, 1) };
        bed.frames.no_more_faults();
        assert!(matches!(refused, Err(OfflineError::OutOfFrames(_))));
        let is_found = |bed: &Bed<'_>| {
            let reading = bed.reader();
            let page = reading
                .enter()
                .page_of(page.last())
                .map(|page| page.frames());
            page.is_some_and(|page| found[0].0.contains_range(page))
        };
        assert!(is_found(bed));
        assert!(bed.reader().enter().reference(page.last()).is_ok());
        // SAFETY: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &pagemap, page, 1) };
        assert!(!is_found(bed));
        assert_eq!(bed.audit().online_map_frames, 1);
        drop(frozen.unwrap());
        assert!(is_found(bed));
        // All of it at once needs none, frozen and thawed.
        // SAFETY: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &pagemap, ranges[0], 1) };
        drop(frozen.unwrap());
        assert!(is_found(bed));
        // SAFETY: as above.
        let gone = unsafe {
            bed.vmemmap
                .try_offline(&mut bed.table, &pagemap, ranges[0], 1)
        };
        gone.map(drop).unwrap();
        assert_eq!(bed.audit().frames(), 0);
        // It is offline already.
        let offlined = bed.vmemmap.offline(&mut bed.table, region).unwrap();
        assert_eq!(offlined.kept, 0);
    });
}

fn what_is_no_whole_page_or_another_vmemmaps_is_refused(kind: BackendKind) {
    on_pages(kind, |bed, online| {
        let page = online.page(1);
        let subsection = kind.model().subsection().frames();
        if page.frames() > subsection {
            let part = page.take_first(subsection).0;
            // SAFETY: 1: as for the reader. 2: the owner's reference is the test's.
            let refused = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, part, 1) };
            assert_eq!(
                refused.err(),
                Some(OfflineError::SplitsPage { pages: page })
            );
        }
        let misaligned = PfnRange::new(page.start(), page.frames() - 1).unwrap();
        // SAFETY: as above.
        let refused = unsafe {
            bed.vmemmap
                .freeze(&bed.table, &online.pagemap, misaligned, 1)
        };
        assert!(matches!(
            refused.err(),
            Some(OfflineError::PieceMisaligned { .. })
        ));
        let outside = PfnRange::new(online.all.last().saturating_add(1), page.frames()).unwrap();
        // SAFETY: as above.
        let refused = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, outside, 1) };
        assert!(matches!(
            refused.err(),
            Some(OfflineError::PieceOutside { .. })
        ));
        // SAFETY: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, &online.pagemap, page, 1) };
        let quiescent = frozen.unwrap().wait();
        let root: Vec<_> = (0..kind.model().online_entries())
            .map(|_| mm_core::readers::OnlineEntry::new())
            .collect();
        {
            let readers = Readers::new(kind.model(), &root, bed.kernel).unwrap();
            // SAFETY: 1: it brings nothing online, and is used for nothing that it would take. 2:
            // the root
            // is new.
            let other = unsafe { Vmemmap::with_readers(readers, bed.frames, bed.memory) };
            let mut other = other.unwrap();
            let refused = other.commit(&mut bed.table, quiescent);
            assert_eq!(refused, Err(OfflineError::OtherVmemmap));
        }
        online.expect(bed, &[]);
        online.rest_goes_offline(bed, &[]);
    });
}

on_backends!(radix:
    pages_in_use_stay_and_are_named,
    frozen_memory_is_not_found_and_is_thawed_by_dropping_it,
    all_of_a_vmemmap_can_be_used_beside_frozen_memory,
    what_cannot_be_committed_is_thawed,
    a_part_of_a_whole_span_is_frozen_only_with_a_frame_for_its_bits,
    what_is_no_whole_page_or_another_vmemmaps_is_refused,
);
