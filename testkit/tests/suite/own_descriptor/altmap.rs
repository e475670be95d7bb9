//! Altmaps, which need nothing of these descriptors.

use super::{OWN, Own, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::OnlineError;
use testkit::on_backends;
use testkit::testbed::{Costs, Setup, Sizes, Used};

fn the_altmap_needed_suffices_and_one_subsection_less_does_not(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.natural();
        let unit = model.subsection().frames();
        for tails in own.tails() {
            // Enough compound pages for two subsections of descriptors and some.
            let count = 3 * unit;
            let ranges = [sizes.blocks(order, 8, count)];
            let plain = pagemap(&model, &ranges, order, *tails).with_piece(Piece::Range);
            let reserved = plain.altmap_needed().unwrap();
            let smaller = reserved.take_first(reserved.frames() - unit).0;
            own.testbed(kind, &Setup::new(&ranges).with_altmap(smaller), |bed| {
                let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
                let before = bed.snapshot();
                let refused = bed.online(&pagemap).map(drop);
                let exhausted = OnlineError::AltmapExhausted { reserved: smaller };
                assert_eq!(refused, Err(exhausted));
                bed.assert_unchanged(&before, "exhausted");
            });
            own.testbed(kind, &Setup::new(&ranges).with_altmap(reserved), |bed| {
                let altmap = bed.altmaps()[0];
                let pagemap = plain.with_altmap(altmap).unwrap();
                let base_pages = pagemap.base_pages().unwrap();
                let region = bed.online(&pagemap).unwrap();
                let rest = ranges[0].split_at(base_pages.frames()).1.unwrap();
                let used = [
                    Used::base_pages(base_pages, false),
                    Used::compound(rest, order, *tails),
                ];
                let costs = Costs::of(kind, &model);
                let expected = costs.report(&used, Tables::Private);
                let expected = costs.with_altmap(expected, reserved);
                assert_eq!(bed.audit(), expected);
                let in_ram = u64::from(*tails == Tails::PerOrder);
                assert_eq!(altmap.in_use(), expected.descriptor_frames - in_ram);
                bed.assert_described(base_pages, Order::BASE);
                bed.assert_described(rest.take_first(8 * order.frames()).0, order);
                bed.offline(region);
            });
        }
    }
}

/// 16 GiB at 2 MiB: half the base pages' descriptors, and as many frames for compound pages.
fn sixteen_gib_of_32_byte_descriptors(kind: BackendKind) {
    let model = Own::Slim.model(kind);
    let start = PhysAddr::new(24 << 30);
    let ranges = [PfnRange::from_bytes(start, 16 << 30, model.granule()).unwrap()];
    let order = Sizes::of(model).order(2 << 20);
    // n subsections hold 512 n frames and need 4 n + own (8192 - n), and n / 2 for their counts.
    for (tails, own, subsections, in_ram) in
        [(Tails::PerCompound, 2, 33, 0), (Tails::PerOrder, 1, 17, 1)]
    {
        let plain = pagemap(&model, &ranges, order, tails);
        let reserved = plain.altmap_needed().unwrap();
        assert_eq!(reserved.frames(), subsections * 512);
        let setup = Setup::new(&ranges).with_altmap(reserved);
        Own::Slim.testbed(kind, &setup, |bed| {
            let altmap = bed.altmaps()[0];
            let region = bed.online(&plain.with_altmap(altmap).unwrap()).unwrap();
            let needed = 4 * subsections + own * (8192 - subsections);
            let report = bed.audit();
            assert_eq!(altmap.in_use(), needed);
            assert_eq!(report.descriptor_frames, needed + in_ram);
            assert_eq!(report.count_frames, subsections / 2 + 1);
            bed.offline(region);
        });
    }
}

fn fold_and_unfold_by_the_altmap(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.natural();
        let ranges = [sizes.blocks(order, 8, 12)];
        let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_huge_leaves(false);
        let reserved = base.altmap_needed().unwrap();
        for tails in own.tails() {
            own.testbed(kind, &Setup::new(&ranges).with_altmap(reserved), |bed| {
                let altmap = bed.altmaps()[0];
                let base = base.with_altmap(altmap).unwrap();
                let folded_as = pagemap(&model, &ranges, order, *tails).with_huge_leaves(false);
                let folded_as = folded_as.with_altmap(altmap).unwrap();
                let region = bed.online(&base).unwrap();
                let before = bed.audit();
                let in_use = altmap.in_use();
                let rest = sizes.blocks(order, 12, 8);
                bed.fold(&folded_as, rest).map(drop).unwrap();
                bed.audit();
                bed.assert_described(rest, order);
                let own = if *tails == Tails::PerOrder { 1 } else { 2 };
                let saved = 8 * (sizes.pages(order) - own);
                assert_eq!(altmap.in_use(), in_use - saved);
                bed.unfold(&folded_as, rest).map(drop).unwrap();
                assert_eq!(bed.audit(), before);
                bed.assert_described(rest, order);
                bed.offline(region);
            });
        }
    }
}

on_backends!(pages_of_4k: sixteen_gib_of_32_byte_descriptors);

on_backends!(all:
    the_altmap_needed_suffices_and_one_subsection_less_does_not,
    fold_and_unfold_by_the_altmap,
);
