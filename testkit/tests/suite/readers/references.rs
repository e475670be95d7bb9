//! References to pages.

use super::bed::{Bed, on_bed, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use mm_core::pagemap::Tails;
use mm_core::readers::{NoReference, PageReference, Put};
use testkit::on_backends;
use testkit::testbed::Sizes;

/// Two pages, of which one is given to `test`.
fn with_a_page(kind: BackendKind, test: impl FnOnce(&Bed<'_>, PfnRange)) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        let ranges = [sizes.blocks(sizes.natural(), 5, 2)];
        let pagemap = pagemap(&kind.model(), &ranges, sizes.natural()).with_tails(Tails::PerOrder);
        let region = bed.vmemmap.online(&mut bed.table, &pagemap).unwrap();
        test(bed, sizes.blocks(sizes.natural(), 6, 1));
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

fn references_of_any_frame_are_those_of_its_page(kind: BackendKind) {
    with_a_page(kind, |bed, page| {
        let reader = bed.reader();
        let count = || {
            let reading = reader.enter();
            reading
                .page_of(page.last())
                .unwrap()
                .head()
                .references()
                .get()
        };
        let frames = [page.start(), page.start().saturating_add(1), page.last()];
        let references = frames.map(|frame| reader.enter().reference(frame).unwrap());
        assert_eq!(count(), Some(4));
        for reference in &references {
            assert_eq!(reference.frames(), page);
            assert_eq!(reference.head().references().get(), Some(4));
        }
        let [one, two, three] = references;
        assert_eq!(one.put(), Put::Shared);
        drop(two);
        let raw = three.into_raw();
        assert_eq!((raw, count()), (page.start(), Some(2)));
        // SAFETY: 1: it came from `into_raw`. 2: once.
        let three = unsafe { PageReference::from_raw(reader, raw) };
        assert_eq!(
            (three.first(), three.order()),
            (page.start(), Sizes::of(kind.model()).natural())
        );
        assert_eq!(three.put(), Put::Shared);
        assert_eq!(bed.kernel.take_without_owner(), []);
    });
}

fn the_last_reference_is_told_of_once(kind: BackendKind) {
    with_a_page(kind, |bed, page| {
        let reader = bed.reader();
        let order = Sizes::of(kind.model()).natural();
        // The owner's.
        // SAFETY: 1: the one that memory comes online with. 2: once.
        let owner = || unsafe { PageReference::from_raw(reader, page.start()) };
        let other = reader.enter().reference(page.last()).unwrap();
        drop(owner());
        assert_eq!(bed.kernel.take_without_owner(), []);
        drop(other);
        assert_eq!(bed.kernel.take_without_owner(), [(page.start(), order)]);
        // Nobody owns it.
        let refused = reader.enter().reference(page.last()).err();
        assert_eq!(refused, Some(NoReference::Refused));
        {
            let reading = reader.enter();
            let found = reading.page_of(page.last()).unwrap();
            assert!(found.head().references().own());
        }
        let reference = reader.enter().reference(page.last()).unwrap();
        assert_eq!(reference.put(), Put::Shared);
        assert_eq!(owner().put(), Put::Last);
        assert_eq!(bed.kernel.take_without_owner(), [], "whoever put it knows");
    });
}

fn what_is_not_online_is_refused(kind: BackendKind) {
    with_a_page(kind, |bed, page| {
        let reader = bed.reader();
        let behind = page.last().saturating_add(1);
        let last = kind.model().all_frames().last();
        for frame in [behind, last, last.saturating_add(1)] {
            let refused = reader.enter().reference(frame).err();
            assert_eq!(refused, Some(NoReference::NotOnline), "{frame}");
            assert!(reader.enter().page_of(frame).is_none());
        }
    });
}

fn base_pages_have_references_of_their_own(kind: BackendKind) {
    let sizes = Sizes::of(kind.model());
    on_bed(kind, |bed| {
        let ranges = [sizes.blocks(sizes.natural(), 5, 1)];
        let base = pagemap(&kind.model(), &ranges, Order::BASE);
        let region = bed.vmemmap.online(&mut bed.table, &base).unwrap();
        let reader = bed.reader();
        let (first, last) = (ranges[0].start(), ranges[0].last());
        let references = [first, last].map(|frame| reader.enter().reference(frame).unwrap());
        for (reference, frame) in references.iter().zip([first, last]) {
            assert_eq!((reference.first(), reference.order()), (frame, Order::BASE));
            assert_eq!(reference.head().references().get(), Some(2));
        }
        drop(references);
        bed.vmemmap.offline(&mut bed.table, region).unwrap();
    });
}

on_backends!(radix:
    references_of_any_frame_are_those_of_its_page,
    the_last_reference_is_told_of_once,
    what_is_not_online_is_refused,
    base_pages_have_references_of_their_own,
);
