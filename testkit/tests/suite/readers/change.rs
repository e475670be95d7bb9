//! Frozen memory becomes other pages, or stays as it is where somebody has a reference.

use super::bed::{Bed, on_bed, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::readers::NoReference;
use mm_core::vmemmap::{Change, Changed, FoldError, Vmemmap};
use std::sync::atomic::Ordering;
use testkit::on_backends;
use testkit::testbed::Sizes;

/// How many units the tests have.
const UNITS: u64 = 6;

/// Memory in base pages, and how it is to be used.
struct Online<'p> {
    base: DevPagemap<'p>,
    compound: DevPagemap<'p>,
    all: PfnRange,
    order: Order,
}

impl Online<'_> {
    fn unit(&self, index: u64) -> PfnRange {
        let first = self.all.start().saturating_add(index * self.order.frames());
        PfnRange::new(first, self.order.frames()).unwrap()
    }

    /// Units that are compound pages; the others are base pages.
    fn expect(&self, bed: &Bed<'_>, compound: &[u64]) {
        let order = |index| match compound.contains(&index) {
            true => self.order,
            false => Order::BASE,
        };
        let found: Vec<_> = (0..UNITS)
            .map(|unit| (self.unit(unit), order(unit)))
            .collect();
        bed.expect(self.all, &found);
        bed.audit();
        for index in 0..UNITS {
            let unit = self.unit(index);
            let is_compound = compound.contains(&index);
            // Owners have one reference to each page, and tails that are memory have none.
            for frame in [unit.start(), unit.start().saturating_add(1)] {
                let expected = u32::from(!is_compound || frame == unit.start());
                assert_eq!(own_count(bed, frame), Some(expected), "{frame}");
            }
        }
    }

    fn change(
        &self,
        bed: &mut Bed<'_>,
        change: Change,
        pagemap: &DevPagemap<'_>,
        frames: PfnRange,
    ) -> Changed {
        // SAFETY: 1: all CPUs translate by the machine's one table. 2: the owners' references are
        // the
        // test's, which does not use them.
        let changed = unsafe {
            bed.vmemmap
                .change_beside_readers(&mut bed.table, change, pagemap, frames, (1, 1))
        };
        let changed = changed.unwrap();
        assert_eq!(changed.error, None);
        changed
    }

    fn fold(&self, bed: &mut Bed<'_>, frames: PfnRange) -> Changed {
        self.change(bed, Change::Fold, &self.compound, frames)
    }

    /// Base pages again, with memory for each.
    fn split(&self, bed: &mut Bed<'_>, frames: PfnRange) -> Changed {
        let unfolded = self.change(bed, Change::Unfold, &self.compound, frames);
        let split = self.change(bed, Change::Reshape, &self.base, frames);
        assert_eq!(split.busy, unfolded.busy);
        unfolded
    }
}

/// The count in the descriptor of `frame`, which has memory of its own.
fn own_count(bed: &Bed<'_>, frame: Pfn) -> Option<u32> {
    let reader = bed.reader();
    let reading = reader.enter();
    let page = reading.page_of(frame).unwrap();
    page.own_descriptor().unwrap().references().get()
}

fn on_base_pages(kind: BackendKind, test: impl Fn(&mut Bed<'_>, &Online<'_>)) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    for tails in [Tails::PerCompound, Tails::PerOrder] {
        for huge_leaves in [false, true] {
            let ranges = [sizes.blocks(order, 4, UNITS)];
            on_bed(kind, |bed| {
                let base =
                    pagemap(&kind.model(), &ranges, Order::BASE).with_huge_leaves(huge_leaves);
                let region = bed.vmemmap.online(&mut bed.table, &base).unwrap();
                let online = Online {
                    base,
                    compound: pagemap(&kind.model(), &ranges, order)
                        .with_tails(tails)
                        .with_huge_leaves(huge_leaves),
                    all: ranges[0],
                    order,
                };
                online.expect(bed, &[]);
                test(bed, &online);
                bed.vmemmap.offline(&mut bed.table, region).unwrap();
            });
        }
    }
}

