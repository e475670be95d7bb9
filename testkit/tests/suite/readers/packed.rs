//! Readers of memory with packed heads: pages, references, and what is frozen.

use super::bed::{Bed, on_bed, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::descriptor::Descriptor;
use mm_core::pagemap::{DevPagemap, Heads, Tables, Tails};
use mm_core::readers::{NoReference, PageReference, Put};
use mm_core::vmemmap::{FoldError, OfflineError};
use testkit::on_backends;
use testkit::testbed::Sizes;

/// Six pages, of which four are in one page of places and two in the next.
fn on_pages(kind: BackendKind, test: impl FnOnce(&mut Bed<'_>, &DevPagemap<'_>, PfnRange, Order)) {
    let sizes = Sizes::of(kind.model());
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, kind.model().descriptors_per_page() - 4, 6)];
    on_bed(kind, |bed| {
        let pagemap = pagemap(&kind.model(), &ranges, order)
            .with_heads(Heads::Packed)
            .with_tables(Tables::Shared);
        test(bed, &pagemap, ranges[0], order);
    });
}

fn pages_are_found_with_their_heads(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let model = kind.model();
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        bed.expect(frames, &[(frames, order)]);
        let reader = bed.reader();
        let reading = reader.enter();
        for first in (0..6).map(|page| frames.start().saturating_add(page << order.get())) {
            let last = first.saturating_add(order.frames() - 1);
            let of_first = reading.page_of(first).unwrap();
            of_first
                .head()
                .flags()
                .store(first.get(), std::sync::atomic::Ordering::Relaxed);
            let own = of_first.own_descriptor().unwrap();
            assert_eq!(
                own.flags().load(std::sync::atomic::Ordering::Relaxed),
                first.get()
            );
            for frame in [first.saturating_add(1), last] {
                let page = reading.page_of(frame).unwrap();
                assert_eq!(page.frames(), PfnRange::new(first, order.frames()).unwrap());
                assert!(page.own_descriptor().is_none());
                let head = page.head();
                assert_eq!(
                    head.flags().load(std::sync::atomic::Ordering::Relaxed),
                    first.get()
                );
                assert_eq!(head.order(), order);
            }
            // By a walk too.
            let described = bed.vmemmap.descriptor(&bed.table, first).unwrap();
            let flags = described.own().unwrap().flags();
            assert_eq!(
                flags.load(std::sync::atomic::Ordering::Relaxed),
                first.get()
            );
            assert!(
                bed.vmemmap
                    .descriptor(&bed.table, last)
                    .unwrap()
                    .own()
                    .is_none()
            );
        }
        drop(reading);
        let mut listed = bed.vmemmap.pages(&bed.table, frames);
        assert_eq!(listed.by_ref().take(6).count(), 6);
        assert!(listed.next().is_none());
        let listed = bed.vmemmap.pages(&bed.table, frames);
        for page in listed {
            assert_eq!(
                (page.order, page.heads, page.tails),
                (order, Heads::Packed, Tails::PerOrder)
            );
        }
        assert!(model.heads().is_some());
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        bed.expect(frames, &[]);
    });
}

fn references_are_counted_in_packed_heads(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        let reader = bed.reader();
        let first = frames.start().saturating_add(order.frames());
        let page = PfnRange::new(first, order.frames()).unwrap();
        let count = || {
            reader
                .enter()
                .page_of(first)
                .unwrap()
                .head()
                .references()
                .get()
        };
        let of = [first, first.saturating_add(1), page.last()];
        let references = of.map(|frame| reader.enter().reference(frame).unwrap());
        assert_eq!(count(), Some(4));
        for reference in &references {
            assert_eq!((reference.frames(), reference.order()), (page, order));
            assert_eq!(reference.head().references().get(), Some(4));
        }
        let [one, two, three] = references;
        assert_eq!(one.put(), Put::Shared);
        drop(two);
        let raw = three.into_raw();
        assert_eq!((raw, count()), (first, Some(2)));
        // SAFETY: 1: it came from `into_raw`. 2: once.
        let three = unsafe { PageReference::from_raw(reader, raw) };
        assert_eq!((three.first(), three.order()), (first, order));
        assert_eq!(three.put(), Put::Shared);
        // The neighbours' are their own.
        let other = reader
            .enter()
            .page_of(frames.start())
            .unwrap()
            .head()
            .references()
            .get();
        assert_eq!(other, Some(1));
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
        assert_eq!(
            reader.enter().reference(first).err(),
            Some(NoReference::NotOnline)
        );
    });
}

fn frozen_pages_go_offline_beside_their_neighbours(kind: BackendKind) {
    on_pages(kind, |bed, pagemap, frames, order| {
        let region = bed.vmemmap.online(&mut bed.table, pagemap).unwrap();
        let reader = bed.reader();
        let unit = order.max(kind.model().subsection());
        let start = frames.start().saturating_add(unit.frames());
        let piece = PfnRange::new(start, unit.frames()).unwrap();
        let other = reader.enter().reference(piece.last()).unwrap();
        // SAFETY: 1: as for `bed.reader`. 2: the one of each page is this test's.
        let busy = unsafe { bed.vmemmap.try_offline(&mut bed.table, pagemap, piece, 1) };
        assert_eq!(
            busy.map(drop),
            Err(OfflineError::Busy {
                first: other.first()
            })
        );
        assert_eq!(other.put(), Put::Shared);
        // SAFETY: 1 and 2: as above.
        let frozen = unsafe { bed.vmemmap.freeze(&bed.table, pagemap, piece, 1) }.unwrap();
        assert!(reader.enter().reference(piece.start()).is_err());
        assert!(reader.enter().reference(frames.start()).is_ok());
        let first = piece.start();
        let refused = bed.vmemmap.depopulate(&mut bed.table, pagemap, piece);
        assert_eq!(refused.map(drop), Err(OfflineError::Frozen { first }));
        drop(frozen);
        let reference = reader.enter().reference(piece.start()).unwrap();
        assert_eq!(reference.put(), Put::Shared);
        // SAFETY: 1 and 2: as above.
        unsafe { bed.vmemmap.try_offline(&mut bed.table, pagemap, piece, 1) }.unwrap();
        assert!(reader.enter().page_of(piece.start()).is_none());
        assert!(reader.enter().page_of(frames.start()).is_some());
        bed.audit();
        // SAFETY: 1 and 2: as above.
        let refused = unsafe { bed.vmemmap.freeze_units(&bed.table, pagemap, frames, 1) };
        let first = frames.start();
        assert_eq!(refused.map(drop), Err(FoldError::HeadsPacked { first }));
        bed.vmemmap
            .populate(&mut bed.table, pagemap, piece)
            .unwrap();
        bed.expect(frames, &[(frames, order)]);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

on_backends!(radix:
    pages_are_found_with_their_heads,
    references_are_counted_in_packed_heads,
    frozen_pages_go_offline_beside_their_neighbours,
);
