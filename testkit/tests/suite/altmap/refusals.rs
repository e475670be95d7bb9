//! Altmaps that do not fit, and where base pages end.

use super::pagemap;
use hosted::BackendKind;
use mm_core::addr::Order;
use mm_core::pagemap::{PagemapError, Tails};
use mm_core::vmemmap::{Plan, PlannedFrames};
use testkit::testbed::{Setup, Sizes};
use testkit::{OnBackend, on_backends};

fn an_altmap_that_does_not_fit_is_refused_by_name(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let unit = model.subsection().frames();
    let ranges = [sizes.blocks(order, 8, 2)];
    let elsewhere = sizes.blocks(order, 9, 1).take_first(unit).0;
    let too_much = ranges[0].take_first(order.frames() + unit).0;
    for reserved in [ranges[0], too_much, elsewhere] {
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
            let altmap = bed.altmaps()[0];
            let range = ranges[0];
            let expected = match reserved == elsewhere {
                true => PagemapError::AltmapElsewhere { reserved, range },
                false => PagemapError::NoCompoundPage {
                    reserved: reserved.frames(),
                    range,
                },
            };
            assert_eq!(plain.with_altmap(altmap).err(), Some(expected));
            // Base pages may describe themselves and nothing else.
            let base_pages = pagemap(&model, &ranges, Order::BASE, Tails::None);
            let fits = base_pages.with_altmap(altmap).is_ok();
            assert_eq!(fits, reserved != elsewhere);
        });
    }
}

fn plans_say_where_base_pages_end(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.natural().get() + 2).unwrap();
    let ranges = [sizes.blocks(order, 8, 2)];
    let reserved = ranges[0].take_first(3 * model.subsection().frames()).0;
    kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
        let plain = pagemap(&model, &ranges, order, Tails::PerCompound);
        let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
        let plan = Plan::new(&pagemap, ranges[0], bed.huge_leaf()).unwrap();
        let head = sizes.blocks(order, 9, 1).start();
        let runs: Vec<_> = plan.map(|run| (run.pages, run.order, run.frames)).collect();
        let in_reserved = reserved.frames() / model.descriptors_per_page();
        let in_compound = sizes.pages(order);
        assert_eq!(
            runs,
            [
                (in_reserved, Order::BASE, PlannedFrames::Own),
                (in_compound - in_reserved, Order::BASE, PlannedFrames::Own),
                (1, order, PlannedFrames::Own),
                (in_compound - 1, order, PlannedFrames::Tail { head }),
            ]
        );
    });
}

on_backends!(all:
    an_altmap_that_does_not_fit_is_refused_by_name,
    plans_say_where_base_pages_end,
);