fn pages_become_others_and_cost_what_a_fold_makes_them(kind: BackendKind) {
    on_base_pages(kind, |bed, online| {
        let before = bed.audit();
        let reader = bed.reader();
        let head = |with: &dyn Fn(u64)| {
            let reading = reader.enter();
            let flags = reading.page_of(online.unit(2).start()).unwrap();
            with(flags.head().flags().load(Ordering::Relaxed));
        };
        {
            let reading = reader.enter();
            let page = reading.page_of(online.unit(2).start()).unwrap();
            page.head().flags().store(5, Ordering::Relaxed);
        }
        for round in 0..2 {
            let folded = online.fold(bed, online.all);
            assert_eq!((folded.folded.changed, folded.busy), (UNITS, 0), "{round}");
            online.expect(bed, &[0, 1, 2, 3, 4, 5]);
            head(&|flags| assert_eq!(flags, 5));
            let again = online.fold(bed, online.all);
            assert_eq!((again.folded.unchanged, again.busy), (UNITS, 0));
            let unfolded = online.split(bed, online.all);
            assert_eq!((unfolded.folded.changed, unfolded.busy), (UNITS, 0));
            online.expect(bed, &[]);
            head(&|flags| assert_eq!(flags, 5));
        }
        assert_eq!(bed.audit().descriptor_frames, before.descriptor_frames);
    });
}

fn a_page_in_use_keeps_its_unit_as_it_is(kind: BackendKind) {
    on_base_pages(kind, |bed, online| {
        let reader = bed.reader();
        let used = online.unit(3).last();
        let reference = reader.enter().reference(used).unwrap();
        let folded = online.fold(bed, online.all);
        assert_eq!((folded.busy, folded.first_busy), (1, Some(used)));
        assert_eq!(folded.folded.changed, UNITS - 1);
        drop(reference);
        online.expect(bed, &[0, 1, 2, 4, 5]);
        let used = online.unit(4);
        let reference = reader.enter().reference(used.last()).unwrap();
        let part = PfnRange::new(used.start(), 2 * online.order.frames()).unwrap();
        let split = online.split(bed, part);
        assert_eq!((split.busy, split.first_busy), (1, Some(used.start())));
        assert_eq!(reference.frames(), used);
        drop(reference);
        online.expect(bed, &[0, 1, 2, 4]);
    });
}

fn frozen_units_are_found_and_not_had_and_are_thawed_by_dropping_them(kind: BackendKind) {
    on_base_pages(kind, |bed, online| {
        let reader = bed.reader();
        // SAFETY: 1: as for the reader. 2: the owners' references are the test's, which uses none.
        let frozen = unsafe {
            bed.vmemmap
                .freeze_units(&bed.table, &online.compound, online.all, 1)
        };
        let frozen = frozen.unwrap();
        assert_eq!(
            (frozen.frames(), frozen.rest(), frozen.busy()),
            (online.all, None, 0)
        );
        let frame = online.unit(1).last();
        assert!(reader.enter().is_online(frame));
        assert_eq!(
            reader.enter().reference(frame).err(),
            Some(NoReference::Refused)
        );
        // Twice the same.
        // SAFETY: as above.
        let again = unsafe {
            bed.vmemmap
                .freeze_units(&bed.table, &online.compound, online.all, 1)
        };
        let again = again.unwrap();
        assert_eq!(again.busy(), UNITS);
        drop(again);
        assert_eq!(
            reader.enter().reference(frame).err(),
            Some(NoReference::Refused)
        );
        drop(frozen.wait());
        online.expect(bed, &[]);
        drop(reader.enter().reference(frame).unwrap());
    });
}

fn what_cannot_be_changed_is_thawed(kind: BackendKind) {
    on_base_pages(kind, |bed, online| {
        let folded = online.fold(bed, online.all);
        assert_eq!(folded.busy, 0);
        bed.frames.fail_after(0);
        // SAFETY: 1: as for the reader. 2: the owners' references are the test's, which uses none.
        let refused = unsafe {
            bed.vmemmap.change_beside_readers(
                &mut bed.table,
                Change::Unfold,
                &online.compound,
                online.all,
                (1, 7),
            )
        };
        bed.frames.no_more_faults();
        let refused = refused.unwrap();
        assert!(matches!(refused.error, Some(FoldError::OutOfFrames(_))));
        assert_eq!(refused.folded.changed, 0);
        online.expect(bed, &[0, 1, 2, 3, 4, 5]);
        let half = PfnRange::new(online.unit(1).start(), online.order.frames() / 2);
        if half.is_ok_and(|half| half.is_aligned(kind.model().vmemmap_page_order())) {
            // SAFETY: as above.
            let refused = unsafe {
                bed.vmemmap
                    .freeze_units(&bed.table, &online.base, half.unwrap(), 1)
            };
            let pages = online.unit(1);
            assert_eq!(refused.err(), Some(FoldError::SplitsPage { pages }));
        }
        // SAFETY: as above.
        let frozen = unsafe {
            bed.vmemmap
                .freeze_units(&bed.table, &online.compound, online.all, 1)
        };
        let quiescent = frozen.unwrap().wait();
        let root: Vec<_> = (0..kind.model().online_entries())
            .map(|_| mm_core::readers::OnlineEntry::new())
            .collect();
        let readers = mm_core::readers::Readers::new(kind.model(), &root, bed.kernel).unwrap();
        // SAFETY: 1: it brings nothing online, and is used for nothing that it would take. 2: the
        // root is
        // new.
        let other = unsafe { Vmemmap::with_readers(readers, bed.frames, bed.memory) };
        let refused = other.unwrap().commit_change(
            &mut bed.table,
            quiescent,
            Change::Unfold,
            &online.compound,
            1,
        );
        assert_eq!(refused.error, Some(FoldError::OtherVmemmap));
        online.expect(bed, &[0, 1, 2, 3, 4, 5]);
        let split = online.split(bed, online.all);
        assert_eq!(split.busy, 0);
    });
}

fn the_caller_names_the_references_of_new_pages(kind: BackendKind) {
    on_base_pages(kind, |bed, online| {
        let unit = online.unit(0);
        // SAFETY: 1: as for the reader. 2: the owners' references are the test's, which uses none.
        let changed = unsafe {
            bed.vmemmap.change_beside_readers(
                &mut bed.table,
                Change::Fold,
                &online.compound,
                unit,
                (1, 3),
            )
        };
        assert_eq!(changed.map(|changed| changed.busy), Ok(0));
        assert_eq!(own_count(bed, unit.start()), Some(3));
        // SAFETY: as above.
        let changed = unsafe {
            bed.vmemmap.change_beside_readers(
                &mut bed.table,
                Change::Unfold,
                &online.compound,
                unit,
                (3, 0),
            )
        };
        assert_eq!(changed.map(|changed| changed.busy), Ok(0));
        // Nobody owns it, and it can be frozen.
        let refused = bed.reader().enter().reference(unit.last()).err();
        assert_eq!(refused, Some(NoReference::Refused));
        // SAFETY: as above.
        let changed = unsafe {
            bed.vmemmap.change_beside_readers(
                &mut bed.table,
                Change::Reshape,
                &online.base,
                unit,
                (0, 1),
            )
        };
        assert_eq!(changed.map(|changed| changed.busy), Ok(0));
        online.expect(bed, &[]);
    });
}

on_backends!(radix:
    pages_become_others_and_cost_what_a_fold_makes_them,
    a_page_in_use_keeps_its_unit_as_it_is,
    frozen_units_are_found_and_not_had_and_are_thawed_by_dropping_them,
    what_cannot_be_changed_is_thawed,
    the_caller_names_the_references_of_new_pages,
);
